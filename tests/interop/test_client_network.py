"""
The client and Node's server with the network of the soak between them.

Connections are delayed, cut, reset and swallowed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.clients import javaScript, requireJavaScriptClient, untilListening
from tests.soak.proxy import Network
from tests.support import freePort, startProgram
from txrealtime.client import Client

WAYS = (("polling", "websocket"), ("websocket",), ("polling",))

SECONDS = 8.0
"The time of the traffic; a connection that is swallowed ends 25 s later."


class NetworkTests(TestCase):
    timeout = 120

    async def setUp(self) -> None:
        requireJavaScriptClient("socket.io")
        port = freePort()
        await untilListening(startProgram(self, javaScript("clientserver.cjs", str(port))), port)
        network = Network(port, seed=5)
        listening = reactor.listenTCP(0, network, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.addCleanup(network.stop)
        self.network = network
        self.url = f"http://127.0.0.1:{listening.getHost().port}"
        self.clients: list[Client] = []

    def makeClient(self, transports: tuple[str, ...], **options: Any) -> Client:
        client = Client(
            self.url,
            transports=transports,
            reactor=reactor,
            reconnectionDelay=0.2,
            reconnectionDelayMax=1,
            timeout=5,
            **options,
        )
        client.startService()
        self.clients.append(client)
        return client

    async def test_numberedMessages(self) -> None:
        """Without retries in order and none twice; with retries all of them, and the acks in order."""
        plain = [(self.makeClient(way), [], []) for way in WAYS * 3]
        careful = [(self.makeClient(way, retries=1000, ackTimeout=3), [], []) for way in WAYS * 3]
        for client, got, _ in plain:
            client.on("back")(got.append)
        end = reactor.seconds() + SECONDS
        number = 0
        waiting: list[Deferred[Any]] = []
        while reactor.seconds() < end:
            for client, _, sent in plain:
                client.emit("back", number)
                sent.append(number)
            for client, got, sent in careful:
                waiting.append(client.call("echo", number).addCallback(got.append))
                sent.append(number)
            number += 1
            await deferLater(reactor, 0.03)
        await gatherResults(waiting)
        for client, got, sent in careful:
            self.assertEqual(got, sent, client)
        for client, got, sent in plain:
            await client.whenConnected()
            self.assertEqual(got, sorted(set(got)), client)
            self.assertGreater(len(got), len(sent) // 4, client)
        self.assertGreater(sum(self.network.faults.values()), self.network.faults["none"] + 4)
        await gatherResults([client.stopService() for client in self.clients])
