"""
The shop's stock on this server: handlers are threads.
"""

import time
from threading import Lock

from flask import Flask

from txrealtime.flask import SocketIO, emit, join_room

app = Flask(__name__)
socketio = SocketIO(app, ping_timeout=20)

stock = {"tea": 200}
sold = 0
selling = Lock()  # threads may switch anywhere
printer = Lock()  # one label at a time


@app.get("/stock")
def show():
    with selling:
        return {"stock": stock, "sold": sold}


@socketio.on("watch")
def watch(item):
    join_room(item)
    return stock[item]


@socketio.on("buy")
def buy(item):
    global sold
    with selling:
        if stock[item] == 0:
            return "sold out"
        left = stock[item]
        stock[item] = left - 1
        sold += 1
        # In the lock, so that the numbers leave in their order.
        emit("left", (item, stock[item]), to=item)
    return "sold"


@socketio.on("print")
def label(text):
    with printer:
        time.sleep(0.01)
        return text.upper()


def restock():
    time.sleep(0.05)
    with selling:
        stock["tea"] += 1
        socketio.emit("left", ("tea", stock["tea"]), to="tea")


@socketio.on("order")
def order():
    socketio.start_background_task(restock)


if __name__ == "__main__":
    socketio.run(app, port=5000)
