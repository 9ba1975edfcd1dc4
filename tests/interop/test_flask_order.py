"""
One program on Flask-SocketIO and on txrealtime.flask: the order of handlers when clients leave.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from tests.interop.clients import python
from tests.support import ROOT, freePort, startProgram

Stories = dict[str, list[str]]


def comparable(stories: Stories) -> Stories:
    """
    The stories without the differences that are meant: here the disconnect handler waits for all others, and
    events side by side may end in any order.
    """
    return {
        name: [*sorted(word for word in words if word != "disconnect"), *words[-1:]]
        for name, words in stories.items()
    }


class OrderTests(TestCase):
    timeout = 600

    async def play(self, module: str, **options: Any) -> Stories:
        command = python("flask_order.py", module, str(freePort()), json.dumps(options))
        program = startProgram(self, command, environment={"PYTHONPATH": str(ROOT)})
        stories: Stories = json.loads(await program.whenPrinted("{", timeout=240))
        return stories

    async def compare(self, **options: Any) -> Stories:
        theirs = await self.play("flask_socketio", async_mode="threading", **options)
        ours = await self.play("txrealtime.flask", **options)
        for name, words in ours.items():
            self.assertEqual("disconnect" in words, name != "is refused after closing", words)
            self.assertIn(words.count("disconnect"), (0, 1))
            if "disconnect" in words:
                self.assertEqual(words[-1], "disconnect", name)
                theirs[name].remove("disconnect")
                theirs[name].append("disconnect")
        self.assertEqual(comparable(ours), comparable(theirs))
        for name in ("closes while connecting", "leaves while connecting", "is refused after closing"):
            self.assertEqual(ours[name], theirs[name])
        return ours

    async def test_default(self) -> None:
        await self.compare()

    async def test_alwaysConnect(self) -> None:
        await self.compare(always_connect=True)

    async def test_inTurn(self) -> None:
        stories = await self.compare(async_handlers=False)
        work = ["work 1 begins", "work 1 ends", "work 2 begins", "work 2 ends"]
        self.assertEqual(stories["closes while working"][2:], [*work, "disconnect"])
