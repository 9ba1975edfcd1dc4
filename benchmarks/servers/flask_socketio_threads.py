"""
The application on Flask-SocketIO in threads, served by Werkzeug, which is all that it has for them.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from flask import Flask
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
app.secret_key = "only for benchmarks"
server = SocketIO(app, async_mode="threading", http_compression=False)


@server.on("echo")
def echo(payload: Any) -> Any:
    return payload


@server.on("join")
def join(room: str) -> None:
    join_room(room)


@server.on("broadcast")
def broadcast(payload: Any) -> None:
    emit("news", payload, broadcast=True)


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), allow_unsafe_werkzeug=True)
