"""
The way of a response from a view's thread to its client, one piece at a time.

The thread hands over a piece and waits until the transport has taken it: PEP 3333 has the
application asked for the next piece no earlier, and a client that does not read holds up its
view instead of filling memory.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import implementer

from txrealtime.errors import Disconnected

__all__ = ["Head", "Outlet"]

# How often is looked whether a stream of HTTP/2 has sent its piece, in seconds: at first in each turn.
_TURNS: Final = 8
_SHORTEST: Final = 0.001
_LONGEST: Final = 0.1


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
        self._taken = Event()
        self._timer: IDelayedCall | None = None
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
            self._request.write(data)
        except BaseException:
            self._abort()
            raise
        self._waits = True
        if self._full:
            self._startTimer()
        else:
            self._look(0)

    def _look(self, times: int) -> None:
        """Let the thread go on, if nothing of the piece waits for HTTP/2."""
        if self._full or not self._waits:
            return
        if not self._backlog():
            self._goOn()
            return
        self._startTimer()
        delay = 0.0 if times < _TURNS else min(_SHORTEST * 2 ** (times - _TURNS), _LONGEST)
        self._reactor.callLater(delay, self._look, times + 1)

    def _backlog(self) -> bool:
        """
        Whether something waits that the transport has not been given.

        A stream of HTTP/2 in ``twisted.web`` takes whatever the client's window allows, which may be 2 GB,
        and tells nobody when the connection takes no more.
        """
        connection: Any = getattr(self._request.channel, "_conn", None)
        if connection is None:
            return False
        queues: dict[int, Any] = getattr(connection, "_outboundStreamQueues", {})
        return bool(queues.get(self._request.channel.streamID))  # type: ignore[attr-defined]

    def _goOn(self) -> None:
        self._waits = False
        self._stopTimer()
        self._taken.set()

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
        if isinstance(channel, HTTPChannel) and not channel.persistent and channel._abortingCall is None:
            # The connection closes when the client has read the rest, for which twisted.web would wait for ever.
            channel._abortingCall = self._reactor.callLater(self._timeout, channel.forceAbortClient)

    def _fail(self) -> None:
        if self.gone:
            return
        channel = self._request.channel
        if isinstance(channel, HTTPChannel):
            # Without the last chunk, or with fewer bytes than Content-Length says.
            channel.loseConnection()
            self._startTimer()
        else:
            self._abort()

    def _startTimer(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._tooSlow)

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tooSlow(self) -> None:
        self._timer = None
        self._abort()

    def _abort(self) -> None:
        """Drop the client: its connection, or of HTTP/2 the stream."""
        channel: Any = self._request.channel
        self.abandon()
        if channel is not None:
            stream: Any = channel.transport if isinstance(channel, HTTPChannel) else channel
            stream.abortConnection()

    def abandon(self) -> None:
        """Let the thread know that nobody waits for the response."""
        if not self.gone:
            self.gone, self._waits = True, False
            self._stopTimer()
            self._taken.set()
            self._whenOver(self)

    # -- IPushProducer -------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        if self._waits:
            self._look(0)

    def stopProducing(self) -> None:
        """The connection is lost, of which the request tells."""
