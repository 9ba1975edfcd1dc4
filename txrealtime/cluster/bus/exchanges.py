"""
How topics go by a broker of AMQP 0-9-1.

A topic is a routing key of one direct exchange, so the broker sends a server what it has subscribed to and
nothing else, and topics come and go without being declared.  Where others share a topic, it is a fanout
exchange of its name, as kombu has them.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256

__all__ = ["EXCHANGE", "HEARTBEAT", "route"]

EXCHANGE = "txrealtime"
"The direct exchange."

HEARTBEAT = 30
"Seconds after which broker and client each see that the other is gone, if nothing else tells them."


def route(topic: str, fanout: Collection[str]) -> tuple[str, str]:
    """
    The exchange and the routing key of a topic.

    :param fanout: topics that are fanout exchanges.
    """
    if topic in fanout:
        return topic, ""
    name = topic.encode("utf-8", "replace")
    if len(name) > 255:  # a "shortstr", AMQP 0-9-1, section 4.2.5.3
        return EXCHANGE, "sha256:" + sha256(name).hexdigest()
    return EXCHANGE, name.decode()
