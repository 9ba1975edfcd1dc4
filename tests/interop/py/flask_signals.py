"""
A Flask application with a signal handler of its own: `python flask_signals.py PORT SIGNAL WAY`.

Its handler prints, and then calls sys.exit(3), raises KeyboardInterrupt, or stops the server.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from flask import Flask

from txrealtime.flask import SocketIO

port, name, way = sys.argv[1:]
app = Flask(__name__)
socketio = SocketIO(app)


def handler(*args: Any) -> None:
    print("own handler", flush=True)
    if way == "exit":
        sys.exit(3)
    elif way == "interrupt":
        raise KeyboardInterrupt
    socketio.stop()


signal.signal(getattr(signal, name), handler)
socketio.run(app, port=int(port))
print("run has returned", flush=True)
try:
    socketio.run(app, port=int(port))
except RuntimeError as error:
    print(error)
