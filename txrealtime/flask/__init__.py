"""
Flask-SocketIO's API on this server: an application changes its import.

::

    from flask import Flask
    from txrealtime.flask import SocketIO, emit

    app = Flask(__name__)
    socketio = SocketIO(app)

    @socketio.on("say")
    def say(text):
        emit("said", text, broadcast=True)
        return "delivered"

    socketio.run(app)

Flask serves HTTP as a WSGI application, in threads; Socket.IO does not pass through WSGI.  Handlers run in
threads of their own and may block.
"""

from txrealtime.flask.client import SocketIOTestClient
from txrealtime.flask.errors import ConnectionRefusedError
from txrealtime.flask.functions import (
    call,
    close_room,
    disconnect,
    emit,
    history,
    join_room,
    leave_room,
    rooms,
    send,
)
from txrealtime.flask.namespace import Namespace
from txrealtime.flask.repeats import once
from txrealtime.flask.socketio import SocketIO

__all__ = [
    "ConnectionRefusedError",
    "Namespace",
    "SocketIO",
    "SocketIOTestClient",
    "call",
    "close_room",
    "disconnect",
    "emit",
    "history",
    "join_room",
    "leave_room",
    "once",
    "rooms",
    "send",
]
