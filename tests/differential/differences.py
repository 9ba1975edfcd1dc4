"""
The one list of intended differences from Node's socket.io, with their reasons.

What is not listed must be the same, and what is listed must be as it is listed; test_differential.py holds
both.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tests.differential.conversations import Conversation, Step
from tests.differential.peer import Got

__all__ = ["MESSAGES", "REQUESTS", "Difference", "RequestDifference"]

_URL: Final = "/socket.io/?EIO=4&transport=polling"

_CLOSED: Final = ["closed"]
_NOTHING: Final[list[Any]] = []


class Difference(NamedTuple):
    """
    :ivar said: what a client in ``/`` sends: packets, or steps.
    :ivar ours: what it gets here.
    :ivar nodes: what it gets from Node's server.
    """

    said: tuple[str | bytes, ...] | tuple[Step, ...]
    ours: list[Any]
    nodes: list[Any]
    why: str
    transports: tuple[str, ...] = ("polling", "websocket", "upgrade")

    def conversation(self, transport: str) -> Conversation:
        """One in which it shows."""
        steps = self.said if isinstance(self.said[0], Step) else (Step(0, self.said),)
        joining = () if transport[-1] == "3" else (Step(0, ("40",), "/"),)
        return Conversation((transport,), (*joining, *steps))


MESSAGES: Final = [
    Difference(
        ("42",),
        _CLOSED,
        _NOTHING,
        "an event without data: the protocol demands an array with a name. Node drops it without a word, and "
        "a client that is so wrong would never find out",
    ),
    Difference(("43",), _CLOSED, _NOTHING, "an ack without data and id: as an event without data"),
    Difference(
        ("43[]",), _CLOSED, _NOTHING, "an ack without an id answers nothing: as an event without data"
    ),
    Difference(
        ("1",),
        _CLOSED,
        _NOTHING,
        "a CLOSE packet ends a session on any transport here, and on Node over long polling only",
        ("websocket", "upgrade"),
    ),
    Difference(
        (
            Step(0, ('42["bye"]',), "", "by the server"),
            Step(0, ('421["echo"]',)),
            Step(0, ("40",), "/"),
        ),
        [Got(1, "/", None, None, ()), Got(0, "/", None, ["sid"], ())],
        [Got(1, "/", None, None, ()), "closed"],
        "what a client sends to a namespace before it knows that the server has disconnected it there is "
        "ignored; Node ends the connection, with all other namespaces",
    ),
    Difference(
        (Step(0, ("40/chat,null",), "/chat"),),
        [Got(0, "/chat", None, ["sid"], ())],
        _CLOSED,
        "an auth of null is as good as none: so it is for python-socketio's server, and in MessagePack, "
        "where undefined comes as null; Node ends the connection",
    ),
    Difference(
        (Step(0, ("40/nowhere,",), "/nowhere"),),
        [Got(4, "/nowhere", None, "Invalid namespace", ())],
        [Got(4, "/nowhere", None, {"message": "Invalid namespace"}, ())],
        "a client of Socket.IO 2 expects the text alone, which Node's servers of that time sent",
        ("polling3", "websocket3", "upgrade3"),
    ),
]


class RequestDifference(NamedTuple):
    """
    :ivar method: of a request, with `target` and `body`.
    :ivar ours: status and code here; the code is None where the answer is no refusal.
    :ivar nodes: those of Node's server.
    """

    method: str
    target: str
    body: bytes | None
    ours: tuple[int, int | None]
    nodes: tuple[int, int | None]
    why: str


REQUESTS: Final = [
    RequestDifference(
        "OPTIONS",
        _URL,
        None,
        (204, None),
        (400, 2),
        "a preflight is answered without the setting that Node calls cors, and allows nothing without it",
    ),
    RequestDifference(
        "GET",
        "/socket.io/?EIO=5&transport=polling",
        None,
        (400, 5),
        (200, None),
        "a version that does not exist is refused; with allowEIO3, Node takes whatever is not 4 for 3",
    ),
    RequestDifference(
        "GET",
        "/socket.io?EIO=4&transport=polling&sid=x",
        None,
        (400, 1),
        (404, None),
        "the slash at the end of the path may be left out, as anywhere in twisted.web",
    ),
    RequestDifference(
        "GET",
        _URL + "&x=" + "x" * 20_000,
        None,
        (431, 3),
        (431, None),
        "a refusal has a body that says which limit it is about",
    ),
    RequestDifference(
        "GET",
        _URL + "&j=x",
        None,
        (400, 3),
        (200, None),
        "the index of JSONP must be a number, because the answer repeats it; Node takes the digits out of it",
    ),
    *(
        RequestDifference(
            "POST",
            _URL + "&sid={sid}",
            body,
            (400, 3),
            (200, None),
            "a body that is no payload is refused, and ends the session; Node says ok, and ends it then",
        )
        for body in (b"", b"40\x1e", b"\x1e40", b"7", b"\xff")
    ),
]
