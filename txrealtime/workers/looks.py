"""
The supervisor's looks at its workers: for those that hang, and those that have grown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from txrealtime.workers.child import Child, State

__all__ = ["HangLook", "Limits", "residentBytes"]


@dataclass(frozen=True)
class Limits:
    """
    The limits of a worker.

    :ivar hangTimeout: seconds without a beat, after which a worker is killed; 0 for never.
    :ivar startTimeout: seconds that a worker has until it serves; 0 for any time.
    :ivar maxRSS: bytes of memory, beyond which a worker is replaced; 0 for any.
    """

    hangTimeout: float = 30.0
    startTimeout: float = 120.0
    maxRSS: int = 0


class HangLook:
    """
    A look for workers that hang.

    :param children: returns the workers to look at.
    :param hangs: called with each worker that was silent at two looks.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        limits: Limits,
        children: Callable[[], Iterable[Child]],
        hangs: Callable[[Child], object],
    ) -> None:
        self._reactor = reactor
        self._limits = limits
        self._children = children
        self._hangs = hangs
        self._suspects: set[Child] = set()

    def look(self) -> None:
        """Look at all workers."""
        # Twice, since a supervisor that was suspended itself has not read the beats yet.
        silent = {child for child in self._children() if self._isSilent(child)}
        suspects, self._suspects = self._suspects, silent
        for child in silent & suspects:
            self._hangs(child)

    def _isSilent(self, child: Child) -> bool:
        limits, now = self._limits, self._reactor.seconds()
        if child.state is State.STARTING and child.heard is None:
            return 0 < limits.startTimeout < now - child.born
        return child.state is State.READY and 0 < limits.hangTimeout < now - (child.heard or child.born)


def residentBytes(pid: int) -> int:
    """Return the bytes of memory that a process occupies; 0 if the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
