"""
The handoff: a connection goes to another worker, before a byte of it has been read.

The descriptor goes there in a datagram (``SCM_RIGHTS``), and the connection stays there.  One handoff costs
7 us of system calls.  :mod:`~txrealtime.workers.ports` chooses the worker.

A datagram needs no connection between the workers, arrives whole or not at all, and is sent at once: the
descriptor may be closed behind it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.logs import Logger

__all__ = ["AT_ONCE", "Handed", "Handoff"]

_log = Logger()

AT_ONCE: Final = 4
"""
Connections that one turn of the reactor accepts.  A worker that took more at a time would leave the others
idle.
"""

# Connections from others that one turn of the reactor takes.  Nobody else can serve these, and the queue of a
# socket has room for few: 11 with Linux's net.unix.max_dgram_qlen of 10.
_MOST_TAKEN: Final = 64

_INT: Final = struct.Struct("i")


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

    # -- IReadDescriptor -----------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "handoff"

    def doRead(self) -> None:
        for _ in range(_MOST_TAKEN):
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
            try:
                self._adopt(data[0], _INT.unpack(ancillary[0][2])[0])
            except Exception:  # an error that left here would close the socket
                _log.failure("a connection from another worker failed")

    def connectionLost(self, reason: Failure) -> None:
        self.stop()
