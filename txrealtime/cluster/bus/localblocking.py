"""
Publishing to the hub of this machine without a reactor, by the standard library's socket.
"""

from __future__ import annotations

import os
import socket
from threading import Lock

from txrealtime.cluster.bus import hubframes
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.hubframes import HEAD, encode, frame
from txrealtime.cluster.bus.local import checkGreeting, nameOf, whyNoHub
from txrealtime.errors import BusError

__all__ = ["BlockingLocal"]


class BlockingLocal:
    """
    A publisher to a hub: see :mod:`~txrealtime.cluster.bus.blocking`.

    :param address: of the scheme ``unix``.
    :param timeout: seconds that the hub has to accept the connection, and then to confirm each message.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        # By process id: a fork has copies of its parents' connections, with their locks as they were.
        self._publishers: dict[int, _Publisher] = {}

    @property
    def _publisher(self) -> _Publisher:
        process = os.getpid()
        return self._publishers.get(process) or self._publishers.setdefault(
            process, _Publisher(self._address.path, self._timeout)
        )

    def publish(self, topic: str, payload: bytes) -> None:
        try:
            self._publisher.publish(encode(topic), payload)
        except (BusError, OSError) as error:
            why = str(error) or type(error).__name__
            raise BusError(f"{self._address.name} has not taken the message: {why}") from None

    def close(self) -> None:
        self._publisher.close()


class _Publisher:
    """
    The connection of one process, which its threads share.

    Any exception ends the connection, also that of a signal handler in the middle of a frame: the rest of the
    frame could not be sent.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._lock = Lock()
        self._socket: socket.socket | None = None

    def publish(self, topic: bytes, payload: bytes) -> None:
        if not self._lock.acquire(timeout=self._timeout):
            raise TimeoutError(f"no answer within {self._timeout:g} s")
        try:
            connection = self._alive() or self._connect()
            connection.sendall(frame(hubframes.PUBLISH, topic, payload))
            kind, content = self._receive(connection)
            if kind == hubframes.REFUSE:
                raise BusError(f"the broker refused the message: {content.decode('utf-8', 'replace')}")
            if kind != hubframes.CONFIRM or hubframes.numberOf(content) != 1:
                raise BusError("the hub sent no confirmation, but something else")
        except BaseException:
            self._abandon()
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Disconnect.  The hub has all published messages already."""
        with self._lock:
            self._abandon()

    def _alive(self) -> socket.socket | None:
        """Return the connection, unless the hub has closed it meanwhile, or there is none."""
        connection = self._socket
        if connection is not None:
            connection.setblocking(False)
            try:
                # The hub says nothing without a message: anything that has come is the end.
                connection.recv(1, socket.MSG_PEEK)
                self._abandon()
            except BlockingIOError:
                connection.settimeout(self._timeout)
            except ConnectionError:
                self._abandon()
        return self._socket

    def _connect(self) -> socket.socket:
        self._socket = connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout)
        try:
            connection.connect(self._path)
        except OSError as error:
            raise BusError(whyNoHub(self._path, error)) from None
        connection.sendall(frame(hubframes.HELLO, nameOf("emitter"), hubframes.VERSION))
        kind, content = self._receive(connection)
        if kind != hubframes.HELLO:
            raise BusError("no hub listens there, but something else")
        checkGreeting(content)
        return connection

    def _receive(self, connection: socket.socket) -> tuple[int, bytes]:
        """Receive a small frame, and return its kind and its payload."""
        head = self._exactly(connection, HEAD.size)
        length, kind, topicSize = HEAD.unpack(head)
        rest = length - (HEAD.size - 4)
        if not 0 <= topicSize <= rest <= 1000:
            raise BusError("no hub listens there, but something else")
        content = self._exactly(connection, rest)[topicSize:]
        if kind == hubframes.GONE:
            raise BusError(content.decode("utf-8", "replace"))
        return kind, content

    def _exactly(self, connection: socket.socket, size: int) -> bytes:
        received = b""
        while len(received) < size:
            data = connection.recv(size - len(received))
            if not data:
                raise BusError("the hub has closed the connection")
            received += data
        return received

    def _abandon(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
