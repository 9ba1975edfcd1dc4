"""
Clients of python-socketio whose connections end in many ways, as js/lastwords.cjs::

    python lastwords.py URL SLOW CELL...

If SLOW is "slow", the process stops for a second, in the middle of which the server does what ends
connections.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import quote

from orderly import Client

LARGE = "x" * 150_000
SETTLED = 2.0
LONGEST = 90.0

url, slow, *cells = sys.argv[1:]
heard: dict[str, list[str]] = {cell: [] for cell in cells}
last = time.monotonic()


def client(cell: str) -> Callable[[], None]:
    """Connect a client, and return a function that begins its end."""
    end, transport = cell.split(":")
    sio = Client(reconnection=False)

    def hear(what: str) -> None:
        global last
        heard[cell].append(what)
        last = time.monotonic()

    @sio.event
    def note(number: int) -> None:
        hear(f"note {number}")

    @sio.event
    def flood(text: str) -> None:
        global last
        last = time.monotonic()

    @sio.event
    def disconnect(reason: str) -> None:
        hear(f"disconnect: {reason}")

    sio.on("connect_error", lambda error: hear(f"refused: {error['message']}"), namespace="/closed")
    namespaces = ["/", "/closed"] if end == "refused" else ["/"]
    name = quote(f"{os.environ['NAME']}:{cell}")
    sio.connect(f"{url}?name={name}", transports=[transport], namespaces=namespaces, wait=False)
    while "/" not in sio.namespaces:
        time.sleep(0.01)

    def begin() -> None:
        if end in ("close", "leave", "flood"):
            sio.emit("end", (end, 0.5 if slow == "slow" else 0))
            return
        if end in ("refused", "stop"):
            return
        for number in range(3):
            sio.emit("note", number)
        # Its own thread sends; what that has not sent when the client closes is lost.
        while sio.eio.queue.unfinished_tasks and sio.eio.state == "connected":
            time.sleep(0.01)
        time.sleep(0.3)
        if end == "client closes":
            sio.disconnect()
        elif end == "violation":
            sio.eio.send("x")
        elif end == "too large":
            sio.emit("note", (3, LARGE))

    return begin


begins = [client(cell) for cell in cells]
threads = [threading.Thread(target=begin) for begin in begins]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
stops = any(cell.startswith("stop:") for cell in cells)
if stops:
    print("READY", flush=True)
if slow == "slow":
    time.sleep(0.02)
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)
last = began = time.monotonic()
# Each has an end; after the last one nothing more may come.
while time.monotonic() - began < LONGEST and (
    time.monotonic() - last < SETTLED or not all(any(": " in word for word in heard[cell]) for cell in cells)
):
    time.sleep(0.05)
print(f"RESULT {json.dumps(heard)}", flush=True)
os._exit(0)
