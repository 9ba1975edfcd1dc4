"""
The application on txrealtime.flask, for ``twistd realtime --app txrealtime_flask:server``.
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from txrealtime.flask import SocketIO, emit, join_room

app = Flask(__name__)
app.secret_key = "only for benchmarks"
server = SocketIO(app, http_compression=False)


@server.on("echo")
def echo(payload: Any) -> Any:
    return payload


@server.on("join")
def join(room: str) -> None:
    join_room(room)


@server.on("broadcast")
def broadcast(payload: Any) -> None:
    emit("news", payload, broadcast=True)
