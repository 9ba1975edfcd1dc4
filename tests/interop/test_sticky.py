"""
Servers with names behind proxies that route by the names: docs/howto/sticky-sessions.rst.

The proxies see one address for all clients, and set no cookie.
"""

from __future__ import annotations

import json
import re
from urllib.error import HTTPError
from urllib.request import urlopen

from twisted.internet.threads import deferToThread

from tests.interop import proxies
from tests.interop.brokers import Redis
from tests.interop.clients import javaScript, requireJavaScriptClient
from tests.interop.test_workers import ADDRESS, HANDSHAKE, PLACE, WorkersTestCase
from tests.support import Program, startProgram


class NamesTests(WorkersTestCase):
    """
    Three servers of one cluster, of which one has two workers.
    """

    def setUp(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        super().setUp()

    async def servers(self) -> list[int]:
        """Start the servers, and return their ports."""
        redis = await Redis(self).start()
        self.programs: list[Program] = []
        for name in "abc":
            workers = ["--workers", "2"] if name == "c" else []
            self.programs.append(
                self.start(
                    *("--app", "shop:server", "--listen", PLACE, "--name", name, "--bus", redis.url),
                    *("--trusted-proxy", "127.0.0.1", *workers),
                )
            )
        ports = []
        for program in self.programs:
            await program.whenPrinted("serving Socket.IO at")
            await program.whenPrinted(f"the link to redis://127.0.0.1:{redis.port} is ready")
            found = ADDRESS.search(program.output)
            assert found is not None
            ports.append(int(found[1].rpartition(":")[2]))
        return ports

    async def play(self, url: str, transports: list[str], by: str) -> None:
        """Let clients post to one another."""
        options = {"url": url, "package": "socket.io-client-4", "first": 0, "count": 24, "all": 24}
        options |= {"rooms": 4, "messages": 10, "transports": [transports], "by": by}
        client = startProgram(self, javaScript("cores.cjs", json.dumps(options)), cwd=str(self.folder))
        workers = set(json.loads(await client.whenPrinted('{"entered"', 180))["entered"])
        client.transport.write(b"go\n")
        line = json.loads(await client.whenPrinted('"wrong"', 180))
        self.assertEqual((line["got"], line["wrong"], line["lost"]), (4 * 6 * 6 * 10, [], []), client.output)
        client.transport.write(b"bye\n")
        await client.whenEnded()
        self.assertGreaterEqual(len(workers), 3)

    async def played(self, proxy: proxies.Proxy) -> None:
        """Have clients come through a proxy by each transport: each request finds its session."""
        await proxy.start()
        for by, transports in (
            ("fresh", ["polling"]),
            ("pool", ["polling"]),
            ("fresh", ["polling", "websocket"]),
        ):
            await self.play(proxy.url, transports, by)
        with urlopen(proxy.url + HANDSHAKE, timeout=30) as response:
            self.assertIsNone(response.headers["Set-Cookie"])
            sid = json.loads(response.read()[1:])["sid"]
        self.assertRegex(sid, r"\A[A-Za-z0-9_-]{20}\.[abc]\Z")
        # The name of another server, and of none: refused there, and nobody else notices.
        for other in ("abc".replace(sid[-1], "")[0], "nobody"):
            code, body = await deferToThread(self.poll, proxy.url, f"{sid[:20]}.{other}")
            self.assertEqual((code, body), (400, b'{"code":1,"message":"Session ID unknown"}'))
        for program in self.programs:
            await self.stopped(program)
            self.assertFalse(re.search(r"sid.*\.[abc]\b", program.output), "a sid in the log")

    def poll(self, url: str, sid: str) -> tuple[int, bytes]:
        try:
            with urlopen(f"{url}{HANDSHAKE}&sid={sid}", timeout=30) as response:
                return response.status, response.read()
        except HTTPError as error:
            return error.code, error.read()

    async def test_nginx(self) -> None:
        await self.played(proxies.NginxOfNames(self, await self.servers()))

    async def test_haproxy(self) -> None:
        """Connections to the servers are shared by all clients, and sessions opened in turn."""
        edits = {"balance leastconn": "balance roundrobin\n    http-reuse always"}
        await self.played(proxies.HAProxyOfNames(self, await self.servers(), edits))
