"""
The choice of the reactor, where the user has made none.
"""

from __future__ import annotations

from typing import Any

try:
    from txrealtime import reactor as quick
except ImportError:  # epoll is Linux's
    quick = None  # type: ignore[assignment]

__all__ = ["moduleOf", "quicken"]


def quicken(reactor: Any) -> None:
    """
    Give Twisted's epoll reactor the quick loop: see :mod:`txrealtime.reactor`.

    ``twistd realtime`` calls this unless ``--reactor`` is given, as do ``socketio.run()`` and the worker
    class of gunicorn.
    """
    if quick is not None:
        quick.quicken(reactor)


def moduleOf(reactor: Any) -> str:
    """Return the name of the module whose ``install()`` makes a reactor like this one."""
    if quick is not None and quick.isQuick(reactor):
        return quick.__name__
    return type(reactor).__module__
