"""
A Flask application whose clients leave at awkward moments: `python flask_order.py MODULE PORT OPTIONS`.

MODULE is `flask_socketio` or `txrealtime.flask`; OPTIONS are those of SocketIO(), as JSON.  Prints JSON:
for each story, the beginnings and ends of its handlers in order.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from typing import Any

from flask import Flask, request
from websocket import WebSocket, create_connection

module = importlib.import_module(sys.argv[1])
port = int(sys.argv[2])
app = Flask(__name__)
socketio = module.SocketIO(app, **json.loads(sys.argv[3]))
log: list[str] = []
gate = threading.Event()


def note(word: str) -> None:
    log.append(word)


@socketio.on("connect")
def connect(auth: Any) -> Any:
    note("connect begins")
    story = request.args["story"]
    if story == "slow":
        gate.wait(30)
    elif story == "callback":
        module.emit("riddle", 7, callback=lambda answer: note(f"callback {answer}"))
    elif story == "refused":
        gate.wait(30)
        note("connect ends")
        return False
    note("connect ends")
    return None


@socketio.on("disconnect")
def disconnect(reason: str) -> None:
    note("disconnect")


@socketio.on("work")
def work(number: int) -> None:
    note(f"work {number} begins")
    gate.wait(30)
    note(f"work {number} ends")


def until(*words: str) -> None:
    """Wait until all of these were noted."""
    deadline = time.monotonic() + 30
    while not set(words) <= set(log) and time.monotonic() < deadline:
        time.sleep(0.01)


def come(story: str) -> WebSocket:
    for _ in range(300):
        try:
            client = create_connection(
                f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&story={story}", timeout=30
            )
            break
        except OSError:
            time.sleep(0.1)
    client.recv()
    client.send("40")
    return client


def leaveWhileConnecting(story: str, byPacket: bool) -> None:
    client = come(story)
    until("connect begins")
    if byPacket:
        client.send("41")
    client.close()
    time.sleep(0.3)
    gate.set()
    until("disconnect" if story == "slow" else "connect ends")


def leaveWhileWorking() -> None:
    client = come("quick")
    while not client.recv().startswith("40"):
        pass
    client.send('42["work",1]')
    client.send('42["work",2]')
    until("work 1 begins")
    client.close()
    time.sleep(0.3)
    gate.set()
    until("disconnect", "work 2 ends")


def acknowledge() -> None:
    client = come("callback")
    for _ in range(2):
        packet = client.recv()
        if packet.startswith("42"):
            client.send(f"43{packet[2 : packet.index('[')]}[8]")
    until("callback 8")
    client.close()
    until("disconnect")


STORIES = {
    "closes while connecting": lambda: leaveWhileConnecting("slow", False),
    "leaves while connecting": lambda: leaveWhileConnecting("slow", True),
    "is refused after closing": lambda: leaveWhileConnecting("refused", False),
    "closes while working": leaveWhileWorking,
    "acks an event of the connect handler": acknowledge,
}


def play() -> None:
    results = {}
    for name, story in STORIES.items():
        log.clear()
        gate.clear()
        story()
        time.sleep(0.3)
        results[name] = list(log)
    print(json.dumps(results), flush=True)
    os._exit(0)


threading.Thread(target=play, daemon=True).start()
if module.__name__ == "flask_socketio":
    socketio.run(app, port=port, allow_unsafe_werkzeug=True)
else:
    socketio.run(app, port=port)
