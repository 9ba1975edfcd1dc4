"""
The application on python-socketio, served by uvicorn on uvloop; BUS connects it with others by a Redis.
"""

from __future__ import annotations

import os
from typing import Any

import socketio
import uvicorn

bus = os.environ.get("BUS")
manager = socketio.AsyncRedisManager(bus) if bus else None
server = socketio.AsyncServer(async_mode="asgi", http_compression=False, client_manager=manager)


@server.event
async def echo(sid: str, payload: Any) -> Any:
    return payload


@server.event
async def join(sid: str, room: str) -> None:
    await server.enter_room(sid, room)


@server.event
async def broadcast(sid: str, payload: Any) -> None:
    await server.emit("news", payload)


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server),
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        ws_per_message_deflate=False,
        backlog=1024,
        log_level="error",
        access_log=False,
        ssl_keyfile=os.environ.get("KEY"),
        ssl_certfile=os.environ.get("CERT"),
    )
