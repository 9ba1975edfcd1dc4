"""
The bus over a stream of Redis, which keeps the messages.

All messages of a cluster are the entries of one stream, with their topic::

    XADD txrealtime:stream MAXLEN ~ 10000 * t <topic> p <payload> n <publisher>-<number>

Each server reads the whole stream with XREAD, and passes over the topics that it has not subscribed to.  So
all messages have one order, a subscription costs Redis nothing, and a server knows where it was by one id:
after an outage of Redis, of the network or of the server's own reading it goes on there.  The price is that
each server reads what is for others.

What Redis has trimmed too early is known by numbers: the place in the stream is compared with
``entries-added`` of XINFO (Redis 7) on each new connection, with each heartbeat, and while a server is far
behind.

A publisher that lost its connection looks in the stream for the last number of its own.  So it sends those
messages again that Redis did not take, and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from uuid import uuid4
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import (
    IKeepingBus,
    IKeepingPublisher,
    IPublisher,
    IPublisherOwner,
    ISubscriber,
    Subscription,
)
from txrealtime.cluster.bus.redis import Connection, Publisher, RedisBus, Reply
from txrealtime.errors import BusError

__all__ = ["RedisStreamsBus"]

_BATCH: Final = 100
"""Entries that one XREAD returns at most."""

_BLOCK: Final = 5000
"""Milliseconds that one XREAD waits.  The heartbeat of a link comes as often."""

_PAGE: Final = 200
"""Entries in which a publisher looks for its own at a time."""

Id = tuple[int, int]
"The id of an entry."


class _Message(NamedTuple):
    """A message that Redis has not confirmed yet."""

    number: int
    topic: str
    payload: bytes
    isAwaited: bool


class _Outbox:
    """
    The messages of one owner that Redis has not confirmed, over all its connections.

    :ivar mark: the owner's name in the stream.
    :ivar confirmed: the id of the last entry that Redis has confirmed.
    """

    def __init__(self) -> None:
        self.mark = uuid4().hex[:12]
        self.number = 0
        self.sent: deque[_Message] = deque()
        self.confirmed = "-"

    def taken(self, number: int) -> None:
        """Forget the messages up to a number, and those whose owner was told that they may be lost."""
        self.sent = deque(each for each in self.sent if each.number > number and not each.isAwaited)


class _Info(NamedTuple):
    """
    The state of the stream.

    :ivar added: the number of entries that were ever added; ``None`` before Redis 7.
    """

    first: Id
    last: Id
    length: int
    added: int | None


class _Place:
    """
    The place in the stream up to which one server has read.

    :ivar id: the id of the last entry read; ``None`` before the first connection.
    :ivar count: the number of entries up to it that were ever added; ``None`` if that is not known.
    :ivar goal: the id of the last entry of an outage.
    :ivar delivered: the id of the last entry delivered, as in ``1795884975163.0``.
    """

    def __init__(self) -> None:
        self.id: Id | None = None
        self.count: int | None = None
        self.goal: Id = (0, 0)
        self.delivered = "0.0"

    def opened(self, info: _Info) -> int | None:
        """Called with the state of the stream on a new connection: see :meth:`compare`."""
        if self.id is None:
            self.id, self.count = info.last, info.added
            self.delivered = f"{info.last[0]}.{info.last[1]}"
        self.goal = info.last
        return self.compare(info)

    def compare(self, info: _Info) -> int | None:
        """
        Compare the place with the state of the stream at the same time.

        :return: the number of entries that are gone and were not read, 0 if that is not known; ``None`` if
            there are none.
        """
        assert self.id is not None
        count, added = self.count, info.added
        if info.last < self.id:
            # Another stream, or an older state of this one.
            self.id, self.count = info.last, added
            return 0
        if added is None:
            return 0 if self.id != (0, 0) and info.first > self.id else None
        if self.id == info.last or count is None or added < count:
            self.count = added if self.id == info.last else None
            if count is None or count == added:
                return None
            return max(added - count, 0)
        before = added - info.length
        if count < before:
            self.count = before
            return before - count
        return None


@implementer(IKeepingBus)
class RedisStreamsBus(RedisBus):
    """
    A bus over a stream of one Redis, or of the master that Sentinels name.

    :param address: of a scheme that ends with ``+streams``.
    """

    patterns = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.stream = self._stream = address.stream
        self._most = address.maxLength
        self._outboxes: WeakKeyDictionary[IPublisherOwner, _Outbox] = WeakKeyDictionary()
        self._places: dict[Callable[[str], object], _Place] = {}

    async def _openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> IPublisher:
        outbox = self._outboxes.setdefault(owner, _Outbox())
        publisher = _Publisher(owner, outbox, self._stream.encode(), self._most)

        async def prepare() -> None:
            await self._prepare(publisher, owner)
            await self._reconcile(publisher, outbox)

        await self._connect(reactor, publisher, prepare)
        publisher.sendAgain()
        return publisher

    async def _reconcile(self, publisher: _Publisher, outbox: _Outbox) -> None:
        """Find out which messages of the last connection Redis has taken."""
        outbox.taken(0)
        end, first = "+", f"({outbox.confirmed}" if outbox.confirmed != "-" else "-"
        while outbox.sent:
            page = await publisher.ask("XREVRANGE", self._stream, end, first, "COUNT", str(_PAGE))
            if isinstance(page, Exception):
                raise BusError(str(page))
            for _, fields in page:
                mark, _, number = (fields[5] if fields and len(fields) > 5 else b"").partition(b"-")
                if mark == outbox.mark.encode():
                    outbox.taken(int(number))
                    return
            if len(page) < _PAGE:
                await self._checkTrimmed(publisher, outbox)
                break
            end = f"({page[-1][0].decode()}"

    async def _checkTrimmed(self, publisher: _Publisher, outbox: _Outbox) -> None:
        """Give up the messages of the last connection if Redis may have taken and trimmed them."""
        oldest = await publisher.ask("XRANGE", self._stream, "-", "+", "COUNT", "1")
        if outbox.confirmed != "-" and oldest and _idOf(oldest[0][0]) > _idOf(outbox.confirmed.encode()):
            publisher.giveUp()

    def placeOf(self, lost: Callable[[str], object]) -> str:
        return self._places[lost].delivered

    async def _openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> ISubscriber:
        place = self._places.setdefault(lost, _Place())
        subscriber = _Subscriber(reactor, lost, self._stream, place)
        await self._connect(reactor, subscriber, subscriber.prepare)
        return subscriber


@implementer(IKeepingPublisher)
class _Publisher(Publisher):
    """A connection that adds entries to the stream."""

    def __init__(self, owner: IPublisherOwner, outbox: _Outbox, stream: bytes, most: int) -> None:
        super().__init__(owner)
        self._outbox = outbox
        self._commands: deque[Deferred[Any]] = deque()
        head = b"$4\r\nXADD\r\n$%d\r\n%b\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n" % (len(stream), stream)
        self._head = head + b"$%d\r\n%d\r\n$1\r\n*\r\n" % (len(str(most)), most)

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        outbox = self._outbox
        outbox.number += 1
        message = _Message(outbox.number, topic, payload, answer is not None)
        outbox.sent.append(message)
        self.expect(len(payload), self._command(message), answer)

    def beat(self, topic: str, payload: bytes) -> None:
        super().beat(topic, payload)
        self._outbox.sent.pop()  # nobody misses a heartbeat

    def _command(self, message: _Message) -> bytes:
        name = message.topic.encode("utf-8", "surrogatepass")
        payload, mark = message.payload, f"{self._outbox.mark}-{message.number}".encode()
        return b"*12\r\n%b$1\r\nt\r\n$%d\r\n%b\r\n$1\r\np\r\n$%d\r\n%b\r\n$1\r\nn\r\n$%d\r\n%b\r\n" % (
            self._head,
            len(name),
            name,
            len(payload),
            payload,
            len(mark),
            mark,
        )

    def sendAgain(self) -> None:
        """Send the messages again that Redis did not take from the last connection."""
        for message in self._outbox.sent:
            self.expect(len(message.payload), self._command(message), None)

    def giveUp(self) -> None:
        """Forget the messages of the last connection, and count them as refused."""
        while self._outbox.sent:
            self._outbox.sent.popleft()
            self._owner.refused("the stream was trimmed before the broker confirmed a message")

    def confirmed(self, reply: Any) -> None:
        self._outbox.sent.popleft()
        if isinstance(reply, bytes):
            self._outbox.confirmed = reply.decode()

    def command(self, *words: str) -> Deferred[Any]:
        encoded = [word.encode("utf-8", "surrogatepass") for word in words]
        self._expected.append(Reply.COMMAND)
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
        self.transport.write(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
        replied: Deferred[Any] = Deferred()
        self._commands.append(replied)
        return replied

    def commanded(self, reply: Any) -> None:
        replied = self._commands.popleft()
        if isinstance(reply, Exception):
            replied.errback(BusError(str(reply)))
        else:
            replied.callback(reply)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        return fail(BusError("a stream of Redis does not tell how many servers read it"))

    def ended(self, reason: str) -> None:
        self._entrust()
        super().ended(reason)

    def abort(self) -> None:
        self._entrust()
        super().abort()

    def _entrust(self) -> None:
        """Leave the unconfirmed messages to the next connection, which sends them again."""
        while self._commands:
            self._commands.popleft().errback(BusError("the connection was ended"))
        if self._closing is None:
            self.unconfirmed = sum(message.isAwaited for message in self._outbox.sent)
        else:
            self._outbox.sent.clear()


@implementer(ISubscriber)
class _Subscriber(Connection):
    """
    A connection that reads the stream.

    Reading begins when no more subscriptions are asked for: an owner makes those of its last connection
    again, and nothing may be read before.
    """

    def __init__(
        self, reactor: IReactorTime, lost: Callable[[str], object], stream: str, place: _Place
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._lost = lost
        self._stream = stream
        self._place = place
        self._topics: dict[bytes, Subscription] = {}
        self._asked: list[Deferred[None]] = []
        # True for the reply to an XINFO.
        self._expected: deque[bool] = deque()
        self._isReading = False
        self._isDoubtful = False
        self._missed: list[int] = []
        self._ahead = 0.0  # of Redis's clock, in seconds

    async def prepare(self) -> None:
        """Find the place in the stream."""
        await self.whenConnected()
        seconds, micros = await self.ask("TIME")
        self._ahead = int(seconds) + int(micros) / 1e6 - self._reactor.seconds()
        info = await self.ask("XINFO", "STREAM", self._stream)
        if isinstance(info, Exception) and "no such key" not in str(info):
            raise BusError(str(info))
        self._found(self._place.opened(_infoOf(info)))

    def _found(self, missed: int | None) -> None:
        if missed is not None:
            self._missed.append(missed)

    # -- subscriptions -----------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        if subscription.start is None:
            # One that was made during an outage begins there, as far as two clocks can tell.
            at, since = self._place.id or (0, 0), (int((subscription.since + self._ahead) * 1000), -1)
            subscription.start = max(at, min(self._place.goal, since))
        self._topics[subscription.topic.encode("utf-8", "surrogatepass")] = subscription
        if not self._asked:
            self._reactor.callLater(0, self._confirm)
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        return asked

    def _confirm(self) -> None:
        asked, self._asked = self._asked, []
        for deferred in asked:
            deferred.callback(None)
        if not self._asked and not self._isReading and not self._ended:
            self._isReading = True
            self._read()

    def unsubscribe(self, subscription: Subscription) -> None:
        self._topics.pop(subscription.topic.encode("utf-8", "surrogatepass"), None)

    def ping(self) -> None:
        # A connection that waits reads no command; the next XREAD is soon enough.
        self._isDoubtful = True

    # -- reading -----------------------------------------------------------------------

    def _read(self) -> None:
        self._tellMissed()
        name, at = self._stream.encode(), b"%d-%d" % (self._place.id or (0, 0))
        if self._isDoubtful:
            self._isDoubtful = False
            self._expected.append(True)
            self.transport.write(b"*3\r\n$5\r\nXINFO\r\n$6\r\nSTREAM\r\n$%d\r\n%b\r\n" % (len(name), name))
        self._expected.append(False)
        self.transport.write(
            b"*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$%d\r\n%d\r\n$5\r\nBLOCK\r\n$%d\r\n%d\r\n$7\r\nSTREAMS\r\n"
            b"$%d\r\n%b\r\n$%d\r\n%b\r\n"
            % (len(str(_BATCH)), _BATCH, len(str(_BLOCK)), _BLOCK, len(name), name, len(at), at)
        )

    def _tellMissed(self) -> None:
        missed, self._missed = self._missed, []
        for subscription in list(self._topics.values()) if missed else ():
            if subscription.trimmed is not None:
                for count in missed:
                    subscription.trimmed(count)

    def received(self, reply: Any) -> None:
        isInfo = self._expected.popleft()
        if isinstance(reply, Exception) and not (isInfo and "no such key" in str(reply)):
            self.fail(str(reply))
        elif isInfo:
            self._found(self._place.compare(_infoOf(reply)))
            self._tellMissed()
        else:
            self._entriesCame(reply[0][1] if reply else [])

    def _entriesCame(self, entries: list[Any]) -> None:
        """Called with the entries of one XREAD: ask for the next ones, then deliver these."""
        place = self._place
        before = place.id
        if entries:
            place.id = _idOf(entries[-1][0])
            if place.count is not None:
                place.count += len(entries)
        # A server that fell behind may have been overtaken by the trimming.
        self._isDoubtful = self._isDoubtful or len(entries) == _BATCH
        self._read()
        if before is not None and before < place.goal:
            self._deliverLate(entries)
        else:
            topics = self._topics
            for each, fields in entries:
                subscription = topics.get(fields[1])
                if subscription is not None and len(fields) > 3:
                    place.delivered = each.decode().replace("-", ".")
                    subscription.deliver(subscription.topic, fields[3])
        if place.id is not None and not self._ended:
            place.delivered = f"{place.id[0]}.{place.id[1]}"

    def _deliverLate(self, entries: list[Any]) -> None:
        place = self._place
        goal = place.goal
        for each, fields in entries:
            subscription = self._topics.get(fields[1])
            if subscription is not None and len(fields) > 3:
                place.delivered = each.decode().replace("-", ".")
                id = _idOf(each)
                if id > goal:
                    subscription.deliver(subscription.topic, fields[3])
                elif id > subscription.start:
                    subscription.late(subscription.topic, fields[3])

    def ended(self, reason: str) -> None:
        if self.established:
            asked, self._asked = self._asked, []
            for deferred in asked:
                deferred.errback(BusError(reason))
            self._lost(reason)


def _idOf(text: bytes) -> Id:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number)


def _infoOf(reply: Any) -> _Info:
    """Read the reply to XINFO STREAM; an error stands for a stream that is not there."""
    if isinstance(reply, Exception):
        return _Info((0, 0), (0, 0), 0, 0)
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    first = fields.get(b"first-entry")
    return _Info(
        _idOf(first[0]) if first else (0, 0),
        _idOf(fields[b"last-generated-id"]),
        fields[b"length"],
        fields.get(b"entries-added"),
    )
