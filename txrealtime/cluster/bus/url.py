"""
The choice of a bus by URL.
"""

from __future__ import annotations

from collections.abc import Collection

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.interfaces import IBus
from txrealtime.cluster.bus.spread import Buses, Spread, splitBuses

__all__ = ["busFromURL", "busesFromURL"]


def busFromURL(url: str, *, fanout: Collection[str] = ()) -> IBus:
    """
    Return the bus at a URL, not connected yet.

    ``redis://[user:password@]host[:port][/db]``
        Redis; ``rediss://`` over TLS, ``redis+unix://[user:password@]/path/of/socket`` without TCP.
    ``redis+sentinel://[user:password@]host[:port][,host[:port]...][/db]/service``
        The master of a service that Redis Sentinel watches.
    ``redis+streams://...``, ``rediss+streams://...``, ``redis+sentinel+streams://...`` and so on
        The same Redis, with a stream that keeps the messages in place of its pub/sub: see
        :mod:`~txrealtime.cluster.bus.redisstreams`.  ``?maxlen=10000`` is the number of messages that it
        keeps, ``?stream=`` its name.  The dialect ``node-streams`` adds ``?entries=node`` and ``?streams=``.
    ``amqp://[user:password@]host[:port][/vhost]``
        RabbitMQ; ``amqps://`` over TLS.
    ``unix:/path/of/socket``
        The hub of this machine: :class:`~txrealtime.workers.hub.Hub`.

    With TLS, ``?ssl_ca_certs=FILE`` names the authorities to trust instead of the system's;
    ``ssl_certfile`` and ``ssl_keyfile`` name a client certificate to show to the broker.

    :param fanout: topics that are fanout exchanges of their own name, if the broker is RabbitMQ; all
        others are routing keys of one exchange.
    :raises ValueError: if the URL is broken, or the broker's library is not installed.
    """
    address = Address.fromURL(url)
    if address.scheme == "unix":
        from txrealtime.cluster.bus.local import LocalBus

        return LocalBus(address)
    try:
        if address.isNode:
            from txrealtime.cluster.bus.nodestreams import NodeStreamsBus

            return NodeStreamsBus(address)
        if address.isStreams:
            from txrealtime.cluster.bus.redisstreams import RedisStreamsBus

            return RedisStreamsBus(address)
        if address.scheme.startswith("redis"):
            from txrealtime.cluster.bus.redis import RedisBus

            return RedisBus(address)
        from txrealtime.cluster.bus.amqp import AMQPBus

        return AMQPBus(address, fanout)
    except ImportError as error:
        extra = "amqp" if address.scheme.startswith("amqp") else "redis"
        raise ValueError(
            f"{address.scheme}:// needs a library that is not installed ({error}): "
            f"pip install txrealtime[{extra}]"
        ) from error


def busesFromURL(url: str, spread: Spread | None, *, fanout: Collection[str] = ()) -> IBus | Buses:
    """
    Return the bus at a URL, or the buses at a list of URLs with commas between them.

    :param spread: the owners of topics, if there are several buses: see
        :class:`~txrealtime.cluster.dialects.choice.DialectChoice`.
    :raises ValueError: if a URL is broken, or the library of Redis is not installed.
    """
    if spread is None:
        return busFromURL(url, fanout=fanout)
    return Buses(spread, [busFromURL(each) for each in splitBuses(url)])
