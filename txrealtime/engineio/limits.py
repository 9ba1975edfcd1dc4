"""
Limits on the number of clients, and on the rate at which one client is read.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Protocol

from twisted.logger import LogLevel
from zope.interface import implementer

from txrealtime.engineio.interfaces import CloseReason, IReceiver, Pauser
from txrealtime.engineio.session import Session
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.timers import Timer, Timers
from txrealtime.logs import Logger

__all__ = ["Elsewhere", "Tally", "Throttle", "networkOf"]

_log = Logger()


@lru_cache(maxsize=1024)
def networkOf(address: str) -> str:
    """
    Return the network that counts as one client: an IPv4 address, or the /64 network of an IPv6 host.

    Text that is no address, such as ``unix``, is returned as it is.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Network((ip.packed[:8] + bytes(8), 64)))


class Elsewhere(Protocol):
    """The counts of other processes with which a :class:`Tally` shares its limits."""

    def count(self) -> int:
        """Return the count of the others in all."""

    def countOf(self, network: str) -> int:
        """Return the count of the others for one network."""

    def note(self, count: int) -> None:
        """Tell the others this process's count in all."""

    def noteOf(self, network: str, count: int) -> None:
        """Tell the others this process's count for one network."""


class Tally:
    """
    A count of connections or sessions, in all and for each address, with limits.

    :param what: a name for the log, in the plural.
    :param inAll: the limit in all; 0 for none.
    :param perAddress: the limit for one address; 0 for none.
    :ivar elsewhere: the counts of other processes, which the limits are for as well; ``None`` without any.
    """

    def __init__(self, what: str, inAll: int, perAddress: int) -> None:
        self._what = what
        self._inAll = inAll
        self._perAddress = perAddress
        self._count = 0
        self._byNetwork: Counter[str] = Counter()
        self._told: set[str] = set()
        self.elsewhere: Elsewhere | None = None

    @property
    def counts(self) -> bool:
        """True if there is any limit."""
        return bool(self._inAll or self._perAddress)

    @property
    def atLimit(self) -> bool:
        """True if the limit in all is reached."""
        return 0 < self._inAll <= self.total

    @property
    def total(self) -> int:
        """The present count, with those of other processes."""
        return self._count if self.elsewhere is None else self._count + self.elsewhere.count()

    @property
    def isFull(self) -> bool:
        """True if the limit in all is reached.  Reading this logs a warning, once."""
        full = self.atLimit
        if full:
            self._tell(
                "",
                f"{self.total} {self._what}, as many as maxConnections allows: no more are taken; raise "
                "maxConnections (--max-connections), or add servers",
            )
        return full

    def isFullFor(self, address: str) -> bool:
        """Return whether the limit for an address is reached, and log a warning, once."""
        network = networkOf(address)
        full = 0 < self._perAddress <= self._countOf(network)
        if full:
            self._tell(
                network,
                f"{self._perAddress} {self._what} of {network}, as many as maxConnectionsPerAddress allows: "
                "no more are taken; raise it (--max-connections-per-address); if the address is a proxy's, "
                "set trustedProxies (--trusted-proxy)",
            )
        return full

    def _countOf(self, network: str) -> int:
        count = self._byNetwork[network]
        if self.elsewhere is None or count >= self._perAddress:
            return count
        return count + self.elsewhere.countOf(network)

    def _tell(self, network: str, text: str) -> None:
        """Log a warning, once until there is room again."""
        if network not in self._told:
            self._told.add(network)
            _log.limited(bool(network), LogLevel.warn, "{text}", text=text)

    def add(self, address: str | None) -> None:
        """
        Count one more.

        :param address: its address, or ``None`` to count it for no address.
        """
        self._count += 1
        if self._perAddress and address is not None:
            self._byNetwork[networkOf(address)] += 1
        if self.elsewhere is not None:
            self._note(self.elsewhere, address)

    def remove(self, address: str | None) -> None:
        """Count one less, see :meth:`add`."""
        self._count -= 1
        self._told.discard("")
        if self._perAddress and address is not None:
            network = networkOf(address)
            self._told.discard(network)
            self._byNetwork[network] -= 1
            if not self._byNetwork[network]:
                del self._byNetwork[network]
        if self.elsewhere is not None:
            self._note(self.elsewhere, address)

    def _note(self, elsewhere: Elsewhere, address: str | None) -> None:
        """Tell other processes the counts that have changed."""
        elsewhere.note(self._count)
        if self._perAddress and address is not None:
            network = networkOf(address)
            elsewhere.noteOf(network, self._byNetwork[network])


@implementer(IReceiver)
class Throttle:
    """
    A receiver between a session and its owner that enforces ``maxMessageRate`` and ``maxByteRate``.

    Both are token buckets that hold one second's worth.  Messages that have been read already are delivered,
    so nothing is lost; then reading pauses until the debt is paid.  A burst may exceed the rate by one read,
    and the long-run rate is the one allowed.

    :param receiver: the session's owner.
    """

    def __init__(self, session: Session, receiver: IReceiver, settings: Settings, timers: Timers) -> None:
        self._session = session
        self._receiver = receiver
        self._timers = timers
        now = timers.reactor.seconds()
        self._buckets = [_Bucket(rate, now) for rate in (settings.maxMessageRate, settings.maxByteRate)]
        self._timer: Timer | None = None

    def messageReceived(self, data: str | bytes) -> None:
        now = self._timers.reactor.seconds()
        size = len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
        wait = max(bucket.take(taken, now) for bucket, taken in zip(self._buckets, (1, size), strict=True))
        if wait > 0:
            if self._timer is None:
                self._session.pause(Pauser.THROTTLE)
            else:
                self._timer.cancel()
            self._timer = self._timers.callLater(wait, self._readOn)
        self._receiver.messageReceived(data)

    def _readOn(self) -> None:
        self._timer = None
        self._session.resume(Pauser.THROTTLE)

    def sessionClosed(self, reason: CloseReason) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._receiver.sessionClosed(reason)


class _Bucket:
    """A token bucket.  With a rate of 0 the bucket never runs out."""

    __slots__ = ("_level", "_rate", "_time")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._level = float(rate)
        self._time = now

    def take(self, count: int, now: float) -> float:
        """
        Take some tokens, on credit if too few are left.

        :return: seconds until the debt is paid; negative or 0 without a debt.
        """
        rate = self._rate
        if not rate:
            return 0.0
        self._level = min(rate, self._level + (now - self._time) * rate) - count
        self._time = now
        return -self._level / rate
