"""
A shop's stock on Flask-SocketIO and eventlet.
"""

import eventlet

eventlet.monkey_patch()

from eventlet.semaphore import Semaphore  # noqa: E402
from flask import Flask  # noqa: E402
from flask_socketio import SocketIO, emit, join_room  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app, async_mode="eventlet", ping_timeout=20)

stock = {"tea": 200}
sold = 0
printer = Semaphore()  # one label at a time


@app.get("/stock")
def show():
    return {"stock": stock, "sold": sold}


@socketio.on("watch")
def watch(item):
    join_room(item)
    return stock[item]


@socketio.on("buy")
def buy(item):
    global sold
    # Without a lock: eventlet switches only where something waits, and nothing does here.
    if stock[item] == 0:
        return "sold out"
    left = stock[item]
    stock[item] = left - 1
    sold += 1
    emit("left", (item, stock[item]), to=item)
    return "sold"


@socketio.on("print")
def label(text):
    with printer:
        eventlet.sleep(0.01)
        return text.upper()


def restock():
    eventlet.sleep(0.05)
    stock["tea"] += 1
    socketio.emit("left", ("tea", stock["tea"]), to="tea")


@socketio.on("order")
def order():
    eventlet.spawn(restock)


if __name__ == "__main__":
    socketio.run(app, port=5000)
