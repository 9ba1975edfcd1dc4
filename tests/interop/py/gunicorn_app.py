"""
A Flask application for gunicorn.
"""

import os
import time

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from txrealtime.flask import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app)
wrapped = ProxyFix(app)
bare = Flask(__name__)


@app.get("/")
def page():
    return f"{os.getpid()} {request.scheme} {request.remote_addr}"


@app.get("/slow")
def slow():
    print("a slow view begins", flush=True)
    time.sleep(1)
    return "slow, but here"


@app.get("/block")
def block():
    """Block the reactor's thread, as no application should."""
    socketio.realtime.callFromThread(time.sleep, 60)
    return "blocked"


@socketio.on("who")
def who():
    # Longer than --timeout of the test: a handler may block.
    time.sleep(float(os.environ.get("HANDLER_SECONDS", "0")))
    emit("said", "before the ack")
    return os.getpid()


@socketio.on("disconnect")
def gone(reason):
    emit("said", "somebody has gone", broadcast=True)
    print(f"handler: {reason}", flush=True)
