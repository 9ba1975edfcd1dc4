"""
Every exception that txrealtime raises on purpose::

    RealtimeError
    ├── ProtocolError            a peer broke the protocol; its connection is closed
    │   ├── PacketError          the data received is not a packet
    │   └── PayloadTooLarge      the data received is larger than ``maxPayload``
    ├── TransportError           a client's connection to its server failed
    ├── HandshakeError           a request was refused; carries the protocol's code and the HTTP status
    ├── ConnectionRejected       raised by an application to refuse a client
    ├── ArgumentsMismatch        an event came with more or fewer arguments than its handler takes
    ├── Disconnected             the client has gone, so no ack will come
    ├── LimitExceeded            a client would get more of something than a setting allows
    ├── TryAgain                 an event was not handled; the client should send it again
    ├── AckTimeout               an ack did not come in time; carries those that did
    └── BusError                 other servers cannot be reached, or not in this way

A mistake of the caller (a value that JSON lacks, an unknown option) is a plain
:exc:`TypeError` or :exc:`ValueError`, raised at the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AckTimeout",
    "ArgumentsMismatch",
    "BusError",
    "ConnectionRejected",
    "Disconnected",
    "HandshakeError",
    "LimitExceeded",
    "PacketError",
    "PayloadTooLarge",
    "ProtocolError",
    "RealtimeError",
    "TransportError",
    "TryAgain",
]


class RealtimeError(Exception):
    """The root of everything raised on purpose."""


class ProtocolError(RealtimeError):
    """A peer sent data that its protocol does not allow."""


class PacketError(ProtocolError):
    """The data received cannot be decoded as a packet."""


class PayloadTooLarge(ProtocolError):
    """The data received is larger than the ``maxPayload`` setting."""


class TransportError(RealtimeError):
    """
    A client's connection to its server failed, or could not be made.

    :ivar status: the HTTP status of the server's refusal, or ``None``.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class HandshakeError(RealtimeError):
    """
    An Engine.IO request was refused.

    :ivar code: the protocol's error code, 0 to 5.
    :ivar message: the text that the client gets.
    :ivar status: the HTTP status: 403 for code 4, otherwise 400.
    :ivar reason: one word for counts: ``transport``, ``method``, ``version``, ``origin``, ``stopping``,
        ``full``, ``busy``, ``address``, ``application``, ``sid``, ``size`` and ``head`` for a body or a head
        that is too large, ``disk`` if the disk has no room for a body, or ``request`` for anything else.
    :ivar advice: for the log: the setting to change, or the place to look.
    :ivar retryAfter: seconds for the header Retry-After; 0 for no header.
    """

    def __init__(
        self,
        code: int,
        message: str,
        status: int | None = None,
        *,
        reason: str = "request",
        advice: str = "",
        retryAfter: int = 0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.advice = advice
        self.retryAfter = retryAfter
        self.status = status if status is not None else (403 if code == 4 else 400)


class ConnectionRejected(RealtimeError):
    """
    An application refuses a client: raise this from ``connected``.

    The client's ``connect_error`` handler gets an error with this message and,
    in JavaScript as ``error.data``, with this data.

    :param message: a text for the client.
    :param data: any JSON value for the client, or ``None`` for nothing.
    """

    def __init__(self, message: str = "Connection rejected by server", data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ArgumentsMismatch(RealtimeError):
    """An event's arguments do not fit the signature of its handler, which was not called."""


class Disconnected(RealtimeError):
    """The client has disconnected, so acks from it will not come."""


class LimitExceeded(RealtimeError):
    """A client would get more of something than a setting allows, such as ``maxRooms``."""


class TryAgain(RealtimeError):
    """
    An event was not handled, or the server cannot tell: the client should send it again.

    Unless a handler of errors chooses another ack, the client gets ``{"error": text}``.
    """


class AckTimeout(RealtimeError, TimeoutError):
    """
    An ack did not come in time.

    :ivar answers: the acks that came, in their order.
    :ivar servers: the names of the other servers that have not reported all of their acks.
    """

    def __init__(
        self, message: str = "no answer in time", answers: Sequence[Any] = (), servers: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.answers = list(answers)
        self.servers = list(servers)


class BusError(RealtimeError):
    """The other servers cannot be reached: the link to them is down, or cannot carry this message."""
