"""
The probes, /livez and /readyz, as a balancer or a supervisor reads them over HTTP.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.static import Data

from tests.memory import Exchange, Link, Response
from txrealtime import Server
from txrealtime.engineio.http.site import Beside, EngineSite
from txrealtime.monitor.health import Health, Probes
from txrealtime.testing import MemoryBus, MemoryHub

OPEN = "/socket.io/?EIO=4&transport=polling"


def siteOf(server: Server, root: Any) -> EngineSite:
    """Make a site as ``server.site(root)`` does, with the server's clock."""
    return EngineSite(root, server.path, server.engine, reactor=server.reactor, timeout=None)


class ProbesTestCase(SynchronousTestCase):
    """
    Tests with a site that has both probes.

    :ivar clock: the clock.
    :ivar server: the server.
    """

    def makeSite(self, root: Any = None, **options: Any) -> None:
        self.clock = Clock()
        self.server = Server(reactor=self.clock, **options)
        self.site = siteOf(self.server, Probes(self.server, Resource() if root is None else root))
        self.lines: list[bytes] = []

    def ask(self, url: str, method: str = "GET", body: str = "") -> Exchange:
        link = Link().connect(self.site)
        link.deliver(f"{method} {url} HTTP/1.1\r\nHost: example.org\r\n\r\n{body}".encode())
        return Exchange(link)

    def get(self, url: str) -> Response:
        return self.ask(url).answer

    def statuses(self) -> tuple[int, int]:
        """Return the statuses of both probes."""
        return self.get("/livez").status, self.get("/readyz").status

    def tearDown(self) -> None:
        if self.server.running:
            self.server.stopService()


class LiveTests(ProbesTestCase):
    def test_alone(self) -> None:
        self.makeSite()
        self.server.startService()
        response = self.get("/livez")
        self.assertEqual((response.status, response.body), (200, b"ok\n"))
        self.assertEqual(response.headers["cache-control"], "no-store")

    def test_atAllTimes(self) -> None:
        """Neither the state of the broker nor a full server is a reason for a restart."""
        hub = MemoryHub()
        hub.stop()
        self.makeSite(bus=MemoryBus(hub))
        self.assertEqual(self.statuses(), (200, 503))
        self.server.startService()
        self.assertEqual(self.statuses(), (200, 503))
        self.server.stopService()
        self.assertEqual(self.statuses(), (200, 503))

    def test_verbose(self) -> None:
        self.makeSite()
        self.assertEqual(self.get("/livez?verbose").body, b"[+] reactor: turns\nlivez: ok\n")


class ReadyTests(ProbesTestCase):
    def test_life(self) -> None:
        """Ready between the start and the stop, and again after another start."""
        self.makeSite()
        for _ in range(2):
            self.assertEqual(self.get("/readyz").status, 503)
            self.server.startService()
            self.assertEqual(self.get("/readyz")[::2], (200, b"ok\n"))
            self.server.stopService()

    def test_starting(self) -> None:
        self.makeSite()
        self.assertEqual(self.get("/readyz")[::2], (503, b"service: has not started\n"))

    def test_draining(self) -> None:
        """A client that takes its time keeps the server draining."""
        self.makeSite()
        self.server.startService()
        self.assertEqual(self.get(OPEN).status, 200)
        for session in self.server.engine.sessions.values():
            session.send("0 a last message")
        stopped = self.server.stopService()
        self.assertNoResult(stopped)
        self.assertEqual(self.get("/readyz")[::2], (503, b"service: draining: no new clients are taken\n"))
        self.assertEqual(self.get("/livez").status, 200)
        self.clock.advance(60)
        self.successResultOf(stopped)

    def test_deaf(self) -> None:
        hub = MemoryHub()
        self.makeSite(bus=MemoryBus(hub))
        self.server.startService()
        self.assertEqual(self.get("/readyz")[::2], (503, b"bus: connecting\n"))
        for _ in range(9):
            self.clock.advance(0)
        self.assertEqual(self.get("/readyz").status, 200)
        hub.stop()
        self.assertEqual(self.get("/readyz")[::2], (503, b"bus: deaf\n"))
        self.assertEqual(self.get("/livez").status, 200)

    def test_full(self) -> None:
        """A full server still takes connections of probes, and is ready again when a client has gone."""
        self.makeSite(maxConnections=2)
        self.server.startService()
        sids = [json.loads(self.get(OPEN).body[1:])["sid"] for _ in range(2)]
        polls = [self.ask(f"{OPEN}&sid={sid}") for sid in sids]
        self.assertEqual(self.get("/readyz").body, b"room: 2 of 2 sessions (maxConnections)\n")
        self.assertEqual(self.statuses(), (200, 503))
        self.assertEqual(self.get(OPEN).status, 503)
        polls[0].drop()
        self.assertEqual(self.statuses(), (200, 200))

    def test_reserveIsBounded(self) -> None:
        """Connections beyond the limit are few."""
        self.makeSite(maxConnections=2)
        links = [Link().connect(self.site) for _ in range(50)]
        self.assertEqual(sum(not link.disconnected for link in links), 2 + Probes.reserved)

    def test_noReserveWithoutProbes(self) -> None:
        self.makeSite()
        site = siteOf(Server(reactor=self.clock, maxConnections=2), Resource())
        links = [Link().connect(site) for _ in range(50)]
        self.assertEqual(sum(not link.disconnected for link in links), 2)

    def test_verbose(self) -> None:
        self.makeSite(maxConnections=5)
        self.assertEqual(
            self.get("/readyz?verbose").body.decode().splitlines(),
            [
                "[-] service: has not started",
                "[+] bus: alone",
                "[+] room: 0 of 5 sessions (maxConnections)",
                "readyz: failed",
            ],
        )


class PageTests(ProbesTestCase):
    def test_head(self) -> None:
        """HEAD has the status and headers of GET, and no body; Twisted logs nothing about it."""
        self.makeSite()
        for path in ("/livez", "/readyz", "/readyz?verbose"):
            got, head = self.get(path), self.ask(path, "HEAD")
            text = head.link.take()
            first, _, rest = text.partition(b"\r\n\r\n")
            self.assertEqual(rest, b"")
            self.assertIn(b"HTTP/1.1 %d " % got.status, first)
            self.assertIn(b"content-length: %d" % len(got.body), first.lower())
        self.assertEqual(self.flushWarnings(), [])

    def test_headOfHealth(self) -> None:
        self.makeSite(Beside("/health", Health(self.makeServer()), Resource()))
        link = self.ask("/health", "HEAD").link
        self.assertTrue(link.take().endswith(b"\r\n\r\n"))

    def makeServer(self) -> Server:
        return Server(reactor=Clock())

    def test_besideALeaf(self) -> None:
        """Before a WSGI application, which answers for all other paths."""
        root = Data(b"page", "text/plain")
        root.isLeaf = True
        self.makeSite(root)
        self.assertEqual(self.get("/livez").body, b"ok\n")
        for path in ("/", "/livez2", "/other/livez", "/readyzz"):
            self.assertEqual(self.get(path).body, b"page", path)

    def test_quiet(self) -> None:
        """Not in the access log."""
        self.makeSite()
        logged: list[str] = []
        self.site.logFile = None
        self.patch(self.site.__class__.__mro__[1], "log", lambda site, request: logged.append(request.uri))
        self.get("/livez")
        self.ask("/readyz", "HEAD")
        self.get("/other")
        self.assertEqual(logged, [b"/other"])
