"""
A WSGI application behind a site in memory: PEP 3333, HTTP, slow clients, and the end of the server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from tests.memory import Link
from tests.views import PATIENCE, Reactor, ViewsTestCase
from txrealtime import Server
from txrealtime.service.wsgi import Views


class StopTests(SynchronousTestCase):
    """
    Requests in flight when the reactor is told to stop.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.addCleanup(self.go.set)
        self.threads: list[threading.Thread] = []
        self.log: list[str] = []
        self.accesses: list[tuple[bytes, int]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.serve(2)

    def serve(self, size: int) -> None:
        self.server = Server(reactor=self.reactor, drainTimeout=5)
        self.views = Views(self.reactor, self.application, size, self.server)

    def observe(self, event: Any) -> None:
        if event["log_namespace"] == "txrealtime.pool":
            self.log.append(event["log_format"].format(**event))

    def application(self, environ: Any, respond: Any) -> Iterable[bytes]:
        """A view that waits."""
        self.threads.append(threading.current_thread())
        self.begun.release()
        self.go.wait(PATIENCE)
        respond("200 OK", [("Content-Length", "4")])
        return [b"done"]

    def get(self, path: str) -> StringTransport:
        transport = StringTransport()
        site = Site(self.views, reactor=self.reactor)
        site.log = lambda request: self.accesses.append((request.uri, request.code))
        self.protocol = protocol = site.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return transport

    def begin(self, path: str = "/slow") -> StringTransport:
        """A request whose view runs."""
        transport = self.get(path)
        self.assertTrue(self.begun.acquire(timeout=PATIENCE))
        return transport

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the time go by."""
        while not condition():
            threading.Event().wait(0.001)
            self.reactor.advance(0.02)

    def test_manyAtATime(self) -> None:
        """As many as there are threads, and no more."""
        transports = [self.begin(), self.begin(), self.get("/waits")]
        self.assertFalse(self.begun.acquire(blocking=False))
        self.go.set()
        for _ in range(6):  # for each the response, and its end
            self.reactor.turn()
        self.assertEqual([transport.value()[-4:] for transport in transports], [b"done"] * 3)

    def test_accessLog(self) -> None:
        """The access log has a client that closes as soon as it has all bytes."""
        self.begin("/read")
        lost = self.protocol
        self.begin("/unread")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.go.set()
        self.reactor.turn()
        lost.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.accesses, [(b"/read", 200)])

    def test_answered(self) -> None:
        """The reactor goes on until they are."""
        transport = self.begin()
        stopped = self.reactor.stop()
        self.reactor.advance(4)
        self.assertNoResult(stopped)
        self.go.set()
        self.reactor.turn()
        self.reactor.turn()
        self.assertTrue(transport.value().endswith(b"\r\n\r\ndone"))
        self.until(lambda: stopped.called)
        self.successResultOf(stopped)
        self.assertEqual(self.log, [])

    def test_noMore(self) -> None:
        """A request on a connection that is open already is refused: otherwise the end would never come."""
        self.begin()
        self.reactor.stop()
        self.reactor.advance(0.3)
        late = self.get("/late").value()
        self.assertTrue(late.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), late)
        self.assertIn(b"\r\nConnection: close\r\n", late)

    def test_portsAreOpen(self) -> None:
        """A request is answered until a moment after the server has stopped; its connection ends with it."""
        self.server.startService()
        stopped = self.reactor.stop()
        self.reactor.advance(0.3)
        self.assertNoResult(stopped)
        last = self.begin("/last")
        self.server.stopService()
        self.reactor.advance(0.02)
        self.reactor.advance(0.2)
        veryLast = self.begin("/veryLast")
        self.go.set()
        for _ in range(4):  # for each the response, and its end
            self.reactor.turn()
        self.until(lambda: stopped.called)
        for transport in (last, veryLast):
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"), transport.value())
            self.assertIn(b"\r\nConnection: close\r\n", transport.value())
        self.successResultOf(stopped)

    def test_leftBehind(self) -> None:
        """A view that does not end in time is named, and is told so if it calls into the reactor later."""
        self.begin("/slow?secret")
        stopped = self.reactor.stop()
        self.until(lambda: stopped.called)
        self.assertGreaterEqual(self.reactor.seconds(), 5)
        (line,) = self.log
        self.assertRegex(line, r"^view-1 is left behind: GET /slow has run for \d+\.\d s\. ")
        self.go.set()
        self.threads[0].join(PATIENCE)
        self.assertFalse(self.threads[0].is_alive())
        self.assertTrue(self.reactor.handed.empty())
        self.assertEqual(len(self.log), 1)

    def test_tooLateToBegin(self) -> None:
        """A view that still waits for a thread is not called any more."""
        self.serve(1)
        self.begin()
        self.get("/waits")
        stopped = self.reactor.stop()
        self.until(lambda: stopped.called)
        self.go.set()
        self.threads[0].join(PATIENCE)
        self.assertFalse(self.begun.acquire(blocking=False))

    def test_nothingKeepsTheProcess(self) -> None:
        self.begin()
        self.assertTrue(self.threads[0].daemon)


def plain(body: bytes | Iterable[bytes], *headers: tuple[str, str], status: str = "200 OK") -> Any:
    """An application with one answer."""

    def application(environ: Any, respond: Any) -> Iterable[bytes]:
        respond(status, [("Content-Type", "text/plain"), *headers])
        return [body] if isinstance(body, bytes) else body

    return application


class Pieces:
    """
    A body in pieces, which counts the calls of its methods.

    :ivar given: the pieces that were asked for.
    :ivar closed: the calls of close().
    """

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = iter(pieces)
        self.given = self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.given += 1
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1


class ResponseTests(ViewsTestCase):
    """
    From the application to the wire.
    """

    def get(self, path: str = "/", method: str = "GET", *headers: str) -> Any:
        return self.ask(f"{method} {path} HTTP/1.1", "Host: x", *headers)

    def test_validated(self) -> None:
        """wsgiref finds nothing wrong, with what is asked of it and with what it is given."""

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            text = environ["wsgi.input"].read(1000)
            environ["wsgi.errors"].write("noted\n")
            respond("200 OK", [("Content-Type", "text/plain")])
            return [b"you said ", text]

        self.serve(validator(application))
        for lines, body in (
            (["GET /a?b=c HTTP/1.1", "Host: x"], b""),
            (["GET / HTTP/1.0"], b""),
            (["HEAD / HTTP/1.1", "Host: x:80"], b""),
            (["POST / HTTP/1.1", "Host: x", "Content-Length: 2", "Content-Type: text/plain"], b"hi"),
            (["PUT / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"], b"2\r\nhi\r\n0\r\n\r\n"),
        ):
            answer = self.ask(*lines, body=body)
            self.assertEqual(answer.status, 200)
            expected = b"" if lines[0].startswith("HEAD") else b"you said " + (b"hi" if body else b"")
            self.assertEqual(answer.body, expected)
        self.assertEqual(self.takeLog(), ["noted"] * 5)

    def test_head(self) -> None:
        """Status and headers are as given, except those about the connection."""
        self.serve(
            plain(
                b"x",
                ("X-Two", "1"),
                ("X-Two", "2"),
                ("Server", "mine"),
                ("Transfer-Encoding", "gzip"),
                ("Connection", "close"),
                ("Keep-Alive", "5"),
                status="418 I'm a teapot",
            )
        )
        answer = self.get()
        self.assertEqual((answer.status, answer.reason, answer.body), (418, "I'm a teapot", b"x"))
        self.assertEqual((answer.headers["x-two"], answer.headers["server"]), ("1, 2", "mine"))
        self.assertIn("date", answer.headers)
        self.assertEqual(answer.headers.keys() & {"transfer-encoding", "connection", "keep-alive"}, set())

    def test_oneChunkHasALength(self) -> None:
        self.serve(plain(b"four"))
        self.assertEqual(self.get().headers["content-length"], "4")

    def test_manyChunks(self) -> None:
        """The pieces become chunks; the head waits for the first byte, and empty pieces are no end."""
        seen: list[bytes] = []

        def body() -> Iterator[bytes]:
            yield b""
            seen.append(link.value())
            yield b"a"
            yield b""
            yield b"b"

        self.serve(plain(body()))
        link = self.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = self.answer(link)
        self.assertEqual((answer.headers["transfer-encoding"], answer.body), ("chunked", b"ab"))
        self.assertEqual(seen, [b""])

    def test_noBody(self) -> None:
        """An empty body has a length, but where there is none at all."""
        self.serve(plain([]))
        self.assertEqual(self.get().headers["content-length"], "0")
        for status in ("204 No Content", "304 Not Modified"):
            self.serve(plain(Pieces(b"never sent"), status=status))
            answer = self.get()
            self.assertEqual((answer.status, answer.body), (int(status[:3]), b""))
            self.assertNotIn("content-length", answer.headers)

    def test_HEAD(self) -> None:
        """The head alone, with the length that the application says; then the next request."""
        body = Pieces(b"four", b"more")
        self.serve(plain(body, ("Content-Length", "8")))
        link = self.connect(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = self.answer(link, "HEAD")
        self.assertEqual(answer.headers["content-length"], "8")
        self.whenIdle()
        self.assertEqual((body.given, body.closed), (1, 1))
        self.assertEqual(link.take(), b"")

    def test_HTTP10(self) -> None:
        """No chunks: the end of the connection is the end."""
        self.serve(plain([b"a", b"b"]))
        link = self.connect(b"GET / HTTP/1.0\r\n\r\n")
        answer = self.answer(link)
        self.assertEqual(answer.body, b"ab")
        self.assertNotIn("transfer-encoding", answer.headers)
        self.assertTrue(link.disconnecting)

    def test_pipelined(self) -> None:
        """One after the other, in order, though the first takes longest."""
        go = threading.Event()
        self.addCleanup(go.set)

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/1":
                go.wait(PATIENCE)
            respond("200 OK", [])
            return [environ["PATH_INFO"].encode(), environ["wsgi.input"].read()]

        self.serve(application)
        link = self.connect(
            b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na"
            b"POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n"
            b"GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        go.set()
        self.assertEqual([self.answer(link).body for _ in range(3)], [b"/1a", b"/2b", b"/3"])
        self.assertTrue(link.disconnecting)

    def test_write(self) -> None:
        """start_response() returns a function that sends data before the iterable does."""

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            write = respond("200 OK", [])
            write(b"")
            write(b"a")
            return [b"b"]

        self.serve(application)
        self.assertEqual(self.get().body, b"ab")

    def test_startedLate(self) -> None:
        """A generator calls start_response() when it is first asked for a piece."""

        def application(environ: Any, respond: Any) -> Iterator[bytes]:
            respond("200 OK", [])
            yield b"late"

        self.serve(application)
        self.assertEqual(self.get().body, b"late")

    def test_anotherHeadAfterAnError(self) -> None:
        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            respond("200 OK", [("X-First", "1")])
            try:
                raise KeyError("lost")
            except KeyError as error:
                respond("404 Not Found", [], (KeyError, error, error.__traceback__))
            return [b"none"]

        self.serve(application)
        answer = self.get()
        self.assertEqual((answer.status, answer.body), (404, b"none"))
        self.assertNotIn("x-first", answer.headers)

    def test_noOtherHeadAfterTheFirstBytes(self) -> None:
        """Then start_response() raises the error that it was given, and the connection ends."""

        def application(environ: Any, respond: Any) -> Iterator[bytes]:
            respond("200 OK", [])
            yield b"begun"
            error = KeyError("lost")
            respond("500 Oh", [], (KeyError, error, None))

        self.serve(application)
        link = self.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.until(lambda: link.disconnecting)
        self.assertEqual(link.value().partition(b"\r\n\r\n")[2], b"5\r\nbegun\r\n")
        self.assertEqual(self.takeLog(), ["GET / failed: KeyError('lost')"])

    def test_fileWrapper(self) -> None:
        """A file in blocks, closed at the end; one that cannot be sought in blocks as asked for."""
        sizes: list[int] = []

        class File:
            closed = 0

            def __init__(self, seekable: bool) -> None:
                self.seekable = lambda: seekable
                self._left = 100_000

            def read(self, size: int) -> bytes:
                sizes.append(size)
                taken = min(size, self._left)
                self._left -= taken
                return b"x" * taken

            def close(self) -> None:
                self.closed += 1

        for seekable, size in ((True, 65536), (False, 1000)):
            file = File(seekable)

            def application(environ: Any, respond: Any, file: File = file) -> Iterable[bytes]:
                respond("200 OK", [])
                wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 1000)
                return wrapped

            sizes.clear()
            self.serve(application)
            self.assertEqual(len(self.get().body), 100_000)
            self.whenIdle()
            self.assertEqual((set(sizes), file.closed), ({size}, 1))

    # -- applications that are wrong --------------------------------------------------------

    def assertFails(self, application: Any, error: str) -> None:
        self.serve(application)
        answer = self.get("/page?secret")
        self.assertEqual(answer.status, 500)
        self.assertIn(b"Internal Server Error", answer.body)
        self.whenIdle()
        (line,) = self.takeLog()
        self.assertRegex(line, "^GET /page failed: " + error)

    def test_failures(self) -> None:
        """The client gets a page that says nothing, and the log all of it."""

        def fails(environ: Any, respond: Any) -> Iterable[bytes]:
            raise SystemExit(3)

        def silent(environ: Any, respond: Any) -> Iterable[bytes]:
            return []

        def early(environ: Any, respond: Any) -> Iterator[bytes]:
            yield b"x"

        def twice(environ: Any, respond: Any) -> Iterable[bytes]:
            respond("200 OK", [])
            respond("200 OK", [])
            return []

        self.assertFails(fails, "SystemExit")
        self.assertFails(silent, "RuntimeError.*has not called start_response")
        self.assertFails(early, "RuntimeError.*not called before the first")
        self.assertFails(twice, "RuntimeError.*called before")
        text: Any = "text"
        self.assertFails(plain([text]), "TypeError.*bytes, not str")
        self.assertFails(plain(b"x", status="OK"), "ValueError.*'OK'")
        self.assertFails(plain(b"x", status="101 Upgrade"), "ValueError")
        self.assertFails(plain(b"x", status="200 O\r\nX: y"), "ValueError")
        self.assertFails(plain(b"x", ("X", "a\r\nY: b")), "ValueError.*on one line")
        self.assertFails(plain(b"x", ("X", "\u20ac")), "ValueError")
        self.assertFails(plain(b"x", ("X Y", "a")), "ValueError.*the name 'X Y'")
        self.assertFails(plain(b"x", ("Content-Length", "-1")), "ValueError.*is a number")
        self.assertFails(plain([], ("Content-Length", "3")), "ValueError.*no body")
        lengths = ("Content-Length", "1"), ("content-length", "2")
        self.assertFails(plain(b"x", *lengths), "ValueError.*two Content-Length headers, 1 and 2")

    def test_closedOnce(self) -> None:
        """close() is called once, however the response ends, and a failure there harms nobody."""
        for pieces in ([b"a", b"b"], [], [KeyError("x")], [b"a", KeyError("x")]):
            body = Pieces(*pieces)
            self.serve(plain(body))
            link = self.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            self.until(lambda link=link: link.value())
            self.whenIdle()
            self.assertEqual(body.closed, 1, pieces)
            self.assertEqual(len(self.takeLog()), sum(isinstance(piece, Exception) for piece in pieces))

        class Bad(Pieces):
            def close(self) -> None:
                raise KeyError("in close")

        self.serve(plain(Bad(b"fine")))
        self.assertEqual(self.get().body, b"fine")
        self.whenIdle()
        self.assertEqual(self.takeLog(), ["GET /: close() of the response failed: KeyError('in close')"])

    def test_moreThanItsLength(self) -> None:
        """Bytes beyond Content-Length are never sent: a client would read them as the next response."""
        body = Pieces(b"ab", b"cd", b"ef")
        self.serve(plain(body, ("Content-Length", "3")))
        link = self.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.answer(link).body, b"abc")
        self.whenIdle()
        self.assertEqual((body.given, body.closed, link.take()), (2, 1, b""))

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            write = respond("200 OK", [("Content-Length", "1")])
            write(b"ab")
            return []

        self.serve(application)
        self.assertEqual(self.get().body, b"a")
        self.whenIdle()
        self.assertIn("larger than its Content-Length, 1 bytes", self.takeLog()[-1])

    def test_lessThanItsLength(self) -> None:
        """The connection ends, so that the client does not wait for the rest."""
        self.serve(plain([b"a", b"b"], ("Content-Length", "3")))
        link = self.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.until(lambda: link.disconnecting)
        self.assertIn("ends after 2 bytes, and its Content-Length is 3", self.takeLog()[-1])


class NarrowLink(Link):
    """A connection that each write fills."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None:
            self.fill()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))


class SlowReaderTests(ViewsTestCase):
    """
    Backpressure of the transport reaches the view.
    """

    def begin(self, body: Any, *headers: tuple[str, str]) -> Link:
        """Send a request whose client reads nothing, and wait for the first piece of the response."""
        self.serve(plain(body, *headers))
        link = NarrowLink().connect(self.site)
        link.deliver(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.reactor.turn()
        return link

    def test_onePieceInFlight(self) -> None:
        """While the transport is full, no more is asked of the view; it goes on when there is room."""
        body = Pieces(b"a" * 1000, b"b" * 1000, b"c" * 1000)
        link = self.begin(body)
        for given, piece in enumerate((b"aaa", b"bbb", b"ccc"), 1):
            self.assertIn(piece, link.value())
            self.assertEqual((body.given, self.reactor.handed.empty()), (given, True))
            link.drain()
            self.reactor.turn()
        self.whenIdle()
        self.assertEqual((body.given, body.closed), (3, 1))
        self.assertTrue(link.value().endswith(b"\r\n0\r\n\r\n"))

    def test_largePieces(self) -> None:
        """A large one crosses in parts, each when the transport has taken the one before."""
        link = self.begin([b"x" * 1_000_000])
        for crossed in range(65536, 1_000_000, 65536):
            self.assertEqual(len(link.value().partition(b"\r\n\r\n")[2]), crossed)
            self.assertTrue(self.reactor.handed.empty())
            link.drain()
            self.reactor.turn()
        self.assertEqual(len(self.answer(link).body), 1_000_000)

    def test_fullAlready(self) -> None:
        """A transport filled by the previous response gets no more until it has room."""
        body = Pieces(b"a", b"b")
        self.serve(plain(body))
        link = self.connect(b"GET /1 HTTP/1.1\r\nHost: x\r\n")
        link.fill()
        link.protocol.dataReceived(b"\r\n")
        self.reactor.turn()
        self.assertEqual((body.given, self.reactor.handed.empty(), link.value()), (1, True, b""))
        link.drain()
        self.assertEqual(self.answer(link).body, b"ab")

    def test_clientGoes(self) -> None:
        """The thread that waits is let go, and the view's generator closed, once."""
        body = Pieces(b"a", b"b")
        link = self.begin(body)
        link.lose()
        self.whenIdle()
        self.assertEqual((body.given, body.closed), (1, 1))

    def test_clientGoesWhileItComputes(self) -> None:
        """The view notices with its next piece."""
        go = threading.Event()
        closed: list[bool] = []

        def body() -> Iterator[bytes]:
            try:
                yield b"a"
                go.wait(PATIENCE)
                yield b"b"
                yield b"c"
            except GeneratorExit:
                closed.append(True)
                raise

        link = self.begin(body())
        link.drain()
        link.lose()
        go.set()
        self.whenIdle()
        self.assertEqual(closed, [True])

    def test_clientGoesWhileNothingIsSent(self) -> None:
        """A view that yields empty pieces while it waits ends when its client has gone."""
        begun, gone = threading.Event(), threading.Event()
        ended: list[bool] = []

        def pieces() -> Iterator[bytes]:
            try:
                yield b""
                begun.set()
                gone.wait(PATIENCE)
                yield b""
                ended.append(False)
            finally:
                ended.append(True)

        self.serve(plain(pieces()))
        link = self.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(begun.wait(PATIENCE))
        link.lose()
        gone.set()
        self.whenIdle()
        self.assertEqual(ended, [True])

    def test_clientHasGoneBeforeItBegins(self) -> None:
        """A request that has come is handled, as its client may expect."""
        called = threading.Event()

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            called.set()
            respond("200 OK", [])
            return [b"x"]

        self.serve(application)
        self.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").lose()
        self.whenIdle()
        self.assertTrue(called.is_set())

    def test_tooSlow(self) -> None:
        """A client that takes nothing for a minute is dropped: views wait in few threads."""
        body = Pieces(b"a", b"b")
        link = self.begin(body)
        self.reactor.advance(59)
        self.assertFalse(link.disconnected)
        self.reactor.advance(1)
        self.assertTrue(link.disconnected)
        self.whenIdle()
        self.assertEqual((body.given, body.closed), (1, 1))

    def test_lastBytesUnread(self) -> None:
        """A client that leaves the last bytes unread is dropped too."""
        self.serve(plain(b"bye"))
        link = self.connect(b"GET / HTTP/1.0\r\n\r\n")
        self.until(lambda: link.disconnecting)
        self.assertFalse(link.disconnected)
        self.reactor.advance(60)
        self.assertTrue(link.disconnected)

    def test_stopped(self) -> None:
        """A client that does not read keeps no thread when the server stops."""
        body = Pieces(b"a", b"b")
        self.begin(body)
        stopped = self.reactor.stop()
        while not stopped.called:
            self.reactor.advance(1)
        self.whenIdle()
        self.assertRegex(self.takeLog()[0], "left behind: GET /")
        self.assertEqual((body.given, body.closed), (1, 1))
