"""
The bus over Redis, by its pub/sub.

The only importer of txredisapi, and of its protocol alone: replies read by hiredis, and commands with
Deferreds while a connection starts.  Its factory stops for good when a connection is lost while it
authenticates, and does not subscribe again.  Once a connection has started, messages go past txredisapi,
without a Deferred for each.

Redis keeps nothing: a server that is not subscribed when a message is published does not get it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import txredisapi  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import IBus, IPublisher, IPublisherOwner, ISubscriber, Subscription
from txrealtime.errors import BusError

if txredisapi.hiredis is None:
    raise ImportError("No module named 'hiredis'")

__all__ = ["Connection", "Publisher", "RedisBus", "RedisError", "Reply"]

RedisError = txredisapi.RedisError

TIMEOUT = 5.0
"Seconds for TCP to connect.  The whole attempt has its own limit."

SENTINEL_TIMEOUT = 1.0
"Seconds that a Sentinel has to answer before the next is asked."

UNUSABLE = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH")
"Errors about the server and not about one message."


class Reply(IntEnum):
    """
    The kinds of replies that are not to the PUBLISH of a message.

    A publisher keeps the kind of each reply that is to come, in order.  For a message it keeps the size of
    the payload instead, which is never negative.
    """

    BEAT = -1
    "To the PUBLISH of a heartbeat."
    ROLE = -2
    "To ROLE."
    COUNT = -3
    "To PUBSUB NUMSUB."
    COMMAND = -4
    "To a command of a bus over a stream."


@implementer(IBus)
class RedisBus:
    """
    A bus over one Redis, or over the master that Sentinels name.

    :param address: of a scheme that begins with ``redis``.
    :ivar isSharded: true for SPUBLISH and SSUBSCRIBE in place of PUBLISH and SUBSCRIBE, in Redis 7.
    """

    patterns = True

    def __init__(self, address: Address) -> None:
        self.name = address.name
        self._address = address
        self.isSharded = address.isSharded
        self._hosts = list(address.hosts) or [("", 0)]
        # By owner: the CLIENT ID and CLIENT SETNAME of its last publisher.
        self._formerly: WeakKeyDictionary[IPublisherOwner, tuple[str, str]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<RedisBus {self.name}>"

    def openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> Deferred[IPublisher]:
        return Deferred.fromCoroutine(self._openPublisher(reactor, owner))

    async def _openPublisher(self, reactor: IReactorTime, owner: IPublisherOwner) -> IPublisher:
        publisher = Publisher(owner, self.isSharded)
        await self._connect(reactor, publisher, lambda: self._prepare(publisher, owner))
        return publisher

    def openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> Deferred[ISubscriber]:
        return Deferred.fromCoroutine(self._openSubscriber(reactor, lost))

    async def _openSubscriber(self, reactor: IReactorTime, lost: Callable[[str], object]) -> ISubscriber:
        subscriber = _Subscriber(lost, self.isSharded)
        await self._connect(reactor, subscriber, subscriber.whenConnected)
        return subscriber

    async def _connect(
        self, reactor: IReactorTime, connection: Connection, prepare: Callable[[], Any]
    ) -> None:
        address = self._address
        host, port = await self._master(reactor) if self._address.service else self._hosts[0]
        await address.connect(reactor, connection, host, port, TIMEOUT)
        try:
            if address.password is not None:
                await connection.auth(address.password, address.user)
            if self._address.database:
                await connection.select(self._address.database)
            await prepare()
        except BaseException as error:  # a cancelled attempt too
            connection.abort()
            if isinstance(error, txredisapi.RedisError):
                raise BusError(connection.why or str(error)) from None
            raise
        connection.established = True

    async def connect(self, reactor: IReactorTime, connection: Connection) -> None:
        """Connect for commands with Deferreds.  A server that is a replica refuses to write by itself."""
        await self._connect(reactor, connection, connection.whenConnected)
        connection.established = False  # replies go on to the Deferreds

    async def _prepare(self, publisher: Publisher, owner: IPublisherOwner) -> None:
        """
        Check that the server is a master, and have it close the owner's last connection.

        A Redis that hung may not have read all messages of that connection.  Read later, they would arrive
        between newer ones.
        """
        publisher.checkRole(await publisher.ask("ROLE"))
        number, name = self._formerly.get(owner, ("", ""))
        if number:
            # A restarted Redis gives the ids anew, so the id may be a stranger's now.
            listed = await publisher.ask("CLIENT", "LIST", "ID", number)
            if isinstance(listed, bytes) and f" name={name} ".encode() in listed:
                await publisher.ask("CLIENT", "KILL", "ID", number)
        name = f"txrealtime-{uuid4().hex}"
        await publisher.ask("CLIENT", "SETNAME", name)
        self._formerly[owner] = (str(await publisher.ask("CLIENT", "ID")), name)

    async def _master(self, reactor: IReactorTime) -> tuple[str, int]:
        """Return the present address of the master, from the first Sentinel that knows it."""
        problem = ""
        for host in list(self._hosts):
            sentinel = Connection()
            try:
                await self._address.connect(reactor, sentinel, *host, SENTINEL_TIMEOUT)
                asked = sentinel.sentinel_get_master_addr_by_name(self._address.service)
                answer = await asked.addTimeout(SENTINEL_TIMEOUT, reactor)
            except CancelledError:
                raise
            except Exception as error:
                problem = str(error) or type(error).__name__
            else:
                if isinstance(answer, list) and len(answer) == 2:
                    self._hosts.remove(host)
                    self._hosts.insert(0, host)  # the first to ask next time
                    return answer[0].decode(), int(answer[1])
                problem = f"it does not know {self._address.service}"
            finally:
                sentinel.abort()
        raise BusError(f"no Sentinel names the master of {self._address.service}: {problem}")


class Connection(txredisapi.HiredisProtocol):  # type: ignore[misc]
    """
    A connection to Redis.

    :ivar established: true once the login is done.  Replies then go to :meth:`received`.
    :ivar why: the reason for the end of the connection, once it has ended.
    """

    def __init__(self) -> None:
        # By default txredisapi turns payloads that look like numbers into numbers.
        super().__init__(charset=None, convertNumbers=False)
        self.established = False
        self.why = ""
        self._ended = False
        # The one of HiredisProtocol has a private name.
        self._replies = txredisapi.hiredis.Reader(
            protocolError=txredisapi.InvalidData, replyError=txredisapi.ResponseError
        )

    def connectionMade(self) -> Any:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        return super().connectionMade()

    def ask(self, *command: str) -> Deferred[Any]:
        """
        Send a command that the server may refuse.

        :return: fires with the reply, which may be an error.
        """
        asked: Deferred[Any] = self.execute_command(*command)
        return asked.addErrback(lambda failure: failure.trap(txredisapi.ResponseError) and failure.value)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        # As in txredisapi, without its transactions and conversions.
        reader = self._replies
        try:
            reader.feed(data)
            while not self._ended and (reply := reader.gets()) is not False:
                if self.established:
                    self.received(reply)
                else:
                    self.replyReceived(reply)
        except txredisapi.InvalidData as error:
            self.fail(f"the server does not speak Redis's protocol: {error}")

    def received(self, reply: Any) -> None:
        """Called with each reply of an established connection."""

    def connectionLost(self, why: Failure) -> None:
        self.why = self.why or why.getErrorMessage()
        super().connectionLost(why)
        if not self._ended:
            self._ended = True
            self.ended(self.why)

    def ended(self, reason: str) -> None:
        """Called when the connection has ended by itself."""

    def fail(self, reason: str) -> None:
        """End the connection as if it had ended by itself."""
        if not self._ended:
            self.why = reason
            self.abort()
            self.ended(reason)

    @property
    def hasEnded(self) -> bool:
        """True once the connection has ended."""
        return self._ended

    def abort(self) -> None:
        """Abort the connection without calling :meth:`ended`."""
        self._ended = True
        if self.transport is not None:
            self.transport.abortConnection()


@implementer(IPublisher)
class Publisher(Connection):
    """
    A connection to publish on.  The replies come in the order of the commands.
    """

    def __init__(self, owner: IPublisherOwner, sharded: bool = False) -> None:
        super().__init__()
        self._publishing = b"*3\r\n$8\r\nSPUBLISH\r\n" if sharded else b"*3\r\n$7\r\nPUBLISH\r\n"
        self._asking = b"$11\r\nSHARDNUMSUB" if sharded else b"$6\r\nNUMSUB"
        self.unconfirmed = 0
        self.pending = 0
        self._owner = owner
        self._expected: deque[int] = deque()  # for each reply to come, a message's size or a Reply
        self._answers: deque[Deferred[None]] = deque()
        self._counting: deque[Deferred[int]] = deque()
        self._closing: Deferred[None] | None = None

    def publish(self, topic: str, payload: bytes, answer: Deferred[None] | None = None) -> None:
        name = topic.encode("utf-8", "surrogatepass")
        size = len(payload)
        self.expect(
            size,
            b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (self._publishing, len(name), name, size, payload),
            answer,
        )

    def expect(self, size: int, command: bytes, answer: Deferred[None] | None) -> None:
        """Send the command that publishes a message of a size, and count it as unconfirmed."""
        self.unconfirmed += 1
        self.pending += size
        self._expected.append(size)
        self.transport.write(command)
        if answer is not None:
            self._answers.append(answer)

    def beat(self, topic: str, payload: bytes) -> None:
        self.publish(topic, payload)
        self.unconfirmed -= 1
        self.pending -= len(payload)
        self._expected[-1] = Reply.BEAT
        self._askRole()

    def _askRole(self) -> None:
        # A master that became a replica goes on accepting messages, for its own clients only.
        self._expected.append(Reply.ROLE)
        self.transport.write(b"*1\r\n$4\r\nROLE\r\n")

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        super().dataReceived(data)
        if self._ended or not self.established:
            return
        if self._closing is None:
            self._owner.confirmed()
        elif not self._expected:
            self._close()

    def received(self, reply: Any) -> None:
        if not self._expected:
            self.fail("the server sent a reply without a command")
            return
        kind = self._expected.popleft()
        if kind >= 0:
            self.unconfirmed -= 1
            self.pending -= kind
            self.confirmed(reply)
            if self._answers:
                self._answer(reply)
            if isinstance(reply, Exception):
                self._refused(str(reply))
        elif kind == Reply.COUNT:
            self._counted(reply)
        elif kind == Reply.COMMAND:
            self.commanded(reply)
        elif kind == Reply.ROLE:
            try:
                self.checkRole(reply)
            except BusError as error:
                self.fail(str(error))
        elif isinstance(reply, Exception):  # a heartbeat was refused
            self.fail(str(reply))

    def confirmed(self, reply: Any) -> None:
        """Called with the reply to each message."""

    def commanded(self, reply: Any) -> None:
        """Called with the reply to a command."""

    def _refused(self, reason: str) -> None:
        self._owner.refused(reason)
        if reason.startswith(UNUSABLE):
            self.fail(reason)

    def _answer(self, reply: Any) -> None:
        answer = self._answers.popleft()
        if isinstance(reply, Exception):
            answer.errback(BusError(f"the broker refused the message: {reply}"))
        else:
            answer.callback(None)

    def countSubscribers(self, topic: str) -> Deferred[int]:
        name = topic.encode("utf-8", "surrogatepass")
        self._expected.append(Reply.COUNT)
        self.transport.write(b"*3\r\n$6\r\nPUBSUB\r\n%b\r\n$%d\r\n%b\r\n" % (self._asking, len(name), name))
        counting: Deferred[int] = Deferred()
        self._counting.append(counting)
        return counting

    def _counted(self, reply: Any) -> None:
        counting = self._counting.popleft()
        if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], int):
            counting.callback(reply[1])
        else:
            counting.errback(BusError(f"the broker does not count subscribers: {reply}"))

    def checkRole(self, reply: Any) -> None:
        """
        Check a reply to ROLE.

        :raises BusError: if the server is a replica.  A server that refuses to tell is taken for a master.
        """
        if isinstance(reply, Exception) and str(reply).startswith(UNUSABLE):
            raise BusError(str(reply))
        if isinstance(reply, list) and reply and reply[0] == b"slave":
            raise BusError(
                "the server is a read-only replica, which passes on messages to its own clients only: "
                "connect to the master"
            )

    def ended(self, reason: str) -> None:
        self._failCounting(reason)
        if self._closing is not None:
            self._close()
        elif self.established:
            self._owner.lost(reason)

    def abort(self) -> None:
        super().abort()
        self._failCounting("the connection was ended")

    def _failCounting(self, reason: str) -> None:
        while self._counting:
            self._counting.popleft().errback(BusError(reason))

    def close(self) -> Deferred[None]:
        self._closing = Deferred(lambda closing: self.abort())
        if not self._expected:
            self._close()
        return self._closing

    def _close(self) -> None:
        self.abort()
        if self._closing is not None and not self._closing.called:
            self._closing.callback(None)


@implementer(ISubscriber)
class _Subscriber(Connection):
    def __init__(self, lost: Callable[[str], object], sharded: bool = False) -> None:
        super().__init__()
        self._lost = lost
        self._shard = b"S" if sharded else b""
        self._topics: dict[bytes, Subscription] = {}
        self._patterns: dict[bytes, Subscription] = {}
        self._asked: deque[Deferred[None]] = deque()

    def subscribe(self, subscription: Subscription) -> Deferred[None]:
        name = subscription.topic.encode("utf-8", "surrogatepass")
        (self._patterns if subscription.pattern else self._topics)[name] = subscription
        self._command(b"PSUBSCRIBE" if subscription.pattern else self._shard + b"SUBSCRIBE", name)
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        return asked

    def unsubscribe(self, subscription: Subscription) -> None:
        name = subscription.topic.encode("utf-8", "surrogatepass")
        (self._patterns if subscription.pattern else self._topics).pop(name, None)
        self._command(b"PUNSUBSCRIBE" if subscription.pattern else self._shard + b"UNSUBSCRIBE", name)

    def _command(self, command: bytes, name: bytes) -> None:
        self.transport.write(b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(command), command, len(name), name))

    def ping(self) -> None:
        self.transport.write(b"*1\r\n$4\r\nPING\r\n")

    def received(self, reply: Any) -> None:
        if self._ended:
            return
        kind = reply[0] if isinstance(reply, list) and reply else reply
        if kind == b"message" or kind == b"smessage":
            subscription = self._topics.get(reply[1])
            if subscription is not None:
                subscription.deliver(subscription.topic, reply[2])
        elif kind == b"pmessage":
            subscription = self._patterns.get(reply[1])
            if subscription is not None:
                subscription.deliver(reply[2].decode("utf-8", "replace"), reply[3])
        elif kind in (b"subscribe", b"psubscribe", b"ssubscribe"):
            self._asked.popleft().callback(None)
        elif isinstance(reply, Exception):
            if self._asked:
                self._asked.popleft().errback(BusError(str(reply)))
            else:
                self.fail(str(reply))

    def ended(self, reason: str) -> None:
        if self.established:
            asked, self._asked = self._asked, deque()
            for deferred in asked:
                deferred.errback(BusError(reason))
            self._lost(reason)
