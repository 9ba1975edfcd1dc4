"""
Tests of a session that all suites share: its opening, heartbeat, close and upgrade.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from tests.conformance.servers import OFFICIAL, ProtocolServers, Times
from tests.conformance.wire import DEADLINE, Exchange, Reply, WebSocket, Wire

T = TypeVar("T")

SLACK = 0.1
"Seconds that a server may be late in ending a session whose client is silent."

PATIENT = Times(pingInterval=25.0, pingTimeout=20.0, connectTimeout=45.0)
"For tests that wait for nothing: a busy machine may stand still for seconds."

BEATING = Times(pingTimeout=2.0, connectTimeout=45.0)
"For tests that wait for heartbeats."


def timed(times: Times) -> Callable[[T], T]:
    """Give a test a server of ours with other times than the patient ones."""

    def mark(test: T) -> T:
        test.times = times  # type: ignore[attr-defined]
        return test

    return mark


class Loopback:
    """
    A site on a free port of the loopback interface.

    :ivar url: where it is.
    """

    def __init__(self, site: Site, service: IService) -> None:
        self._service = service
        self._port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"
        service.startService()

    async def stop(self) -> None:
        """
        End everything, and wait until the reactor knows none of it.
        """
        await self._port.stopListening()
        await self._service.stopService()
        deadline = reactor.seconds() + DEADLINE
        while connections := self.connections():
            if reactor.seconds() > deadline:
                raise AssertionError(f"still connected: {connections}")
            await deferLater(reactor, 0)

    def connections(self) -> list[Any]:
        """
        The server's ends of the connections that are open.
        """
        readers = [*reactor.getReaders(), *reactor.getWriters()]
        return [reader for reader in readers if getattr(reader, "server", None) is self._port]


class ProtocolCase(TestCase):
    """
    A test of one server at one path, by hand-made requests.

    The server is ours, in this process, or else the one that CONFORMANCE_URL names.

    :cvar path: the server's, without the slash that clients put after it.
    :cvar host: the path of the server in whose site it is; see ProtocolServers.
    :cvar version: of Engine.IO, as in its queries.
    :ivar times: the times of the server.
    """

    path: str
    host: str
    version = "4"

    async def setUp(self) -> None:
        url = os.environ.get("CONFORMANCE_URL")
        self.times = OFFICIAL
        if url is None:
            self.times = getattr(getattr(self, self._testMethodName), "times", PATIENT)
            servers = self.servers()
            loopback = Loopback(servers.site(self.host), servers)
            self.addCleanup(loopback.stop)
            url = loopback.url
        self.wire = Wire(f"{url}{self.path}/")
        self.addCleanup(self.wire.hangUp)

    def servers(self) -> ProtocolServers:
        """Return the servers that the test runs in this process."""
        return ProtocolServers(times=self.times)

    def framed(self, *packets: str) -> str:
        """The body of a request or a response that carries these packets."""
        return "\x1e".join(packets)

    def unframed(self, reply: Reply) -> str:
        """The one packet that a response carries."""
        self.assertEqual(reply.status, 200)
        return reply.text

    def query(self, transport: str, sid: str | None = None) -> dict[str, str]:
        query = {"EIO": self.version, "transport": transport}
        return query if sid is None else {**query, "sid": sid}

    async def openPolling(self) -> str:
        """Open a session by long polling; its id."""
        reply = await self.poll()
        return self.opened(self.unframed(reply))["sid"]

    async def openWebSocket(self) -> WebSocket:
        """Open a session by WebSocket, past the open packet."""
        websocket = await self.websocket()
        self.opened(await websocket.receive())
        return websocket

    def opened(self, packet: str | bytes) -> dict[str, Any]:
        """Return the content of an open packet."""
        self.assertEqual(packet[:1], "0")
        return json.loads(packet[1:])

    async def poll(self, sid: str | None = None) -> Reply:
        return await self.wire.request("GET", self.query("polling", sid))

    async def beginPoll(self, sid: str) -> Exchange:
        return await self.wire.begin("GET", self.query("polling", sid))

    async def push(self, sid: str, payload: str | bytes) -> Reply:
        return await self.wire.request("POST", self.query("polling", sid), payload)

    async def websocket(self, sid: str | None = None) -> WebSocket:
        return await self.wire.websocket(self.query("websocket", sid))

    async def probe(self, sid: str) -> WebSocket:
        """A WebSocket beside a polling session, so far that the upgrade only waits for our `5`."""
        websocket = await self.websocket(sid)
        self.assertTrue(websocket.accepted)
        websocket.send("2probe")
        self.assertEqual(await websocket.receive(), "3probe")
        return websocket

    async def upgrade(self, sid: str) -> WebSocket:
        """Move a session that was opened by long polling to WebSocket."""
        websocket = await self.probe(sid)
        websocket.send("5")
        return websocket

    async def next(self, websocket: WebSocket) -> str | bytes:
        """The next message that is no heartbeat; the heartbeats are answered."""
        while (message := await websocket.receive()) == "2":
            websocket.send("3")
        return message

    async def assertGone(self, sid: str) -> None:
        self.assertEqual((await self.poll(sid)).status, 400)


class LongWay:
    """
    The same, of a server that has everything read by Autobahn and twisted.web.
    """

    def servers(self: Any) -> ProtocolServers:
        return ProtocolServers(shortWays=False, times=self.times)


class SessionCases:
    """
    The cases that both versions of Engine.IO share; mixed into a ProtocolCase.
    """

    async def talk(self: ProtocolCase, websocket: WebSocket) -> None:
        """Show that the session on a WebSocket still serves its client."""
        raise NotImplementedError

    # -- Opening

    def assertOpens(self, packet: str | bytes, upgrades: list[str]) -> None:
        opening = self.opened(packet)
        self.assertIsInstance(opening.pop("sid"), str)
        self.assertEqual(
            opening,
            {
                "upgrades": upgrades,
                "pingInterval": self.times.pingInterval * 1000,
                "pingTimeout": self.times.pingTimeout * 1000,
                "maxPayload": 1_000_000,
            },
        )

    async def test_pollingOpens(self) -> None:
        self.assertOpens(self.unframed(await self.poll()), ["websocket"])

    async def test_webSocketOpens(self) -> None:
        websocket = await self.websocket()
        self.assertOpens(await websocket.receive(), [])

    async def assertRefusesRequest(self, query: dict[str, str], method: str = "GET") -> None:
        self.assertEqual((await self.wire.request(method, query)).status, 400)

    async def assertRefusesWebSocket(self, query: dict[str, str]) -> None:
        self.assertEqual(await (await self.wire.websocket(query)).rest(), [])

    async def test_requestWithoutKnownTransport(self) -> None:
        await self.assertRefusesRequest({"EIO": self.version})
        await self.assertRefusesRequest({"EIO": self.version, "transport": "abc"})

    async def test_webSocketWithoutKnownTransport(self) -> None:
        await self.assertRefusesWebSocket({"EIO": self.version})
        await self.assertRefusesWebSocket({"EIO": self.version, "transport": "abc"})

    async def test_onlyGetOpens(self) -> None:
        await self.assertRefusesRequest(self.query("polling"), "POST")
        await self.assertRefusesRequest(self.query("polling"), "PUT")

    # -- Close

    async def test_pollingClientCloses(self) -> None:
        sid = await self.openPolling()
        waiting = await self.beginPoll(sid)
        self.assertEqual((await self.push(sid, self.framed("1"))).status, 200)
        reply = await waiting.reply
        self.assertEqual(self.unframed(reply), "6")
        await self.assertGone(sid)

    async def test_webSocketClientCloses(self) -> None:
        websocket = await self.openWebSocket()
        websocket.send("1")
        # Node's server lets the heartbeat run out; ours is asked for more in test_closePacketEndsWebSocket.
        await websocket.rest()

    # -- Upgrade

    async def test_upgrade(self) -> None:
        sid = await self.openPolling()
        websocket = await self.probe(sid)
        # The server sends nothing by polling any more, and ends the last poll with a NOOP.
        reply = await self.poll(sid)
        self.assertEqual(self.unframed(reply), "6")
        websocket.send("5")
        await self.talk(websocket)

    async def test_pollAfterUpgradeIsRefused(self) -> None:
        sid = await self.openPolling()
        websocket = await self.upgrade(sid)
        self.assertEqual((await self.poll(sid)).status, 400)
        await self.talk(websocket)

    async def test_webSocketAfterUpgradeIsClosed(self) -> None:
        sid = await self.openPolling()
        websocket = await self.upgrade(sid)
        second = await self.websocket(sid)
        self.assertTrue(second.accepted)
        self.assertEqual(await second.rest(), [])
        await self.talk(websocket)


class SessionCases4(SessionCases):
    """
    The cases of Engine.IO 4, where the server asks for signs of life, on a server that speaks nothing else.
    """

    async def test_pollingWithoutKnownProtocolVersion(self) -> None:
        await self.assertRefusesRequest({"transport": "polling"})
        await self.assertRefusesRequest({"transport": "polling", "EIO": "abc"})

    async def test_webSocketWithoutKnownProtocolVersion(self) -> None:
        await self.assertRefusesWebSocket({"transport": "websocket"})
        await self.assertRefusesWebSocket({"transport": "websocket", "EIO": "abc"})

    # -- Heartbeat

    @timed(BEATING)
    async def test_pollingHeartbeat(self) -> None:
        sid = await self.openPolling()
        for _ in range(3):
            reply = await self.poll(sid)
            self.assertEqual((reply.status, reply.text), (200, "2"))
            self.assertEqual((await self.push(sid, "3")).status, 200)

    @timed(BEATING)
    async def test_webSocketHeartbeat(self) -> None:
        websocket = await self.openWebSocket()
        for _ in range(3):
            self.assertEqual(await websocket.receive(), "2")
            websocket.send("3")

    @timed(BEATING)
    async def test_silentPollingClientIsDropped(self) -> None:
        sid = await self.openPolling()
        # To look is to poll, which would be a sign of life: so look once, when the time is over.
        await deferLater(reactor, self.times.pingInterval + self.times.pingTimeout + SLACK)
        await self.assertGone(sid)

    @timed(BEATING)
    async def test_silentWebSocketClientIsDropped(self) -> None:
        websocket = await self.openWebSocket()
        self.assertEqual(await websocket.rest(), ["2"])
