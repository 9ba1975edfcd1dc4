"""
The fast path of the engine's own requests: a client must see no difference from twisted.web.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from itertools import pairwise

from twisted.web.static import Data

from tests.examples import example, given, st
from tests.memory import Link, WireTestCase, readResponse
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.session import State

URL = b"/engine.io/?EIO=4&transport=polling"

Outcome = tuple[list[tuple[int, bytes]], bool, list[str | bytes]]


class ChannelTestCase(WireTestCase):
    fastPath = True

    def setUp(self) -> None:
        super().setUp()
        self.root.putChild(b"hello", Data(b"hello", "text/plain"))

    def deliver(self, link: Link, data: bytes) -> None:
        """Deliver data, and run the reactor's turns until all of it is read."""
        link.deliver(data)
        for _ in range(10):
            self.clock.advance(0)
            link.turn()

    def responses(self, link: Link) -> list[tuple[int, bytes]]:
        """Return the responses, with random parts masked."""
        data = link.take()
        answers = []
        while data:
            answer, data = readResponse(data)
            assert answer is not None
            answers.append((answer.status, re.sub(rb'"sid":"[^"]*"', b'"sid":"*"', answer.body)))
        return answers


class SamenessTests(ChannelTestCase):
    """The same bytes to a plain site and to an EngineSite: same responses, messages and end."""

    def outcome(self, data: bytes, cuts: Sequence[int], fastPath: bool) -> Outcome:
        """Return the outcome of these bytes, cut at these places, with ``{sid}`` replaced by a session's."""
        self.fastPath = fastPath
        self.setUp()
        data = data.replace(b"{sid}", self.openPolling().encode())
        self.session.send("waiting")
        link = Link().connect(self.site)
        for start, stop in pairwise(sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})):
            self.deliver(link, data[start:stop])
        return self.responses(link), link.disconnecting, self.owners[0].heard

    def assertSame(self, data: bytes, cuts: Sequence[int] = (), what: str = "") -> Outcome:
        any, short = self.outcome(data, (), False), self.outcome(data, cuts, True)
        self.assertEqual(short, any, what or data[:200])
        self.assertEqual(self.flushLoggedErrors(), [])
        return short

    GET = b"GET " + URL + b"&sid={sid} HTTP/1.1\r\nHost: example.org\r\n\r\n"
    OPEN = b"GET " + URL + b" HTTP/1.1\r\nHost: example.org\r\n\r\n"
    POST = b"POST " + URL + b"&sid={sid} HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\n\r\n4ab"
    CHUNKED = (
        b"POST " + URL + b"&sid={sid} HTTP/1.1\r\nHost: example.org\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n4c\r\n0\r\n\r\n"
    )
    OTHER = b"GET /hello HTTP/1.1\r\nHost: example.org\r\n\r\n"
    MISSING = b"GET " + URL + b"&sid=unknown HTTP/1.1\r\nHost: example.org\r\n\r\n"
    LAST = MISSING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    OPTIONS = b"OPTIONS " + URL + b" HTTP/1.1\r\nHost: example.org\r\nOrigin: http://a.org\r\n\r\n"

    def test_each(self) -> None:
        for request, answer in (
            (self.GET, (200, b"4waiting")),
            (self.POST, (200, b"ok")),
            (self.CHUNKED, (200, b"ok")),
            (self.OTHER, (200, b"hello")),
            (self.MISSING, (400, b'{"code":1,"message":"Session ID unknown"}')),
            (self.LAST, (400, b'{"code":1,"message":"Session ID unknown"}')),
            (self.OPTIONS, (204, b"")),
        ):
            answers, ends, _ = self.assertSame(request)
            self.assertEqual(answers, [answer])
            self.assertEqual(ends, request is self.LAST)

    def test_byteByByte(self) -> None:
        for request in (self.GET, self.POST, self.CHUNKED, self.OTHER, self.LAST):
            self.assertSame(request, range(len(request) + 20))

    def test_inARow(self) -> None:
        answers, _, heard = self.assertSame(self.POST + self.GET + self.POST + self.MISSING)
        self.assertEqual([status for status, _ in answers], [200, 200, 200, 400])
        self.assertEqual(heard, ["ab", "ab"])

    def test_repeated(self) -> None:
        """A head that is repeated is of another body; one that differs by a byte is another."""
        longer, same = self.POST.replace(b": 3\r\n\r\n4ab", b": 4\r\n\r\n4abc"), self.POST[:-2] + b"cd"
        data = self.POST + same + longer + self.POST + self.GET + self.MISSING + self.MISSING
        for cuts in ((), range(len(data) + 40), [len(self.POST) + 5, len(self.POST) + len(same) - 1]):
            answers, _, heard = self.assertSame(data, cuts)
            self.assertEqual([status for status, _ in answers], [200] * 5 + [400] * 2)
            self.assertEqual(heard, ["ab", "cd", "abc", "ab"])

    def test_headers(self) -> None:
        """A request's headers are its own, also if its head is repeated."""
        self.setUp()
        link = Link().connect(self.site)
        for _ in range(2):
            self.deliver(link, self.OPEN)
            headers = self.session.handshake.headers
            self.assertEqual(headers, {"host": "example.org"})
            headers["host"] = "changed"  # type: ignore[index]
            self.session.close()
            self.deliver(link, b"")

    def test_otherHeaders(self) -> None:
        """Headers are read again if one has changed, and also if the URL has not."""
        self.setUp()
        link = Link().connect(self.site)
        for number, t in enumerate((0, 1, 1, 2, 2)):
            request, cookie = self.OPEN.replace(b" HTTP", b"&t=%d HTTP" % t), number // 2
            self.deliver(link, request.replace(b"\r\n\r\n", b"\r\nCookie: a=%d\r\n\r\n" % cookie))
            handshake = self.session.handshake
            self.assertEqual(handshake.headers, {"host": "example.org", "cookie": f"a={cookie}"})
            self.assertEqual(handshake.query["t"], str(t))
            self.session.close()
            self.deliver(link, b"")

    def test_sharedHeaders(self) -> None:
        """Clients share the texts of equal headers, for the sake of memory, but no long ones."""
        self.setUp()
        found = []
        for agent in (b"Browser/1.0 (a text)", b"Browser/1.0 " + b"x" * 300):
            request = self.OPEN.replace(b"\r\n\r\n", b"\r\nUser-Agent: %s \r\n\r\n" % agent)
            for _ in range(2):
                self.deliver(Link().connect(self.site), request)
                found.append(self.session.handshake.headers)
            self.assertEqual([each["user-agent"] for each in found[-2:]], 2 * [agent.decode()])
        first, second, *long = [each["user-agent"] for each in found]
        self.assertIs(first, second)
        self.assertIsNot(long[0], long[1])
        self.assertIsNot(found[0], found[1])

    def test_otherBetween(self) -> None:
        answers, _, heard = self.assertSame(self.POST + self.OTHER + self.GET + self.CHUNKED + self.POST)
        self.assertEqual([status for status, _ in answers], [200] * 5)
        self.assertEqual(heard, ["ab", "c", "ab"])

    def test_nothingAfterTheLast(self) -> None:
        answers, ends, heard = self.assertSame(self.LAST + self.POST)
        self.assertEqual((len(answers), ends, heard), (1, True, []))

    def test_nothingLaterAfterTheLast(self) -> None:
        """Over TLS, more may arrive while the connection is closing."""
        answers, ends, heard = self.assertSame(self.LAST + self.POST, [len(self.LAST)])
        self.assertEqual((len(answers), ends, heard), (1, True, []))

    def test_waitingGET(self) -> None:
        """Requests after a waiting GET wait, too."""
        answers, _, heard = self.assertSame(self.GET + self.GET + self.POST)
        self.assertEqual((answers, heard), ([(200, b"4waiting")], []))

    @given(
        st.lists(
            st.sampled_from([GET, OPEN, POST, CHUNKED, OTHER, MISSING, LAST, OPTIONS]), min_size=1, max_size=4
        ).map(b"".join),
        st.lists(st.integers(0, 10_000), max_size=8),
    )
    def test_anyPieces(self, data: bytes, cuts: list[int]) -> None:
        self.assertSame(data, cuts)

    def test_smuggling(self) -> None:
        """A request that could be read in two ways is read by twisted.web alone."""
        head = b"POST " + URL + b"&sid={sid} HTTP/1.1\r\nHost: example.org\r\n"
        for name, lines in {
            "two lengths": b"Content-Length: 3\r\nContent-Length: 3\r\n",
            "two lengths that differ": b"Content-Length: 3\r\nContent-Length: 0\r\n",
            "a list of lengths": b"Content-Length: 3, 3\r\n",
            "a length with a sign": b"Content-Length: +3\r\n",
            "a negative length": b"Content-Length: -3\r\n",
            "a length in other digits": "Content-Length: \u0663\r\n".encode(),
            "a hexadecimal length": b"Content-Length: 0x3\r\n",
            "an empty length": b"Content-Length: \r\n",
            "no length": b"",
            "a length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "an unknown coding": b"Transfer-Encoding: x\r\n",
            "a length and an unknown coding": b"Content-Length: 3\r\nTransfer-Encoding: xchunked\r\n",
            "chunks after a tab": b"Content-Length: 3\r\nTransfer-Encoding:\tchunked\r\n",
            "chunks twice": b"Transfer-Encoding: chunked, chunked\r\n",
            "chunks, in capitals": b"TRANSFER-ENCODING: CHUNKED\r\n",
            "a blank before the colon": b"Content-Length : 3\r\n",
            "a blank before the name": b"X: y\r\n Content-Length: 3\r\n",
            "no colon": b"Content-Length 3\r\n",
            "no name": b": 3\r\n",
            "a zero byte": b"Content-Length: 3\x00\r\n",
            "a zero byte in a name": b"Content-Len\x00gth: 3\r\n",
            "a bare line feed": b"X: y\nContent-Length: 3\r\n",
            "a bare carriage return": b"X: y\rContent-Length: 3\r\n",
            "a length in blanks": b"Content-Length: \t 3 \t\r\n",
            "an expectation": b"Content-Length: 3\r\nExpect: 100-continue\r\n",
            "no keeping": b"Content-Length: 3\r\nConnection: Close\r\n",
        }.items():
            self.assertSame(head + lines + b"\r\n4ab" + self.MISSING, what=name)

    def test_requestLines(self) -> None:
        rest = b"\r\nHost: example.org\r\n\r\n"
        for line in (
            b"GET " + URL + b" HTTP/1.0",
            b"GET " + URL + b" HTTP/2.0",
            b"GET " + URL + b" HTTP/1.1 ",
            b"GET  " + URL + b" HTTP/1.1",
            b"GET\t" + URL + b" HTTP/1.1",
            b"GET " + URL,
            b"get " + URL + b" HTTP/1.1",
            b"GET http://example.org" + URL + b" HTTP/1.1",
            b"GET /engine%2Eio/?EIO=4&transport=polling HTTP/1.1",
            b"GET //engine.io/?EIO=4&transport=polling HTTP/1.1",
            b"GET /hello/../engine.io/?EIO=4&transport=polling HTTP/1.1",
            b"GET /engine.io?EIO=4&transport=polling HTTP/1.1",
            b"GET /engine.io/x?EIO=4&transport=polling HTTP/1.1",
            b"GET /engine.io/?EIO=4&transport=polling#x HTTP/1.1",
            b"GET /engine.io/?EIO=4&transport=polling&x=\xff HTTP/1.1",
            b"GET /engine.iox HTTP/1.1",
            b"PUT " + URL + b" HTTP/1.1",
            b"CONNECT example.org:80 HTTP/1.1",
            b"",
        ):
            self.assertSame(line + rest)

    def test_withoutHost(self) -> None:
        self.assertSame(b"GET " + URL + b" HTTP/1.1\r\n\r\n")
        self.assertSame(b"GET " + URL + b" HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")

    def test_longHead(self) -> None:
        for size in (8_000, 16_000):
            self.assertSame(self.MISSING[:-2] + b"X: " + b"x" * size + b"\r\n\r\n", [100, 9_000, 20_000])

    def test_tooLongHead(self) -> None:
        """A plain site drops the connection without a response."""
        for size in (17_000, 100_000):
            data = self.MISSING[:-2] + b"X: " + b"x" * size + b"\r\n\r\n"
            self.assertEqual(self.outcome(data, (), False), ([], True, []))
            for cuts in ((), (100, 9_000, 20_000)):
                [(status, _)], isClosed, heard = self.outcome(data, cuts, True)
                self.assertEqual((status, isClosed, heard), (431, False, []))

    def test_manyHeaders(self) -> None:
        for count in (100, 499):
            lines = b"".join(b"X%d: y\r\n" % number for number in range(count))
            self.assertSame(self.MISSING[:-2] + lines + b"\r\n")

    def test_bodyOfAGET(self) -> None:
        self.assertSame(self.MISSING[:-2] + b"Content-Length: 3\r\n\r\nabc" + self.MISSING)

    def test_foldedHeader(self) -> None:
        self.assertSame(self.MISSING[:-2] + b"X: a\r\n b\r\n\r\n")

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from(
                    [
                        b"GET ",
                        b"POST ",
                        URL,
                        b"/hello",
                        b" HTTP/1.1\r\n",
                        b"Host: a\r\n",
                        b"Content-Length: 2\r\n",
                        b"Content-Length: 0\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                        b"\r\n",
                        b"\n",
                        b" ",
                        b"\t",
                        b"4a",
                        b"0\r\n\r\n",
                        MISSING,
                        POST,
                    ]
                ),
            ),
            max_size=10,
        ).map(b"".join),
        st.lists(st.integers(0, 200), max_size=4),
    )
    @example(b"GET " + URL + b" HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n", [])
    @example(b"GET " + URL + b" \r\n\n", [])
    def test_anything(self, data: bytes, cuts: list[int]) -> None:
        with contextlib.suppress(AttributeError):  # twisted.web itself fails on some of these bytes
            self.assertSame(data, cuts)


class BodyTests(ChannelTestCase):
    def test_inManyPieces(self) -> None:
        """A large body is copied once, not once for each piece."""
        self.makeEngine(maxPayload=1_000_000)
        sid = self.openPolling()
        body = b"4" + b"x" * 600_000
        data = self.requestBytes("POST", f"{URL.decode()}&sid={sid}", {}, body)
        link = Link().connect(self.site)
        for start in range(0, len(data), 1000):
            link.deliver(data[start : start + 1000])
        self.assertEqual(self.owner.heard, ["x" * 600_000])
        self.assertEqual(self.responses(link), [(200, b"ok")])


class AheadTests(ChannelTestCase):
    """Requests that a client sends before the response to the one before."""

    def setUp(self) -> None:
        super().setUp()
        self.sid = self.openPolling()
        self.link = Link().connect(self.site)
        self.link.deliver(self.requestBytes("GET", f"{URL.decode()}&sid={self.sid}"))
        self.post = self.requestBytes("POST", f"{URL.decode()}&sid={self.sid}", {}, b"4" + b"x" * 999)

    def test_pauses(self) -> None:
        """Early requests wait in TCP, and in memory up to a limit."""
        sent = 0
        while self.link.reading and sent < 10_000_000:
            self.link.deliver(self.post)
            sent += len(self.post)
        self.assertFalse(self.link.reading)
        self.assertLess(sent, 200_000)
        self.assertEqual(self.owner.heard, [])
        self.session.send("answer")
        for _ in range(2 * sent // len(self.post)):
            self.clock.advance(0)
            self.link.turn()
        self.assertTrue(self.link.reading)
        self.assertEqual(len(self.owner.heard), sent // len(self.post))

    def test_many(self) -> None:
        """Many small requests in one read do not nest without end."""
        self.session.send("answer")
        request = self.requestBytes("POST", f"{URL.decode()}&sid={self.sid}", {}, b"4a")
        self.link.deliver(request * 3000)
        for _ in range(7000):
            self.clock.advance(0)
            self.link.turn()
        self.assertEqual(len(self.owner.heard), 3000)

    def test_lost(self) -> None:
        self.link.deliver(self.post)
        self.link.lose()
        self.assertEqual(self.owner.heard, [])
        self.assertEqual(self.session.state, State.CLOSED)
        self.clock.advance(1)
        self.assertNothingLeft()


class LastResponseTests(ChannelTestCase):
    """A site that ends each connection, because another process has the port."""

    def test_ends(self) -> None:
        """Each response is the last of its connection, of the engine and of pages; a waiting GET's too."""
        sid = self.openPolling()
        waiting = Link().connect(self.site)
        waiting.deliver(self.requestBytes("GET", f"{URL.decode()}&sid={sid}"))
        kept = Link().connect(self.site)
        self.deliver(kept, self.requestBytes("POST", f"{URL.decode()}&sid={sid}", {}, b"4a"))
        self.assertFalse(kept.disconnecting)
        self.site.endsConnections = True
        self.session.send("answer")
        page = Link().connect(self.site)
        self.deliver(page, b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        self.deliver(kept, self.requestBytes("POST", f"{URL.decode()}&sid={sid}", {}, b"4b"))
        for link in (waiting, kept, page):
            self.assertTrue(link.disconnecting)
            data = link.take()
            while data:
                answer, data = readResponse(data)
            assert answer is not None
            self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
        self.assertEqual(self.owner.heard, ["a", "b"])


class TimeTests(ChannelTestCase):
    """The timeout of idle connections, on the fast path as in twisted.web."""

    def setUp(self) -> None:
        super().setUp()
        self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)

    def test_silent(self) -> None:
        for beginning, seconds in (
            (b"", 30),
            (b"GET /eng", 30),
            (b"GET " + URL + b" HTTP/1.1\r\nHost: a\r\n", 30),
        ):
            link = Link().connect(self.site)
            link.deliver(beginning)
            self.clock.advance(seconds - 1)
            self.assertFalse(link.disconnecting)
            self.clock.pump([10] * 12)
            self.assertTrue(link.disconnecting)
            link.lose()
            self.clock.advance(60)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """A byte now and then does not keep a connection open."""
        link = Link().connect(self.site)
        link.deliver(b"POST " + URL + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(20):
            self.clock.advance(30)
            if link.disconnecting:
                break
            link.deliver(b"x")
        self.assertTrue(link.disconnecting)

    def test_waitingGET(self) -> None:
        self.makeEngine(pingInterval=1000, pingTimeout=1000)
        self.site = EngineSite(self.root, "/engine.io", self.engine, reactor=self.clock, timeout=60)
        sid = self.openPolling()
        poll = self.get(sid)
        self.clock.pump([30] * 20)
        self.assertFalse(poll.link.disconnecting)
        self.session.send("late")
        self.assertEqual(poll.payload, [b"4late"])
        self.clock.pump([30] * 5)
        self.assertTrue(poll.link.disconnecting)

    def test_busy(self) -> None:
        link = Link().connect(self.site)
        for _ in range(20):
            link.deliver(SamenessTests.MISSING)
            self.assertEqual(len(self.responses(link)), 1)
            self.clock.advance(30)
        self.assertFalse(link.disconnecting)

    def test_givenAway(self) -> None:
        """No timer of the channel stays when twisted.web takes the connection."""
        link = Link().connect(self.site)
        link.deliver(SamenessTests.OTHER)
        self.assertEqual(len(self.responses(link)), 1)
        link.lose()
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        client = self.openWebSocket()
        for _ in range(10):
            self.clock.advance(25)
            client.send("3")
        self.assertFalse(client.link.disconnecting)

    def test_lost(self) -> None:
        Link().connect(self.site).lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
