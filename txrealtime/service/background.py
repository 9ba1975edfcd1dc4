"""
The pid file of twistd, and the words of a daemon to the terminal that started it.

A process in the foreground needs no pid file: its terminal or its supervisor stops it, and a second one may
run in the same folder.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.python import usage

__all__ = ["Notice", "settle"]


class Notice:
    """
    The words of a daemon on the standard error of the command that started it.

    :param program: the name of the command.
    :param log: the place of the log.
    :param pidfile: the pid file, absolute; empty for none.
    """

    def __init__(self, program: str, log: str, pidfile: str) -> None:
        self._program = program
        self._log = log
        self._pidfile = pidfile
        self._descriptor = -1
        with suppress(OSError):  # closed by the command that started this
            # A daemon's own goes to /dev/null before the ports are open.
            self._descriptor = os.dup(2)

    def tell(self, addresses: Sequence[str]) -> None:
        """
        Write where the daemon serves, where its log is, and how to stop it; once.

        :param addresses: the addresses at which it serves.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        pid = f"$(cat {shlex.quote(self._pidfile)})" if self._pidfile else str(os.getpid())
        lines = [
            f"{self._program}: serving in the background, at {', '.join(addresses)}",
            f"  the log:    {self._log}",
            f"  to stop it: kill {pid}",
        ]
        with suppress(OSError):  # a terminal that has gone
            os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
        os.close(descriptor)


def settle(twistd: Any, program: str) -> Notice | None:
    """
    Take the pid file from a process in the foreground, and prepare the notice of one in the background.

    :param twistd: the options of twistd.
    :param program: the name of the command.
    :raises UsageError: if a process of the pid file runs.
    """
    if twistd is None or "pidfile" not in twistd:
        return None
    if twistd["nodaemon"] or twistd["debug"]:
        # The same object: a pid file that was asked for by its usual name is another one, and stays.
        if twistd["pidfile"] is twistd.defaults["pidfile"]:
            twistd["pidfile"] = ""
        return None
    pidfile = os.path.abspath(twistd["pidfile"]) if twistd["pidfile"] else ""
    pid = _running(pidfile)
    if pid is not None:
        raise usage.UsageError(
            f"process {pid}, whose number is in {pidfile}, runs already: stop it by kill {pid}, or give "
            "this one other files: twistd --pidfile FILE --logfile FILE realtime"
        )
    return Notice(program, _logOf(twistd), pidfile)


def _logOf(twistd: Any) -> str:
    """Name the place of the log."""
    if twistd["syslog"]:
        return "syslog"
    return os.path.abspath(twistd["logfile"] or "twistd.log")


def _running(pidfile: str) -> int | None:
    """Return the number in a pid file, if a process has it."""
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):  # of a file that cannot be read, twistd tells
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:  # a process of another user
        return pid
    except (OSError, OverflowError):
        return None
    return pid
