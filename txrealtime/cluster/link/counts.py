"""
What has gone over a link, and what was lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from txrealtime.logs import Logger

__all__ = ["Counts", "Journal"]

_log = Logger()

MOST = 10
"How many complaints of one outage the log may have: a text may have a number in it that is always new."


@dataclass
class Counts:
    """
    What has gone over a link since it was made, and what has not.  Heartbeats are not counted.

    :ivar published: messages handed to the broker.
    :ivar received: messages delivered to their receivers.
    :ivar dropped: messages that found no room in the queue, or were in it when the link was stopped.
    :ivar unconfirmed: published messages that the broker had not confirmed when its connection ended.
        Others may have them or not.  They are not sent again, since nobody may get them twice.
    :ivar refused: published messages that the broker refused.
    :ivar oversized: messages that came, larger than ``maxMessage``, and were thrown away.
    :ivar failures: messages at which their receiver raised.
    :ivar outages: how often the link was deaf.
    :ivar deafFor: seconds that it was, without the current outage.
    """

    published: int = 0
    received: int = 0
    dropped: int = 0
    unconfirmed: int = 0
    refused: int = 0
    oversized: int = 0
    failures: int = 0
    outages: int = 0
    deafFor: float = 0.0


class Journal:
    """
    What a link counts, and what it says in the log, each thing once in an outage.

    :param bus: the broker's name, for the log.
    """

    def __init__(self, bus: str) -> None:
        self.bus = bus
        self.counts = Counts()
        self._reported = Counts()
        self._complaints: set[str] = set()

    def complain(self, text: str, why: str = "") -> None:
        """
        Say that something is wrong, unless it was said in this outage.

        :param text: may have the fields ``{bus}`` and ``{why}``.
        """
        complaint = text + why
        if complaint not in self._complaints and len(self._complaints) < MOST:
            self._complaints.add(complaint)
            _log.warn(text, bus=self.bus, why=why)

    def over(self) -> None:
        """The outage is over."""
        self._complaints.clear()

    def losses(self) -> str:
        """What was lost, of what this server had to say, since the last time this was asked: for the log."""
        earlier, self._reported = self._reported, replace(self.counts)
        losses = {
            name: getattr(self.counts, name) - getattr(earlier, name)
            for name in ("dropped", "unconfirmed", "refused")
        }
        return ", ".join(f"{count} {name}" for name, count in losses.items() if count) or "nothing"
