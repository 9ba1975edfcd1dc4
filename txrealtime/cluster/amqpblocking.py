"""
Publishing to RabbitMQ, or another broker of AMQP 0-9-1, without a reactor.

It imports pika without its adapter for Twisted, which would install the default reactor.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from threading import Lock
from typing import Any

from pika import (  # type: ignore[import-untyped]
    BlockingConnection,
    ConnectionParameters,
    PlainCredentials,
    SSLOptions,
)
from pika.exceptions import AMQPError  # type: ignore[import-untyped]

from txrealtime.cluster.address import Address
from txrealtime.cluster.exchanges import EXCHANGE, HEARTBEAT, route
from txrealtime.errors import BusError

__all__ = ["BlockingAMQP"]


class BlockingAMQP:
    """
    A connection that blocks, made when it is needed: see :mod:`~txrealtime.cluster.blocking`.

    :param address: of a scheme that begins with ``amqp``.
    :param fanout: topics that are fanout exchanges.
    :param timeout: seconds that the broker has to answer.
    """

    def __init__(self, address: Address, fanout: Collection[str], timeout: float) -> None:
        self._address = address
        self._fanout = frozenset(fanout)
        self._timeout = timeout
        self._lock = Lock()
        self._process = 0
        self._connection: Any = None
        self._channel: Any = None

    def publish(self, topic: str, payload: bytes) -> None:
        exchange, key = route(topic, self._fanout)
        try:
            with self._lock:
                if not self._isOpen():
                    self._open()
                self._channel.basic_publish(exchange, key, payload)
        except (AMQPError, OSError) as error:
            why = str(error) or type(error).__name__
            raise BusError(f"{self._address.name} has not taken the message: {why}") from None

    def _isOpen(self) -> bool:
        """Whether the connection is ours, and was alive a moment ago: an idle one misses its heartbeats."""
        if self._connection is None or self._process != os.getpid():
            return False
        try:
            self._connection.process_data_events(0)
        except AMQPError:
            return False
        return bool(self._channel.is_open)

    def _open(self) -> None:
        address = self._address
        host, port = address.hosts[0]
        tls = SSLOptions(address.clientContext(), host) if address.scheme == "amqps" else None
        self._connection = BlockingConnection(
            ConnectionParameters(
                host,
                port,
                address.path or "/",
                PlainCredentials(address.user or "guest", address.password or "guest"),
                heartbeat=HEARTBEAT,
                ssl_options=tls,
                socket_timeout=self._timeout,
                stack_timeout=self._timeout,
                blocked_connection_timeout=self._timeout,
            )
        )
        self._process = os.getpid()
        self._channel = self._connection.channel()
        self._channel.exchange_declare(EXCHANGE, "direct")
        for topic in self._fanout:
            self._channel.exchange_declare(topic, "fanout")
        self._channel.confirm_delivery()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open and self._process == os.getpid():
            connection.close()
