"""
Views without a network: a WSGI application in real threads, behind a site in memory.

The threads hand their calls to a :class:`Reactor`, which makes them when a test tells it to.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import Link
from txrealtime import Server, logs
from txrealtime.service.wsgi import Views

PATIENCE = 30
"Seconds; nobody waits so long unless the test fails."


class Reactor(Clock):
    """
    A clock that takes calls from threads, makes them when it is told to, and has nothing to write.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed: queue.Queue[Callable[[], object]] = queue.Queue()
        self.triggers: dict[tuple[str, str], Callable[[], Deferred[None]]] = {}

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        self.handed.put(lambda: function(*args))

    def addSystemEventTrigger(self, phase: str, event: str, function: Any) -> None:
        self.triggers[phase, event] = function

    def getWriters(self) -> list[Any]:
        return []

    def turn(self) -> None:
        """Wait for a thread to call, and make the call."""
        self.handed.get(timeout=PATIENCE)()
        self.advance(0)

    def stop(self) -> Deferred[None]:
        """Do as a reactor that is told to stop."""
        return self.triggers["before", "shutdown"]()


class Answer(NamedTuple):
    """
    A response as a client reads it.

    :ivar headers: names in lower case.
    """

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


def readAnswer(data: bytes, method: str = "GET", ended: bool = False) -> tuple[Answer, bytes] | None:
    """
    The first response in what a server wrote, and the rest; None when it is not complete.

    :param ended: whether the server has closed the connection.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    _, code, reason = first.split(" ", 2)
    if method == "HEAD" or int(code) < 200 or code in ("204", "304"):
        return Answer(int(code), reason, headers, b""), rest
    if "transfer-encoding" in headers:
        body, found = b"", _readChunk(rest)
        while found and found[0]:
            body, rest = body + found[0], found[1]
            found = _readChunk(rest)
        return None if found is None else (Answer(int(code), reason, headers, body), found[1])
    length = int(headers.get("content-length", len(rest) if ended else len(rest) + 1))
    return None if len(rest) < length else (Answer(int(code), reason, headers, rest[:length]), rest[length:])


def _readChunk(data: bytes) -> tuple[bytes, bytes] | None:
    """A chunk and the rest; the last is empty."""
    line, _, rest = data.partition(b"\r\n")
    size = int(line, 16) if line else 0
    if not line or len(rest) < size + 2:
        return None
    assert rest[size : size + 2] == b"\r\n", rest[size:]
    return rest[:size], rest[size + 2 :]


class ViewsTestCase(SynchronousTestCase):
    """
    A site with a WSGI application, and clients of it.

    A test fails if it leaves log entries of views that it has not read by :meth:`takeLog`.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.patch(logs.repeats, "window", 0)
        self._log: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: Any) -> None:
        if event["log_namespace"].startswith(("txrealtime.pool", "txrealtime.service")):
            text = event["log_format"].format(**event)
            failure = event.get("log_failure")
            self._log.append(text if failure is None else f"{text}: {failure.value!r}")

    def tearDown(self) -> None:
        self.assertEqual(self._log, [])

    def takeLog(self) -> list[str]:
        """Return the log's entries since the last call as texts, failures with their exceptions."""
        self.flushLoggedErrors()
        log, self._log = self._log, []
        return log

    def serve(self, application: Any, threads: int = 4, **settings: Any) -> None:
        """Serve an application."""
        self.server = Server(reactor=self.reactor, **settings)
        self.views = Views(self.reactor, application, threads, self.server)
        self.site: Any = self.server.site(self.views)
        self.site.reactor = self.reactor

    def connect(self, data: bytes = b"", **options: Any) -> Link:
        """Connect a client, and send its first bytes."""
        link = Link(**options).connect(self.site)
        if data:
            link.deliver(data)
        return link

    def until(self, condition: Callable[[], object]) -> None:
        """Take calls of threads until a condition holds."""
        while not condition():
            self.reactor.turn()

    def answer(self, link: Link, method: str = "GET") -> Answer:
        """Wait for the next response of a connection."""
        start, found = link._taken, None
        while found is None:
            found = readAnswer(link.value()[start:], method, link.disconnecting)
            if found is None:
                self.reactor.turn()
        link._taken = len(link.value()) - len(found[1])
        return found[0]

    def ask(self, *lines: str, body: bytes = b"") -> Answer:
        """Send a request on a connection of its own, and wait for the response."""
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return self.answer(self.connect(head + body), lines[0].partition(" ")[0])

    def whenIdle(self) -> None:
        """Wait until no thread has a job."""
        while not self.views.threads._pool.isDone:
            try:
                self.reactor.handed.get(timeout=0.001)()
            except queue.Empty:
                self.reactor.advance(0)
