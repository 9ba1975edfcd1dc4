"""
The messages between this server and its peer servers.

:class:`~txrealtime.cluster.cluster.Cluster` makes one :class:`Conversation` and gives it a link.
:class:`~txrealtime.cluster.remote.RemotePeers` says and asks what this server's namespaces want from the peer
servers; :class:`~txrealtime.cluster.requests.Requests` receives what they want from this one.  The
conversation knows who is there and which questions wait for replies.  It never looks at a socket, a
namespace or a handler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txrealtime.cluster.dialects.interfaces import Dialect, Topic
from txrealtime.cluster.dialects.messages import (
    Alive,
    Ask,
    Disconnect,
    Emit,
    Fetch,
    Gone,
    Join,
    Leave,
    Message,
    Reply,
    Tell,
    Transfer,
)
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.link.links import Links
from txrealtime.cluster.questions import Question, Questions
from txrealtime.cluster.servers import PeerServers
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger

__all__ = ["Conversation"]

_log = Logger()

M = TypeVar("M", bound=Message)

_SETTLE: Final = 1.0
"""Seconds that peer servers have to announce themselves after the link became ready."""

_COMPLAINT: Final = 60.0
"""Seconds between two log lines about ignored messages, or about missed ones."""

_GATHER: Final = 1.0
"""Seconds in which the holes of one outage are counted together."""

_LASTING: Final = (Emit, Join, Leave, Disconnect, Tell, Gone)
"""The classes of messages that are carried out after an outage, too."""


def _expires(message: Message) -> bool:
    """Return true if a message is void after an outage: a volatile event, or a question between servers."""
    return message.volatile if isinstance(message, Emit) else getattr(message, "request", None) is not None


class PeerWatcher(Protocol):
    """A part of this server that has to know which peer servers are there, and if the link is ready."""

    def met(self, uid: str) -> object:
        """Called when a peer server has announced itself for the first time."""

    def lost(self, uid: str) -> object:
        """Called when a peer server has gone, and for all of them when this one stops."""

    def linkChanged(self, isReady: bool) -> object:
        """Called when the link is ready, or is so no longer."""

    def settled(self) -> object:
        """Called when the peer servers have had the time to announce themselves."""

    def announced(self) -> object:
        """Called when this server has announced itself, from time to time."""


class Conversation:
    """
    Messages to and from the peer servers: one dialect, over one link at a time.

    :param uid: this server's name among servers.
    :ivar dialect: the wire form; to be set before :meth:`start`.
    :ivar link: the link; ``None`` before :meth:`start` and after :meth:`stop`.
    :ivar servers: the peer servers that are there.
    :ivar questions: the questions that wait for replies.
    :ivar ignored: the number of messages that no server would have sent.
    :ivar missed: the number of messages that peer servers sent and that were lost on the way.
    :ivar holeSeen: called with the path of a namespace some of whose messages were missed; ``None`` if these
        may belong to any namespace.
    """

    _clock: IReactorTime  # from start() on
    _me: Alive

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.dialect: Dialect = NativeDialect(uid)
        self.link: Link | Links | None = None
        self.questions = Questions(uid)
        self.servers = PeerServers(self.say, self._met, self._lost, self._announced)
        self.ignored = 0
        self.missed = 0
        self.holeSeen: Callable[[str | None], object] = lambda path: None
        self._untold = 0
        self._telling: IDelayedCall | None = None
        self._toldAt = float("-inf")
        self._isListening = False
        self._subscribers: dict[Topic, int] = {}
        # Set until the peer servers have had the time to announce themselves.  Questions wait till then.
        self._settling: IDelayedCall | None = None
        self._whenSettled: list[tuple[Question, Ask | Fetch | Tell | Transfer]] = []
        self._complained = float("-inf")
        self._receivers: dict[type[Any], Callable[[Any], object]] = {}
        self._watchers: list[PeerWatcher] = []
        self.receive(Reply, self._replied)
        self.receive(Alive, self.servers.heard)
        self.receive(Gone, self.servers.left)

    # -- the link ------------------------------------------------------------------------

    def start(self, link: Link | Links, clock: IReactorTime, me: Alive) -> None:
        """
        Take a link that has not been started yet, and subscribe to the topics of every server.

        :param me: this server's announcement.
        """
        self.link, self._clock, self._me = link, clock, me
        if self.dialect.numbers is not None:
            self.dialect.numbers.missed = self._hasMissed
        for topic in self.dialect.topics:
            self.subscribe(topic)
        link.trimmed = lambda: self.holeSeen(None)
        link.watch(self._linkChanged)

    def stop(self) -> Deferred[None]:
        """
        Say goodbye, fail the questions that wait, and stop the link.

        :return: fires when the link is stopped.
        """
        link = self.link
        if link is None:
            return succeed(None)
        known = list(self.servers)
        self.servers.stop()
        self._cancelSettling()
        if self._telling is not None:
            self._telling.cancel()
            self._tellMissed()
        self.link = None
        self._isListening = False
        self._subscribers.clear()
        self.questions.failAll(BusError("the server has stopped"))
        for uid in known:
            self._lost(uid)
        self._tellLink(False)
        return link.stop()

    def _linkChanged(self, status: LinkStatus) -> None:
        link = self.link
        if link is None:
            return
        if status.carries:
            if self._isListening:
                return  # another of several links is ready, or no longer so
            if self.dialect.announces:
                self.servers.listening(self._clock, self._me)
                self._settling = self._clock.callLater(_SETTLE, self._settled)
            self._isListening = True
            self._tellLink(True)
        elif self._isListening:
            self._isListening = False
            self.servers.deaf()
            self._cancelSettling()
            self.questions.failAll(
                BusError(f"the link to the other servers is {status.value}: {link.reason}")
            )
            self._tellLink(False)

    def _cancelSettling(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()
        self._whenSettled.clear()

    def _settled(self) -> None:
        self._settling = None
        waiting, self._whenSettled = self._whenSettled, []
        for question, message in waiting:
            try:
                self._put(question, message)
            except Exception as error:  # the application may have changed the arguments since it asked
                question.fail(error)
        for watcher in self._watchers:
            watcher.settled()

    @property
    def isReady(self) -> bool:
        """True while the link is ready."""
        return self._isListening

    @property
    def isSettling(self) -> bool:
        """True while the peer servers have yet to announce themselves."""
        return self._settling is not None

    # -- for watchers ----------------------------------------------------------------------

    def watch(self, watcher: PeerWatcher) -> None:
        """Tell a part of this server of the peer servers and of the link, from now on."""
        self._watchers.append(watcher)

    def _met(self, uid: str) -> None:
        for watcher in self._watchers:
            watcher.met(uid)

    def _lost(self, uid: str) -> None:
        self.questions.gone(uid)
        for watcher in self._watchers:
            watcher.lost(uid)

    def _announced(self) -> None:
        for watcher in self._watchers:
            watcher.announced()

    def _tellLink(self, isReady: bool) -> None:
        for watcher in self._watchers:
            watcher.linkChanged(isReady)

    # -- to the peer servers ---------------------------------------------------------------

    def say(self, message: Message) -> None:
        """
        Publish a message.  While the link is down, the message waits in its queue.

        :raises ValueError: if the message is too large.
        """
        link = self.link
        if link is not None:
            for topic, data in self.dialect.write(message):
                link.publish(topic, data)

    def ask(
        self, make: Callable[[str], Ask | Fetch | Tell | Transfer], collect: Callable[[Any], object]
    ) -> Question:
        """
        Ask the peer servers that may have something to reply.

        :param make: makes the message from the question's id.
        :param collect: called with each value of their replies.
        :raises BusError: if the link is not ready, or the dialect has no such question.
        :raises TypeError: if an argument cannot be sent.
        :raises ValueError: if an argument cannot be sent, or the message is too large.
        """
        link = self.link
        if link is None:
            raise BusError(f"other servers cannot be asked, the link is {LinkStatus.STOPPED.value}")
        if not link.status.carries:
            raise BusError(f"other servers cannot be asked, the link is {link.status.value}: {link.reason}")
        question = self.questions.new(collect)
        message = make(question.request)
        question.message = message
        question.wantsSockets = isinstance(message, Fetch)
        try:
            for topic, data in self.dialect.write(message):
                if not link.carries(topic, *(each.name for each in self.dialect.topics)):
                    raise BusError(
                        f"other servers cannot be asked, the link is {link.status.value}: {link.reason}"
                    )
                if len(data) > link.maxMessage:
                    raise ValueError(
                        f"a question of {len(data)} bytes is too large for the other servers: the limit "
                        f"is {link.maxMessage} (maxMessage)"
                    )
            if self._settling is None:
                self._put(question, message)
            else:
                self._whenSettled.append((question, message))
        except Exception:
            self.questions.forget(question.request)
            raise
        return question

    def _put(self, question: Question, message: Ask | Fetch | Tell | Transfer) -> None:
        """Publish a question, now that the peer servers are known."""
        servers, unnamed, topic = self.dialect.respondents(message)
        link = self.link
        if not topic or link is None:
            question.expect(servers, unnamed)
            if not question.done.called:
                self.say(message)
            return

        def publish(_: None) -> Deferred[int]:
            if not question.done.called:
                self.say(message)
            return link.countSubscribers(topic)

        # Published at once if the subscription is confirmed, so that no later message overtakes the
        # question.  In a namespace that was mounted a moment ago it waits: the replies come on a topic of the
        # namespace.  The count includes this server, which hears its own question.
        link.whenSubscribed(topic).addCallback(publish).addCallbacks(
            lambda count: question.expect(servers, count - 1),
            lambda failure: question.fail(failure.value),
        )

    # -- from the peer servers ---------------------------------------------------------------

    def receive(self, kind: type[M], receiver: Callable[[M], object]) -> None:
        """
        Call a function with each message of one class that peer servers send.

        :param receiver: may raise :exc:`~txrealtime.errors.PacketError`: the message is counted as ignored.
        """
        self._receivers[kind] = receiver

    def subscribe(self, topic: Topic) -> None:
        """
        Subscribe to a topic until :meth:`unsubscribe` was called as often.

        Without a link nothing happens: mounted namespaces subscribe again when there is one.
        """
        link = self.link
        if link is None:
            return
        count = self._subscribers.get(topic, 0)
        self._subscribers[topic] = count + 1
        if count == 0:
            link.subscribe(topic.name, self._received, topic.isPattern, topic.isCounted, self._receivedLate)

    def unsubscribe(self, topic: Topic) -> None:
        """Undo one :meth:`subscribe`."""
        count = self._subscribers.get(topic, 0) - 1
        if count > 0:
            self._subscribers[topic] = count
        elif self._subscribers.pop(topic, None) is not None and self.link is not None:
            self.link.unsubscribe(topic.name)
            if self.dialect.numbers is not None:
                self.dialect.numbers.forget(topic.name)

    def _received(self, topic: str, data: bytes) -> None:
        try:
            message = self.dialect.read(topic, data)
            if message is not None:
                self._receivers[type(message)](message)
        except PacketError as error:
            self._ignore(topic, str(error))

    def _replied(self, reply: Reply) -> None:
        if reply.moved:
            self._follow(reply)
        self.questions.received(reply)

    def _follow(self, reply: Reply) -> None:
        """Ask the server to which a client has moved."""
        question, name = self.questions.find(reply.request), self.servers.get(reply.moved)
        if question is None or name is None or not isinstance(question.message, Ask | Fetch):
            return
        if question.expectAlso(reply.moved, name, reply.sender):
            self.say(question.message._replace(recipient=reply.moved))

    def _receivedLate(self, topic: str, data: bytes) -> None:
        """Called with a message of an outage: questions and announcements have expired meanwhile."""
        try:
            message = self.dialect.read(topic, data)
            if isinstance(message, _LASTING) and not _expires(message):
                self._receivers[type(message)](message)
        except PacketError as error:
            self._ignore(topic, str(error))

    def _ignore(self, topic: str, why: str) -> None:
        """Count an ignored message, and log one a minute: a flood of them must not flood the log."""
        self.ignored += 1
        now = self._clock.seconds()
        if now - self._complained >= _COMPLAINT:
            self._complained = now
            _log.warn(
                "ignored a message on {topic!r}: {why} ({count} messages ignored so far)",
                topic=topic[:100],
                why=why,
                count=self.ignored,
            )

    def _hasMissed(self, topic: str, count: int) -> None:
        """Count a hole in the messages on a topic, and log those of one outage together."""
        self.missed += count
        self._untold += count
        if self._telling is None:
            wait = max(_GATHER, self._toldAt + _COMPLAINT - self._clock.seconds())
            self._telling = self._clock.callLater(wait, self._tellMissed)
        self.holeSeen(self.dialect.pathOf(topic))

    def _tellMissed(self) -> None:
        self._telling = None
        self._toldAt = self._clock.seconds()
        count, self._untold = self._untold, 0
        _log.warn(
            "missed {count} messages of the other servers, and so did this server's clients: a link was "
            "down, or a queue was full",
            count=count,
        )
