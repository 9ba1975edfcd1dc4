"""
Emitting from a process without a server, such as a Celery worker: it needs the queue, and no application.

    python docs/examples/guide/external.py "Dinner is ready"
"""

import os
import sys

from txrealtime.flask import SocketIO

socketio = SocketIO(message_queue=os.environ.get("QUEUE", "redis://127.0.0.1:6379"))

if __name__ == "__main__":
    socketio.emit("said", sys.argv[1])
    for room in sys.argv[2:]:
        socketio.emit("said", f"for {room}", to=room)
