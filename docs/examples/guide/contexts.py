"""
Flask's contexts in handlers: current_app, g, request and session, and the differences from a view.

    python docs/examples/guide/contexts.py
"""

from flask import Flask, current_app, g, jsonify, request, session

from txrealtime.flask import SocketIO

app = Flask(__name__)
app.config["SECRET_KEY"] = "secret!"
socketio = SocketIO(app)
hooks = []


@app.before_request
def before():
    hooks.append(request.path)


@app.after_request
def after(response):
    hooks.append(response.status_code)
    return response


@app.get("/session")
def show():
    return jsonify(dict(session))


@app.post("/session")
def change():
    session.update(request.form)
    return "changed\n"


@app.get("/hooks")
def show_hooks():
    return jsonify(hooks)


@socketio.on("describe")
def describe(*args):
    # g is a new one for each event; request is that of the connection.
    g.count = getattr(g, "count", 0) + 1
    return {
        "app": current_app.name,
        "g": g.count,
        "sid": request.sid,
        "namespace": request.namespace,
        "event": {"message": request.event["message"], "args": list(request.event["args"])},
        "path": request.path,
        "query": request.args.get("colour"),
        "agent": request.headers.get("User-Agent"),
    }


# A copy of the user's session as it was when the client came, which lasts as long as the client: what a
# handler changes, later handlers see, and no view. Only the response to a request can set a cookie, and here
# is none.


@socketio.on("session")
def change_session(changes):
    session.update(changes)
    return dict(session)


if __name__ == "__main__":
    socketio.run(app, port=5000)
