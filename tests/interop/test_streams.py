"""
The bus over a stream of Redis: nothing is lost in an outage, nothing comes twice, and what Redis has trimmed
is counted.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.interop.brokers import Redis
from tests.interop.test_link import SOON, CountingTestCase
from txrealtime.cluster.link.link import LinkStatus


class StreamFaultsTests(CountingTestCase):
    """
    The faults of tests/interop/test_link.py, after which nothing is missing.
    """

    async def begin(self, query: str = "", **options: object) -> None:
        self.redis = await Redis(self, appendonly="yes", appendfsync="always").start()
        self.late: list[int] = []
        url = f"redis+streams://127.0.0.1:{self.redis.port}{query}"
        await self.count(url, url, **options)

    async def deaf(self) -> None:
        await self.until(lambda: self.speaker.status is self.listener.status is LinkStatus.DEAF)

    async def assertComplete(self) -> None:
        await self.recovered()
        self.assertEqual(await self.finished(), [])
        counts = self.speaker.counts
        self.assertEqual((counts.dropped, counts.unconfirmed, counts.refused), (0, 0, 0))
        self.assertEqual(self.listener.counts.trimmed, 0)

    async def test_killedAndRestarted(self) -> None:
        await self.begin()
        for _ in range(3):
            for _ in range(200):
                self.say(b"x" * 1000)
            await deferLater(reactor, 0.004)
            await self.redis.stop()
            await self.deaf()
            await deferLater(reactor, 0.5)
            await self.redis.start()
            await self.recovered()
        await self.assertComplete()

    async def test_paused(self) -> None:
        await self.begin(heartbeatTimeout=SOON)
        self.redis.pause()
        for _ in range(2000):
            self.say(b"x" * 1000)
        await self.deaf()
        await deferLater(reactor, 1)
        self.redis.resume()
        await self.assertComplete()

    async def test_pausedUntilTheQueueIsFull(self) -> None:
        """The queue drops its oldest messages and counts them, and nothing else is missing."""
        await self.begin(maxQueued=100_000, heartbeatTimeout=SOON)
        self.redis.pause()
        await self.until(lambda: self.speaker.status is LinkStatus.DEAF)
        for _ in range(1000):
            self.say(b"x" * 1000)
        self.redis.resume()
        await self.recovered()
        missing = await self.finished()
        self.assertEqual(len(missing), self.speaker.counts.dropped)
        self.assertGreater(len(missing), 800)

    async def test_everyConnectionCut(self) -> None:
        """The subscriber goes on where it was, and the publisher sends again what Redis did not take."""
        await self.begin()
        for _ in range(3):
            for _ in range(5):
                for _ in range(50):
                    self.say(b"x" * 1000)
                await self.redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await self.recovered()
        await self.assertComplete()
        self.assertGreaterEqual(self.listener.counts.outages, 3)

    async def test_trimmedTooEarly(self) -> None:
        """The listener is away for longer than the stream reaches back: it counts each message."""
        await self.begin("?maxlen=300")
        told: list[int] = []
        self.listener.trimmed = lambda: told.append(self.listener.counts.trimmed)
        away = reactor.seconds()
        self.listener._incoming.reconnecting.drop("a test")
        stopped = self.listener._incoming.reconnecting
        stopped._delayed.reset(100)
        for _ in range(3000):
            self.say()
        await self.until(lambda: not self.speaker._outgoing.reconnecting.connection.unconfirmed)
        stopped._delayed.reset(0)
        await self.recovered()
        away = reactor.seconds() - away
        missing = await self.finished()
        self.assertGreater(len(missing), 2000)
        self.assertEqual(missing, list(range(missing[0], missing[0] + len(missing))), "one gap")
        beats = self.listener.counts.trimmed - len(missing)  # of the speaker
        self.assertTrue(0 <= beats <= away / 0.5 + 2, beats)
        self.assertEqual(told, [self.listener.counts.trimmed])
        self.assertTrue([line for line in self.logged if "has trimmed messages" in line])

    async def test_emptied(self) -> None:
        """A stream that is deleted is a gap, and the servers go on with the next one."""
        await self.begin()
        told: list[int] = []
        self.listener.trimmed = lambda: told.append(1)
        await self.redis.cli("DEL", "txrealtime:stream")
        await self.until(lambda: told)
        await self.recovered()
        await self.finished()
