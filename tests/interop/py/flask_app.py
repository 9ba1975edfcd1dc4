"""
A Flask application for the tests of the bridge: `python flask_app.py PORT`, or
`twistd realtime --app flask_app:socketio`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from flask import Flask, request, session

from txrealtime.flask import ConnectionRefusedError, SocketIO, call, disconnect, emit, join_room, rooms

app = Flask(__name__)
app.secret_key = "only for tests"
socketio = SocketIO(
    app,
    ping_interval=1,
    ping_timeout=20,
    message_queue=os.environ.get("QUEUE"),
    async_handlers="ORDERED" not in os.environ,
    handler_threads=int(os.environ.get("THREADS", "64")),
    drainTimeout=1,
    trustedProxies=os.environ.get("TRUSTED", "").split(),
    publicURL=os.environ.get("PUBLIC_URL", ""),
)


@app.get("/")
def page() -> str:
    return f"page in {threading.current_thread().name}"


@app.get("/login")
def login() -> str:
    session["user"] = "ann"
    return ""


@app.post("/announce")
def announce() -> str:
    socketio.emit("announced", request.get_data(as_text=True))
    return ""


@app.get("/slow")
def slow() -> str:
    print("a slow view begins", flush=True)
    time.sleep(0.5)
    return "slow, but here"


@app.get("/stop")
def stopSlowly() -> str:
    socketio.stop()
    return slow()


@app.get("/stuck")
def stuckView() -> str:
    print("a stuck view begins", flush=True)
    threading.Event().wait()
    return ""


@socketio.on("connect")
def connect(auth: Any) -> None:
    if auth == {"user": "nobody"}:
        raise ConnectionRefusedError("who are you?", 7)
    emit("welcome", session.get("user", "stranger"))


@socketio.on("block")
def block(number: int) -> int:
    time.sleep(0.05)
    return number


@socketio.on("echo")
def echo(*args: Any) -> Any:
    return args


@socketio.on("ask")
def ask(question: str, sid: str | None = None) -> Any:
    return call("question", question, to=sid or request.sid, timeout=20)


@socketio.on("acked")
def acked() -> None:
    sid = request.sid

    def answered(answer: Any) -> None:
        emit("was acked", (answer, request.sid == sid))

    emit("question", "callback", callback=answered)


@socketio.on("join")
def join(room: str) -> list[str]:
    join_room(room)
    return [room for room in rooms() if room != request.sid]


@socketio.on("say")
def say(room: str, text: str) -> None:
    emit("said", text, to=room, include_self=False)


@socketio.on("count")
def count(number: int) -> None:
    """Count slowly at first, so that later events may overtake the first."""
    time.sleep(0.3 if number == 0 else 0)
    emit("counted", number)


@socketio.on("thread")
def thread() -> None:
    socketio.start_background_task(socketio.emit, "from a task", to=request.sid)


@socketio.on("wrong thread")
def wrongThread() -> str:
    """Return the error of a call() in the reactor's thread."""

    def wait() -> str:
        try:
            socketio.call("question", to="somebody")
        except RuntimeError as error:
            return str(error)
        return "nothing"

    answer: str = socketio.realtime.blockingCallFromThread(wait)
    return answer


@socketio.on("leave")
def leave() -> None:
    disconnect()


@socketio.on("stuck")
def stuck() -> None:
    emit("is stuck")
    threading.Event().wait()


@socketio.on("stop")
def stop() -> None:
    socketio.stop()


if __name__ == "__main__":
    # No reloads, whatever is edited while the tests run.
    watched = {"exclude_patterns": ["*"]}
    socketio.run(app, port=int(sys.argv[1]), debug="DEBUG" in os.environ, reloader_options=watched)
    print("run has returned")
