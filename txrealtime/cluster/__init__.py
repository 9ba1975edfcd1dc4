"""
Many servers as one: the messages between them, and their way over a message broker.

- :mod:`~txrealtime.cluster.cluster`: the part that users see, and :mod:`~txrealtime.cluster.emitter` for
  processes without clients.
- :mod:`~txrealtime.cluster.conversation`: messages to and from the peer servers.
  :mod:`~txrealtime.cluster.remote` sends what this server's namespaces want,
  :mod:`~txrealtime.cluster.requests` carries out what peer servers want.
- :mod:`~txrealtime.cluster.dialects`: the wire forms of the messages.
- :mod:`~txrealtime.cluster.link`: the watched connection to the broker.
- :mod:`~txrealtime.cluster.bus`: the brokers.
"""
