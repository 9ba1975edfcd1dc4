"""
A rolling restart behind the documented nginx: browsers' clients are moved, and none fails to connect.
"""

from __future__ import annotations

import json

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop import proxies
from tests.interop.brokers import Redis
from tests.interop.clients import RealtimeServer, javaScript, requireJavaScriptClient
from tests.support import startProgram

CLIENTS = 40


class RollingTests(TestCase):
    timeout = 300

    async def test_twoServers(self) -> None:
        """Servers with one Redis, each stopped by SIGTERM and started again."""
        requireJavaScriptClient("socket.io-client-4")
        redis = await Redis(self).start()
        options = ["--app", "tests.interop.app:server", "--bus", redis.url, "--trusted-proxy", "127.0.0.1"]
        servers = [RealtimeServer(self, *options) for _ in range(2)]
        for server in servers:
            await server.start()
        nginx = proxies.NginxOfCluster(self, [server.port for server in servers])
        await nginx.start()

        clients = startProgram(self, javaScript("rolling.cjs", nginx.url, str(CLIENTS)))
        await clients.whenPrinted('{"all":0}')
        gone = 0
        for server in servers:
            await server.stop()
            await deferLater(reactor, 1)
            await server.start()
            # Those of this server come back, on either.
            while f'{{"all":{gone}}}' in clients.lines[-1]:
                await deferLater(reactor, 0.1)
            gone = json.loads(clients.lines[-1])["all"]
        clients.transport.closeStdin()
        await clients.whenEnded()
        report = json.loads(clients.output.splitlines()[-1])
        self.assertEqual(report["errors"], [])
        self.assertEqual(report["heard"], ["the end"] * CLIENTS)
        # All were moved, since either server had some and both were stopped.
        self.assertTrue(all(report["disconnects"]), report)
        for server in servers:
            await server.stop()
