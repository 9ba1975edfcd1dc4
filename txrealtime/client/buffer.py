"""
Events that wait for their namespace to connect.
"""

from __future__ import annotations

from collections.abc import Iterator

from txrealtime.engineio.packet import Packet

__all__ = ["Buffer"]


class Buffer:
    """
    A queue of encoded events.

    :ivar size: their bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        # By a number that grows, so that an event with an ack is found and taken out quickly.
        self._entries: dict[int, tuple[list[Packet], int, int | None]] = {}
        self._numbers: dict[int, int] = {}
        self._last = 0

    def __contains__(self, id: int) -> bool:
        return id in self._numbers

    def add(self, messages: list[Packet], size: int, id: int | None) -> None:
        """
        Append an event.

        :param id: the number of its ack, if it wants one.
        """
        self._last += 1
        self._entries[self._last] = (messages, size, id)
        if id is not None:
            self._numbers[id] = self._last
        self.size += size

    def remove(self, id: int) -> None:
        """Take out the event that wants an ack of this number, if it is here."""
        number = self._numbers.pop(id, None)
        if number is not None:
            self.size -= self._entries.pop(number)[1]

    def take(self) -> Iterator[tuple[list[Packet], int | None]]:
        """Take all events, in order."""
        entries = list(self._entries.values())
        self.clear()
        return iter([(messages, id) for messages, _, id in entries])

    def clear(self) -> None:
        """Drop all events."""
        self._entries.clear()
        self._numbers.clear()
        self.size = 0
