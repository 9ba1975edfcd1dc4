"""
``txrealtime serve``: ``twistd realtime`` in the foreground, and with ``--reload`` anew after each change.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from twisted.application.service import ServiceMaker
from twisted.python import usage
from twisted.scripts import twistd

from txrealtime.service.helptext import SERVE
from txrealtime.service.options import ServeOptions, StartupError

__all__ = ["serve"]

# Seconds in which a server stops for a reload, until it is killed.
_STOP_TIME: Final = 10


class _Foreground(twistd.ServerOptions):  # type: ignore[misc, name-defined]
    """The options of twistd with one command, which needs no plugin."""

    synopsis = "Usage: txrealtime"

    @property
    def subCommands(self) -> Iterator[tuple[str, None, type[ServeOptions], str]]:
        self.loadedPlugins = {"serve": ServiceMaker("realtime", "txrealtime.service", "", "realtime")}
        yield "serve", None, ServeOptions, "Serve Socket.IO."


def serve(arguments: Sequence[str]) -> int:
    """
    Serve until the process is told to stop.

    :param arguments: the command line behind ``serve``.
    :return: the exit code.
    :raises StartupError: if the server cannot start.
    """
    StartupError.program = SERVE
    options = _Foreground()
    try:
        options.parseOptions(["--nodaemon", "--pidfile=", "serve", *arguments])
    except usage.UsageError as error:
        raise StartupError(error) from None
    if options.subOptions["reload"]:
        return _reloading(arguments)
    twistd.runApp(options)
    return 0


def _reloading(arguments: Sequence[str]) -> int:
    """
    Serve in another process, which is started anew after each change of a file.

    :raises StartupError: if the library that watches files is not installed.
    """
    try:
        from watchfiles import PythonFilter, run_process
    except ModuleNotFoundError as error:
        raise StartupError(f"--reload: {error}; pip install 'txrealtime[reload]'") from None
    # The server is stopped by SIGINT, which a shell's background processes and their children ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_process(
        *_watched(),
        target=_command(arguments),
        target_type="command",
        watch_filter=PythonFilter(),
        callback=_changed,
        sigint_timeout=_STOP_TIME,
    )
    return 0


def _command(arguments: Sequence[str]) -> str:
    """Return the command line of the process that serves."""
    kept = [argument for argument in arguments if not _isReload(argument)]
    return shlex.join([sys.executable, "-m", "txrealtime", "serve", *kept])


def _isReload(argument: str) -> bool:
    """Return whether an argument is ``--reload``, which may be shortened."""
    return len(argument) >= len("--rel") and "--reload".startswith(argument)


def _watched() -> list[str]:
    """Return the folders from which the application's modules come."""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [os.getcwd(), *(folder for folder in named if folder and os.path.isdir(folder))]


def _changed(changes: set[tuple[Any, str]]) -> None:
    files = sorted({os.path.relpath(file) for _, file in changes})
    print(f"{SERVE}: changed: {', '.join(files)}; starting anew", file=sys.stderr, flush=True)
