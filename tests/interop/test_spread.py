"""
Topics spread over two real Redis servers: servers, emitters, and one of the two killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.task import LoopingCall, deferLater

from tests.interop.brokers import Redis
from tests.interop.clients import python
from tests.interop.test_emitters import FIRST, SECOND, EmittersTestCase
from tests.interop.test_link import BACKOFF, LinkTestCase
from tests.support import ROOT, run
from txrealtime.cluster.bus.spread import Buses
from txrealtime.cluster.bus.url import busesFromURL
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.link.link import LinkStatus
from txrealtime.cluster.link.links import Links

SECRET = "s3cr3t"
TOPICS = [f"txrealtime,/,room {number}" for number in range(40)]


class ServersTests(EmittersTestCase):
    def heard(self, client: str) -> list[str]:
        return [line for line in self.clients.lines if line.startswith(f"{client} ")]

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = reactor.seconds() + 60
        while not condition():
            self.assertLess(reactor.seconds(), deadline, self.clients.output)
            await deferLater(reactor, 0.02)

    async def test_emitters(self) -> None:
        redises = [await Redis(self, requirepass=SECRET).start() for _ in range(2)]
        urls = [redis.url.replace("//", f"//:{SECRET}@") for redis in redises]
        await self.serve(",".join(urls), "?key=shop")
        for kind in ("Emitter", "DeferredEmitter"):
            await self.emit(*python("emitters.py", kind, self.bus))
        command = [
            sys.executable,
            "-m",
            "txrealtime",
            "emit",
            "--bus",
            ",".join(reversed(urls)) + "?key=shop",
        ]
        run(*command, "last", cwd=ROOT)
        # Each round is for client 0; the first one disconnects client 1.  Rooms have no order together.
        await self.clients.whenPrinted('0 ["last"]')
        await self.until(lambda: len(self.heard("0")) == 2 * len(FIRST) + 1)
        self.assertEqual(sorted(self.heard("0")), sorted([*FIRST, *FIRST, '0 ["last"]']))
        self.assertLessEqual(set(self.heard("1")), set(SECOND))
        shares = [
            [
                int(line.partition("calls=")[2].split(",")[0])
                for line in stats.splitlines()
                if "_publish:" in line
            ]
            for stats in [await redis.cli("INFO", "commandstats") for redis in redises]
        ]
        self.assertTrue(all(shares), shares)  # both had some


class KilledTests(LinkTestCase):
    def links(self, url: str) -> Links:
        choice, rest = DialectChoice.fromURL(url)
        buses = busesFromURL(rest, choice.spread)
        assert isinstance(buses, Buses)
        links = Links(buses, reactor, heartbeat=0.5, heartbeatTimeout=10.0, backoff=BACKOFF)
        self.addCleanup(links.stop)
        return links

    async def test_onlyItsTopicsSuffer(self) -> None:
        redises = [await Redis(self, requirepass=SECRET).start() for _ in range(2)]
        url = ",".join(redis.url.replace("//", f"//:{SECRET}@") for redis in redises)
        speaker, hearer = self.links(url), self.links(url)
        heard: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        for topic in TOPICS:
            hearer.subscribe(topic, lambda topic, payload: heard[topic].append(int(payload)))
        for links in (speaker, hearer):
            links.start()
            await links.whenReady()
        spread = DialectChoice.fromURL(url)[0].spread
        assert spread is not None
        owners = {topic: spread.ownerOf(topic) for topic in TOPICS}
        self.assertEqual(set(owners.values()), {0, 1})
        said = 0

        def say() -> None:
            nonlocal said
            for topic in TOPICS:
                speaker.publish(topic, b"%d" % said)
            said += 1

        saying = LoopingCall(say)
        saying.start(0.01)
        await deferLater(reactor, 0.3)
        ended = said
        await redises[1].stop()
        await self.until(lambda: speaker.status == hearer.status == LinkStatus.PARTLY)
        before = said
        # None waits for the other, which is still away.
        others = [heard[topic] for topic in TOPICS if owners[topic] == 0]
        await self.until(lambda: all(numbers and numbers[-1] > before + 100 for numbers in others))
        await redises[1].start()
        await self.until(lambda: speaker.status == hearer.status == LinkStatus.READY)
        back = said
        await deferLater(reactor, 0.3)
        saying.stop()
        await self.until(lambda: all(numbers and numbers[-1] == said - 1 for numbers in heard.values()))
        lost = 0
        for topic, numbers in heard.items():
            self.assertEqual(numbers, sorted(set(numbers)))  # in order, and none twice
            if owners[topic] == 0:
                self.assertEqual(numbers, list(range(said)))
            self.assertTrue({*range(back, said)}.issubset(numbers))
            lost += len({*range(ended)}.difference(numbers))
        # What waited meanwhile is lost too if the hearer comes back a second later than the speaker.
        self.assertLessEqual(lost, speaker.counts.unconfirmed)
        self.assertEqual([link.counts.outages for link in speaker.links], [0, 1])
        self.assertEqual(speaker.links[0].counts.unconfirmed, 0)
        self.assertEqual(speaker.counts.dropped, 0)
        self.assertLogged(f"the link to {redises[1].url} is deaf", 2)
        self.assertLogged(f"the link to {redises[0].url} is deaf", 0)
        self.assertNoSecrets()
