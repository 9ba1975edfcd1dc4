"""
`python flask_scenario.py URL [OTHER]`: a client of flask_app.py, and one more of it or of another server.

Prints one line of JSON for each step, as the other scenarios do.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import requests
import socketio
from orderly import Client


class Person:
    """
    A client, and what it has got.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.got: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.client = Client(reconnection=False)
        self.client.on("*", lambda *event: self.got.put(event))
        self.client.on("question", lambda text: f"{text}!")
        self.client.connect(url, wait_timeout=30, **options)

    def next(self, timeout: float = 30) -> tuple[Any, ...]:
        return self.got.get(timeout=timeout)

    def call(self, *event: Any) -> Any:
        return self.client.call(event[0], event[1:], timeout=30)


def expect(what: object, wanted: object) -> None:
    if what != wanted:
        raise AssertionError(f"got {what!r}, expected {wanted!r}")


def pages(url: str, other: str) -> None:
    """Flask answers beside it, in the threads of the reactor's pool."""
    text = requests.get(url, timeout=30).text
    assert text.startswith("page in view-"), text


def session(url: str, other: str) -> None:
    """A client has the session that its cookie stands for."""
    browser = requests.Session()
    browser.get(f"{url}/login", timeout=30)
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    for transport in ("polling", "websocket"):
        ann = Person(url, transports=[transport], headers={"Cookie": cookie})
        expect(ann.next(), ("welcome", "ann"))
        ann.client.disconnect()


def refusal(url: str, other: str) -> None:
    """A refused client hears the reason."""
    told: queue.Queue[Any] = queue.Queue()
    client = Client(reconnection=False)
    client.on("connect_error", told.put)
    try:
        client.connect(url, auth={"user": "nobody"}, wait_timeout=30)
    except socketio.exceptions.ConnectionError:
        expect(told.get(timeout=30), {"message": "who are you?", "data": 7})
    else:
        raise AssertionError("let in")


def talk(url: str, other: str) -> None:
    """Events with bytes, acks both ways, callbacks, background tasks."""
    ann = Person(url)
    expect(ann.next(), ("welcome", "stranger"))
    expect(ann.call("echo", 1, b"two", {"three": [b"3"]}), (1, b"two", {"three": [b"3"]}))
    expect(ann.call("ask", "really?"), "really?!")
    ann.client.emit("acked")
    expect(ann.next(), ("was acked", "callback!", True))
    ann.client.emit("thread")
    expect(ann.next(), ("from a task",))
    assert "would wait for itself for ever" in ann.call("wrong thread")
    ann.client.disconnect()


def rooms(url: str, other: str) -> None:
    """Those in a room hear each other, on one server or two, and a view reaches everybody."""
    ann, bob = Person(url), Person(other)
    expect([ann.next(), bob.next()], [("welcome", "stranger")] * 2)
    expect([ann.call("join", "red"), bob.call("join", "red")], [["red"], ["red"]])
    ann.client.emit("say", ("red", "hello"))
    expect(bob.next(), ("said", "hello"))
    requests.post(f"{other}/announce", data="dinner", timeout=30)
    expect([ann.next(), bob.next()], [("announced", "dinner")] * 2)
    expect(ann.call("ask", "there?", bob.client.get_sid()), "there?!")
    ann.client.emit("leave")
    ann.client.wait()
    bob.client.disconnect()


def main(url: str, other: str) -> None:
    for step in (pages, session, refusal, talk, rooms):
        error = None
        try:
            step(url, other)
        except Exception as failure:
            error = repr(failure)
        print(json.dumps({"step": step.__name__, "ok": error is None, "error": error}), flush=True)


main(sys.argv[1], sys.argv[-1])
