"""
Refused requests: one line of the log each, with the setting to change.
"""

from __future__ import annotations

from twisted.logger import LogLevel

from txrealtime.engineio.counts import Counts
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["logRefusal"]

_log = Logger()


def logRefusal(address: str, error: HandshakeError, counts: Counts) -> None:
    """
    Count a refusal, and log it unless many of its reason came within a minute.

    :param address: the client's address.
    """
    counts.refused[error.reason] += 1
    why = f"{error.message}: {error.advice}" if error.advice else error.message
    # "message" and "reason" would be keys of twisted.python.log and of a Failure.
    _log.limited(
        error.reason,
        LogLevel.info,
        "refused {address}: {status} {why}",
        address=address,
        status=error.status,
        why=why,
        refused=error.reason,
    )
