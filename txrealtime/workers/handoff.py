"""
The handoff: a new connection goes to the worker that has its session.

All workers accept at the same ports.  A :class:`PeekingPort` looks at the first request line of a connection
without reading it (``MSG_PEEK``), before there is a transport: a transport cannot release its connection.  If
the line names the session of another worker, the descriptor goes there in a datagram (``SCM_RIGHTS``), and
the connection stays there.  Every other connection is served here.  One handoff costs 7 us of system calls.

A datagram needs no connection between the workers, arrives whole or not at all, and is sent at once: the
descriptor may be closed behind it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.engineio.handshake import readQuery
from txrealtime.logs import Logger
from txrealtime.workers.marks import newerThan, ownerOf

__all__ = ["Handed", "Handoff", "PeekingPort"]

_log = Logger()

# The bytes of a connection that are looked at.  Official clients send some 100 in the first line.
_PEEKED: Final = 4096

# Seconds between two looks at an unfinished line.  Unread bytes wake the reactor again and again, so a timer
# replaces the reactor's watch.
_AGAIN: Final = 0.02

# Seconds until a connection without a whole line is served here, where the site's limits apply to it.
_PATIENCE: Final = 1.0

# Connections of one port without a whole line; beyond these, each next one is served here at once.
_MOST_OPENERS: Final = 512

# Connections that one turn of the reactor accepts.  A worker that took more at a time would leave the others
# idle.
_AT_ONCE: Final = 4

# Seconds without accepting after the system had no descriptor left.
_SHORTAGE: Final = 1.0

_INT: Final = struct.Struct("i")

_LINE: Final = re.compile(rb"(?:GET|POST|OPTIONS) (/[!-~]*) HTTP/1\.1\r\n")

_BEGINNINGS: Final = (b"GET /", b"POST /", b"OPTIONS /")


class Handed(Enum):
    """The outcome of a handoff."""

    TAKEN = auto()
    "The other worker has the connection."
    BUSY = auto()
    "The other worker has more connections waiting than its socket holds."
    GONE = auto()
    "The other worker does not live."


@implementer(IReadDescriptor)
class Handoff:
    """
    A worker's socket for connections from other workers.

    :param folder: the folder of all workers' sockets; only this user may enter it.
    :param mark: this worker's mark.
    :param adopt: called with the number of a port and a descriptor, which it closes.
    :ivar sent: connections handed over to others.
    :ivar received: connections taken from others.
    """

    def __init__(self, reactor: Any, folder: str, mark: str, adopt: Callable[[int, int], None]) -> None:
        self.sent = 0
        self.received = 0
        self._reactor = reactor
        self._folder = folder
        self._mark = mark
        self._adopt = adopt
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Open the socket."""
        opened = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.bind(self._pathOf(self._mark))
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Close the socket."""
        opened, self._socket = self._socket, None
        if opened is not None:
            self._reactor.removeReader(self)
            opened.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._pathOf(self._mark))

    def _pathOf(self, mark: str) -> str:
        return os.path.join(self._folder, f"{mark}.handoff")

    def give(self, owner: str, port: int, descriptor: int) -> Handed:
        """
        Hand a connection over to another worker; the caller closes its own descriptor.

        :param owner: the mark of the other worker.
        :param port: the number of the port that accepted the connection, below 256.
        """
        if self._socket is None:
            return Handed.GONE
        try:
            # Not socket.send_fds(), which ignores the address.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(descriptor))
            self._socket.sendmsg([bytes([port])], [rights], 0, self._pathOf(owner))
        except (BlockingIOError, InterruptedError):
            return Handed.BUSY
        except OSError as error:
            # ETOOMANYREFS: more descriptors are on their way than one process may have.
            return Handed.BUSY if error.errno in (errno.ENOBUFS, errno.ETOOMANYREFS) else Handed.GONE
        self.sent += 1
        return Handed.TAKEN

    @property
    def hasSuccessor(self) -> bool:
        """True if a worker that was started later lives."""
        return newerThan(self._mark, self._folder, "handoff") is not None

    def giveAway(self, port: int, descriptor: int) -> Handed:
        """Hand a connection over to a worker that was started later than this one."""
        newer = newerThan(self._mark, self._folder, "handoff")
        return Handed.GONE if newer is None else self.give(newer, port, descriptor)

    # -- IReadDescriptor -----------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "handoff"

    def doRead(self) -> None:
        for _ in range(_AT_ONCE):
            if self._socket is None:
                return
            try:
                # Not socket.recv_fds(), which ignores the flags.
                data, ancillary, _, _ = self._socket.recvmsg(
                    1, socket.CMSG_LEN(_INT.size), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _log.warn("a connection from another worker is lost: {error}", error=error)
                return
            if not ancillary:
                _log.warn("a connection from another worker is lost: no file descriptor is left for it")
                continue
            self.received += 1
            self._adopt(data[0], _INT.unpack(ancillary[0][2])[0])

    def connectionLost(self, reason: Failure) -> None:
        self.stop()


@implementer(IListeningPort, IReadDescriptor)
class PeekingPort:
    """
    A port that all workers share, whose connections go to the workers that have their sessions.

    :param listening: the listening socket, not blocking.
    :param number: the number of the port, the same in all workers.
    :param site: an :class:`~txrealtime.engineio.http.site.EngineSite`.
    :param handoff: this worker's handoff.
    """

    def __init__(
        self, reactor: Any, listening: socket.socket, number: int, site: Any, handoff: Handoff, mark: str
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._number = number
        self._site = site
        self._handoff = handoff
        self._mark = mark
        self._openers: set[_Opener] = set()
        self._listens = False
        self._shortage: Any = None

    def startListening(self) -> None:
        """Accept connections."""
        self._listens = True
        self._site.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those without a whole line go to a newer worker, if there is one."""
        if self._listens:
            self._listens = False
            if self._shortage is not None:
                self._shortage.cancel()
                self._shortage = None
            self._reactor.removeReader(self)
            for opener in tuple(self._openers):
                opener.giveAway()
            self._socket.close()
            self._site.doStop()
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
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was faster, or the client has gone
            except OSError as error:
                self._pause(error)
                return
            accepted.setblocking(False)
            _Opener(self._reactor, self, accepted).start(len(self._openers) < _MOST_OPENERS)
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

    # -- for openers ---------------------------------------------------------------

    def ownerOf(self, line: bytes) -> str | None:
        """Return the mark of the other worker that has the session of a request line, if there is one."""
        match = _LINE.fullmatch(line)
        if match is None or not self._site.isForEngine(match[1]):
            return None
        owner = ownerOf(readQuery(match[1].decode()).get("sid", ""))
        return None if owner == self._mark else owner

    def give(self, owner: str, descriptor: int) -> Handed:
        """Hand a connection over to its owner."""
        return self._handoff.give(owner, self._number, descriptor)

    def giveAway(self, descriptor: int) -> Handed:
        """Hand a connection over to a newer worker."""
        return self._handoff.giveAway(self._number, descriptor)

    def opened(self, opener: _Opener) -> None:
        """Called when a connection begins to wait for its first line."""
        self._openers.add(opener)

    def adopt(self, opener: _Opener | None, accepted: socket.socket) -> None:
        """Serve a connection here; its own transport has another descriptor for it."""
        if opener is not None:
            self._openers.discard(opener)
        try:
            self._reactor.adoptStreamConnection(accepted.fileno(), accepted.family, self._site)
        except OSError as error:  # the client has gone already, or no descriptor is left
            _log.debug("a connection ended before it was served: {error}", error=error)
        finally:
            accepted.close()

    def dropped(self, opener: _Opener, accepted: socket.socket) -> None:
        """Called when a connection is another worker's, or has ended."""
        self._openers.discard(opener)
        accepted.close()


@implementer(IReadDescriptor)
class _Opener:
    """A connection whose first request line has not been seen."""

    def __init__(self, reactor: Any, port: PeekingPort, accepted: socket.socket) -> None:
        self._reactor = reactor
        self._port = port
        self._socket = accepted
        self._deadline = reactor.seconds() + _PATIENCE
        self._timer: Any = None
        self._watched = False
        self._ended = False

    def start(self, mayWait: bool) -> None:
        """Look at the connection, and wait for the line if that is allowed."""
        self._port.opened(self)
        self._look()
        if not self._ended and not mayWait:
            self.serveHere()

    def _look(self) -> None:
        self._timer = None
        if self._reactor.seconds() >= self._deadline:
            self.serveHere()
            return
        try:
            data = self._socket.recv(_PEEKED, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
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
            self._judge(data[:end])
        elif len(data) >= _PEEKED or not any(
            data.startswith(beginning[: len(data)]) for beginning in _BEGINNINGS
        ):
            self.serveHere()
        else:
            self._lookLater()

    def _judge(self, line: bytes) -> None:
        owner = self._port.ownerOf(line)
        handed = Handed.GONE if owner is None else self._port.give(owner, self._socket.fileno())
        if handed is Handed.TAKEN:
            self._end()
        elif handed is Handed.BUSY:
            self._lookLater()
        else:
            # Also for an owner that is gone: the refusal of its session comes from here.
            self.serveHere()

    def _watch(self) -> None:
        """Wait for the first byte."""
        if not self._watched:
            self._watched = True
            self._reactor.addReader(self)
        self._timer = self._reactor.callLater(max(0.0, self._deadline - self._reactor.seconds()), self._look)

    def _lookLater(self) -> None:
        self._timer = self._reactor.callLater(_AGAIN, self._look)

    def _leave(self) -> None:
        self._ended = True
        if self._watched:
            self._watched = False
            self._reactor.removeReader(self)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _end(self) -> None:
        self._leave()
        self._port.dropped(self, self._socket)

    def giveAway(self) -> None:
        """Give up the wait, and let a newer worker serve the connection."""
        if self._port.giveAway(self._socket.fileno()) is Handed.TAKEN:
            self._end()
        else:
            self.serveHere()

    def serveHere(self) -> None:
        """Give up the wait, and serve the connection in this worker."""
        self._leave()
        self._port.adopt(self, self._socket)

    # -- IReadDescriptor -----------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "opener"

    def doRead(self) -> None:
        self._watched = False
        self._reactor.removeReader(self)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._look()

    def connectionLost(self, reason: Failure) -> None:
        if not self._ended:
            self._end()
