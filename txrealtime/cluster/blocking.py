"""
Publishing that blocks, without a reactor: for :class:`~txrealtime.cluster.emitter.Emitter`.

The only importer of redis-py.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from txrealtime.cluster.address import Address
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
    What publishes to the bus at a URL: see :func:`~txrealtime.cluster.bus.busFromURL`.

    :param fanout: as there.
    :param timeout: seconds that the broker has to answer.
    :raises ValueError: when what it takes is not installed.
    """
    address = Address.fromURL(url)
    extra = "amqp" if address.scheme.startswith("amqp") else "emitter"
    try:
        if extra == "amqp":
            from txrealtime.cluster.amqpblocking import BlockingAMQP

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
        self._error: Any = redis.RedisError
        # It would send again what may have arrived: nobody may get a message twice.
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        if address.scheme == "redis+sentinel":
            self._client = self._ofSentinel(address, options)
        else:
            self._client = redis.Redis.from_url(url.replace("redis+unix://", "unix://", 1), **options)

    @staticmethod
    def _ofSentinel(address: Address, options: dict[str, Any]) -> Any:
        from redis.sentinel import Sentinel

        database, _, service = f"/{address.path}".rpartition("/")
        sentinels: Any = Sentinel(address.hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        login = {"username": address.user, "password": address.password}
        return sentinels.master_for(service, db=int(database.strip("/") or 0), **login, **options)

    def publish(self, topic: str, payload: bytes) -> None:
        try:
            self._client.publish(topic, payload)
        except self._error as error:
            raise BusError(f"{self._name} has not taken the message: {error}") from None

    def close(self) -> None:
        self._client.close()
