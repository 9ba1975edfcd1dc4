"""
Questions to peer servers, and the bookkeeping of their replies.

A :class:`Question` ends when each server that was asked has sent all values it owes, or has gone.
A server's first reply says how many values are to come: one for each client that was asked, for
example.  :class:`~txrealtime.cluster.conversation.Conversation` has one :class:`Questions` and
passes it the replies.  Nothing here publishes a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.dialects.messages import Ask, Fetch, Reply, Tell, Transfer
from txrealtime.errors import AckTimeout
from txrealtime.socketio.audience import Person

__all__ = ["UNNAMED", "Question", "Questions"]

UNNAMED: Final = "an unnamed server"
"""The name of a server whose dialect does not tell names."""


class Question:
    """
    A question that peer servers were asked, as :class:`txrealtime.socketio.peers.Question`.

    :param request: this server's id of the question.
    :param collect: called with each value of the replies.
    :param forget: called with `request` when no more replies are wanted.
    :ivar asked: the number of values that the servers have announced.
    :ivar done: fires when no more replies are to come.  Cancel it to stop waiting.
    :ivar message: the question as it was sent, or is going to be.
    :ivar wantsSockets: true if the values are :class:`~txrealtime.socketio.audience.Person` objects.  A reply
        with other values is ignored.
    """

    def __init__(self, request: str, collect: Callable[[Any], object], forget: Callable[[str], None]) -> None:
        self.request = request
        self.asked = 0
        self.message: Ask | Fetch | Tell | Transfer | None = None
        self.wantsSockets = False
        self.done: Deferred[None] = Deferred(lambda _: self._forget(request))
        self._collect = collect
        self._forget = forget
        # By uid: the name of each server that was asked, and the number of values that it still owes.
        # Servers without a uid share one entry of the latter.
        self._expected: dict[str, str] | None = None
        self._owed: dict[str, int] = {}
        self._unnamed = 0
        self._unnamedHeard = 0
        self._left: list[str] = []
        self._lapsed: list[str] = []

    def expect(self, servers: Mapping[str, str], unnamed: int = 0) -> None:
        """
        Set the servers whose replies are awaited.

        :param servers: name by uid.
        :param unnamed: the number of other servers, whose uids are not known.
        """
        self._expected, self._unnamed = dict(servers), unnamed
        self._check()

    def expectAlso(self, server: str, name: str, sender: str) -> bool:
        """
        Await the reply of another server, to which a client has moved.

        :param sender: the server that has told so, whose reply is awaited still.
        :return: false if the server was asked before.
        """
        expected = self._expected
        if expected is None or sender not in expected or sender in self._owed or server in expected:
            return False
        expected[server] = name
        return True

    @classmethod
    def ofNobody(cls) -> Question:
        """Make a question that no server is asked, and that is done."""
        question = cls("", lambda value: None, lambda request: None)
        question.expect({})
        return question

    def finished(
        self, what: str, values: list[Any], timeout: float, clock: IReactorTime
    ) -> Deferred[list[Any]]:
        """
        Wait for the replies, for a limited time.

        :param what: the question, for the text of the error.
        :param values: the list that `collect` appends to.
        :param timeout: seconds.
        :return: fires with `values`; fails with :exc:`~txrealtime.errors.AckTimeout` if a server did not
            reply in full.
        """

        def ended(_: object) -> list[Any]:
            servers = self.silent + self._lapsed
            if servers:
                raise AckTimeout(f"{what} was not answered by {', '.join(servers)}", values, servers)
            return values

        def late(_: object, seconds: float) -> NoReturn:
            owing = [name for uid, name in (self._expected or {}).items() if self._owed.get(uid, 0) > 0]
            servers = self.silent + owing + self._lapsed or [UNNAMED]
            raise AckTimeout(
                f"{what} was not answered by {', '.join(servers)} within {seconds:g} s", values, servers
            )

        return self.done.addCallback(ended).addTimeout(timeout, clock, onTimeoutCancel=late)

    def received(self, reply: Reply) -> None:
        """Called when a server has replied."""
        if any(isinstance(value, Person) is not self.wantsSockets for value in reply.values):
            return
        sender, owed = reply.sender, self._owed
        if reply.total is not None:
            if not sender:
                self._unnamedHeard += 1
            elif sender in owed:
                return  # a second first reply
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
            self._collect(replace(value, server=name) if isinstance(value, Person) else value)
        self._check()

    def gone(self, server: str) -> None:
        """Called when a server has gone: the values that it owes will not come."""
        name = (self._expected or {}).pop(server, None)
        if name is None:
            return
        if self._owed.pop(server, 1) > 0:
            self._left.append(name)
        self._check()

    @property
    def silent(self) -> list[str]:
        """The names of the servers that have not replied, or went away while they owed values."""
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
        """End the question with an error."""
        self._forget(self.request)
        if not self.done.called:
            self.done.errback(error)


class Questions:
    """
    The questions that wait for replies, by id.

    :param uid: this server's.  The ids begin with it, so they differ from those of other servers.
    """

    def __init__(self, uid: str) -> None:
        self._uid = uid
        self._last = 0
        self._waiting: dict[str, Question] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def new(self, collect: Callable[[Any], object]) -> Question:
        """
        Add a question with a new id.

        :param collect: called with each value of the replies.
        """
        self._last += 1
        request = f"{self._uid}{self._last}"
        question = self._waiting[request] = Question(request, collect, self.forget)
        return question

    def find(self, request: str) -> Question | None:
        """Find a question that waits."""
        return self._waiting.get(request)

    def forget(self, request: str) -> None:
        """Stop waiting for the replies to a question."""
        self._waiting.pop(request, None)

    def received(self, reply: Reply) -> None:
        """Pass a reply to its question.  If that does not wait any more, ignore the reply."""
        question = self._waiting.get(reply.request)
        if question is not None:
            question.received(reply)

    def gone(self, server: str) -> None:
        """Called when a server has gone."""
        for question in list(self._waiting.values()):
            question.gone(server)

    def failAll(self, error: Exception) -> None:
        """End all questions with an error."""
        for question in list(self._waiting.values()):
            question.fail(error)
