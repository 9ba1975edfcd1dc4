"""
The log lines of clients that come back and cannot recover.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import LogLevel

from txrealtime.logs import Logger

__all__ = ["REASONS", "logRefusal"]

_log = Logger()

REASONS: Final = {
    "address": "its address is another one (recoveryAddress)",
    "offset": "its offset is none that this server has sent",
    "dropped": "the log does not reach back so far: raise recoveryBytes (--recovery-bytes) or recoveryEvents "
    "(--recovery-events)",
    "expired": "it has handled no event for longer than recoveryWindow (--recovery-window)",
    "hole": "events of other servers were lost meanwhile (server.cluster.missed)",
    "size": "it missed more than maxBuffered (--max-buffered) allows",
    "trimmed": "the stream does not reach back so far: raise maxlen in the URL of the bus",
}
"""The reasons by the result of a return; the last one is that of a bus that keeps messages."""


def logRefusal(path: str, why: str) -> None:
    """
    Log that a client gets a fresh session.

    :param path: the path of the namespace.
    :param why: the reason, one of few.
    """
    text = "{namespace}: a client came back and gets a fresh session: {why}"
    _log.limited(why, LogLevel.info, text, namespace=path, why=why)
