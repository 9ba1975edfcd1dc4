"""
Commands to a broker that keeps messages: sent again if the link fails meanwhile, and void if they come late.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.errors import BusError

__all__ = ["askedAgain", "latest"]

T = TypeVar("T")

_PATIENCE: Final = 9.0
"""Seconds that a client waits for the link."""


async def askedAgain(link: Link, clock: IReactorTime, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """
    Ask a broker, and ask again each time that the link has failed meanwhile and is ready in time.

    :param ask: sends the commands; may be called several times.
    :raises BusError: if the link is not ready within nine seconds, or fails for another reason.
    """
    until = clock.seconds() + _PATIENCE
    while True:
        await link.whenReady().addTimeout(until - clock.seconds(), clock, _notReady)
        try:
            return await ask()
        except BusError:
            if link.status is LinkStatus.READY or clock.seconds() >= until:
                raise


async def latest(link: Link) -> str:
    """
    Return a time by Redis's clock, in seconds, after which a script that was sent now must do nothing.

    A Redis that hung carries out what its sockets hold, long after those who asked have gone.
    """
    seconds, _ = await link.command("TIME")
    return str(int(seconds) + round(_PATIENCE))


def _notReady(result: object, seconds: float) -> NoReturn:
    raise BusError(f"the link was not ready within {_PATIENCE:g} s")
