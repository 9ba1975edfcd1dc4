"""
Ports that the supervisor opens and the workers share.

An endpoint string can be of any kind, with wrappers before it, such as ``haproxy:ssl:443:...``.  In both
processes Twisted makes the endpoint, but of a reactor that opens the port without accepting
(:func:`openPorts`), or that takes the port from the supervisor (:class:`Inherited`).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from txrealtime.engineio.tcp import lengthenQueue

__all__ = ["Inherited", "familyOf", "openPorts", "withoutPlace"]


class _Held:
    """A reactor for endpoints whose ports accept nothing here."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.ports: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _hold(self, port: Any) -> Any:
        # The port began to read in this turn of the reactor, and has not read yet.
        port.stopReading()
        self.ports.append(port)
        return port

    def listenTCP(self, *args: Any, **options: Any) -> Any:
        """Listen without accepting."""
        return self._hold(self._reactor.listenTCP(*args, **options))

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **options: Any) -> Any:
        """Listen without accepting: the workers speak TLS."""
        return self.listenTCP(port, factory, **options)

    def listenUNIX(self, *args: Any, **options: Any) -> Any:
        """Listen without accepting."""
        return self._hold(self._reactor.listenUNIX(*args, **options))

    def adoptStreamPort(self, *args: Any, **options: Any) -> Any:
        """Take over a port without accepting."""
        return self._hold(self._reactor.adoptStreamPort(*args, **options))


class _Nobody(Factory):
    """A factory of a port that accepts nothing."""

    noisy = False


def openPorts(reactor: Any, description: str, failed: Callable[[Any], object]) -> list[Any]:
    """
    Open the ports of an endpoint string, without accepting connections.

    :param failed: called with the Failure if the system refuses.
    :raises Exception: if the string makes no endpoint; the type depends on the endpoint.
    """
    held = _Held(reactor)
    endpoint: Any = serverFromString(held, description)
    listening: Deferred[IListeningPort] = maybeDeferred(endpoint.listen, _Nobody())
    listening.addErrback(failed)
    for port in held.ports:
        lengthenQueue(port, description)
    return held.ports


class Inherited:
    """
    A reactor for the endpoint of a port that the supervisor has opened.

    :param descriptor: the descriptor of the listening socket.
    :param accept: makes and starts the port for a factory; by default the reactor does.
    """

    def __init__(
        self, reactor: Any, descriptor: int, accept: Callable[[Any], IListeningPort] | None = None
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._accept = accept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: Any, factory: Any, *args: Any, **options: Any) -> Any:
        """Accept at the supervisor's port."""
        if self._accept is not None:
            return self._accept(factory)
        return self._reactor.adoptStreamPort(self._descriptor, familyOf(self._descriptor), factory)

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, **options: Any) -> Any:
        """Accept at the supervisor's port, and speak TLS there."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory))

    listenUNIX = listenTCP


def familyOf(descriptor: int) -> int:
    """Return the address family of a socket."""
    with socket.socket(fileno=os.dup(descriptor)) as opened:
        return int(opened.family)


def withoutPlace(description: str) -> str:
    """
    Return an endpoint string for a worker, which has the port already.

    A socket of systemd is passed to the supervisor alone, so that the worker's string must not ask for it.
    """
    return re.sub(r"(?:(?<=:)|\A)systemd:.*", "tcp:0", description)
