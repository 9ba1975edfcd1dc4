"""
The counts of an engine: plain numbers, added to where things happen and read when somebody asks.

All that happens rarely is always counted.  The bytes of messages are counted only after
:func:`~txrealtime.engineio.counting.countBytes`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

from txrealtime.engineio.packet import Packet
from txrealtime.engineio.websocket.plain import Meter, payloadSize

__all__ = ["BOUNDS", "Counts", "Histogram"]

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0)


class Histogram(bytearray):
    """
    A count of durations by their size.

    The functions in C count in the bytearray: it has the sum of the durations and the bounds as doubles, then
    the buckets as integers of 8 bytes.

    :ivar bounds: the largest duration of each bucket but the last, in seconds.
    """

    __slots__ = ("_buckets", "_total", "bounds")

    def __init__(self, bounds: Sequence[float], /) -> None:
        super().__init__(array("d", [0.0, *bounds]).tobytes() + bytes(8 * (len(bounds) + 1)))
        self.bounds = tuple(bounds)
        self._buckets = memoryview(self).cast("q")[len(bounds) + 1 :]
        self._total = memoryview(self).cast("d")[:1]

    @property
    def buckets(self) -> list[int]:
        """The durations in each bucket; those of earlier ones are not in later ones."""
        return self._buckets.tolist()

    @property
    def total(self) -> float:
        """The sum of the durations, in seconds."""
        return self._total[0]

    @property
    def number(self) -> int:
        """The number of durations."""
        return sum(self._buckets)

    def add(self, seconds: float, /) -> None:
        """Count a duration."""
        self._buckets[bisect_left(self.bounds, seconds)] += 1
        self._total[0] += seconds

    def addAll(self, buckets: list[int], total: float, /) -> None:
        """
        Add the durations of another histogram.

        :raises ValueError: if it has another number of buckets.
        """
        if len(buckets) != len(self.buckets):
            raise ValueError("a histogram with other bounds")
        for index, other in enumerate(buckets):
            self._buckets[index] += other
        self._total[0] += total


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
    :ivar bodies: polling bodies that came, likewise.
    :ivar packetsByPolling: Engine.IO packets sent in polling bodies, likewise.
    :ivar received: the messages that came by WebSocket, if they are counted.
    :ivar sent: the messages sent by WebSocket, likewise; see :meth:`settle`.
    :ivar counting: the class of the WebSockets that count what they send, if there is one.
    """

    __slots__ = (
        "_shared",
        "_sharedSize",
        "bodies",
        "buffered",
        "closed",
        "counting",
        "opened",
        "packetsByPolling",
        "paused",
        "pings",
        "received",
        "receivedByPolling",
        "refused",
        "sent",
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
        self.pings = Histogram(BOUNDS)
        self.receivedByPolling = 0
        self.sentByPolling = 0
        self.bodies = 0
        self.packetsByPolling = 0
        self.received: Meter | None = None
        self.sent: Meter | None = None
        self.counting: type | None = None
        # The messages that count their receivers themselves.
        self._shared: list[Packet] = []
        self._sharedSize = 0

    @property
    def receivedByWebSocket(self) -> int:
        """The bytes of messages that came by WebSocket, if they are counted."""
        return 0 if self.received is None else self.received.bytes

    @property
    def packetsReceived(self) -> int:
        """The messages that came by WebSocket, and the bodies that came by polling, likewise."""
        return self.bodies + (0 if self.received is None else self.received.messages)

    @property
    def sentByWebSocket(self) -> int:
        """The bytes of messages sent by WebSocket, likewise."""
        self.settle()
        return 0 if self.sent is None else self.sent.bytes

    @property
    def packetsSent(self) -> int:
        """The Engine.IO packets sent, likewise."""
        self.settle()
        return self.packetsByPolling + (0 if self.sent is None else self.sent.messages)

    def share(self, packet: Packet) -> None:
        """Have a packet that was framed for an earlier receiver count its receivers from this one on."""
        packet.times = 1
        self._shared.append(packet)
        assert packet.frame is not None
        self._sharedSize += len(packet.frame)
        if self._sharedSize > _MOST_SHARED:
            self.settle()

    def settle(self) -> None:
        """Add the numbers that packets hold to :attr:`sent`."""
        for packet in self._shared:
            if self.sent is not None and packet.frame is not None:
                self.sent.add(packet.times, packet.times * payloadSize(packet.frame))
            packet.times = 0
        self._shared.clear()
        self._sharedSize = 0


_MOST_SHARED: Final = 65536
"""Bytes of packets that are kept for their numbers of receivers."""
