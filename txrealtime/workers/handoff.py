"""
The handoff: a connection goes to another worker, before a byte of it has been read.

The descriptor goes there in a datagram (``SCM_RIGHTS``), and the connection stays there.  A datagram has all
connections that one turn of a port has for this worker.  :mod:`~txrealtime.workers.ports` chooses the worker.

A datagram needs no connection between the workers, arrives whole or not at all, and is sent at once: the
descriptor may be closed behind it.  The system keeps 11 datagrams for a socket (``net.unix.max_dgram_qlen``,
which is 10 unless the machine raises it), and a worker has several sockets for that reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from array import array
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.logs import Logger

__all__ = ["INBOXES", "TOGETHER", "Handed", "Handoff"]

_log = Logger()

TOGETHER: Final = 64
"""The most connections of a datagram; Linux takes 253."""

INBOXES: Final = ("handoff", *(f"handoff{number}" for number in range(1, 16)))
"""
The endings of a worker's sockets for connections.  With one socket, every second connection of a busy
server found it full, and came back 20 ms later.
"""

# Datagrams that one turn of the reactor takes.  Nobody else can serve their connections, and the queue of a
# socket has room for few.
_MOST_TAKEN: Final = 64

_ROOM: Final = socket.CMSG_LEN(TOGETHER * array("i").itemsize)


class Handed(Enum):
    """The outcome of a handoff."""

    TAKEN = auto()
    "The other worker has the connections."
    BUSY = auto()
    "The other worker has more datagrams waiting than its sockets hold."
    GONE = auto()
    "The other worker does not live."


class Handoff:
    """
    A worker's sockets for connections from other workers.

    :param folder: the folder of all workers' sockets; only this user may enter it.
    :param mark: this worker's mark.
    :param adopt: called with the number of a port and a descriptor, which it closes.
    :ivar sent: connections handed over to others.
    :ivar received: connections taken from others.
    :ivar kept: connections that this worker accepted and serves itself.
    """

    def __init__(self, reactor: Any, folder: str, mark: str, adopt: Callable[[int, int], None]) -> None:
        self.sent = 0
        self.received = 0
        self.kept = 0
        self._reactor = reactor
        self._folder = folder
        self._mark = mark
        self._adopt = adopt
        self._inboxes: list[_Inbox] = []
        self._outgoing: socket.socket | None = None
        # The inbox of others that had room at last.  Few inboxes in use are cheaper to read than many.
        self._place = 0

    def start(self) -> None:
        """Open the sockets."""
        self._outgoing = _opened()
        for name in INBOXES:
            opened = _opened()
            opened.bind(f"{self._folder}/{self._mark}.{name}")
            inbox = _Inbox(self, opened)
            self._inboxes.append(inbox)
            self._reactor.addReader(inbox)

    def leave(self) -> None:
        """Take no more connections than are on their way: others find this worker gone from now on."""
        for name in INBOXES if self._inboxes else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._folder}/{self._mark}.{name}")

    def stop(self) -> None:
        """Close the sockets.  Connections on their way are closed; :meth:`leave` before that spares them."""
        self.leave()
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.close()
        inboxes, self._inboxes = self._inboxes, []
        for inbox in inboxes:
            self._reactor.removeReader(inbox)
            inbox.socket.close()

    def give(self, owner: str, port: int, descriptors: Sequence[int]) -> Handed:
        """
        Hand connections over to another worker, all or none; the caller closes its own descriptors.

        :param owner: the mark of the other worker.
        :param port: the number of the port that accepted the connections, below 256.
        :param descriptors: the connections, at most :data:`TOGETHER`.
        """
        handed = Handed.GONE
        for _ in INBOXES:
            handed = self._giveAt(f"{self._folder}/{owner}.{INBOXES[self._place]}", port, descriptors)
            if handed is not Handed.BUSY:
                break
            self._place = (self._place + 1) % len(INBOXES)
        return handed

    def _giveAt(self, path: str, port: int, descriptors: Sequence[int]) -> Handed:
        if self._outgoing is None:
            return Handed.GONE
        try:
            # Not socket.send_fds(), which ignores the address.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
            # A byte for each descriptor, so that the receiver knows how many there were.
            self._outgoing.sendmsg([bytes([port]) * len(descriptors)], [rights], 0, path)
        except (BlockingIOError, InterruptedError):
            return Handed.BUSY
        except OSError as error:
            # ETOOMANYREFS: more descriptors are on their way than one process may have.
            return Handed.BUSY if error.errno in (errno.ENOBUFS, errno.ETOOMANYREFS) else Handed.GONE
        self.sent += len(descriptors)
        return Handed.TAKEN

    def receive(self, inbox: socket.socket) -> bool:
        """
        Take the connections of one datagram from an inbox.

        :return: ``False`` if there was none.
        """
        try:
            # Not socket.recv_fds(), which ignores the flags.
            places, ancillary, _, _ = inbox.recvmsg(TOGETHER, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            _log.warn("connections from another worker are lost: {error}", error=error)
            return False
        descriptors = array("i", ancillary[0][2] if ancillary else b"")
        lost = len(places) - len(descriptors)
        if lost:
            # The system has closed them: it passes as many as it has descriptors for, the first ones.
            _log.warn(
                "{lost} of {count} connections from another worker are lost: no file descriptor is left "
                "for them",
                lost=lost,
                count=len(places),
            )
        self.received += len(descriptors)
        for port, descriptor in zip(places, descriptors, strict=False):
            try:
                self._adopt(port, descriptor)
            except Exception:  # an error that left here would close the socket, and lose the others
                _log.failure("a connection from another worker failed")
        return True

    def doRead(self) -> None:
        """Take the connections that wait in each inbox."""
        for inbox in tuple(self._inboxes):
            inbox.doRead()


@implementer(IReadDescriptor)
class _Inbox:
    """A socket for connections from other workers."""

    def __init__(self, handoff: Handoff, opened: socket.socket) -> None:
        self.socket = opened
        self._handoff = handoff

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "handoff"

    def doRead(self) -> None:
        for _ in range(_MOST_TAKEN):
            if self.socket.fileno() < 0 or not self._handoff.receive(self.socket):
                return

    def connectionLost(self, reason: Failure) -> None:
        self._handoff.stop()


def _opened() -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.setblocking(False)
    return opened
