"""
The messages between servers, without their wire form.

A :class:`~txrealtime.cluster.dialects.interfaces.Dialect` encodes and decodes them.  A decoded message has
the right types and sizes, and no more.  Its receivers look up whether there is such a namespace, room or
question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from txrealtime.engineio import packet as engineio
from txrealtime.socketio.packet import Packet
from txrealtime.socketio.presence import Entry

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
    "Roll",
    "RosterNumbers",
    "RosterPage",
    "Target",
    "Tell",
    "Track",
    "Transfer",
]


class Target(NamedTuple):
    """
    An audience, named for other servers.

    :ivar path: the path of the namespace.
    :ivar rooms: the rooms; ``None`` for everybody.
    :ivar excluded: rooms whose members are left out.
    """

    path: str
    rooms: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()


class Emit(NamedTuple):
    """
    An event for an audience.

    A decoded message has either form of the event; one to encode has both.

    :ivar packet: the event.
    :ivar messages: the event as clients get it.
    :ivar logged: its number in the sender's log of the namespace, on a bus that keeps messages; otherwise 0.
    :ivar place: the id of its entry in a stream of Node's servers; otherwise empty.
    """

    target: Target
    packet: Packet | None
    messages: Sequence[engineio.Packet] | None
    volatile: bool = False
    logged: int = 0
    place: str = ""


class Join(NamedTuple):
    """A request to put an audience into rooms."""

    target: Target
    rooms: tuple[str, ...]


class Leave(NamedTuple):
    """A request to take an audience out of rooms."""

    target: Target
    rooms: tuple[str, ...]


class Disconnect(NamedTuple):
    """
    A request to disconnect an audience.

    :ivar close: close the connections too.
    """

    target: Target
    close: bool


class Ask(NamedTuple):
    """
    A question: an event for an audience, whose clients are to ack.

    :ivar packet: the event.
    :ivar sender: the uid of the asking server.
    :ivar request: the sender's id of the question.
    :ivar timeout: seconds for which the sender waits.
    :ivar recipient: the uid of the only server that is asked; empty for those that the audience names.
    """

    target: Target
    packet: Packet
    sender: str
    request: str
    timeout: float
    recipient: str = ""


class Fetch(NamedTuple):
    """
    A question: the sockets of an audience.

    :ivar form: the form of the reply, in a dialect that has several.
    :ivar recipient: the uid of the only server that is asked; empty for those that the audience names.
    """

    target: Target
    sender: str
    request: str
    form: str = ""
    recipient: str = ""


class Tell(NamedTuple):
    """
    An event for the servers themselves; a question if it has a `request`.

    :ivar data: the name and the arguments.
    :ivar request: the sender's id of the question; ``None`` if it wants no reply.
    """

    data: list[Any]
    sender: str
    request: str | None = None


class Transfer(NamedTuple):
    """
    A question about a client that comes back to another server, or about the history of a room.

    :ivar data: its name and its arguments, all of them values of JSON or bytes.
    :ivar recipient: the uid of the only server that is asked; empty for all.
    """

    data: list[Any]
    sender: str
    request: str
    recipient: str = ""


class Reply(NamedTuple):
    """
    A server's reply to a question, or a part of it.

    A server's first reply has a ``total``.  The server has replied in full when it has sent so many values,
    or reported them as lapsed.

    :ivar question: the question, if this is a reply to encode.
    :ivar sender: the uid of the replying server; empty in a dialect that does not tell.
    :ivar total: the number of values that there will be, with those of this message.
    :ivar values: the acks of clients as ``acks.returned`` gives them,
        :class:`~txrealtime.socketio.audience.Person` objects, or the result of an event's handler.
    :ivar lapsed: the number of values that will not come.
    :ivar moved: the uid of the server to which the audience's only client has moved; empty if none has.
    """

    question: Ask | Fetch | Tell | Transfer | None
    request: str
    sender: str
    total: int | None
    values: Sequence[Any] = ()
    lapsed: int = 0
    moved: str = ""


class Alive(NamedTuple):
    """
    An announcement: a server is here.

    :ivar name: the server's name for people.
    :ivar lease: seconds after which the server has gone, unless it is heard again.
    :ivar parser: the name of the class that encodes its packets.
    :ivar asks: true if the server wants the announcements of the others.
    :ivar recipient: the uid of the only server that is told; empty for all.
    :ivar publishes: the digest of the list of brokers by which the server publishes; empty for one broker.
    :ivar hears: the digests of the lists by which it hears: see
        :class:`~txrealtime.cluster.bus.spread.Spread`.
    """

    sender: str
    name: str
    lease: float
    parser: str
    asks: bool = False
    recipient: str = ""
    publishes: str = ""
    hears: tuple[str, ...] = ("",)

    def hearsAll(self, other: Alive) -> bool:
        """Return true if each of two servers hears what the other publishes."""
        return other.publishes in self.hears and self.publishes in other.hears


class Gone(NamedTuple):
    """A goodbye: a server is about to stop."""

    sender: str


class Track(NamedTuple):
    """
    A change of one server's entries of presence.

    :ivar path: the path of the namespace.
    :ivar before: the number of the sender's change before this one in the namespace; 0 for none.
    :ivar number: the number of this change.
    :ivar entry: the entry that has come, has changed, or has gone.
    :ivar isPresent: false if the entry has gone.
    """

    path: str
    sender: str
    before: int
    number: int
    entry: Entry
    isPresent: bool


class Roll(NamedTuple):
    """A request for all entries of one server, in some namespaces."""

    paths: Sequence[str]
    sender: str
    recipient: str = ""


class RosterPage(NamedTuple):
    """
    Entries of one server in a namespace, all or some of them, for the server that has asked.

    :ivar number: the number of the sender's last change in the namespace.
    :ivar page: the number of this message among those that have the entries, from 0.
    :ivar more: true if more messages follow.
    """

    path: str
    sender: str
    recipient: str
    number: int
    page: int
    more: bool
    entries: Sequence[Entry]


class RosterNumbers(NamedTuple):
    """The numbers of a server's last changes of presence, by the path of the namespace."""

    sender: str
    numbers: Mapping[str, int]


Message = (
    Emit
    | Join
    | Leave
    | Disconnect
    | Ask
    | Fetch
    | Tell
    | Transfer
    | Reply
    | Alive
    | Gone
    | Track
    | Roll
    | RosterPage
    | RosterNumbers
)
