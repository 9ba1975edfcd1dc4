"""
Engine.IO 3: the 23 cases of the official suite, against a server that echoes each message, and more.

The cases run twice: on a site of the server's own, and with the server as a resource in another site.
"""

from __future__ import annotations

import json
import os
import re

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.conformance.servers import ProtocolServers
from tests.conformance.sessions import BEATING, SLACK, ProtocolCase, SessionCases, timed
from tests.conformance.wire import Reply, WebSocket

BYTES = bytes([1, 2, 3, 4])
TEXT_AND_BYTES = "6:4hello10:b4AQIDBA=="
"A text message and one of BYTES in base64, as a payload."

FORM = "application/x-www-form-urlencoded"


class EngineIO3Case(ProtocolCase):
    path = "/engine.io"
    host = "/engine.io"
    version = "3"

    def servers(self) -> ProtocolServers:
        return ProtocolServers(allowEIO3=True, times=self.times)

    def framed(self, *packets: str) -> str:
        # Packets are as long as JavaScript says that strings are.
        return "".join(f"{len(packet.encode('utf-16-le')) // 2}:{packet}" for packet in packets)

    def unframed(self, reply: Reply) -> str:
        packet = reply.text.partition(":")[2]
        self.assertEqual((reply.status, reply.text), (200, self.framed(packet)))
        return packet

    async def openPollingWith(self, **query: str) -> str:
        """Open a session by long polling, with more in the first query; its id."""
        reply = await self.wire.request("GET", {**self.query("polling"), **query})
        return self.opened(self.unframed(reply))["sid"]

    async def pushed(self, sid: str, payload: str | bytes) -> None:
        """Send packets, and see them accepted."""
        reply = await self.push(sid, payload)
        self.assertEqual((reply.status, reply.text), (200, "ok"))

    async def assertPolled(self, sid: str, payload: str | bytes) -> None:
        """See what a poll brings."""
        body = payload.encode() if isinstance(payload, str) else payload
        reply = await self.poll(sid)
        self.assertEqual((reply.status, reply.body), (200, body))


class EngineIO3SessionTests(SessionCases, EngineIO3Case):
    async def talk(self, websocket: WebSocket) -> None:
        websocket.send("4hello")
        self.assertEqual(await websocket.receive(), "4hello")

    # -- Heartbeat

    async def test_pollingHeartbeat(self) -> None:
        sid = await self.openPolling()
        for _ in range(3):
            await self.pushed(sid, "1:2")
            await self.assertPolled(sid, "1:3")

    async def test_webSocketHeartbeat(self) -> None:
        websocket = await self.openWebSocket()
        for _ in range(3):
            websocket.send("2")
            self.assertEqual(await websocket.receive(), "3")

    @timed(BEATING)
    async def test_silentPollingClientIsDropped(self) -> None:
        sid = await self.openPolling()
        await deferLater(reactor, self.times.pingInterval + self.times.pingTimeout + SLACK)
        self.assertEqual((await self.push(sid, "1:2")).status, 400)

    @timed(BEATING)
    async def test_silentWebSocketClientIsDropped(self) -> None:
        websocket = await self.openWebSocket()
        self.assertEqual(await websocket.rest(), [])


class EngineIO3MessageTests(EngineIO3Case):
    # -- By long polling

    async def assertEchoes(self, payload: str) -> None:
        sid = await self.openPollingWith(b64="1")
        await self.pushed(sid, payload)
        await self.assertPolled(sid, payload)

    async def test_pollingOnePacket(self) -> None:
        await self.assertEchoes("6:4hello")

    async def test_pollingSeveralPackets(self) -> None:
        await self.assertEchoes("6:4test16:4test26:4test3")

    async def test_pollingTextAndBase64(self) -> None:
        await self.assertEchoes(TEXT_AND_BYTES)

    async def test_pollingTextAndBinary(self) -> None:
        # Who did not ask for base64 gets bytes, however it sends its own.
        sid = await self.openPolling()
        await self.pushed(sid, TEXT_AND_BYTES)
        await self.assertPolled(sid, b"\x00\x06\xff4hello\x01\x05\xff\x04" + BYTES)

    async def test_pollingBrokenPacketEndsSession(self) -> None:
        sid = await self.openPolling()
        await self.push(sid, "abc")
        await self.assertGone(sid)

    # -- By WebSocket

    async def test_webSocketText(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("4hello")
        self.assertEqual(await websocket.receive(), "4hello")

    async def test_webSocketBinary(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send(b"\x04" + BYTES)
        self.assertEqual(await websocket.receive(), b"\x04" + BYTES)

    async def test_webSocketBrokenPacketEndsSession(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("abc")
        # At once, before it is dropped for being silent.
        started = reactor.seconds()
        self.assertEqual(await websocket.rest(), [])
        self.assertLess(reactor.seconds() - started, self.times.pingInterval)


class EngineIO3ResourceSessionTests(EngineIO3SessionTests):
    host = "/socket.io"


class EngineIO3ResourceMessageTests(EngineIO3MessageTests):
    host = "/socket.io"


class EngineIO3BeyondTests(EngineIO3Case):
    """Needs of clients of version 3 that the suite does not test. Node's server passes these too."""

    async def test_bothVersionsOnOneServer(self) -> None:
        await self.openPolling()
        reply = await self.wire.request("GET", {"EIO": "4", "transport": "polling"})
        self.assertEqual(reply.text[:1], "0")

    async def test_missingVersionIsThree(self) -> None:
        reply = await self.wire.request("GET", {"transport": "polling"})
        self.opened(self.unframed(reply))

    async def test_otherVersionOfSessionIsRefused(self) -> None:
        sid = await self.openPolling()
        query = {"EIO": "4", "transport": "polling", "sid": sid}
        self.assertEqual((await self.wire.request("GET", query)).status, 400)

    async def test_lengthsAreThoseOfJavaScript(self) -> None:
        sid = await self.openPollingWith(b64="1")
        await self.pushed(sid, "7:4€🎉éhi2:4x")
        await self.assertPolled(sid, "7:4€🎉éhi2:4x")

    async def test_binaryBody(self) -> None:
        # Lengths are in bytes here, of text too.
        body = b"\x00\x04\xff4\xe2\x82\xac\x01\x05\xff\x04" + BYTES
        sid = await self.openPolling()
        query = self.query("polling", sid)
        reply = await self.wire.request("POST", query, body, "application/octet-stream")
        self.assertEqual((reply.status, reply.text), (200, "ok"))
        await self.assertPolled(sid, body)

    async def test_binaryBodyHasItsContentType(self) -> None:
        sid = await self.openPolling()
        await self.pushed(sid, "10:b4AQIDBA==")
        reply = await self.poll(sid)
        self.assertEqual(reply.headers["content-type"], "application/octet-stream")

    async def test_base64OnWebSocket(self) -> None:
        websocket = await self.wire.websocket({**self.query("websocket"), "b64": "1"})
        self.opened(await websocket.receive())
        websocket.send("b4AQIDBA==")
        self.assertEqual(await websocket.receive(), "b4AQIDBA==")

    # -- By JSONP

    async def openJSONP(self) -> dict[str, str]:
        """Open a session by JSONP; the query of its requests."""
        query = {**self.query("polling"), "j": "7", "b64": "1"}
        packet = self.called(await self.wire.request("GET", query)).partition(":")[2]
        return {**self.query("polling"), "j": "7", "sid": self.opened(packet)["sid"]}

    def called(self, reply: Reply) -> str:
        """The payload in a script that calls the client's function."""
        self.assertEqual(reply.status, 200)
        script = re.fullmatch(r"___eio\[7\]\((\".*\")\);", reply.text)
        self.assertTrue(script, reply.text)
        # These two end a line in a script, but not in JSON.
        self.assertNotRegex(script[1], "[\u2028\u2029]")
        return json.loads(script[1])

    async def test_jsonpPolling(self) -> None:
        query = await self.openJSONP()
        # A form, as the client makes it: %-escapes, and a newline in the text as backslash and n.
        form = (
            "d=22%3A4a%22%5C%5Cn%5Cn%3C%2Fscript%3E%E2%80%A8%E2%82%ACz%20%26%F0%9D%84%9E10%3Ab4AQIDBA%3D%3D"
        )
        reply = await self.wire.request("POST", query, form, FORM)
        self.assertEqual((reply.status, reply.text), (200, "ok"))
        payload = self.called(await self.wire.request("GET", query))
        self.assertEqual(payload, '22:4a"\\n\n</script>\u2028€z &𝄞10:b4AQIDBA==')


class EngineIO3StricterTests(EngineIO3Case):
    """Stricter demands on our own server than the suite's."""

    if "CONFORMANCE_URL" in os.environ:
        skip = "asked of our own server only"

    async def test_closePacketEndsWebSocket(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("1")
        started = reactor.seconds()
        self.assertEqual(await websocket.rest(), [])
        self.assertLess(reactor.seconds() - started, self.times.pingInterval)

    async def test_unknownProtocolVersionIsRefused(self) -> None:
        reply = await self.wire.request("GET", {"transport": "polling", "EIO": "abc"})
        self.assertEqual(reply.status, 400)
        websocket = await self.wire.websocket({"transport": "websocket", "EIO": "abc"})
        self.assertEqual((websocket.accepted, websocket.refusal), (False, 400))

    async def test_pollingTwiceAtATimeEndsSession(self) -> None:
        sid = await self.openPolling()
        first = await self.beginPoll(sid)
        self.assertEqual((await self.poll(sid)).status, 400)
        self.assertEqual(self.unframed(await first.reply), "1")
        await self.assertGone(sid)

    @timed(BEATING)
    async def test_heartbeatAfterUpgrade(self) -> None:
        """Node's server drops such a session, or keeps it for good: it loses the timer with the transport."""
        websocket = await self.upgrade(await self.openPolling())
        for _ in range(4):
            await deferLater(reactor, self.times.pingInterval + 1)
            websocket.send("2")
            self.assertEqual(await websocket.receive(), "3")
        started = reactor.seconds()
        self.assertEqual(await websocket.rest(), [])
        silence = reactor.seconds() - started
        self.assertGreater(silence, self.times.pingInterval)


class EngineIO3Clients1Tests(EngineIO3Case):
    """
    Clients 1 encode the text of a packet as UTF-8, and HTTP does so again; clients 2 leave it to HTTP.

    Neither says which it is. Node's server takes all for clients 2.
    """

    path = "/socket.io"
    host = "/socket.io"

    if "CONFORMANCE_URL" in os.environ:
        skip = "asked of our own server only"

    async def assertUnderstood(self, text: str) -> None:
        """A server that has read `€` in a packet answers so that both would read it."""
        reply = await self.wire.request("GET", {**self.query("polling"), "b64": "1"})
        # The open packet has company: as servers of version 2 did, ours joins its client to `/` at once.
        opening = re.fullmatch(r'\d+:0(\{.*?\})2:4013:42\["auth",\{\}\]', reply.text)
        self.assertTrue(opening, reply.text)
        sid = json.loads(opening[1])["sid"]
        await self.pushed(sid, self.framed(f'420["message-with-ack","{text}"]'))
        packet = self.unframed(await self.poll(sid))
        self.assertEqual((packet[:3], json.loads(packet[3:])), ("430", ["€"]))

    async def test_clients1(self) -> None:
        await self.assertUnderstood("€".encode().decode("latin-1"))

    async def test_clients2(self) -> None:
        await self.assertUnderstood("€")


class EngineIO3RefusedTests(EngineIO3Case):
    """A server that was not told to serve version 3."""

    if "CONFORMANCE_URL" in os.environ:
        skip = "asked of our own server only"

    def servers(self) -> ProtocolServers:
        return ProtocolServers(times=self.times)

    async def test_pollingIsTold(self) -> None:
        reply = await self.poll()
        self.assertEqual(reply.status, 400)
        answer = json.loads(reply.text)
        self.assertEqual(answer["code"], 5)
        self.assertIn("allowEIO3", reply.text)

    async def test_webSocketIsRefusedBefore(self) -> None:
        websocket = await self.websocket()
        self.assertEqual((websocket.accepted, websocket.refusal), (False, 400))
