"""
Publishing that blocks, without a reactor: for :class:`~txrealtime.cluster.emitter.Emitter`.

The only importer of redis-py.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from txrealtime.cluster.bus.address import Address
from txrealtime.errors import BusError

__all__ = ["BlockingPublisher", "publisherFromURL"]


class BlockingPublisher(Protocol):
    """A connection to a broker, made when it is needed."""

    def publish(self, topic: str, payload: bytes) -> None:
        """
        Publish a message, at most once.

        :raises BusError: when the broker has not taken it.
        """

    def close(self) -> None:
        """Disconnect, until the next message."""


def publisherFromURL(url: str, fanout: Collection[str], timeout: float) -> BlockingPublisher:
    """
    What publishes to the bus at a URL: see :func:`~txrealtime.cluster.bus.url.busFromURL`.

    :param fanout: as there.
    :param timeout: seconds that the broker has to answer.
    :raises ValueError: when what it takes is not installed.
    """
    address = Address.fromURL(url)
    extra = "amqp" if address.scheme.startswith("amqp") else "emitter"
    try:
        if extra == "amqp":
            from txrealtime.cluster.bus.amqpblocking import BlockingAMQP

            return BlockingAMQP(address, fanout, timeout)
        return _Redis(address, url, timeout)
    except ImportError as error:
        raise ValueError(
            f"{address.scheme}:// needs what is not installed ({error}): pip install txrealtime[{extra}]"
        ) from error


class _Redis:
    """redis-py has a pool of connections, for threads and for forked processes."""

    def __init__(self, address: Address, url: str, timeout: float) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._name = address.name
        self._redis: Any = redis
        # It would send again what may have arrived: nobody may get a message twice.
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        ours = {**options, "redis_connect_func": self._connected}
        if address.scheme == "rediss":
            ours["ssl_check_hostname"] = True  # which is not the default of version 5
        if address.scheme == "redis+sentinel":
            self._client = self._ofSentinel(address, options, ours)
        else:
            self._client = redis.Redis.from_url(url.replace("redis+unix://", "unix://", 1), **ours)

    @staticmethod
    def _ofSentinel(address: Address, theirs: dict[str, Any], ours: dict[str, Any]) -> Any:
        from redis.sentinel import Sentinel

        sentinels: Any = Sentinel(address.hosts, sentinel_kwargs=theirs)  # type: ignore[no-untyped-call]
        login = {"username": address.user, "password": address.password}
        return sentinels.master_for(address.service, db=address.database, **login, **ours)

    def _connected(self, connection: Any) -> None:
        """Refuse a replica, which passes on what is published to its own clients only."""
        connection.on_connect()
        connection.send_command("ROLE")
        try:
            role = connection.read_response()
        except self._redis.ResponseError:
            return  # one that does not tell is taken for a master
        if role[0] == b"slave":
            raise self._redis.ConnectionError("it is a read-only replica: connect to the master")

    def publish(self, topic: str, payload: bytes) -> None:
        try:
            self._client.publish(topic.encode("utf-8", "surrogatepass"), payload)
        except self._redis.RedisError as error:
            raise BusError(f"{self._name} has not taken the message: {error}") from None

    def close(self) -> None:
        self._client.close()
