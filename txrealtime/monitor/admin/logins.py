"""
Logins to the admin UI: their rate, the check in a thread, and the sessions that spare the next password.

The UI keeps the id of a session in the browser and shows it when the page is loaded again.  With several
servers that may be on another one, which asks its peers.
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from txrealtime.engineio.limits import networkOf
from txrealtime.errors import ConnectionRejected
from txrealtime.logs import Logger
from txrealtime.monitor.admin.passwords import Passwords

__all__ = ["LIFETIME", "Attempts", "Logins", "Sessions"]

_log = Logger()

LIFETIME: Final = 86400.0
"""Seconds from a login to the end of its session."""

_WINDOW: Final = 60.0
_MOST_FAILURES: Final = 10
"""Failed logins from one network within a window."""

_MOST_NETWORKS: Final = 10_000
_MOST_SESSIONS: Final = 10_000
_MOST_CHECKS: Final = 4
"""Passwords that are checked or wait for their check: 32 MB each."""


class Attempts:
    """
    The failures of late, by the client's network: wrong passwords, or unknown sessions.

    :param seconds: the clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # The latest network last: network -> the window's begin, the failures in it.
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def begin(self, address: str) -> None:
        """
        Count an attempt, which is a failure until :meth:`succeeded`.

        :raises ConnectionRejected: if there were too many.
        """
        since, count = self.add(networkOf(address))
        if count >= _MOST_FAILURES:
            wait = math.ceil(since + _WINDOW - self._seconds())
            raise ConnectionRejected(f"too many failed logins from this address: try again in {wait} s")

    def add(self, network: str) -> tuple[float, int]:
        """Count a failure, and return the begin of the network's window and the failures before."""
        now = self._seconds()
        since, count = self._failures.pop(network, (now, 0))
        if now - since >= _WINDOW:
            since, count = now, 0
        self._failures[network] = since, min(count + 1, _MOST_FAILURES)
        while len(self._failures) > _MOST_NETWORKS:
            self._failures.popitem(last=False)
        return since, count

    def succeeded(self, address: str) -> None:
        """Take an attempt back that was no failure."""
        network = networkOf(address)
        since, count = self._failures.get(network, (0.0, 0))
        if count > 1:
            self._failures[network] = since, count - 1
        else:
            self._failures.pop(network, None)


class Sessions:
    """
    The sessions of logins on this server, each until its time.

    Only digests of the ids are kept, and only these go to peer servers.

    :param seconds: the clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._ends: OrderedDict[str, float] = OrderedDict()

    @staticmethod
    def digest(id: str) -> str:
        """Return the digest of a session's id."""
        return sha256(id.encode("utf-8", "surrogatepass")).hexdigest()

    def make(self) -> str:
        """Make a session, and return its id."""
        id = secrets.token_urlsafe(24)
        self.keep(self.digest(id), LIFETIME)
        return id

    def keep(self, digest: str, left: float) -> None:
        """Keep a session for some seconds, unless it is kept for longer."""
        if left <= 0:
            return
        now = self._seconds()
        self._ends[digest] = max(now + min(left, LIFETIME), self._ends.get(digest, 0.0))
        while len(self._ends) > _MOST_SESSIONS or next(iter(self._ends.values())) <= now:
            self._ends.popitem(last=False)

    def left(self, digest: str) -> float:
        """Return the seconds that a session has left; 0 if there is none."""
        return max(0.0, self._ends.get(digest, 0.0) - self._seconds())


class Logins:
    """
    The decision on who may use the admin UI.

    :param passwords: the users, or ``None`` to let everybody in.
    :param seconds: the clock.
    :param inThread: calls a function in a thread, and returns a Deferred of its result.
    :param askPeers: called with the digest of an unknown session; returns the seconds that it has left by
        the account of peer servers.
    :param tellPeers: called with the network of a client whose login failed: with many servers or workers, a
        client would have as many times the attempts.
    :ivar attempts: the wrong passwords of late, here and on peer servers.
    :ivar unknown: the sessions of late that neither this server knew nor its peers.  They are counted apart,
        since nobody guesses the id of a session: the count only spares the peers questions.
    :ivar sessions: the sessions of this server.
    """

    def __init__(
        self,
        passwords: Passwords | None,
        seconds: Callable[[], float],
        inThread: Callable[..., Deferred[Any]],
        askPeers: Callable[[str], Awaitable[float]],
        tellPeers: Callable[[str], None],
    ) -> None:
        self._passwords = passwords
        self._inThread = inThread
        self._askPeers = askPeers
        self._tellPeers = tellPeers
        self.attempts = Attempts(seconds)
        self.unknown = Attempts(seconds)
        self._checks = 0
        self.sessions = Sessions(seconds)

    async def admit(self, address: str, auth: Any) -> tuple[str | None, float]:
        """
        Admit a client of the admin namespace.

        A session opens the door also while passwords from the same network are refused: one user's mistakes,
        or an attack, must not lock out those who have logged in.

        :param auth: the client's: ``username`` and ``password``, or ``sessionId``.
        :return: the id of a new session after a login by password, else ``None``; and the seconds for which
            the client may stay.
        :raises ConnectionRejected: if the client is refused.
        """
        if self._passwords is None:
            return None, float("inf")
        given = auth if isinstance(auth, dict) else {}
        id, name, password = (given.get(field) for field in ("sessionId", "username", "password"))
        if "sessionId" in given and id is None and name is None:
            # The page of the UI, before it has asked for a password: without a message it shows its form.
            raise ConnectionRejected("")
        if isinstance(id, str) and id:
            left = await self._leftOf(id, address)
            if left:
                return None, left
        if isinstance(name, str) and isinstance(password, str):
            if await self._check(address, name, password):
                _log.info("admin: {name!r} has logged in from {address}", name=name[:100], address=address)
                return self.sessions.make(), LIFETIME
            self._tellPeers(networkOf(address))
        _log.limited("", LogLevel.warn, "admin: a login from {address} failed", address=address)
        # The UI translates this text.
        raise ConnectionRejected("invalid credentials")

    async def _leftOf(self, id: str, address: str) -> float:
        """
        Return the seconds that a session has left, on this server or on a peer.

        :raises ConnectionRejected: if this server does not know the session, and many others of the client's
            network were unknown.
        """
        digest = Sessions.digest(id)
        left = self.sessions.left(digest)
        if not left:
            self.unknown.begin(address)
            left = await self._askPeers(digest)
            if left:
                self.unknown.succeeded(address)
                self.sessions.keep(digest, left)
        return left

    async def _check(self, address: str, name: str, password: str) -> bool:
        """
        Check a password in a thread.

        :raises ConnectionRejected: if the client's network has failed too often, or too many passwords wait
            for their check.
        """
        assert self._passwords is not None
        if self._checks >= _MOST_CHECKS:
            # Before the attempt is counted: no password has been tried.
            raise ConnectionRejected("too many logins at a time: try again in a few seconds")
        self.attempts.begin(address)
        self._checks += 1
        # Not the thread's own Deferred, which ends when the client leaves, while the thread goes on.
        checked: Deferred[bool] = Deferred()

        def ended(result: Any) -> None:
            self._checks -= 1
            if not checked.called:
                checked.callback(result)

        self._inThread(self._passwords.check, name, password).addBoth(ended)
        isRight = await checked
        if isRight:
            self.attempts.succeeded(address)
        return isRight
