"""
A place where a site listens, as a service.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import twisted.logger
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from twisted.web.server import Site
from zope.interface import implementer

from txrealtime.engineio.tcp import lengthenQueue
from txrealtime.foreign import report
from txrealtime.logs import Logger
from txrealtime.service.certificates import Renewable
from txrealtime.service.options import StartupError
from txrealtime.service.proxyheader import PREFIX, ProxiedFactory

__all__ = ["Listener", "addressOf", "announce", "cannotListen", "speaksTLS", "whyNoEndpoint"]

_log = Logger()


class Listener(Service):
    """
    A place where a site listens.

    :param description: the endpoint string, or with `endpoint` a text for the log.
    :param path: the path of Socket.IO, for the log.
    :param serves: the name of what is at the path, for the log.
    :param rootName: the name of the pages at /, for the log; empty for none.
    :param endpoint: an endpoint in place of one from the string.
    :param announce: whether the log tells where the site is served.
    :param opened: called with the address where the site is served, such as ``http://localhost:8000``.
    :param option: the option with the endpoint string, for the error.
    :ivar address: this address; the endpoint string until it is known.
    :raises StartupError: if the string makes no endpoint.
    """

    def __init__(
        self,
        reactor: Any,
        description: str,
        site: Site,
        path: str,
        rootName: str = "",
        endpoint: IStreamServerEndpoint | None = None,
        serves: str = "Socket.IO",
        announce: bool = True,
        opened: Callable[[str], object] | None = None,
        option: str = "--listen",
    ) -> None:
        try:
            below = description.removeprefix(PREFIX)
            self._endpoint = endpoint or Renewable(
                reactor, below, None if below == description else self._proxied
            )
        except Exception as error:
            raise StartupError(f"{option} {description}: {whyNoEndpoint(description, error)}") from None
        self._reactor = reactor
        self._description = description
        self._site = site
        self._path = path
        self._rootName = rootName
        self._serves = serves
        self._announces = announce
        self._tell = opened
        self.address = description
        self._listening: Deferred[IListeningPort | None] | None = None
        self._error: StartupError | None = None

    def _proxied(self, factory: Any) -> ProxiedFactory:
        return ProxiedFactory(self._reactor, factory, self._description)

    def privilegedStartService(self) -> None:
        """
        Listen; twistd gives up the rights of root after this.

        :raises StartupError: if the system refuses, after the log and standard error have been told.
        """
        self._listening = self._endpoint.listen(self._site).addCallbacks(self._opened, self._failed)
        if self._error is not None:
            raise self._error

    def startService(self) -> None:
        if self._listening is None:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Listen no more; open connections stay."""
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        listening.cancel()
        return listening.addCallback(lambda port: port.stopListening() if port else None)

    def renew(self) -> None:
        """Read TLS certificates again, for the connections to come; if that fails the old ones stay."""
        if not isinstance(self._endpoint, Renewable):
            if speaksTLS(self._description):
                _log.warn(
                    "{where}: the program has read the certificates at its start: restart it for new ones",
                    where=self._description,
                )
            return
        if not self._endpoint.hasCertificates:
            return
        try:
            self._endpoint.renew()
        except Exception as error:
            _log.error(
                "{where}: the certificates cannot be read again, and the old ones stay in use: {reason}",
                where=self._description,
                reason=whyNoEndpoint(self._description, error),
            )
        else:
            _log.info("{where}: the certificates have been read again", where=self._description)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        lengthenQueue(port, self._description)
        logger = getattr(port, "_logger", None)
        if isinstance(logger, twisted.logger.Logger):
            shortage = _Shortage(self._reactor, self._description, logger.observer)
            port._logger = twisted.logger.Logger(logger.namespace, observer=shortage)  # type: ignore[attr-defined]
        elif isinstance(port, Port):
            report(port, "_logger", without="a shortage of descriptors is logged at each connection")
        self.address = addressOf(self._description, port)
        if self._tell is not None:
            self._tell(self.address)
        if self._announces:
            announce(self._description, port, self._path, self._rootName, serves=self._serves)
        return port

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._error = cannotListen(self._description, failure.value)
        if self.running:
            # An endpoint that took its time.
            self._reactor.stop()


def cannotListen(where: str, error: object) -> StartupError:
    """Tell the log and standard error that the system refuses a place, and return the error to raise."""
    reason = _whyNotListening(error)
    _log.critical("cannot listen on {where}: {reason}", where=where, reason=reason)
    told = StartupError(f"cannot listen on {where}: {reason}")
    # By now sys.stderr is the log.
    print(told, file=sys.__stderr__)
    told.code = 1
    # A daemon has no standard error: twistd shows the first 98 bytes of this in its place.
    told.args = (f"{reason}: {where}",)
    return told


# Seconds without trouble after which the next trouble is news.
_QUIET: Final = 60.0


@implementer(ILogObserver)
class _Shortage:
    """
    An observer of a port's log, which lets the first of many connections that cannot be accepted through.

    Twisted drops connections for which no file descriptor is left, with a line for each.

    :param where: the place of the port, for the log.
    :param observer: takes all other events of the port.
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
                "{where}: out of file descriptors, so new connections are dropped until some are free: "
                "raise the limit (ulimit -n, LimitNOFILE), or set maxConnections below it",
                where=self._where,
            )
        self._quietSince = now


def announce(
    description: str,
    port: IListeningPort,
    path: str,
    rootName: str,
    rest: str = "",
    serves: str = "Socket.IO",
) -> None:
    """Log where a site is served: see :class:`Listener`."""
    address = addressOf(description, port)
    _log.info(
        "serving {what} at {url}{pages}{rest}",
        what=serves,
        url=f"{address}{path.rstrip('/')}/",
        pages=f", {rootName} at {address}/" if rootName else "",
        rest=rest,
    )


def addressOf(description: str, port: IListeningPort) -> str:
    """Return the address of a port, as people write it."""
    return _urlOf(port.getHost(), "https" if speaksTLS(description) else "http")


def whyNoEndpoint(description: str, error: Exception) -> str:
    """Explain an endpoint string's fault, given Twisted's error on it."""
    if "systemd:" in description and isinstance(error, LookupError):
        return "systemd has passed no such socket"
    if type(error).__module__.startswith("OpenSSL"):
        return "the key or the certificate cannot be read, or they do not fit; expected PEM"
    text = str(error)
    if isinstance(error, TypeError):
        # Such as "_parseTCP() missing 1 required positional argument: 'port'".
        return text.partition("() ")[2] or text
    number = re.fullmatch(r"invalid literal for int\(\) with base (\d+): (.*)", text)
    if number:
        kind = "an octal number" if number[1] == "8" else "a number"
        return f"expected {kind} in place of {number[2]}"
    if "Unknown endpoint type" in text:
        return f"{text}; expected a form like tcp:8000 or ssl:443:privateKey=key.pem:certKey=cert.pem"
    if isinstance(error, LookupError | RuntimeError):
        # The parser's own stumbling, such as "list index out of range".
        return (
            "expected TYPE:ARGUMENTS, such as tcp:8000 or haproxy:tcp:8000; a colon is escaped, as "
            "\\: is, only within an argument"
        )
    return text


def speaksTLS(description: str) -> bool:
    """Tell if an endpoint string, without the wrappers before it, is of TLS."""
    return description.removeprefix(PREFIX).partition(":")[0] in ("ssl", "tls")


def _whyNotListening(error: Any) -> str:
    """Explain the system's refusal of a port."""
    cause = getattr(error, "socketError", error)
    return getattr(cause, "strerror", None) or str(cause)


def _urlOf(host: Any, scheme: str) -> str:
    """Write an address as people do."""
    if isinstance(host, UNIXAddress):
        return f"unix:{os.fsdecode(host.name or b'')}:"
    name = "localhost" if host.host in ("0.0.0.0", "::") else host.host
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{host.port}"
