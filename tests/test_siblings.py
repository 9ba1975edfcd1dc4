"""
Three workers in memory: a session is found wherever its requests land, by relay and by tunnel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.memory import Exchange, Link, WebSocket, WireTestCase
from txrealtime.engineio.http.fastpath import _ChannelRequest
from txrealtime.engineio.session import CloseReason
from txrealtime.workers import relay
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.ledger import Ledger
from txrealtime.workers.marks import markOf
from txrealtime.workers.relay import RelayedRequest
from txrealtime.workers.siblings import WorkerSiblings


class End(Link):
    """One end of a connection between two workers; what is written arrives when the test settles."""

    other: End

    def write(self, data: bytes) -> None:
        self.waiting = getattr(self, "waiting", b"") + data

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def flush(self) -> bool:
        """Deliver what was written, and return whether there was something."""
        data, self.waiting = getattr(self, "waiting", b""), b""
        if data and self.other.connected:
            self.other.deliver(data)
        if self.disconnecting and not data and self.connected:
            self.lose()
            self.other.lose()
            return True
        return bool(data)


class Network(Clock):
    """A reactor with UNIX sockets in memory, and a file for each."""

    def __init__(self) -> None:
        super().__init__()
        self.factories: dict[str, Any] = {}
        self.ends: list[End] = []

    def listenUNIX(self, path: str, factory: Any, backlog: int, mode: int) -> Any:
        assert mode == 0o600
        # A burst of WebSockets is a burst of connections.
        assert backlog >= 1000
        Path(path).touch()
        self.factories[path] = factory
        network = self

        class Port:
            def stopListening(self) -> None:
                network.factories.pop(path, None)
                Path(path).unlink(missing_ok=True)

        return Port()

    def connectUNIX(self, path: str, factory: Any, **options: Any) -> Any:
        self.callLater(0, self._connect, path, factory)

    def _connect(self, path: str, factory: Any) -> None:
        if path not in self.factories:
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            return
        near, far = End("unix"), End("unix")
        near.other, far.other = far, near
        self.ends += [near, far]
        far.connect(self.factories[path])
        near.connect(factory)

    def settle(self) -> None:
        """Let everything arrive."""
        for _ in range(50):
            self.advance(0)
            # Not any(), which would stop at the first.
            if not [end for end in list(self.ends) if end.flush()] and not any(
                call.getTime() <= self.seconds() for call in self.getDelayedCalls()
            ):
                return
        raise AssertionError("no end of messages")


class Worker(WireTestCase):
    """One of the workers, with the means of a test of one engine."""

    def runTest(self) -> None:
        """Do nothing: this is no test by itself."""

    def begin(self, network: Network, folder: str, number: int, fastPath: bool, **settings: Any) -> Worker:
        self.clock = network
        self.owners = []
        self.fastPath = fastPath
        self.makeEngine(**settings)
        self.mark = markOf(number, number + 1)
        self.fleet = Fleet(self.mark, Ledger(folder, self.mark), network.seconds)
        self.siblings = WorkerSiblings(network, folder, self.fleet, self.engine)
        self.siblings.startService()
        return self

    def member(self, state: str) -> dict[str, Any]:
        """The worker as the supervisor tells of it."""
        number = int(state != "ready")
        return {"number": number, "mark": self.mark, "pid": 1, "state": state, "status": "ready", "fit": True}


class SiblingsTestCase(SynchronousTestCase):
    fastPath = True

    def setUp(self) -> None:
        self.network = Network()
        self.folder = self.mktemp()
        Path(self.folder).mkdir()
        self.makeWorkers()

    def makeWorkers(self, **settings: Any) -> None:
        self.one, self.two, self.three = (
            Worker().begin(self.network, self.folder, number, self.fastPath, **settings)
            for number in range(3)
        )
        self.tell()

    def tell(self, *stopping: Worker) -> None:
        """Tell all workers of each other, as the supervisor does."""
        workers = (self.one, self.two, self.three)
        for worker in workers:
            worker.fleet.update(
                [other.member("stopping" if other in stopping else "ready") for other in workers]
            )

    def settled(self, exchange: Exchange) -> Exchange:
        self.network.settle()
        return exchange


class RelayTests(SiblingsTestCase):
    def test_sids(self) -> None:
        """The sids of all workers are equally long, and end with the mark; logs show none of it."""
        sids = {worker.mark: [worker.openPolling() for _ in range(50)] for worker in (self.one, self.two)}
        for mark, opened in sids.items():
            self.assertEqual({len(sid) for sid in opened}, {20})
            self.assertEqual({sid[-4:] for sid in opened}, {mark})
            self.assertEqual(len({sid[:6] for sid in opened}), 50)
        self.assertNotIn(self.one.mark, self.one.session.label)

    def test_names(self) -> None:
        """With a server's name the sids are equally long too, and lead to the worker before the name."""
        self.makeWorkers(name="shop")
        sids = {worker: worker.openPolling() for worker in (self.one, self.two)}
        for worker, sid in sids.items():
            self.assertEqual((len(sid), sid[16:]), (25, f"{worker.mark}.shop"))
        waiting = self.settled(self.two.get(sids[self.one]))
        self.one.session.send("hello")
        self.assertEqual(self.settled(waiting).response.body, b"4hello")

    def test_poll(self) -> None:
        """A GET on another worker waits there, and has the messages of its session."""
        sid = self.one.openPolling()
        waiting = self.settled(self.two.get(sid))
        self.assertIsNone(waiting.response)
        self.one.session.send("hello")
        self.network.settle()
        self.assertEqual(waiting.payload, [b"4hello"])
        self.assertEqual(self.two.siblings.relayed, 1)
        self.assertEqual(self.two.owners, [])

    def test_push(self) -> None:
        """POSTs on all workers arrive, whatever their bytes."""
        sid = self.one.openPolling()
        for worker, body in (
            (self.two, "4ä\0".encode()),
            (self.three, b"4two\x1e4three"),
            (self.one, b"4four"),
        ):
            self.assertEqual(self.settled(worker.post(sid, body)).answer.body, b"ok")
        self.assertEqual(self.one.owner.heard, ["ä\0", "two", "three", "four"])

    def test_headers(self) -> None:
        """The owner sees the request as it came, and the client the response as it was made."""
        self.makeWorkers(origins=("https://example.org",), compressionThreshold=100)
        sid = self.one.openPolling()
        headers = {"Origin": "https://example.org", "Accept-Encoding": "gzip"}
        waiting = self.settled(self.two.get(sid, headers=headers))
        self.one.session.send("x" * 1000)
        self.network.settle()
        got = waiting.answer.headers
        self.assertEqual(got["content-encoding"], "gzip")
        self.assertEqual(got["access-control-allow-origin"], "https://example.org")
        self.assertEqual(got["vary"], "Origin, Accept-Encoding")

    def test_jsonp(self) -> None:
        self.makeWorkers(allowEIO3=True)
        sid = self.one.openPolling()
        waiting = self.settled(self.two.get(sid, j="7"))
        self.one.session.send("a")
        self.network.settle()
        self.assertTrue(waiting.answer.body.startswith(b"___eio[7]("), waiting.answer.body)

    def test_bothAtOnce(self) -> None:
        """A GET on one worker and a POST on another, both not the owner."""
        sid = self.one.openPolling()
        waiting = self.settled(self.two.get(sid))
        self.assertEqual(self.settled(self.three.post(sid, b"4a")).answer.status, 200)
        self.one.session.send("b")
        self.network.settle()
        self.assertEqual(waiting.payload, [b"4b"])

    def test_kept(self) -> None:
        """A kept-alive connection carries requests of sessions on all workers, as a proxy's does."""
        sids = [worker.openPolling() for worker in (self.one, self.two, self.three)]
        link = Link().connect(self.two.site)
        for sid in sids * 3:
            url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
            link.deliver(self.two.requestBytes("POST", url, {}, b"4x"))
            self.network.settle()
            self.assertTrue(link.take().endswith(b"\r\n\r\nok"))
        self.assertEqual([len(worker.owner.heard) for worker in (self.one, self.two, self.three)], [3, 3, 3])

    def test_keptAfterOthers(self) -> None:
        """A connection that has carried a request for something else takes the fast path afterwards."""
        sid = self.one.openPolling()
        link = Link().connect(self.two.site)
        url = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
        link.deliver(self.two.requestBytes("GET", "/elsewhere", {}, b""))
        self.assertIn(b"404", link.take())
        link.deliver(self.two.requestBytes("POST", url, {}, b"4x"))
        self.network.settle()
        self.assertTrue(link.take().endswith(b"\r\n\r\nok"))
        with patch("txrealtime.engineio.http.resource.EngineResource.render", lambda *request: 1 // 0):
            for _ in range(3):
                link.deliver(self.two.requestBytes("POST", url, {}, b"4x"))
                self.network.settle()
                self.assertTrue(link.take().endswith(b"\r\n\r\nok"))
        # A sid of nobody is for the site to judge: a guard may be before the engine.
        link.deliver(self.two.requestBytes("POST", url[:-1] + "!", {}, b"4x"))
        self.assertIn(b" 400 ", link.take())
        self.assertEqual(len(self.one.owner.heard), 4)

    def test_lineFeed(self) -> None:
        """A header with a line feed, which no parser should let pass, is refused before the owner."""
        sid = self.one.openPolling()
        with patch.object(_ChannelRequest, "headers", lambda request: {"x-a": "1\norigin"}):
            self.assertEqual(self.settled(self.two.get(sid)).answer.error[:2], (400, 3))
        self.assertEqual(self.one.siblings.relays.received, 0)

    def test_clientGone(self) -> None:
        """A client that drops its GET on another worker ends the session, as on its own."""
        sid = self.one.openPolling()
        waiting = self.settled(self.two.get(sid))
        waiting.drop()
        self.network.settle()
        self.assertEqual(self.one.owner.ends, [CloseReason.TRANSPORT_ERROR])

    def test_twoGETs(self) -> None:
        """The owner refuses what it would refuse directly."""
        sid = self.one.openPolling()
        self.settled(self.two.get(sid))
        self.assertEqual(self.settled(self.three.get(sid)).answer.error[:2], (400, 3))

    def test_tooLarge(self) -> None:
        """A body above maxPayload is refused before it is passed on, or by the owner."""
        self.makeWorkers(maxPayload=1000)
        sid = self.one.openPolling()
        exchange = self.settled(self.two.post(sid, b"4" + b"x" * 5000))
        self.assertEqual(exchange.answer.status, 413)
        self.assertEqual(self.one.owner.heard, [])

    def test_unknown(self) -> None:
        """A sid of nobody, of a dead worker, or of this one is refused at once."""
        dead = markOf(7, 7)
        for sid in ("x" * 20, "x" * 16 + dead, "x" * 16 + self.two.mark, "x", "x" * 16 + self.one.mark):
            exchange = self.settled(self.two.get(sid))
            self.assertEqual(exchange.answer.error, (400, 1, "Session ID unknown"))
        self.assertEqual(self.two.siblings.relayed, 1)

    def test_wrongSecret(self) -> None:
        """The mark alone opens nothing: the owner compares the whole sid."""
        sid = self.one.openPolling()
        forged = ("A" if sid[0] != "A" else "B") + sid[1:]
        self.assertEqual(self.settled(self.two.post(forged, b"4x")).answer.error[:2], (400, 1))
        self.assertEqual(self.one.owner.heard, [])

    def test_killed(self) -> None:
        """A worker that dies leaves a socket: the connection to it fails, and the client hears at once."""
        sid = self.one.openPolling()
        self.network.factories.clear()
        self.assertEqual(self.settled(self.two.get(sid)).answer.error[:2], (400, 1))
        self.assertEqual(self.settled(self.two.get(sid)).answer.error[:2], (400, 1))

    def test_killedMeanwhile(self) -> None:
        """Requests that a dying worker has in hand are refused, and the next one connects anew."""
        sid = self.one.openPolling()
        waiting = self.settled(self.two.get(sid))
        [near, far] = self.network.ends
        far.lose()
        near.lose()
        self.assertEqual(waiting.answer.error[:2], (400, 1))
        # For the owner, the client is gone.
        self.assertEqual(self.one.owner.ends, [CloseReason.TRANSPORT_ERROR])
        again = self.one.openPolling()
        self.assertEqual(self.settled(self.two.post(again, b"4a")).answer.body, b"ok")

    def test_openingKilled(self) -> None:
        """An opening for a worker that dies or is dead may be tried again, also from other origins."""
        self.makeWorkers(origins=("https://example.org",))
        self.tell(self.one)
        self.one.engine.drain(5)
        headers = {"Origin": "https://example.org"}

        def refused(exchange: Exchange) -> None:
            got = exchange.answer
            self.assertEqual(got.error[:2], (503, 3))
            self.assertEqual(got.headers["retry-after"], "1")
            self.assertEqual(got.headers["access-control-allow-origin"], "https://example.org")

        waiting = self.one.get(headers=headers)
        self.network.advance(0)
        [near, far] = self.network.ends
        near.waiting = b""
        far.lose()
        near.lose()
        refused(waiting)
        self.network.factories.clear()
        refused(self.settled(self.one.get(headers=headers)))

    def test_full(self) -> None:
        """A worker that does not read fills no memory: requests beyond a limit are refused."""
        self.patch(relay, "_MOST_WAITING", 1000)
        sid = self.one.openPolling()
        self.settled(self.two.post(sid, b"4a"))
        near = self.network.ends[0]
        near.fill()
        exchanges = [self.two.post(sid, b"4" + b"x" * 400) for _ in range(10)]
        refused = [exchange for exchange in exchanges if exchange.response is not None]
        self.assertGreater(len(refused), 5)
        self.assertEqual(refused[0].answer.error[:2], (503, 3))
        self.assertEqual(refused[0].answer.headers["retry-after"], "1")
        near.drain()
        self.network.settle()
        self.assertTrue(all(exchange.response is not None for exchange in exchanges))

    def test_draining(self) -> None:
        """A worker that drains opens no session, but passes the request to one that takes new ones."""
        sid = self.one.openPolling()
        waiting = self.settled(self.two.get(sid))
        self.tell(self.one)
        self.one.engine.drain(5)
        self.network.settle()
        self.assertEqual(waiting.answer.status, 503)
        opened = json.loads(self.settled(self.one.get()).payload[0][1:])["sid"]
        self.assertIn(opened[-4:], (self.two.mark, self.three.mark))
        self.assertEqual(self.settled(self.one.post(opened, b"4a")).answer.body, b"ok")
        self.tell(self.one, self.two, self.three)
        self.three.engine.drain(5)
        refused = self.settled(self.three.get()).answer
        self.assertEqual((refused.status, refused.headers["retry-after"]), (503, "1"))

    def test_staysForRequests(self) -> None:
        """A worker that stops stays while responses of others are awaited through it."""
        sid = self.one.openPolling()
        self.assertFalse(self.two.siblings.mustStay)
        waiting = self.settled(self.two.get(sid))
        self.assertTrue(self.two.siblings.mustStay)
        self.one.session.send("a")
        self.assertEqual(self.settled(waiting).payload, [b"4a"])
        self.assertFalse(self.two.siblings.mustStay)

    def test_slices(self) -> None:
        """An old worker serves its clients by way of the new ones until their slice."""
        sids = [self.one.openPolling() for _ in range(10)]
        self.tell(self.one)
        slices = self.one.engine.drainSlowly(10, 5)
        self.network.pump([0.1] * 50)
        left = set(self.one.engine.sessions)
        self.assertTrue(3 <= len(left) <= 7, left)
        for sid in sids:
            answer = self.settled(self.two.post(sid, b"4a")).answer
            self.assertEqual(answer.status, 200 if sid in left else 400, answer)
        self.network.pump([0.1] * 60)
        self.successResultOf(slices.done)
        self.assertEqual(self.one.engine.sessions, {})

    def test_stops(self) -> None:
        """A stopped worker leaves no socket, and asks nobody."""
        sid = self.one.openPolling()
        self.settled(self.two.post(sid, b"4a"))
        stopping = self.one.siblings.stopService()
        self.network.settle()
        self.successResultOf(stopping)
        self.assertEqual([path for path in Path(self.folder).iterdir() if path.name[:4] == self.one.mark], [])
        self.assertEqual(self.settled(self.two.get(sid)).answer.error[:2], (400, 1))


class RelayOnAnySiteTests(RelayTests):
    """The same in sites of twisted.web alone."""

    fastPath = False

    def test_full(self) -> None:
        """Tested with the fast path."""

    def test_lineFeed(self) -> None:
        """Tested with the fast path."""


class Quiet(relay._Frames):
    """A connection that notes down its frames and its writes."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock or Clock())
        self.got: list[Any] = []
        self.written: list[bytes] = []

    def frameReceived(self, kind: int, number: int, lines: bytes, body: bytes) -> None:
        self.got.append((kind, number, lines, body))
        if kind == 2:
            self.send(b"reply")

    def write(self, data: bytes) -> None:
        self.written.append(data)


class FrameTests(SynchronousTestCase):
    def test_pieces(self) -> None:
        """Frames arrive whole, however the bytes are cut."""
        sent: list[Any] = [
            (1, 7, ["", "x" * 300, "\0\xff"], b"\n\0" * 200),
            (3, 2**32 - 1, [], b""),
            (1, 0, ["y"], b""),
        ]
        data = b"".join(relay._packed(*each) for each in sent)
        for size in (1, 2, 7, 13, 1000):
            frames = Quiet()
            for at in range(0, len(data), size):
                frames.dataReceived(data[at : at + size])
            self.assertEqual(
                frames.got,
                [
                    (kind, number, "\n".join(lines).encode("latin-1"), body)
                    for kind, number, lines, body in sent
                ],
            )

    def test_lineFeeds(self) -> None:
        """No line can become two at the other end."""
        for lines in (["GET", "/", "192.0.2.1", "", "x-a", "1\nx-b"], ["\n"], ["", "\n"]):
            self.assertRaises(ValueError, relay._packed, 1, 1, lines)
        self.assertRaises(ValueError, relay._packed, 1, 1, ["\u0100"])

    def test_together(self) -> None:
        """The frames of one turn of the reactor, and the replies to one read, leave in one write."""
        clock = Clock()
        frames = Quiet(clock)
        frames.send(b"one")
        frames.send(b"two")
        self.assertEqual(frames.written, [])
        clock.advance(0)
        self.assertEqual(frames.written, [b"onetwo"])
        frames.dataReceived(relay._packed(2, 1) * 3)
        self.assertEqual(frames.written[1:], [b"reply" * 3])
        clock.advance(1)
        self.assertEqual(len(frames.written), 2)

    def test_failure(self) -> None:
        """A request that fails does not end those of others on the same connection."""
        got: list[int] = []

        class Frames(Quiet):
            def frameReceived(self, kind: int, number: int, lines: bytes, body: bytes) -> None:
                got.append(1 // number)

        Frames().dataReceived(relay._packed(1, 0) + relay._packed(1, 1))
        self.assertEqual(got, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_request(self) -> None:
        answers: list[Any] = []
        lines = "POST\n/?a=\xe4\n192.0.2.1\n1\nx-a\n1".encode("latin-1")
        request = RelayedRequest(lines, b"body", lambda *answer: answers.append(answer))
        self.assertEqual((request.method, request.url, request.peer), ("POST", "/?a=ä", "192.0.2.1"))
        self.assertTrue(request.secure)
        self.assertEqual((request.header("x-a"), request.header("x-b"), request.body(2)), ("1", "", b"bo"))
        request.respond(200, b"ok")
        request.respond(200, b"again")
        request.lost()
        self.assertEqual(len(answers), 1)


class TunnelTests(SiblingsTestCase):
    def test_upgrade(self) -> None:
        """A WebSocket on another worker takes the session over, and frames go both ways."""
        sid = self.one.openPolling()
        client = self.two.webSocket(sid)
        self.network.settle()
        client.send("2probe")
        self.network.settle()
        self.assertEqual(client.messages(), ["3probe"])
        client.send("5")
        client.send("4hello")
        self.network.settle()
        self.assertEqual(self.one.owner.heard, ["hello"])
        self.one.session.send(b"\0\1")
        self.network.settle()
        self.assertEqual(client.messages(), [b"\0\1"])
        self.assertEqual(self.two.siblings.carried, 1)
        client.link.lose()
        self.network.settle()
        self.assertEqual(self.one.owner.ends, [CloseReason.TRANSPORT_CLOSE])

    def test_draining(self) -> None:
        """A WebSocket that opens a session on a worker that drains is carried to one that takes new ones."""
        self.tell(self.one)
        self.one.engine.drain(5)
        client = self.one.webSocket()
        self.network.settle()
        assert client.response is not None
        self.assertEqual(client.response.status, 101)
        [owner] = [worker for worker in (self.two, self.three) if worker.owners]
        client.send("4hello")
        self.network.settle()
        self.assertEqual(owner.owner.heard, ["hello"])
        self.assertTrue(self.one.siblings.mustStay)
        client.link.lose()
        self.network.settle()
        self.assertFalse(self.one.siblings.mustStay)

    def test_drainingAlone(self) -> None:
        """The last worker refuses it, and tells when to try again."""
        self.tell(self.one, self.two, self.three)
        self.one.engine.drain(5)
        client = self.one.webSocket()
        self.network.settle()
        assert client.response is not None
        self.assertEqual((client.response.status, client.response.headers["retry-after"]), (503, "1"))

    def test_closed(self) -> None:
        """The end of a session ends the client's connection."""
        sid = self.one.openPolling()
        client = self.two.webSocket(sid)
        self.network.settle()
        client.send("2probe")
        client.send("5")
        self.network.settle()
        self.one.session.abort(CloseReason.FORCED_CLOSE)
        self.network.settle()
        self.network.advance(100)
        self.network.settle()
        self.assertTrue(client.link.disconnecting)

    def test_address(self) -> None:
        """The owner knows the address of the client, and whether it came over TLS."""
        self.makeWorkers(origins=())
        seen: list[Any] = []
        engine = self.one.engine
        read = engine.readHandshake

        def readHandshake(headers: Any, url: str, peer: str, secure: bool) -> Any:
            seen.append((peer, secure))
            return read(headers, url, peer, secure)

        with patch.object(engine, "readHandshake", readHandshake):
            sid = self.one.openPolling()
            seen.clear()
            self.two.webSocket(sid, address="198.51.100.4")
            self.network.settle()
            self.assertEqual(seen, [("198.51.100.4", False)])
            link = Link("198.51.100.5", secure=True)
            directlyProvides(link, ISSLTransport)
            link.setTcpNoDelay = lambda enabled: None  # type: ignore[attr-defined]
            link.connect(self.two.site)
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
            url = f"/engine.io/?EIO=4&transport=websocket&sid={sid}"
            WebSocket(link, self.two.requestBytes("GET", url, upgrade))
            self.network.settle()
            self.assertEqual(seen[1:], [("198.51.100.5", True)])
            self.network.advance(200)  # closing takes Autobahn again
            self.network.settle()

    def test_gone(self) -> None:
        """A WebSocket for a dead worker is refused as for an unknown session."""
        sid = self.one.openPolling()
        self.network.factories.clear()
        client = self.two.webSocket(sid)
        self.network.settle()
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (400, 1))

    def dies(self, client: WebSocket) -> Any:
        """Let the worker at the far end of a tunnel die before its first byte; return the response."""
        self.network.advance(0)
        for end in self.network.ends[::-1]:
            end.lose()
        self.network.settle()
        assert client.response is not None
        return client.response

    def test_goneMeanwhile(self) -> None:
        """A worker that dies before its first byte had no session: the client hears that."""
        sid = self.one.openPolling()
        self.assertEqual(self.dies(self.two.webSocket(sid)).error[:2], (400, 1))
        self.assertFalse(self.two.siblings.mustStay)

    def test_openingKilled(self) -> None:
        """A WebSocket that would have opened a session there may be tried again."""
        self.tell(self.one)
        self.one.engine.drain(5)
        response = self.dies(self.one.webSocket())
        self.assertEqual((response.status, response.headers["retry-after"]), (503, "1"))

    def test_clientGoneBefore(self) -> None:
        """A client that goes before the tunnel stands leaves nothing behind."""
        sid = self.one.openPolling()
        client = self.two.webSocket(sid)
        client.link.lose()
        self.network.settle()
        self.assertTrue(all(not end.connected or end.disconnecting for end in self.network.ends))
        self.assertEqual(self.one.owner.ends, [])

    def test_backpressure(self) -> None:
        """Each end stops reading while the other one is full."""
        sid = self.one.openPolling()
        client = self.two.webSocket(sid)
        self.network.settle()
        near, _ = self.network.ends
        near.fill()
        self.assertFalse(client.link.reading)
        near.drain()
        self.assertTrue(client.link.reading)
        client.link.fill()
        self.assertFalse(near.reading)
        client.link.drain()
        self.assertTrue(near.reading)

    def test_wrongSecret(self) -> None:
        sid = self.one.openPolling()
        forged = ("A" if sid[0] != "A" else "B") + sid[1:]
        client = self.two.webSocket(forged)
        self.network.settle()
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (400, 1))


class TunnelOnAnySiteTests(TunnelTests):
    fastPath = False


class AddressTests(SynchronousTestCase):
    def test_address(self) -> None:
        self.assertEqual(Link("192.0.2.9").getPeer(), IPv4Address("TCP", "192.0.2.9", 40000))
