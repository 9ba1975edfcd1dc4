"""
TLS certificates that are read again while the server listens.

An endpoint reads its certificates when it is made, and has no way to take others.  To the reactor it
gives the site in a factory of its own, which knows the certificates.  So a :class:`Renewable` puts an
exchangeable factory between the two.  To renew, it makes another endpoint of the same description, lets
that listen on a reactor that only keeps the factory, and exchanges that for the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

__all__ = ["Renewable"]

# The reactor's methods that endpoints listen by, with the place of the factory among the arguments.
_LISTENING: Final = {"listenTCP": 1, "listenUNIX": 1, "adoptStreamPort": 2}


class Renewable:
    """
    An endpoint whose certificates can be read again.

    :param description: an endpoint string.
    :param outermost: wraps the factory that the reactor gets, below TLS.
    :raises Exception: if the string makes no endpoint; the type depends on the endpoint.
    """

    def __init__(self, reactor: Any, description: str, outermost: Callable[[Any], Any] | None = None) -> None:
        self._reactor = reactor
        self._description = description
        self._outermost = outermost or (lambda factory: factory)
        self._site: Any = None
        self._current: _Exchangeable | None = None
        self._endpoint: Any = serverFromString(_Hooked(reactor, self._listen), description)

    def listen(self, site: Any) -> Deferred[IListeningPort]:
        """Listen, as other endpoints do."""
        self._site = site
        listening: Deferred[IListeningPort] = self._endpoint.listen(site)
        return listening

    def _listen(self, factory: Any, listen: Callable[[Any], Any]) -> Any:
        if factory is self._site:
            return listen(self._outermost(factory))  # plain, so nothing will have to be exchanged
        self._current = _Exchangeable(factory)
        return listen(self._outermost(self._current))

    @property
    def hasCertificates(self) -> bool:
        """True if the endpoint listens and speaks TLS."""
        factory = self._current and self._current.factory
        while factory is not None and not isinstance(factory, TLSMemoryBIOFactory):
            factory = getattr(factory, "wrappedFactory", None)
        return factory is not None

    def renew(self) -> None:
        """
        Read the certificates again, for the connections to come.

        :raises ValueError: if the socket is systemd's, which can be taken only once.
        :raises Exception: if the files cannot be read, or do not fit; the type depends on the endpoint.
        """
        if self._current is None:
            return
        if "systemd" in self._description:
            # A second endpoint would close the number of the descriptor, which another file may have now.
            raise ValueError("a socket from systemd can be taken only once")
        made: list[Any] = []
        endpoint: Any = serverFromString(
            _Hooked(self._reactor, lambda factory, listen: made.append(factory)), self._description
        )
        endpoint.listen(self._site).addErrback(lambda failure: failure.raiseException())
        self._current.factory = made[0]


class _Hooked:
    """
    A reactor for an endpoint, which lets a hook listen in its place.

    :param hook: called with a factory, and with a function that listens with the factory given to it.
    """

    def __init__(self, reactor: Any, hook: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
        self._reactor = reactor
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        method, place = getattr(self._reactor, name), _LISTENING.get(name)
        if place is None:
            return method

        def listen(*args: Any, **options: Any) -> Any:
            before, after = args[:place], args[place + 1 :]
            return self._hook(args[place], lambda factory: method(*before, factory, *after, **options))

        return listen

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **options: Any) -> Any:
        """Listen as the reactor does, but through the hook."""
        secure = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, secure, **options)


class _Exchangeable:
    """
    A factory of protocols that is another one, until that is exchanged.

    The first one is told of the start and the stop, as all of them have one site.
    """

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.doStart = factory.doStart
        self.doStop = factory.doStop

    def buildProtocol(self, address: IAddress) -> Any:
        """Return a protocol for a new connection."""
        return self.factory.buildProtocol(address)
