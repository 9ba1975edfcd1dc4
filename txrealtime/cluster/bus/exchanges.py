"""
The mapping of topics to exchanges and routing keys of AMQP 0-9-1.

A topic is a routing key of one direct exchange.  So the broker sends a server only the topics that it has
subscribed to, and a topic need not be declared.  A topic shared with servers of another make is a fanout
exchange of its own name, as kombu declares it.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256

__all__ = ["EXCHANGE", "HEARTBEAT", "route"]

EXCHANGE = "txrealtime"
"The direct exchange."

HEARTBEAT = 30
"Seconds without a sign of life after which broker and client each close the connection."


def route(topic: str, fanout: Collection[str]) -> tuple[str, str]:
    """
    Return the exchange and the routing key of a topic.

    :param fanout: topics that are fanout exchanges.
    """
    if topic in fanout:
        return topic, ""
    name = topic.encode("utf-8", "replace")
    if len(name) > 255:  # a "shortstr", AMQP 0-9-1, section 4.2.5.3
        return EXCHANGE, "sha256:" + sha256(name).hexdigest()
    return EXCHANGE, name.decode()
