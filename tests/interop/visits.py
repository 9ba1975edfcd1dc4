"""
Visits of the client to a server: what the cases of :mod:`tests.interop.connectioncases` and
:mod:`tests.interop.eventcases` share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from txrealtime.client import Client

WAYS = {"polling": ("polling",), "websocket": ("websocket",), "upgrade": ("polling", "websocket")}

Case = Callable[["Visit"], Awaitable[None]]


class Cases(list[Case]):
    """The cases of a module."""

    def add(self, case: Case) -> Case:
        """Decorate a case."""
        self.append(case)
        return case


class Visit:
    """
    The clients of one case.

    :ivar url: the server.
    :ivar server: ``node``, ``python`` or ``ours``.
    """

    def __init__(self, test: TestCase, server: str, url: str, transports: tuple[str, ...]) -> None:
        self.test = test
        self.server = server
        self.url = url
        self.transports = transports
        self.clients: list[Client] = []

    def client(self, at: str = "", start: bool = True, **options: Any) -> Client:
        """Make a client, quick to connect again."""
        options = {"transports": self.transports, "reconnectionDelay": 0.05, "reactor": reactor, **options}
        client = Client(self.url + at, **options)
        self.clients.append(client)
        if start:
            client.startService()
        return client

    async def connected(self, at: str = "", **options: Any) -> Client:
        """Make a client, and wait until it is connected."""
        return await within(self.client(at, **options).whenConnected())

    async def leave(self) -> None:
        """Stop all clients."""
        await gatherResults([client.stopService() for client in self.clients])

    def equal(self, got: Any, expected: Any) -> None:
        self.test.assertEqual(got, expected)


def within(waiting: Deferred[Any], seconds: float = 60) -> Deferred[Any]:
    """Wait for a Deferred, but not for ever."""
    return waiting.addTimeout(seconds, reactor)


def events(client: Any, name: str, count: int) -> Deferred[list[Any]]:
    """Wait for some events of one name; return their arguments."""
    got: list[Any] = []
    done: Deferred[list[Any]] = Deferred()

    def handle(*args: Any) -> None:
        got.append(args)
        if len(got) == count:
            done.callback(got)

    client.on(name, replace=True)(handle)
    return within(done)


def notice(decorate: Callable[[Any], Any]) -> Deferred[Any]:
    """Wait for the first notice of a kind."""
    told: Deferred[Any] = Deferred()
    decorate(lambda *args: told.called or told.callback(args[0] if args else None))
    return within(told)


async def raised(waiting: Deferred[Any], kind: type[BaseException]) -> Any:
    """Return the error of a Deferred."""
    try:
        await within(waiting)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def wait(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


async def until(isTrue: Callable[[], bool]) -> None:
    """Wait until something is true, but not for ever."""
    end = reactor.seconds() + 60
    while not isTrue():
        assert reactor.seconds() < end
        await wait(0.02)


@implementer(IStreamClientEndpoint)
class Switch:
    """
    An endpoint of a server that can be turned off.

    :ivar isOff: true to refuse connections.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._endpoint = clientFromString(reactor, f"tcp:{parts.hostname}:{parts.port}")
        self.isOff = True

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.isOff:
            return fail(ConnectError(string="switched off"))
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting
