"""
The choice of the worker for each connection.

- A :class:`PeekingPort` looks at the first request line without reading it (``MSG_PEEK``).  If the line names
  the session of another worker, the connection goes there.  If it opens a session, the connection goes to
  the worker with the fewest sessions when this one has more by over a tenth.  Every other is served here.
- An :class:`AffinePort`, for TLS, sees no line: the client's address chooses the worker, so that all
  connections of a client are together.
"""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from txrealtime.engineio.handshake import readQuery
from txrealtime.workers.fleet import Fleet
from txrealtime.workers.handoff import Handed, Handoff
from txrealtime.workers.marks import ownerOf
from txrealtime.workers.sharedport import SharedPort

__all__ = ["AffinePort", "PeekingPort"]

# The bytes of a connection that are looked at.  Official clients send some 100 in the first line.
_PEEKED: Final = 4096

_PEEK: Final = socket.MSG_PEEK | socket.MSG_DONTWAIT

# Seconds between two looks at an unfinished line.  Unread bytes wake the reactor again and again, so a timer
# replaces the reactor's watch.
_AGAIN: Final = 0.02

# Seconds until a connection without a whole line is served here, where the site's limits apply to it.
_PATIENCE: Final = 1.0

# Connections of one port without a whole line; beyond these, each next one is served here at once.
_MOST_OPENERS: Final = 512

_LINE: Final = re.compile(rb"(?:GET|POST|OPTIONS) (/[!-~]*) HTTP/1\.1\r\n")

# A line as official clients send it: nothing is encoded, and one field begins with "sid", a worker's.
_FIELD: Final = rb"(?!sid)[!\"$'-*,-~]*+"
_PLAIN: Final = re.compile(
    rb"(?:GET|POST|OPTIONS) (/[!->@-~]*+)\?(?:%s&)*+sid=[A-Za-z0-9_-]{16}([A-Za-z0-9_-]{4})"
    rb"(?:\.[a-z0-9-]{1,16})?(?:&%s)*+ HTTP/1\.1\r\n" % (_FIELD, _FIELD)
)

_BEGINNINGS: Final = (b"GET /", b"POST /", b"OPTIONS /")


class AffinePort(SharedPort):
    """A shared port whose connections go to the worker that the client's address chooses."""

    def accepted(self, accepted: socket.socket, address: Any) -> bool:
        other = self._fleet.affine(address[0])
        if other is None:
            self.adopt(accepted, address)
        else:
            self.giveLater(other, accepted, address)
        return False


class PeekingPort(SharedPort):
    """
    A shared port whose connections go to the workers that have their sessions.

    Its factory is an :class:`~txrealtime.engineio.http.site.EngineSite`.
    """

    def __init__(
        self, reactor: Any, listening: socket.socket, number: int, site: Any, handoff: Handoff, fleet: Fleet
    ) -> None:
        super().__init__(reactor, listening, number, site, handoff, fleet)
        self._openers: set[_Opener] = set()
        self._isForEngine = lru_cache(maxsize=16)(site.isForEngine)

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those without a whole line go to another worker, if there is one."""
        if self._listens:
            for opener in tuple(self._openers):
                opener.giveAway()
        return super().stopListening()

    def accepted(self, accepted: socket.socket, address: Any) -> bool:
        try:
            data = accepted.recv(_PEEKED, _PEEK)
        except OSError:
            data = b""
        # Nearly every client has sent its first line by now, and needs no opener: 5 us.
        end = data.find(b"\n") + 1
        if not end:
            self._wait(accepted, address)
            return False
        worker, owns = self.workerFor(data[:end])
        if worker is None:
            self.adopt(accepted, address)
        else:
            self.giveLater(worker, accepted, address, owns)
        return owns

    def given(self, handed: Handed, accepted: socket.socket, address: Any, owns: bool) -> None:
        if handed is Handed.BUSY and owns:
            self._wait(accepted, address, busy=True)
        else:
            super().given(handed, accepted, address, owns)

    def _wait(self, accepted: socket.socket, address: Any, busy: bool = False) -> None:
        if len(self._openers) < _MOST_OPENERS:
            _Opener(self._reactor, self, accepted, address).start(busy)
        else:
            self.adopt(accepted, address)

    def workerFor(self, line: bytes) -> tuple[str | None, bool]:
        """
        Choose the worker for a request line.

        :return: the mark of another worker, or ``None`` for this one; and whether the worker has the session.
        """
        plain = _PLAIN.fullmatch(line)
        if plain is not None and self._isForEngine(plain[1]):
            # As below: 1 us instead of 3.
            mark = plain[2].decode()
            return (None if mark == self._fleet.mark else mark), True
        match = _LINE.fullmatch(line)
        if match is None or not self._factory.isForEngine(match[1]):
            return None, False
        sid = readQuery(match[1].decode()).get("sid")
        if sid is None:
            return self._fleet.place(), False
        owner = ownerOf(sid)
        return (None if owner == self._fleet.mark else owner), True

    # -- for openers ---------------------------------------------------------------

    def choose(self, line: bytes, accepted: socket.socket, address: Any, late: bool) -> bool:
        """
        Serve a connection with this request line, or hand it over.

        :param late: serve it here if the owner of its session has no room for it.
        :return: ``False`` if the owner of its session has no room for it at the moment.
        """
        worker, owns = self.workerFor(line)
        if worker is None:
            self.adopt(accepted, address)
            return True
        handed = self.give(worker, accepted)
        if handed is Handed.BUSY and owns and not late:
            return False
        super().given(handed, accepted, address, owns)
        return True

    def another(self) -> str | None:
        """Return the mark of another worker that takes new clients."""
        return self._fleet.another()

    def opened(self, opener: _Opener) -> None:
        """Called when a connection begins to wait for its first line."""
        self._openers.add(opener)

    def ended(self, opener: _Opener) -> None:
        """Called when a connection waits no more."""
        self._openers.discard(opener)


def _mayBegin(data: bytes) -> bool:
    """Return whether bytes may be the beginning of a request for the engine."""
    return any(data.startswith(beginning[: len(data)]) for beginning in _BEGINNINGS)


@implementer(IReadDescriptor)
class _Opener:
    """A connection whose first request line has not been seen."""

    def __init__(self, reactor: Any, port: PeekingPort, accepted: socket.socket, address: Any) -> None:
        self._reactor = reactor
        self._port = port
        self._socket = accepted
        self._address = address
        self._deadline = reactor.seconds() + _PATIENCE
        self._timer: Any = None
        self._watched = False
        self._ended = False

    def start(self, busy: bool) -> None:
        """
        Wait for the line.

        :param busy: the line is there, and the owner of its session has no room for the connection.
        """
        self._port.opened(self)
        if busy:
            self._lookLater()
        else:
            self._look()

    def _look(self) -> None:
        self._stopWaiting()
        # Also at the deadline: while the reactor was busy, the line may have come.
        late = self._reactor.seconds() >= self._deadline
        try:
            data = self._socket.recv(_PEEKED, _PEEK)
        except (BlockingIOError, InterruptedError):
            if late:
                self.serveHere()
            else:
                self._watch()
            return
        except OSError:
            self._end()
            return
        if not data:
            self._end()
            return
        end = data.find(b"\n") + 1
        if end:
            if self._port.choose(data[:end], self._socket, self._address, late):
                self._leave()
            else:
                self._lookLater()
        elif late or len(data) >= _PEEKED or not _mayBegin(data):
            self.serveHere()
        else:
            self._lookLater()

    def _watch(self) -> None:
        """Wait for the first byte."""
        self._watched = True
        self._reactor.addReader(self)
        self._timer = self._reactor.callLater(max(0.0, self._deadline - self._reactor.seconds()), self._look)

    def _lookLater(self) -> None:
        self._timer = self._reactor.callLater(_AGAIN, self._look)

    def _leave(self) -> None:
        self._ended = True
        self._port.ended(self)
        self._stopWaiting()

    def _stopWaiting(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.removeReader(self)
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _end(self) -> None:
        self._leave()
        self._socket.close()

    def giveAway(self) -> None:
        """Give up the wait, and let another worker serve the connection."""
        another = self._port.another()
        if another is not None and self._port.give(another, self._socket) is Handed.TAKEN:
            self._end()
        else:
            self.serveHere()

    def serveHere(self) -> None:
        """Give up the wait, and serve the connection in this worker."""
        self._leave()
        self._port.adopt(self._socket, self._address)

    # -- IReadDescriptor -----------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "opener"

    def doRead(self) -> None:
        self._look()

    def connectionLost(self, reason: Failure) -> None:
        if not self._ended:
            self._end()
