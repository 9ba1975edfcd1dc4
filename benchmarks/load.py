"""
The load generator's loop and connections: raw sockets and epoll.

It has one core, as the server has, and must do its part in less time than the server does. So what is sent
is made beforehand, and what comes back is compared as bytes with what must come; only what differs is looked
into.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from time import perf_counter, sleep
from typing import TypeVar

CHUNK = 4096
"Bytes to read at once. Enough for what is small; and room for much is costly to allocate for each read."

# To be woken for every answer costs more than to handle it, so when few come at a time they are left to
# gather. The server does not wait meanwhile: a hundred clients give it work for longer than that.
_FEW, _PAUSE = 16, 0.0001

Address = tuple[str, int]


class Wrong(Exception):
    """A server's answer is not what it must be, or did not come."""


class Busy(Wrong):
    """The load was too busy for a figure; another turn may be better."""


class Loop:
    """
    Waits for sockets, and calls what reads them.

    :ivar readers: by file descriptor, what is called when there is something to read.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self.readers: dict[int, Callable[[], None]] = {}

    def add(self, connection: Connection, reader: Callable[[], None]) -> None:
        """Begin to read a connection."""
        self._connections[connection.fd] = connection
        self.readers[connection.fd] = reader
        self._epoll.register(connection.fd, select.EPOLLIN)

    def remove(self, connection: Connection) -> None:
        """Stop watching a connection."""
        del self._connections[connection.fd], self.readers[connection.fd]
        self._epoll.unregister(connection.fd)

    def watch(self, connection: Connection, write: bool) -> None:
        """Choose if the loop also tells a connection that its socket takes data."""
        self._epoll.modify(connection.fd, select.EPOLLIN | (select.EPOLLOUT if write else 0))

    def turn(self, seconds: float) -> int:
        """Wait for so long at most, and handle what has come; returns from how many connections."""
        readers, read = self.readers, select.EPOLLIN
        events = self._epoll.poll(seconds, 512)
        for fd, event in events:
            try:
                if event == read:
                    readers[fd]()
                else:
                    self._connections[fd].ready(event)
            except (BlockingIOError, KeyError):
                pass  # TLS: a record without data; or an earlier event of this turn closed the connection
            except ConnectionError as error:
                raise Wrong(f"the server closed a connection: {error}") from None
        if len(events) < _FEW:
            sleep(_PAUSE)
        return len(events)

    def catchUp(self) -> None:
        """Handle what has come, without waiting: heartbeats that came meanwhile."""
        while self.turn(0):
            pass

    def run(self, seconds: float) -> None:
        """Handle what comes for so long."""
        end = perf_counter() + seconds
        while (left := end - perf_counter()) > 0:
            self.turn(left)

    def until(self, done: Callable[[], bool], what: Callable[[], str], seconds: float = 20.0) -> None:
        """
        Handle what comes until something is done.

        :param what: returns a name for what is missing.
        :raises Wrong: if the time is over.
        """
        end = perf_counter() + seconds
        while not done():
            if perf_counter() > end:
                raise Wrong(f"after {seconds:g} s still missing: {what()}")
            self.turn(0.1)


class Connection:
    """
    A TCP connection to a server, over TLS when there is a context for it.

    :ivar receive: reads at most so many bytes of what has come.
    """

    __slots__ = ("_send", "_socket", "_unsent", "fd", "loop", "receive")

    def __init__(self, loop: Loop, address: Address, context: ssl.SSLContext | None = None) -> None:
        self.loop = loop
        self.connect(address, context)

    def connect(self, address: Address, context: ssl.SSLContext | None = None) -> None:
        """Connect, and wait for that: over loopback the kernel does it on the spot."""
        sock = socket.socket()
        sock.settimeout(20.0)
        try:
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock)
        except OSError as error:
            raise Wrong(f"cannot connect: {error}") from None
        sock.setblocking(False)
        self._socket = sock
        self._send = sock.send
        self._unsent = b""
        self.fd = sock.fileno()
        self.receive = sock.recv if context is None else self._receiveSecurely
        self.loop.add(self, self.readable)

    def readable(self) -> None:
        """Called when the socket has data to read."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send, now as much as the kernel takes and the rest when it takes more."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(data):
            self._unsent = data[sent:]
            self.loop.watch(self, write=True)

    def ready(self, event: int) -> None:
        """Something else than only reading can be done."""
        if event & select.EPOLLOUT:
            data, self._unsent = self._unsent, b""
            self.loop.watch(self, write=False)
            self.write(data)
        if event & ~select.EPOLLOUT:
            self.loop.readers[self.fd]()

    def close(self) -> None:
        """End it, without a word."""
        self.loop.remove(self)
        self._socket.close()

    def _receiveSecurely(self, size: int) -> bytes:
        chunks = []
        try:
            while chunk := self._socket.recv(size):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            if not chunks:
                raise BlockingIOError from None
        return b"".join(chunks)


C = TypeVar("C", bound="Connection")


def openAll(
    loop: Loop, count: int, make: Callable[[Callable[[], None]], C], atOnce: int = 32, seconds: float = 120.0
) -> list[C]:
    """
    Open clients, a few at a time.

    :param make: begins to open one, which calls what it gets when it is open.
    :raises Wrong: if they are not open in time.
    """
    clients: list[C] = []
    opened = 0
    end = perf_counter() + seconds

    def done() -> None:
        nonlocal opened
        opened += 1

    while opened < count:
        while len(clients) < count and len(clients) - opened < atOnce:
            clients.append(make(done))
        loop.turn(1.0)
        if perf_counter() > end:
            raise Wrong(f"{count - opened} of {count} clients could not connect")
    return clients


class Tally:
    """
    Counts that all clients share.

    :ivar active: whether those who are answered ask again.
    :ivar asked: how many answers must come.
    :ivar done: how many have come, and were right.
    :ivar latencies: how long each took, in seconds.
    """

    def __init__(self) -> None:
        self.active = False
        self.asked = 0
        self.done = 0
        self.latencies: list[float] = []

    def start(self) -> None:
        """Begin to ask."""
        self.active = True

    def stop(self, loop: Loop) -> None:
        """
        Ask no more, and wait for the answers that are due.

        :raises Wrong: if one does not come.
        """
        self.active = False
        loop.until(lambda: self.done == self.asked, lambda: f"{self.asked - self.done} answers")
