"""
Publishers that block, for processes without a reactor: their Protocol, and the choice by URL.

:class:`~txrealtime.cluster.emitter.Emitter` uses one.  :mod:`~txrealtime.cluster.bus.redisblocking`,
:mod:`~txrealtime.cluster.bus.amqpblocking` and :mod:`~txrealtime.cluster.bus.localblocking` are the
publishers, imported when a URL names their broker.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from txrealtime.cluster.bus.address import Address

__all__ = ["BlockingPublisher", "publisherFromURL"]


class BlockingPublisher(Protocol):
    """A publisher that connects when it is first used, and blocks until the broker has taken a message."""

    def publish(self, topic: str, payload: bytes) -> None:
        """
        Publish a message, at most once.

        :raises BusError: if the broker has not taken the message.
        """

    def close(self) -> None:
        """Disconnect.  The next message connects again."""


def publisherFromURL(url: str, fanout: Collection[str], timeout: float) -> BlockingPublisher:
    """
    Return the publisher to the bus at a URL: see :func:`~txrealtime.cluster.bus.url.busFromURL`.

    :param fanout: topics that are fanout exchanges of RabbitMQ.
    :param timeout: seconds that the broker has for each answer.
    :raises ValueError: if the URL is broken, or the broker's library is not installed.
    """
    address = Address.fromURL(url)
    if address.scheme == "unix":
        from txrealtime.cluster.bus.localblocking import BlockingLocal

        return BlockingLocal(address, timeout)
    extra = "amqp" if address.scheme.startswith("amqp") else "emitter"
    try:
        if extra == "amqp":
            from txrealtime.cluster.bus.amqpblocking import BlockingAMQP

            return BlockingAMQP(address, fanout, timeout)
        from txrealtime.cluster.bus.redisblocking import BlockingRedis

        return BlockingRedis(address, url, timeout)
    except ImportError as error:
        raise ValueError(
            f"{address.scheme}:// needs a library that is not installed ({error}): "
            f"pip install txrealtime[{extra}]"
        ) from error
