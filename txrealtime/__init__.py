"""
txrealtime: a Socket.IO server for Twisted.

::

    from txrealtime import Server

    server = Server()

    @server.on("say")
    def say(socket, text):
        server.emit("said", socket.id, text)
        return "delivered"

The server is a service, and ``server.resource()`` goes into a ``twisted.web`` site.  ``twistd -n realtime
--app module:server`` runs it alone.
"""

from txrealtime._version import __version__
from txrealtime.cluster.emitter import DeferredEmitter, Emitter
from txrealtime.cluster.once import once
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import (
    AckTimeout,
    ArgumentsMismatch,
    BusError,
    ConnectionRejected,
    Disconnected,
    HandshakeError,
    LimitExceeded,
    PacketError,
    PayloadTooLarge,
    ProtocolError,
    RealtimeError,
    TransportError,
    TryAgain,
)
from txrealtime.server import Server, Settings
from txrealtime.socketio.audience import Audience, Person
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.hooks import Watcher
from txrealtime.socketio.namespace import Incoming, Namespace, on
from txrealtime.socketio.packet import IParser
from txrealtime.socketio.past import PastEvent
from txrealtime.socketio.presence import Presence, Present
from txrealtime.socketio.sockets import Socket

__all__ = [
    "AckTimeout",
    "ArgumentsMismatch",
    "Audience",
    "BusError",
    "CloseReason",
    "ConnectionRejected",
    "DeferredEmitter",
    "Disconnected",
    "Emitter",
    "Handshake",
    "HandshakeError",
    "IParser",
    "Incoming",
    "LimitExceeded",
    "Namespace",
    "PacketError",
    "PastEvent",
    "PayloadTooLarge",
    "Person",
    "Presence",
    "Present",
    "ProtocolError",
    "RealtimeError",
    "Server",
    "Settings",
    "Socket",
    "TransportError",
    "TryAgain",
    "Watcher",
    "__version__",
    "on",
    "once",
]
