"""
The counts of a server's namespaces: plain numbers, added to where things happen and read when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["OTHER", "EventsSent", "TalkCounts"]

OTHER: Final = "other"
"""The label of all names that clients choose."""


class EventsSent:
    """
    A number of events.

    :ivar count: events that this server's application has sent, each once for all its receivers.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class TalkCounts:
    """
    The counts of a server's namespaces since its start.

    :ivar acksPending: acks that the server waits for.
    :ivar ackTimeouts: acks that did not come in time.
    :ivar eventsWaiting: events that wait for their handlers.
    :ivar recoveries: sessions that asked to come back, by the result, such as ``ok``.
    :ivar sent: the events sent, by the label of the namespace.
    """

    __slots__ = ("ackTimeouts", "acksPending", "eventsWaiting", "recoveries", "sent")

    def __init__(self) -> None:
        self.acksPending = 0
        self.ackTimeouts = 0
        self.eventsWaiting = 0
        self.recoveries: Counter[str] = Counter()
        self.sent: dict[str, EventsSent] = {}

    def sentIn(self, label: str) -> EventsSent:
        """Return the counted events of a namespace, or of all whose paths clients chose."""
        return self.sent.setdefault(label, EventsSent())
