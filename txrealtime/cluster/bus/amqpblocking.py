"""
Publishing to RabbitMQ, or another broker of AMQP 0-9-1, without a reactor.

It imports pika without its adapter for Twisted, because that installs the default reactor.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from threading import Lock
from typing import Any, NoReturn

from pika import (  # type: ignore[import-untyped]
    BlockingConnection,
    ConnectionParameters,
    PlainCredentials,
    SSLOptions,
)
from pika.exceptions import AMQPError  # type: ignore[import-untyped]

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.exchanges import EXCHANGE, HEARTBEAT, route
from txrealtime.errors import BusError
from txrealtime.foreign import report

__all__ = ["BlockingAMQP"]


class BlockingAMQP:
    """
    A publisher to a broker of AMQP 0-9-1: see :mod:`~txrealtime.cluster.bus.blocking`.

    :param address: of a scheme that begins with ``amqp``.
    :param fanout: topics that are fanout exchanges.
    :param timeout: seconds that the broker has to accept the connection, and then to confirm each message.
    """

    def __init__(self, address: Address, fanout: Collection[str], timeout: float) -> None:
        self._address = address
        self._fanout = frozenset(fanout)
        self._timeout = timeout
        # By process id: a fork has copies of its parents' connections, with their locks as they were.
        self._publishers: dict[int, _Publisher] = {}

    @property
    def _publisher(self) -> _Publisher:
        process = os.getpid()
        return self._publishers.get(process) or self._publishers.setdefault(
            process, _Publisher(self._address, self._fanout, self._timeout)
        )

    def publish(self, topic: str, payload: bytes) -> None:
        try:
            self._publisher.publish(*route(topic, self._fanout), payload)
        except (AMQPError, OSError) as error:
            why = str(error) or type(error).__name__
            raise BusError(f"{self._address.name} has not taken the message: {why}") from None

    def close(self) -> None:
        self._publisher.close()


class _Publisher:
    """
    The connection of one process, which its threads share.

    Any exception ends the connection, also that of a signal handler in the middle of a frame: the rest of the
    frame could not be sent.
    """

    def __init__(self, address: Address, fanout: Collection[str], timeout: float) -> None:
        self._address = address
        self._fanout = fanout
        self._timeout = timeout
        self._lock = Lock()
        self._connection: Any = None
        self._channel: Any = None

    def publish(self, exchange: str, key: str, payload: bytes) -> None:
        if not self._lock.acquire(timeout=self._timeout):
            _late(self._timeout)
        try:
            if not self._isAlive():
                self._connection = self._connect()
            with _limit(self._connection, self._timeout):
                if self._channel is None:
                    self._channel = self._prepare()
                self._channel.basic_publish(exchange, key, payload)
        except BaseException:
            self._abandon()
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Disconnect.  The broker has all published messages already."""
        with self._lock:
            try:
                if self._isAlive():
                    with _limit(self._connection, self._timeout):
                        self._connection.close()
            except (AMQPError, OSError):
                pass
            finally:
                self._abandon()

    def _isAlive(self) -> bool:
        """Return true if the connection has not ended.  An idle one misses its heartbeats and is closed."""
        try:
            if self._connection is not None:
                self._connection.process_data_events(0)
                if self._channel.is_open:
                    return True
        except AMQPError:
            pass
        self._abandon()
        return False

    def _connect(self) -> Any:
        address = self._address
        host, port = address.hosts[0]
        tls = SSLOptions(address.clientContext(), host) if address.scheme == "amqps" else None
        return BlockingConnection(
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

    def _prepare(self) -> Any:
        channel = self._connection.channel()
        channel.exchange_declare(EXCHANGE, "direct")
        for topic in self._fanout:
            channel.exchange_declare(topic, "fanout")
        channel.confirm_delivery()
        return channel

    def _abandon(self) -> None:
        """Close the socket at once, which pika has no public method for, and forget the connection."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            impl = getattr(connection, "_impl", None)
            sock = getattr(getattr(impl, "_transport", None), "_sock", None)
            if sock is not None:
                sock.close()
            loop = getattr(impl, "ioloop", None)
            if loop is not None:
                loop.close()


@contextlib.contextmanager
def _limit(connection: Any, seconds: float) -> Iterator[None]:
    """
    Raise a TimeoutError if the broker takes longer.

    Pika waits in its loop as long as there are heartbeats.  An exception of a timer leaves that loop.
    """
    loop = getattr(getattr(connection, "_impl", None), "ioloop", None)
    if loop is None:
        report(connection, "_impl", without="publish() waits for the broker without a limit")
        yield
        return
    timer = loop.call_later(seconds, lambda: _late(seconds))
    try:
        yield
    finally:
        loop.remove_timeout(timer)


def _late(seconds: float) -> NoReturn:
    raise TimeoutError(f"no answer within {seconds:g} s")
