"""
A Unix socket that only its owner may connect to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from txrealtime.engineio.tcp import QUEUE

__all__ = ["PrivateSocket"]

MODE = 0o600


@implementer(IStreamServerEndpoint)
class PrivateSocket:
    """
    An endpoint at a path of the file system, for processes of the same user.

    The socket file that a killed process has left is replaced.  Anything else at the path stays.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        # A daemon may go to another folder.
        self._path = os.path.abspath(path)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        try:
            with _alone(os.path.dirname(self._path)):
                self._removeStale()
                # Not only the mode: the reactor sets it when others may have connected already.
                umask = os.umask(0o777 & ~MODE)
                try:
                    port: IListeningPort = self._reactor.listenUNIX(self._path, factory, QUEUE, MODE)
                finally:
                    os.umask(umask)
        except OSError as error:
            raise CannotListenError(None, self._path, error) from None
        return port

    def _removeStale(self) -> None:
        """
        Remove the socket file at the path, if nobody listens there.

        :raises OSError: if somebody does, or there is something else.
        """
        try:
            if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
                raise OSError(errno.EEXIST, "there is a file which is not a socket")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self._path)
            except ConnectionRefusedError:
                os.unlink(self._path)
                return
            except BlockingIOError:
                pass  # a queue of connections that is full: somebody listens
        raise OSError(errno.EADDRINUSE, "another process listens there")


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """
    Lock a folder meanwhile.  Of two processes that find a stale socket one might remove the other's new one.

    :raises OSError: if there is no such folder, or another process has the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EAGAIN, "another process makes a socket in this folder: try again") from None
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)
