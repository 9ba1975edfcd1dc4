"""
A room of the chat: its people and its newest messages, alike on all servers.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, succeed

__all__ = ["KEPT_MESSAGES", "KEPT_PICTURES", "Message", "Room"]

KEPT_MESSAGES = 100
KEPT_PICTURES = 5
"The messages and pictures that a newcomer to a room sees."


@dataclass
class Message:
    """A message. `key` identifies its author, and stays on the servers."""

    id: str
    key: str
    nick: str
    time: float
    text: str = ""
    type: str = ""

    @property
    def place(self) -> tuple[float, str, str]:
        """The place in the room's history: by time, and in some order that all servers agree on."""
        return self.time, self.id, self.key

    def seenBy(self, key: str) -> dict[str, Any]:
        """Return the message as the page gets it, with `mine` true for its author."""
        seen = {"id": self.id, "nick": self.nick, "time": self.time, "mine": self.key == key}
        return seen | ({"type": self.type} if self.type else {"text": self.text})


@dataclass
class Room:
    """
    A room: the nicks of its people by key, the newest messages, and the newest pictures by id.

    Whichever way messages come, and in whichever order, the same ones are kept, and in the same order: two
    servers that have heard the same have the same history.
    """

    name: str
    people: dict[str, str] = field(default_factory=dict)
    said: list[Message] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    recalled: Deferred[None] = field(default_factory=lambda: succeed(None))
    "Fires when the other servers have told the history."
    recalledAt: int = -1
    "The number of this server's outages when it asked for that."

    def keysOf(self, nick: str) -> list[str]:
        """List the keys of the people who have a nick, in upper or lower case."""
        return [key for key, other in self.people.items() if other.casefold() == nick.casefold()]

    def freeNick(self, nick: str) -> str:
        """Return the nick, with a number if somebody here has it already."""
        numbered = (nick if n == 1 else f"{nick} {n}" for n in count(1))
        return next(candidate for candidate in numbered if not self.keysOf(candidate))

    def timeOfNext(self, now: float) -> float:
        """Return the time of a new message: behind all that was said, even if the servers' clocks differ."""
        return max(now, self.said[-1].time + 0.001) if self.said else now

    def find(self, id: str, key: str) -> Message | None:
        """Find a message by its id and its author's key: two authors may choose one id."""
        return next((message for message in self.said if (message.id, message.key) == (id, key)), None)

    def keep(self, message: Message, picture: bytes | None = None) -> bool:
        """Keep a message, and forget the oldest. Return false if it is known, or older than all."""
        if self.find(message.id, message.key) is not None:
            return False
        insort(self.said, message, key=lambda each: each.place)
        del self.said[:-KEPT_MESSAGES]
        self.keepPicture(message.id, picture)
        return message in self.said

    def keepPicture(self, id: str, picture: bytes | None) -> None:
        """Keep a picture if it is one of the newest, and forget the others."""
        if picture is not None:
            self.pictures.setdefault(id, picture)
        newest = self.newestPictures()
        self.pictures = {id: picture for id, picture in self.pictures.items() if id in newest}

    def newestPictures(self) -> list[str]:
        """List the ids of the newest pictures."""
        return [message.id for message in self.said if message.type][-KEPT_PICTURES:]
