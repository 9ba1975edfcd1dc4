"""
The counts of an engine: plain numbers, added to where things happen and read when somebody asks.

All that happens rarely is always counted.  The bytes of messages are counted only after
:func:`~txrealtime.engineio.counting.countBytes`, by transports that take the place of the others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

from txrealtime.engineio.packet import Packet

__all__ = ["BOUNDS", "Counts", "Histogram", "tallied"]

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0)


class Histogram:
    """
    A count of durations by their size.

    :ivar bounds: the largest duration of each bucket but the last, in seconds.
    :ivar buckets: the durations in each bucket; those of earlier ones are not in later ones.
    :ivar total: the sum of the durations, in seconds.
    """

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.buckets)

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.buckets[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Counts:
    """
    The counts of one engine since its start.

    :ivar sessions: sessions that are open, by the name of their transport.
    :ivar buffered: bytes that wait for clients.
    :ivar opened: sessions opened, by the transport and the version of the protocol.
    :ivar closed: sessions closed, by the value of their :class:`~txrealtime.engineio.interfaces.CloseReason`.
    :ivar upgrades: upgrades from polling to WebSocket: ``completed`` and ``failed``.
    :ivar refused: refused requests, by :attr:`~txrealtime.errors.HandshakeError.reason`.
    :ivar paused: pauses of reading: ``backpressure`` for waiting events, ``rate`` for a limit of one client.
    :ivar pings: the times from the server's PING to the client's PONG.
    :ivar receivedByPolling: bytes of polling bodies that came, if they are counted.
    :ivar sentByPolling: bytes of packets sent in polling bodies, likewise.
    :ivar receivedByWebSocket: bytes of messages that came, likewise.
    :ivar framedBytes: bytes of messages sent by WebSocket, likewise, each for its first receiver.
    :ivar framed: the number of these messages.
    :ivar repeated: bytes of messages sent to more receivers, and above the 64 lowest bits their number: one
        addition counts both.
    :ivar packetsReceived: messages that came by WebSocket and bodies that came by polling, likewise.
    :ivar packetsByPolling: Engine.IO packets sent in polling bodies, likewise.
    """

    __slots__ = (
        "buffered",
        "closed",
        "framed",
        "framedBytes",
        "opened",
        "packetsByPolling",
        "packetsReceived",
        "paused",
        "pings",
        "receivedByPolling",
        "receivedByWebSocket",
        "refused",
        "repeated",
        "sentByPolling",
        "sessions",
        "upgrades",
    )

    def __init__(self) -> None:
        self.sessions: Counter[str] = Counter()
        self.buffered = 0
        self.opened: Counter[tuple[str, int]] = Counter()
        self.closed: Counter[str] = Counter()
        self.upgrades: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.paused: Counter[str] = Counter()
        self.pings = Histogram()
        self.receivedByPolling = 0
        self.sentByPolling = 0
        self.receivedByWebSocket = 0
        self.framedBytes = 0
        self.framed = 0
        self.repeated = 0
        self.packetsReceived = 0
        self.packetsByPolling = 0

    @property
    def sentByWebSocket(self) -> int:
        """The bytes of messages sent by WebSocket, if they are counted."""
        return self.framedBytes + (self.repeated & (_ONE - 1))

    @property
    def packetsSent(self) -> int:
        """The Engine.IO packets sent, likewise."""
        return self.framed + (self.repeated >> _SHIFT) + self.packetsByPolling


_SHIFT: Final = 64
_ONE: Final = 1 << _SHIFT


def tallied(packet: Packet) -> int:
    """Return the amount of ``repeated`` for a packet, and keep it for other clients."""
    packet.tally = made = _ONE + len(packet.wire)
    return made
