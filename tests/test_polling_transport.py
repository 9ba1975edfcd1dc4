"""
Long polling: waiting GETs, delivering POSTs, compression, and violations.
"""

from __future__ import annotations

import gzip
import zlib

from twisted.logger import capturedLogs, formatEvent

from tests.memory import CLOSE, Exchange, Link, Recorder, WireTestCase
from txrealtime.engineio.refusals import LARGER
from txrealtime.engineio.session import CloseReason, Session, State


class GETTests(WireTestCase):
    def test_open(self) -> None:
        answer = self.get().answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.body[:8], b'0{"sid":')
        self.assertIn(b'"upgrades":["websocket"]', answer.body)
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=UTF-8")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["content-length"], str(len(answer.body)))

    def test_waits(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        self.assertIsNone(poll.response)
        self.session.send("héllo")
        self.assertEqual(poll.payload, ["4héllo".encode()])

    def test_whatWaitedForIt(self) -> None:
        sid = self.openPolling()
        self.session.send("a")
        self.session.send(b"\x01\x02\x03\x04")
        self.assertEqual(self.get(sid).payload, [b"4a", b"bAQIDBA=="])
        self.assertIsNone(self.get(sid).response)

    def test_manyPackets(self) -> None:
        """A response has no more packets than python-socketio's clients take."""
        sid = self.openPolling()
        for number in range(40):
            self.session.send(str(number))
        sizes = [len(self.get(sid).payload) for _ in range(3)]
        self.assertEqual(sizes, [16, 16, 8])

    def test_openWithTheFirstMessages(self) -> None:
        """Messages that are sent while the session opens come with the open packet or right after."""

        def own(session: Session) -> Recorder:
            session.send("welcome")
            return WireTestCase.own(self, session)

        self.own = own  # type: ignore[method-assign]
        poll = self.get()
        sid = self.session.sid
        packets = poll.payload
        if len(packets) == 1:
            packets += self.get(sid).payload
        self.assertEqual(packets[1:], [b"4welcome"])

    def test_heartbeat(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        self.clock.advance(25)
        self.assertEqual(poll.payload, [b"2"])
        self.clock.advance(19)
        self.assertEqual(self.post(sid, b"3").answer.status, 200)
        poll = self.get(sid)
        self.clock.advance(25)
        self.assertEqual(poll.payload, [b"2"])
        self.clock.advance(20)
        self.assertEqual(self.owner.ends, [CloseReason.PING_TIMEOUT])
        self.assertNothingLeft()

    def test_two(self) -> None:
        """A second GET is refused and ends the session; the first returns CLOSE."""
        sid = self.openPolling()
        first, second = self.get(sid), self.get(sid)
        self.assertEqual(second.answer.error[:2], (400, 3))
        self.assertEqual(first.payload, [b"1"])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertNothingLeft()

    def test_dropped(self) -> None:
        sid = self.openPolling()
        self.get(sid).drop()
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertNothingLeft()

    def test_droppedAfterTheAnswer(self) -> None:
        """A connection that ends after the response does not end the session."""
        sid = self.openPolling()
        poll = self.get(sid)
        self.session.send("a")
        poll.drop()
        self.assertEqual(self.session.state, State.OPEN)
        self.session.send("b")
        self.assertEqual(self.get(sid).payload, [b"4b"])

    def test_keptAlive(self) -> None:
        """One connection may serve a GET after another."""
        sid = self.openPolling()
        poll = self.get(sid)
        for text in "abc":
            self.session.send(text)
            self.assertEqual(poll.payload, [b"4" + text.encode()])
            poll = Exchange(poll.link)
            poll.link.deliver(self.requestBytes("GET", f"/engine.io/?EIO=4&transport=polling&sid={sid}"))
            self.assertIsNone(poll.response)

    def test_close(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        self.session.close()
        self.assertEqual(poll.payload, [b"1"])
        self.assertNothingLeft()

    def test_closeBeforeTheGET(self) -> None:
        """CLOSE has a response of its own: JavaScript clients drop what shares one with it."""
        sid = self.openPolling()
        self.session.send("last")
        self.session.close()
        self.assertEqual(self.get(sid).payload, [b"4last"])
        self.assertEqual(self.get(sid).payload, [b"1"])
        self.assertNothingLeft()
        self.assertEqual(self.get(sid).answer.error, (400, 1, "Session ID unknown"))

    def test_closeBehindAMessageOfTheSameTurn(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        self.session.send("last")
        self.session.close()
        self.assertEqual(poll.payload, [b"4last"])
        self.assertEqual(self.get(sid).payload, [b"1"])
        self.assertNothingLeft()

    def test_closeByBothSides(self) -> None:
        """A client that closes on its last message does not poll for CLOSE, and keeps no session."""
        sid = self.openPolling()
        poll = self.get(sid)
        self.session.send("last")
        self.session.close()
        self.assertEqual(poll.payload, [b"4last"])
        self.assertEqual(self.post(sid, b"1").answer.body, b"ok")
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertNothingLeft()

    def test_neverFetched(self) -> None:
        self.openPolling()
        self.session.send("last")
        self.session.close()
        self.clock.advance(30)
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertNothingLeft()

    def test_closeByTheClient(self) -> None:
        sid = self.openPolling()
        poll = self.get(sid)
        self.assertEqual(self.post(sid, b"1").answer.body, b"ok")
        self.assertEqual(poll.payload, [b"6"])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])
        self.assertNothingLeft()

    def test_slowConsumer(self) -> None:
        self.makeEngine(maxBuffered=10)
        self.openPolling()
        self.session.send("12345678")
        self.session.send("12345678")
        self.assertEqual(self.owner.ends, [CloseReason.SLOW_CONSUMER])
        self.assertNothingLeft()

    def test_shuttingDown(self) -> None:
        """The GET returns an error: after a CLOSE, python-socketio's clients would not reconnect."""
        sid = self.openPolling()
        poll = self.get(sid)
        drained = self.engine.drain(5)
        self.assertEqual((poll.answer.status, poll.answer.body), (503, b""))
        self.successResultOf(drained)
        self.assertNothingLeft()

    def test_shuttingDownWithMessages(self) -> None:
        sid = self.openPolling()
        self.session.send("last")
        drained = self.engine.drain(5)
        self.assertNoResult(drained)
        self.assertEqual(self.get(sid).payload, [b"4last"])
        self.successResultOf(drained)
        self.assertNothingLeft()

    def test_unencodable(self) -> None:
        """A text that UTF-8 cannot carry is the caller's error, and costs the client nothing."""
        sid = self.openPolling()
        poll = self.get(sid)
        self.assertRaises(ValueError, self.session.send, "\ud800")
        self.session.send("hello")
        self.assertEqual(poll.payload, [b"4hello"])


class POSTTests(WireTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sid = self.openPolling()

    def test_messages(self) -> None:
        answer = self.post(self.sid, "4héllo\x1ebAQIDBA==\x1e4b".encode()).answer
        self.assertEqual((answer.status, answer.body), (200, b"ok"))
        self.assertEqual(answer.headers["content-type"], "text/html")
        self.assertEqual(self.owner.heard, ["héllo", b"\x01\x02\x03\x04", "b"])

    def test_whileAGETWaits(self) -> None:
        poll = self.get(self.sid)
        self.owner.onMessage = self.session.send
        self.post(self.sid, b"4echo")
        self.assertEqual(poll.payload, [b"4echo"])

    def test_notAPayload(self) -> None:
        for body in (b"", b"abc", b"4a\x1e", b"4\xff", b"b="):
            self.setUp()
            poll = self.get(self.sid)
            self.assertEqual(self.post(self.sid, body).answer.error[:2], (400, 3))
            self.assertEqual(poll.payload, [b"1"])
            self.assertEqual(self.owner.ends, [CloseReason.PARSE_ERROR])
            self.assertEqual(self.owner.heard, [])
            self.assertNothingLeft()

    def test_binaryBody(self) -> None:
        """A binary body is refused, since protocol 4 carries binary in base64."""
        headers = {"Content-Type": "application/octet-stream"}
        self.assertEqual(self.post(self.sid, b"4a", headers=headers).answer.error[:2], (400, 3))
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertNothingLeft()

    def test_withoutAContentType(self) -> None:
        self.assertEqual(self.post(self.sid, b"4a", headers={"Content-Type": ""}).answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["a"])

    def test_tooLarge(self) -> None:
        """
        A body too large is refused without a word, as clients expect, and soon the session ends.

        JavaScript clients have closed by then; python-socketio's would wait for their heartbeat.
        """
        self.makeEngine(maxPayload=10)
        sid = self.openPolling()
        with capturedLogs() as logs:
            answer = self.post(sid, b"4" + b"x" * 10).answer
        self.assertEqual((answer.status, answer.body), (413, b""))
        why = "413 a body of 11 bytes, larger than maxPayload, 10 bytes: " + LARGER
        self.assertEqual([formatEvent(event) for event in logs], [f"refused 192.0.2.7: {why}"])
        self.assertEqual(self.owner.heard, [])
        self.assertEqual(self.post(sid, b"4" + b"x" * 9).answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["x" * 9])
        poll = self.get(sid)
        self.assertIsNone(poll.response)
        self.clock.advance(0.6)
        self.assertEqual(poll.payload, [b"1"])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertEqual(self.engine.sessions, {})

    def test_closedWithinAMessage(self) -> None:
        self.owner.onMessage = lambda data: self.session.close()
        poll = self.get(self.sid)
        self.assertEqual(self.post(self.sid, b"4a\x1e4b").answer.body, b"ok")
        self.assertEqual(poll.payload, [b"1"])
        self.assertEqual(self.owner.heard, ["a"])
        self.assertNothingLeft()

    def test_wrongDirection(self) -> None:
        self.assertEqual(self.post(self.sid, b"2").answer.body, b"ok")
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertNothingLeft()

    def test_otherMethods(self) -> None:
        for method in ("PUT", "DELETE", "HEAD", "PATCH"):
            answer = self.request(method, self.sid).answer
            self.assertEqual(answer.status, 400, method)
        self.assertEqual(self.session.state, State.OPEN)

    def test_respondsBeforeItsReplies(self) -> None:
        """The response precedes whatever the packets cause on the waiting GET."""
        poll, order = self.get(self.sid), list[bytes]()
        link = Link().connect(self.site)
        for each in (poll.link, link):
            write = each.write
            each.write = lambda data, write=write: (order.append(data), write(data))  # type: ignore[method-assign]
        self.owner.onMessage = self.session.send
        body = b"4echo"
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        link.deliver(
            self.requestBytes("POST", f"/engine.io/?EIO=4&transport=polling&sid={self.sid}", headers, body)
        )
        written = b"".join(order)
        self.assertLess(written.index(b"ok"), written.index(b"4echo"))
        self.assertEqual(poll.payload, [b"4echo"])

    def test_afterTheEnd(self) -> None:
        self.session.close()  # and waits for a GET
        self.assertEqual(self.post(self.sid, b"4a").answer.status, 200)
        self.assertEqual(self.owner.heard, [])


class PauseTests(WireTestCase):
    """A client sends its next POST after the response to the last one, and a pause delays that response."""

    def setUp(self) -> None:
        super().setUp()
        self.sid = self.openPolling()
        self.owner.onMessage = lambda data: self.session.pause()

    def test_withheld(self) -> None:
        """The POST whose packets cause a pause is delivered whole; the next one waits with its packets."""
        self.assertEqual(self.post(self.sid, b"4a\x1e4b").answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["a", "b"])
        post = self.post(self.sid, b"4c\x1e4d")
        self.assertIsNone(post.response)
        self.assertEqual(self.owner.heard, ["a", "b"])
        self.session.resume()
        self.assertEqual(post.answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["a", "b", "c", "d"])

    def test_GETGoesOn(self) -> None:
        poll = self.get(self.sid)
        self.post(self.sid, b"4a")
        self.session.send("hello")
        self.assertEqual(poll.payload, [b"4hello"])

    def test_malformed(self) -> None:
        """A pause does not delay the refusal of a body."""
        self.post(self.sid, b"4a")
        self.assertEqual(self.post(self.sid, b"x").answer.error[:2], (400, 3))
        self.assertEqual(self.owner.ends, [CloseReason.PARSE_ERROR])
        self.assertNothingLeft()

    def test_two(self) -> None:
        """A second POST while one waits is refused, and ends the session."""
        self.post(self.sid, b"4a")
        first = self.post(self.sid, b"4b")
        second = self.post(self.sid, b"4c")
        self.assertEqual(second.answer.error[:2], (400, 3))
        self.assertEqual(first.answer.status, 200)
        self.assertEqual(self.owner.heard, ["a"])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertNothingLeft()

    def test_dropped(self) -> None:
        """A client that drops a POST before its response ends the session, as with a GET."""
        self.post(self.sid, b"4a")
        self.post(self.sid, b"4b").drop()
        self.assertEqual(self.owner.heard, ["a"])
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])
        self.assertNothingLeft()

    def test_close(self) -> None:
        """The end of the session brings the response, and drops the packets."""
        poll = self.get(self.sid)
        self.post(self.sid, b"4a")
        post = self.post(self.sid, b"4b")
        self.session.close()
        self.assertEqual((post.answer.body, poll.payload), (b"ok", [b"1"]))
        self.assertEqual(self.owner.heard, ["a"])
        self.assertNothingLeft()

    def test_closeTimeout(self) -> None:
        self.post(self.sid, b"4a")
        post = self.post(self.sid, b"4b")
        self.session.close()
        self.clock.advance(30)
        self.assertEqual(post.answer.body, b"ok")
        self.assertNothingLeft()

    def test_upgrade(self) -> None:
        """An upgrade takes the waiting POST along; the pause goes on at the WebSocket."""
        self.post(self.sid, b"4a")
        post = self.post(self.sid, b"4b")
        client = self.upgrade(self.sid)
        self.assertEqual(post.answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["a", "b"])
        client.send("4c")
        self.assertEqual(self.owner.heard, ["a", "b"])
        self.session.resume()
        client.link.turn()
        self.assertEqual(self.owner.heard, ["a", "b", "c"])

    def test_upgradeOfASessionThatItEnds(self) -> None:
        """If a message of the waiting POST ends the session, so does the new WebSocket."""
        self.post(self.sid, b"4a")
        self.post(self.sid, b"4b")
        self.owner.onMessage = lambda data: self.session.abort(CloseReason.FORCED_CLOSE)
        client = self.upgrade(self.sid)
        self.assertEqual([frame.opcode for frame in client.frames()], [CLOSE])
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertEqual(self.engine.sessions, {})


class CompressionTests(WireTestCase):
    TEXT = "compressible " * 100

    def response(self, accept: str | None, text: str = TEXT, **settings: int) -> tuple[str | None, bytes]:
        """Return the coding of a response, and its body decoded."""
        self.makeEngine(**settings)
        sid = self.openPolling()
        self.session.send(text)
        answer = self.get(sid, headers={} if accept is None else {"Accept-Encoding": accept}).answer
        self.vary = answer.headers.get("vary")
        coding = answer.headers.get("content-encoding")
        body = gzip.decompress(answer.body) if coding == "gzip" else answer.body
        self.assertEqual(body, b"4" + text.encode())
        self.size = len(answer.body)
        return coding, body

    def test_gzip(self) -> None:
        self.assertEqual(self.response("gzip, deflate, br")[0], "gzip")
        self.assertLess(self.size, 100)
        self.assertEqual(self.vary, "Origin, Accept-Encoding")

    def test_notAsked(self) -> None:
        for accept in (None, "deflate, br", "identity", "gzip;q=0"):
            self.assertIsNone(self.response(accept)[0], accept)
            # Caches keep a response for requests with the same headers only.
            self.assertEqual(self.vary, "Origin, Accept-Encoding")

    def test_threshold(self) -> None:
        """The threshold counts the whole body, with the type of the packet."""
        self.assertIsNone(self.response("gzip", "x" * 1022)[0])
        self.assertEqual(self.response("gzip", "x" * 1023)[0], "gzip")
        self.assertIsNone(self.response("gzip", "x" * 99, compressionThreshold=101)[0])
        self.assertEqual(self.response("gzip", "x" * 100, compressionThreshold=101)[0], "gzip")

    def test_never(self) -> None:
        self.assertIsNone(self.response("gzip", compressionThreshold=0)[0])

    def test_isReproducible(self) -> None:
        """The time of day is no part of a compressed body."""
        self.makeEngine()
        sid = self.openPolling()
        bodies = []
        for _ in range(2):
            self.session.send(self.TEXT)
            bodies.append(self.get(sid, headers={"Accept-Encoding": "gzip"}).answer.body)
        self.assertEqual(bodies[0], bodies[1])
        self.assertEqual(zlib.decompress(bodies[0], 31), b"4" + self.TEXT.encode())


class AcceptEncodingTests(WireTestCase):
    """RFC 9110, 12.5.3."""

    def accepts(self, header: str) -> bool:
        sid = self.openPolling()
        self.session.send("x" * 2000)
        return "content-encoding" in self.get(sid, headers={"Accept-Encoding": header}).answer.headers

    def test_accepted(self) -> None:
        for header in (
            "gzip",
            "GZIP",
            "deflate, gzip",
            "br,gzip",
            "gzip;q=1",
            "gzip;q=0.001",
            "gzip ; q=0.5, br",
            "*",
            "*;q=0.1",
            "identity;q=1, *;q=0.5",
            "*;q=0, gzip",
        ):
            self.assertTrue(self.accepts(header), header)

    def test_notAccepted(self) -> None:
        for header in (
            "",
            "br",
            "gzipped",
            "gzip;q=0",
            "gzip; q=0.000",
            "GZIP;Q=0",
            "*;q=0",
            "identity;q=1, *;q=0",
            "gzip;q=0, *",
            "*, gzip;q=0",
            ",,;q=1",
        ):
            self.assertFalse(self.accepts(header), header)


class FastPathGETTests(GETTests):
    fastPath = True


class FastPathPOSTTests(POSTTests):
    fastPath = True


class FastPathPauseTests(PauseTests):
    fastPath = True


class FastPathCompressionTests(CompressionTests):
    fastPath = True
