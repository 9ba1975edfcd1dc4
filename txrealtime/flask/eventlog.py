"""
Logs of events and packets, for the options ``logger`` and ``engineio_logger``.

The logs name events, clients and sizes.  They have no payloads, which may be secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from zope.interface import implementer

from txrealtime.engineio import packet as engineio
from txrealtime.engineio.session import CloseReason, IReceiver, Session
from txrealtime.socketio.packet import Packet, PacketType

__all__ = ["LoggedReceiver", "encodeAndLog", "loggerOf"]

_TYPES: Final = {str(kind.value): kind.name for kind in PacketType}


def loggerOf(value: Any, name: str) -> logging.Logger | None:
    """
    Return the logger that an option asks for.

    :param value: ``True`` for one that writes to standard error, unless the application has configured it; a
        logger of the application's; or ``False`` or ``None`` for none.
    :param name: the name of the logger for ``True``.
    """
    if isinstance(value, logging.Logger):
        return value
    if not value:
        return None
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())
    return logger


def encodeAndLog(
    logger: logging.Logger, encode: Callable[[Packet], list[engineio.Packet]], packet: Packet
) -> list[engineio.Packet]:
    """Encode a packet to be sent, and log it once for all its receivers."""
    messages = encode(packet)
    size = sum([len(message.wire) for message in messages])
    logger.info("sending packet %s [%s], %d bytes", packet.type.name, packet.namespace, size)
    return messages


@implementer(IReceiver)
class LoggedReceiver:
    """
    A session's owner behind a log of the packets that arrive.

    :param receiver: the owner.
    """

    def __init__(self, receiver: IReceiver, session: Session, logger: logging.Logger) -> None:
        self._receiver = receiver
        self._label = session.label
        self._logger = logger

    def messageReceived(self, data: str | bytes) -> None:
        kind = "attachment" if isinstance(data, bytes) else _TYPES.get(data[:1], "unknown")
        self._logger.info("%s: received packet %s, length %d", self._label, kind, len(data))
        self._receiver.messageReceived(data)

    def sessionClosed(self, reason: CloseReason) -> None:
        self._logger.info("%s: closed, %s", self._label, reason.value)
        self._receiver.sessionClosed(reason)
