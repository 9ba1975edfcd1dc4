"""
Sessions on the server, by Flask-Session: handlers and views see each other's changes.

    pip install flask-session cachelib
    python docs/examples/guide/shared_session.py
"""

import tempfile

from cachelib.file import FileSystemCache
from flask import Flask, jsonify, request, session
from flask_session import Session

from txrealtime.flask import SocketIO

app = Flask(__name__)
app.config["SECRET_KEY"] = "secret!"
app.config["SESSION_TYPE"] = "cachelib"
app.config["SESSION_CACHELIB"] = FileSystemCache(tempfile.mkdtemp())
Session(app)
socketio = SocketIO(app, manage_session=False)


@app.get("/session")
def show():
    return jsonify(dict(session))


@app.post("/session")
def change():
    session.update(request.form)
    return "changed\n"


@socketio.on("session")
def change_session(changes):
    session.update(changes)
    return dict(session)


if __name__ == "__main__":
    socketio.run(app, port=5000)
