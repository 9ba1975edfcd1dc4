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
from txrealtime.cluster.bus.entries import Entries, entriesOf
from txrealtime.cluster.bus.interfaces import (
    IKeepingBus,
    IKeepingPublisher,
    IPublisher,
    IPublisherOwner,
    ISubscriber,
    Subscription,
)
from txrealtime.cluster.bus.places import Place, idOf, infoOf
from txrealtime.cluster.bus.redis import Connection, Publisher, RedisBus, Reply
from txrealtime.errors import BusError

__all__ = ["Outbox", "RedisStreamsBus", "StreamPublisher", "StreamReader"]

_BATCH: Final = 100
"""Entries that one XREAD returns at most."""

_BLOCK: Final = 5000
"""Milliseconds that one XREAD waits.  The heartbeat of a link comes as often."""

_LATE: Final = 1.0
"""Seconds between two replies, after which the stream may have been trimmed meanwhile."""

_PAGE: Final = 200
"""Entries in which a publisher looks for its own at a time."""


class _Message(NamedTuple):
    """A message that Redis has not confirmed yet."""

    number: int
    topic: str
    payload: bytes
    isAwaited: bool


class Outbox:
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


@implementer(IKeepingBus)
class RedisStreamsBus(RedisBus):
    """
    A bus over a stream of one Redis, or of the master that Sentinels name.

    :param address: of a scheme that ends with ``+streams``.
    :ivar streams: the names of all streams: several among Node's servers.
    :ivar most: the number of entries that Redis keeps in a stream, roughly.
    """

    patterns = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.stream = address.stream
        self.entries = entriesOf(address)
        self.streams = self.entries.streams
        self.most = address.maxLength
        self._outboxes: WeakKeyDictionary[IPublisherOwner, dict[str, Outbox]] = WeakKeyDictionary()
        self._places: dict[tuple[Callable[[str], object], str], Place] = {}

    def streamOf(self, topic: str) -> str | None:
        """Return the stream that has the messages of a topic; ``None`` for Redis's pub/sub."""
        return self.entries.streamOf(topic)

    # -- publishing --------------------------------------------------------------------

    async def _openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> IPublisher:
        outboxes = self._outboxes.setdefault(owner, {stream: Outbox() for stream in self.streams})
        publisher = self._newPublisher(owner, outboxes)

        async def prepare() -> None:
            await self._prepare(publisher, owner)
            for stream, outbox in outboxes.items():
                await self._reconcile(publisher, stream, outbox)

        await self._connect(reactor, publisher, prepare)
        publisher.sendAgain()
        return publisher

    def _newPublisher(self, owner: IPublisherOwner, outboxes: dict[str, Outbox]) -> StreamPublisher:
        return StreamPublisher(owner, self, outboxes)

    async def _reconcile(self, publisher: StreamPublisher, stream: str, outbox: Outbox) -> None:
        """Find out which messages of the last connection Redis has taken."""
        outbox.taken(0)
        end, first = "+", f"({outbox.confirmed}" if outbox.confirmed != "-" else "-"
        while outbox.sent:
            page = await publisher.ask("XREVRANGE", stream, end, first, "COUNT", str(_PAGE))
            if isinstance(page, Exception):
                raise BusError(str(page))
            for _, fields in page:
                mark, _, number = (fields[-1] if fields and fields[-2] == b"n" else b"").partition(b"-")
                if mark == outbox.mark.encode():
                    outbox.taken(int(number))
                    return
            if len(page) < _PAGE:
                await self._checkTrimmed(publisher, stream, outbox)
                break
            end = f"({page[-1][0].decode()}"

    async def _checkTrimmed(self, publisher: StreamPublisher, stream: str, outbox: Outbox) -> None:
        """Give up the messages of the last connection if Redis may have taken and trimmed them."""
        oldest = await publisher.ask("XRANGE", stream, "-", "+", "COUNT", "1")
        if outbox.confirmed != "-" and oldest and idOf(oldest[0][0]) > idOf(outbox.confirmed.encode()):
            publisher.giveUp(outbox)

    # -- reading -----------------------------------------------------------------------

    def placeOf(self, lost: Callable[[str], object], topic: str = "") -> str:
        return self._places[lost, self.streamOf(topic) or self.stream].delivered

    async def _openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> ISubscriber:
        return await self._openReader(reactor, lost, lost, self.stream)

    async def _openReader(
        self,
        reactor: IReactorTime,
        lost: Callable[[str], object],
        owner: Callable[[str], object],
        stream: str,
    ) -> StreamReader:
        place = self._places.setdefault((owner, stream), Place())
        reader = StreamReader(reactor, lost, stream, place, self.entries)
        await self._connect(reactor, reader, reader.prepare)
        return reader


@implementer(IKeepingPublisher)
class StreamPublisher(Publisher):
    """A connection that adds entries to streams."""

    def __init__(self, owner: IPublisherOwner, bus: RedisStreamsBus, outboxes: dict[str, Outbox]) -> None:
        super().__init__(owner, bus.isSharded)
        self._bus = bus
        self._outboxes = outboxes
        self._commands: deque[Deferred[Any]] = deque()
        # For each unconfirmed message, in order: the outbox that has it, or None if Redis does not keep it.
        self._order: deque[Outbox | None] = deque()

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        stream = self._bus.streamOf(topic)
        if stream is None:
            self._order.append(None)
            super().publish(topic, payload, answer)
            return
        outbox = self._outboxes[stream]
        outbox.number += 1
        message = _Message(outbox.number, topic, payload, answer is not None)
        outbox.sent.append(message)
        self._send(stream, outbox, message, answer)

    def _send(self, stream: str, outbox: Outbox, message: _Message, answer: Deferred[None] | None) -> None:
        fields = self._bus.entries.write(message.topic, message.payload)
        mark = f"{outbox.mark}-{message.number}".encode()
        self._order.append(outbox)
        self.expect(len(message.payload), self._added(stream, [*fields, b"n", mark]), answer)

    def _added(self, stream: str, fields: list[bytes]) -> bytes:
        """Return the command that adds an entry."""
        most = b"%d" % self._bus.most
        return _command([b"XADD", stream.encode(), b"MAXLEN", b"~", most, b"*", *fields])

    def beat(self, topic: str, payload: bytes) -> None:
        fields = self._bus.entries.write(topic, payload)
        for stream in self._outboxes:
            self._expected.append(Reply.BEAT)
            self.transport.write(self._added(stream, fields))
        self._askRole()

    def sendAgain(self) -> None:
        """Send the messages again that Redis did not take from the last connection."""
        for stream, outbox in self._outboxes.items():
            for message in outbox.sent:
                self._send(stream, outbox, message, None)

    def giveUp(self, outbox: Outbox) -> None:
        """Forget the messages of the last connection, and count them as refused."""
        while outbox.sent:
            outbox.sent.popleft()
            self._owner.refused("the stream was trimmed before the broker confirmed a message")

    def confirmed(self, reply: Any) -> None:
        outbox = self._order.popleft()
        if outbox is not None:
            outbox.sent.popleft()
            if isinstance(reply, bytes):
                outbox.confirmed = reply.decode()

    def command(self, *words: str | bytes) -> Deferred[Any]:
        self._expected.append(Reply.COMMAND)
        self.transport.write(
            _command(
                [word if isinstance(word, bytes) else word.encode("utf-8", "surrogatepass") for word in words]
            )
        )
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
        if self._bus.streamOf(topic) is None:
            return super().countSubscribers(topic)
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
        if self._closing is not None:
            for outbox in self._outboxes.values():
                outbox.sent.clear()
            return
        awaited = [
            message for outbox in self._outboxes.values() for message in outbox.sent if message.isAwaited
        ]
        self.unconfirmed = len(awaited) + self._order.count(None)


def _command(words: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


@implementer(ISubscriber)
class StreamReader(Connection):
    """
    A connection that reads the stream.

    Reading begins when no more subscriptions are asked for: an owner makes those of its last connection
    again, and nothing may be read before.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        lost: Callable[[str], object],
        stream: str,
        place: Place,
        entries: Entries,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._lost = lost
        self._stream = stream
        self._place = place
        self._entry = entries.read
        self._topics: dict[bytes, Subscription] = {}
        self._asked: list[Deferred[None]] = []
        # True for the reply to an XINFO.
        self._expected: deque[bool] = deque()
        self._isReading = False
        self._isDoubtful = False
        self._missed: list[int] = []
        self._ahead = 0.0  # of Redis's clock, in seconds
        self._readAt = reactor.seconds()

    async def prepare(self) -> None:
        """Find the place in the stream."""
        await self.whenConnected()
        seconds, micros = await self.ask("TIME")
        self._ahead = int(seconds) + int(micros) / 1e6 - self._reactor.seconds()
        info = await self.ask("XINFO", "STREAM", self._stream)
        if isinstance(info, Exception) and "no such key" not in str(info):
            raise BusError(str(info))
        self._found(self._place.opened(infoOf(info)))

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
            self._found(self._place.compare(infoOf(reply)))
            self._tellMissed()
        else:
            self._entriesCame(reply[0][1] if reply else [])

    def _entriesCame(self, entries: list[Any]) -> None:
        """Called with the entries of one XREAD: ask for the next ones, then deliver these."""
        place = self._place
        before = place.id
        now = self._reactor.seconds()
        if entries:
            self._found(place.read([each for each, _ in entries]))
            # A server that fell behind, or was suspended, may have been overtaken by the trimming.
            self._isDoubtful = self._isDoubtful or len(entries) == _BATCH or now - self._readAt > _LATE
        self._readAt = now
        self._read()
        if before is not None and before < place.goal:
            self._deliverLate(entries)
        else:
            topics, read = self._topics, self._entry
            for each, fields in entries:
                message = read(each, fields)
                if message is not None and (subscription := topics.get(message[0])) is not None:
                    place.delivered = each.decode().replace("-", ".")
                    subscription.deliver(subscription.topic, message[1])
        if place.id is not None and not self._ended:
            place.delivered = f"{place.id[0]}.{place.id[1]}"

    def _deliverLate(self, entries: list[Any]) -> None:
        place = self._place
        goal = place.goal
        for each, fields in entries:
            message = self._entry(each, fields)
            if message is not None and (subscription := self._topics.get(message[0])) is not None:
                place.delivered = each.decode().replace("-", ".")
                id = idOf(each)
                if id > goal:
                    subscription.deliver(subscription.topic, message[1])
                elif id > subscription.start:
                    subscription.late(subscription.topic, message[1])

    def ended(self, reason: str) -> None:
        if self.established:
            asked, self._asked = self._asked, []
            for deferred in asked:
                deferred.errback(BusError(reason))
            self._lost(reason)
