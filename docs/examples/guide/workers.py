r"""
Several workers behind a load balancer: events of one reach the clients of all, through Redis.

Run it three times, with three ports, and nginx before them, see nginx-three.conf::

    twistd -n realtime --app workers:socketio --listen tcp:5000:interface=127.0.0.1 \
        --trusted-proxy 127.0.0.1
"""

import os

from flask import Flask, request

from txrealtime.flask import SocketIO, emit, join_room

app = Flask(__name__)
socketio = SocketIO(app, message_queue=os.environ.get("QUEUE", "redis://127.0.0.1:6379"))


@app.get("/")
def page():
    return f"worker {os.getpid()}\n"


@app.post("/announce")
def announce():
    """Send the body of the request to everybody, also from a process that serves no Socket.IO."""
    socketio.emit("said", request.get_data(as_text=True))
    return "announced\n"


@socketio.on("who")
def who():
    """Return the worker's process, and the client's address as the worker sees it."""
    return os.getpid(), request.remote_addr


@socketio.on("join")
def join(room):
    join_room(room)


@socketio.on("say")
def say(text, room=None):
    emit("said", text, to=room, broadcast=room is None)


if __name__ == "__main__":
    socketio.run(app, port=5000)
