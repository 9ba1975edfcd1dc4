"""
A place where a site listens, as a service.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from twisted.web.server import Site
from zope.interface import implementer

from txrealtime.foreign import report
from txrealtime.service.options import StartupError
from txrealtime.service.proxyheader import ProxiedFactory, belowHeader

__all__ = ["Listener"]

_log = Logger()


class Listener(Service):
    """
    One place where a site listens.

    :param description: the endpoint string, or what the log shows in its place.
    :param path: where Socket.IO is, for the log.
    :param rootName: what is at /, for the log; empty for nothing.
    :param endpoint: the endpoint, where no string makes it.
    :raises StartupError: when that is no endpoint.
    """

    def __init__(
        self,
        reactor: Any,
        description: str,
        site: Site,
        path: str,
        rootName: str = "",
        endpoint: IStreamServerEndpoint | None = None,
    ) -> None:
        try:
            below = None if endpoint else belowHeader(description)
            self._endpoint = endpoint or serverFromString(reactor, below or description)
        except Exception as error:
            raise StartupError(f"--listen {description}: {_whyNoEndpoint(description, error)}") from None
        self._reactor = reactor
        self._description = description
        self._site = site if below is None else ProxiedFactory(reactor, site, description)
        self._path = path
        self._rootName = rootName
        self._listening: Deferred[IListeningPort | None] | None = None
        self._error: StartupError | None = None

    def privilegedStartService(self) -> None:
        """
        Listen; twistd gives up the rights of root after this.

        :raises StartupError: when it cannot, and has said so.
        """
        self._listening = self._endpoint.listen(self._site).addCallbacks(self._opened, self._failed)
        if self._error is not None:
            raise self._error

    def startService(self) -> None:
        if self._listening is None:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Listen no more; what is connected stays connected."""
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        listening.cancel()
        return listening.addCallback(lambda port: port.stopListening() if port else None)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        logger = getattr(port, "_logger", None)
        if isinstance(logger, Logger):
            shortage = _Shortage(self._reactor, self._description, logger.observer)
            port._logger = Logger(logger.namespace, observer=shortage)  # type: ignore[attr-defined]
        elif isinstance(port, Port):
            report(port, "_logger", without="a shortage of descriptors is logged at each connection")
        secure = self._description.partition(":")[0] in ("ssl", "tls")
        address = _urlOf(port.getHost(), "https" if secure else "http")
        _log.info(
            "serving Socket.IO at {url}{rest}",
            url=f"{address}{self._path.rstrip('/')}/",
            rest=f", {self._rootName} at {address}/" if self._rootName else "",
        )
        return port

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        reason = _whyNotListening(failure.value)
        _log.critical("cannot listen on {where}: {reason}", where=self._description, reason=reason)
        self._error = StartupError(f"cannot listen on {self._description}: {reason}")
        # By now sys.stderr is the log.
        print(self._error, file=sys.__stderr__)
        self._error.code = 1
        # A daemon has no standard error: twistd shows the first 98 bytes of this in its place.
        self._error.args = (f"{reason}: {self._description}",)
        if self.running:
            # An endpoint that took its time.
            self._reactor.stop()


# For so many seconds nothing must go wrong before what goes wrong again is news.
_QUIET: Final = 60.0


@implementer(ILogObserver)
class _Shortage:
    """
    Tells the log that connections cannot be accepted: once, and not for each of them.

    Twisted closes those for which there is no file descriptor left, with a line for each.

    :param where: what is listened on.
    :param observer: what observes all else that the port has to say.
    """

    def __init__(self, reactor: IReactorTime, where: str, observer: ILogObserver) -> None:
        self._reactor = reactor
        self._where = where
        self._observer = observer
        self._quietSince = -math.inf

    def __call__(self, event: LogEvent) -> None:
        text = event.get("log_format") or ""
        if "EMFILE" not in text and not text.startswith("Could not accept"):
            self._observer(event)
            return
        now = self._reactor.seconds()
        if now - self._quietSince > _QUIET:
            _log.warn(
                "{where}: out of file descriptors, so newcomers are dropped until some are free: "
                "raise the limit (ulimit -n, LimitNOFILE), or set maxConnections below it",
                where=self._where,
            )
        self._quietSince = now


def _whyNoEndpoint(description: str, error: Exception) -> str:
    """What is wrong with an endpoint string, from what Twisted raised on it."""
    if description.startswith("systemd:") and isinstance(error, LookupError):
        return "systemd has passed no such socket"
    if type(error).__module__.startswith("OpenSSL"):
        return "the key or the certificate cannot be read, expected PEM"
    if isinstance(error, TypeError):
        # Such as "_parseTCP() missing 1 required positional argument: 'port'".
        return str(error).partition("() ")[2] or str(error)
    return str(error)


def _whyNotListening(error: Any) -> str:
    """Why the system does not let us listen."""
    cause = getattr(error, "socketError", error)
    return getattr(cause, "strerror", None) or str(cause)


def _urlOf(host: Any, scheme: str) -> str:
    """An address as people write it."""
    if isinstance(host, UNIXAddress):
        return f"unix:{os.fsdecode(host.name or b'')}:"
    name = "localhost" if host.host in ("0.0.0.0", "::") else host.host
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{host.port}"
