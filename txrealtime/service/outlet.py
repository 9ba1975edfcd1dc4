"""
The way of a response from a view's thread to its client, one piece at a time.

The thread hands over a piece and waits until the transport has taken it: PEP 3333 has the
application asked for the next piece no earlier, and a client that does not read holds up its
view instead of filling memory.
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

# When it is looked again whether a stream of HTTP/2 has sent its piece, in seconds: at first in each turn.
_TURNS: Final = 8
_SHORTEST: Final = 0.001
_LONGEST: Final = 0.1

_WITHOUT_QUEUES: Final = "over HTTP/2, responses of views wait in memory for slow clients"
_WITHOUT_ABORT: Final = "a client that leaves the end of a response unread keeps its connection"


class Head(Protocol):
    """What stands before the body of a response."""

    def writeTo(self, request: Request) -> None: ...


@implementer(IPushProducer)
class Outlet:
    """
    The response to one request.

    :meth:`send`, :meth:`finish` and :meth:`fail` are for the thread; all else is for the reactor.

    :param timeout: seconds that the client may take for a piece, before it is dropped.
    :param whenOver: called with this when the response is over: finished, or nobody is there to get it.
    :ivar gone: whether it is over.
    """

    def __init__(
        self, reactor: Any, request: Request, timeout: float, whenOver: Callable[[Outlet], object]
    ) -> None:
        self.gone = False
        self._reactor = reactor
        self._request = request
        self._timeout = timeout
        self._whenOver = whenOver
        # The transport tells only of changes, and the answer before may have filled it.
        self._full = bool(getattr(request.channel, "_waitingForTransport", False))
        self._waits = False
        self._rest = b""
        self._taken = Event()
        self._timer: IDelayedCall | None = None
        self._next: IDelayedCall | None = None
        request.registerProducer(self, True)
        request.notifyFinish().addBoth(lambda result: self.abandon())

    # -- in the thread -----------------------------------------------------------------

    def send(self, head: Head | None, data: bytes) -> None:
        """
        Send a piece of the body, and wait until the transport has taken it.

        :param head: goes before the first piece.
        :raises Disconnected: if the client is gone, or goes meanwhile.
        """
        self._taken.clear()
        # Not before: whatever makes it so sets the event as well.
        if not self.gone:
            self._reactor.callFromThread(self._send, head, data)
            self._taken.wait()
        if self.gone:
            raise Disconnected("the client has gone")

    def finish(self, head: Head | None) -> None:
        """
        End the response.

        :param head: what there is of it, if no piece was sent.
        """
        if not self.gone:
            self._reactor.callFromThread(self._finish, head)

    def fail(self) -> None:
        """End a response of which something is missing, so that the client notices."""
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
            self._abort()
            raise

    def _push(self, times: int) -> None:
        """
        Give the transport what it has room for, and let the thread go on when it has taken all.

        :param times: how often in vain.
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

    # A stream of HTTP/2 in twisted.web takes whatever it is given, and tells its producer of the client's
    # window alone.  What is beyond the window has it look in each turn of the reactor whether it may be sent;
    # and the window may be 2 GB, while the connection takes no more.

    def _room(self, wanted: int) -> int:
        """How much the transport may be given."""
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
        """Whether the connection has yet to take what the stream was given."""
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
            self._abort()
            raise
        if not isinstance(channel, HTTPChannel) or channel.persistent:
            return
        if stands(channel, "_abortingCall", without=_WITHOUT_ABORT) and channel._abortingCall is None:
            # It closes when the client has read the rest, for which twisted.web would wait for ever.
            channel._abortingCall = self._reactor.callLater(self._timeout, channel.forceAbortClient)

    def _fail(self) -> None:
        if self.gone:
            return
        channel = self._request.channel
        if isinstance(channel, HTTPChannel):
            # Without the last chunk, or with fewer bytes than Content-Length says.
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
        """Drop the client: its connection, or of HTTP/2 the stream."""
        channel: Any = self._request.channel
        self.abandon()
        if channel is not None:
            stream: Any = channel.transport if isinstance(channel, HTTPChannel) else channel
            # h2 has errors of its own when the connection is closing already.
            with suppress(Exception):
                stream.abortConnection()

    def abandon(self) -> None:
        """Let the thread know that nobody waits for the response."""
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
        """The connection is lost, of which the request tells."""
