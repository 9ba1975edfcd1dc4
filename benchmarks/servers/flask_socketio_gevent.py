"""
The application on Flask-SocketIO, served by gevent.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
from typing import Any  # noqa: E402

from flask import Flask  # noqa: E402
from flask_socketio import SocketIO, emit, join_room  # noqa: E402

app = Flask(__name__)
app.secret_key = "only for benchmarks"
server = SocketIO(app, async_mode="gevent", http_compression=False)


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
    files = {"keyfile": os.environ["KEY"], "certfile": os.environ["CERT"]} if "KEY" in os.environ else {}
    server.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), backlog=1024, **files)
