"""
One client's connection: its packets, sorted to its namespaces.

::

    session -> messageReceived -> the decoder -> a packet
        CONNECT     admission: the namespace is found and asked, then CONNECT or CONNECT_ERROR
        EVENT       in turn, to Namespace.dispatch; its result leaves as an ACK
        ACK         at once, to the socket that waits for it
        DISCONNECT  the socket leaves

A packet that the protocol does not allow closes the connection.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from txrealtime.engineio.session import CloseReason, IReceiver, Session
from txrealtime.errors import ConnectionRejected, ProtocolError
from txrealtime.logs import Logger
from txrealtime.socketio.handler import PLAIN
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.namespace import NO_ACK
from txrealtime.socketio.namespaces import Directory
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.socketio.revisions import dialectOf
from txrealtime.socketio.sockets import Socket

__all__ = ["Connection"]

_log = Logger()

# In Python 3.11, to look up a member of an enumeration takes longer than to compare it.
_CONNECT: Final = PacketType.CONNECT
_EVENT: Final = PacketType.EVENT
_ACK: Final = PacketType.ACK
_newTuple: Final = tuple.__new__

# Beyond this many times maxWaiting, even a client that owes us an ack has sent too much.
_PATIENCE: Final = 10


class _Admission:
    """One CONNECT that is being decided on."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked: Deferred[None] | None = None


@implementer(IReceiver)
class Connection:
    """
    A client, in all its namespaces.

    :param session: the wire.
    :param directory: the namespaces there are.
    :param connectTimeout: seconds that it may stay without a namespace.
    :param maxAttachments: how many a packet may have.
    :param maxWaiting: how many events may wait for their turn before reading pauses.
    :param maxNamespaces: how many it may be in.
    :param maxRooms: how many rooms it may be in, in each of them.
    """

    __slots__ = (
        "_admissions",
        "_connectTimeout",
        "_decoder",
        "_dialect",
        "_directory",
        "_maxNamespaces",
        "_maxWaiting",
        "_parted",
        "_size",
        "_sockets",
        "_timer",
        "_waiting",
        "_waitingSize",
        "maxRooms",
        "session",
    )

    def __init__(
        self,
        session: Session,
        directory: Directory,
        connectTimeout: float,
        maxAttachments: int,
        maxWaiting: int,
        maxNamespaces: int,
        maxRooms: int,
    ) -> None:
        self.session = session
        self._directory = directory
        self._decoder = directory.parser.decoder(maxAttachments)
        self._dialect = dialectOf(session, directory.parser)
        self._maxWaiting = maxWaiting
        self._maxNamespaces = maxNamespaces
        self.maxRooms = maxRooms
        self._sockets: dict[str, Socket] = {}
        self._admissions: dict[str, _Admission] = {}
        # Where we have disconnected it, and it may not know yet.
        self._parted: set[str] = set()
        self._size = 0
        self._waiting = 0
        self._waitingSize = 0
        self._connectTimeout = connectTimeout
        self._timer: IDelayedCall | None = None
        self._startTimer()
        if self._dialect.joinsUnasked:
            self._connect(Packet(_CONNECT))

    # -- IReceiver -----------------------------------------------------------------

    def messageReceived(self, data: str | bytes) -> None:
        try:
            packet = self._decoder.feed(data)
        except ProtocolError as error:
            self._violated(CloseReason.FORCED_CLOSE, str(error))
            return
        if packet is None:
            self._size += len(data)
            if not self._sockets and not self._parted:
                # Whoever has not been let in could let us keep its attachments for long.
                self._violated(CloseReason.FORCED_SERVER_CLOSE, "attachments before a namespace was joined")
            return
        type, path, args, id = packet
        if type is _CONNECT:
            self._connect(packet)
            return
        socket = self._sockets.get(path)
        if socket is None:
            self._withoutSocket(packet)
        elif type is _EVENT:
            # While an ack leaves, a pipelined request may bring the next event before those that wait.
            if socket.running < socket.namespace.concurrency and not socket.waiting:
                self._handle(socket, args, id)
            else:
                self._enqueue(socket, packet, len(data) + self._size)
            self._size = 0
        elif type is _ACK and id is not None:
            self._size = 0
            socket.answered(id, args)
        elif type is PacketType.DISCONNECT:
            self._drop(socket, CloseReason.CLIENT_DISCONNECT)
        else:
            self._violated(CloseReason.FORCED_SERVER_CLOSE, f"a client sent {type.name}")

    def sessionClosed(self, reason: CloseReason) -> None:
        self._cancelTimer()
        # Nothing more is decoded; what it has of half a packet must not wait for the garbage collector.
        del self._decoder
        for path in list(self._admissions):
            self._cancelAdmission(path)
        while self._sockets:  # a handler that is told of one may disconnect another
            self._drop(next(iter(self._sockets.values())), reason)

    def _violated(self, reason: CloseReason, why: str) -> None:
        _log.info(
            "session {session}: {reason}: {why}", session=self.session.label, reason=reason.value, why=why
        )
        self.session.close(reason)

    def _withoutSocket(self, packet: Packet) -> None:
        self._size = 0
        if packet.namespace in self._admissions and packet.type is PacketType.DISCONNECT:
            self._cancelAdmission(packet.namespace)
        elif packet.namespace not in self._parted:
            self._violated(
                CloseReason.FORCED_SERVER_CLOSE, f"{packet.type.name} for a namespace that was not joined"
            )
        # Otherwise the packet has met our own DISCONNECT on the way.

    # -- admission -----------------------------------------------------------------

    def _connect(self, packet: Packet) -> None:
        path, auth = self._dialect.wanted(packet)
        if path in self._sockets or path in self._admissions:
            self._violated(CloseReason.FORCED_SERVER_CLOSE, "a second CONNECT to one namespace")
            return
        self._parted.discard(path)
        if len(self._sockets) + len(self._admissions) >= self._maxNamespaces:
            self._refuse(path, ConnectionRejected("Too many namespaces"))
            return
        self._admissions[path] = admission = _Admission()
        admission.asked = Deferred.fromCoroutine(self._admit(admission, path, auth))
        if self._admissions.get(path) is not admission:
            # Decided, or the client went before there was anything to cancel.
            admission.asked.cancel()

    async def _admit(self, admission: _Admission, path: str, auth: Any) -> None:
        """Find the namespace, ask it, and answer the client."""
        socket: Socket | None = None
        rejection: ConnectionRejected | None = None
        try:
            namespace = await self._directory.open(path, auth)
            id = self._dialect.socketId(self.session, path, self._directory.idPrefix)
            socket = Socket(namespace, self, Handshake(self.session.handshake, auth), id)
            asked = namespace.admit(socket)
            if isinstance(asked, Deferred):
                await asked
            if socket.leftBecause is not None:
                rejection = ConnectionRejected()
        except ConnectionRejected as error:
            rejection = error
        except Exception:
            if self._admissions.get(path) is admission:
                _log.failure("{namespace}: admission failed; the client is refused", namespace=path)
            rejection = ConnectionRejected("Internal server error")
        # The client may have gone meanwhile, or changed its mind, even more than once.
        stillWanted = self._admissions.get(path) is admission
        if stillWanted:
            del self._admissions[path]
        if socket is not None:
            if rejection is None and stillWanted:
                self._letIn(socket)
                return
            socket.namespace.remove(socket, CloseReason.FORCED_CLOSE)
            self._directory.socketGone(socket.namespace)
        if rejection is not None and stillWanted:
            self._refuse(path, rejection)

    def _letIn(self, socket: Socket) -> None:
        self._cancelTimer()
        namespace = socket.namespace
        self._sockets[namespace.path] = socket
        self.session.sendPackets(namespace.encode(self._dialect.welcome(namespace.path, socket.id)))
        # The greeting itself may have been too much for a slow client.
        if socket.leftBecause is None:
            namespace.letIn(socket)

    def _refuse(self, path: str, rejection: ConnectionRejected) -> None:
        try:
            messages = self._directory.encode(self._dialect.refusal(path, rejection))
        except (TypeError, ValueError):
            _log.failure("{namespace}: ConnectionRejected with what cannot be sent", namespace=path)
            self._refuse(path, ConnectionRejected("Internal server error"))
        else:
            self.session.sendPackets(messages)

    def _cancelAdmission(self, path: str) -> None:
        admission = self._admissions.pop(path, None)
        if admission is not None and admission.asked is not None:
            admission.asked.cancel()

    def _nobodyCame(self) -> None:
        self._timer = None
        if self._admissions:
            self._startTimer()
        else:
            self._violated(CloseReason.FORCED_SERVER_CLOSE, "no namespace joined within connectTimeout")

    def _startTimer(self) -> None:
        self._timer = self._directory.reactor.callLater(self._connectTimeout, self._nobodyCame)

    def _cancelTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # -- events, in turn -------------------------------------------------------------

    def _enqueue(self, socket: Socket, packet: Packet, size: int) -> None:
        """Let an event wait for its turn."""
        if not socket.waiting:
            socket.waiting = deque()  # an empty one takes 0.7 kB, and most never need it
        socket.waiting.append((packet, size))
        self._waiting += 1
        self._waitingSize += size
        if self._tooMuchWaits:
            self._holdBack()

    def _handle(self, socket: Socket, data: list[Any], id: int | None) -> None:
        socket.running += 1
        result = socket.namespace.dispatch(socket, data[0], data[1:])
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addCallback(self._handledLater, socket, id)
            return
        socket.running -= 1
        if id is not None and result is not NO_ACK:
            self._acknowledge(socket, id, result)

    def _handledLater(self, result: Any, socket: Socket, id: int | None) -> None:
        socket.running -= 1
        if id is not None and result is not NO_ACK:
            self._acknowledge(socket, id, result)
        if not socket.draining:
            # What is handled at once comes back here: the loop goes on, not deeper.
            socket.draining = True
            try:
                self._drain(socket)
            finally:
                socket.draining = False

    def _drain(self, socket: Socket) -> None:
        """Handle what has waited for its turn."""
        while socket.waiting and socket.running < socket.namespace.concurrency:
            packet, size = socket.waiting.popleft()
            self._waiting -= 1
            self._waitingSize -= size
            self._handle(socket, packet.data, packet.id)
        if not self._tooMuchWaits:
            self.session.resume()

    @property
    def _tooMuchWaits(self) -> bool:
        return self._waiting > self._maxWaiting or self._waitingSize > self.session.settings.maxPayload

    def _holdBack(self) -> None:
        """Read no more until less waits, so that a slow handler slows its client and fills no memory."""
        if not any(socket.awaitsAnswer for socket in self._sockets.values()):
            self.session.pause()
        elif self._waiting > _PATIENCE * self._maxWaiting or (
            self._waitingSize > _PATIENCE * self.session.settings.maxPayload
        ):
            self._violated(CloseReason.FORCED_SERVER_CLOSE, "too many events while an ack is owed")
        # Otherwise the ack that a handler waits for may come right behind: read on.

    def _acknowledge(self, socket: Socket, id: int, result: Any) -> None:
        data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
        namespace = socket.namespace
        try:
            # As Packet(...), in a third of the time.
            messages = namespace.encode(_newTuple(Packet, (_ACK, namespace.path, data, id)))
        except (TypeError, ValueError) as error:
            namespace.ackFailed(socket, error)
        else:
            if socket.connected:
                self.session.sendPackets(messages)

    # -- leaving -----------------------------------------------------------------------

    def disconnect(self, socket: Socket, reason: CloseReason, close: bool) -> None:
        """The application disconnects one of the sockets."""
        if self._sockets.get(socket.namespace.path) is not socket and socket.leftBecause is None:
            # Not admitted yet: refused.
            socket.leftBecause = reason
        # Of a connection that was lost, a client comes back with each namespace that has not sent it away.
        for leaving in list(self._sockets.values()) if close else [socket]:
            self._sendAway(leaving, reason)
        if close:
            self.session.close(reason)

    def _sendAway(self, socket: Socket, reason: CloseReason) -> None:
        path = socket.namespace.path
        if self._sockets.get(path) is socket:
            self.session.sendPackets(socket.namespace.encode(Packet(PacketType.DISCONNECT, path)))
        # That may have been too much for a slow client, whose sockets are gone then.
        if self._sockets.get(path) is socket:
            self._forgetWaiting(socket)
            if len(self._parted) >= self._maxNamespaces:
                # A packet to that one ends the connection, if it is still under way.
                self._parted.pop()
            self._parted.add(path)
            self._drop(socket, reason)

    def _drop(self, socket: Socket, reason: CloseReason) -> None:
        """
        A socket leaves.

        What its client sent before is still handled, unless it was we who wanted it gone.
        """
        del self._sockets[socket.namespace.path]
        socket.namespace.remove(socket, reason)
        self._directory.socketGone(socket.namespace)

    def _forgetWaiting(self, socket: Socket) -> None:
        self._waiting -= len(socket.waiting)
        self._waitingSize -= sum(size for _, size in socket.waiting)
        socket.waiting = ()
        if not self._tooMuchWaits:
            self.session.resume()
