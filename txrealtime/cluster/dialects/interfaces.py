"""
What a wire form of the servers' messages has to provide.

There are three: ours (:mod:`~txrealtime.cluster.dialects.native`), the one of python-socketio
(:mod:`~txrealtime.cluster.dialects.pythonsocketio`) and the one of Node's Redis adapter
(:mod:`~txrealtime.cluster.dialects.nodejs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from txrealtime.cluster.dialects.messages import Ask, Fetch, Message, Tell
from txrealtime.errors import BusError

__all__ = ["Dialect", "Respondents", "Topic", "Unsupported"]


class Unsupported(BusError):
    """The dialect that the servers speak has no way to say this."""


class Topic(NamedTuple):
    """
    What to subscribe to.

    :ivar isPattern: whether the name is a pattern as Redis has them.
    """

    name: str
    isPattern: bool = False


class Respondents(NamedTuple):
    """
    Who is going to answer a question.

    :ivar servers: name by uid.
    :ivar unnamed: how many others.
    :ivar topic: a topic, whose subscribers but ourselves are so many more.
    """

    servers: Mapping[str, str]
    unnamed: int = 0
    topic: str = ""


class Dialect(Protocol):
    """One wire form, as one server speaks it."""

    @property
    def name(self) -> str:
        """What it is called in a URL."""

    @property
    def idPrefix(self) -> str:
        """What the ids of this server's sockets begin with."""

    @property
    def pageSize(self) -> int:
        """How many people one reply tells of; a server may need several."""

    @property
    def topics(self) -> Sequence[Topic]:
        """What every server reads."""

    @property
    def hasPresence(self) -> bool:
        """Whether servers tell each other that they are there."""

    def topicsOf(self, path: str) -> Sequence[Topic]:
        """What a server reads that has a namespace."""

    def topicOf(self, path: str, room: str) -> Topic | None:
        """What it reads beside, while it has members of a room."""

    def respondents(self, question: Ask | Fetch | Tell) -> Respondents:
        """Who is going to answer a question."""

    def write(self, message: Message) -> Sequence[tuple[str, bytes]]:
        """
        What to publish, each with its topic, in order to say something.

        :raises Unsupported: when there is no way to say this.
        :raises TypeError: for what cannot be sent.
        :raises ValueError: likewise.
        """

    def read(self, topic: str, data: bytes) -> Message | None:
        """
        The message that came on a topic.

        :return: ``None`` for one of our own, or one that is not for us.
        :raises PacketError: for what is no message, and for nothing else is anything raised.
        """
