"""
This server among others.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.bus.url import busFromURL
from txrealtime.cluster.dialects.choice import Language
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
)
from txrealtime.cluster.dialects.native import UID_LENGTH, NativeDialect
from txrealtime.cluster.link.link import Link, LinkStatus
from txrealtime.cluster.presence import Presence
from txrealtime.cluster.questions import Inquiries, Question
from txrealtime.cluster.remote import Reach
from txrealtime.cluster.requests import Reception
from txrealtime.errors import BusError, PacketError
from txrealtime.logs import Logger
from txrealtime.socketio.handler import Handler
from txrealtime.socketio.namespaces import Directory
from txrealtime.socketio.packet import checkName

__all__ = ["Cluster"]

_log = Logger()

F = TypeVar("F", bound=Callable[..., Any])

_SETTLE: Final = 1.0
"""Seconds that servers have to say that they are there, when one has come and asks."""

_COMPLAINT: Final = 60.0
"""Seconds between two lines in the log on messages that were ignored."""

LEASE: Final = 15.0


class Cluster:
    """
    The servers that are one.

    On every server there is one of these, ``server.cluster``; without a bus it is alone in it.

    :ivar uid: this server's name among servers.
    :ivar name: its name for people: host and process, unless it was set before the start.
    :ivar lease: seconds after which others take this server for gone when they hear nothing of it;
        to be set before the start.
    :ivar ignored: how many messages were none that a server would send.
    """

    def __init__(self, directory: Directory) -> None:
        self.uid = secrets.token_urlsafe(6)[:UID_LENGTH]
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.lease = LEASE
        self.ignored = 0
        self._bus: IBus | str | None = None
        self._language = Language()
        self._directory = directory
        self._link: Link | None = None
        self._isListening = False
        self._topics: dict[Topic, int] = {}
        self._inquiries = Inquiries(self.uid)
        self._presence = Presence(self.say, self._inquiries.gone)
        # While those who are there have not had the time to say so, questions wait.
        self._settling: IDelayedCall | None = None
        self._whenSettled: list[tuple[Question, Ask | Fetch | Tell]] = []
        self.dialect: Dialect = NativeDialect(self.uid)
        self._reach = Reach(self)
        self._reception = reception = Reception(self, directory)
        self._complained = float("-inf")
        self._receivers: dict[type, Callable[[Any], object]] = {
            Emit: reception.emit,
            Join: reception.join,
            Leave: reception.leave,
            Disconnect: reception.disconnect,
            Ask: reception.ask,
            Fetch: reception.fetch,
            Tell: reception.tell,
            Reply: self._inquiries.received,
            Alive: self._presence.heard,
            Gone: self._presence.left,
        }

    # -- as a part of the server -------------------------------------------------------

    def use(self, bus: IBus | str, language: Language | None = None) -> None:
        """
        Take part in a cluster, from the next :meth:`start` on.

        :param bus: what carries the messages, or the URL of it, which may also say what dialect is
            spoken: see :func:`~txrealtime.cluster.bus.url.busFromURL` and
            :mod:`~txrealtime.cluster.dialects.choice`.
        :param language: the dialect, where there is no URL to say it.
        :raises ValueError: for a URL that is none, or for which something is not installed.
        """
        if isinstance(bus, str):
            language, bus = Language.fromURL(bus)
        self._language = language or Language()
        self.dialect = self._language.spokenBy(
            self.uid, self._presence, self._directory, lambda: self._directory.reactor.seconds()
        )
        self._bus = bus

    def open(self) -> None:
        """
        Make the bus of a URL; :meth:`start` does so too.

        It waits till then because the libraries import the reactor.

        :raises ValueError: when what it takes is not installed.
        """
        if isinstance(self._bus, str):
            self._bus = busFromURL(self._bus, fanout=self._language.fanout)

    def start(self) -> None:
        """Connect, and stay connected; without a bus, do nothing."""
        if self._bus is None or self._link is not None:
            return
        self.open()
        bus = self._bus
        assert bus is not None and not isinstance(bus, str)
        self._link = link = Link(bus, self._directory.reactor)
        for topic in self.dialect.topics:
            self.subscribe(topic)
        self._directory.meet(self._reach, self.dialect.idPrefix)
        link.watch(self._linkChanged)
        link.start()

    def stop(self) -> Deferred[None]:
        """Tell the others, and disconnect; the Deferred fires when that is done."""
        link = self._link
        if link is None:
            return succeed(None)
        self._presence.stop()
        self._cancelSettling()
        self._link = None
        self._topics.clear()
        self._inquiries.failAll(BusError("the server has stopped"))
        return link.stop()

    def _linkChanged(self, status: LinkStatus) -> None:
        link = self._link
        if link is None:
            return
        if status is LinkStatus.READY:
            clock = self._directory.reactor
            if self.dialect.hasPresence:
                parser = type(self._directory.parser)
                me = Alive(self.uid, self.name, self.lease, f"{parser.__module__}.{parser.__qualname__}")
                self._presence.listening(clock, me)
                self._settling = clock.callLater(_SETTLE, self._settled)
            self._isListening = True
        elif self._isListening:
            self._isListening = False
            self._presence.deaf()
            self._cancelSettling()
            self._inquiries.failAll(
                BusError(f"the link to the other servers is {status.value}: {link.reason}")
            )

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
            except Exception as error:  # what it holds is the application's, and has changed meanwhile
                question.fail(error)

    # -- what it is ----------------------------------------------------------------------

    @property
    def status(self) -> str:
        """
        ``alone`` without a bus; else the state of the link, ``connecting``, ``ready``, ``deaf`` or
        ``stopped``: see :class:`~txrealtime.cluster.link.link.LinkStatus`.
        """
        if self._bus is None:
            return "alone"
        return LinkStatus.STOPPED.value if self._link is None else self._link.status.value

    @property
    def isReady(self) -> bool:
        """Whether this server hears the others, or has no others to hear."""
        return self.status in ("alone", LinkStatus.READY.value)

    @property
    def servers(self) -> list[str]:
        """The names of the other servers; none where the dialect does not tell."""
        return list(self._presence.values())

    @property
    def link(self) -> Link | None:
        """The link to them, with its counts; ``None`` while there is none."""
        return self._link

    def whenReady(self) -> Deferred[None]:
        """
        A Deferred that fires when the link is ready.

        It fails with :exc:`~txrealtime.errors.BusError` when the server stops before, or has no bus.
        """
        if self._link is None:
            return fail(BusError(f"there is no link to wait for: the cluster is {self.status}"))
        return self._link.whenReady()

    # -- events between servers ------------------------------------------------------------

    def on(self, event: str) -> Callable[[F], F]:
        """
        Decorate the handler of an event that other servers send to this one: ``handler(*args)``.

        What it returns, or the Deferred of it, is the answer.

        :raises TypeError: for what cannot be called.
        :raises ValueError: for a reserved name.
        """
        checkName(event)

        def register(function: F) -> F:
            self._reception.handlers[event] = Handler(function, given=0)
            return function

        return register

    def emit(self, event: str, *args: Any) -> None:
        """
        Send an event to all other servers.

        :param args: JSON values, bytes-like ones anywhere among them.
        :raises TypeError: for a value that cannot be sent, with the path to it.
        :raises ValueError: for a reserved name, or a number that JSON lacks.
        """
        checkName(event)
        self.say(Tell([event, *args], self.uid))

    def call(self, event: str, *args: Any, timeout: float = 5.0) -> Deferred[list[Any]]:
        """
        Send an event to all other servers, and gather their answers.

        Servers without a handler for it have none.

        :param timeout: seconds.
        :return: a Deferred of the answers, in the order in which they came.  It fails with
            :exc:`~txrealtime.errors.AckTimeout`, which holds the answers that came and the
            names of the servers whose did not, or whose handlers failed; and at once with
            :exc:`~txrealtime.errors.BusError` when they cannot be asked now.
        :raises TypeError: as :meth:`emit`.
        :raises ValueError: as :meth:`emit`.
        """
        checkName(event)
        answers: list[Any] = []
        if self._bus is None:
            return succeed(answers)
        try:
            question = self.inquire(lambda request: Tell([event, *args], self.uid, request), answers.append)
        except BusError:
            return fail(Failure())
        return question.finished(repr(event), answers, timeout, self._directory.reactor)

    # -- for the others in this package ------------------------------------------------------

    def say(self, message: Message) -> None:
        """
        Publish a message; when the link is down, as soon as it is up.

        :raises ValueError: when it is too large.
        """
        link = self._link
        if link is not None:
            for topic, data in self.dialect.write(message):
                link.publish(topic, data)

    def inquire(
        self, make: Callable[[str], Ask | Fetch | Tell], answered: Callable[[Any], object]
    ) -> Question:
        """
        Ask those servers that may have an answer.

        :param make: makes the message, when given what the question is called.
        :param answered: called with each answer.
        :raises BusError: when they cannot be asked now, or not in this dialect.
        :raises TypeError: for what cannot be sent.
        :raises ValueError: likewise, and when it is too large.
        """
        link = self._link
        if link is None or link.status is not LinkStatus.READY:
            why = "" if link is None else f": {link.reason}"
            raise BusError(f"other servers cannot be asked, the link is {self.status}{why}")
        question = self._inquiries.new(answered)
        message = make(question.request)
        question.ofPeople = isinstance(message, Fetch)
        try:
            for _, data in self.dialect.write(message):
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
            self._inquiries.forget(question.request)
            raise
        return question

    def _put(self, question: Question, message: Ask | Fetch | Tell) -> None:
        """Ask, now that it is known who is there."""
        servers, unnamed, topic = self.dialect.answerers(message)
        link = self._link
        if not topic or link is None:
            question.expect(servers, unnamed)
            if not question.done.called:
                self.say(message)
            return

        def ask(_: None) -> Deferred[int]:
            if not question.done.called:
                self.say(message)
            return link.countSubscribers(topic)

        # At once, or what is said next would overtake it; but in a namespace that has just come, only when
        # we hear the answers.  Ourselves are one of those who hear the question.
        link.whenSubscribed(topic).addCallback(ask).addCallbacks(
            lambda count: question.expect(servers, count - 1),
            lambda failure: question.fail(failure.value),
        )

    def subscribe(self, topic: Topic) -> None:
        """
        Have the messages of a topic, until :meth:`unsubscribe` was called as often.

        Without a link nothing happens: the next :meth:`start` asks for all that it takes.
        """
        link = self._link
        if link is None:
            return
        count = self._topics.get(topic, 0)
        self._topics[topic] = count + 1
        if count == 0:
            link.subscribe(topic.name, self._received, topic.isPattern)

    def unsubscribe(self, topic: Topic) -> None:
        """Have them no longer."""
        count = self._topics.get(topic, 0) - 1
        if count > 0:
            self._topics[topic] = count
        elif self._topics.pop(topic, None) is not None and self._link is not None:
            self._link.unsubscribe(topic.name)

    # -- what comes -----------------------------------------------------------------------------

    def _received(self, topic: str, data: bytes) -> None:
        try:
            message = self.dialect.read(topic, data)
            if message is not None:
                self._receivers[type(message)](message)
        except PacketError as error:
            self._ignore(topic, str(error))

    def _ignore(self, topic: str, why: str) -> None:
        """Count it, and say so now and then: who floods a topic shall not flood the log."""
        self.ignored += 1
        now = self._directory.reactor.seconds()
        if now - self._complained >= _COMPLAINT:
            self._complained = now
            _log.warn(
                "ignored what came on {topic!r}: {why} ({count} messages ignored so far)",
                topic=topic[:100],
                why=why,
                count=self.ignored,
            )
