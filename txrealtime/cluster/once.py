"""
Events handled once: a middleware that gives a repeated event the ack of the first.

A client that has no ack may send its event again, by another connection and to another server.  Each event
has a key.  The first event of a key claims it in a :class:`~txrealtime.cluster.results.IResults`, with a
lease that is renewed while the handler runs, and leaves its result there; a repeated one gets the result, or
waits for it::

    claim ──mine──> the handler runs ──> result kept ──> ack
      ├──running──> wait ──> the first result, or TryAgain if the first run has failed or was lost
      └──done──> the first result
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, NoReturn

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import LogLevel

from txrealtime.cluster.results import (
    MISSING,
    NOTHING,
    IResults,
    MemoryResults,
    RedisResults,
    packed,
    unpacked,
)
from txrealtime.errors import TryAgain
from txrealtime.logs import Logger
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.namespace import NO_ACK, Incoming

__all__ = ["Key", "Once", "keyOf", "once"]

_log = Logger()

_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 0.5
"""Seconds between two looks for the result of another server: at first, and at last."""

_PATIENCE: Final = 60.0
"""Seconds that a repeated event waits for the first."""

_RENEWALS: Final = 3
"""Renewals in the time of a lease."""

_RUNNING: Final = b"R"
_DONE: Final = b"D"
_DIGEST: Final = 16

Key = int | str | Callable[[Incoming], object]


def once(
    *events: str,
    key: Key | None = None,
    header: str | None = None,
    store: IResults | str | None = None,
    seconds: float = 600.0,
    lease: float = 15.0,
) -> Once:
    """
    Make a middleware that handles an event once, however often its client sends it.

    ``server.use(once("order", key=0))``; see :doc:`/howto/once`.

    :param events: the names of the events; none for all, if `key` is a function.
    :param key: the argument that names the event, by its place; or the field of the first argument that does;
        or a function of the :class:`Incoming`, which returns a value of JSON, or ``None`` for an event that
        is handled each time.
    :param header: in place of `key`, the name of a header of the handshake.
    :param store: the place of the results: by default the memory of this process; or the URL of a Redis.
    :param seconds: the time for which a result is kept.
    :param lease: the time after which another server may run the handler, if this one was killed meanwhile.
    :raises ValueError: if there is no key, or no event for a key that is an argument.
    :raises TypeError: if the key is none of these.
    """
    if not (events or callable(key)):
        raise ValueError("once() needs the names of the events, such as once('order', key=0)")
    return Once(events, keyOf(key, header), store, seconds, lease)


class _Run:
    """
    An event that is being handled, or waited for, on this server.

    :ivar digest: the digest of its arguments.
    """

    __slots__ = ("_waiting", "digest")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self._waiting: list[Deferred[Any]] = []

    async def result(self, clock: IReactorTime) -> Any:
        """Wait for the result, for a repeated event."""
        waiting: Deferred[Any] = Deferred()
        self._waiting.append(waiting)
        waiting.addTimeout(_PATIENCE, clock, onTimeoutCancel=_late)
        try:
            return await waiting
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def ended(self, result: Any) -> None:
        """Give those that wait the result."""
        waits, self._waiting = self._waiting, []
        for each in waits:
            each.callback(result)

    def failed(self, error: TryAgain) -> None:
        """Tell those that wait that there is no result."""
        waits, self._waiting = self._waiting, []
        for each in waits:
            each.errback(error)


class Once:
    """The middleware: see :func:`once`."""

    def __init__(
        self,
        events: tuple[str, ...],
        key: Callable[[Incoming], object],
        store: IResults | str | None,
        seconds: float,
        lease: float,
    ) -> None:
        if not (seconds > 0 and lease > 0):
            raise ValueError(f"seconds and lease are {seconds!r} and {lease!r}, expected numbers above 0")
        self._events = frozenset(events)
        self._key = key
        self._seconds = seconds
        self._lease = lease
        if store is None:
            store = MemoryResults()
        self._store: IResults = RedisResults(store) if isinstance(store, str) else store
        self._runs: dict[str, _Run] = {}
        self._json = JSONText()

    def __repr__(self) -> str:
        return f"once({', '.join(map(repr, sorted(self._events)))})"

    async def __call__(self, incoming: Incoming, proceed: Callable[[Incoming], Deferred[Any]]) -> Any:
        if self._events and incoming.event not in self._events:
            return await proceed(incoming)
        key = self._key(incoming)
        if key is None:
            return await proceed(incoming)
        name = self._digest([incoming.socket.namespace.path, incoming.event, key]).hex()
        digest = self._digest(incoming.args)
        run = self._runs.get(name)
        if run is not None:
            _check(run.digest, digest)
            return await run.result(incoming.socket.namespace.reactor)
        self._runs[name] = run = _Run(digest)
        try:
            result = await self._first(name, digest, incoming, proceed)
        except BaseException as error:
            # Also if the coroutine is closed: an entry that stays would let all events of the key wait.
            del self._runs[name]
            run.failed(error if isinstance(error, TryAgain) else TryAgain("the event failed: send it again"))
            raise
        del self._runs[name]
        run.ended(result)
        return result

    def _digest(self, values: Any) -> bytes:
        text, attachments = self._json.encode(values)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST)
        for each in attachments or ():
            digest.update(each)
        return digest.digest()

    async def _first(
        self, name: str, digest: bytes, incoming: Incoming, proceed: Callable[[Incoming], Deferred[Any]]
    ) -> Any:
        """Handle the first event of a key on this server, unless another server has."""
        clock, mine = incoming.socket.namespace.reactor, _RUNNING + digest + secrets.token_bytes(_DIGEST)
        try:
            found = await self._store.claim(clock, name, mine, self._lease)
            if found is not None:
                return await self._result(clock, name, digest, found)
        except TryAgain:
            raise
        except (CancelledError, GeneratorExit):
            self._kept(self._store.release, clock, name, mine)
            raise
        except Exception as error:
            _unreachable(error)
            raise TryAgain("the server cannot tell if the event was handled: send it again") from None
        handling = proceed(incoming)
        renewing = None if handling.called else self._renewing(clock, name, mine)
        try:
            result = await handling
        except BaseException as error:
            released = self._kept(self._store.release, clock, name, mine)
            # A coroutine that is closed cannot wait.
            if not isinstance(error, GeneratorExit):
                await released
            raise
        finally:
            if renewing is not None:
                renewing.stop()
        value = _DONE + digest + _packed(result)
        await self._kept(self._store.finish, clock, name, mine, value, self._seconds)
        return result

    async def _result(self, clock: IReactorTime, name: str, digest: bytes, found: bytes) -> Any:
        """Return the result of another run.  If it goes on, wait for its end."""
        pause, until = _FIRST_LOOK, clock.seconds() + _PATIENCE
        while True:
            _check(found[1 : 1 + _DIGEST], digest)
            if found[:1] == _DONE:
                return _unpacked(found[1 + _DIGEST :])
            if clock.seconds() >= until:
                _late()
            await deferLater(clock, pause)
            pause = min(2 * pause, _LAST_LOOK)
            later = await self._store.find(clock, name)
            if later is None:
                raise TryAgain("the event failed, or its server has gone: send it again")
            found = later

    def _renewing(self, clock: IReactorTime, name: str, mine: bytes) -> LoopingCall:
        """Renew a claim from time to time, until the call is stopped."""
        renewing = LoopingCall(self._renew, clock, name, mine)
        renewing.clock = clock
        renewing.start(self._lease / _RENEWALS, now=False)
        return renewing

    def _renew(self, clock: IReactorTime, name: str, mine: bytes) -> Deferred[None]:
        return self._kept(self._store.renew, clock, name, mine, self._lease)

    @staticmethod
    def _kept(call: Callable[..., Deferred[Any]], *args: Any) -> Deferred[None]:
        """Change the value of a run.  If that fails, log it: the handler has run."""
        return maybeDeferred(call, *args).addCallbacks(
            lambda _: None, lambda failure: _unreachable(failure.value)
        )


def _late(*ignored: object) -> NoReturn:
    raise TryAgain("the event is being handled for long already: ask again later")


def _unreachable(error: BaseException) -> None:
    _log.limited(
        "",
        LogLevel.error,
        "the results of once() cannot be reached, so its events are not handled: {reason}",
        reason=f"{type(error).__name__}: {error}",
    )


def _check(first: bytes, digest: bytes) -> None:
    if first != digest:
        raise TryAgain("another event has had this key, with other arguments: choose a new key")


def _packed(result: Any) -> bytes:
    if result is NO_ACK:
        return NOTHING
    try:
        return packed(result)
    except (TypeError, ValueError):
        # The ack cannot be sent either, which the connection logs.
        return NOTHING


def _unpacked(data: bytes) -> Any:
    result = unpacked(data)
    return NO_ACK if result is MISSING else result


def keyOf(key: Key | None, header: str | None) -> Callable[[Incoming], object]:
    """
    Make the function that returns the key of an event; see :func:`once`.

    :raises ValueError: if there is no key, or there are two.
    :raises TypeError: if the key is none.
    """
    if (key is None) == (header is None):
        raise ValueError("once() needs either key=, such as key=0 for the first argument, or header=")
    if callable(key):
        return key
    if header is not None:
        name = header.lower()
        return lambda incoming: incoming.socket.handshake.headers.get(name)
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise TypeError(f"key is a place, a field's name or a function, not {key!r}")
    place = key
    if isinstance(place, int):
        return lambda incoming: (
            incoming.args[place] if -len(incoming.args) <= place < len(incoming.args) else None
        )

    def field(incoming: Incoming) -> object:
        first = incoming.args[0] if incoming.args else None
        return first.get(place) if isinstance(first, dict) else None

    return field
