"""
Operating `twistd realtime`: signals, certificates, logs, the clock of the system, restarts behind nginx.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import signal
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.interop.clients import untilListening
from tests.interop.test_twistd import ADDRESS, ENVIRONMENT, FREE, ProcessTestCase
from tests.support import ROOT, TWISTD, Program, freePort, makeCertificate, requirePart, startProgram

try:
    import socketio
    import websocket

    from tests.interop.py.orderly import Client
except ImportError:
    socketio = websocket = None

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class OperationsTestCase(ProcessTestCase):
    """
    Tests with clients of python-socketio, which stay for the test.
    """

    async def client(self, url: str, address: str = "127.0.0.1", **options: Any) -> Any:
        """
        Connect a client, whose `left` is set if it is disconnected.

        :param address: for a proxy that believes the client.
        """
        requirePart(socketio, "no python-socketio: pip install python-socketio requests websocket-client")
        client = Client(**{"reconnection": False, "ssl_verify": False, **options})
        client.left = threading.Event()
        client.on("disconnect", lambda *reason: client.left.set())
        headers = {"X-Forwarded-For": address}
        await deferToThread(client.connect, url, headers, transports=["websocket"], wait_timeout=30)
        self.addCleanup(deferToThread, client.disconnect)
        return client

    async def until(self, condition: Any, what: str, seconds: float = 60) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            await deferLater(reactor, 0.05)

    async def logging(self, *arguments: str, usePTY: bool = False) -> tuple[Program, str]:
        """Start a server that logs to server.log, and wait for its address."""
        command = [TWISTD, "-n", "--pidfile=", "--logfile", "server.log", "realtime", "--app", "shop:server"]
        program = Program([*command, "--listen", FREE, *arguments])
        reactor.spawnProcess(program, TWISTD, program.command, ENVIRONMENT, str(self.folder), usePTY=usePTY)
        self.addCleanup(program.stop)
        log = self.folder / "server.log"
        await self.until(lambda: log.exists() and ADDRESS.search(log.read_text()), "no address")
        [url] = ADDRESS.findall(log.read_text())
        return program, url


class SecureClient:
    """
    A client over TLS in one thread.

    python-socketio's client reads and writes its TLS connection in two threads, and Python 3.11 has no
    lock there. One connect in 300 then ends as if the server had closed it, with any server.
    """

    def __init__(self, url: str) -> None:
        address = url.replace("https:", "wss:") + "socket.io/?EIO=4&transport=websocket"
        self.connection = websocket.create_connection(
            address, timeout=30, sslopt={"cert_reqs": ssl.CERT_NONE}
        )
        self.connection.recv()
        self.connection.send("40")
        self.connection.recv()

    def call(self, event: str, argument: object) -> Any:
        """Send an event, and return the first argument of its ack."""
        self.connection.send("420" + json.dumps([event, argument]))
        return json.loads(self.connection.recv().removeprefix("430"))[0]


class SignalTests(OperationsTestCase):
    async def test_certificates(self) -> None:
        """HUP: new connections get the new certificate, and old ones stay."""
        makeCertificate(self.folder / "pair.pem")
        listen = "ssl:0:interface=127.0.0.1:privateKey=pair.pem"
        program, [url] = await self.serve("--app", "shop:server", "--listen", listen)
        match = re.search(r":(\d+)/", url)
        assert match is not None
        address = ("127.0.0.1", int(match[1]))
        requirePart(websocket, "no websocket-client: pip install python-socketio requests websocket-client")
        client = await deferToThread(SecureClient, url)
        self.addCleanup(client.connection.close)
        before = await deferToThread(ssl.get_server_certificate, address)
        makeCertificate(self.folder / "pair.pem")
        self.assertEqual(await deferToThread(ssl.get_server_certificate, address), before)
        program.signal("HUP")
        await program.whenPrinted("the certificates have been read again")
        after = await deferToThread(ssl.get_server_certificate, address)
        self.assertNotEqual(after, before)
        self.assertIn(after.strip(), (self.folder / "pair.pem").read_text())
        (self.folder / "pair.pem").write_text("broken")
        program.signal("HUP")
        await program.whenPrinted("the certificates cannot be read again, and the old ones stay in use")
        self.assertEqual(await deferToThread(ssl.get_server_certificate, address), after)
        self.assertEqual(await deferToThread(client.call, "echo", "hello"), "hello")
        await self.stopped(program)

    async def test_logs(self) -> None:
        """USR1 and HUP: after logrotate has moved the log, a new one is begun."""
        program, url = await self.logging()
        client = await self.client(url)
        log = self.folder / "server.log"
        for name in ("USR1", "HUP"):
            moved = log.rename(self.folder / f"server.log.{name}")
            os.kill(program.transport.pid, signal.Signals[f"SIG{name}"])
            await self.until(log.exists, f"SIG{name}: no new log")
            await self.until(lambda: "has been reopened" in log.read_text(), "nothing in it")
            self.assertIn(f"SIG{name} received", moved.read_text())
        self.assertEqual(await deferToThread(client.call, "echo", "hello"), "hello")
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0)
        self.assertIn("stopped", log.read_text())

    async def test_terminalClosed(self) -> None:
        """The server of a terminal that is closed stops in order, and tells its clients."""
        program, url = await self.logging(usePTY=True)
        client = await self.client(url)
        program.signal("HUP")
        log = self.folder / "server.log"
        await self.until(lambda: "SIGHUP received" in log.read_text(), "no signal")
        self.assertFalse(client.left.is_set())
        program.transport.loseConnection()
        self.assertTrue(await deferToThread(client.left.wait, 60))
        await self.until(lambda: "stopped" in log.read_text(), "not stopped")


class ClockTests(OperationsTestCase):
    timeout = 300

    async def test_steps(self) -> None:
        """Heartbeats go on, whatever the time of day does: nobody is closed or forgotten."""
        requirePart(FAKETIME, "no libfaketime: apt install faketime")
        time_ = self.folder / "time"
        time_.write_text("+0")
        environment = {
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(time_),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        options = ["--listen", FREE, "--ping-interval", "0.5", "--ping-timeout", "20"]
        command = [TWISTD, "-n", "--pidfile=", "realtime", "--app", "shop:server", *options]
        program = startProgram(self, command, cwd=str(self.folder), environment=environment)
        [url] = await self.serving(program)
        client = await self.client(url)
        pings: list[float] = []
        send = client.eio._send_packet

        def watched(packet: Any) -> None:
            # The client answers each ping by a pong.
            if packet.packet_type == 3:
                pings.append(time.monotonic())
            send(packet)

        client.eio._send_packet = watched
        for step in ("-2h", "-1", "+1", "+1h", "+28h", "+0"):
            time_.write_text(step)
            # Another ping might be on its way.
            count = len(pings) + 3
            await self.until(lambda count=count: len(pings) >= count, f"{step}: no pings")
            self.assertFalse(client.left.is_set(), f"{step}: {program.output}")
            self.assertEqual(await deferToThread(client.call, "echo", step), step)
        await self.stopped(program)


class LogTests(OperationsTestCase):
    async def test_healthChecks(self) -> None:
        """A prober each second would be 86,400 lines a day."""
        program, [url] = await self.serve("--app", "shop:server", "--listen", FREE, "--health", "/health")
        self.get(f"{url}health")
        self.assertRaises(HTTPError, self.get, f"{url}nothing")
        await program.whenPrinted("GET /nothing")
        self.assertNotIn("GET /health", program.output)
        await self.stopped(program)


class RollingRestartTests(OperationsTestCase):
    """
    Workers restarted one after the other, behind nginx as the documents have it.
    """

    timeout = 300
    WORKERS = 3

    async def worker(self, port: int) -> Program:
        listen = f"tcp:{port}:interface=127.0.0.1"
        command = [TWISTD, "-n", "--pidfile=", "realtime", "--app", "shop:server", "--listen", listen]
        program = startProgram(
            self, [*command, "--trusted-proxy", "127.0.0.1"], cwd=str(self.folder), environment=ENVIRONMENT
        )
        await self.serving(program)
        return program

    async def nginx(self, file: Path, first: int, ports: list[int]) -> str:
        port, folder = freePort(), self.folder / file.name
        folder.mkdir()
        text = file.read_text().replace("8080", str(port))
        # All clients are at one address, and would have one worker: believe what they say.
        believing = "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;"
        text = text.replace("access_log off;", f"access_log off; {believing}")
        for number, own in enumerate(ports):
            text = re.sub(rf"(server 127\.0\.0\.1:){first + number}\b", rf"\g<1>{own}", text)
        (folder / "nginx.conf").write_text(text)
        # Started by root, nginx would take a user that cannot enter this folder.
        command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        program = startProgram(self, [*command, "-g", f"user {getpass.getuser()};"])
        await untilListening(program, port)
        return f"http://127.0.0.1:{port}/"

    async def restarted(self, file: Path, first: int) -> None:
        """Restart all workers, and see that no client is ever refused."""
        requirePart(NGINX, "no nginx: apt install nginx-light")
        ports = [freePort() for _ in range(self.WORKERS)]
        workers = [await self.worker(port) for port in ports]
        url = await self.nginx(file, first, ports)
        errors: list[Any] = []
        clients = []
        often = {"reconnection": True, "reconnection_delay": 0.1, "reconnection_delay_max": 0.2}
        for number in range(12):
            client = await self.client(url, f"10.{number}.{number}.{number}", **often)
            client.on("connect_error", errors.append)
            clients.append(client)
        for number, port in enumerate(ports):
            await workers[number].stop()
            await deferLater(reactor, 0.5)
            workers[number] = await self.worker(port)
            await self.until(lambda: all(client.connected for client in clients), "not all came back")
        # Each worker had some.
        self.assertTrue(all(client.left.is_set() for client in clients))
        self.assertEqual(errors, [])
        for client in clients:
            self.assertEqual(await deferToThread(client.call, "echo", "hello"), "hello")

    async def test_threeWorkers(self) -> None:
        await self.restarted(ROOT / "docs" / "examples" / "guide" / "nginx-three.conf", 5000)

    async def test_cluster(self) -> None:
        await self.restarted(ROOT / "docs" / "examples" / "nginx-cluster.conf", 8001)
