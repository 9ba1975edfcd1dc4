"""
`twistd realtime` as processes: clients that go slowly, and workers that are one server to the outside.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from shutil import rmtree, which
from subprocess import run
from tempfile import mkdtemp
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.interop.proxies import Nginx
from tests.interop.test_workers import ADDRESS, APPLICATION, HANDSHAKE, PLACE, WorkersTestCase, alive
from tests.support import ROOT, TWISTD, Program, freePort, makeCertificate, requirePart, startProgram


class DrainTestCase(WorkersTestCase):
    """Tests with the statuses of requests."""

    def ask(self, url: str, body: bytes | None = None) -> tuple[int, bytes, Any]:
        """Return status, body and headers of a response; status 0 if there is none."""
        try:
            with urlopen(url, data=body, timeout=30) as response:
                return response.status, response.read(), response.headers
        except HTTPError as error:
            return error.code, error.read(), error.headers
        except OSError:
            return 0, b"", {}

    async def statuses(self, url: str, sids: list[str]) -> list[int]:
        """Send for each session, and return the statuses."""

        def send() -> list[int]:
            return [self.ask(f"{url}{HANDSHAKE}&sid={sid}", b"3")[0] for sid in sids]

        return await deferToThread(send)

    async def health(self, url: str) -> tuple[int, dict[str, Any]]:
        status, body, _ = await deferToThread(self.ask, f"{url}/health")
        return status, json.loads(body or b"{}")

    async def settled(self, url: str, workers: int) -> None:
        """Wait until the page names so many workers, and all of them serve."""
        deadline = reactor.seconds() + 60
        while True:
            _, body = await self.health(url)
            states = [worker["state"] for worker in body["workers"]]
            if states == ["ready"] * workers:
                return
            self.assertLess(reactor.seconds(), deadline, body)
            await deferLater(reactor, 0.05)

    async def counted(self, url: str, clients: int) -> dict[str, Any]:
        """Return the healthy page, once the workers have told of so many clients."""
        deadline = reactor.seconds() + 60
        while True:
            status, body = await self.health(url)
            counts = sum(worker.get("clients", 0) for worker in body.get("workers", ()))
            if (status, counts, body.get("clients")) == (200, clients, clients):
                return body
            self.assertLess(reactor.seconds(), deadline, body)
            await deferLater(reactor, 0.1)


class DrainTests(DrainTestCase):
    async def play(self, program: Program, url: str) -> None:
        """Stop a server of 20 clients by SIGTERM, and look at it in the delay and between the slices."""
        sids = [self.open(url) for _ in range(20)]
        self.assertEqual((await self.health(url))[0], 200)
        begun = time.monotonic()
        program.signal("TERM")
        await program.whenPrinted("draining")
        # A worker that hears of it later than the first one is healthy until then.
        while (status := (await self.health(url))[0]) == 200 and time.monotonic() - begun < 1:
            await deferLater(reactor, 0.02)
        code, body, _ = await deferToThread(self.ask, url + HANDSHAKE)
        before = await self.statuses(url, sids)
        if time.monotonic() - begun < 1:  # else the machine was too busy for a judgement
            self.assertEqual((status, code, before), (503, 200, [200] * 20))
        if code == 200:
            sids.append(json.loads(body[1:])["sid"])
        # Without workers, all sessions are of one.
        worker = (lambda sid: sid[-4:]) if self.pids(program) else (lambda sid: "")
        left, draining = sids, set[str]()
        seen, slowest = [], 0.0
        refused = looks = 0
        while left:
            look = time.monotonic()
            statuses = await self.statuses(url, left)
            draining |= {worker(sid) for sid, status in zip(left, statuses, strict=True) if status == 400}
            left = [sid for sid, status in zip(left, statuses, strict=True) if status == 200]
            seen.append(len(left))
            looks += 1 < time.monotonic() - begun < 4
            if left and draining:
                code, body, headers = await deferToThread(self.ask, url + HANDSHAKE)
                if code == 200:  # of a worker that hears of it later
                    self.assertNotIn(worker(json.loads(body[1:])["sid"]), draining)
                elif code:
                    self.assertEqual((code, headers["Retry-After"]), (503, "3"))
                    refused += 1
            await deferLater(reactor, 0.2)
            slowest = max(slowest, time.monotonic() - look)
        # A busy machine has time for few looks between the first slice and the last, or stands still.
        if slowest < 1:
            slices = {count for count in seen if 0 < count < len(sids)}
            self.assertGreaterEqual(len(slices), min(3, looks // 2), seen)
            self.assertTrue(refused or looks < 5, seen)
        self.assertGreater(time.monotonic() - begun, 3)
        self.assertEqual(await program.whenEnded(), 0, program.output)

    options = ("--drain", "3", "--drain-delay", "1", "--health", "/health")

    async def test_oneProcess(self) -> None:
        program = self.start("--app", "shop:server", "--listen", PLACE, *self.options)
        await program.whenPrinted("serving Socket.IO at", 120)
        found = ADDRESS.search(program.output)
        assert found is not None
        await self.play(program, found[1])

    async def test_workers(self) -> None:
        program, url = await self.serve(3, *self.options)
        await self.play(program, url)
        self.assertEqual([pid for pid in self.pids(program) if alive(pid)], [])

    async def lookAtMetrics(self, program: Program, url: str, place: str) -> None:
        """Read the endpoint of the metrics while a client that polls keeps the server draining."""
        # The port is closed to new connections before the drain ends.
        connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.addCleanup(connection.close)

        def request(path: str, body: str | None = None) -> str:
            connection.request("GET" if body is None else "POST", HANDSHAKE + path, body)
            return connection.getresponse().read().decode()

        sid = json.loads((await deferToThread(request, ""))[1:])["sid"]
        await deferToThread(request, f"&sid={sid}", "40")
        program.signal("TERM")
        await program.whenPrinted("stopping: 1 clients have")
        await deferLater(reactor, 2.5)
        status, page, _ = await deferToThread(self.ask, f"{place}/metrics")
        self.assertEqual(status, 200)
        self.assertIn(b'txrealtime_sessions{transport="polling"} 1', page.splitlines())
        status, page, _ = await deferToThread(self.ask, f"{place}/readyz")
        self.assertEqual(status, 503)
        self.assertRegex(page, b"draining|stopping")
        self.assertEqual((await self.health(place))[0], 503)
        self.assertIn("40{", await deferToThread(request, f"&sid={sid}"))
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertNotIn("Traceback", program.output)

    def monitored(self) -> tuple[str, list[str]]:
        """Return the address of an endpoint for metrics, and the options."""
        port = freePort()
        options = ["--metrics-listen", f"tcp:{port}:interface=127.0.0.1", "--probes", "--health", "/health"]
        return f"http://127.0.0.1:{port}", [*options, "--drain-timeout", "60", "--handshake-timeout", "90"]

    async def test_metricsOfOneProcess(self) -> None:
        place, options = self.monitored()
        program = self.start("--app", "shop:server", "--listen", PLACE, *options)
        await program.whenPrinted("serving Socket.IO at", 120)
        found = ADDRESS.search(program.output)
        assert found is not None
        await self.lookAtMetrics(program, found[1], place)

    async def test_metricsOfWorkers(self) -> None:
        place, options = self.monitored()
        program, url = await self.serve(2, *options)
        await self.lookAtMetrics(program, url, place)

    async def test_reload(self) -> None:
        """After SIGHUP the old workers serve their clients until the slices; new ones have new code."""
        program, url = await self.serve(2, "--wsgi", "shop:wsgi", *self.options)
        old = self.pids(program)
        sids = [self.open(url) for _ in range(20)]
        self.application(APPLICATION.replace('"first"', '"second"'))
        program.signal("HUP")
        await program.whenPrinted("new workers serve")
        marks = {sid[-4:] for sid in sids}
        seen, left, looks, begun = [], sids, 0, reactor.seconds()
        draining, slowest = set[str](), 0.0
        while left:
            look = reactor.seconds()
            statuses = await self.statuses(url, left)
            self.assertTrue({200, 400} >= set(statuses), statuses)
            draining |= {sid[-4:] for sid, status in zip(left, statuses, strict=True) if status == 400}
            left = [sid for sid, status in zip(left, statuses, strict=True) if status == 200]
            seen.append(len(left))
            looks += 1 < reactor.seconds() - begun < 4
            self.assertEqual((await self.health(url))[0], 200)
            # A busy worker may hear late that it stops, and takes clients until then.
            self.assertNotIn((await deferToThread(self.open, url))[-4:], draining)
            _, body, _ = await deferToThread(self.ask, f"{url}/")
            if draining == marks:
                self.assertTrue(body.startswith(b"second"))
            await deferLater(reactor, 0.2)
            slowest = max(slowest, reactor.seconds() - look)
        # A busy machine has time for few looks between the first slice and the last, or stands still.
        if slowest < 1:
            self.assertGreaterEqual(
                len({count for count in seen if 0 < count < 20}), min(3, looks // 2), seen
            )
        await self.until(lambda: not any(map(alive, old)))
        # The supervisor hears of an end a moment after it.
        await self.settled(url, 2)
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0)

    async def test_reloadBehindAProxy(self) -> None:
        """A proxy that keeps connections for the requests of many clients has no error in two reloads."""
        proxy = Nginx(self)
        port = freePort()
        program, _ = await self.serve(
            2, "--drain", "2", "--trusted-proxy", "127.0.0.1", listen=f"tcp:{port}:interface=127.0.0.1"
        )
        await proxy.start(port)
        seen: Counter[tuple[str, int]] = Counter()
        ends: list[bool] = []

        def visit() -> None:
            while not ends:
                status, body, _ = self.ask(proxy.url + HANDSHAKE)
                seen["open", status] += 1
                if status == 200:
                    sid = json.loads(body[1:])["sid"]
                    for _ in range(5):
                        status, _, _ = self.ask(f"{proxy.url}{HANDSHAKE}&sid={sid}", b"3")
                        seen["post", status] += 1

        visiting = [deferToThread(visit) for _ in range(4)]
        try:
            for generation in range(2):
                old = self.pids(program)
                program.signal("HUP")
                await self.until(lambda g=generation: program.output.count("new workers serve") > g, 60)
                await self.until(lambda pids=old: not any(map(alive, pids)))
        finally:
            ends.append(True)
            for each in visiting:
                await each
        # A session that was let go is unknown; everything else is served.
        self.assertEqual(seen.keys() - {("open", 200), ("post", 200), ("post", 400)}, set(), seen)
        self.assertGreater(seen["post", 200], 50)
        await self.stopped(program)
        self.assertGreater(self.counts(program)["relayed"], 0)


class OneServerTests(DrainTestCase):
    """Workers look like one server."""

    async def test_limits(self) -> None:
        """A limit on sessions holds for all workers; a worker that is killed gives its share back."""
        program, url = await self.serve(4, "--max-connections", "30", "--health", "/health")
        sids = [self.open(url) for _ in range(30)]
        self.assertGreater(len({sid[-4:] for sid in sids}), 2)
        for _ in range(8):
            status, body, _ = await deferToThread(self.ask, url + HANDSHAKE)
            self.assertEqual((status, json.loads(body)["code"]), (503, 3))
        body = await self.counted(url, 30)
        victim = body["workers"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        await self.until(lambda: "was ended by SIGKILL" in program.output)
        # The other workers hear of it a moment later.
        free, deadline = 0, reactor.seconds() + 60
        while free < victim["clients"]:
            free += (await deferToThread(self.ask, url + HANDSHAKE))[0] == 200
            self.assertLess(reactor.seconds(), deadline, free)
        status, body, _ = await deferToThread(self.ask, url + HANDSHAKE)
        self.assertEqual((status, json.loads(body)["code"]), (503, 3))
        await self.stopped(program)

    async def test_limitOfAnAddress(self) -> None:
        program, url = await self.serve(4, "--max-connections-per-address", "8")
        statuses = [(await deferToThread(self.ask, url + HANDSHAKE))[0] for _ in range(16)]
        self.assertEqual(statuses, [200] * 8 + [429] * 8)
        await self.stopped(program)

    async def test_shares(self) -> None:
        """The shares are even, also with a worker that has just come."""
        program, url = await self.serve(2, "--probes", "--health", "/health")
        for _ in range(60):
            self.open(url)
        os.kill(program.transport.pid, signal.SIGTTIN)
        await self.until(lambda: len(self.pids(program)) == 3)
        for _ in range(40):
            self.open(url)
        body = await self.counted(url, 100)
        counts = [worker["clients"] for worker in body["workers"]]
        self.assertLessEqual(max(counts), 1.1 * min(counts) + 2, counts)
        _, page, _ = await deferToThread(self.ask, f"{url}/readyz?verbose")
        self.assertIn(b"[+] workers: 0 ready, 1 ready, 2 ready\n[+] room: 100 sessions", page)
        await self.stopped(program)

    async def test_log(self) -> None:
        """The options of the log are for all workers: each line is JSON, and bears the worker."""
        program, url = await self.serve(
            2, "--log-format", "json", "--log-level", "info", "--trace-packets", "all"
        )
        sids = [self.open(url) for _ in range(10)]
        await self.until(lambda: program.output.count('"type": "OPEN"') >= 10)
        await self.stopped(program)
        lines = [json.loads(line) for line in program.output.splitlines() if line.startswith("{")]
        opened = [line for line in lines if line["values"].get("type") == "OPEN"]
        self.assertEqual({line["values"]["worker"] for line in opened}, {0, 1})
        self.assertEqual({line["values"]["session"] for line in opened}, {sid[:6] for sid in sids})
        self.assertTrue(all(line["system"] == "txrealtime.monitor.trace" for line in opened))
        self.assertNotIn("debug", {line["level"] for line in lines})

    async def test_notify(self) -> None:
        """systemd hears that it serves, reloads and stops."""
        folder = mkdtemp()  # the path of a socket is short
        self.addCleanup(rmtree, folder)
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(f"{folder}/notify")
        manager.setblocking(False)
        told: list[str] = []

        def has(*fields: str) -> bool:
            try:
                while True:
                    told.extend(manager.recv(4096).decode().splitlines())
            except BlockingIOError:
                return set(fields) <= set(told)

        arguments = ("--app", "shop:server", "--workers", "2", "--listen", PLACE)
        environment = {
            "PYTHONPATH": str(ROOT),
            "NOTIFY_SOCKET": f"{folder}/notify",
            "WATCHDOG_USEC": "1000000",
        }
        program = startProgram(
            self,
            [TWISTD, "-n", "--pidfile=", "realtime", *arguments],
            cwd=str(self.folder),
            environment=environment,
        )
        await self.until(lambda: has("READY=1", "STATUS=2 of 2 workers serve", "WATCHDOG=1"), 120)
        told.clear()
        program.signal("HUP")
        await self.until(lambda: has("RELOADING=1", "READY=1"), 120)
        self.assertTrue(any(re.fullmatch(r"MONOTONIC_USEC=\d+", field) for field in told))
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertTrue(has("STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"), told)

    async def test_affinity(self) -> None:
        """Over TLS the connections of one client are together, so that nothing is relayed."""
        makeCertificate(self.folder / "both.pem")
        place = "ssl:0:interface=127.0.0.1:privateKey=both.pem:certKey=both.pem"
        program, url = await self.serve(4, listen=place)

        def play() -> list[int]:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with urlopen(url + HANDSHAKE, timeout=30, context=context) as response:
                sid = json.loads(response.read()[1:])["sid"]
            statuses = []
            for _ in range(20):
                with urlopen(f"{url}{HANDSHAKE}&sid={sid}", b"3", timeout=30, context=context) as response:
                    statuses.append(response.status)
            return statuses

        self.assertEqual(await deferToThread(play), [200] * 20)
        await self.stopped(program)
        counts = self.counts(program)
        self.assertEqual(counts["relayed"], 0)


class UnitTests(DrainTestCase):
    def test_unit(self) -> None:
        """systemd accepts the unit of the documentation."""
        analyze = which("systemd-analyze")
        requirePart(analyze, "no systemd-analyze")
        assert analyze is not None
        unit = self.folder / "chat.service"
        text = Path(ROOT, "docs/examples/chat.service").read_text()
        # The program need not be installed there.
        unit.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={TWISTD}", text))
        checked = run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
        complaints = [line for line in checked.stderr.splitlines() if "chat.service" in line]
        self.assertEqual((checked.returncode, complaints), (0, []), checked.stderr)
