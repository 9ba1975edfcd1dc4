"""
The words of servers about clients that come back: those of a stranger are refused, and do no harm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.buses import TransferStory
from txrealtime.cluster import transfers
from txrealtime.errors import PacketError

ID = "bbbbbbbb01234567890123456789"
SESSION = {
    "id": ID,
    "rooms": ["red"],
    "data": {"a": b"1"},
    "address": "192.0.2.8",
    "had": {"cccccccc": 7},
}
MARK = ["bbbbbbbb", "txrealtime,/", 7]
EVENTS = [
    ["abcdefgh-1", MARK, ['2["a"]']],
    ["abcdefgh-2", None, ['51-["a",{}]', b"x"]],
    ["ab-3", False, ["2[1]"]],
    ["stream-0", ["emitters", "txrealtime,/", "a name"], ["2[1]"]],
]

QUESTIONS: list[list[Any]] = [
    ["claim", "/", "p" * 32, "abcdefgh-1", True, "192.0.2.1"],
    ["take", "/", "p" * 32, None, False, "::1"],
    ["adopt", "/", [["bbbbbbbb0", SESSION], ["bbbbbbbb1", {**SESSION, "id": ID[::-1]}]]],
    ["carry", "/", [["bbbbbbbb0", {"events": EVENTS}], ["bbbbbbbb1", None]]],
]
HISTORY = ["history", "/", "red"]
REPLIES: list[Any] = [
    {**SESSION, "owner": "bbbbbbbb", "parts": 1, "events": []},
    {"moved": "bbbbbbbb", "parts": 1, "events": []},
    {"events": EVENTS, "parts": 2},
    {"events": []},
]
ODD: list[Any] = [
    None, True, 0, -1, 1.5, "", "/", "x" * 301, b"x", [], [1], [[]], {}, {"a": 1}, [["x"]], ["x", {}],
]  # fmt: skip


def variants(value: Any) -> Iterator[Any]:
    """Yield a value with one of its parts replaced by something odd, or left out, for all parts."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        for odd in [*ODD, *variants(value[key])]:
            changed = copy.copy(value)
            changed[key] = odd
            yield changed
        shorter = copy.copy(value)
        del shorter[key]
        yield shorter
    if isinstance(value, list):
        yield [*value, 1]


class WordsTests(SynchronousTestCase):
    def test_whatServersSay(self) -> None:
        for what, *words in QUESTIONS:
            self.assertEqual(
                len(transfers.question(what, words)), len(words) - 2 * (what in ("claim", "take"))
            )
        self.assertEqual(transfers.question("history", HISTORY[1:]), HISTORY[1:])
        for reply in REPLIES:
            self.assertEqual(
                {key: value for key, value in transfers.reply(reply).items() if key in reply},
                {**reply, **({"rooms": ("red",)} if "rooms" in reply else {})},
            )

    def test_unknownQuestion(self) -> None:
        self.assertIsNone(transfers.question("later", [1]))

    def test_odd(self) -> None:
        """Whatever is odd is a PacketError, or has the types that servers send."""
        refused = 0
        for what, *words in QUESTIONS:
            for changed in variants(words):
                try:
                    self.assertIsInstance(transfers.question(what, changed)[0], str)
                except PacketError:
                    refused += 1
        for reply in REPLIES:
            for changed in variants(reply):
                try:
                    self.assertIsInstance(transfers.reply(changed), dict)
                except PacketError:
                    refused += 1
        self.assertGreater(refused, 800)

    def test_refused(self) -> None:
        many = [["p", SESSION]] * (transfers.MOST_TICKETS + 1)
        for what, *words in (
            ["claim", "/", "p", "o", 1, "a"],
            ["claim", "/", "p" * 301, "o", True, "a"],
            ["take", "/", ["p"], "o", True, "a"],
            ["take", "/", "p", "o", True],
            ["adopt", "/", [["p", {**SESSION, "rooms": [1]}]]],
            ["adopt", "/", [["p", {**SESSION, "data": []}]]],
            ["adopt", "/", [["p", {**SESSION, "had": {"cccccccc": "7"}}]]],
            ["adopt", "/", [["p", {**SESSION, "had": {"cccccccc": -1}}]]],
            ["adopt", "/", many],
            ["carry", "/", [["p", {}]]],
            ["history", "/"],
            ["history", "/", 1],
            ["carry", "/", [["p", {"events": [["x", None, ["2[]"]]]}]]],
            ["carry", "/", [["p", {"events": [["x-1", ["a", "b", -1], ["2[]"]]]}]]],
            ["carry", "/", [["p", {"events": [["x-1", None, []]]}]]],
            ["carry", "/", [["p", {"events": [["x-1", None, [1]]]}]]],
        ):
            self.assertRaises(PacketError, transfers.question, what, words)
        for reply in (1, {"moved": 1}, {"id": ID}, {"parts": 0}, {"parts": True}, {"events": [1]}):
            self.assertRaises(PacketError, transfers.reply, reply)


class HarmTests(SynchronousTestCase):
    """A server that hears all of this serves on."""

    def setUp(self) -> None:
        self.story = TransferStory()
        self.addCleanup(self.end)

    def end(self) -> None:
        self.story.server.stopService()
        self.story.turn(20)

    def test_questions(self) -> None:
        for index, question in enumerate([*QUESTIONS, HISTORY]):
            for number, changed in enumerate(variants(question)):
                self.story.hear(b"q", changed)
                if (index + number) % 50 == 0:
                    self.story.play(b"cbbbbbbbb0")
        self.story.turn()
        self.story.look()
        self.assertGreater(self.story.server.cluster.ignored, 300)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_replies(self) -> None:
        """A reply that makes no sense gives the client a fresh session at once."""
        for changed in variants(REPLIES[0]):
            self.story.play(b"cx")
            self.story.hear(b"r", changed)
            self.story.turn()
            self.story.hear(b"r", {"events": EVENTS, "parts": 1})
            self.story.hear(b"r", None)
            self.story.turn(8)
        for changed in variants(EVENTS):
            self.story.play(b"cx")
            self.story.hear(b"r", REPLIES[0])
            self.story.turn()
            self.story.hear(b"r", {"events": changed, "parts": 1})
            self.story.turn(8)
        self.story.look()
        self.assertGreater(self.story.server.cluster.ignored, 100)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_idOfSomebodyElse(self) -> None:
        """A client does not come under the id of another one that is here."""
        id = self.story.bystander.id()
        self.story.hear(b"q", ["adopt", "/", [["bbbbbbbb0", {**SESSION, "id": id}]]])
        self.story.hear(b"q", ["carry", "/", [["bbbbbbbb0", {"events": []}]]])
        self.story.turn()
        self.story.play(b"c0")
        self.assertEqual(len(self.story.server._namespaces.parking), 0)
        self.story.server.to(id).emit("mine")
        self.assertEqual(self.story.bystander.received(), [("mine",)])
