"""The steps of python-socketio's Client, of version 4 or 5, with the server in tests/interop/app.py.

    python versions.py polling|websocket|upgrade URL [NAME COUNT]

With a name it only meets COUNT clients in a room.  Prints what js/versions.cjs prints.
"""

import json
import os
import sys
import threading
import time
import traceback
from importlib.metadata import version
from urllib.parse import quote

from orderly import Client

TRANSPORT, URL, *MEETING = sys.argv[1:]
SPEAKS = 3 if version("python-socketio").startswith("4.") else 4
TRANSPORTS = ["polling", "websocket"] if TRANSPORT == "upgrade" else [TRANSPORT]
TEXT = "Größe € 日本 𝄞"
NAME = "Zoë & 1/2=½"
NESTED = {"a": b"\0\1\2\xff", "list": [1, {"b": TEXT.encode()}, b"\4"], "none": None}
TIMEOUT = 30
KEPT_INTERVALS = 3

opened = []


class Peer:
    """A client, and what it heard.

    :ivar heard: event name -> the arguments of each event that came.
    """

    def __init__(self, namespace="/"):
        self.client = Client(reconnection=False)
        self.namespace = namespace
        self.path = namespace.partition("?")[0]
        self.heard = {}
        opened.append(self)
        for event in ("connect", "connect_error", "disconnect"):
            self.collect(event)

    def collect(self, event):
        seen = self.heard[event] = []
        # Not what append returns, and None: the client sends an ack of it.
        self.client.on(event, lambda *args: seen.append(args), namespace=self.path)
        return seen

    def connect(self, query="", auth=None):
        options = {} if SPEAKS == 3 else {"auth": auth, "wait": False}
        self.client.connect(URL + query, transports=TRANSPORTS, namespaces=[self.namespace], **options)
        until(lambda: self.heard["connect"] or self.heard["connect_error"])
        assert self.client.eio.transport() == TRANSPORTS[-1]
        return self

    def call(self, event, *args):
        return self.client.call(event, args, namespace=self.path, timeout=TIMEOUT)

    def emit(self, event, *args):
        self.client.emit(event, args, namespace=self.path)

    def close(self):
        if self.client.eio.state == "connected":
            self.client.disconnect()


def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not in {TIMEOUT} s"
        time.sleep(0.002)


def same(actual, expected):
    assert actual == expected, f"{actual!r}, expected {expected!r}"


def connectWithQuery():
    peer = Peer().connect("?name=" + quote(NAME))
    answer = peer.call("handshake")
    same((answer["protocol"], answer["query"]["name"]), (SPEAKS, NAME))
    if SPEAKS == 4:
        auth = {"token": "abc", "name": NAME}
        same(Peer().connect(auth=auth).call("auth"), auth)


def refusal():
    refused = Peer("/guests").connect()
    reason = {"code": 401} if SPEAKS == 3 else {"message": "who are you?", "data": {"code": 401}}
    same((refused.heard["connect"], refused.heard["connect_error"]), ([], [(reason,)]))
    token = {"token": "open sesame"}
    if SPEAKS == 3:
        # Version 4 of the client knows the namespace by its path alone, when it is in.
        admitted = Peer("/guests?token=open%20sesame").connect()
    else:
        admitted = Peer("/guests").connect(auth=token)
    same(admitted.call("echo", "inside"), "inside")


def acks():
    peer = Peer().connect()
    same(peer.call("echo", 1), 1)
    various = (1, "two", None, True, 4.5, ["a", ["b"]], {"c": {"d": None}})
    same(list(peer.call("echo", *various)), list(various))
    peer.client.on("question", lambda *args: ("answer", *args))
    same(list(peer.call("ask", "really?", {"sure": True})), ["answer", "really?", {"sure": True}])


def binary():
    peer = Peer().connect()
    same(list(peer.call("echo", NESTED, b"\7")), [NESTED, b"\7"])
    back = peer.collect("back")
    peer.emit("back", NESTED, TEXT, b"\0")
    until(lambda: back)
    same(back, [(NESTED, TEXT, b"\0")])
    peer.client.on("question", lambda data: {"reversed": data[::-1]})
    same(peer.call("ask", b"\1\2\3"), {"reversed": b"\3\2\1"})


def text():
    peer = Peer().connect()
    same(list(peer.call("echo", TEXT, {TEXT: TEXT})), [TEXT, {TEXT: TEXT}])
    back = peer.collect("Grüße")
    peer.emit("Grüße", TEXT, TEXT.encode())
    until(lambda: back)
    same(back, [(TEXT, TEXT.encode())])
    for awkward in ('\0\x1e\u2028\\n\n"\x7f', TEXT * 10_000, "Ã¤"):
        same(peer.call("echo", awkward), awkward)


def namespaces():
    red, blue = Peer("/red").connect(), Peer("/blue").connect()
    heard = [red.collect("here"), blue.collect("here")]
    same(list(red.call("where", 1)), ["/red", 1])
    same(list(blue.call("where", 2)), ["/blue", 2])
    same(heard, [[("/red", 1)], [("/blue", 2)]])
    red.emit("kick me")
    until(lambda: red.heard["disconnect"])


def disconnects():
    for event in ("kick me", "hang up"):
        peer = Peer().connect()
        peer.emit(event)
        until(lambda peer=peer: peer.heard["disconnect"])
    witness, polite = Peer().connect(), Peer().connect()
    politeId = polite.call("id")
    polite.close()
    # The client closes the transport at once: whether DISCONNECT leaves before that, or CLOSE, is its race.
    reasons = ("client namespace disconnect", "transport close", "ping timeout")
    assert witness.call("farewell", politeId) in reasons


def heartbeat():
    since = time.monotonic()
    peer = Peer().connect()
    interval, timeout = peer.client.eio.ping_interval, peer.client.eio.ping_timeout
    until(lambda: time.monotonic() > since + max(KEPT_INTERVALS * interval, interval + timeout + 0.3))
    same(peer.heard["disconnect"], [])
    same(peer.call("echo", "alive"), "alive")


def meet():
    name, count = MEETING[0], int(MEETING[1])
    peer = Peer()
    heard, complete = peer.collect("heard"), peer.collect("complete")
    peer.connect()

    def words(name):
        return {"from": name, "text": TEXT, "bytes": name.encode(), "deep": [{"bytes": TEXT.encode()}]}

    peer.call("gather", "meeting", count)
    until(lambda: complete)
    peer.emit("tell room", "meeting", words(name))
    until(lambda: len(heard) >= count)
    names = sorted(said["from"] for (said,) in heard)
    same(len(set(names)), count)
    for (said,) in heard:
        same(said, words(said["from"]))
    report(heard=names)


STEPS = {
    "connect with query": connectWithQuery,
    "refusal": refusal,
    "acks": acks,
    "binary": binary,
    "text": text,
    "namespaces": namespaces,
    "disconnects": disconnects,
    "heartbeat": heartbeat,
}


def report(**line):
    print(json.dumps(line), flush=True)


def attempt(step, run):
    try:
        run()
        report(step=step, ok=True)
        return 0
    except Exception:
        report(step=step, ok=False, error=traceback.format_exc())
        return 1
    finally:
        while opened:
            opened.pop().close()


def main():
    if MEETING:
        return attempt("meet", meet)
    failures = sum(attempt(step, run) for step, run in STEPS.items())
    report(ask="freeze", id=Peer().connect().call("id"))
    threading.Event().wait()
    return failures


code = main()
sys.stdout.flush()
os._exit(code)  # whatever threads the client has left
