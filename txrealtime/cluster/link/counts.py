"""
The counts of a link and its log lines.

:class:`~txrealtime.cluster.link.link.Link` makes a :class:`Journal`.  The two halves of the link,
:mod:`~txrealtime.cluster.link.incoming` and :mod:`~txrealtime.cluster.link.outgoing`, count and complain
there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from txrealtime.logs import Logger

__all__ = ["Counts", "Journal"]

_log = Logger()

MOST = 10
"Different complaints in the log during one outage: a text may hold a number that is always new."


@dataclass
class Counts:
    """
    The messages that have gone over a link since it was made, and those that were lost.

    Heartbeats are not counted.

    :ivar published: messages handed to the broker.
    :ivar received: messages delivered to their receivers.
    :ivar dropped: messages that found no room in the queue, or were in it when the link was stopped.
    :ivar unconfirmed: published messages that the broker had not confirmed when its connection ended.
        Other servers may have them or not.  They are not sent again, so that nobody gets them twice.
    :ivar refused: published messages that the broker refused.
    :ivar oversized: messages that came, larger than ``maxMessage``, and were thrown away.
    :ivar trimmed: messages of any server and topic that a broker which keeps messages had thrown away before
        this server read them.
    :ivar failures: messages whose receiver raised an exception.
    :ivar outages: the number of times that the link became deaf.
    :ivar deafFor: seconds that the link was deaf, without the current outage.
    """

    published: int = 0
    received: int = 0
    dropped: int = 0
    unconfirmed: int = 0
    refused: int = 0
    oversized: int = 0
    trimmed: int = 0
    failures: int = 0
    outages: int = 0
    deafFor: float = 0.0


class Journal:
    """
    The counts of a link, and its log lines: each complaint at most once in an outage.

    :param bus: the broker's name, for the log.
    """

    def __init__(self, bus: str) -> None:
        self.bus = bus
        self.counts = Counts()
        self._reported = Counts()
        self._complaints: set[str] = set()

    def complain(self, text: str, why: str = "") -> None:
        """
        Log a problem, unless it was logged in this outage.

        :param text: may have the fields ``{bus}`` and ``{why}``.
        """
        complaint = text + why
        if complaint not in self._complaints and len(self._complaints) < MOST:
            self._complaints.add(complaint)
            _log.warn(text, bus=self.bus, why=why)

    def over(self) -> None:
        """End the outage: log the same complaints again from now on."""
        self._complaints.clear()

    def losses(self) -> str:
        """Describe the published messages that were lost since the last call, for the log."""
        earlier, self._reported = self._reported, replace(self.counts)
        losses = {
            name: getattr(self.counts, name) - getattr(earlier, name)
            for name in ("dropped", "unconfirmed", "refused")
        }
        return ", ".join(f"{count} {name}" for name, count in losses.items() if count) or "nothing"
