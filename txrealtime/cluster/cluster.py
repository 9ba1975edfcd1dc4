"""
The part of a cluster that users see: this server among its peer servers.

:class:`~txrealtime.server.Server` makes one :class:`Cluster`, starts and stops it.  The messages are the
business of :mod:`~txrealtime.cluster.conversation`.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.bus.spread import Buses
from txrealtime.cluster.bus.url import busesFromURL
from txrealtime.cluster.conversation import Conversation
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.cluster.dialects.interfaces import Dialect
from txrealtime.cluster.dialects.messages import Alive, Tell
from txrealtime.cluster.dialects.native import UID_LENGTH
from txrealtime.cluster.histories import cannotTellHistory
from txrealtime.cluster.joins import Joins
from txrealtime.cluster.keeping import Keeping
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.links import Links
from txrealtime.cluster.remote import RemotePeers
from txrealtime.cluster.requests import Requests
from txrealtime.cluster.rosters import cannotCarry
from txrealtime.errors import BusError
from txrealtime.socketio.handler import Handler
from txrealtime.socketio.namespaces import Namespaces
from txrealtime.socketio.packet import checkName
from txrealtime.socketio.recovery import Recovery
from txrealtime.socketio.registry import checkUnregistered
from txrealtime.socketio.streamed import StreamedRecovery

if TYPE_CHECKING:
    from txrealtime.cluster.nodesessions import NodeSessions

__all__ = ["Cluster"]

F = TypeVar("F", bound=Callable[..., Any])

LEASE: Final = 15.0


class Cluster:
    """
    A server among its peer servers: ``server.cluster``.  Without a bus it is alone.

    :ivar uid: this server's name among servers.
    :ivar name: its name for people, by default host and process id; to be set before the start.
    :ivar lease: seconds without a message after which peer servers take this one for gone; to be set
        before the start.
    """

    def __init__(self, namespaces: Namespaces) -> None:
        self.uid = secrets.token_urlsafe(6)[:UID_LENGTH]
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.lease = LEASE
        self._bus: IBus | Buses | str | None = None
        self._choice = DialectChoice()
        self._namespaces = namespaces
        self._conversation = Conversation(self.uid)
        self._requests = Requests(self._conversation, namespaces)
        self._joins = Joins(namespaces)
        self._keeping: Keeping | NodeSessions = Keeping(
            self._conversation, namespaces, self._joins, self._requests
        )
        self._remote = RemotePeers(
            self._conversation, namespaces, self._joins, self._requests.handover, self._keeping
        )

    # -- life ----------------------------------------------------------------------------

    def use(self, bus: IBus | Buses | str, dialect: DialectChoice | None = None) -> None:
        """
        Take part in a cluster, from the next :meth:`start` on.

        :param bus: the bus, or its URL, which may name the dialect too: see
            :func:`~txrealtime.cluster.bus.url.busFromURL` and :mod:`~txrealtime.cluster.dialects.choice`; or
            several buses.
        :param dialect: the dialect, for a bus without a URL.
        :raises ValueError: if the URL is broken, or a library that it needs is not installed.
        """
        if isinstance(bus, str):
            dialect, bus = DialectChoice.fromURL(bus)
        self._choice = dialect or DialectChoice()
        if isinstance(bus, Buses):
            self._choice = replace(self._choice, spread=bus.spread)
        self._conversation.dialect = self._choice.create(
            self.uid,
            self._conversation.servers,
            self._namespaces,
            lambda: self._namespaces.reactor.seconds(),
        )
        keeping: Keeping | NodeSessions
        if self._choice.dialect == "node-streams":
            # Imported here: msgpack may not be installed.
            from txrealtime.cluster.nodesessions import NodeSessions

            self._namespaces.recoverBy(StreamedRecovery)
            keeping = NodeSessions(self._conversation, self._namespaces, self._joins, self._requests)
        else:
            self._namespaces.recoverBy(Recovery)
            keeping = Keeping(self._conversation, self._namespaces, self._joins, self._requests)
        self._keeping = self._remote.keeping = keeping
        self._bus = bus

    def open(self) -> None:
        """
        Import the bus's library, if the bus is a URL.  :meth:`start` does so too.

        :meth:`use` does not, because txredisapi and pika's adapter import the reactor.

        :raises ValueError: if the library is not installed, or if a namespace uses presence or keeps history
            and the dialect cannot carry it, or if the settings and the dialect do not go together.
        """
        if not self.dialect.hasPresence and any(each._roster.isUsed for each in self._namespaces):
            raise ValueError(cannotCarry(self.dialect))
        if self.dialect.numbers is None and any(each._history is not None for each in self._namespaces):
            raise ValueError(cannotTellHistory(self.dialect))
        parking = self._namespaces.parking
        if self.dialect.name == "node-streams" and parking is not None and parking.settings.recoveryAway:
            raise ValueError(
                "recoveryAway (--recovery-away): no socket can stay with dialect=node-streams, "
                "as the client may come to any server"
            )
        if isinstance(self._bus, str):
            self._bus = busesFromURL(self._bus, self._choice.spread, fanout=self._choice.fanout)

    def start(self) -> None:
        """Connect, and stay connected.  Without a bus, do nothing."""
        if self._bus is None or self.link is not None:
            return
        self.open()
        bus, clock = self._bus, self._namespaces.reactor
        assert not isinstance(bus, str)
        parser = type(self._namespaces.parser)
        me = Alive(self.uid, self.name, self.lease, f"{parser.__module__}.{parser.__qualname__}")
        link: Link | Links
        if isinstance(bus, Buses):
            me = me._replace(publishes=bus.spread.publishes, hears=bus.spread.hears)
            link = Links(bus, clock)
        else:
            link = Link(bus, clock)
        self._conversation.start(link, clock, me)
        self._joins.watch(link)
        self._keeping.start(link)
        self._namespaces.meet(self._remote, self.dialect.idPrefix)
        link.start()

    def handOver(self) -> Deferred[None]:
        """
        Hand the clients that may come back to peer servers, before this server stops.

        :return: fires when the peer servers have them.
        """
        return Deferred.fromCoroutine(self._requests.handover.handAll())

    def stop(self) -> Deferred[None]:
        """
        Tell the peer servers, and disconnect.

        :return: fires when the link is stopped.
        """
        self._keeping.stop()
        return self._conversation.stop()

    # -- status ----------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """
        ``alone`` without a bus, otherwise the status of the link.

        A link is ``connecting``, ``ready``, ``deaf`` or ``stopped``; several links together may be ``partly``
        ready: see
        :class:`~txrealtime.cluster.link.link.LinkStatus`.
        """
        if self._bus is None:
            return "alone"
        return LinkStatus.STOPPED.value if self.link is None else self.link.status.value

    @property
    def isReady(self) -> bool:
        """True if the link is ready, or at least one of several, or there is no bus."""
        return self.status in ("alone", LinkStatus.READY.value, LinkStatus.PARTLY.value)

    @property
    def servers(self) -> list[str]:
        """The names of the peer servers; empty in dialects whose servers do not announce themselves."""
        return list(self._conversation.servers.values())

    @property
    def link(self) -> Link | Links | None:
        """The link to the peer servers, with its counts; ``None`` while stopped or alone."""
        return self._conversation.link

    @property
    def links(self) -> list[Link]:
        """The link to each broker."""
        link = self.link
        return [] if link is None else [link] if isinstance(link, Link) else link.links

    @property
    def apart(self) -> list[str]:
        """The names of the peer servers that spread topics over other brokers, so that events are lost."""
        return self._conversation.servers.apart

    @property
    def dialect(self) -> Dialect:
        """The wire form of the messages to the peer servers."""
        return self._conversation.dialect

    @property
    def ignored(self) -> int:
        """The number of messages that came and that no server would have sent."""
        return self._conversation.ignored

    @property
    def missed(self) -> int:
        """
        The number of messages of peer servers that were lost on the way, as the native dialect counts them.

        The count is exact from the first message on that this server hears on a topic.  Messages behind the
        last one of a topic are counted with their sender's next announcement, a third of its lease later.
        """
        return self._conversation.missed

    def whenReady(self) -> Deferred[None]:
        """
        Wait until the link is ready.

        :return: fires when the link is ready; fails with :exc:`~txrealtime.errors.BusError` if the server
            stops before, or has no bus.
        """
        if self.link is None:
            return fail(BusError(f"there is no link to wait for: the cluster is {self.status}"))
        return self.link.whenReady()

    # -- events between servers --------------------------------------------------------------

    def on(self, event: str, *, replace: bool = False) -> Callable[[F], F]:
        """
        Decorate the handler of an event that peer servers send: ``handler(*args)``.

        The handler's result, or that of its Deferred or coroutine, is this server's reply.

        :param replace: take the place of an earlier handler of the event.
        :raises TypeError: if the decorated object cannot be called.
        :raises ValueError: if the name is reserved, or the event has a handler already.
        """
        checkName(event)

        def register(function: F) -> F:
            handler = Handler(function, given=0)
            earlier = self._requests.handlers.get(event)
            if earlier is not None:
                checkUnregistered(f"cluster.on({event!r})", earlier.function, function, replace)
            self._requests.handlers[event] = handler
            return function

        return register

    def emit(self, event: str, *args: Any) -> None:
        """
        Send an event to all peer servers.

        :param args: JSON values, with bytes-like values anywhere among them.
        :raises TypeError: if a value cannot be sent; the text has the path to it.
        :raises ValueError: if the name is reserved, or JSON has no such number.
        """
        checkName(event)
        self._conversation.say(Tell([event, *args], self.uid))

    def call(self, event: str, *args: Any, timeout: float = 5.0) -> Deferred[list[Any]]:
        """
        Send an event to all peer servers, and gather their replies.

        Servers without a handler of the event do not reply.

        :param timeout: seconds.
        :return: fires with the replies, in the order of their arrival.  Fails with
            :exc:`~txrealtime.errors.AckTimeout`, which has the replies that came and the names of the servers
            that did not reply or whose handlers failed; fails at once with
            :exc:`~txrealtime.errors.BusError` if the link is not ready.
        :raises TypeError: if a value cannot be sent; the text has the path to it.
        :raises ValueError: if the name is reserved, or JSON has no such number.
        """
        checkName(event)
        replies: list[Any] = []
        if self._bus is None:
            return succeed(replies)
        try:
            question = self._conversation.ask(
                lambda request: Tell([event, *args], self.uid, request), replies.append
            )
        except BusError:
            return fail(Failure())
        return question.finished(repr(event), replies, timeout, self._namespaces.reactor)
