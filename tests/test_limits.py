"""
Limits on the number of clients, on the rate of one client, and on the time of a request.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import CONTINUATION, TEXT, Link, WireTestCase, readResponse
from tests.talk import TalkTestCase
from txrealtime.engineio.http.fastpath import EngineChannel
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.limits import Tally, networkOf
from txrealtime.errors import ConnectionRejected, LimitExceeded
from txrealtime.service.listener import _Shortage


def warned(events: list[LogEvent]) -> list[str]:
    """Return the texts of the warnings."""
    return [formatEvent(event) for event in events if event["log_level"].name == "warn"]


class TallyTests(SynchronousTestCase):
    def test_networks(self) -> None:
        for address, network in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
            ("unix", "unix"),
            ("", ""),
        ):
            self.assertEqual(networkOf(address), network)

    def test_off(self) -> None:
        tally = Tally("things", 0, 0)
        for _ in range(1000):
            tally.add("192.0.2.7")
        self.assertFalse(tally.counts or tally.isFull or tally.isFullFor("192.0.2.7"))

    def test_inAll(self) -> None:
        tally = Tally("things", 2, 0)
        self.assertTrue(tally.counts)
        tally.add("192.0.2.7")
        self.assertFalse(tally.isFull)
        tally.add("192.0.2.8")
        self.assertTrue(tally.isFull)
        tally.remove("192.0.2.7")
        self.assertFalse(tally.isFull or tally.isFullFor("192.0.2.8"))

    def test_perAddress(self) -> None:
        tally = Tally("things", 0, 2)
        self.assertTrue(tally.counts)
        for address in ("2001:db8::1", "2001:db8::2"):
            self.assertFalse(tally.isFullFor(address))
            tally.add(address)
        self.assertTrue(tally.isFullFor("2001:db8::3"))
        self.assertFalse(tally.isFullFor("192.0.2.7") or tally.isFull)
        tally.remove("2001:db8::2")
        self.assertFalse(tally.isFullFor("2001:db8::3"))
        tally.remove("2001:db8::1")
        tally.add(None)
        tally.remove(None)

    def test_forgetsWhoIsGone(self) -> None:
        tally = Tally("things", 0, 2)
        for number in range(1000):
            tally.add(f"192.0.2.{number % 256}")
        for number in range(1000):
            tally.remove(f"192.0.2.{number % 256}")
        self.assertEqual(len(tally._byNetwork), 0)

    def test_toldOnce(self) -> None:
        tally = Tally("things", 2, 1)
        tally.add("192.0.2.7")
        with capturedLogs() as events:
            for _ in range(10):
                tally.isFullFor("192.0.2.7")
        self.assertEqual(
            warned(events),
            [
                "1 things of 192.0.2.7, as many as maxConnectionsPerAddress allows: no more are taken; "
                "raise it (--max-connections-per-address); if the address is a proxy's, set "
                "trustedProxies (--trusted-proxy)"
            ],
        )
        tally.add("192.0.2.8")
        with capturedLogs() as events:
            for _ in range(10):
                self.assertTrue(tally.isFull)
            tally.remove("192.0.2.7")
            tally.add("192.0.2.7")
            self.assertTrue(tally.isFull and tally.isFullFor("192.0.2.7"))
        self.assertEqual(len(warned(events)), 3)


class SessionTests(WireTestCase):
    """The count of sessions, whatever their transport and site, by the address that a proxy reports."""

    def test_inAll(self) -> None:
        self.makeEngine(maxConnections=2)
        self.openPolling()
        client = self.openWebSocket(address="192.0.2.8")
        full = (503, 3, "Bad request: the server is full")
        self.assertEqual(self.get().answer.error, full)
        refused = self.webSocket().response
        assert refused is not None
        self.assertEqual(refused.error, full)
        client.link.lose()
        self.openPolling()

    def test_perAddress(self) -> None:
        self.makeEngine(maxConnectionsPerAddress=2, trustedProxies="10.0.0.0/8")
        for transport in (self.openPolling, self.openWebSocket):
            transport(address="10.0.0.1", headers={"X-Forwarded-For": "192.0.2.7"})
        full = (429, 3, "Bad request: too many sessions of this address")
        self.assertEqual(self.get(address="192.0.2.7").answer.error, full)
        # An untrusted client's report of another address is not believed.
        forged = self.get(address="192.0.2.7", headers={"X-Forwarded-For": "192.0.2.9"})
        self.assertEqual(forged.answer.error, full)
        self.openPolling(address="192.0.2.8")
        self.openPolling(address="10.0.0.1", headers={"X-Forwarded-For": "192.0.2.9"})

    def test_upgradeIsNoOther(self) -> None:
        self.makeEngine(maxConnectionsPerAddress=1)
        sid = self.openPolling()
        client = self.upgrade(sid)
        client.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])
        self.assertEqual(self.get().answer.status, 429)
        client.link.lose()
        self.openPolling()

    def test_everyEndCounts(self) -> None:
        """Every kind of end makes room again."""
        self.makeEngine(maxConnections=1)
        for _ in range(3):
            self.post(self.openPolling(), b"1")
            self.openWebSocket().send("1")
            self.openWebSocket().sendFrame(TEXT, b"\xff")
            self.openPolling()
            self.session.close()
            self.clock.advance(31)
            self.openPolling()
            self.clock.pump([1] * 46)  # nobody answers the heartbeat
        self.assertEqual(self.engine.sessions, {})


class SiteTests(WireTestCase):
    """The count of connections to an EngineSite, including silent ones."""

    fastPath = True

    def test_inAll(self) -> None:
        self.makeEngine(maxConnections=3)
        links = [Link(f"192.0.2.{number}").connect(self.site) for number in range(3)]
        with capturedLogs() as events:
            late = [Link().connect(self.site) for _ in range(5)]
        self.assertEqual({link.disconnecting for link in late}, {True})
        self.assertEqual(
            warned(events),
            [
                "3 connections, as many as maxConnections allows: no more are taken; raise maxConnections "
                "(--max-connections), or add servers"
            ],
        )
        self.assertEqual(self.engine.counts.refused, {"full": 5})
        self.assertEqual({link.disconnecting for link in links}, {False})
        for link in late:
            link.lose()
        links[0].lose()
        self.assertFalse(Link().connect(self.site).disconnecting)
        self.assertTrue(Link().connect(self.site).disconnecting)

    def test_perAddress(self) -> None:
        self.makeEngine(maxConnectionsPerAddress=2, trustedProxies="10.0.0.1")
        for _ in range(2):
            self.assertFalse(Link("192.0.2.7").connect(self.site).disconnecting)
        self.assertTrue(Link("192.0.2.7").connect(self.site).disconnecting)
        self.assertEqual(self.engine.counts.refused, {"address": 1})
        self.assertFalse(Link("192.0.2.8").connect(self.site).disconnecting)
        for _ in range(10):
            self.assertFalse(Link("10.0.0.1").connect(self.site).disconnecting)

    def test_whoeverHasItAtTheEnd(self) -> None:
        """A connection counts until it is lost, whatever it has become."""
        for shortWays in (True, False):
            self.makeEngine(maxConnections=1, shortWays=shortWays)
            for _ in range(3):
                client = self.openWebSocket()
                self.assertTrue(Link().connect(self.site).disconnecting)
                client.link.lose()
                link = Link().connect(self.site)
                link.deliver(self.requestBytes("GET", "/other"))
                self.assertIn(b"404", link.take())
                link.lose()
                self.get("unknown").drop()

    def test_off(self) -> None:
        """Without a limit, a connection begins on the fast path at once."""
        link = Link().connect(self.site)
        self.assertIsInstance(link.protocol, EngineChannel)
        self.assertNotIn("connectionLost", vars(link))


class RateTests(WireTestCase):
    def test_off(self) -> None:
        client = self.openWebSocket()
        self.assertIs(self.session.receiver, self.owner)
        for _ in range(1000):
            client.send("4x")
        self.assertTrue(client.link.reading)
        self.assertEqual(len(self.owner.heard), 1000)

    def test_messages(self) -> None:
        self.makeEngine(maxMessageRate=10)
        client = self.openWebSocket()
        for _ in range(10):
            client.send("4x")
        self.assertTrue(client.link.reading)
        client.send("4x")
        self.assertFalse(client.link.reading)
        for _ in range(100):
            client.send("4x")  # waits in TCP
        self.assertEqual(len(self.owner.heard), 11)
        heard = []
        for _ in range(100):
            self.clock.advance(0.1)
            client.link.turn()
            heard.append(len(self.owner.heard))
        # Link delivers all waiting data in one read; each message is heard, none is lost.
        self.assertEqual(heard[-1], 111)
        self.assertFalse(client.link.reading)
        self.assertEqual(self.owner.ends, [])

    def test_inTheLongRun(self) -> None:
        """A client that sends as fast as it is read reaches exactly the allowed rate."""
        self.makeEngine(maxMessageRate=10)
        client = self.openWebSocket()
        for _ in range(10_000):
            if client.link.reading:
                client.send("4x")
            else:
                self.clock.advance(0.01)
        seconds = self.clock.seconds()
        self.assertGreater(seconds, 20)
        self.assertLessEqual(len(self.owner.heard), 10 * seconds + 11)
        self.assertGreaterEqual(len(self.owner.heard), 9 * seconds)

    def test_rareHeartbeats(self) -> None:
        """Rare heartbeats do not make the throttle's pauses longer."""
        self.makeEngine(maxMessageRate=10, pingInterval=3600, pingTimeout=3600)
        client = self.openWebSocket()
        self.webSocket(self.openPolling())
        for _ in range(11):
            client.send("4x")
        self.assertFalse(client.link.reading)
        self.clock.advance(0.2)
        self.assertTrue(client.link.reading)

    def test_bytes(self) -> None:
        self.makeEngine(maxByteRate=1000)
        client = self.openWebSocket()
        client.send("4" + "€" * 333)
        self.assertTrue(client.link.reading)
        client.send(b"xx")
        self.assertFalse(client.link.reading)
        self.clock.advance(0.1)
        self.assertTrue(client.link.reading)
        client.send(b"x" * 10_000)
        self.assertFalse(client.link.reading)
        self.clock.advance(9)
        self.assertFalse(client.link.reading)
        self.clock.advance(1)
        self.assertTrue(client.link.reading)
        self.assertEqual(len(self.owner.heard), 3)

    def test_polling(self) -> None:
        """The response to a POST waits until the next POST may come."""
        self.makeEngine(maxMessageRate=2)
        sid = self.openPolling()
        self.assertEqual(self.post(sid, b"4a\x1e4b").answer.body, b"ok")
        self.assertEqual(self.post(sid, b"4c\x1e4d").answer.body, b"ok")
        more = self.post(sid, b"4e")
        self.assertIsNone(more.response)
        self.assertEqual(self.owner.heard, ["a", "b", "c", "d"])
        self.clock.advance(1.1)
        self.assertEqual(more.answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["a", "b", "c", "d", "e"])

    def test_ownerPausesToo(self) -> None:
        """Reading goes on when both the owner and the throttle have resumed."""
        self.makeEngine(maxMessageRate=1)
        client = self.openWebSocket()
        client.send("4a")
        client.send("4b")
        self.session.pause()
        self.clock.advance(2)
        self.assertFalse(client.link.reading)
        self.session.resume()
        self.assertTrue(client.link.reading)
        client.send("4c")
        client.send("4d")
        self.session.pause()
        self.session.resume()
        self.assertFalse(client.link.reading)
        self.clock.advance(2)
        self.assertTrue(client.link.reading)

    def test_end(self) -> None:
        self.makeEngine(maxMessageRate=1)
        client = self.openWebSocket()
        client.send("4a")
        client.send("4b")
        client.link.lose()
        self.assertEqual(len(self.owner.ends), 1)
        self.assertNothingLeft()


class RequestTimeoutTests(WireTestCase):
    """The deadline of requests that are sent byte by byte."""

    fastPath = True

    def dribbled(self, data: bytes, seconds: float = 1.0) -> tuple[Link, float]:
        """Send data slowly, and return the connection and the seconds until its end."""
        self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
        link = Link().connect(self.site)
        start = self.clock.seconds()
        for byte in data:
            link.deliver(bytes([byte]))
            self.clock.advance(seconds)
            if link.disconnecting:
                break
        link.lose()
        return link, self.clock.seconds() - start

    def test_head(self) -> None:
        for shortWays in (True, False):
            for path in ("/engine.io/?EIO=4&transport=polling", "/page"):
                self.makeEngine(shortWays=shortWays)
                link, seconds = self.dribbled(self.requestBytes("GET", path, {"X": "x" * 100}))
                # After the path's first segments, twisted.web has the connection: a new deadline.
                self.assertLessEqual(seconds, 30 + len("GET /page"))
                self.assertEqual(link.take(), b"")

    def test_body(self) -> None:
        for shortWays in (True, False):
            self.makeEngine(shortWays=shortWays)
            sid = self.openPolling()
            url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
            request = self.requestBytes("POST", url, {}, b"4" + b"x" * 1000)
            _, seconds = self.dribbled(request, 0.1)
            self.assertLessEqual(seconds, 31)
            self.assertEqual(self.owner.heard, [])

    def test_chunks(self) -> None:
        for shortWays in (True, False):
            self.makeEngine(shortWays=shortWays)
            sid = self.openPolling()
            url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
            head = self.requestBytes("POST", url, {"Transfer-Encoding": "chunked"})
            _, seconds = self.dribbled(head + b"1\r\n4\r\n" * 1000, 0.02)
            self.assertLessEqual(seconds, 62)
            self.assertEqual(self.owner.heard, [])

    def test_eachRequest(self) -> None:
        """Each request on a connection has the whole time."""
        for shortWays in (True, False):
            self.makeEngine(shortWays=shortWays, requestTimeout=5)
            self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
            for path in ("/engine.io/?EIO=4&transport=polling&sid=x", "/page"):
                link = Link().connect(self.site)
                request = self.requestBytes("GET", path)
                for _ in range(5):
                    link.deliver(request[:-5])
                    self.clock.advance(4)
                    link.deliver(request[-5:])
                    self.assertIn(b"HTTP/1.1 40", link.take())
                    self.clock.advance(40)
                self.assertFalse(link.disconnecting)
                link.lose()

    def test_laterRequests(self) -> None:
        """A slow request has no more time after others on its connection."""
        for shortWays in (True, False):
            self.makeEngine(shortWays=shortWays)
            self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
            for path in ("/engine.io/?EIO=4&transport=polling&sid=x", "/page"):
                link = Link().connect(self.site)
                request = self.requestBytes("GET", path, {"X": "x" * 100})
                link.deliver(request)
                self.assertIn(b"HTTP/1.1 40", link.take())
                start = self.clock.seconds()
                for byte in request:
                    link.deliver(bytes([byte]))
                    self.clock.advance(1)
                    if link.disconnecting:
                        break
                # A request for another resource begins here, and its deadline starts anew in twisted.web.
                self.assertLessEqual(self.clock.seconds() - start, 30 + len("GET /page"), (shortWays, path))
                self.assertEqual(link.take(), b"")
                link.lose()

    def test_waitingIsNotSlow(self) -> None:
        """A GET that waits for messages is complete, whatever its client sends meanwhile."""
        for shortWays in (True, False):
            self.makeEngine(shortWays=shortWays, requestTimeout=5, pingInterval=1000)
            self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
            poll = self.get(self.openPolling())
            self.clock.advance(100)
            poll.link.deliver(b"GET /")
            self.clock.advance(100)
            self.assertFalse(poll.link.disconnecting)
            self.session.send("there")
            self.assertIn(b"4there", poll.link.take())


class HeaderSizeTests(WireTestCase):
    fastPath = True

    def test_limit(self) -> None:
        for shortWays in (True, False):
            for path in ("/engine.io/?EIO=4&transport=polling", "/page"):
                self.makeEngine(maxHeaderSize=1000, shortWays=shortWays)
                link = Link().connect(self.site)
                link.deliver(self.requestBytes("GET", path, {"X": "x" * 500}))
                self.assertNotIn(b"HTTP/1.1 400", link.take())
                for headers in ({"X": "x" * 1000}, {f"X{number}": "x" * 90 for number in range(12)}):
                    self.assertRefused(self.site, self.requestBytes("GET", path, headers))
                # Neither the request line nor a header has come to its end.
                self.assertRefused(self.site, b"GET " + path.encode() + b"x" * 1000)
                self.assertRefused(self.site, self.requestBytes("GET", path)[:-2] + b"X: " + b"x" * 1000)

    def assertRefused(self, factory: Any, data: bytes) -> None:
        """Assert that a head gets 431, and that the rest of it is dropped, so that no reset destroys that."""
        link = Link().connect(factory)
        with capturedLogs() as logs:
            link.deliver(data)
        (refusal,) = [formatEvent(event) for event in logs]
        limit = "the head of the request is larger than maxHeaderSize, 1000 bytes"
        advice = "raise maxHeaderSize (--max-header-size) if clients need more, such as for their cookies"
        self.assertEqual(refusal, f"refused 192.0.2.7: 431 {limit}: {advice}")
        response, rest = readResponse(link.take())
        assert response is not None
        self.assertEqual((*response.error, rest), (431, 3, limit, b""))
        self.assertEqual(response.headers["connection"], "close")
        self.assertEqual((link.outputEnded, link.disconnecting), (True, False))
        for _ in range(3):
            link.deliver(b"x" * 1000 + b"\r\n\r\n")
        self.assertEqual(link.take(), b"")
        link.lose()
        self.assertFalse(link.connected)

    def test_endless(self) -> None:
        """A client that goes on sending is dropped after ``requestTimeout``."""
        self.makeEngine(maxHeaderSize=1000, requestTimeout=5)
        self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
        link = Link().connect(self.site)
        for _ in range(10):
            link.deliver(b"GET / HTTP/1.1\r\nX: " + b"x" * 2000)
            self.clock.advance(1)
        self.assertTrue(link.disconnecting)

    def test_longLines(self) -> None:
        """A limit above twisted.web's own lets longer lines in."""
        self.makeEngine(maxHeaderSize=40_000)
        link = Link().connect(self.site)
        link.deliver(self.requestBytes("GET", "/page", {"X": "x" * 30_000}))
        self.assertIn(b"HTTP/1.1 404", link.take())

    def test_nextRequest(self) -> None:
        """Each request of a connection has the whole limit."""
        self.makeEngine(maxHeaderSize=1000)
        link = Link().connect(self.site)
        for _ in range(5):
            link.deliver(self.requestBytes("GET", "/page", {"X": "x" * 500}))
            self.assertIn(b"HTTP/1.1 404", link.take())

    def test_webSocketAlone(self) -> None:
        self.makeEngine(maxHeaderSize=1000)
        factory = self.engine.webSocketFactory()
        self.openWebSocket(factory=factory, headers={"X": "x" * 500})
        client = self.webSocket(factory=factory, headers={"X": "x" * 1000})
        assert client.response is not None
        self.assertEqual(client.response.error[0], 431)
        client.link.lose()
        self.assertRefused(factory, b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)


class FragmentTests(WireTestCase):
    def test_none(self) -> None:
        self.makeEngine(maxFragments=0)
        client = self.openWebSocket()
        client.send("4in one frame")
        client.sendFrame(TEXT, b"4" + b"x" * 64, fin=False)
        client.sendFrame(CONTINUATION, b"x" * 64)  # one for every 16 bytes
        self.assertEqual(len(self.owner.heard), 2)
        for _ in range(3):
            client.sendFrame(TEXT if _ == 0 else CONTINUATION, b"", fin=False)
        self.assertEqual(self.owner.ends, ["transport error"])


class NamespaceTests(TalkTestCase):
    def test_tooMany(self) -> None:
        server = self.makeServer(maxNamespaces=3)
        for path in ("/a", "/b", "/c"):
            server.namespace(path)
        client = self.join(server)
        self.successResultOf(client.connect("/a"))
        self.successResultOf(client.connect("/b"))
        refused = self.failureResultOf(client.connect("/c"), ConnectionRejected)
        self.assertEqual(refused.value.message, "Too many namespaces")
        self.assertTrue(client.isConnected("/b"))
        client.disconnect("/a")
        self.successResultOf(client.connect("/c"))
        self.successResultOf(self.join(server).connect("/a"))

    def test_partedAreBounded(self) -> None:
        """Namespaces that the server has left are remembered, for packets on the way, up to a bound."""
        server = self.makeServer(maxNamespaces=3)
        for number in range(20):
            server.namespace(f"/{number}")
        client = self.join(server)
        connection = self.socketOf(server, client)._connection
        for number in range(20):
            self.successResultOf(client.connect(f"/{number}"))
            self.socketOf(server, client, f"/{number}").disconnect()
            client.flush()
        self.assertLessEqual(len(connection._parted), 3)


class RoomTests(TalkTestCase):
    def test_tooMany(self) -> None:
        server = self.makeServer(maxRooms=2)
        socket = self.socketOf(server, self.join(server))
        socket.join("a", "b")
        socket.join("a", socket.id)
        error = self.assertRaises(LimitExceeded, socket.join, "c")
        self.assertIn("is in 2 rooms, as many as maxRooms allows", str(error))
        self.assertNotIn("c", server.namespace().rooms)
        socket.leave("a")
        socket.join("c")
        self.assertEqual(socket.rooms, {"b", "c", socket.id})

    def test_othersJoin(self) -> None:
        server = self.makeServer(maxRooms=1)
        first, second, third = (self.socketOf(server, self.join(server)) for _ in range(3))
        second.join("a")
        self.assertRaises(LimitExceeded, server.namespace().everyone.join, "b")
        self.assertEqual([socket._joined for socket in (first, second, third)], [{"b"}, {"a"}, {"b"}])


class ShortageTests(SynchronousTestCase):
    """The log of a port that runs out of file descriptors."""

    def test_onceForEachShortage(self) -> None:
        clock = Clock()
        others: list[LogEvent] = []
        logger = Logger("port", observer=_Shortage(clock, "tcp:8000", others.append))
        with capturedLogs() as events:
            for _ in range(100):
                logger.info("EMFILE encountered; releasing reserved file descriptor.")
                logger.info("EMFILE recovery: Closed socket from {address}", address="x")
                logger.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")
                clock.advance(1)
            logger.info("{port} starting", port="it")
            clock.advance(61)
            logger.info("EMFILE encountered; releasing reserved file descriptor.")
        self.assertEqual([formatEvent(event) for event in others], ["it starting"])
        told = warned(events)
        self.assertEqual(len(told), 2)
        self.assertTrue(told[0].startswith("tcp:8000: out of file descriptors"), told)
