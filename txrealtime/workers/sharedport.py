"""
A port that all workers accept at.

A transport cannot release its connection, so the worker is chosen before there is one.  Connections that one
turn of the reactor has for the same worker go there together.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.foreign import stands
from txrealtime.logs import Logger
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.handoff import TOGETHER, Handed, Handoff

__all__ = ["SharedPort"]

_log = Logger()

# Connections of one turn of the reactor that any worker could serve.  A worker that took more at a time would
# leave the others idle.
_AT_ONCE: Final = 4

# Seconds without accepting after the system had no descriptor left.
_SHORTAGE: Final = 1.0


def _acceptOf(listening: Any) -> Callable[[], tuple[socket.socket, Any]]:
    """Return a function that accepts a connection: ``socket.accept()`` takes 2 us more, for enumerations."""
    if not stands(listening, "_accept", without="accepting a connection takes 2 us more"):
        return listening.accept  # type: ignore[no-any-return]
    accept, family = listening._accept, listening.family

    def accepted() -> tuple[socket.socket, Any]:
        descriptor, address = accept()
        return socket.socket(family, socket.SOCK_STREAM, 0, descriptor), address

    return accepted


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
        self._next = _acceptOf(listening)
        self._family = listening.family
        self._number = number
        self._factory = factory
        self._handoff = handoff
        self._fleet = fleet
        self._listens = False
        self._shortage: Any = None
        # By worker, those that leave at the end of this turn: each with its address, and whether the worker
        # has its session.
        self._leaving: dict[str, list[tuple[socket.socket, Any, bool]]] = {}

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
        free = _AT_ONCE
        for _ in range(TOGETHER):
            try:
                accepted, address = self._next()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break  # another worker was faster, or the client has gone
            except OSError as error:
                self._pause(error)
                break
            bound = False
            try:
                bound = self.accepted(accepted, address)
            except Exception:  # an error that left here would close the port
                _log.failure("a connection failed")
                accepted.close()
            free -= not bound
            if not (free and self._listens):
                break
        if self._leaving:
            self._giveTogether()

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

    def accepted(self, accepted: socket.socket, address: Any) -> bool:
        """
        Called with each new connection, which blocks until it has a transport.

        :return: ``True`` if one worker alone can serve the connection.
        """
        raise NotImplementedError

    def give(self, owner: str, accepted: socket.socket) -> Handed:
        """Hand a connection over to another worker at once."""
        return self._handoff.give(owner, self._number, [accepted.fileno()])

    def giveLater(self, owner: str, accepted: socket.socket, address: Any, owns: bool = False) -> None:
        """
        Hand a connection over to another worker at the end of this turn, with all others for this worker.

        :param owns: whether the worker has the session of the connection.
        """
        self._leaving.setdefault(owner, []).append((accepted, address, owns))

    def _giveTogether(self) -> None:
        leaving, self._leaving = self._leaving, {}
        for owner, connections in leaving.items():
            descriptors = [accepted.fileno() for accepted, _, _ in connections]
            handed = self._handoff.give(owner, self._number, descriptors)
            for accepted, address, owns in connections:
                try:
                    self.given(handed, accepted, address, owns)
                except Exception:  # as in doRead()
                    _log.failure("a connection failed")
                    accepted.close()

    def given(self, handed: Handed, accepted: socket.socket, address: Any, owns: bool) -> None:
        """Called with the outcome of a handoff."""
        if handed is Handed.TAKEN:
            accepted.close()
        else:
            # Also for an owner that is gone: the refusal of its session comes from here.
            self.adopt(accepted, address)

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
            _log.debug("a connection from another worker has ended: {error}", error=error)
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
