"""
Refused requests: the body of the response, and a line of the log with the setting to change.
"""

from __future__ import annotations

import json
from typing import Final

from twisted.logger import LogLevel
from twisted.web.http import REQUEST_ENTITY_TOO_LARGE

from txrealtime.engineio.counts import Counts
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["LARGER", "headTooLarge", "logRefusal", "refusal"]

_log = Logger()

LARGER: Final = "raise maxPayload (--max-payload) if clients need more"
"""The advice for a message or a body that is too large."""

# RFC 6585, 5; absent from twisted.web.
HEAD_TOO_LARGE: Final = 431


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


def refusal(error: HandshakeError) -> bytes:
    """Build the body of a refused request in the form that Socket.IO clients expect."""
    if error.status == REQUEST_ENTITY_TOO_LARGE:
        return b""
    return json.dumps({"code": error.code, "message": error.message}, separators=(",", ":")).encode()


def headTooLarge(limit: int) -> HandshakeError:
    """
    Create the error that refuses the head of a request (RFC 6585, 5).

    :param limit: ``maxHeaderSize``.
    """
    return HandshakeError(
        3,
        f"the head of the request is larger than maxHeaderSize, {limit} bytes",
        HEAD_TOO_LARGE,
        reason="head",
        advice="raise maxHeaderSize (--max-header-size) if clients need more, such as for their cookies",
    )
