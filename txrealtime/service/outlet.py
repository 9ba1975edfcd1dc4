"""
The response's way from a view's thread to the client, one piece at a time.

The thread hands a piece to the reactor and waits until the transport has taken it.  So a client that does
not read holds up its view instead of filling memory, and the application is asked for the next piece no
earlier than PEP 3333 allows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import implementer

from txrealtime.errors import Disconnected
from txrealtime.foreign import stands

__all__ = ["Head", "Outlet"]

# A stream of HTTP/2 is checked for room in each of the next turns, and then at growing intervals, in seconds.
_TURNS: Final = 8
_SHORTEST: Final = 0.001
_LONGEST: Final = 0.1

_WITHOUT_QUEUES: Final = "over HTTP/2, responses of views wait in memory for slow clients"
_WITHOUT_ABORT: Final = "a client that leaves the end of a response unread keeps its connection"


class Head(Protocol):
    """The status and the headers of a response."""

    def writeTo(self, request: Request) -> None: ...


@implementer(IPushProducer)
class Outlet:
    """
    The response to one request.

    The thread calls :meth:`send`, :meth:`finish` and :meth:`fail`; all other methods are the reactor's.

    :param timeout: the seconds that a client has to take a piece, before it is dropped.
    :param whenOver: called with this object when the response is finished or its client has gone.
    :ivar gone: true from then on.
    """

    def __init__(
        self, reactor: Any, request: Request, timeout: float, whenOver: Callable[[Outlet], object]
    ) -> None:
        self.gone = False
        self._reactor = reactor
        self._request = request
        self._timeout = timeout
        self._whenOver = whenOver
        # The transport reports only changes, and the previous response may have filled it.
        self._full = bool(getattr(request.channel, "_waitingForTransport", False))
        self._waits = False
        self._rest = b""
        self._taken = Event()
        self._timer: IDelayedCall | None = None
        self._next: IDelayedCall | None = None
        request.registerProducer(self, True)
        request.notifyFinish().addCallbacks(lambda _: self.abandon(), lambda _: self._lost())

    # -- in the thread -----------------------------------------------------------------

    def send(self, head: Head | None, data: bytes) -> None:
        """
        Send a piece of the body, and wait until the transport has taken it.

        :param head: status and headers, with the first piece.
        :raises Disconnected: if the client has gone, or goes meanwhile.
        """
        self._taken.clear()
        # Checked after clear(): abandon() sets first this, then the event.
        if not self.gone:
            self._reactor.callFromThread(self._send, head, data)
            self._taken.wait()
        if self.gone:
            raise Disconnected("the client has gone")

    def finish(self, head: Head | None) -> None:
        """
        End the response.

        :param head: status and headers, if no piece was sent.
        """
        if not self.gone:
            self._reactor.callFromThread(self._finish, head)

    def fail(self) -> None:
        """End an incomplete response, so that the client notices."""
        if not self.gone:
            self._reactor.callFromThread(self._fail)

    # -- in the reactor ------------------------------------------------------------------

    def _send(self, head: Head | None, data: bytes) -> None:
        if self.gone:
            return
        try:
            if head is not None:
                head.writeTo(self._request)
            self._rest, self._waits = data, True
            self._push(0)
        except BaseException:
            self._failedToWrite()

    def _push(self, times: int) -> None:
        """
        Give the transport as much as it has room for, and release the thread when it has taken all.

        :param times: the number of vain attempts.
        """
        if not self._waits:
            return
        rest = self._rest
        room = 0 if self._full else self._room(len(rest))
        if room and rest:
            self._rest, times = rest[room:], 0
            self._stopTimers()
            self._request.write(rest[:room])
        if not self._rest and not self._full and not self._backlog():
            self._waits = False
            self._stopTimers()
            self._taken.set()
            return
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._abort)
        if not self._full:
            delay = 0.0 if times < _TURNS else min(_SHORTEST * 2 ** (times - _TURNS), _LONGEST)
            self._next = self._reactor.callLater(delay, self._push, times + 1)

    # twisted.web's stream of HTTP/2 takes any number of bytes, and pauses its producer for the client's
    # window only. With bytes beyond the window it checks for room in each turn of the reactor, at full
    # load. And the window may be 2 GB, while the connection is full.

    def _room(self, wanted: int) -> int:
        """Return the number of bytes that the transport may be given."""
        channel: Any = self._request.channel
        connection = getattr(channel, "_conn", None)
        if connection is None or not stands(
            connection, "_outboundStreamQueues", "conn", without=_WITHOUT_QUEUES
        ):
            return wanted
        queues = connection._outboundStreamQueues.values()
        queued = sum(len(data) for queue in queues for data in queue if isinstance(data, bytes))
        window: int = connection.conn.local_flow_control_window(channel.streamID)
        return max(0, min(wanted, window - queued))

    def _backlog(self) -> bool:
        """Tell if the stream still holds bytes that the connection has not taken."""
        channel: Any = self._request.channel
        connection = getattr(channel, "_conn", None)
        queues = getattr(connection, "_outboundStreamQueues", {})
        return bool(queues.get(channel.streamID)) if queues else False

    def _finish(self, head: Head | None) -> None:
        if self.gone:
            return
        try:
            if head is not None:
                head.writeTo(self._request)
            channel: Any = self._request.channel
            self._request.unregisterProducer()
            self._request.finish()
        except BaseException:
            self._failedToWrite()
            return
        if not isinstance(channel, HTTPChannel) or channel.persistent:
            return
        if stands(channel, "_abortingCall", without=_WITHOUT_ABORT) and channel._abortingCall is None:
            # The connection closes when the client has read the rest; twisted.web would wait without end.
            channel._abortingCall = self._reactor.callLater(self._timeout, channel.forceAbortClient)

    def _failedToWrite(self) -> None:
        """Drop the client after an exception, and raise it again."""
        isHTTP1 = isinstance(self._request.channel, HTTPChannel)
        self._abort()
        # h2 raises errors of its own if the connection is closing, which is nothing to report.
        if isHTTP1:
            raise

    def _fail(self) -> None:
        if self.gone:
            return
        channel = self._request.channel
        if isinstance(channel, HTTPChannel):
            # The client misses the last chunk, or bytes of the Content-Length.
            channel.loseConnection()
            self._timer = self._reactor.callLater(self._timeout, self._abort)
        else:
            self._abort()

    def _stopTimers(self) -> None:
        for timer in (self._timer, self._next):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._next = None

    def _abort(self) -> None:
        """Drop the connection; in HTTP/2, only the stream."""
        channel: Any = self._request.channel
        self.abandon()
        if channel is not None:
            stream: Any = channel.transport if isinstance(channel, HTTPChannel) else channel
            # h2 raises errors of its own if the connection is closing already.
            with suppress(Exception):
                stream.abortConnection()

    def _lost(self) -> None:
        """Called when the client has gone before the end of the response."""
        site = self._request.site
        if self._request.startedWriting and site is not None:
            # twisted.web logs a request at its end only.  Many clients close as soon as they have all bytes.
            site.log(self._request)
        self.abandon()

    def abandon(self) -> None:
        """Give up the response, and release the thread."""
        if not self.gone:
            self.gone, self._waits = True, False
            self._rest = b""
            self._stopTimers()
            self._taken.set()
            self._whenOver(self)

    # -- IPushProducer -------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        following, self._next = self._next, None
        if following is not None and following.active():
            following.cancel()
        self._push(0)

    def stopProducing(self) -> None:
        """Called when the connection is lost, of which the request tells too."""
