"""
Bodies of requests: kept for an application, or refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.static import Data

from tests.memory import Link
from tests.views import PATIENCE, ViewsTestCase
from txrealtime.engineio.http.site import Beside
from txrealtime.service import body as bodyModule
from txrealtime.service.body import IN_MEMORY, MOST_WAITING

MULTIPART = "multipart/form-data; boundary=B"


def form(filler: bytes) -> bytes:
    return (
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + filler + b"\r\n--B--\r\n"
    )


class BodyTests(ViewsTestCase):
    """
    Uploads to views.
    """

    LIMIT = 4_000_000

    def setUp(self) -> None:
        super().setUp()
        self.read: list[bytes] = []
        self.serve(self.application, maxUpload=self.LIMIT)

    def application(self, environ: Any, respond: Any) -> Iterable[bytes]:
        self.read.append(environ["wsgi.input"].read())
        respond("200 OK", [])
        return [b"%d" % len(self.read[-1])]

    def post(self, length: int | None, *headers: str, path: str = "/") -> Link:
        """Send the head of a POST, for a body in chunks if there is no length."""
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        head = [f"POST {path} HTTP/1.1", "Host: x", size, *headers, "", ""]
        return self.connect("\r\n".join(head).encode())

    def send(self, link: Link, data: bytes) -> None:
        """Send data, 64 KiB at a time as from a socket, while the server reads."""
        for start in range(0, len(data), 65536):
            link.deliver(data[start : start + 65536])
            while not link.reading:
                self.reactor.turn()
                link.turn()

    def test_inMemory(self) -> None:
        """A small body needs no file and no thread."""
        with patch.object(bodyModule, "TemporaryFile", side_effect=AssertionError):
            data = b"x" * IN_MEMORY
            link = self.post(len(data))
            self.send(link, data)
            self.assertEqual(self.answer(link).body, b"%d" % len(data))
        self.assertEqual(self.views.bodies.held, 0)

    def test_onDisk(self) -> None:
        """A large one arrives whole, of known length and in chunks, and is forgotten afterwards."""
        data = bytes(range(256)) * 8000
        for length in (len(data), None):
            link = self.post(length)
            chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
            self.send(link, data if length else chunked)
            self.assertEqual(self.answer(link).body, b"%d" % len(data))
            self.assertEqual(self.read.pop(), data)
            self.whenIdle()
            self.assertEqual(self.views.bodies.held, 0)

    def test_slowDisk(self) -> None:
        """While the disk is busy no more is read, and the request waits until all of it is written."""
        go = threading.Event()
        self.addCleanup(go.set)
        real = bodyModule.TemporaryFile

        def slowly() -> Any:
            go.wait(PATIENCE)
            return real()

        with patch.object(bodyModule, "TemporaryFile", slowly):
            link = self.post(2_000_000)
            sent = 0
            while link.reading:
                link.deliver(b"x" * 65536)
                sent += 65536
            self.assertLess(sent, IN_MEMORY + MOST_WAITING + 3 * 65536)
            # It is the disk that takes so long, and not the client.
            self.reactor.advance(100)
            self.assertFalse(link.disconnected)
            go.set()
            self.reactor.turn()
            self.assertTrue(link.reading)
            self.send(link, b"x" * (2_000_000 - sent))
            self.assertEqual(self.answer(link).body, b"2000000")

    def test_clientGoes(self) -> None:
        """The received part is thrown away, also while a thread writes it."""
        go = threading.Event()
        self.addCleanup(go.set)
        real = bodyModule.TemporaryFile
        files: list[Any] = []

        def slowly() -> Any:
            go.wait(PATIENCE)
            files.append(real())
            return files[-1]

        for writing in (True, False):
            with patch.object(bodyModule, "TemporaryFile", slowly):
                link = self.post(2_000_000)
                link.deliver(b"x" * 400_000)
                if not writing:
                    self.reactor.turn()
                link.lose()
                go.set()
                if writing:
                    self.reactor.turn()
            while not self.views.bodies.jobs._pool.isDone:
                threading.Event().wait(0.001)
            self.assertEqual((files.pop().closed, self.views.bodies.held, self.read), (True, 0, []))

    def test_clientGoesBeforeItIsRead(self) -> None:
        """A request that has come is handled, and its body is there."""
        data = b"x" * 600_000
        link = self.post(len(data))
        self.send(link, data)
        self.until(lambda: not self.reactor.handed.empty() or self.read)
        link.lose()
        self.whenIdle()
        self.assertLessEqual(len(self.read), 1)
        self.assertEqual(self.views.bodies.held, 0)

    def test_tooLarge(self) -> None:
        """413 at once when its length says so, otherwise when it is too long; never a call."""
        link = self.post(self.LIMIT + 1)
        answer = self.answer(link)
        self.assertEqual((answer.status, answer.headers["connection"]), (413, "close"))
        self.assertEqual(answer.body, b"the body is larger than maxUpload, 4000000 bytes")
        link = self.post(None)
        self.send(link, b"%x\r\n" % (self.LIMIT + 1) + b"x" * (self.LIMIT + 1))
        self.assertEqual(self.answer(link).status, 413)
        self.send(link, b"x" * 2_000_000)
        self.assertTrue(link.disconnecting)
        self.assertEqual(self.read, [])

    def test_tooManyAtATime(self) -> None:
        """All together take at most four times as much of the disk; there is room when one has gone."""
        links = [self.post(self.LIMIT) for _ in range(4)]
        for link in links:
            self.send(link, b"x" * (self.LIMIT - 1))
        late = self.post(self.LIMIT)
        self.send(late, b"x" * 300_000)
        answer = self.answer(late)
        self.assertEqual(answer.status, 503)
        self.assertIn(b"no room", answer.body)
        self.assertRegex(self.takeLog()[0], "bodies take 15999996 bytes on disk already: raise maxUpload")
        self.send(links[0], b"x")
        self.assertEqual(self.answer(links[0]).status, 200)
        self.whenIdle()
        again = self.post(300_000)
        self.send(again, b"x" * 300_000)
        self.assertEqual(self.answer(again).status, 200)

    def test_diskFull(self) -> None:
        """The client gets 503, the log has the reason, and the server goes on."""
        for rest in (0, 100_000):
            with patch.object(bodyModule, "TemporaryFile", side_effect=OSError(28, "No space left")):
                link = self.post(400_000 + rest)
                self.send(link, b"x" * 400_000)
                if rest:
                    self.reactor.turn()
                    self.send(link, b"x" * rest)
                answer = self.answer(link)
            self.assertEqual(
                (answer.status, answer.body), (503, b"the server has no room for the body of this request")
            )
            self.assertIn("No space left", self.takeLog()[0])
        self.assertEqual(self.ask("GET / HTTP/1.1", "Host: x").status, 200)
        self.assertEqual(self.read, [b""])

    def test_continue(self) -> None:
        """The client is told to go on, unless the body is too large."""
        link = self.post(2, "Expect: 100-continue")
        self.assertEqual(self.answer(link).status, 100)
        link.deliver(b"hi")
        self.assertEqual(self.answer(link).body, b"2")
        link = self.post(self.LIMIT + 1, "Expect: 100-continue")
        self.assertEqual(self.answer(link).status, 413)
        self.assertEqual(link.take(), b"")

    def test_timeForLargeBodies(self) -> None:
        """A large body has requestTimeout for each maxPayload bytes, and no longer."""
        link = self.post(4_000_000)
        for _ in range(3):
            self.send(link, b"x" * 1_010_000)
            self.reactor.advance(29)
            self.assertFalse(link.disconnecting)
        self.send(link, b"x" * 100)
        self.reactor.advance(1)
        self.assertTrue(link.disconnecting)

    def test_formsAreTheApplications(self) -> None:
        """No form is parsed in the reactor, and bad ones are the application's too."""
        with patch.object(http, "_getMultiPartArgs", side_effect=AssertionError):
            for kind in (MULTIPART, "multipart/form-data", "application/x-www-form-urlencoded"):
                data = form(b"x" * 1000)
                link = self.post(len(data), f"Content-Type: {kind}")
                link.deliver(data)
                self.assertEqual(self.answer(link).status, 200)
                self.assertEqual(self.read.pop(), data)


class Fields(Resource):
    """
    A user's resource that reads the fields of forms.
    """

    isLeaf = True

    def render(self, request: Any) -> bytes:
        request.content.read(3)
        found = repr(sorted(request.args.items())).encode()
        return found + request.content.read()


class FormTests(ViewsTestCase):
    """
    Forms on a site with a server: parsed for the resources that read them, and for no others.
    """

    def setUp(self) -> None:
        super().setUp()
        root = Resource()
        root.putChild(b"fields", Fields())
        root.putChild(b"page", Data(b"page", "text/plain"))
        self.serve(None)
        self.site = self.server.site(root)
        self.site.reactor = self.reactor

    def post(self, path: str, kind: str, body: bytes, version: str = "1.1") -> Any:
        return self.ask(
            f"POST {path} HTTP/{version}",
            "Host: x",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            body=body,
        )

    def test_fieldsAreRead(self) -> None:
        """The resource gets the fields as from twisted.web, and the rest of the body too."""
        answer = self.post("/fields?a=1", "application/x-www-form-urlencoded", b"b=2&c=")
        self.assertEqual(answer.body, b"[(b'a', [b'1']), (b'b', [b'2']), (b'c', [b''])]&c=")
        data = form(b"file")
        answer = self.post("/fields", MULTIPART, data)
        self.assertEqual(answer.body, b"[(b'f', [b'file'])]" + data[3:])
        self.assertEqual(self.post("/fields?a=1", "text/plain", b"b=2").body, b"[(b'a', [b'1'])]")

    def test_badForm(self) -> None:
        answer = self.post("/fields", "multipart/form-data", b"no boundary")
        self.assertEqual(answer.status, 400)

    def test_fieldsAreNotRead(self) -> None:
        """Neither pages, nor what is not there, nor the engine by any of its ways."""
        engine = "/socket.io/?EIO=4&transport=polling&sid=unknown"
        with patch.object(http, "_getMultiPartArgs", side_effect=AssertionError):
            self.assertEqual(self.post("/nowhere", MULTIPART, form(b"\n" * 100)).status, 404)
            self.assertEqual(self.post("/page", MULTIPART, form(b"\n" * 100)).status, 405)
            for version in ("1.0", "1.1"):
                self.assertEqual(self.post(engine, MULTIPART, form(b"\n" * 100), version).status, 400)
        (lines, body) = [f"POST {engine} HTTP/1.1", "Host: x", "X: 1", "X: 2"], form(b"\n")
        lines += [f"Content-Type: {MULTIPART}", f"Content-Length: {len(body)}"]
        self.assertEqual(self.ask(*lines, body=body).status, 400)

    def test_beside(self) -> None:
        """A resource beside a WSGI application leaves bodies to the application."""
        beside = Beside("/health", Data(b"fine", "text/plain"), self.views)
        self.assertIs(beside.bodies, self.views.bodies)
        self.assertIs(self.server.site(beside).bodies, self.views.bodies)
        self.assertIsNone(Beside("/health", self.views, Resource()).bodies)
