"""
The ports that all workers accept at, and the choice of the worker for each connection.

A transport cannot release its connection, so the choice is made before there is one.

- A :class:`PeekingPort` looks at the first request line without reading it (``MSG_PEEK``).  If the line names
  the session of another worker, the connection goes there.  If it opens a session, the connection goes to
  the worker with the fewest sessions when this one has more by over a tenth.  Every other is served here.
- An :class:`AffinePort`, for TLS, sees no line: the client's address chooses the worker, so that all
  connections of a client are together.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.tcp import Server
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.engineio.handshake import readQuery
from txrealtime.logs import Logger
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.handoff import AT_ONCE, Handed, Handoff
from txrealtime.workers.marks import ownerOf

__all__ = ["AffinePort", "PeekingPort", "SharedPort"]

_log = Logger()

# The bytes of a connection that are looked at.  Official clients send some 100 in the first line.
_PEEKED: Final = 4096

_PEEK: Final = socket.MSG_PEEK | socket.MSG_DONTWAIT

# Seconds between two looks at an unfinished line.  Unread bytes wake the reactor again and again, so a timer
# replaces the reactor's watch.
_AGAIN: Final = 0.02

# Seconds until a connection without a whole line is served here, where the site's limits apply to it.
_PATIENCE: Final = 1.0

# Connections of one port without a whole line; beyond these, each next one is served here at once.
_MOST_OPENERS: Final = 512

# Seconds without accepting after the system had no descriptor left.
_SHORTAGE: Final = 1.0

_LINE: Final = re.compile(rb"(?:GET|POST|OPTIONS) (/[!-~]*) HTTP/1\.1\r\n")

_BEGINNINGS: Final = (b"GET /", b"POST /", b"OPTIONS /")


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """
    A port that all workers share.

    :param listening: the listening socket, not blocking.
    :param number: the number of the port, the same in all workers.
    :param factory: makes the protocols of the connections that are served here.
    :param handoff: this worker's handoff.
    :param fleet: the workers.
    """

    def __init__(
        self,
        reactor: Any,
        listening: socket.socket,
        number: int,
        factory: Any,
        handoff: Handoff,
        fleet: Fleet,
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._family = listening.family
        self._number = number
        self._factory = factory
        self._handoff = handoff
        self._fleet = fleet
        self._listens = False
        self._shortage: Any = None

    def startListening(self) -> None:
        """Accept connections."""
        self._listens = True
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections."""
        if self._listens:
            self._listens = False
            if self._shortage is not None:
                self._shortage.cancel()
                self._shortage = None
            self._reactor.removeReader(self)
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> Any:
        """Return the address of the port."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        if self._socket.family == socket.AF_INET6:
            return IPv6Address("TCP", *name)
        return IPv4Address("TCP", *name)

    # -- IReadDescriptor -----------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "port"

    def doRead(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was faster, or the client has gone
            except OSError as error:
                self._pause(error)
                return
            try:
                self.accepted(accepted, address)
            except Exception:  # an error that left here would close the port
                _log.failure("a connection failed")
                accepted.close()
            if not self._listens:
                return

    def connectionLost(self, reason: Failure) -> None:
        self.stopListening()

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a second: the socket stays readable, and would wake the reactor without end."""
        _log.warn(
            "no connection can be accepted for {seconds:g} s: {error}. If descriptors have run out, raise "
            "the limit (ulimit -n, LimitNOFILE), or set maxConnections below it",
            seconds=_SHORTAGE,
            error=error,
        )
        self._reactor.removeReader(self)
        self._shortage = self._reactor.callLater(_SHORTAGE, self._readOn)

    def _readOn(self) -> None:
        self._shortage = None
        self._reactor.addReader(self)

    # -- connections ---------------------------------------------------------------

    def accepted(self, accepted: socket.socket, address: Any) -> None:
        """Called with each new connection, which blocks until it has a transport."""
        raise NotImplementedError

    def give(self, owner: str, accepted: socket.socket) -> Handed:
        """Hand a connection over to another worker."""
        return self._handoff.give(owner, self._number, accepted.fileno())

    def adopt(self, accepted: socket.socket, address: Any) -> None:
        """Serve a connection here."""
        self._handoff.kept += 1
        self._serve(accepted, address)

    def take(self, descriptor: int) -> None:
        """Serve a connection that another worker has accepted."""
        taken = socket.socket(self._family, socket.SOCK_STREAM, 0, descriptor)
        try:
            address = taken.getpeername()
        except OSError as error:  # the client has gone already
            taken.close()
            text = "a connection from another worker has ended: {error}"
            _log.limited("", LogLevel.debug, text, error=error)
        else:
            self._serve(taken, address)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        """
        Give a connection to a transport.

        The reactor's ``adoptStreamConnection`` duplicates the descriptor, which is closed then, and asks for
        both addresses: 20 us more.
        """
        if self._family == socket.AF_UNIX:
            self._serveUNIX(connection)
            return
        kind = IPv4Address if len(address) == 2 else IPv6Address
        protocol = self._factory.buildProtocol(kind("TCP", *address))
        if protocol is None:
            connection.close()
            return
        transport = Server(connection, protocol, address, None, address[1], self._reactor)  # type: ignore[arg-type]
        transport.repstr = f"<{protocol.__class__.__name__} of {address[0]} at a shared port>"
        try:
            protocol.makeConnection(transport)
        except Exception:
            _log.failure("a connection failed")
            transport.abortConnection()

    def _serveUNIX(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            self._reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, self._factory)
        except OSError as error:  # no descriptor is left
            _log.debug("a connection ended before it was served: {error}", error=error)
        finally:
            connection.close()


class AffinePort(SharedPort):
    """A shared port whose connections go to the worker that the client's address chooses."""

    def accepted(self, accepted: socket.socket, address: Any) -> None:
        other = self._fleet.affine(address[0])
        if other is not None and self.give(other, accepted) is Handed.TAKEN:
            accepted.close()
        else:
            self.adopt(accepted, address)


class PeekingPort(SharedPort):
    """
    A shared port whose connections go to the workers that have their sessions.

    Its factory is an :class:`~txrealtime.engineio.http.site.EngineSite`.
    """

    def __init__(
        self, reactor: Any, listening: socket.socket, number: int, site: Any, handoff: Handoff, fleet: Fleet
    ) -> None:
        super().__init__(reactor, listening, number, site, handoff, fleet)
        self._openers: set[_Opener] = set()

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those without a whole line go to another worker, if there is one."""
        if self._listens:
            for opener in tuple(self._openers):
                opener.giveAway()
        return super().stopListening()

    def accepted(self, accepted: socket.socket, address: Any) -> None:
        try:
            data = accepted.recv(_PEEKED, _PEEK)
        except OSError:
            data = b""
        # Nearly every client has sent its first line by now, and needs no opener: 5 us.
        end = data.find(b"\n") + 1
        if end and self.choose(data[:end], accepted, address):
            return
        if len(self._openers) < _MOST_OPENERS:
            _Opener(self._reactor, self, accepted, address).start()
        else:
            self.adopt(accepted, address)

    def choose(self, line: bytes, accepted: socket.socket, address: Any, late: bool = False) -> bool:
        """
        Serve a connection with this request line, or hand it over.

        :param late: serve it here if the owner of its session has no room for it.
        :return: ``False`` if the owner of its session has no room for it at the moment.
        """
        worker, owns = self.workerFor(line)
        handed = Handed.GONE if worker is None else self.give(worker, accepted)
        if handed is Handed.TAKEN:
            accepted.close()
        elif handed is Handed.BUSY and owns and not late:
            return False
        else:
            # Also for an owner that is gone: the refusal of its session comes from here.
            self.adopt(accepted, address)
        return True

    # -- for openers ---------------------------------------------------------------

    def workerFor(self, line: bytes) -> tuple[str | None, bool]:
        """
        Choose the worker for a request line.

        :return: the mark of another worker, or ``None`` for this one; and whether the worker has the session.
        """
        match = _LINE.fullmatch(line)
        if match is None or not self._factory.isForEngine(match[1]):
            return None, False
        sid = readQuery(match[1].decode()).get("sid")
        if sid is None:
            return self._fleet.place(), False
        owner = ownerOf(sid)
        return (None if owner == self._fleet.mark else owner), True

    def another(self) -> str | None:
        """Return the mark of another worker that takes new clients."""
        return self._fleet.another()

    def opened(self, opener: _Opener) -> None:
        """Called when a connection begins to wait for its first line."""
        self._openers.add(opener)

    def ended(self, opener: _Opener) -> None:
        """Called when a connection waits no more."""
        self._openers.discard(opener)


def _mayBegin(data: bytes) -> bool:
    """Return whether bytes may be the beginning of a request for the engine."""
    return any(data.startswith(beginning[: len(data)]) for beginning in _BEGINNINGS)


@implementer(IReadDescriptor)
class _Opener:
    """A connection whose first request line has not been seen."""

    def __init__(self, reactor: Any, port: PeekingPort, accepted: socket.socket, address: Any) -> None:
        self._reactor = reactor
        self._port = port
        self._socket = accepted
        self._address = address
        self._deadline = reactor.seconds() + _PATIENCE
        self._timer: Any = None
        self._watched = False
        self._ended = False

    def start(self) -> None:
        """Wait for the line."""
        self._port.opened(self)
        self._look()

    def _look(self) -> None:
        self._stopWaiting()
        # Also at the deadline: while the reactor was busy, the line may have come.
        late = self._reactor.seconds() >= self._deadline
        try:
            data = self._socket.recv(_PEEKED, _PEEK)
        except (BlockingIOError, InterruptedError):
            if late:
                self.serveHere()
            else:
                self._watch()
            return
        except OSError:
            self._end()
            return
        if not data:
            self._end()
            return
        end = data.find(b"\n") + 1
        if end:
            if self._port.choose(data[:end], self._socket, self._address, late):
                self._leave()
            else:
                self._lookLater()
        elif late or len(data) >= _PEEKED or not _mayBegin(data):
            self.serveHere()
        else:
            self._lookLater()

    def _watch(self) -> None:
        """Wait for the first byte."""
        self._watched = True
        self._reactor.addReader(self)
        self._timer = self._reactor.callLater(max(0.0, self._deadline - self._reactor.seconds()), self._look)

    def _lookLater(self) -> None:
        self._timer = self._reactor.callLater(_AGAIN, self._look)

    def _leave(self) -> None:
        self._ended = True
        self._port.ended(self)
        self._stopWaiting()

    def _stopWaiting(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.removeReader(self)
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _end(self) -> None:
        self._leave()
        self._socket.close()

    def giveAway(self) -> None:
        """Give up the wait, and let another worker serve the connection."""
        another = self._port.another()
        if another is not None and self._port.give(another, self._socket) is Handed.TAKEN:
            self._end()
        else:
            self.serveHere()

    def serveHere(self) -> None:
        """Give up the wait, and serve the connection in this worker."""
        self._leave()
        self._port.adopt(self._socket, self._address)

    # -- IReadDescriptor -----------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "opener"

    def doRead(self) -> None:
        self._look()

    def connectionLost(self, reason: Failure) -> None:
        if not self._ended:
            self._end()
