"""
Crowds of clients, by ``clients/crowd.c``, and a server of their own for them.

A process may have only so many open files, so a crowd is spread over as many processes as it needs.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import machine
from benchmarks.load import Wrong
from benchmarks.peers import SERVERS, freePort

SOURCE = Path(__file__).parent / "clients" / "crowd.c"

SPARE = 400
"Open files of a process that are no clients."

SOURCES = 8
"Addresses from which each process connects: one has some 28,000 ports."

SUMS = ("up", "opened", "lost", "refused", "failed", "late", "messages", "pings")
LATEST = ("lastMessage", "lastUp", "half", "most", "slowest")


def mostClients() -> int:
    """Return how many clients one process can have: the limit of its open files decides."""
    machine.raiseFileLimit(1 << 20)
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE


class Crowd:
    """
    Clients in several processes: a context manager.

    :param port: the server's port on 127.0.0.1.
    :param count: the clients.
    :param atOnce: clients that open at the same time.
    """

    def __init__(self, port: int, count: int, atOnce: int = 200) -> None:
        self._port, self.count = port, count
        self._atOnce = atOnce
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Crowd:
        self._folder = tempfile.TemporaryDirectory()
        program = os.path.join(self._folder.name, "crowd")
        subprocess.run(["cc", "-O2", "-o", program, str(SOURCE)], check=True)
        parts = -(-self.count // mostClients())
        for part in range(parts):
            share = self.count // parts + (part < self.count % parts)
            command = [program, str(self._port), str(share), str(SOURCES), str(max(1, self._atOnce // parts))]
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._folder.cleanup()

    def tell(self, line: str = "counts") -> dict[str, Any]:
        """Tell all processes something, and return their counts together."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.readline()))
        firsts = [answer["firstLost"] for answer in answers if answer["firstLost"]]
        return {
            **{name: sum(answer[name] for answer in answers) for name in SUMS},
            **{name: max(answer[name] for answer in answers) for name in LATEST},
            "firstLost": min(firsts, default=0.0),
        }

    def until(self, name: str, value: int, seconds: float) -> dict[str, Any]:
        """
        Wait until a count has grown to a value, and return all counts.

        :raises Wrong: if the time is over.
        """
        deadline = time.monotonic() + seconds
        while True:
            counts = self.tell()
            if counts[name] >= value:
                return counts
            if time.monotonic() > deadline:
                raise Wrong(f"{name} is {counts[name]} of {value} after {seconds:g} s: {counts}")
            time.sleep(0.05)

    def cpu(self) -> float:
        """Return the seconds of CPU that the clients have used so far."""
        return sum(machine.cpuTime(process.pid) for process in self._processes)


class OwnServer:
    """
    A server of txrealtime by this Python, with workers if there are several: a context manager.

    :param workers: the number of processes; 0 for one without a supervisor.
    :param options: further options of ``twistd realtime``.
    """

    def __init__(self, port: int = 0, workers: int = 0, options: Iterable[str] = ()) -> None:
        self.port = port or freePort()
        self.workers = workers
        self._options = list(options)

    def __enter__(self) -> OwnServer:
        machine.raiseFileLimit(1 << 20)
        self.log = tempfile.TemporaryFile("w+")
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        command = [twistd, "--nodaemon", "--pidfile=", "realtime", "--app", "txrealtime_app:server"]
        command += ["--listen", f"tcp:{self.port}:interface=127.0.0.1", *self._options]
        if self.workers:
            command += ["--workers", str(self.workers)]
        self.process = subprocess.Popen(
            command,
            cwd=SERVERS,
            env=machine.environment(PYTHONPATH=f"{SERVERS}:{SERVERS.parent.parent}"),
            stdout=self.log,
            stderr=self.log,
        )
        self.startedAt = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if kind is not None:
            self.log.seek(0)
            sys.stderr.writelines(self.log.readlines()[-20:])
        self.log.close()

    def pids(self) -> list[int]:
        """Return the processes: the server, or the supervisor and its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [self.process.pid, *map(int, children.read_text().split())]
        except OSError:
            return []

    def kill(self) -> None:
        """Kill the server, as a crash does."""
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def cpu(self) -> float:
        """Return the seconds of CPU that the processes have used so far."""
        return sum(machine.cpuTime(pid) for pid in self.pids())

    def ownTime(self) -> float:
        """Return the part of `cpu` in user mode, by the kernel's ticks: compare hundredths of a second."""
        return sum(machine.userTime(pid) for pid in self.pids())

    def memory(self) -> int:
        """Return the bytes of the processes that are in memory and of no other one."""
        return sum(_ownMemory(pid) for pid in self.pids())

    def peak(self) -> int:
        """Return the most bytes that each of the processes had in memory, together."""
        return sum(_field(pid, "VmHWM") for pid in self.pids())

    def queue(self) -> tuple[int, int]:
        """Return how many connections wait to be accepted, and how many may."""
        listing = subprocess.run(
            ["ss", "-Hltn", f"sport = :{self.port}"], capture_output=True, text=True, check=True
        ).stdout.split()
        return (int(listing[1]), int(listing[2])) if listing else (0, 0)


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _ownMemory(pid: int) -> int:
    return _field(pid, "RssAnon")


def kernelCounts() -> dict[str, int]:
    """Return the kernel's counts of connections that found the accept queue full."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, values = lines[0].split()[1:], lines[1].split()[1:]
    counts = dict(zip(names, map(int, values), strict=True))
    return {name: counts[name] for name in ("ListenOverflows", "ListenDrops", "TCPReqQFullDoCookies")}
