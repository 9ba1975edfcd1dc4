"""
Coming and going: the events connect and disconnect, for each namespace by itself, and how to refuse a client.

    python docs/examples/guide/connecting.py
"""

from flask import Flask, request

from txrealtime.flask import ConnectionRefusedError, SocketIO, disconnect, emit

app = Flask(__name__)
socketio = SocketIO(app)


@socketio.on("connect")
def connect():
    emit("my response", {"data": "connected"})


@socketio.on("disconnect")
def left(reason):
    socketio.emit("left", (request.namespace, reason))


@socketio.on("connect", namespace="/chat")
def connect_to_the_chat(auth):
    """Check the auth of the client; False refuses the client."""
    if not auth or auth.get("token") != "sesame":
        return False
    emit("my response", {"data": 42})


@socketio.on("disconnect", namespace="/chat")
def left_the_chat(reason):
    socketio.emit("left", (request.namespace, reason))


@socketio.on("connect", namespace="/members")
def connect_to_the_members(auth):
    """Refuse every client with a message, and with data."""
    raise ConnectionRefusedError("members only", {"register at": "/register"})


@socketio.on("go away")
def go_away():
    disconnect()


if __name__ == "__main__":
    socketio.run(app, port=5000)
