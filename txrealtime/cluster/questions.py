"""
Questions to other servers, and what comes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.dialects.messages import Reply
from txrealtime.errors import AckTimeout
from txrealtime.socketio.audience import Person

__all__ = ["UNNAMED", "Inquiries", "Question"]

UNNAMED: Final = "an unnamed server"
"""A server whose dialect does not tell names."""


class Question:
    """
    A question that other servers were asked: see :class:`~txrealtime.socketio.peers.Inquiry`.

    :param request: what we call it.
    :param answered: called with each answer.
    :param forget: called when no answer is wanted any longer.
    :ivar ofPeople: whether the answers are :class:`~txrealtime.socketio.audience.Person` objects; who
        gives others has not answered this question.
    """

    def __init__(
        self, request: str, answered: Callable[[Any], object], forget: Callable[[str], None]
    ) -> None:
        self.request = request
        self.asked = 0
        self.ofPeople = False
        self.done: Deferred[None] = Deferred(lambda _: self._forget(request))
        self._answered = answered
        self._forget = forget
        # By server: its name, and how many values it still owes.  Servers without a name share an entry.
        self._expected: dict[str, str] | None = None
        self._owed: dict[str, int] = {}
        self._unnamed = 0
        self._unnamedHeard = 0
        self._left: list[str] = []
        self._lapsed: list[str] = []

    def expect(self, servers: Mapping[str, str], unnamed: int = 0) -> None:
        """
        Say who was asked.

        :param servers: name by uid.
        :param unnamed: how many others, of whom no more is known.
        """
        self._expected, self._unnamed = dict(servers), unnamed
        self._check()

    @classmethod
    def ofNobody(cls) -> Question:
        """A question that nobody was asked."""
        question = cls("", lambda answer: None, _nothing)
        question.expect({})
        return question

    def finished(
        self, what: str, answers: list[Any], timeout: float, clock: IReactorTime
    ) -> Deferred[list[Any]]:
        """
        A Deferred of the answers.

        :param what: what was asked, for the error.
        :param answers: where they are put.
        :param timeout: seconds.
        :return: it fails with :exc:`~txrealtime.errors.AckTimeout` when not all servers have answered,
            or could.
        """

        def ended(_: object) -> list[Any]:
            servers = self.silent + self._lapsed
            if servers:
                raise AckTimeout(f"{what} was not answered by {', '.join(servers)}", answers, servers)
            return answers

        def late(_: object, seconds: float) -> NoReturn:
            owing = [name for uid, name in (self._expected or {}).items() if self._owed.get(uid, 0) > 0]
            servers = self.silent + owing + self._lapsed or [UNNAMED]
            raise AckTimeout(
                f"{what} was not answered by {', '.join(servers)} within {seconds:g} s", answers, servers
            )

        return self.done.addCallback(ended).addTimeout(timeout, clock, onTimeoutCancel=late)

    def received(self, reply: Reply) -> None:
        """A server has something to say."""
        if any(isinstance(value, Person) is not self.ofPeople for value in reply.values):
            return
        sender, owed = reply.sender, self._owed
        if reply.total is not None:
            if not sender:
                self._unnamedHeard += 1
            elif sender in owed:
                return  # it has said that already
            owed[sender] = owed.get(sender, 0) + reply.total
            self.asked += reply.total
        elif sender not in owed:
            return
        values = reply.values if not sender else reply.values[: owed[sender]]
        owed[sender] -= len(values) + reply.lapsed
        name = (self._expected or {}).get(sender, UNNAMED)
        if reply.lapsed:
            self._lapsed.append(name)
        for value in values:
            self._answered(replace(value, server=name) if isinstance(value, Person) else value)
        self._check()

    def gone(self, server: str) -> None:
        """A server is there no longer: what it owes will not come."""
        name = (self._expected or {}).pop(server, None)
        if name is None:
            return
        if self._owed.pop(server, 1) > 0:
            self._left.append(name)
        self._check()

    @property
    def silent(self) -> list[str]:
        """The names of the servers that have not answered, or went away while they owed something."""
        waiting = [name for server, name in (self._expected or {}).items() if server not in self._owed]
        return self._left + waiting + [UNNAMED] * (self._unnamed - self._unnamedHeard)

    def _check(self) -> None:
        if self._expected is None or self.done.called:
            return
        heard = all(server in self._owed for server in self._expected)
        if heard and self._unnamedHeard >= self._unnamed and all(n <= 0 for n in self._owed.values()):
            self._forget(self.request)
            self.done.callback(None)

    def fail(self, error: BaseException) -> None:
        """It cannot be asked, after all."""
        self._forget(self.request)
        if not self.done.called:
            self.done.errback(error)


def _nothing(request: str) -> None:
    """What is forgotten of a question that was never asked."""


class Inquiries:
    """
    The questions that are waiting for answers.

    :param uid: whose they are; what a question is called begins with it, so that it is nobody else's.
    """

    def __init__(self, uid: str) -> None:
        self._uid = uid
        self._last = 0
        self._waiting: dict[str, Question] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def new(self, answered: Callable[[Any], object]) -> Question:
        """A question of a name of its own."""
        self._last += 1
        request = f"{self._uid}{self._last}"
        question = self._waiting[request] = Question(request, answered, self.forget)
        return question

    def forget(self, request: str) -> None:
        """Nobody waits for its answers any longer."""
        self._waiting.pop(request, None)

    def received(self, reply: Reply) -> None:
        """A reply has come; one to a question that nobody asks any longer is ignored."""
        question = self._waiting.get(reply.request)
        if question is not None:
            question.received(reply)

    def gone(self, server: str) -> None:
        """A server is there no longer."""
        for question in list(self._waiting.values()):
            question.gone(server)

    def failAll(self, error: Exception) -> None:
        """None will be answered."""
        for question in list(self._waiting.values()):
            question.fail(error)
