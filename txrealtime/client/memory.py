"""
A client without sockets, for tests: the client itself, on a transport to a server in the same process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.client.client import Auth, Client
from txrealtime.client.interfaces import Transport, TransportOwner
from txrealtime.client.requests import USER_AGENT
from txrealtime.client.session import Session
from txrealtime.client.settings import Options
from txrealtime.engineio.interfaces import CloseReason, ITransport
from txrealtime.engineio.packet import EngineIO4, Packet, message
from txrealtime.errors import HandshakeError, TransportError
from txrealtime.socketio.packet import IParser

if TYPE_CHECKING:
    from txrealtime.engineio.session import Session as ServerSession
    from txrealtime.server import Server

__all__ = ["MemoryClient"]

_CODEC: Final = EngineIO4()


class MemoryClient(Client):
    """
    A :class:`txrealtime.client.Client` of a server under test.

    The client is the real one, with its buffer, its handlers and its reconnection.  Packets arrive at once:
    after ``startService()`` the client is connected, unless a handler waits.  Delays are on the server's
    clock, and have no random part.

    :param server: the server, made with a Clock.
    :param namespace: the client's own namespace.
    :param auth: as for the real client.
    :param transport: the transport that the client pretends to use; by default ``websocket``, or ``polling``
        if the server allows that alone.  An upgrade does not take place.
    :param parser: the client's parser; the server's by default.
    :param address: the client's address.
    :param options: any field of :class:`~txrealtime.client.ClientSettings` but ``transports``.
    :ivar reachable: false to have attempts to connect fail.
    """

    def __init__(
        self,
        server: Server,
        namespace: str = "/",
        auth: Auth = None,
        *,
        transport: Literal["polling", "websocket"] | None = None,
        parser: IParser | None = None,
        address: str = "127.0.0.1",
        **options: Unpack[Options],
    ) -> None:
        options.setdefault("path", server.path)
        options.setdefault("randomizationFactor", 0.0)
        usual = "websocket" if "websocket" in server.settings.transports else "polling"
        super().__init__(
            "http://localhost/" + namespace.strip("/"),
            auth,
            (transport or usual,),
            server.namespace().reactor,
            parser=parser or server.parser,
            **options,
        )
        self.reachable = True
        self._server = server
        self._clientAddress = address
        self._link: _Link | None = None

    def lose(self) -> None:
        """Cut the connection, as a network does: the client connects again after a delay."""
        if self._link is not None:
            self._link.lose()

    def _makeTransport(self, name: str, session: Session) -> Transport:
        self._link = _Link(self, name, session)
        return self._link

    def _handshake(self, name: str) -> Any:
        """Read the client's opening request as the server does."""
        if not self.reachable:
            raise TransportError("cannot connect: the client is not reachable")
        url = self._address.url(name, None)
        parts = urlsplit(url)
        headers = {"host": parts.netloc, "user-agent": USER_AGENT}
        headers |= {key.lower(): value for key, value in self._headers.items()}
        cookie = self._cookies.header(url)
        if cookie is not None:
            headers["cookie"] = cookie
        target = f"{parts.path}?{parts.query}"
        return self._server.engine.readHandshake(headers, target, self._clientAddress, False)


class _Turns:
    """Calls made one after the other, and never inside each other, as the bytes of a network arrive."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._isRunning = False

    def add(self, call: Callable[..., object], *args: Any) -> None:
        self._calls.append((call, args))
        if self._isRunning:
            return
        self._isRunning = True
        try:
            while self._calls:
                call, args = self._calls.popleft()
                call(*args)
        finally:
            self._isRunning = False


_turns: Final = _Turns()


class _Link:
    """The client's end: its transport."""

    def __init__(self, client: MemoryClient, name: str, owner: TransportOwner) -> None:
        self.name = name
        self.writable = False
        self.deliver: Callable[[str | bytes], None] | None = None
        self.reading = True
        self._client = client
        self._owner: TransportOwner | None = owner
        self._session: ServerSession | None = None
        self._other = _ServerEnd(self, name)
        self._waiting: deque[Packet] = deque()

    def open(self, sid: str | None) -> None:
        opening = Deferred.fromCoroutine(self._opened())
        opening.addErrback(self._refused)

    async def _opened(self) -> None:
        engine = self._client._server.engine
        handshake = self._client._handshake(self.name)
        await engine.verify(handshake, self.name, "GET")
        _turns.add(self._join, handshake)

    def _join(self, handshake: Any) -> None:
        # The server's first packet waits for the end of this call.
        if self._owner is not None:
            self._session = self._client._server.engine.openSession(handshake, self._other)

    def _refused(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, HandshakeError):
            error = TransportError(
                f"the server answered with status {error.status}: {error.message} (code {error.code})",
                error.status,
            )
        _turns.add(self.ended, error)

    def joined(self, sid: str) -> None:
        self.writable = True

    def send(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            _turns.add(self._arrive, packet)

    def sendMessage(self, data: str | bytes) -> None:
        self.send((message(data),))

    def _arrive(self, packet: Packet) -> None:
        if self._session is not None:
            self._session.packetReceived(self._other, _decoded(packet))

    def received(self, packet: Packet) -> None:
        """Called with each packet of the server, in order."""
        self._waiting.append(packet)
        self._deliver()

    def _deliver(self) -> None:
        while self._waiting and self.reading and self._owner is not None:
            self._owner.packetReceived(self, _decoded(self._waiting.popleft()))

    def pauseReading(self) -> None:
        self.reading = False

    def resumeReading(self) -> None:
        self.reading = True
        _turns.add(self._deliver)

    def pause(self, done: Callable[[], None]) -> None:
        """Not called: there is no upgrade."""
        raise NotImplementedError

    def resume(self) -> None:
        """Not called: there is no upgrade."""
        raise NotImplementedError

    def lose(self) -> None:
        """End the connection for both sides."""
        self._leave(CloseReason.TRANSPORT_CLOSE)
        _turns.add(self.ended, None)

    def close(self) -> None:
        self.lose()

    def abort(self) -> None:
        self._owner = None
        self.writable = False
        self._leave(CloseReason.TRANSPORT_CLOSE)

    def _leave(self, reason: CloseReason) -> None:
        # Behind all packets that were sent.
        _turns.add(self._left, reason)

    def _left(self, reason: CloseReason) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.transportLost(self._other, reason)

    def ended(self, error: Exception | None) -> None:
        """Called when the connection has ended, or could not be made."""
        owner, self._owner = self._owner, None
        self.writable = False
        if owner is not None:
            owner.transportLost(self, error)


@implementer(ITransport)
class _ServerEnd:
    """The server's end."""

    batch: Final = 16

    def __init__(self, link: _Link, name: str) -> None:
        self.name = name
        self.writable = True
        self._link = link

    def send(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            _turns.add(self._link.received, packet)

    def farewell(self, reason: CloseReason) -> Sequence[Packet]:
        return ()

    def close(self, reason: CloseReason) -> None:
        self.writable = False
        _turns.add(self._link.ended, None)

    def pauseReading(self) -> None:
        """Called while events wait for handlers; packets are delivered all the same."""

    def resumeReading(self) -> None:
        """Called when the handlers have caught up."""


def _decoded(packet: Packet) -> Packet:
    """Encode and decode a packet as a WebSocket would."""
    wire, isBinary = _CODEC.encodeMessage(packet)
    return _CODEC.decodeBytes(wire) if isBinary else _CODEC.decodeText(wire.decode())
