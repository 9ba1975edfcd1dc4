"""
Servers of txrealtime among Node's servers with the Streams adapter.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import RealtimeServer, javaScript, requireJavaScriptClient
from tests.interop.test_clusters import STEPS, played, startMember


class MembersTests(TestCase):
    """
    Two servers of each kind, each with two clients that check what they get.
    """

    timeout = 200

    async def setUp(self) -> None:
        requireJavaScriptClient("@socket.io/redis-streams-adapter")
        self.redis = await Redis(self).start()

    async def play(self, streams: int, *options: str) -> None:
        bus = f"{self.redis.url.replace('redis', 'redis+streams', 1)}?dialect=node-streams&streams={streams}"
        servers = [
            RealtimeServer(self, "--app", "tests.interop.member:server", "--bus", bus, *options)
            for _ in range(2)
        ]
        for server in servers:
            await server.start()
        node = javaScript("member.cjs", "PORT", self.redis.url, str(streams))
        others = [await startMember(self, node) for _ in range(2)]
        urls = (others[0], servers[0].url, others[1], servers[1].url)
        self.assertEqual(await played(self, javaScript("cluster.cjs", "node-streams", *urls)), STEPS)
        for server in servers:
            await server.stop()

    async def test_withoutRecovery(self) -> None:
        await self.play(1)

    async def test_withRecovery(self) -> None:
        """Over several streams, and with this server's own events on their way through them."""
        await self.play(3, "--recovery-window", "60")
