"""
Connections: one client's Socket.IO packets, sorted to the sockets of its namespaces.

::

    session -> messageReceived -> the decoder -> a packet
        CONNECT     to an Admission, until CONNECT or CONNECT_ERROR leaves
        EVENT       in turn, to Namespace._take; its result leaves as an ACK
        ACK         at once, to the socket that awaits it
        DISCONNECT  the socket leaves

A packet that the protocol does not allow closes the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel
from zope.interface import implementer

from txrealtime.coroutines import begin
from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason, IReceiver, Session
from txrealtime.errors import ConnectionRejected, ProtocolError
from txrealtime.logs import Logger
from txrealtime.socketio.admission import Admission
from txrealtime.socketio.handler import PLAIN
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.namespace import NO_ACK, Namespace
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import Packet, PacketType
from txrealtime.socketio.revisions import revisionOf
from txrealtime.socketio.settings import Settings
from txrealtime.socketio.sockets import Socket

__all__ = ["Connection"]

_log = Logger()

# In Python 3.11, the look-up of an enumeration's member takes longer than its comparison.
_CONNECT: Final = PacketType.CONNECT
_EVENT: Final = PacketType.EVENT
_ACK: Final = PacketType.ACK

_PATIENCE: Final = 10
"""A client whose ack is awaited is closed above this many times maxWaiting events, or maxPayload bytes."""


@implementer(IReceiver)
class Connection:
    """
    A client, in all its namespaces.

    :param session: the client's Engine.IO session.
    :param namespaces: those of the server.
    :param settings: the server's.
    """

    __slots__ = (
        "_admissions",
        "_decoder",
        "_namespaces",
        "_parted",
        "_revision",
        "_size",
        "_sockets",
        "_timer",
        "_waiting",
        "_waitingSize",
        "session",
        "settings",
    )

    def __init__(self, session: Session, namespaces: Namespaces, settings: Settings) -> None:
        self.session = session
        self.settings = settings
        self._namespaces = namespaces
        self._decoder = namespaces.parser.decoder(settings.maxAttachments)
        self._revision = revisionOf(session, namespaces.parser)
        self._sockets: dict[str, Socket] = {}
        self._admissions: dict[str, Admission] = {}
        # The paths from which the server has disconnected the client; packets to them may be on their way.
        self._parted: set[str] | tuple[()] = ()
        self._size = 0
        self._waiting = 0
        self._waitingSize = 0
        self._timer: IDelayedCall | None = None
        self._startTimer()
        if self._revision.joinsUnasked:
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
                # Without this, a client that no namespace has admitted could have attachments kept for long.
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
            # While an ack leaves, a pipelined request may bring the next event: the waiting events go first.
            if not socket._waiting and (
                not socket._running or socket._running < socket.namespace.concurrency
            ):
                self._handle(socket, args, id)
            else:
                self._enqueue(socket, packet, len(data) + self._size)
            self._size = 0
        elif type is _ACK and id is not None:
            self._size = 0
            socket._ackReceived(id, args)
        elif type is PacketType.DISCONNECT:
            self._drop(socket, CloseReason.CLIENT_DISCONNECT)
        else:
            self._violated(CloseReason.FORCED_SERVER_CLOSE, f"a client sent {type.name}")

    def sessionClosed(self, reason: CloseReason) -> None:
        self._cancelTimer()
        # Half a packet in the decoder must not wait for the garbage collector.
        del self._decoder
        for path in list(self._admissions):
            self._cancelAdmission(path)
        while self._sockets:  # a handler called for one socket may disconnect another
            self._drop(next(iter(self._sockets.values())), reason)

    def _violated(self, reason: CloseReason, why: str) -> None:
        _log.limited(
            reason,
            LogLevel.info,
            "session {session}: {reason}: {why}",
            session=self.session.label,
            reason=reason.value,
            why=why,
        )
        self.session.mayReturn = False
        self.session.close(reason)

    def _withoutSocket(self, packet: Packet) -> None:
        self._size = 0
        if packet.namespace in self._admissions and packet.type is PacketType.DISCONNECT:
            self._cancelAdmission(packet.namespace)
        elif packet.namespace not in self._parted:
            self._violated(
                CloseReason.FORCED_SERVER_CLOSE, f"{packet.type.name} for a namespace that was not joined"
            )
        # Otherwise the packet crossed the DISCONNECT of the server.

    # -- admission -----------------------------------------------------------------

    def _connect(self, packet: Packet) -> None:
        path, auth = self._revision.wanted(packet)
        if path in self._sockets or path in self._admissions:
            self._violated(CloseReason.FORCED_SERVER_CLOSE, "a second CONNECT to one namespace")
            return
        if self._parted:
            self._parted.discard(path)
        if len(self._sockets) + len(self._admissions) >= self.settings.maxNamespaces:
            _log.limited(
                "",
                LogLevel.info,
                "session {session}: refused another namespace, as it has {count}: raise maxNamespaces "
                "(--max-namespaces) if clients need more",
                session=self.session.label,
                count=self.settings.maxNamespaces,
            )
            self.refuse(path, ConnectionRejected("Too many namespaces"))
            return
        admission = Admission(self, self._namespaces, self._admissions, path)
        self._admissions[path] = admission
        asked = begin(admission.decide(self._revision, auth))
        if asked is None:  # decided
            return
        if self._admissions.get(path) is not admission:
            # The client left while the coroutine ran its first step.
            asked.cancel()
            return
        admission.asked = asked
        if self._namespaces.pace is not None:
            self._namespaces.pace.began()
            asked.addBoth(self._namespaces.pace.ended)

    def newSocket(self, namespace: Namespace, handshake: Handshake, id: str) -> Socket:
        """Make a socket of this client."""
        return Socket(namespace, self, handshake, id)

    def letIn(self, socket: Socket, missed: Sequence[engineio.Packet]) -> None:
        """
        Let a client into a namespace.

        :param missed: the events that a returning client has missed.
        """
        self._cancelTimer()
        namespace, ticket = socket.namespace, socket._ticket
        self._sockets[namespace.path] = socket
        fields = None
        if ticket is not None:
            fields = ticket.recovery.welcome(ticket)
            ticket.recovery.admitted(ticket)
        welcome = namespace._encode(self._revision.welcome(namespace.path, socket.id, fields))
        # One message after the other in one payload: with polling, each payload takes a request.  CONNECT
        # goes first: a JavaScript client keeps events that come before it, also over the end of the
        # connection, and would handle them twice if the connection were cut between the two.
        self.session.sendPackets([*welcome, *missed, *socket._takeHeld()])
        # The packets may have exceeded a slow client's buffer.
        if socket._leftBecause is None:
            namespace._letIn(socket)

    def refuse(self, path: str, rejection: ConnectionRejected) -> None:
        """Refuse a client."""
        try:
            parts = self._namespaces.parser.encode(self._revision.refusal(path, rejection))
        except (TypeError, ValueError):
            _log.failure("{namespace}: the data of ConnectionRejected cannot be sent", namespace=path)
            self.refuse(path, ConnectionRejected("Internal server error"))
        else:
            self.session.sendPackets([engineio.message(part) for part in parts])

    def _cancelAdmission(self, path: str) -> None:
        admission = self._admissions.pop(path, None)
        if admission is not None:
            admission.cancel()

    def _nobodyCame(self) -> None:
        self._timer = None
        if self._admissions:
            self._startTimer()
        else:
            self._violated(
                CloseReason.FORCED_SERVER_CLOSE,
                "no namespace joined within connectTimeout (--connect-timeout)",
            )

    def _startTimer(self) -> None:
        self._timer = self._namespaces.reactor.callLater(self.settings.connectTimeout, self._nobodyCame)

    def _cancelTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # -- events, in turn -------------------------------------------------------------

    def _enqueue(self, socket: Socket, packet: Packet, size: int) -> None:
        """Let an event wait for its handler."""
        if not socket._waiting:
            socket._waiting = deque()  # an empty one takes 0.7 kB, and most sockets never need it
        socket._waiting.append((packet, size))
        self._waiting += 1
        self._namespaces.counts.eventsWaiting += 1
        self._waitingSize += size
        if self._tooMuchWaits:
            self._holdBack()

    def _handle(self, socket: Socket, data: list[Any], id: int | None) -> None:
        socket._running += 1
        joining = self._namespaces.joining
        # An attribute of an instance is called faster than a method that an instance replaces: 0.05 us.
        take = socket.namespace._take
        result = take(socket, data[0], data[1:])
        if result.__class__ not in PLAIN and isinstance(result, Deferred):
            result.addCallback(self._handledLater, socket, data[0], id, joining)
            return
        if self._namespaces.joining is not joining:
            self._handledLater(result, socket, data[0], id, joining)
            return
        socket._running -= 1
        if id is not None and result is not NO_ACK:
            self._acknowledge(socket, data[0], id, result)

    def _handledLater(self, result: Any, socket: Socket, event: str, id: int | None, joining: object) -> None:
        home = self._namespaces
        if id is not None and home.joining is not joining and home.peers is not None:
            # A client that has its ack must miss nothing that other servers emit to the room.
            home.peers.whenInForce().addCallback(lambda _: self._handled(result, socket, event, id))
        else:
            self._handled(result, socket, event, id)

    def _handled(self, result: Any, socket: Socket, event: str, id: int | None) -> None:
        socket._running -= 1
        if id is not None and result is not NO_ACK:
            self._acknowledge(socket, event, id, result)
        if not socket._draining:
            # An event handled at once comes back here: the loop goes on, without recursion.
            socket._draining = True
            try:
                # A client that has come back has another connection.
                socket._connection._drain(socket)
            finally:
                socket._draining = False

    def _drain(self, socket: Socket) -> None:
        """Handle the events that wait."""
        while socket._waiting and socket._running < socket.namespace.concurrency:
            packet, size = socket._waiting.popleft()
            self._waiting -= 1
            self._namespaces.counts.eventsWaiting -= 1
            self._waitingSize -= size
            self._handle(socket, packet.data, packet.id)
        if socket._goodbye is not None and not socket._waiting:
            self._sayGoodbye(socket)
        if not self._tooMuchWaits:
            self.session.resume()

    @property
    def _tooMuchWaits(self) -> bool:
        return (
            self._waiting > self.settings.maxWaiting or self._waitingSize > self.session.settings.maxPayload
        )

    def _holdBack(self) -> None:
        """
        Pause reading until fewer events wait: a slow handler slows its client, and memory does not fill.
        """
        if not any(socket._awaitsAck for socket in self._sockets.values()):
            self.session.pause()
        elif self._waiting > _PATIENCE * self.settings.maxWaiting or (
            self._waitingSize > _PATIENCE * self.session.settings.maxPayload
        ):
            self._violated(
                CloseReason.FORCED_SERVER_CLOSE,
                f"{self._waiting} events wait while an ack is awaited: raise maxWaiting (--max-waiting), or "
                "give the namespace a higher concurrency",
            )
        # Otherwise read on: the ack that a handler awaits may come right behind.

    def _acknowledge(self, socket: Socket, event: str, id: int, result: Any) -> None:
        data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
        namespace = socket.namespace
        try:
            messages = namespace._encodeAck(namespace.path, data, id)
        except (TypeError, ValueError) as error:
            namespace._ackFailed(socket, error, event)
        else:
            if socket.connected:
                self.session.sendMessages(messages)

    def takeWaiting(self, other: Connection, socket: Socket) -> None:
        """Take over from another connection the events of a socket that wait for their handlers."""
        size = sum(size for _, size in socket._waiting)
        for connection, sign in ((other, -1), (self, 1)):
            connection._waiting += sign * len(socket._waiting)
            connection._waitingSize += sign * size

    # -- leaving -----------------------------------------------------------------------

    def disconnect(self, socket: Socket, reason: CloseReason, close: bool) -> None:
        """Disconnect one of the sockets, for the application."""
        ticket = socket._ticket
        if ticket is not None and ticket.isParked:
            ticket.reason = reason
            ticket.recovery.end(ticket)
        elif self._sockets.get(socket.namespace.path) is not socket and socket._leftBecause is None:
            # In admission: this refuses it.
            socket._leftBecause = reason
        # After a lost connection, a client joins again each namespace that has not sent DISCONNECT.
        for leaving in list(self._sockets.values()) if close else [socket]:
            self._sendAway(leaving, reason)
        if close:
            self.session.close(reason)

    def dismiss(self, reason: CloseReason) -> None:
        """Disconnect all sockets that have been admitted, for a server that stops."""
        # The port closes meanwhile, and a client of long polling may need it for another GET.
        with self.session.gathering():
            for socket in list(self._sockets.values()):
                if socket.connected:
                    self._sendAway(socket, reason)

    def _sendAway(self, socket: Socket, reason: CloseReason) -> None:
        path = socket.namespace.path
        if self._sockets.get(path) is socket:
            if socket._ticket is not None:
                socket._ticket.recovery.leaving(socket)
            self.session.sendPackets(socket.namespace._encode(Packet(PacketType.DISCONNECT, path)))
        # The DISCONNECT may have exceeded a slow client's buffer, which has ended all its sockets.
        if self._sockets.get(path) is socket:
            self._forgetWaiting(socket)
            if socket._ticket is not None:
                # The client stays away after a DISCONNECT.
                socket._ticket.recovery.forget(socket._ticket)
            self._parted = self._parted or set()
            if len(self._parted) >= self.settings.maxNamespaces:
                # A packet to the forgotten path that is still on its way will close the connection.
                self._parted.pop()
            self._parted.add(path)
            self._drop(socket, reason)

    def _drop(self, socket: Socket, reason: CloseReason) -> None:
        """
        Let a socket leave.

        Its waiting events are still handled, for ``closeTimeout`` seconds, unless the server has disconnected
        it.
        """
        del self._sockets[socket.namespace.path]
        if socket._ticket is None or not socket._ticket.recovery.park(socket, reason):
            self.gone(socket, reason)

    def gone(self, socket: Socket, reason: CloseReason) -> None:
        """Called when a socket leaves its namespace."""
        admitted, namespace = socket.connected or socket.away, socket.namespace
        namespace._remove(socket, reason)
        if admitted and socket._waiting:
            # Without a limit, a handler that waits for disconnected() would wait for ever.
            seconds = self.session.settings.closeTimeout
            socket._goodbye = self._namespaces.reactor.callLater(seconds, self._giveUp, socket)
        self._namespaces.socketGone(namespace)

    def _giveUp(self, socket: Socket) -> None:
        """Drop the events of a socket that has left, whose turn has not come."""
        _log.limited(
            "",
            LogLevel.warn,
            "{namespace} {socket}: {count} events of a client that has left are dropped: the handler before "
            "them has not ended within closeTimeout",
            namespace=socket.namespace.path,
            socket=socket.label,
            count=len(socket._waiting),
        )
        self._forgetWaiting(socket)
        self._sayGoodbye(socket)

    def _sayGoodbye(self, socket: Socket) -> None:
        """Tell the application that the socket has left, now that none of its events waits."""
        timer, socket._goodbye = socket._goodbye, None
        if timer is not None and timer.active():
            timer.cancel()
        socket.namespace._tellDisconnected(socket)

    def _forgetWaiting(self, socket: Socket) -> None:
        self._waiting -= len(socket._waiting)
        self._namespaces.counts.eventsWaiting -= len(socket._waiting)
        self._waitingSize -= sum(size for _, size in socket._waiting)
        socket._waiting = ()
        if not self._tooMuchWaits:
            self.session.resume()
