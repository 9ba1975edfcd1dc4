"""
What servers say to one another, whatever the wire form.

A :class:`~txrealtime.cluster.dialects.interfaces.Dialect` writes these as bytes and reads them.  What it
has read is of the right types and sizes, and no more: whether there is such a namespace, room
or question is for the :class:`~txrealtime.cluster.cluster.Cluster` to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from txrealtime.engineio import packet as engineio
from txrealtime.socketio.packet import Packet

__all__ = [
    "Alive",
    "Ask",
    "Disconnect",
    "Emit",
    "Fetch",
    "Gone",
    "Join",
    "Leave",
    "Message",
    "Reply",
    "Target",
    "Tell",
]


class Target(NamedTuple):
    """
    An audience on its way.

    :ivar path: its namespace.
    :ivar rooms: the rooms; ``None`` for everybody.
    :ivar excluded: rooms whose members are left out.
    """

    path: str
    rooms: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()


class Emit(NamedTuple):
    """
    An event for an audience.  One that was read has either form, one to write both.

    :ivar packet: the event.
    :ivar messages: the same as clients get it.
    """

    target: Target
    packet: Packet | None
    messages: Sequence[engineio.Packet] | None
    volatile: bool = False


class Join(NamedTuple):
    """An audience shall join rooms."""

    target: Target
    rooms: tuple[str, ...]


class Leave(NamedTuple):
    """An audience shall leave rooms."""

    target: Target
    rooms: tuple[str, ...]


class Disconnect(NamedTuple):
    """An audience shall be disconnected."""

    target: Target
    close: bool


class Ask(NamedTuple):
    """
    An event for an audience, whose answers are wanted.

    :ivar packet: the event.
    :ivar sender: who wants them.
    :ivar request: the sender's name for the question.
    :ivar timeout: seconds for which it waits.
    """

    target: Target
    packet: Packet
    sender: str
    request: str
    timeout: float


class Fetch(NamedTuple):
    """
    Who is in an audience?

    :ivar form: what a dialect wants to hear of them, if there is a choice.
    """

    target: Target
    sender: str
    request: str
    form: str = ""


class Tell(NamedTuple):
    """
    An event for the servers themselves.

    :ivar data: its name, and its arguments.
    :ivar request: what the sender calls the question; ``None`` when it wants no answer.
    """

    data: list[Any]
    sender: str
    request: str | None = None


class Reply(NamedTuple):
    """
    What one server has to say to a question.

    The first to a question has a ``total``.  A server has answered in full when it has sent so
    many values; for a value that will not come it sends ``lapsed``.

    :ivar question: what is answered, where that is known: by who answers.
    :ivar sender: who answers; empty where that is not told.
    :ivar total: how many values there will be, these included.
    :ivar values: the answers of clients, as ``acks.ackValue`` has them,
        :class:`~txrealtime.socketio.audience.Person` objects, or the answer of the server.
    :ivar lapsed: how many values will not come, after all.
    """

    question: Ask | Fetch | Tell | None
    request: str
    sender: str
    total: int | None
    values: Sequence[Any] = ()
    lapsed: int = 0


class Alive(NamedTuple):
    """
    A server is here.

    :ivar name: what people call it.
    :ivar lease: seconds after which it is to be taken for gone when nothing was heard.
    :ivar parser: what it makes packets of.
    :ivar asks: whether it wants to hear the same from the others.
    :ivar recipient: the only one who is told; empty for all.
    """

    sender: str
    name: str
    lease: float
    parser: str
    asks: bool = False
    recipient: str = ""


class Gone(NamedTuple):
    """A server is about to stop."""

    sender: str


Message = Emit | Join | Leave | Disconnect | Ask | Fetch | Tell | Reply | Alive | Gone
