"""
Many servers as one: what they say to one another, and what carries it.

:mod:`~txrealtime.cluster.bus.memory` says what a message broker must do, and
:mod:`~txrealtime.cluster.link.link` keeps the connection to one.
"""
