"""
A Socket.IO client for Twisted.

::

    from txrealtime.client import Client

    client = Client("http://localhost:8000/chat", auth={"token": "x"})

    @client.on("news")
    def news(text):
        print(text)

    client.setServiceParent(application)

Objects, from the application down to the wire; each owns the next one:

:class:`~txrealtime.client.client.Client`
    the service, and the face of the namespace that the URL names.

:class:`~txrealtime.client.namespace.Namespace`
    one namespace at the server: the buffer of events that wait for a connection, the acks that the
    application waits for, the queue of retries, the state of recovery.  Its
    :class:`~txrealtime.client.handlers.Handlers` call the application, one event at a time and in order.

:class:`~txrealtime.client.connection.Connection`
    the namespaces by path, at most one session at a time, and the delay before the next.  It decodes messages
    into Socket.IO packets and sorts them to the namespaces.

:class:`~txrealtime.client.session.Session`
    one Engine.IO session: the current transport, the WebSocket that is probed during an upgrade, the queue of
    packets, the heartbeat.  A session ends once and is never opened again.

:class:`~txrealtime.client.polling.Polling`, :class:`~txrealtime.client.websocket.WebSocket`
    the transports.  :class:`~txrealtime.client.frames.Frames` is a WebSocket's fast path.
    Both connect through one endpoint of Twisted, which
    :class:`~txrealtime.client.address.Address` makes of the URL and its options (TLS, proxy, Unix socket).

In: transport, ``Connection.messageReceived``, ``Namespace.packetReceived``, handler.  What is no message of a
WebSocket goes through ``Session.packetReceived``.  Out: ``Namespace.emit``, ``Session.sendNow`` or ``send``,
``Transport.send``.
"""

from __future__ import annotations

from txrealtime.client.client import Client
from txrealtime.client.faces import AnyClient, AnyNamespace
from txrealtime.client.handlers import Incoming
from txrealtime.client.namespace import Namespace
from txrealtime.client.settings import ClientSettings

__all__ = ["AnyClient", "AnyNamespace", "Client", "ClientSettings", "Incoming", "Namespace"]
