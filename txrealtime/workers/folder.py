"""
The folder of a supervisor and its workers, in the system's folder for temporary files.

Each of these processes holds a lock on a file in the folder for as long as it lives.  A free lock marks the
folder of processes that were all killed, and the next supervisor removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from contextlib import suppress
from typing import Final

from txrealtime.logs import Logger

__all__ = ["Folder", "holdFolder", "removeStale"]

_log = Logger()

_PREFIX: Final = "txrealtime-"

_NAME: Final = re.compile(_PREFIX + r"[a-z0-9_]{8}")

_LOCK: Final = "alive"
"""The name of the file with the lock."""


class Folder:
    """
    The folder of a supervisor, which only this user may enter.

    :ivar path: its path; empty while there is none.
    """

    def __init__(self) -> None:
        self.path = ""
        self._lock = -1

    def make(self) -> None:
        """
        Make the folder.

        :raises OSError: if the system refuses.
        """
        while True:
            path = tempfile.mkdtemp(prefix=_PREFIX)
            # A process that removes stale folders may have taken this one for such, before it was locked.
            with suppress(FileNotFoundError, BlockingIOError):
                lock = holdFolder(path)
                if os.path.exists(os.path.join(path, _LOCK)):
                    self.path, self._lock = path, lock
                    return
                os.close(lock)

    def removeFilesOf(self, mark: str) -> None:
        """Remove what a killed worker has left: its siblings take a socket for a sign of life."""
        with suppress(OSError):
            for name in os.listdir(self.path):
                if name.startswith(f"{mark}."):
                    os.unlink(os.path.join(self.path, name))

    def remove(self) -> None:
        """Remove the folder."""
        if self.path:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self.path = ""


def holdFolder(path: str) -> int:
    """
    Keep a folder from being removed as stale, until this process ends.

    :return: the descriptor that holds the lock.
    :raises OSError: if there is no such folder, or it is being removed.
    """
    return _locked(path, fcntl.LOCK_SH, os.O_CREAT)


def _locked(path: str, how: int, create: int = 0) -> int:
    """
    Lock a folder, without waiting.

    :raises OSError: if another process holds the lock, or there is no such file.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | create
    lock = os.open(os.path.join(path, _LOCK), flags, 0o600)
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def removeStale() -> None:
    """Remove the folders of this user that no living process holds: those of killed supervisors."""
    parent = tempfile.gettempdir()
    with suppress(OSError):
        for name in filter(_NAME.fullmatch, os.listdir(parent)):
            _removeIfStale(os.path.join(parent, name))


def _removeIfStale(path: str) -> None:
    # A folder without the file is of another program, or was made this moment.
    with suppress(OSError):
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return
        lock = _locked(path, fcntl.LOCK_EX)
        try:
            shutil.rmtree(path)
            _log.info("removed the folder of a supervisor that was killed: {path}", path=path)
        finally:
            os.close(lock)
