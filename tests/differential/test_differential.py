"""
Our server and Node's socket.io, side by side: the same conversations, the same answers.

Every difference is intended: differences.py gives the reasons. CONVERSATIONS in the environment is the number
of generated ones, and SEED the start of the random numbers.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.differential import differences
from tests.differential.conversations import BROKEN, MAX_PAYLOAD, MESSAGES, Conversation, Step, generate, play
from tests.differential.peer import Peer, request
from tests.interop.clients import NODE, RealtimeServer, requireJavaScriptClient, requirePythonClient
from tests.support import ROOT, freePort, startProgram

CONVERSATIONS = int(os.environ.get("CONVERSATIONS", "150"))
SEED = int(os.environ.get("SEED", "1"))

URL = "/socket.io/?EIO=4&transport=polling"

REQUESTS: list[tuple[str, str, bytes | None]] = [
    ("GET", "/socket.io/", None),
    ("GET", "/socket.io/?EIO=4", None),
    ("GET", "/socket.io/?EIO=4&transport=x", None),
    ("GET", "/socket.io/?EIO=4&transport=websocket", None),
    ("GET", "/socket.io/?EIO=3&transport=polling", None),
    ("GET", "/socket.io/?transport=polling", None),
    ("GET", URL, None),
    ("HEAD", URL, None),
    ("POST", URL, b"40"),
    ("PUT", URL, b""),
    ("DELETE", URL, None),
    ("GET", URL + "&sid=x", None),
    ("POST", URL + "&sid=x", b"40"),
    ("POST", URL + "&sid={sid}", b"40"),
    ("POST", URL + "&sid={sid}", b"40\x1e40/chat,"),
    ("POST", URL + "&sid={sid}", b"4" * (MAX_PAYLOAD + 1)),
    ("POST", "/socket.io/?EIO=4&transport=websocket&sid={sid}", b"40"),
]
"Method, path with query, body."


class DifferentialTests(TestCase):
    timeout = 60 + CONVERSATIONS * 3

    async def setUp(self) -> None:
        requireJavaScriptClient("socket.io")
        requirePythonClient("websocket")
        self.server = RealtimeServer(
            self,
            "--app",
            "tests.differential.app:server",
            "--allow-eio3",
            "--max-payload",
            str(MAX_PAYLOAD),
        )
        script = str(ROOT / "tests/differential/server.cjs")
        port = freePort()
        node = startProgram(self, [str(NODE), script, "socket.io", str(port), str(MAX_PAYLOAD)])
        await self.server.start()
        await node.whenPrinted("listening")
        self.urls = (self.server.url, f"http://127.0.0.1:{port}")

    async def both(self, conversation: Conversation) -> list[Any]:
        """Return the clients' messages from this server and from Node's."""
        return [await deferToThread(play, conversation, url) for url in self.urls]

    async def assertSame(self, conversation: Conversation, what: str) -> None:
        ours, nodes = await self.both(conversation)
        shown = "\n".join(map(str, conversation.steps))
        self.assertEqual(ours, nodes, f"{what} on {conversation.transports}:\n{shown}")

    async def test_eachMessage(self) -> None:
        """All that may be said at any time, alone."""
        for packets in (*MESSAGES, *BROKEN):
            for transport in ("polling", "websocket", "unprobed"):
                conversation = Conversation((transport,), (Step(0, ("40",), "/"), Step(0, packets)))
                await self.assertSame(conversation, repr(packets))

    async def test_auth(self) -> None:
        """An `auth` that is an object or absent, and any other value of JSON; of null, see differences.py."""
        for auth in (
            "",
            "{}",
            '{"a":1}',
            "true",
            "0",
            "5",
            "-5",
            "1.5",
            '""',
            '"x"',
            "[]",
            '["x"]',
            "{",
            "x",
        ):
            for transport in ("polling", "websocket"):
                steps = (Step(0, (f"40{auth}",), "/"), Step(0, ('421["auth"]',)))
                await self.assertSame(Conversation((transport,), steps), f"auth {auth}")

    async def test_binaryOfEngineIO3(self) -> None:
        """Bytes in base64 as some clients write it, and no bytes at all."""
        for text in ("b4", "b4AAEC/w==", "b4AAEC/w==\n", "b4AAEC\r\n/w==", "b4AAEC_w"):
            packets = ('451-["back",{"_placeholder":true,"num":0}]', text)
            await self.assertSame(Conversation(("polling3",), (Step(0, packets),)), repr(text))
        for transport in ("polling3", "websocket3", "upgrade3", "unprobed3"):
            packets = ('452-1["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', b"", b"x")
            await self.assertSame(Conversation((transport,), (Step(0, packets),)), "no bytes")

    async def test_conversations(self) -> None:
        """Generated conversations: the clients hear the same from both servers."""
        for number in range(CONVERSATIONS):
            seed = f"{SEED}.{number}"
            await self.assertSame(generate(seed), f"conversation {seed}")

    async def test_differences(self) -> None:
        """In a listed difference each server behaves as the list says."""
        for difference in differences.MESSAGES:
            for transport in difference.transports:
                (ours,), (nodes,) = await self.both(difference.conversation(transport))
                what = f"{difference.said} on {transport}: {difference.why}"
                self.assertEqual((ours[2:], nodes[2:]), (difference.ours, difference.nodes), what)

    async def answered(
        self, method: str, target: str, body: bytes | None
    ) -> list[tuple[int, int | None, str]]:
        """The status and the code of both answers, and the message as far as it is the protocol's."""

        def ask(url: str) -> tuple[int, int | None, str]:
            if "{sid}" in target:
                peer = Peer(url, "polling")
                status, text = request(url, method, target.replace("{sid}", peer.sid), body)
                peer.leave()
            else:
                status, text = request(url, method, target, body)
            if text[:1] != "{":
                return status, None, ""
            refused = json.loads(text)
            return status, refused["code"], refused["message"].partition(":")[0]

        return [await deferToThread(ask, url) for url in self.urls]

    async def test_requests(self) -> None:
        """The same refusals; what stands behind a colon is ours."""
        for method, target, body in REQUESTS:
            ours, nodes = await self.answered(method, target, body)
            self.assertEqual(ours, nodes, f"{method} {target}")

    async def test_differencesOfRequests(self) -> None:
        for method, target, body, *expected, why in differences.REQUESTS:
            answers = [answer[:2] for answer in await self.answered(method, target, body)]
            self.assertEqual(answers, expected, f"{method} {target} {body!r}: {why}")

    def test_reasons(self) -> None:
        for difference in (*differences.MESSAGES, *differences.REQUESTS):
            self.assertTrue(difference.why)
