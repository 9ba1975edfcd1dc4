"""
The build of the interpreter, which decides a quarter of the cost of a message.
"""

from __future__ import annotations

import platform
import sys
import sysconfig

from txrealtime.logs import Logger

__all__ = ["isOptimized", "tellBuild"]

_log = Logger()


def isOptimized(arguments: str | None, prefix: str, isDebug: bool) -> bool:
    """
    Tell if an interpreter was built with optimizations, as far as it tells itself.

    :param arguments: those of its ``configure``; ``None`` where it has no such program.
    :param prefix: the folder that it is installed in.  A distribution's, in ``/usr``, is trusted: Debian
        optimizes in another way, of which the arguments show nothing.
    :param isDebug: ``True`` for a debug build.
    """
    if isDebug:
        return False
    return arguments is None or prefix == "/usr" or "--enable-optimizations" in arguments


def tellBuild() -> None:
    """Log a line if this interpreter was built without optimizations."""
    debug = bool(sysconfig.get_config_var("Py_DEBUG"))
    if not isOptimized(sysconfig.get_config_var("CONFIG_ARGS"), sys.base_prefix, debug):
        _log.info(
            "Python {version} was built without --enable-optimizations: each message takes up to a quarter "
            "more CPU time than on a distribution's Python",
            version=platform.python_version(),
        )
