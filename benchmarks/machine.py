"""
The computer: a core for the server and one for the load, exact CPU clocks, memory, and limits.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import time

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]

PAGE = resource.getpagesize()


def environment(**variables: str) -> dict[str, str]:
    """The environment of a server: ours, without what would change how it runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NODE_"))}
    return {**kept, **variables}


def toServerCore() -> None:
    """Keep this process, and what it starts, on the servers' core."""
    os.sched_setaffinity(0, {SERVER_CORE})


def toLoadCore() -> None:
    """Keep this process on the load's core, and its garbage collector out of the latencies."""
    os.sched_setaffinity(0, {LOAD_CORE})
    gc.freeze()
    gc.disable()


def cpuTime(pid: int) -> float:
    """
    Seconds of CPU, user and system, that a process has used in all its threads.

    By its CPU clock (clock_getcpuclockid(3)), as the times in /proc are whole hundredths of a second.
    """
    return time.clock_gettime(~pid << 3 | 2)


def userTime(pid: int) -> float:
    """Seconds of CPU in user mode that a process has used in all its threads; proc_pid_stat(5), `utime`."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(") ")[2].split()[11]) / os.sysconf("SC_CLK_TCK")


def residentMemory(pid: int) -> int:
    """Bytes of a process that are in memory."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE


def raiseFileLimit(wanted: int) -> int:
    """Allow this many open files, or as many as we may; servers inherit it. Returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else max(wanted, hard)
    for attempt in ((wanted, limit), (min(wanted, hard), hard)):
        if soft >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, attempt)
        except (ValueError, PermissionError):
            continue
        soft = attempt[0]
    return soft


def describe() -> dict[str, str]:
    """Return facts about this computer for a report."""
    model = platform.machine()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "server core": str(SERVER_CORE),
        "load core": str(LOAD_CORE),
    }
