"""
Emits from a process that serves nobody, and tells what that took.

::

    python emit.py txrealtime|python-socketio URL COUNT
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

KIND, URL, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
TEXT = "x" * 64


def emitting() -> Callable[[], None]:
    """Return a function that emits one event to a room."""
    if KIND == "txrealtime":
        from txrealtime import Emitter

        room = Emitter(URL).to("red")
        return lambda: room.emit("news", TEXT)
    import socketio

    manager = socketio.RedisManager(URL, write_only=True)
    return lambda: manager.emit("news", TEXT, room="red")


emit = emitting()
for _ in range(COUNT // 10):
    emit()
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(COUNT):
    emit()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"rate": COUNT / wall, "cpu": cpu / COUNT * 1e6}))
