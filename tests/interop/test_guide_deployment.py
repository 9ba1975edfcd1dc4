"""
The deployments of the guide: embedded, by twistd, behind nginx, several workers, and one that only sends.
"""

from __future__ import annotations

import getpass
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import javaScript, requireJavaScriptClient, untilListening
from tests.interop.environments import packagesFor
from tests.interop.test_examples import NGINX
from tests.interop.visitors import GUIDE, Visitor, requests, socketio
from tests.support import ROOT, TWISTD, Program, freePort, requirePart, startProgram

ADDRESSES = [f"127.0.{number}.1" for number in range(1, 8)]
"""Of clients: in seven networks, which ip_hash gives to different workers."""


class DeploymentTests(TestCase):
    timeout = 600

    def setUp(self) -> None:
        requirePart(socketio, "no python-socketio: pip install --group test")
        self.folder = Path(self.mktemp()).resolve()
        shutil.copytree(GUIDE, self.folder)

    def start(self, *command: str, **environment: str) -> Program:
        environment = {"PYTHONPATH": str(ROOT), **environment}
        return startProgram(self, command, cwd=str(self.folder), environment=environment)

    async def twistd(self, app: str, *options: str, **environment: str) -> tuple[Program, int]:
        """Start an application by twistd, and return its port."""
        port = freePort()
        listen = f"tcp:{port}:interface=127.0.0.1"
        command = [TWISTD, "-n", "--pidfile=", "realtime", "--app", app, "--listen", listen, *options]
        program = self.start(*command, **environment)
        await untilListening(program, port)
        if "QUEUE" in environment:
            await program.whenPrinted("is ready")  # until then it hears nobody
        return program, port

    async def nginx(self, file: Path, ports: dict[int, int]) -> int:
        """
        Start nginx with a configuration of the documentation, and return its port.

        :param ports: others than those that the file names.
        """
        requirePart(NGINX, "no nginx: apt install nginx-light")
        ports = {**ports, 8080: freePort()}
        text = file.read_text()
        for shown, port in ports.items():
            text = re.sub(rf":{shown}\b", f":{port}", text)
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        (folder / "nginx.conf").write_text(text)
        # Started by root, nginx would take a user that cannot enter this folder.
        command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        program = self.start(*command, "-g", f"user {getpass.getuser()};")
        await untilListening(program, ports[8080])
        return ports[8080]

    async def visited(self, port: int) -> None:
        """Visit the page of initialization.py, and send its event by either transport."""
        url = f"http://127.0.0.1:{port}"
        page = await deferToThread(requests.get, url, timeout=30)
        self.assertEqual(page.text, (GUIDE / "page.html").read_text())
        for transport in ("polling", "websocket"):
            client = Visitor()
            # As from a page of this address; over WebSocket this client says so by itself.
            headers = {"Origin": url} if transport == "polling" else {}
            await deferToThread(client.connect, url, transport=transport, headers=headers)
            await deferToThread(client.emit, "my event", "hello")
            self.assertEqual(await deferToThread(client.next), ("my response", {"heard": "hello"}))
            await deferToThread(client.close)

    async def stopped(self, *programs: Program) -> None:
        """Stop the programs, which must end without an error or a traceback."""
        for program in programs:
            self.assertEqual(await program.stop(), 0, program.output)
            self.assertNotIn("Traceback", program.output)

    async def test_embedded(self) -> None:
        """socketio.run(app)."""
        port = freePort()
        file = self.folder / "initialization.py"
        file.write_text(file.read_text().replace("5000", str(port)))
        program = self.start(sys.executable, "initialization.py")
        await untilListening(program, port)
        await self.visited(port)
        await self.stopped(program)

    async def test_twistd(self) -> None:
        program, port = await self.twistd("initialization:socketio")
        await self.visited(port)
        await self.stopped(program)

    async def test_oneBehindNginx(self) -> None:
        program, port = await self.twistd("initialization:socketio", "--trusted-proxy", "127.0.0.1")
        await self.visited(await self.nginx(ROOT / "docs" / "examples" / "nginx.conf", {8000: port}))
        await self.stopped(program)

    async def test_gunicorn(self) -> None:
        port = freePort()
        command = [sys.executable, "-m", "gunicorn", "-k", "txrealtime.gunicorn.Worker", "-w", "1"]
        command += ["--no-control-socket", "-b", f"127.0.0.1:{port}", "initialization:app"]
        program = self.start(*command)
        await untilListening(program, port)
        await self.visited(port)
        await self.stopped(program)

    async def test_besideUWSGI(self) -> None:
        """Views by uWSGI, Socket.IO by twistd, one address and one queue: a view reaches the clients."""
        requireJavaScriptClient("socket.io-client-4")
        requirePart(shutil.which("uwsgi"), "no uWSGI: apt install uwsgi-core uwsgi-plugin-python3")
        redis = await Redis(self).start()
        ini, port = self.folder / "uwsgi.ini", freePort()
        ini.write_text(ini.read_text().replace(":5000", f":{port}"))
        packages = packagesFor("/usr/bin/python3", "uwsgi", "flask,emitter")
        uwsgi = self.start("uwsgi", "--ini", "uwsgi.ini", "--pythonpath", packages, QUEUE=redis.url)
        await uwsgi.whenPrinted("spawned uWSGI worker 2")
        twistd, other = await self.twistd("workers:socketio", "--trusted-proxy", "127.0.0.1", QUEUE=redis.url)
        front = await self.nginx(GUIDE / "nginx-uwsgi.conf", {5000: port, 5001: other})
        url = f"http://127.0.0.1:{front}"
        page = await deferToThread(requests.get, url, timeout=30)
        self.assertRegex(page.text, r"^worker \d+$")
        self.assertNotEqual(page.text, f"worker {twistd.transport.pid}\n")
        clients = self.start(*javaScript("worker.cjs", url))
        for transport in ("polling", "websocket"):
            who = json.loads(await clients.whenPrinted(f'{{"at":"{transport}","who"'))
            self.assertEqual(who["who"], twistd.transport.pid)
        response = await deferToThread(requests.post, f"{url}/announce", data="from a view", timeout=30)
        self.assertEqual(response.text, "announced\n")
        for transport in ("polling", "websocket"):
            await clients.whenPrinted(f'{{"at":"{transport}","heard":"from a view"}}')
        await clients.stop()
        await self.stopped(uwsgi, twistd)

    async def test_threeBehindNginx(self) -> None:
        """Three workers share clients by ip_hash and events by Redis, and external.py reaches all."""
        requireJavaScriptClient("socket.io-client-4")
        redis = await Redis(self).start()
        workers, ports = [], {}
        for shown in (5000, 5001, 5002):
            worker, ports[shown] = await self.twistd(
                "workers:socketio", "--trusted-proxy", "127.0.0.1", QUEUE=redis.url
            )
            workers.append(worker)
        port = await self.nginx(GUIDE / "nginx-three.conf", ports)
        clients = self.start(*javaScript("workers.cjs", f"http://127.0.0.1:{port}", *ADDRESSES))

        def told(line: str) -> Any:
            [value] = json.loads(line).values()
            return value

        who = told(await clients.whenPrinted('"who"', 60))
        self.assertEqual([address for _, address in who], ADDRESSES)
        self.assertEqual({pid for pid, _ in who}, {worker.transport.pid for worker in workers})

        everybody, room = told(await clients.whenPrinted('"heard"', 60))
        others = len(ADDRESSES) - 1
        self.assertEqual(everybody, [["hello"]] * len(ADDRESSES))
        self.assertEqual(room, [["the end"], *[["for the room", "the end"]] * others])

        external = self.start(sys.executable, "external.py", "Dinner is ready", "red", QUEUE=redis.url)
        self.assertEqual(await external.whenEnded(), 0, external.output)
        outside = told(await clients.whenPrinted('"outside"', 60))
        self.assertEqual(outside, [["Dinner is ready"], *[["Dinner is ready", "for red"]] * others])
        self.assertEqual(await clients.whenEnded(), 0, clients.output)
        await self.stopped(*workers)
