"""
Long polling: one GET waits for packets, one POST at a time carries packets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from txrealtime.client.address import Address
from txrealtime.client.interfaces import TransportOwner
from txrealtime.client.requests import Reply, Requests
from txrealtime.engineio.packet import EngineIO4, Packet, PacketType, message
from txrealtime.errors import PacketError, RealtimeError, TransportError

__all__ = ["Polling", "explained"]

_CODEC: Final = EngineIO4()
_CLOSE: Final = Packet(PacketType.CLOSE)
_OK: Final = 200

# Characters of a server's words in an error message.
_MAX_QUOTED: Final = 200


class Polling:
    """
    A transport over HTTP requests.

    :param owner: the session.
    :param requests: sends requests; the transport closes it at its end.
    :param requestTimeout: seconds that a POST may take.
    """

    name: str = "polling"

    def __init__(
        self,
        owner: TransportOwner,
        address: Address,
        requests: Requests,
        reactor: IReactorTime,
        requestTimeout: float,
    ) -> None:
        self.writable = False
        self.deliver: Callable[[str | bytes], None] | None = None
        self._owner: TransportOwner | None = owner
        self._address = address
        self._requests = requests
        self._reactor = reactor
        self._requestTimeout = requestTimeout
        self._sid: str | None = None
        self._isOpen = False
        self._closing = False
        self._reading = True
        self._get: Deferred[Any] | None = None
        self._post: Deferred[Any] | None = None
        self._deadline: IDelayedCall | None = None
        self._paused: Callable[[], None] | None = None
        self._requestsMade = 0

    def open(self, sid: str | None) -> None:
        self._poll()

    def joined(self, sid: str) -> None:
        """Called by the session when the server has given its sid."""
        self._sid = sid
        self._isOpen = True
        self.writable = True

    # -- reading -----------------------------------------------------------------

    def _poll(self) -> None:
        self._get = self._request("GET")
        self._get.addCallbacks(self._answered, self._failed)

    def _request(self, method: str, body: bytes | None = None) -> Deferred[Reply]:
        self._requestsMade += 1
        # The number of the request is a stamp against caches.
        url = self._address.url(self.name, self._sid, f"{id(self):x}{self._requestsMade}")
        return self._requests.request(method, url, body)

    def _answered(self, reply: Reply) -> None:
        self._get = None
        if self._closing:
            return
        if reply.status != _OK:
            self._lost(_refusal(reply))
            return
        try:
            packets = _CODEC.decodePayload(reply.body)
        except PacketError as error:
            self._lost(_oldServer(reply.body) or error)
            return
        for packet in packets:
            if self._owner is None:
                return
            self._owner.packetReceived(self, packet)
        self._next()

    def _next(self) -> None:
        """Send the next GET, unless the transport is paused or has ended."""
        if self._owner is None or not self._isOpen or self._get is not None:
            return
        if self._paused is not None:
            self._whenIdle()
        elif self._reading:
            self._poll()

    def pauseReading(self) -> None:
        self._reading = False

    def resumeReading(self) -> None:
        self._reading = True
        self._next()

    # -- writing -----------------------------------------------------------------

    def send(self, packets: Sequence[Packet]) -> None:
        self.writable = False
        self._post = self._request("POST", _CODEC.encodePayload(packets))
        self._deadline = self._reactor.callLater(self._requestTimeout, self._late)
        self._post.addCallbacks(self._posted, self._failed)

    def sendMessage(self, data: str | bytes) -> None:
        self.send((message(data),))

    def _posted(self, reply: Reply) -> None:
        self._post = None
        self._stopDeadline()
        owner = self._owner
        if owner is None:
            return
        if reply.status != _OK:
            self._lost(_refusal(reply))
            return
        self.writable = True
        owner.transportWritable(self)
        if self._paused is not None:
            self._whenIdle()

    def _late(self) -> None:
        self._deadline = None
        self._lost(
            TransportError(f"a POST was not answered within {self._requestTimeout:g} s (requestTimeout)")
        )

    def _stopDeadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    # -- the upgrade -------------------------------------------------------------

    def pause(self, done: Callable[[], None]) -> None:
        self._paused = done
        self._whenIdle()

    def _whenIdle(self) -> None:
        if self._get is None and self._post is None and self._paused is not None:
            self._paused()

    def resume(self) -> None:
        self._paused = None
        self._next()

    # -- the end -----------------------------------------------------------------

    def close(self) -> None:
        self.writable = False
        self._isOpen = False
        if self._sid is None:
            self._lost(None)
            return
        self._closing = True
        closing = self._post = self._request("POST", _CODEC.encodePayload([_CLOSE]))
        # An error changes nothing: the server ends the session by its own timers.
        closing.addBoth(self._closed)

    def _closed(self, _: object) -> None:
        self._post = None
        get, self._get = self._get, None
        if get is not None:
            # Most servers answer the GET as well; the connection of any other is of no use.
            get.cancel()
        self._requests.close().addBoth(lambda _: self._lost(None))

    def abort(self) -> None:
        self._owner = None
        self.writable = False
        self._paused = None
        self._stopDeadline()
        for request in (self._get, self._post):
            if request is not None:
                request.addErrback(lambda _: None)
                request.cancel()
        self._get = self._post = None
        self._requests.close()

    def _failed(self, failure: Failure) -> None:
        if not self._closing:
            self._lost(explained(failure.value))

    def _lost(self, error: Exception | None) -> None:
        owner = self._owner
        if owner is not None:
            self.abort()
            owner.transportLost(self, error)


def explained(error: BaseException | None) -> Exception:
    """Make one of this package's errors of an error of the network."""
    if isinstance(error, RealtimeError):
        return error
    reasons = [error]
    if isinstance(error, ResponseFailed):
        reasons = [getattr(reason, "value", reason) for reason in error.reasons]
    for reason in reasons:
        if isinstance(reason, RealtimeError):
            return reason
    text = next((str(reason) for reason in reasons if str(reason)), type(error).__name__)
    if isinstance(error, (ConnectError, DNSLookupError)):
        return TransportError(f"cannot connect: {text[:_MAX_QUOTED]}")
    return TransportError(f"the connection failed: {text[:_MAX_QUOTED]}")


def _refusal(reply: Reply) -> TransportError:
    """Make an error of a response that is no payload."""
    words = ""
    try:
        body = json.loads(reply.body)
        words = f": {str(body['message'])[:_MAX_QUOTED]} (code {int(body['code'])})"
    except (ValueError, TypeError, KeyError):
        pass
    if reply.location:
        words = f": it redirects to {reply.location[:_MAX_QUOTED]}; give the client that URL"
    elif reply.status == 404 and not words:
        words = ": there is no Socket.IO at this path (setting path)"
    return TransportError(f"the server answered with status {reply.status}{words}", reply.status)


def _oldServer(body: bytes) -> TransportError | None:
    """Recognize the payload of Engine.IO 3, which begins with the length of a packet."""
    length, colon, packet = body[:16].partition(b":")
    if (colon and length.isdigit() and packet[:1] == b"0") or body[:1] == b"\x00":
        return TransportError(
            "the server speaks Engine.IO 3 (Socket.IO 2 or older); this client needs Socket.IO 3 or newer"
        )
    return None
