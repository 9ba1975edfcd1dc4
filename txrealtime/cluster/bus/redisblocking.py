"""
Publishing to Redis without a reactor.

The only importer of redis-py.  Its pool of connections serves threads, and notices a fork.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from redis import ConnectionError, Redis, RedisError, ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from txrealtime.cluster.bus.address import STREAM_OPTIONS, STREAMS, Address
from txrealtime.cluster.bus.entries import entriesOf
from txrealtime.errors import BusError

__all__ = ["BlockingRedis"]


class BlockingRedis:
    """
    A publisher to Redis: see :mod:`~txrealtime.cluster.bus.blocking`.

    :param address: of a scheme that begins with ``redis``.
    :param url: the URL of the address.
    :param timeout: seconds to connect in, and seconds that Redis has for each answer.
    """

    def __init__(self, address: Address, url: str, timeout: float) -> None:
        self._name = address.name
        self._entries = entriesOf(address) if address.isStreams else None
        self._most = address.maxLength if address.isStreams else 0
        # No retries: redis-py would repeat a message that may have arrived, and others would get it twice.
        common: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        options = {**common, "redis_connect_func": _connected}
        if address.scheme == "rediss":
            options["ssl_check_hostname"] = True  # not the default of redis-py 5
        if address.scheme == "redis+sentinel":
            self._client = self._ofSentinel(address, common, options)
        else:
            scheme, rest = url.split("://", 1)
            scheme = scheme.removesuffix(STREAMS)
            query = {key: value for key, value in address.options.items() if key not in STREAM_OPTIONS}
            rest = f"{rest.partition('?')[0]}?{urlencode(query)}"
            scheme = "unix" if scheme == "redis+unix" else scheme
            self._client = Redis.from_url(f"{scheme}://{rest}", **options)

    @staticmethod
    def _ofSentinel(address: Address, common: dict[str, Any], options: dict[str, Any]) -> Any:
        sentinels: Any = Sentinel(address.hosts, sentinel_kwargs=common)  # type: ignore[no-untyped-call]
        login = {"username": address.user, "password": address.password}
        return sentinels.master_for(address.service, db=address.database, **login, **options)

    def publish(self, topic: str, payload: bytes) -> None:
        name = topic.encode("utf-8", "surrogatepass")
        try:
            stream = None if self._entries is None else self._entries.streamOf(topic)
            if self._entries is None or stream is None:
                self._client.publish(name, payload)
            else:
                fields = self._entries.write(topic, payload)
                named: Any = dict(zip(fields[::2], fields[1::2], strict=True))
                self._client.xadd(stream, named, maxlen=self._most)
        except RedisError as error:
            raise BusError(f"{self._name} has not taken the message: {error}") from None

    def close(self) -> None:
        self._client.close()


def _connected(connection: Any) -> None:
    """
    Log in, and refuse a replica: it passes on messages to its own clients only.

    :raises ConnectionError: if the server is a replica.
    """
    connection.on_connect()
    connection.send_command("ROLE")
    try:
        role = connection.read_response()
    except ResponseError:
        return  # a server that may not be asked for its role is taken for a master
    if role[0] == b"slave":
        raise ConnectionError("the server is a read-only replica: connect to the master")
