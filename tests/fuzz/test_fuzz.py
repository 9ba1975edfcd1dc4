"""
The inputs that fuzzing begins with and those it has found; and, where the fuzzer is there, a little fuzzing.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import given, settings, st
from tests.fuzz.__main__ import fuzz
from tests.fuzz.connections import CONNECTIONS, Story, play
from tests.fuzz.seeds import FOUND, SEEDS, WORDS
from tests.fuzz.targets import TARGETS
from tests.support import requirePart
from txrealtime.engineio import packet
from txrealtime.socketio.connection import Connection

SECONDS = 3
"For each target; `scripts/fuzz` gives them more."


class InputTests(SynchronousTestCase):
    def test_allTargets(self) -> None:
        self.assertEqual(set(SEEDS), set(TARGETS))
        self.assertEqual(set(WORDS), set(TARGETS))
        self.assertLessEqual(set(FOUND), set(TARGETS))

    def test_seeds(self) -> None:
        for name, inputs in SEEDS.items():
            for data in (b"", *inputs):
                TARGETS[name](data)

    def test_found(self) -> None:
        for name, inputs in FOUND.items():
            for data in inputs:
                TARGETS[name](data)


steps = st.one_of(
    st.sampled_from(
        sorted({line for name in CONNECTIONS for data in SEEDS[name] for line in data.split(b"\n")})
    ),
    st.sampled_from([b"a", b"c", b"g", b"k", b"r", b"s", b"t2probe", b"t5", b"t40", b"p40", b"w\xff", b"U"]),
    st.binary(max_size=20),
)


class StoryTests(SynchronousTestCase):
    @settings(max_examples=300)
    @given(st.sampled_from(sorted(CONNECTIONS)), st.lists(steps, max_size=20))
    def test_anythingInAnyOrder(self, name: str, story: list[bytes]) -> None:
        """Whole connections, on any transport and of any version, at random and without the fuzzer."""
        CONNECTIONS[name](b"\n".join(story))


class HonestyTests(SynchronousTestCase):
    """The targets notice what they are there for."""

    STORY = b'W\nt40\nt421["wait"]\nt422["echo"]\na'

    def test_raising(self) -> None:
        class Broken(dict):
            def get(self, key: str) -> None:
                raise KeyError(key)

        self.patch(packet, "_BY_DIGIT", Broken())
        self.assertRaises(KeyError, TARGETS["engineio4"], b"4")

    def test_failureInTheLog(self) -> None:
        def dispatch(*args: object) -> None:
            raise RuntimeError

        self.patch(Connection, "_handle", dispatch)
        self.assertRaises(AssertionError, play, self.STORY)
        self.flushLoggedErrors(RuntimeError)

    def test_leftovers(self) -> None:
        self.patch(Connection, "_cancelTimer", lambda self: None)
        self.assertRaises(AssertionError, play, self.STORY)

    def test_anotherClient(self) -> None:
        story = Story()
        story.bystander.close()
        self.assertRaises(AssertionError, story.look)

    def test_whatClientsGet(self) -> None:
        story = Story()
        for data in (
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n\xc1\x00",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x02\x03\xee",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x02\x03\xe8\x81\x014",
        ):
            self.assertRaises(AssertionError, story.read, data)


class FuzzTests(SynchronousTestCase):
    def test_briefly(self) -> None:
        """All targets, each for seconds; `scripts/fuzz` has more patience."""
        requirePart(find_spec("atheris"), "no atheris: pip install --group fuzz, where there is a wheel")
        folder = Path(self.mktemp()).resolve()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(lambda name: fuzz(name, SECONDS, folder, seed=1), TARGETS))
        for outcome in outcomes:
            self.assertEqual(outcome.failure, "", outcome.target)
            self.assertGreater(outcome.runs, 50, outcome)
            self.assertGreater(outcome.places, 10, outcome)
