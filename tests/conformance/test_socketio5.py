"""
Socket.IO 5: the 32 cases of the official suite.

The server has two namespaces, `/` and `/custom`. Each greets with an event `auth` that repeats the payload
of the CONNECT packet; `/` answers `message` by `message-back` and acknowledges `message-with-ack`, with the
arguments that came.
"""

from __future__ import annotations

import json

from twisted.internet import reactor

from tests.conformance.servers import Times
from tests.conformance.sessions import BEATING, ProtocolCase, SessionCases4, timed
from tests.conformance.wire import Closed, WebSocket


class SocketIO5Case(ProtocolCase):
    path = "/socket.io"
    host = "/socket.io"

    async def assertJoins(self, websocket: WebSocket, connect: str, namespace: str, auth: str) -> None:
        """
        Send a CONNECT packet and see the namespace accept it and greet.

        :param namespace: as it stands in the server's packets: nothing for `/`, else with a comma.
        """
        websocket.send(connect)
        accepted = await self.next(websocket)
        self.assertEqual(accepted[: 2 + len(namespace)], f"40{namespace}")
        opening = json.loads(accepted[2 + len(namespace) :])
        self.assertIsInstance(opening.pop("sid"), str)
        self.assertEqual(opening, {})
        self.assertEqual(await self.next(websocket), f'42{namespace}["auth",{auth}]')

    async def join(self) -> WebSocket:
        """A WebSocket session that has joined `/`."""
        websocket = await self.openWebSocket()
        await self.assertJoins(websocket, "40", "", "{}")
        return websocket


class SocketIO5SessionTests(SessionCases4, SocketIO5Case):
    """The session below: what Engine.IO asks, at Socket.IO's path."""

    async def talk(self, websocket: WebSocket) -> None:
        await self.assertJoins(websocket, "40", "", "{}")


class SocketIO5ResourceSessionTests(SocketIO5SessionTests):
    """The same with the server as a resource in another site."""

    host = "/engine.io"


class SocketIO5ConnectTests(SocketIO5Case):
    async def test_mainNamespace(self) -> None:
        await self.assertJoins(await self.openWebSocket(), "40", "", "{}")

    async def test_mainNamespaceWithPayload(self) -> None:
        await self.assertJoins(await self.openWebSocket(), '40{"token":"123"}', "", '{"token":"123"}')

    async def test_customNamespace(self) -> None:
        await self.assertJoins(await self.openWebSocket(), "40/custom,", "/custom,", "{}")

    async def test_customNamespaceWithPayload(self) -> None:
        websocket = await self.openWebSocket()
        await self.assertJoins(websocket, '40/custom,{"token":"abc"}', "/custom,", '{"token":"abc"}')

    async def test_unknownNamespace(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("40/random")
        self.assertEqual(await self.next(websocket), '44/random,{"message":"Invalid namespace"}')

    async def test_brokenPacketBeforeConnect(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("4abc")
        self.assertEqual(await websocket.rest(), [])

    @timed(Times(pingTimeout=3.0, connectTimeout=1.0))
    async def test_noConnect(self) -> None:
        websocket = await self.openWebSocket()
        opened = reactor.seconds()
        # The heartbeats are answered: it is for the missing CONNECT that the server closes.
        with self.assertRaises(Closed):
            await self.next(websocket)
        self.assertGreater(reactor.seconds() - opened, self.times.connectTimeout / 2)


class SocketIO5DisconnectTests(SocketIO5Case):
    @timed(BEATING)
    async def test_mainNamespace(self) -> None:
        websocket = await self.join()
        websocket.send("41")
        # No answer, and the session goes on.
        self.assertEqual(await websocket.receive(), "2")

    async def test_customNamespaceOnly(self) -> None:
        websocket = await self.join()
        await self.assertJoins(websocket, "40/custom", "/custom,", "{}")
        websocket.send("41/custom", '42["message","still here?"]')
        self.assertEqual(await self.next(websocket), '42["message-back","still here?"]')


class SocketIO5MessageTests(SocketIO5Case):
    async def assertAnswers(self, sent: list[str | bytes], expected: list[str | bytes]) -> None:
        websocket = await self.join()
        websocket.send(*sent)
        self.assertEqual([await self.next(websocket) for _ in expected], expected)

    async def test_text(self) -> None:
        await self.assertAnswers(
            ['42["message",1,"2",{"3":[true]}]'],
            ['42["message-back",1,"2",{"3":[true]}]'],
        )

    async def test_binary(self) -> None:
        placeholders = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'
        await self.assertAnswers(
            [f'452-["message",{placeholders}]', b"\x01\x02\x03", b"\x04\x05\x06"],
            [f'452-["message-back",{placeholders}]', b"\x01\x02\x03", b"\x04\x05\x06"],
        )

    async def test_textWithAck(self) -> None:
        await self.assertAnswers(
            ['42456["message-with-ack",1,"2",{"3":[false]}]'],
            ['43456[1,"2",{"3":[false]}]'],
        )

    async def test_binaryWithAck(self) -> None:
        placeholders = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'
        await self.assertAnswers(
            [f'452-789["message-with-ack",{placeholders}]', b"\x01\x02\x03", b"\x04\x05\x06"],
            [f"462-789[{placeholders}]", b"\x01\x02\x03", b"\x04\x05\x06"],
        )

    async def assertCloses(self, packet: str) -> None:
        websocket = await self.join()
        websocket.send(packet)
        # At once, before the first heartbeat: a silent client would be dropped anyway.
        self.assertEqual(await websocket.rest(), [])

    async def test_unknownPacketType(self) -> None:
        await self.assertCloses("4abc")

    async def test_eventWithoutName(self) -> None:
        await self.assertCloses("42{}")

    async def test_brokenAckId(self) -> None:
        await self.assertCloses('42abc["message-with-ack",1,"2",{"3":[false]}]')
