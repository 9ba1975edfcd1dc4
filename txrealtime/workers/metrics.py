"""
One page of metrics for all workers, made by the supervisor.

Each worker has a connection to the supervisor, by the socket ``metrics`` in the folder of the workers.
Whenever somebody reads the page, the supervisor asks all workers.  The reader comes to an endpoint of the
supervisor, or to a worker, which asks the supervisor for the page.  A worker that ends sends its last values,
which stay in the sums; those of a killed worker are as old as the last page.

Each message is a string behind its length.  The first byte tells its kind:

=====  ===========  =======================================================
kind   from         rest
=====  ===========  =======================================================
``H``  worker       its number
``A``  supervisor   none: the supervisor asks for the values
``V``  worker       the values, as JSON
``P``  worker       the number of a request, and its header Accept
``R``  supervisor   the number of the request, the content type and the page
=====  ===========  =======================================================
"""

from __future__ import annotations

import json
import os
from itertools import count
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from txrealtime.logs import Logger
from txrealtime.monitor.metrics import InThread, Metrics, Page, Pages, Together, copied
from txrealtime.monitor.sums import Snapshot, Sums, snapshot
from txrealtime.workers.socketfile import PrivateSocket

__all__ = ["Collection", "Reporter"]

_log = Logger()

_NAME: Final = "metrics"
"""The name of the supervisor's socket."""

_PATIENCE: Final = 2.0
"""Seconds that a worker has for its values."""

_LATE: Final = 8.0
"""Seconds that the supervisor has for a page, below the 10 after which Prometheus gives up."""


class _Strings(Int32StringReceiver):
    """Either end of a connection."""

    MAX_LENGTH = 1 << 28
    transport: Any

    def send(self, kind: bytes, rest: bytes = b"") -> None:
        """Send a message."""
        self.sendString(kind + rest)  # type: ignore[no-untyped-call]

    def stringReceived(self, string: bytes) -> None:
        self.received(string[:1], string[1:])

    def received(self, kind: bytes, rest: bytes) -> None:
        """Called when a message has come."""
        raise NotImplementedError


# -- in a worker -----------------------------------------------------------------------------


class Reporter:
    """
    A worker's side: it tells the supervisor its values, and gets the pages.

    :param folder: the folder of the workers.
    :param number: the worker's number.
    :param metrics: its metrics.
    :param registry: its application's own metrics.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    """

    def __init__(
        self,
        reactor: Any,
        folder: str,
        number: int,
        metrics: Metrics,
        registry: Any,
        inThread: InThread = deferToThread,
    ) -> None:
        self._reactor = reactor
        self._path = os.path.join(folder, _NAME)
        self._number = number
        self._metrics = metrics
        self._registry = registry
        self._inThread = inThread
        self._numbers = count()
        self._asked: dict[bytes, Deferred[Page]] = {}
        self._connection: _Reporting | None = None
        self._lost: Deferred[None] | None = None

    def start(self) -> None:
        """Connect to the supervisor."""
        factory = Factory.forProtocol(lambda: _Reporting(self))
        factory.noisy = False
        connecting = UNIXClientEndpoint(self._reactor, self._path).connect(factory)
        connecting.addErrback(lambda failure: _log.failure("the supervisor gets no metrics", failure))

    def stop(self) -> Deferred[None]:
        """Send the last values, and disconnect."""
        stopped = self._lost = Deferred()
        if self._connection is None:
            stopped.callback(None)
        else:
            self._connection.send(b"V", self._values(snapshot(self._metrics.read())))
            self._connection.transport.loseConnection()
        return stopped

    def page(self, accept: str) -> Deferred[Page]:
        """Ask the supervisor for the page of all workers."""
        asked: Deferred[Page] = Deferred()
        if self._connection is None:
            asked.errback(ConnectionError("the supervisor does not answer"))
            return asked
        number = b"%d" % next(self._numbers)
        self._asked[number] = asked
        self._connection.send(b"P", number + b"\n" + accept.encode("latin-1", "replace"))
        asked.addTimeout(_LATE, self._reactor)
        return asked.addBoth(self._answered, number)

    def _answered(self, result: Any, number: bytes) -> Any:
        self._asked.pop(number, None)
        return result

    def _values(self, families: Snapshot) -> bytes:
        try:
            own = copied(self._registry)
        except Exception:
            # Without the values of all others, the page would show none of this worker.
            _log.failure("the application's own metrics cannot be told")
            own = []
        # With 1,000 events this holds the interpreter for 7 ms.
        return json.dumps([families, own]).encode()

    # -- for the connection

    def connected(self, connection: _Reporting) -> None:
        """Called when the connection is made."""
        self._connection = connection
        connection.send(b"H", b"%d" % self._number)

    def askedForValues(self) -> None:
        """Called when the supervisor asks; nobody knows how long the application's metrics take."""
        values = self._inThread(self._values, snapshot(self._metrics.read()))
        values.addCallback(self._sendValues)
        values.addErrback(lambda failure: _log.failure("the metrics cannot be told", failure))

    def _sendValues(self, values: bytes) -> None:
        if self._connection is not None:
            self._connection.send(b"V", values)

    def pageReceived(self, number: bytes, page: Page) -> None:
        """Called when a page has come."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.callback(page)

    def disconnected(self) -> None:
        """Called when the connection is lost."""
        self._connection = None
        for asked in list(self._asked.values()):
            asked.errback(ConnectionError("the supervisor has gone"))
        if self._lost is not None:
            self._lost.callback(None)


class _Reporting(_Strings):
    """A worker's end."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def connectionMade(self) -> None:
        self._reporter.connected(self)

    def received(self, kind: bytes, rest: bytes) -> None:
        if kind == b"A":
            self._reporter.askedForValues()
        else:
            number, contentType, body = rest.split(b"\n", 2)
            self._reporter.pageReceived(number, (contentType.decode(), body))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._reporter.disconnected()


# -- in the supervisor -------------------------------------------------------------------------


class Collection(Service):
    """
    The supervisor's side: it asks the workers, and makes the pages.

    :param folder: the folder of the workers.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    """

    def __init__(self, reactor: Any, folder: str, inThread: InThread = deferToThread) -> None:
        self._reactor = reactor
        self._path = os.path.join(folder, _NAME)
        self._pages = Pages(reactor, inThread)
        self._workers: list[_Collecting] = []
        self._port: IListeningPort | None = None
        # The values of workers that have ended, and of their applications.
        self._ended: Snapshot = {}
        self._endedApplications: list[Any] = []

    def startService(self) -> None:
        """Open the socket."""
        super().startService()  # type: ignore[no-untyped-call]
        factory = Factory.forProtocol(lambda: _Collecting(self))
        factory.noisy = False
        PrivateSocket(self._reactor, self._path).listen(factory).addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None]:
        """Close the socket."""
        super().stopService()  # type: ignore[no-untyped-call]
        for worker in self._workers:
            worker.transport.loseConnection()
        port, self._port = self._port, None
        return (None if port is None else port.stopListening()) or succeed(None)

    async def page(self, accept: str) -> Page:
        """Make the page of all workers, for a header Accept."""
        await DeferredList([worker.ask(self._reactor) for worker in self._workers])
        # All at once: a worker that ends while the page is made would count among both.
        living = [(label, worker.values) for label, worker in self._labelled() if worker.values]
        applications = [(label, worker.application) for label, worker in self._labelled() if worker.values]
        ended, together = self._ended, Together(applications, self._endedApplications)
        sums = Sums()
        for label, values in living:
            await self._add(sums, values, label)
        await self._add(sums, ended, None)
        return await self._pages.make(accept, sums.families(), together)

    async def _add(self, sums: Sums, values: Snapshot, label: str | None) -> None:
        """Add values, in turns of the reactor."""
        for _ in sums.add(values, label):
            await deferLater(self._reactor, 0)

    def _labelled(self) -> list[tuple[str, _Collecting]]:
        """Label the workers by number; one that leaves, while another has its number, is told apart."""
        newest = {worker.number: worker for worker in self._workers}
        return [
            (f"{worker.number}{'' if newest[worker.number] is worker else ' leaving'}", worker)
            for worker in sorted(self._workers, key=lambda each: each.number)
        ]

    # -- for the connections

    def joined(self, worker: _Collecting) -> None:
        """Called when a worker has told its number."""
        self._workers.append(worker)

    def left(self, worker: _Collecting) -> None:
        """Called when a worker has ended."""
        if worker in self._workers:
            self._workers.remove(worker)
            sums = Sums()
            for values in (self._ended, worker.values):
                for _ in sums.add(values, None):
                    pass
            self._ended = sums.ended()
            together = Together([], self._endedApplications, worker.application)
            self._endedApplications = copied(together)

    def pageWanted(self, worker: _Collecting, number: bytes, accept: str) -> None:
        """Called when a worker asks for the page."""

        def send(page: Page) -> None:
            contentType, body = page
            worker.send(b"R", b"\n".join([number, contentType.encode(), body]))

        making: Deferred[Page] = Deferred.fromCoroutine(self.page(accept))
        making.addCallback(send)
        making.addErrback(lambda failure: _log.failure("the metrics cannot be collected", failure))


class _Collecting(_Strings):
    """
    The supervisor's end of a connection.

    :ivar number: the number of the worker.
    :ivar values: its last values.
    :ivar application: those of its application's own metrics.
    """

    def __init__(self, collection: Collection) -> None:
        self.number = -1
        self.values: Snapshot = {}
        self.application: list[Any] = []
        self._collection = collection
        self._asked: list[Deferred[None]] = []

    def ask(self, reactor: Any) -> Deferred[None]:
        """Ask for the values, and return a Deferred that fires when they have come, or not in time."""
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        self.send(b"A")
        return asked.addTimeout(_PATIENCE, reactor).addErrback(self._late)

    def _late(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        _log.limited(
            "",
            LogLevel.warn,
            "worker {number} does not tell its metrics within {seconds:g} s: the page has its last ones",
            number=self.number,
            seconds=_PATIENCE,
        )

    def received(self, kind: bytes, rest: bytes) -> None:
        if kind == b"V":
            self.values, self.application = json.loads(rest)
            self._fire()
        elif kind == b"P":
            number, accept = rest.split(b"\n", 1)
            self._collection.pageWanted(self, number, accept.decode("latin-1"))
        else:
            self.number = int(rest)
            self._collection.joined(self)

    def _fire(self) -> None:
        asked, self._asked = self._asked, []
        for each in asked:
            each.callback(None)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._fire()
        self._collection.left(self)
