from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from txrealtime import Settings
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

    def stop(self) -> Deferred[None]:
        """What a reactor does when it is told to stop."""
        return self.triggers["before", "shutdown"]()


class ViewsTests(SynchronousTestCase):
    """
    Requests in flight when the reactor is told to stop.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.addCleanup(self.go.set)
        self.threads: list[threading.Thread] = []
        self.log: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.serve(2)

    def serve(self, size: int) -> None:
        self.views = Views(self.reactor, self.application, size, Settings(drainTimeout=5))

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
        protocol = Site(self.views, reactor=self.reactor).buildProtocol(None)
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
        """What comes on a connection that there is already is refused, or the end would never come."""
        self.begin()
        self.reactor.stop()
        late = self.get("/late").value()
        self.assertTrue(late.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), late)
        self.assertIn(b"\r\nConnection: close\r\n", late)

    def test_leftBehind(self) -> None:
        """Who does not end in time is named, and is told so when it has something for the reactor."""
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
        """Who has waited for a thread until then is not called any more."""
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
