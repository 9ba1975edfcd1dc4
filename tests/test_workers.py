"""
The supervisor on a clock, with processes that are only noted down; and the ends of sids.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.workers.child import Child, State
from txrealtime.workers.folder import Folder
from txrealtime.workers.listening import withoutPlace
from txrealtime.workers.looks import Limits, residentBytes
from txrealtime.workers.marks import MOST_WORKERS, markOf, ownerOf
from txrealtime.workers.notify import Notifier, withoutSystemd
from txrealtime.workers.supervisor import Supervisor, Task
from txrealtime.workers.worker import CANNOT_START, COMMANDS, REPORTS, Supervision


class MarkTests(SynchronousTestCase):
    def test_marks(self) -> None:
        """Each worker and generation has a mark of its own, and its sids lead back to it."""
        marks = {markOf(number, generation) for number in (0, 1, 255) for generation in (1, 2, 65535)}
        self.assertEqual(len(marks), 9)
        for mark in marks:
            self.assertRegex(mark, r"\A[A-Za-z0-9_-]{4}\Z")
            self.assertEqual(ownerOf("x" * 16 + mark), mark)
            self.assertEqual(ownerOf("x" * 16 + mark + ".shop-1"), mark)
        self.assertEqual(markOf(1, 1), markOf(1, 65537))
        self.assertLessEqual(len(markOf(MOST_WORKERS - 1, 1)), 4)

    def test_noMarks(self) -> None:
        """A client chooses the sid, which must not name another file."""
        for sid in (
            "",
            "x" * 19,
            "x" * 21,
            "x" * 16 + "/../",
            "x" * 16 + "a\0bc",
            "x" * 16 + "abc\n",
            "x" * 20 + ".",
            "x" * 20 + ".A",
            "x" * 20 + ".a.b",
            "x" * 20 + "./..",
            "x" * 20 + "." + "a" * 17,
            "x" * 20 + ".a\n",
            "é" * 20,
        ):
            self.assertIsNone(ownerOf(sid), sid)


class Process:
    """A process that does nothing by itself."""

    def __init__(self, protocol: Child, pid: int, command: list[str], childFDs: dict[int, Any]) -> None:
        self.protocol = protocol
        self.pid = pid
        self.command = command
        self.childFDs = childFDs
        self.signals: list[str] = []
        self.commands = b""
        self.fleet: list[dict[str, Any]] = []
        self.fleets = 0
        self.known: list[tuple[int, str, bool]] = []
        self.ended = False
        self.held = False
        protocol.makeConnection(self)

    def signalProcess(self, number: int) -> None:
        if self.ended:
            raise ProcessExitedAlready
        assert type(number) is int, "Twisted knows few signals by name"
        self.signals.append(signal.Signals(number).name.removeprefix("SIG"))

    def writeToChild(self, childFD: int, data: bytes) -> None:
        assert childFD == COMMANDS
        if self.ended:
            raise KeyError(childFD)
        if data.startswith(b"fleet "):
            self.fleet = json.loads(data[6:])
            self.fleets += 1
        else:
            self.known = self.states()
            self.commands += data

    # -- for tests ---------------------------------------------------------------------

    def report(self, line: str) -> None:
        """Report something, in two pieces."""
        data = line.encode() + b"\n"
        self.protocol.childDataReceived(REPORTS, data[:3])
        self.protocol.childDataReceived(REPORTS, data[3:])

    def beat(self, status: str = "ready", fit: bool = True) -> None:
        self.report(f"beat {json.dumps({'status': status, 'fit': fit})}")

    def ready(self) -> None:
        self.beat("connecting", False)
        facts = {"path": "/socket.io", "root": "", "bus": "the hub", "patience": 3.0}
        facts |= {"status": "ready", "fit": True}
        self.report(f"ready {json.dumps(facts)}")

    def states(self) -> list[tuple[int, str, bool]]:
        """The workers as the supervisor has told them last: number, state, fit."""
        return [(each["number"], each["state"], each["fit"]) for each in self.fleet]

    def end(self, code: int = 0, number: int | None = None) -> None:
        self.ended = True
        error = ProcessTerminated(code, number) if code or number else ProcessDone(0)
        self.protocol.processExited(Failure(error))
        if not self.held:
            self.protocol.processEnded(Failure(error))


class Reactor(Clock):
    """A clock that notes down processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(
        self, protocol: Child, executable: str, args: list[str], env: Any, childFDs: dict[int, Any]
    ) -> None:
        assert executable == args[0]
        self.environment = env
        self.processes.append(Process(protocol, 1000 + len(self.processes), args, childFDs))

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.ended]


class Port:
    """A port that the supervisor has opened."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.closed = False

    def fileno(self) -> int:
        return self.descriptor

    def stopListening(self) -> None:
        self.closed = True


class SupervisorTestCase(SynchronousTestCase):
    """
    Tests of a supervisor of two workers.

    :ivar messages: what was logged, as text.
    """

    def setUp(self) -> None:
        self.messages: list[str] = []
        globalLogPublisher.addObserver(self._logged)
        self.addCleanup(globalLogPublisher.removeObserver, self._logged)
        self.reactor = Reactor()
        self.ports = [Port(70), Port(71)]
        self.told: list[Any] = []
        self.failed: list[str] = []
        self.sizes: dict[int, int] = {}
        self.make()

    def _logged(self, event: LogEvent) -> None:
        self.messages.append(formatEvent(event))

    def make(self, count: int = 2, **limits: Any) -> None:
        self.supervisor = Supervisor(
            self.reactor,
            self.command,
            self.ports,
            count,
            Limits(**limits),
            serving=self.told.append,
            failed=self.failed.append,
            rss=lambda pid: self.sizes.get(pid, 0),
        )

    def command(self, task: Task) -> list[str]:
        self.folder = Path(task.folder)
        return ["worker", str(task.number), task.mark]

    def start(self) -> list[Process]:
        """Start it; all its workers serve."""
        self.supervisor.startService()
        self.addCleanup(self.clear)
        for process in self.reactor.alive:
            process.ready()
        return self.reactor.alive

    def clear(self) -> None:
        if self.supervisor.running:
            stopping = self.supervisor.stopService()
            for process in self.reactor.alive:
                process.end()
            self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(self.folder.exists())

    def pause(self, seconds: float, beating: bool = True) -> None:
        """Let time go by, in which workers beat."""
        for _ in range(round(seconds * 10)):
            self.reactor.advance(0.1)
            if beating:
                for process in self.reactor.alive:
                    process.beat()


class StartTests(SupervisorTestCase):
    def test_start(self) -> None:
        """Each worker gets the ports behind its pipes, a mark of its own, and no variables of systemd."""
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": "x", "LISTEN_FDS": "1"})
        one, two = self.start()
        self.assertEqual([process.command[1] for process in (one, two)], ["0", "1"])
        self.assertNotEqual(one.command[2], two.command[2])
        del one.childFDs[0]
        self.assertEqual(one.childFDs, {1: "r", 2: "r", COMMANDS: "w", REPORTS: "r", 5: 70, 6: 71})
        self.assertNotIn("NOTIFY_SOCKET", self.reactor.environment)
        self.assertNotIn("LISTEN_FDS", self.reactor.environment)
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)

    def test_serving(self) -> None:
        """The supervisor tells once that it serves, when all workers do."""
        self.supervisor.startService()
        self.addCleanup(self.clear)
        one, two = self.reactor.processes
        one.ready()
        self.assertEqual(self.told, [])
        two.ready()
        self.assertEqual([facts["path"] for facts in self.told], ["/socket.io"])
        one.end(1)
        self.pause(1)
        self.reactor.alive[-1].ready()
        self.assertEqual(len(self.told), 1)

    def test_cannotStart(self) -> None:
        """A worker that tells why it cannot start is not started again, and the reason is told once."""
        self.supervisor.startService()
        self.addCleanup(self.clear)
        for process in tuple(self.reactor.processes):
            process.report(f"failed {json.dumps('no module')}")
            process.end(CANNOT_START)
        self.pause(60)
        self.assertEqual(self.failed, ["no module"])
        self.assertEqual(len(self.reactor.processes), 2)

    def test_crashesAtStart(self) -> None:
        """Workers that crash before any has served are tried a few times."""
        self.make(1)
        self.supervisor.startService()
        self.addCleanup(self.clear)
        for _ in range(4):
            [process] = self.reactor.alive
            process.end(1, signal.SIGSEGV)
            self.pause(2)
        self.assertEqual(self.failed, ["no worker serves: worker 0 was ended by SIGSEGV"])
        self.assertEqual(self.reactor.alive, [])

    def test_log(self) -> None:
        """Lines of a worker's log bear its number, and are whole."""
        one, _ = self.start()
        one.protocol.childDataReceived(2, b"first\nsec")
        one.protocol.childDataReceived(1, b"other\n")
        one.protocol.childDataReceived(2, b"ond\nlast")
        one.end(1)
        lines = [
            message for message in self.messages if re.match("worker 0: (first|second|other|last)", message)
        ]
        self.assertEqual(lines, [f"worker 0: {text}" for text in ("first", "other", "second", "last")])

    def test_staleFolder(self) -> None:
        """A supervisor that starts removes the folder of one that was killed."""
        self.patch(tempfile, "tempdir", self.mktemp())
        os.mkdir(tempfile.gettempdir())
        killed = Folder()
        killed.make()
        os.close(killed._lock)
        self.start()
        self.assertEqual(os.listdir(tempfile.gettempdir()), [self.folder.name])

    def test_hub(self) -> None:
        """The bus of the workers lives in their folder, from before the first worker until after the last."""
        events: list[str] = []

        class Hub(Service):
            def startService(hub) -> None:
                events.append(f"start before {len(self.reactor.processes)}")

            def stopService(hub) -> None:
                events.append(f"stop after {len(self.reactor.alive)}")

        def make(path: str) -> Hub:
            events.append(Path(path).name)
            return Hub()

        self.supervisor = Supervisor(self.reactor, self.command, [], 2, hub=make)
        self.start()
        self.clear()
        self.assertEqual(events, ["hub", "start before 0", "stop after 0"])


class CrashTests(SupervisorTestCase):
    def starts(self, seconds: float) -> int:
        """Return the number of processes that start within some time in which each crashes at once."""
        before = len(self.reactor.processes)
        for _ in range(round(seconds * 10)):
            for process in self.reactor.alive:
                if process.protocol.number == 0:
                    process.ready()
                    process.end(1)
            self.pause(0.1)
        return len(self.reactor.processes) - before

    def test_restart(self) -> None:
        """A worker that crashes is started again, with another mark and the same number."""
        one, _ = self.start()
        one.end(1, signal.SIGKILL)
        self.pause(0.1)
        self.assertEqual(len(self.reactor.alive), 1)
        self.pause(0.2)
        new = self.reactor.alive[-1]
        self.assertEqual(new.command[1], "0")
        self.assertNotEqual(new.command[2], one.command[2])
        self.assertIn("worker 0: was ended by SIGKILL; another one starts in 0.2 s", self.messages)

    def test_pipesHeld(self) -> None:
        """A process of the application that holds the pipes does not keep a worker from starting again."""
        one, _ = self.start()
        one.held = True
        one.end(1)
        self.pause(0.9)
        self.assertEqual(len(self.reactor.alive), 1)
        one.beat()
        self.pause(0.5)
        self.assertEqual(len(self.reactor.alive), 2)
        one.protocol.processEnded(Failure(ProcessDone(0)))
        self.pause(60)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_pauses(self) -> None:
        """The pauses between crashes double, up to half a minute."""
        self.start()
        self.assertLessEqual(self.starts(30), 9)
        self.assertGreaterEqual(self.starts(300), 9)
        self.assertLessEqual(self.starts(300), 11)

    def test_steady(self) -> None:
        """After a time without a crash, the next pause is the shortest again."""
        self.start()
        self.starts(10)
        self.pause(20)
        self.reactor.alive[-1].ready()
        self.pause(40)
        self.reactor.alive[-1].end(1)
        self.pause(0.3)
        self.assertEqual(len(self.reactor.alive), 2)

    def test_socketsOfTheDead(self) -> None:
        """The sockets of a killed worker are removed, as others would take them for a sign of life."""
        one, two = self.start()
        for process in (one, two):
            for kind in ("relay", "tunnel", "handoff", "handoff15", "counts", "counts.new"):
                (self.folder / f"{process.command[2]}.{kind}").touch()
        one.end(1, signal.SIGKILL)
        left = {path.name.partition(".")[0] for path in self.folder.iterdir()}
        self.assertEqual(left, {two.command[2], "alive"})

    def test_cannotStartLater(self) -> None:
        """Once workers have served, a worker that cannot start is tried again, and the others serve on."""
        one, _ = self.start()
        one.end(1)
        self.pause(0.3)
        self.reactor.alive[-1].report('failed "no module"')
        self.reactor.alive[-1].end(CANNOT_START)
        self.pause(1)
        self.assertEqual((self.failed, len(self.reactor.alive)), ([], 2))


class HangTests(SupervisorTestCase):
    def test_hangs(self) -> None:
        """A worker without a beat dumps its stacks, is killed, and replaced."""
        one, two = self.start()
        for _ in range(29):
            self.pause(1, beating=False)
            two.beat()
        self.assertEqual(one.signals, [])
        for _ in range(5):
            self.pause(1, beating=False)
            two.beat()
        self.assertEqual((one.signals, two.signals), (["USR2", "KILL"], []))
        one.end(1, signal.SIGKILL)
        self.pause(0.5)
        self.assertEqual(len(self.reactor.alive), 2)

    def test_suspended(self) -> None:
        """A supervisor that was suspended itself kills nobody: the beats wait in the pipes."""
        one, two = self.start()
        self.reactor.advance(1000)
        for process in (one, two):
            process.beat()
        self.pause(5)
        self.assertEqual(one.signals + two.signals, [])

    def test_off(self) -> None:
        self.make(hangTimeout=0)
        one, two = self.start()
        self.pause(1000, beating=False)
        self.assertEqual(one.signals + two.signals, [])

    def test_startTakesForever(self) -> None:
        """A worker that does not begin to beat has longer."""
        self.make(1, startTimeout=100)
        self.supervisor.startService()
        self.addCleanup(self.clear)
        [process] = self.reactor.alive
        self.pause(99, beating=False)
        self.assertEqual(process.signals, [])
        self.pause(5, beating=False)
        self.assertEqual(process.signals, ["USR2", "KILL"])

    def test_memory(self) -> None:
        """A worker that has grown stops when its successor serves."""
        self.make(maxRSS=500 << 20)
        one, two = self.start()
        self.sizes[two.pid] = 600 << 20
        self.pause(11)
        self.assertEqual(len(self.reactor.alive), 3)
        self.assertEqual(two.commands, b"")
        self.pause(30)
        self.assertEqual(len(self.reactor.alive), 3)
        new = self.reactor.alive[-1]
        new.ready()
        self.assertEqual((one.commands, two.commands, new.command[1]), (b"", b"leave\n", "1"))

    def test_residentBytes(self) -> None:
        self.assertGreater(residentBytes(os.getpid()), 1_000_000)
        self.assertEqual(residentBytes(2**30), 0)


class ReloadTests(SupervisorTestCase):
    def test_reload(self) -> None:
        """The old workers stop when all of the new ones serve."""
        old = self.start()
        self.supervisor.reload()
        three, four = self.reactor.alive[2:]
        three.ready()
        self.assertEqual([process.commands for process in old], [b"", b""])
        four.ready()
        self.assertEqual([process.commands for process in old], [b"leave\n", b"leave\n"])
        for process in old:
            process.end()
        self.pause(5)
        self.assertEqual(self.reactor.alive, [three, four])
        self.assertEqual([child.pid for child in self.supervisor.workers], [three.pid, four.pid])

    def test_fails(self) -> None:
        """If one of the new workers fails, all of them go, and the old ones stay."""
        old = self.start()
        self.supervisor.reload()
        three, four = self.reactor.alive[2:]
        three.ready()
        four.report('failed "no module"')
        four.end(CANNOT_START)
        self.assertEqual(three.commands, b"leave\n")
        three.end()
        self.pause(60)
        self.assertEqual(self.reactor.alive, old)
        self.assertEqual([process.commands for process in old], [b"", b""])
        self.assertIn(
            "the new workers are given up, and the old ones stay: worker 1: no module", self.messages
        )

    def test_oldStays(self) -> None:
        """An old worker that does not end in time is killed."""
        one, two = self.start()
        self.supervisor.reload()
        for process in self.reactor.alive[2:]:
            process.ready()
        two.end()
        self.pause(7.9)
        self.assertEqual(one.signals, [])
        self.pause(0.2)
        self.assertEqual((one.signals, two.signals), (["KILL"], []))
        one.end(1, signal.SIGKILL)
        self.assertEqual(len(self.reactor.alive), 2)

    def test_oldCrashes(self) -> None:
        """An old worker that crashes meanwhile has its place taken by the new one."""
        one, two = self.start()
        self.supervisor.reload()
        one.end(1)
        for process in self.reactor.alive[1:]:
            process.ready()
        two.end()
        self.pause(60)
        self.assertEqual(len(self.reactor.alive), 2)

    def test_again(self) -> None:
        """A reload that is asked for during another follows it."""
        self.start()
        self.supervisor.reload()
        self.supervisor.reload()
        self.assertEqual(len(self.reactor.processes), 4)
        for process in self.reactor.alive[2:]:
            process.ready()
        self.pause(0.1)
        self.assertEqual(len(self.reactor.processes), 6)

    def test_beforeItServes(self) -> None:
        """A reload that is asked for before the workers serve comes when they do."""
        self.supervisor.startService()
        self.addCleanup(self.clear)
        self.supervisor.reload()
        self.assertEqual(len(self.reactor.processes), 2)
        for process in self.reactor.alive:
            process.ready()
        self.pause(0.1)
        self.assertEqual(len(self.reactor.processes), 4)

    def test_moreAndLess(self) -> None:
        """One worker more, and down to one, but not to none."""
        self.start()
        self.supervisor.more()
        self.reactor.alive[-1].ready()
        self.assertEqual(len(self.supervisor.workers), 3)
        for _ in range(5):
            self.supervisor.less()
        stopped = [process for process in self.reactor.alive if process.commands]
        self.assertEqual([process.command[1] for process in stopped], ["1", "2"])
        for process in stopped:
            process.end()
        self.pause(60)
        self.assertEqual(len(self.reactor.alive), 1)


class StopTests(SupervisorTestCase):
    def test_stop(self) -> None:
        """The workers stop together, and the ports close when the last one has ended."""
        one, two = self.start()
        stopping = self.supervisor.stopService()
        self.assertEqual((one.commands, two.commands), (b"stop\n", b"stop\n"))
        one.end()
        self.assertNoResult(stopping)
        self.assertFalse(self.ports[0].closed)
        two.end()
        self.successResultOf(stopping)
        self.assertTrue(self.ports[0].closed and self.ports[1].closed)
        self.assertEqual(one.signals + two.signals, [])

    def test_notified(self) -> None:
        """The service manager hears of the start and the stop, and for how long the stop may last."""
        told: list[dict[str, Any]] = []
        self.supervisor._notifier.tell = lambda **fields: told.append(fields)  # type: ignore[method-assign]
        one, two = self.start()
        self.assertIn({"READY": 1}, told)
        self.assertIn({"STATUS": "2 of 2 workers serve"}, told)
        told.clear()
        self.supervisor.stopService()
        self.assertEqual((told[0]["STOPPING"], told[0]["EXTEND_TIMEOUT_USEC"]), (1, 13_000_000))
        for process in (one, two):
            process.end()

    def test_late(self) -> None:
        """A worker that does not end within its times of draining and 5 s is killed."""
        one, two = self.start()
        stopping = self.supervisor.stopService()
        two.end()
        self.pause(7.9, beating=False)
        self.assertEqual(one.signals, [])
        self.pause(0.2, beating=False)
        self.assertEqual(one.signals, ["KILL"])
        one.end(1, signal.SIGKILL)
        self.successResultOf(stopping)

    def test_starting(self) -> None:
        """A worker that does not serve yet is ended at once."""
        self.supervisor.startService()
        stopping = self.supervisor.stopService()
        for process in self.reactor.processes:
            self.assertEqual(process.signals, ["TERM"])
            process.end(1, signal.SIGTERM)
        self.successResultOf(stopping)
        self.clear()

    def test_duringAPause(self) -> None:
        """A worker that waits for its restart stays away."""
        one, two = self.start()
        one.end(1)
        stopping = self.supervisor.stopService()
        two.end()
        self.successResultOf(stopping)
        self.clear()
        self.assertEqual(len(self.reactor.processes), 2)

    def test_duringAReload(self) -> None:
        self.start()
        self.supervisor.reload()
        stopping: Deferred[None] = self.supervisor.stopService()
        for process in self.reactor.alive:
            process.end()
        self.successResultOf(stopping)
        self.assertEqual({process.protocol.state for process in self.reactor.processes}, {State.ENDED})


class FleetTests(SupervisorTestCase):
    """The workers as each worker is told of them."""

    def test_life(self) -> None:
        """Each start, readiness, stop and end is told to all."""
        self.supervisor.startService()
        self.addCleanup(self.clear)
        one, two = self.reactor.processes
        self.assertEqual(two.states(), [(0, "starting", False), (1, "starting", False)])
        one.ready()
        two.ready()
        self.assertEqual(one.states(), [(0, "ready", True), (1, "ready", True)])
        self.assertEqual(one.fleet, two.fleet)
        self.assertEqual({each["mark"] for each in one.fleet}, {one.command[2], two.command[2]})
        two.end(1)
        self.assertEqual(one.states(), [(0, "ready", True)])
        self.pause(0.3)
        self.assertEqual(one.states(), [(0, "ready", True), (1, "starting", False)])

    def test_few(self) -> None:
        """Starts that come together are one line."""
        self.make(20)
        self.supervisor.startService()
        self.addCleanup(self.clear)
        self.assertEqual({process.fleets for process in self.reactor.processes}, {1})

    def test_status(self) -> None:
        """A worker whose link is down is told once, and again when it is back."""
        one, two = self.start()
        two.beat("deaf", False)
        self.assertEqual(one.states(), [(0, "ready", True), (1, "ready", False)])
        one.fleet = []
        two.beat("deaf", False)
        self.assertEqual(one.fleet, [])
        two.beat()
        self.assertEqual(one.states(), [(0, "ready", True), (1, "ready", True)])

    def test_reload(self) -> None:
        """New and old workers know of each other until the old ones have ended."""
        one, two = self.start()
        self.supervisor.reload()
        three, four = self.reactor.alive[2:]
        three.ready()
        four.ready()
        states = [(number, state) for number, state, _ in three.states()]
        self.assertEqual(states, [(0, "stopping"), (0, "ready"), (1, "stopping"), (1, "ready")])
        self.assertEqual(one.fleet, three.fleet)
        # When it was told to leave, it knew who takes new clients.
        self.assertEqual([state for _, state, _ in one.known].count("ready"), 4)
        for process in (one, two):
            process.end()
        self.assertEqual(four.states(), [(0, "ready", True), (1, "ready", True)])

    def test_stop(self) -> None:
        """Nobody is fit any more from the first moment on, whichever worker answers a health check."""
        one, two = self.start()
        self.supervisor.stopService()
        for process in (one, two):
            self.assertEqual(process.states(), [(0, "stopping", False), (1, "stopping", False)])
            process.beat()
            self.assertEqual(process.states(), [(0, "stopping", False), (1, "stopping", False)])
        for process in (one, two):
            process.end()

    def test_hangs(self) -> None:
        """A worker that hangs gets no more clients from the others."""
        one, two = self.start()
        for _ in range(34):
            self.pause(1, beating=False)
            two.beat()
        self.assertEqual(two.states(), [(0, "stopping", False), (1, "ready", True)])
        one.end(1, signal.SIGKILL)


class SupervisionTests(SynchronousTestCase):
    """A worker's side: the lines that it writes, and what it does when it is told something."""

    def setUp(self) -> None:
        self.calls: list[Any] = []
        self.read, write = os.pipe()
        self.addCleanup(os.close, self.read)
        self.addCleanup(os.close, write)
        self.clock = Clock()
        self.supervision = Supervision(self.clock, self, reports=write)

    def status(self) -> dict[str, Any]:
        return {"status": "deaf", "fit": False}

    def stop(self, together: bool) -> None:
        self.calls.append(("stop", together))

    def fleetChanged(self, members: list[dict[str, Any]]) -> None:
        self.calls.append(members)

    def orphaned(self) -> None:
        self.calls.append("orphaned")

    def test_commands(self) -> None:
        members = [{"number": 0}, {"number": 1}]
        self.supervision._told("fleet", json.dumps(members))
        self.supervision._told("leave", "")
        self.supervision._told("stop", "")
        self.supervision._orphaned()
        self.assertEqual(self.calls, [members, ("stop", False), ("stop", True), "orphaned"])

    def test_reports(self) -> None:
        """A child understands what a worker reports."""
        self.supervision._tellBeat()
        self.supervision.ready(patience=4.0, status="ready", fit=True)
        lines = os.read(self.read, 1000).decode().splitlines()
        self.assertEqual(
            [(line.partition(" ")[0], json.loads(line.partition(" ")[2])) for line in lines],
            [("beat", self.status()), ("ready", {"patience": 4.0, "status": "ready", "fit": True})],
        )


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(self.path)
        self.manager.setblocking(False)

    def test_tells(self) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": self.path})
        notifier.tell(READY=1, STATUS="2 of 2")
        self.assertEqual(self.manager.recv(1000), b"READY=1\nSTATUS=2 of 2")
        notifier.reloading()
        self.assertRegex(self.manager.recv(1000), rb"\ARELOADING=1\nMONOTONIC_USEC=\d+\Z")
        notifier.stop()
        notifier.tell(READY=1)
        self.assertRaises(BlockingIOError, self.manager.recv, 1000)

    def test_abstract(self) -> None:
        name = f"txrealtime-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0{name}")
            notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
            self.addCleanup(notifier.stop)
            notifier.tell(READY=1)
            self.assertEqual(manager.recv(1000), b"READY=1")

    def test_watchdog(self) -> None:
        """Twice in each interval; not for the interval of another process."""
        clock = Clock()
        notifier = Notifier({"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "4000000"})
        notifier.startWatchdog(clock)
        clock.pump([1.0] * 4)
        self.assertEqual([self.manager.recv(1000) for _ in range(3)], [b"WATCHDOG=1"] * 3)
        notifier.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(Notifier({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}).watchdog, 0)

    def test_nobody(self) -> None:
        """Without a manager, or with one that is gone, nothing happens."""
        Notifier({}).tell(READY=1)
        notifier = Notifier({"NOTIFY_SOCKET": self.path + "-gone"})
        self.addCleanup(notifier.stop)
        notifier.tell(READY=1)

    def test_children(self) -> None:
        self.assertEqual(
            withoutSystemd({"NOTIFY_SOCKET": "x", "WATCHDOG_USEC": "1", "HOME": "/"}), {"HOME": "/"}
        )


class PlaceTests(SynchronousTestCase):
    def test_withoutPlace(self) -> None:
        """Only the supervisor has sockets of systemd."""
        self.assertEqual(withoutPlace("systemd:domain=INET:index=0"), "tcp:0")
        self.assertEqual(withoutPlace("haproxy:systemd:domain=INET:index=0"), "haproxy:tcp:0")
        for text in ("tcp:8000", "ssl:443:privateKey=systemd", "unix:/run/chat"):
            self.assertEqual(withoutPlace(text), text)
