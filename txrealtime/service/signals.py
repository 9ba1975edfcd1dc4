"""
The signals of a serving process.

TERM and INT stop it, HUP reads certificates again and reopens logs, USR1 reopens logs.  The system's
own answer to the last two would be to end the process at once.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.python.logfile import BaseLogFile

from txrealtime.logs import Logger

__all__ = ["Signals", "reopenLogs"]

_log = Logger()


class Signals:
    """
    Handlers in place of the reactor's, of twistd's and of the system's.

    Handlers that others have installed stay, and so does a signal that is ignored, as HUP is under ``nohup``.

    :param stop: called in the reactor's thread on TERM or INT, or if the terminal is closed.
    :param reload: called in the reactor's thread on HUP.
    """

    def __init__(self, reactor: Any, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._stop = stop
        self._reload = reload
        self._hadTerminal = False

    def take(self) -> None:
        """Install the handlers."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python refuses, and signals come to the main thread only.
        for number, theirs in ((signal.SIGTERM, "sigTerm"), (signal.SIGINT, "sigInt")):
            # The reactor's handler makes twistd end by the signal even after an orderly stop, and ignores
            # a second signal.
            if signal.getsignal(number) == getattr(self._reactor, theirs, None):
                signal.signal(number, self._terminated)
        self._hadTerminal = _hasTerminal()
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._hungUp)
        reopening = signal.getsignal(signal.SIGUSR1)
        # twistd's handler moves the log itself, and does nothing if logrotate has moved it already.
        if (
            reopening == signal.SIG_DFL
            or getattr(reopening, "__module__", "") == "twisted.scripts._twistd_unix"
        ):
            signal.signal(signal.SIGUSR1, self._toReopen)

    def _terminated(self, number: int, frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            # The system's own handler, not Python's: it ends the process even if the reactor is stuck.
            signal.signal(each, signal.SIG_DFL)
        self._later(number, self._stop)

    def _hungUp(self, number: int, frame: object) -> None:
        if self._hadTerminal and not _hasTerminal():
            # Nobody could stop the process by Ctrl-C any more, and it would keep the port.
            self._later(number, self._stop)
        else:
            self._later(number, self._reopenAndReload)

    def _toReopen(self, number: int, frame: object) -> None:
        self._later(number, reopenLogs)

    def _later(self, number: int, action: Callable[[], object]) -> None:
        self._reactor.callFromThread(self._act, signal.Signals(number).name, action)

    def _act(self, name: str, action: Callable[[], object]) -> None:
        _log.info("{name} received", name=name)
        action()

    def _reopenAndReload(self) -> None:
        reopenLogs()
        self._reload()


def _hasTerminal() -> bool:
    """Tell if the process can be controlled from a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def reopenLogs() -> None:
    """Open the log files again, by their names: logrotate may have moved them."""
    # twistd keeps its log file to itself, so it has to be found.  Not isinstance(), which asks proxies such
    # as Flask's for the class of what they stand for.
    for file in [file for file in gc.get_objects() if issubclass(type(file), BaseLogFile)]:
        if file.closed:
            continue
        try:
            # reopen() closes first, and a file that cannot be opened then would end all logging.
            open(file.path, "ab").close()
            file.reopen()
        except OSError as error:
            _log.error(
                "the log {path} cannot be reopened: {reason}; logging goes on to the file as it was. "
                "The user of this process needs write access to the folder",
                path=os.fspath(file.path),
                reason=error.strerror,
            )
        else:
            _log.info("the log {path} has been reopened", path=os.fspath(file.path))
