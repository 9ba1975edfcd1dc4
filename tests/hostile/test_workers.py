"""
Attacks by way of another worker: nothing crosses that the owner of a session would not have taken directly.
"""

from __future__ import annotations

import json
import secrets
import tracemalloc
from typing import Any

from tests.memory import Link, readResponse
from tests.test_siblings import SiblingsTestCase
from txrealtime.engineio.session import State
from txrealtime.workers import relay
from txrealtime.workers.marks import markOf

FRAME = relay._packed(1, 7, ["POST", "/engine.io/?sid=x", "127.0.0.1", "1"], b"4smuggled")

TARGET = b"/engine.io/?EIO=4&transport=polling&sid=SID"

SECOND = b"POST " + TARGET + b" HTTP/1.1\r\nHost: example.org\r\nContent-Length: 9\r\n\r\n4smuggled"


def post(*lines: bytes, body: bytes = b"4body", length: bool = True, target: bytes = TARGET) -> bytes:
    """Return a POST with some more lines in its head."""
    own = [b"Content-Length: %d" % len(body)] if length else []
    return b"\r\n".join([b"POST %s HTTP/1.1" % target, b"Host: example.org", *own, *lines, b"", body])


def get(*lines: bytes, target: bytes = TARGET) -> bytes:
    return b"\r\n".join([b"GET %s HTTP/1.1" % target, b"Host: example.org", *lines, b"", b""])


REQUESTS = {
    "a plain POST": post(),
    "two lengths": post(b"Content-Length: 3"),
    "a length and chunks": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SECOND),
    "chunks and a length": post(
        b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"5\r\n4body\r\n0\r\n\r\n", length=False
    ),
    "chunks": post(b"Transfer-Encoding: chunked", body=b"5\r\n4body\r\n0\r\n\r\n", length=False),
    "chunks of another name": post(b"Transfer-Encoding: xchunked", body=b"5\r\n4body\r\n0\r\n\r\n"),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SECOND),
    "a folded header": post(b"X-A: b", b" Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SECOND),
    "a bare line feed": post(b"X-A: b\nTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SECOND),
    "a bare carriage return": post(b"X-A: b\rX-B: c"),
    "a zero byte in a header": post(b"X-A: b\0c"),
    "a negative length": post(b"Content-Length: -1", length=False),
    "a length with a sign": post(b"Content-Length: +5", length=False),
    "a length that is no number": post(b"Content-Length: 0x5", length=False),
    "a chunk that is too long": post(
        b"Transfer-Encoding: chunked", body=b"ffffffffffffffff1\r\n4body", length=False
    ),
    "a trailer": post(
        b"Transfer-Encoding: chunked",
        body=b"5\r\n4body\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        length=False,
    ),
    "a request behind the body": post(body=b"4a") + SECOND,
    "a request as the body": post(body=SECOND),
    "a frame of the relay as the body": post(body=FRAME),
    "a frame of the relay in a header": post(b"X-A: " + FRAME.replace(b"\0", b" ")),
    "a GET with a body": get(b"Content-Length: 5") + b"4body",
    "a frame of the relay behind a GET": get() + FRAME,
    "a body that is too large": post(body=b"4" + b"x" * 5000),
    "a length that is too large": post(b"Content-Length: 99999999999999", length=False),
    "a body that is too large, in chunks": post(
        b"Transfer-Encoding: chunked", body=b"1388\r\n4" + b"x" * 4999 + b"\r\n0\r\n\r\n", length=False
    ),
    "a head that is too large": post(b"X-A: " + b"x" * 20_000),
    "PUT": post().replace(b"POST", b"PUT", 1),
    "OPTIONS": post(b"Origin: http://example.org").replace(b"POST", b"OPTIONS", 1),
    "a method of control characters": post().replace(b"POST", b"PO\tST", 1),
    "a whole URL": post(target=b"http://example.org" + TARGET),
    "a URL with high bytes": post(target=TARGET + b"&x=\xff\xfe"),
    "a URL with escapes": post(target=TARGET + b"%00"),
    "a sid in escapes": post(target=TARGET.replace(b"SID", b"%SID")),
    "two sids": post(target=TARGET + b"&sid=xxxxxxxxxxxxxxxxxxxx"),
    "a wrong transport": post(target=TARGET.replace(b"polling", b"websocket")),
    "a wrong version": post(target=TARGET.replace(b"EIO=4", b"EIO=3")),
    "a path inside": post(target=TARGET.replace(b"/engine.io/", b"/engine.io/../engine.io/")),
    "a foreign origin": post(b"Origin: http://evil.example"),
    "a claimed address": post(b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Proto: https"),
    "not UTF-8": post(body=b"4\xff\xfe"),
    "no packet": post(body=b"9"),
    "too many packets": post(body=b"4\x1e" * 400 + b"4"),
    "JSONP": post(b"Content-Type: application/x-www-form-urlencoded", body=b"d=4a", target=TARGET + b"&j=0"),
    "HTTP/1.0": post().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/9": post().replace(b"HTTP/1.1", b"HTTP/9"),
}


class SameTests(SiblingsTestCase):
    """
    Requests by way of another worker, against the same ones directly.
    """

    def outcome(self, data: bytes, direct: bool) -> dict[str, Any]:
        """Send the bytes, and return all that can be seen of it afterwards."""
        self.makeWorkers(maxPayload=1000)
        owner, other = self.one, self.two
        sid = owner.openPolling()
        link = Link("192.0.2.7").connect((owner if direct else other).site)
        link.deliver(data.replace(b"SID", sid.encode()))
        self.network.settle()
        output, responses = link.take(), []
        while output:
            response, output = readResponse(output)
            assert response is not None
            # The fast path leaves these two out, and serves what comes behind a request that it has served.
            headers = {
                name: value for name, value in response.headers.items() if name not in ("server", "date")
            }
            responses.append((response.status, headers, response.body))
        return {
            "responses": responses,
            "open": link.connected and not link.disconnecting,
            "heard": owner.owner.heard,
            "state": owner.session.state,
            "ends": owner.owner.ends,
            "sessions": [len(worker.engine.sessions) for worker in (self.one, self.two)],
        }

    def test_same(self) -> None:
        """The same response, the same messages, and the same state of the session and the connection."""
        different = {}
        for name, data in REQUESTS.items():
            directly, relayed = self.outcome(data, True), self.outcome(data, False)
            if directly != relayed:
                different[name] = {
                    key: (directly[key], relayed[key]) for key in directly if directly[key] != relayed[key]
                }
            self.assertNotIn("smuggled", directly["heard"] if name != "a request behind the body" else [])
        self.assertEqual(different, {}, json.dumps(different, indent=1, default=repr))


class SameOnAnySiteTests(SameTests):
    """The same in sites of twisted.web alone."""

    fastPath = False


class GuessTests(SiblingsTestCase):
    def test_secrets(self) -> None:
        """Sids that name a worker and guess its secret cost the owner one lookup each, and leave nothing."""
        sid = self.one.openPolling()
        for number in range(300):
            guessed = secrets.token_urlsafe(12) + self.one.mark
            exchange = (self.two.get if number % 2 else lambda sid: self.two.post(sid, b"4x"))(guessed)
            self.assertEqual(self.settled(exchange).answer.error, (400, 1, "Session ID unknown"))
        self.assertEqual(set(self.one.engine.sessions), {sid})
        self.assertEqual(self.one.owner.heard, [])
        [answering] = self.one.siblings.relays.connections
        [asking] = self.two.siblings._open.values()
        self.assertEqual((answering._requests, asking._requests, asking._queue), ({}, {}, []))
        self.assertIs(self.one.session.state, State.OPEN)

    def test_names(self) -> None:
        """A mark is no path: what names no worker asks nobody."""
        for mark in ("../x", "....", "%2e%2", "/etc", markOf(200, 1), self.two.mark + "."):
            exchange = self.settled(self.two.get("x" * 16 + mark))
            self.assertEqual(exchange.answer.error[:2], (400, 1))
        self.assertEqual((self.two.siblings.relayed, self.network.ends), (0, []))


class QueueTests(SiblingsTestCase):
    """
    The owner has stopped reading, and a client goes on sending for it.
    """

    def stuck(self) -> Any:
        """Return the connection from two to one, which takes nothing any more."""
        self.settled(self.two.post(self.sid, b"4a"))
        near = self.network.ends[0]
        near.fill()
        return near

    def setUp(self) -> None:
        super().setUp()
        self.patch(relay, "_MOST_WAITING", 1_000_000)
        self.sid = self.one.openPolling()

    def test_bounded(self) -> None:
        """The queue is bounded: requests beyond are refused at once, and sessions elsewhere go on."""
        near = self.stuck()
        body = b"4" + b"x" * 100_000
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            exchanges = [self.two.post(self.sid, body) for _ in range(200)]
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        refused = [exchange for exchange in exchanges if exchange.response is not None]
        self.assertEqual({exchange.answer.status for exchange in refused}, {503})
        self.assertGreater(len(refused), 180)
        self.assertLess(grown, 4_000_000)
        other = self.three.openPolling()
        self.assertEqual(self.settled(self.two.post(other, b"4b")).answer.body, b"ok")
        near.drain()
        self.network.settle()
        self.assertTrue(all(exchange.response is not None for exchange in exchanges))
        self.assertEqual(self.settled(self.two.post(self.sid, b"4c")).answer.body, b"ok")
        self.assertEqual(self.one.owner.heard[-1], "c")

    def test_gone(self) -> None:
        """Clients that go before their turn are counted as well, and leave no request behind."""
        self.stuck()
        [asking] = self.two.siblings._open.values()
        for _ in range(5000):
            self.two.get(self.sid).drop()
        self.assertEqual(asking._requests, {})
        self.assertLess(sum(map(len, asking._queue)), 3_000_000)

    def test_waitingGETs(self) -> None:
        """One GET of a session waits at a time, by whichever worker: each further one is refused."""
        first = self.settled(self.two.get(self.sid))
        answers = [self.settled(self.two.get(self.sid)) for _ in range(50)]
        self.assertEqual({exchange.answer.status for exchange in answers}, {400})
        self.assertIsNotNone(first)
        [answering] = self.one.siblings.relays.connections
        self.assertLessEqual(len(answering._requests), 1)
