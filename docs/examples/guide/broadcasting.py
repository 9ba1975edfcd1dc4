"""
Broadcasting: to everybody, from a handler, from a view and from a thread in the background.

    python docs/examples/guide/broadcasting.py
    curl -X POST http://localhost:5000/announce
"""

import threading

from flask import Flask

from txrealtime.flask import SocketIO, emit, send

app = Flask(__name__)
socketio = SocketIO(app)
counting = threading.Lock()


@socketio.on("my event")
def handle_my_event(data):
    emit("my response", data, broadcast=True)


@socketio.on("message")
def handle_message(message):
    send(message, broadcast=True, include_self=False)  # to everybody else


@socketio.on("ask everybody")
def ask_everybody(question):
    # The callback is called once for each client that answers.
    emit("question", question, broadcast=True, callback=lambda answer: emit("answered", answer))


# Outside of a handler there is no client to answer: the methods of the SocketIO object go to everybody.


@app.post("/announce")
def announce():
    socketio.emit("some event", {"data": 42})
    return "announced\n"


def count():
    try:
        for number in range(3):
            socketio.sleep(0.1)
            socketio.emit("count", number)
        socketio.send("done")
    finally:
        counting.release()


@socketio.on("start counting")
def start_counting():
    if not counting.acquire(blocking=False):
        return "counting already"
    socketio.start_background_task(count)
    return "counting"


if __name__ == "__main__":
    socketio.run(app, port=5000)
