"""
Commands to a broker that keeps messages, sent once more if the link fails meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.link.link import Link
from txrealtime.errors import BusError

__all__ = ["askedAgain"]

T = TypeVar("T")

_PATIENCE: Final = 3.0
"""Seconds that a client waits for the link."""


async def askedAgain(link: Link, reactor: IReactorTime, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """
    Ask a broker, and ask again if the link fails meanwhile and is ready soon after.

    :param ask: sends the commands; may be called twice.
    :raises BusError: if the link is not ready within three seconds, or fails both times.
    """
    for isLast in (False, True):
        try:
            await link.whenReady().addTimeout(_PATIENCE, reactor, _notReady)
            return await ask()
        except BusError:
            if isLast:
                raise
    raise AssertionError


def _notReady(result: object, seconds: float) -> NoReturn:
    raise BusError(f"the link was not ready within {seconds:g} s")
