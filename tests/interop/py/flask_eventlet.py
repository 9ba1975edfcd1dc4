"""
A Flask application in a process that eventlet has patched: `python flask_eventlet.py PORT`.
"""

import sys

import eventlet

eventlet.monkey_patch()

import time  # noqa: E402

from flask import Flask  # noqa: E402

from txrealtime.flask import SocketIO  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app)


@app.get("/slow")
def slow():
    print("a slow view begins", flush=True)
    time.sleep(0.5)
    return "slow, but here"


@socketio.on("echo")
def echo(value):
    return value


socketio.run(app, port=int(sys.argv[1]))
print("run has returned", flush=True)
