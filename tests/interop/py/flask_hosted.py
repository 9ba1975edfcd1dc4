"""
A Flask application that another WSGI server serves: ``python flask_hosted.py SERVER PORT``.
"""

import sys

SERVER = sys.argv[1] if len(sys.argv) == 3 else ""
if SERVER == "gevent":
    from gevent import monkey

    monkey.patch_all()

from flask import Flask, request  # noqa: E402

from txrealtime.flask import SocketIO, call, emit  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app)


@app.get("/")
def page():
    socketio.emit("news", "from a view")
    return "a page"


@socketio.on("connect")
def came(auth):
    emit("welcome", auth)


@socketio.on("disconnect")
def left(reason):
    print(f"left: {reason}", flush=True)


@socketio.on("echo")
def echo(*values):
    return values


@socketio.on("ask")
def ask():
    return call("riddle", 7, to=request.sid)


def serve(port):
    """Serve until the process ends."""
    if SERVER.startswith("gevent"):
        from gevent.pywsgi import WSGIServer

        WSGIServer(("127.0.0.1", port), app).serve_forever()
    elif SERVER == "waitress":
        import waitress

        waitress.serve(app, host="127.0.0.1", port=port, threads=8)
    else:
        from werkzeug.serving import make_server

        make_server("127.0.0.1", port, app, threaded=SERVER == "werkzeug").serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[2]))
