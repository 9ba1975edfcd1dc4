"""
Engine.IO 4: the 25 cases of the official suite, against a server that echoes each message.

They run twice: on a site of the server's own, and with the server as a resource in another site.
"""

from __future__ import annotations

import os

from tests.conformance.sessions import LongWay, ProtocolCase, SessionCases4
from tests.conformance.wire import WebSocket


class EngineIO4Case(ProtocolCase):
    path = "/engine.io"
    host = "/engine.io"


class EngineIO4SessionTests(SessionCases4, EngineIO4Case):
    async def talk(self, websocket: WebSocket) -> None:
        websocket.send("4hello")
        self.assertEqual(await self.next(websocket), "4hello")


class EngineIO4MessageTests(EngineIO4Case):
    # -- By long polling

    async def assertEchoes(self, payload: str) -> None:
        sid = await self.openPolling()
        pushed = await self.push(sid, payload)
        self.assertEqual((pushed.status, pushed.text), (200, "ok"))
        polled = await self.poll(sid)
        self.assertEqual((polled.status, polled.text), (200, payload))

    async def test_pollingOnePacket(self) -> None:
        await self.assertEchoes("4hello")

    async def test_pollingSeveralPackets(self) -> None:
        await self.assertEchoes("4test1\x1e4test2\x1e4test3")

    async def test_pollingTextAndBinary(self) -> None:
        await self.assertEchoes("4hello\x1ebAQIDBA==")

    async def test_pollingBrokenPacketEndsSession(self) -> None:
        sid = await self.openPolling()
        await self.push(sid, "abc")
        await self.assertGone(sid)

    async def test_pollingTwiceAtATimeEndsSession(self) -> None:
        sid = await self.openPolling()
        first = await self.beginPoll(sid)
        second = await self.poll(sid)
        self.assertIn(second.status, (400, 500))
        reply = await first.reply
        self.assertEqual((reply.status, reply.text), (200, "1"))
        await self.assertGone(sid)

    async def test_pollAbortedEndsSession(self) -> None:
        sid = await self.openPolling()
        waiting = await self.beginPoll(sid)
        # The answer to what was asked after the poll shows that the server has the poll.
        await self.openPolling()
        waiting.abort()
        await waiting.lost
        await self.assertGone(sid)

    # -- By WebSocket

    async def test_webSocketText(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("4hello")
        self.assertEqual(await websocket.receive(), "4hello")

    async def test_webSocketBinary(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send(b"\x01\x02\x03\x04")
        self.assertEqual(await websocket.receive(), b"\x01\x02\x03\x04")

    async def test_webSocketBrokenPacketEndsSession(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("abc")
        # At once, before the first heartbeat: a silent client would be dropped anyway.
        self.assertEqual(await websocket.rest(), [])


class EngineIO4ResourceSessionTests(EngineIO4SessionTests):
    host = "/socket.io"


class EngineIO4ResourceMessageTests(EngineIO4MessageTests):
    host = "/socket.io"


class EngineIO4LongWaySessionTests(LongWay, EngineIO4SessionTests):
    pass


class EngineIO4LongWayMessageTests(LongWay, EngineIO4MessageTests):
    pass


class EngineIO4StricterTests(EngineIO4Case):
    """Stricter demands on our own server than the suite's."""

    if "CONFORMANCE_URL" in os.environ:
        skip = "asked of our own server only"

    async def test_closePacketEndsWebSocket(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("1")
        self.assertEqual(await websocket.rest(), [])

    async def test_unknownProtocolVersionIsRefusedBeforeWebSocket(self) -> None:
        websocket = await self.wire.websocket({"transport": "websocket", "EIO": "abc"})
        self.assertEqual((websocket.accepted, websocket.refusal), (False, 400))
