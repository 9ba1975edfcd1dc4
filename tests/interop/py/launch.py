"""
`python launch.py PORT PROGRAM [ARGUMENT ...]`: a program for Flask-SocketIO, on a port of the test's choice.

Whatever the program gives run(), it listens on 127.0.0.1 and PORT, without a reloader.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import flask_socketio

port, program = int(sys.argv[1]), sys.argv[2]
run = flask_socketio.SocketIO.run


def runThere(self: Any, app: Any, host: Any = None, port_: Any = None, **options: Any) -> None:
    options |= {"host": "127.0.0.1", "port": port, "use_reloader": False}
    run(self, app, **options)


flask_socketio.SocketIO.run = runThere
del sys.argv[:2]
sys.path.insert(0, str(Path(program).resolve().parent))
runpy.run_path(program, run_name="__main__")
