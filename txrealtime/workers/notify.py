"""
The notifications of systemd: ``sd_notify(3)``, spoken directly.

A unit with ``Type=notify`` waits for READY, and one with ``Type=notify-reload`` (version 253) also for the
end of a reload.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from twisted.internet.task import LoopingCall

__all__ = ["VARIABLES", "Notifier"]

VARIABLES: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)
"""The variables in the environment that systemd means for one process, and not for its children."""


class Notifier:
    """
    The service manager that started this process; without one, nothing is sent.

    :param environment: the environment of the process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            # An abstract address begins with a null byte.
            self._address = "\0" + self._address[1:]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self.watchdog = self._watchdogSeconds(environment)
        self._loop: LoopingCall | None = None

    @staticmethod
    def _watchdogSeconds(environment: Mapping[str, str]) -> float:
        """Return the seconds after which systemd takes a silent process for stuck; 0 for never."""
        number, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if not number.isdecimal() or (pid and pid != str(os.getpid())):
            return 0.0
        return int(number) / 1e6

    def tell(self, **fields: str | int) -> None:
        """Send fields, such as ``READY=1`` or ``STATUS="4 workers"``."""
        if self._socket is None:
            return
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        # A manager that does not listen is no reason not to serve.
        with contextlib.suppress(OSError):
            self._socket.sendto(message.encode(), self._address)

    def reloading(self) -> None:
        """Tell that a reload has begun; ``READY`` tells its end."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def startWatchdog(self, reactor: Any) -> None:
        """Tell twice in each interval of the watchdog that this process lives, if there is a watchdog."""
        if self.watchdog and self._loop is None:
            self._loop = LoopingCall(self.tell, WATCHDOG=1)
            self._loop.clock = reactor
            self._loop.start(self.watchdog / 2)

    def stop(self) -> None:
        """End: the socket is closed."""
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def withoutSystemd(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Return an environment for children, without the variables of systemd."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}
