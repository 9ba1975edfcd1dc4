"""
The interface of a dialect: the wire form of the messages between servers.

There are four: the native one (:mod:`~txrealtime.cluster.dialects.native`), that of python-socketio
(:mod:`~txrealtime.cluster.dialects.pythonsocketio`), and those of Node's Redis adapter
(:mod:`~txrealtime.cluster.dialects.nodejs`) and of its Streams adapter
(:mod:`~txrealtime.cluster.dialects.nodestreams`).
:class:`~txrealtime.cluster.conversation.Conversation` and the emitters write with a dialect; only the
conversation reads.  A dialect never publishes or subscribes itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from txrealtime.cluster.dialects.messages import Ask, Fetch, Message, Tell, Transfer
from txrealtime.cluster.dialects.numbers import Numbers
from txrealtime.errors import BusError

__all__ = ["Dialect", "Respondents", "Topic", "Unsupported"]


class Unsupported(BusError):
    """The dialect has no form for a message."""


class Topic(NamedTuple):
    """
    A topic to subscribe to.

    :ivar isPattern: true if the name is a pattern in Redis's form.
    :ivar isCounted: true if other servers count the topic's subscribers.
    """

    name: str
    isPattern: bool = False
    isCounted: bool = False


class Respondents(NamedTuple):
    """
    The servers that are going to reply to a question.

    :ivar servers: name by uid.
    :ivar unnamed: the number of other servers.
    :ivar topic: a topic whose subscribers, this server excepted, are to reply too; empty for none.
    """

    servers: Mapping[str, str]
    unnamed: int = 0
    topic: str = ""


class Dialect(Protocol):
    """The wire form of one server's messages."""

    @property
    def name(self) -> str:
        """The name in the bus's URL."""

    @property
    def idPrefix(self) -> str:
        """The beginning of the ids of this server's sockets."""

    @property
    def pageSize(self) -> int:
        """The number of sockets that one reply to a fetch describes; a server may send several."""

    @property
    def topics(self) -> Sequence[Topic]:
        """The topics that every server subscribes to."""

    @property
    def announces(self) -> bool:
        """True if servers announce themselves."""

    @property
    def hasPresence(self) -> bool:
        """True if servers tell each other who is present in rooms."""

    @property
    def numbers(self) -> Numbers | None:
        """The numbers of the messages; ``None`` in a dialect without."""

    def topicsOf(self, path: str) -> Sequence[Topic]:
        """Return the topics that a server subscribes to for a namespace."""

    def topicOf(self, path: str, room: str) -> Topic | None:
        """Return the topic that a server subscribes to while a room has members there, if there is one."""

    def pathOf(self, topic: str) -> str | None:
        """
        Return the path of the namespace that a numbered topic is for.

        :return: ``None`` if it may be any; an empty text if it is none.
        """

    def respondents(self, question: Ask | Fetch | Tell | Transfer) -> Respondents:
        """Return the servers that are going to reply to a question."""

    def write(self, message: Message) -> Sequence[tuple[str, bytes]]:
        """
        Encode a message.

        :return: topics and payloads to publish, in order.
        :raises Unsupported: if the dialect has no form for the message.
        :raises TypeError: if a value cannot be encoded.
        :raises ValueError: if a value cannot be encoded.
        """

    def read(self, topic: str, data: bytes) -> Message | None:
        """
        Decode a message that came on a topic.

        :return: ``None`` for this server's own messages and those for other servers.
        :raises PacketError: if the data are not a message.  No other exception is raised.
        """
