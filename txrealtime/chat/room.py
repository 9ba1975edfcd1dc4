"""
A room of the chat: its people and its newest pictures.  Its messages are in the history of the namespace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

__all__ = ["KEPT_PICTURES", "Room"]

KEPT_PICTURES = 5
"The pictures that a newcomer to a room sees."


@dataclass
class Room:
    """
    A room: the nicks of its people by key, and the newest pictures by id.
    """

    name: str
    people: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def keysOf(self, nick: str) -> list[str]:
        """List the keys of the people who have a nick, in upper or lower case."""
        return [key for key, other in self.people.items() if other.casefold() == nick.casefold()]

    def freeNick(self, nick: str) -> str:
        """Return the nick, with a number if somebody here has it already."""
        numbered = (nick if n == 1 else f"{nick} {n}" for n in count(1))
        return next(candidate for candidate in numbered if not self.keysOf(candidate))

    def keepPicture(self, id: str, picture: bytes) -> None:
        """Keep a picture, and forget the oldest.  A picture is not replaced by another one with its id."""
        self.pictures.setdefault(id, picture)
        while len(self.pictures) > KEPT_PICTURES:
            del self.pictures[next(iter(self.pictures))]
