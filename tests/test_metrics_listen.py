"""
The endpoint of ``--metrics-listen``, which shows a drain until its end, with and without workers.
"""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.memory import Exchange, Link, Response
from tests.test_service import ServiceTestCase, parse
from tests.test_workers import Process
from txrealtime import Server
from txrealtime.service import makeService
from txrealtime.service.supervised import SupervisedService
from txrealtime.testing import Client
from txrealtime.workers.child import Child

OPTIONS = ("--metrics-listen", "tcp:9090", "--probes", "--health", "/health")


class Port:
    """
    A port of the reactor in memory.

    :ivar factory: serves the connections.
    :ivar isOpen: whether it listens.
    """

    def __init__(self, number: int, factory: Any) -> None:
        self.number = number
        self.factory = factory
        self.isOpen = True

    def fileno(self) -> int:
        return self.number

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)

    def stopListening(self) -> None:
        self.isOpen = False


class Reactor(MemoryReactorClock):
    """A reactor in memory with processes that do nothing by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[int, Port] = {}
        self.processes: list[Process] = []

    def listenTCP(self, port: int, factory: Any, *args: Any, **options: Any) -> Any:
        self.ports[port] = Port(port, factory)
        return self.ports[port]

    def spawnProcess(  # type: ignore[override]
        self, protocol: Child, executable: str, args: list[str], env: Any, childFDs: dict[int, Any]
    ) -> None:
        self.processes.append(Process(protocol, 1000 + len(self.processes), args, childFDs))


class MetricsListenTestCase(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = Reactor()

    def begin(self, *arguments: str) -> Any:
        service: Any = makeService(parse(*arguments, *OPTIONS), self.reactor)
        service.privilegedStartService()
        service.startService()
        return service

    def ask(self, path: str) -> Response:
        """Read a page at the endpoint of the metrics, which has to be open."""
        port = self.reactor.ports[9090]
        self.assertTrue(port.isOpen)
        link = Link().connect(port.factory)
        link.deliver(f"GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode())
        exchange = Exchange(link)
        answer = exchange.answer
        link.lose()
        return answer

    def health(self) -> tuple[int, dict[str, Any]]:
        response = self.ask("/health")
        return response.status, json.loads(response.body)


class AloneTests(MetricsListenTestCase):
    """One process."""

    def setUp(self) -> None:
        super().setUp()
        self.server = Server(reactor=self.reactor, drainTimeout=4)
        self.server.namespace()
        self.module(server=self.server)
        self.service = self.begin("--app", "served:server", "--listen", "tcp:8000")

    def test_serving(self) -> None:
        self.assertEqual(self.ask("/livez").status, 200)
        self.assertEqual(self.ask("/readyz").status, 200)
        self.assertEqual(self.health(), (200, {"status": "alone", "clients": 0, "servers": 0}))
        self.assertEqual(self.ask("/").status, 404)

    def test_drain(self) -> None:
        """The endpoint serves while a client takes its time, and closes behind the last one."""
        client = Client(self.server, transport="polling")
        client.connect("/")
        client.transport.writable = False
        self.server.emit("last")
        stopped = self.service.stopService()
        self.reactor.pump([0.1] * 30)
        self.assertFalse(self.reactor.ports[8000].isOpen)
        self.assertNoResult(stopped)
        self.assertEqual(self.ask("/livez").status, 200)
        ready = self.ask("/readyz")
        self.assertEqual((ready.status, ready.body), (503, b"service: draining: no new clients are taken\n"))
        self.assertEqual(
            self.health(), (503, {"status": "alone", "clients": 1, "servers": 0, "draining": True})
        )
        lag = self.service._metrics._lag.seconds
        before = lag.number
        self.reactor.pump([0.1] * 5)
        self.assertGreater(lag.number, before)
        client.transport.writable = True
        client.session.transportWritable(client.transport)
        self.reactor.pump([0, 0, 0])
        self.successResultOf(stopped)
        self.assertFalse(self.reactor.ports[9090].isOpen)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_certificates(self) -> None:
        """A renewal reads those of this endpoint too."""
        renewed: list[Any] = []
        with patch("txrealtime.service.listener.Listener.renew", lambda listener: renewed.append(listener)):
            self.service.renew()
        self.assertEqual([listener.name for listener in renewed], ["listen-0", "metrics"])


class WorkersTests(MetricsListenTestCase):
    """A supervisor with two workers."""

    def setUp(self) -> None:
        super().setUp()
        with patch("txrealtime.service.supervised.openPorts", lambda *_: [Port(70, None)]):
            self.service: SupervisedService = self.begin("--workers", "2")
        self.addCleanup(self.end)
        for process in self.reactor.processes:
            process.ready()

    def end(self) -> None:
        self.service.stopService()
        for process in self.reactor.processes:
            if not process.ended:
                process.end()
        self.reactor.pump([0] * 5)

    def workers(self) -> list[tuple[int, str, bool]]:
        return [(each["number"], each["state"], each["fit"]) for each in self.health()[1]["workers"]]

    def test_serving(self) -> None:
        self.assertEqual(self.ask("/livez").status, 200)
        self.assertEqual(self.ask("/readyz?verbose").body, b"[+] workers: 0 ready, 1 ready\nreadyz: ok\n")
        self.assertEqual((self.health()[0], self.workers()), (200, [(0, "ready", True), (1, "ready", True)]))
        self.reactor.processes[0].beat("deaf", False)
        self.assertEqual(self.ask("/readyz").status, 200)
        self.reactor.processes[1].beat("deaf", False)
        self.assertEqual(self.health()[0], 503)

    def test_drain(self) -> None:
        """The endpoint serves until the last worker has ended."""
        stopped = self.service.stopService()
        self.assertFalse(self.service.running)
        self.assertEqual(self.ask("/readyz")[::2], (503, b"workers: 0 stopping, 1 stopping\n"))
        self.assertEqual(self.health()[0], 503)
        one, two = self.reactor.processes
        one.end()
        self.assertEqual(self.workers(), [(1, "stopping", False)])
        self.assertNoResult(stopped)
        two.end()
        self.reactor.pump([0] * 5)
        self.successResultOf(stopped)
        self.assertFalse(self.reactor.ports[9090].isOpen)

    def test_drainThatFails(self) -> None:
        """The endpoint closes also if the supervisor fails to stop."""
        supervisor = self.service.supervisor
        assert supervisor is not None
        failing: Deferred[None] = Deferred()
        with patch.object(supervisor, "stopService", lambda: failing):
            stopped = self.service.stopService()
        failing.errback(ZeroDivisionError())
        self.failureResultOf(stopped, ZeroDivisionError)
        self.assertFalse(self.reactor.ports[9090].isOpen)

    def test_certificates(self) -> None:
        """A reload reads those of this endpoint."""
        renewed: list[Any] = []
        with patch("txrealtime.service.listener.Listener.renew", lambda listener: renewed.append(listener)):
            self.service._reload()
        self.assertEqual([listener.name for listener in renewed], ["metrics"])
        self.assertEqual(len(self.reactor.processes), 4)

    def test_tree(self) -> None:
        assert isinstance(self.service, MultiService)
        self.assertEqual([child.name for child in self.service], ["metrics", "supervisor"])
