"""
Conversations: what clients say to a server, made up by a generator with a seed, or listed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.differential.peer import Peer

__all__ = ["Conversation", "Step", "generate", "play"]

MAX_PAYLOAD = 20_000

TRANSPORTS = ["polling", "websocket", "upgrade", "polling", "websocket", "upgrade"]
TRANSPORTS += ["polling3", "websocket3", "upgrade3"]
EVENTS = ["echo", "echo", "back", "join", "join", "leave", "rooms", "room", "room's others", "others"]
EVENTS += ["everyone", "except", "auth", "ask"]
ROOMS = ["red", "blue", "Grüße"]


class Step(NamedTuple):
    """
    The next packets of one client.

    :ivar packets: Engine.IO packets.
    :ivar connects: the namespace whose answer must come, if this asks for one.
    :ivar leaves: whether the client is not in ``/`` any more, or about to hear so.
    """

    client: int
    packets: tuple[str | bytes, ...]
    connects: str = ""
    leaves: str = ""


class Conversation(NamedTuple):
    """
    :ivar transports: one for each client.
    """

    transports: tuple[str, ...]
    steps: tuple[Step, ...]


def play(conversation: Conversation, url: str) -> list[list[Any]]:
    """Return the messages that each client got from the server."""
    peers = [Peer(url, transport) for transport in conversation.transports]
    try:
        for step in conversation.steps:
            _take(step, peers[step.client])
            for peer in peers:
                peer.settle()
    finally:
        for peer in peers:
            peer.leave()
    return [peer.got for peer in peers]


def _take(step: Step, peer: Peer) -> None:
    """Send what a step sends, and wait for what can be waited for."""
    peer.send(*step.packets)
    if step.connects and step.connects not in peer.joined:
        peer.readUntil(lambda got: got.type in (0, 4) and got.namespace == step.connects)
    elif step.leaves == "by itself":
        # Node would take a CONNECT that came with the DISCONNECT for a second one.
        peer.roundTrip()
        peer.joined.discard("/")
    elif step.leaves == "by the server":
        peer.readUntil(lambda got: got.type == 1 and got.namespace == "/")


# -- made up -----------------------------------------------------------------------

# What may be said at any time, by clients who know the protocol and by others.
MESSAGES: Sequence[tuple[str | bytes, ...]] = [
    ("41/chat,",),
    ('42["unknown"]',),
    ('42["nothing"]',),
    ('42["1"]',),
    ("421[1,2]",),
    ('42/chat,["echo"]',),
    ('42/nowhere,["echo"]',),
    ('451-["back",{"_placeholder":true,"num":0}]', b"\x00\xff"),
    ('452-7["echo",{"a":[{"_placeholder":true,"num":1}]},{"_placeholder":true,"num":0}]', b"a", b""),
    *(
        ('451-["back",{"_placeholder":true,"num":0}]', data)
        for data in (
            "bAAEC/w==\n",
            "bAAEC\n/w==\n",
            "bAAEC\r\n/w==\r\n",
            "b-_-_",
            "bAAEC/w",
            "bAAEC_w",
            "b",
            "b\n",
        )
    ),
    ("4399[]",),
    ("4399[1,2]",),
    ("3",),
    ("6",),
    ('42["hang up"]',),
    ('42["hang up"]', '42["back"]'),
    ('42["ask",1]',),
]

BROKEN: Sequence[tuple[str | bytes, ...]] = [
    ("4",),
    ("4x",),
    ("47",),
    ("42{}",),
    ("42[]",),
    ("42[null]",),
    ('42["connect"]',),
    ('42["disconnect"]',),
    ('42["echo"',),
    ('42["echo"]x',),
    ('42x["echo"]',),
    ("437{}",),
    ('44{"message":"no"}',),
    ("40[]",),
    ('40"x"',),
    ("40{",),
    ("40",),
    ("41[]",),
    ('45["x"]',),
    ('45-["x"]',),
    ('451-["x",{"_placeholder":true,"num":5}]', b"x"),
    ('451-["x",{"_placeholder":true,"num":"0"}]', b"x"),
    ('451-["x"]', '42["back"]'),
    ('45x-["x"]',),
    (b"nobody announced this",),
    ("7",),
    ("x",),
]


def generate(seed: str) -> Conversation:
    """A conversation; the same for the same seed."""
    choices = random.Random(seed)
    transports = tuple(choices.choice(TRANSPORTS) for _ in range(choices.randint(1, 3)))
    joined = [{"/"} for _ in transports]
    # A client of Engine.IO 3 is in / from the beginning.
    steps = [Step(client, ("40",), "/") for client, name in enumerate(transports) if name[-1] != "3"]
    for _ in range(choices.randint(3, 12)):
        client = choices.randrange(len(transports))
        kind = choices.random()
        if kind < 0.15:
            steps.append(_joining(choices, client, joined[client], transports[client][-1] == "3"))
        elif kind < 0.80:
            packets = [_event(choices, joined[client]) for _ in range(choices.choice([1, 1, 1, 2, 4]))]
            steps.append(Step(client, tuple(packet for event in packets for packet in event)))
        elif kind < 0.85:
            how = choices.choice(["by itself", "by the server"])
            steps.append(Step(client, ("41",) if how == "by itself" else ('42["bye"]',), "", how))
            steps.append(Step(client, ("40",), "/"))
        elif kind < 0.97:
            steps.append(Step(client, choices.choice(MESSAGES)))
        else:
            steps.append(Step(client, choices.choice(BROKEN)))
    return Conversation(transports, tuple(steps))


def _joining(choices: random.Random, client: int, joined: set[str], isOld: bool) -> Step:
    # To what is nowhere, a client of Engine.IO 3 gets another answer: see differences.py.
    known = {"/chat", "/members", "/"} if isOld else {"/chat", "/members", "/nowhere", "/"}
    namespace = choices.choice(sorted(known - joined) or ["/"])
    query, auth = "", choices.choice(["", '{"token":"open sesame"}', '{"token":"x"}', "{}"])
    if isOld:
        query, auth = choices.choice(["", "?token=open%20sesame", "?token=open+sesame", "?token=x", "?"]), ""
    if namespace == "/chat" or (namespace == "/members" and "sesame" in query + auth):
        joined.add(namespace)
    return Step(client, (f"40{namespace}{query},{auth}",), namespace)


def _event(choices: random.Random, joined: set[str]) -> tuple[str | bytes, ...]:
    namespace = choices.choice(["/", *sorted(joined)])
    path = "" if namespace == "/" else f"{namespace},"
    id = choices.choice(["", str(choices.randrange(1000))])
    name = choices.choice(EVENTS)
    attachments: list[bytes] = []
    args = [_value(choices, attachments, 0) for _ in range(choices.randrange(3))]
    if name in ("join", "leave", "room", "room's others", "except"):
        args.insert(0, choices.choice(ROOMS))
    text = json.dumps([name, *args], ensure_ascii=choices.random() < 0.5)
    head = f"45{len(attachments)}-" if attachments else "42"
    return (f"{head}{path}{id}{text}", *attachments)


def _value(choices: random.Random, attachments: list[bytes], depth: int) -> Any:
    kind = choices.randrange(12 if depth < 3 else 9)
    if kind < 3:
        return choices.choice(["", "hello", "Grüße 🎉", '\u2028\0\\"', "x" * 300, "null", "_placeholder"])
    if kind < 6:
        return choices.choice([0, 1, -1, 2**31, 2**53, 1.5, -2.25e-7, 1e21, True, False, None])
    if kind < 8:
        if len(attachments) < 4:
            attachments.append(choices.randbytes(choices.choice([0, 1, 10, 1000])))
            return {"_placeholder": True, "num": len(attachments) - 1}
        return None
    if kind < 9:
        return choices.choice([[], {}])
    items = [_value(choices, attachments, depth + 1) for _ in range(choices.randrange(4))]
    return items if kind < 11 else {choices.choice("abcdé"): item for item in items}
