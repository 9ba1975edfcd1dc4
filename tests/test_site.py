"""
The site that limits bodies for its engine, and the resource beside another.
"""

from __future__ import annotations

import io
from typing import Any

from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource, Resource
from twisted.web.static import Data
from twisted.web.test.requesthelper import DummyRequest

import txrealtime.logs
from tests.memory import Exchange, Link, WireTestCase
from txrealtime.engineio.http.site import Beside
from txrealtime.engineio.session import CloseReason, State
from txrealtime.logs import Repeats


class Sized(Resource):
    """A resource that responds with the size of the body."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"%d" % len(request.content.read())


class EngineSiteTests(WireTestCase):
    fastPath = True

    LIMIT = 1000

    def setUp(self) -> None:
        super().setUp()
        self.makeEngine(maxPayload=self.LIMIT)
        self.root.putChild(b"other", Sized())
        self.root.putChild(b"engine.iox", Sized())
        self.sid = self.openPolling()
        self.url = f"/engine.io/?EIO=4&transport=polling&sid={self.sid}"

    def send(self, *lines: str, body: bytes = b"", url: str | None = None) -> Exchange:
        """Begin a POST with these headers and this part of its body."""
        link = Link().connect(self.site)
        head = [f"POST {url or self.url} HTTP/1.1", "Host: example.org", *lines, "", ""]
        link.deliver("\r\n".join(head).encode() + body)
        return Exchange(link)

    def test_within(self) -> None:
        self.assertEqual(self.post(self.sid, b"4" + b"x" * 999).answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["x" * 999])

    def test_GET(self) -> None:
        poll = self.get(self.sid)
        self.session.send("hello")
        self.assertEqual(poll.payload, [b"4hello"])

    def test_webSocket(self) -> None:
        client = self.upgrade(self.sid)
        client.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])

    def assertRefused(self, exchange: Exchange) -> None:
        self.assertEqual((exchange.answer.status, exchange.answer.body), (413, b""))
        self.assertEqual(exchange.answer.headers["connection"], "close")
        self.assertEqual(self.owner.heard, [])
        self.assertEqual(self.session.state, State.OPEN)

    def test_announced(self) -> None:
        """A body with too large a Content-Length is refused before its first byte, and the log says why."""
        with capturedLogs() as logs:
            self.assertRefused(self.send("Content-Length: 1001"))
        self.assertEqual(
            [formatEvent(event) for event in logs],
            [
                "refused 192.0.2.7: 413 a body of 1001 bytes, larger than maxPayload, 1000 bytes: "
                "raise maxPayload (--max-payload) if clients need more"
            ],
        )
        self.clock.advance(0.6)
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])

    def test_flood(self) -> None:
        """Refusals of this way count as others do, and 1,000 within a minute are 12 lines."""
        self.patch(txrealtime.logs, "repeats", Repeats(self.clock.seconds))
        with capturedLogs() as logs:
            for _ in range(1000):
                self.send("Content-Length: 1001")
                self.send("X: " + "x" * 20_000)
        lines = [formatEvent(event) or "" for event in logs]
        for status in (413, 431):
            self.assertEqual(len([line for line in lines if f": {status} " in line]), 12)
        self.assertEqual(self.engine.counts.refused, {"size": 1000, "head": 1000})

    def test_announcedAsMuchAsAllowed(self) -> None:
        post = self.send("Content-Length: 1000")
        self.assertIsNone(post.response)
        post.link.deliver(b"4" + b"x" * 999)
        self.assertEqual(post.answer.body, b"ok")

    def test_chunked(self) -> None:
        """A chunked body is refused as soon as it is too large."""
        post = self.send("Transfer-Encoding: chunked")
        post.link.deliver(b"3e8\r\n" + b"4" + b"x" * 999 + b"\r\n")
        self.assertIsNone(post.response)
        with capturedLogs() as logs:
            post.link.deliver(b"1\r\nx\r\n")
        self.assertRefused(post)
        self.assertIn("413 a body, larger than maxPayload, 1000 bytes", formatEvent(logs[0]))

    def test_chunkedWithin(self) -> None:
        post = self.send("Transfer-Encoding: chunked", body=b"2\r\n4a\r\n1\r\nb\r\n0\r\n\r\n")
        self.assertEqual(post.answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["ab"])

    def test_refusedConnectionEnds(self) -> None:
        """The connection ends after the whole body, since some clients read the response only then."""
        post = self.send("Content-Length: 1001")
        self.assertRefused(post)
        self.assertFalse(post.link.disconnecting)
        post.link.deliver(b"x" * 1001)
        self.assertTrue(post.link.disconnecting)

    def test_refusedChunksEnd(self) -> None:
        post = self.send("Transfer-Encoding: chunked", body=b"5dc\r\n" + b"x" * 1500 + b"\r\n")
        self.assertRefused(post)
        post.link.deliver(b"0\r\n\r\n")
        self.assertTrue(post.link.disconnecting)

    def test_withoutEnd(self) -> None:
        """A client that sends without end is cut off."""
        post = self.send("Transfer-Encoding: chunked")
        for _ in range(3):
            post.link.deliver(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        self.assertRefused(post)
        self.assertTrue(post.link.disconnecting)

    def test_announcedWithoutEnd(self) -> None:
        post = self.send("Content-Length: 1000000")
        self.assertRefused(post)
        for _ in range(3):
            self.assertFalse(post.link.disconnecting and _ < 2)
            post.link.deliver(b"x" * 1000)
        self.assertTrue(post.link.disconnecting)

    def test_escapedPath(self) -> None:
        """The limit holds for the same path with escapes."""
        post = self.send("Content-Length: 1001", url=self.url.replace("engine.io", "engine%2Eio"))
        self.assertEqual(post.answer.status, 413)

    def test_otherPaths(self) -> None:
        """Other resources have no limit."""
        for url in ("/other", "/other?/engine.io"):
            answer = self.send("Content-Length: 5000", body=b"x" * 5000, url=url).answer
            self.assertEqual((answer.status, answer.body), (200, b"5000"))

    def test_similarPath(self) -> None:
        """A path that only begins with the engine's belongs to the other resources."""
        answer = self.send("Content-Length: 5000", body=b"x" * 5000, url="/engine.iox").answer
        self.assertEqual((answer.status, answer.body), (200, b"5000"))

    def test_log(self) -> None:
        """A request for the engine is not logged, since its URL holds the secret of a session."""
        lines: list[str] = []
        self.site.logFile = io.StringIO()
        self.site._logDateTime = "now"
        self.post(self.sid, b"4a")
        self.send("Content-Length: 0", url="/other")
        lines = self.site.logFile.getvalue().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("/other", lines[0])


class SecretTests(WireTestCase):
    def test_notLogged(self) -> None:
        """No event logged of a session, from its opening to its end, has its whole sid."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.makeEngine(maxBuffered=10)
        sids = []
        for _ in range(3):
            sids.append(self.openPolling())
        self.post(sids[0], b"garbage")
        self.get(sids[1]).drop()
        self.session.send("x" * 8)
        self.session.send("x" * 8)
        for sid in sids:
            self.get(sid)
        self.assertTrue(events)
        for event in events:
            for sid in sids:
                self.assertNotIn(sid, repr({key: str(value) for key, value in event.items()}))


class BesideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.there = Sized()
        self.root = Resource()
        self.root.putChild(b"", Data(b"home", "text/plain"))
        self.inner = Resource()
        self.root.putChild(b"a", self.inner)

    def find(self, site: IResource, path: str) -> tuple[Any, list[bytes], list[bytes]]:
        """Return the resource that a site finds at a path, with the divided path."""
        request = DummyRequest([segment.encode() for segment in path.split("/")[1:]])
        request.prepath = []
        resource: Any = site
        while request.postpath and not resource.isLeaf:
            segment = request.postpath.pop(0)
            request.prepath.append(segment)
            resource = resource.getChildWithDefault(segment, request)
        return resource, request.prepath, request.postpath

    def test_there(self) -> None:
        site = Beside("/socket.io", self.there, self.root)
        self.assertEqual(self.find(site, "/socket.io/"), (self.there, [b"socket.io"], [b""]))
        self.assertEqual(self.find(site, "/socket.io"), (self.there, [b"socket.io"], []))

    def test_deeper(self) -> None:
        site = Beside("/a/socket.io/", self.there, self.root)
        self.assertEqual(self.find(site, "/a/socket.io/x"), (self.there, [b"a", b"socket.io"], [b"x"]))

    def test_elsewhere(self) -> None:
        for path in ("/socket.io", "/a/socket.io"):
            site = Beside(path, self.there, self.root)
            self.assertIs(self.find(site, "/")[0], self.root.children[b""])
            self.assertIs(self.find(site, "/a")[0], self.inner)
            self.assertIsNot(self.find(site, "/a/x")[0], self.there)
            self.assertIsNot(self.find(site, "/x/socket.io")[0], self.there)

    def test_leafElsewhere(self) -> None:
        """A WSGI application gets the whole path."""
        leaf = Sized()
        site = Beside("/socket.io", self.there, leaf)
        self.assertEqual(self.find(site, "/a/b"), (leaf, [], [b"a", b"b"]))
        self.assertEqual(self.find(site, "/"), (leaf, [], [b""]))
        self.assertIs(self.find(site, "/socket.io/")[0], self.there)
