"""
The hub of one machine at a real Unix socket: its file, servers of other processes, and emitters.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.brokers import pauseProcess
from tests.interop.clients import RealtimeServer, javaScript, python, requireJavaScriptClient
from tests.interop.test_cluster_faults import FaultsTestCase
from tests.interop.test_clusters import STEPS, played
from tests.interop.test_emitters import FIRST, SECOND, EmittersTestCase
from tests.support import ROOT, TWISTD, Program, run, startProgram
from txrealtime import BusError, DeferredEmitter, Emitter
from txrealtime.cluster.bus.blocking import publisherFromURL
from txrealtime.cluster.bus.interfaces import Subscription
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.workers.hub import Hub

TAC = """
from twisted.application.service import Application
from twisted.internet import reactor

from txrealtime.workers.hub import Hub

application = Application("hub")
Hub({path!r}, reactor).setServiceParent(application)
"""


class HubProcess:
    """
    A hub in a process of its own, started by `twistd -ny`.
    """

    def __init__(self, case: TestCase) -> None:
        self.folder = tempfile.mkdtemp()
        case.addCleanup(shutil.rmtree, self.folder, True)
        self.path = f"{self.folder}/chat.hub"
        self.url = f"unix:{self.path}"
        self._case = case
        self._tac = Path(self.folder, "hub.tac")
        self._tac.write_text(TAC.format(path=self.path))

    async def start(self) -> HubProcess:
        command = [TWISTD, "--pidfile=", "-noy", str(self._tac)]
        self.program: Program = startProgram(self._case, command, environment={"PYTHONPATH": str(ROOT)})
        await self.program.whenPrinted("the hub listens")
        return self

    async def kill(self) -> None:
        self.program.signal("KILL")
        await self.program.whenEnded()


class SocketFileTests(TestCase):
    """
    The file of the socket.
    """

    timeout = 300

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = f"{self.folder}/hub"

    async def started(self) -> Hub:
        hub = Hub(self.path, reactor)
        hub.startService()
        self.addCleanup(hub.stopService)
        return hub

    async def test_private(self) -> None:
        """The file is never open to others, whatever the process's umask is."""
        modes: list[int] = []
        chmod = os.chmod
        self.addCleanup(os.umask, os.umask(0))

        def watched(path: str, mode: int) -> None:
            modes.append(stat.S_IMODE(os.stat(path).st_mode))
            chmod(path, mode)

        self.patch(os, "chmod", watched)
        hub = await self.started()
        modes.append(stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertEqual(modes, [0o600, 0o600])
        self.assertEqual(os.umask(0), 0)
        await hub.stopService()
        self.assertEqual(os.listdir(self.folder), [])

    async def test_stale(self) -> None:
        """The file of a killed hub is replaced."""
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(self.path)
            killed.listen()
        await self.started()
        with Emitter(f"unix:{self.path}") as emitter:
            await deferToThread(emitter.emit, "hi")

    async def test_taken(self) -> None:
        """Another hub's file stays, and so does one that is not a socket."""
        first = await self.started()
        with self.assertRaisesRegex(CannotListenError, "another process listens there"):
            await self.started()
        await first.stopService()
        Path(self.path).write_text("mine")
        with self.assertRaisesRegex(CannotListenError, "not a socket"):
            await self.started()
        self.assertEqual(Path(self.path).read_text(), "mine")
        self.path = f"{self.folder}/nowhere/hub"
        with self.assertRaisesRegex(CannotListenError, "No such file"):
            await self.started()

    async def test_busyHub(self) -> None:
        """A hub whose queue of connections is full is not taken for dead."""
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
            busy.bind(self.path)
            busy.listen(0)
            waiting.connect(self.path)
            with self.assertRaisesRegex(CannotListenError, "another process listens there"):
                await self.started()


class ClusterTests(TestCase):
    """
    Servers of several processes, each with two clients: the steps of test_clusters.
    """

    timeout = 400

    async def test_ours(self) -> None:
        """The first server runs the hub."""
        requireJavaScriptClient("@socket.io/redis-adapter")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = f"{folder}/chat.hub"
        servers = [
            RealtimeServer(self, "--app", "tests.interop.member:server", *options)
            for options in (("--hub", path), *[("--bus", f"unix:{path}")] * 3)
        ]
        for server in servers:
            await server.start()
        steps = await played(self, javaScript("cluster.cjs", "native", *(server.url for server in servers)))
        self.assertEqual(steps, STEPS)
        second = RealtimeServer(self, "--hub", path)
        second.program = startProgram(self, second._command, environment={"PYTHONPATH": str(ROOT)})
        self.assertEqual(await second.program.whenEnded(), 1)
        self.assertIn(f"cannot listen on unix:{path}: another process listens there", second.program.output)
        for server in reversed(servers):
            await server.stop()
        self.assertEqual(os.listdir(folder), [])


class FaultTests(FaultsTestCase):
    """
    A hub that dies, while each server counts upwards to everybody.
    """

    async def test_killedAndRestarted(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        hub = await HubProcess(self).start()
        await self.start(hub.url)
        await hub.kill()
        await self.printed("is deaf")
        noticed = time.time()
        await deferLater(reactor, 2)
        await hub.start()
        await self.checkRestarted(noticed)


class EmitterTests(EmittersTestCase):
    """
    Emitters of other processes, on a key of their own.
    """

    async def setUp(self) -> None:
        self.hub = await HubProcess(self).start()
        await self.serve(self.hub.url, "?key=shop")

    async def test_emitter(self) -> None:
        await self.emit(*python("emitters.py", "Emitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_deferredEmitter(self) -> None:
        await self.emit(*python("emitters.py", "DeferredEmitter", self.bus))
        await self.assertHeard(FIRST, SECOND)

    async def test_commandLine(self) -> None:
        command = [sys.executable, "-m", "txrealtime", "emit", "--bus", self.bus]
        run(*command, "--to", "room 1", "hi", '{"json": 1}', "2", cwd=ROOT)
        run(*command, "--excluding", "room 1", "end", cwd=ROOT)
        await self.assertHeard(['0 ["end"]'], ['1 ["hi",{"json":1},2]'])


class EmitterFaultTests(TestCase):
    """
    Emitters whose hub dies, hangs, or is none.
    """

    timeout = 300

    async def setUp(self) -> None:
        self.hub = await HubProcess(self).start()
        self.heard: list[bytes] = []

    async def listen(self) -> None:
        subscriber = await busFromURL(self.hub.url).openSubscriber(reactor, lambda reason: None)
        self.addCleanup(subscriber.abort)
        await subscriber.subscribe(Subscription("*", True, lambda topic, data: self.heard.append(data)))

    async def count(self, number: int) -> None:
        while len(self.heard) < number:
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.1)
        self.assertEqual(len(self.heard), number)

    async def test_hubRestarted(self) -> None:
        """An emitter that was idle meanwhile loses nothing."""
        await self.listen()
        with Emitter(self.hub.url) as emitter:
            await deferToThread(emitter.emit, "hi")
            await self.count(1)
            await self.hub.kill()
            with self.assertRaisesRegex(BusError, f"no hub listens at {self.hub.path}: start one"):
                await deferToThread(emitter.emit, "hi")
            await self.hub.start()
            await self.listen()
            await deferToThread(emitter.emit, "hi")
            await self.count(2)

    async def test_hangs(self) -> None:
        blocking = Emitter(self.hub.url, timeout=5)
        deferred = DeferredEmitter(self.hub.url, reactor=reactor, timeout=5)
        self.addCleanup(deferred.close)
        await deferToThread(blocking.emit, "hi")
        pauseProcess(self.hub.program.transport.pid)
        with self.assertRaisesRegex(BusError, f"unix:{self.hub.path} has not taken the message: timed out"):
            await deferToThread(blocking.emit, "hi")
        with self.assertRaisesRegex(BusError, "no answer within 5 s"):
            await deferred.emit("hi")
        os.kill(self.hub.program.transport.pid, signal.SIGCONT)
        await deferToThread(blocking.emit, "hi")
        blocking.close()

    async def test_threads(self) -> None:
        await self.listen()
        with Emitter(self.hub.url) as emitter:
            threads = [Thread(target=lambda: [emitter.emit("hi", n) for n in range(100)]) for _ in range(5)]
            for thread in threads:
                thread.start()
            await self.count(500)
            for thread in threads:
                thread.join()

    async def test_forked(self) -> None:
        """A forked process makes a connection of its own."""
        await self.listen()
        script = (
            "import os, sys\n"
            "from txrealtime import Emitter\n"
            "emitter = Emitter(sys.argv[1])\n"
            "emitter.emit('parent')\n"
            "child = os.fork()\n"
            "for n in range(200): emitter.emit('both', n, 'x' * 2000)\n"
            "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        program = startProgram(
            self, [sys.executable, "-c", script, self.hub.url], environment={"PYTHONPATH": str(ROOT)}
        )
        self.assertEqual(await program.whenEnded(), 0, program.output)
        await self.count(401)

    async def test_somethingElse(self) -> None:
        """A socket of another program is told from a hub."""
        path = f"{self.hub.folder}/other"

        def serve(listening: socket.socket) -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"-ERR unknown command\r\n")

        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            thread = Thread(target=serve, args=(listening,))
            thread.start()
            with Emitter(f"unix:{path}") as emitter, self.assertRaisesRegex(BusError, "something else"):
                await deferToThread(emitter.emit, "hi")
            thread.join()

    async def test_large(self) -> None:
        """The largest payload, and a topic longer than 64 kB."""
        await self.listen()
        publisher = publisherFromURL(self.hub.url, (), 60)
        await deferToThread(publisher.publish, "t" * 100_000, bytes(2_000_000))
        await self.count(1)
        self.assertEqual(len(self.heard[0]), 2_000_000)
        publisher.close()
