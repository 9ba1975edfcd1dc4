"""
Many servers as one: what they say to one another, and what carries it.

:mod:`~txrealtime.cluster.bus` says what a message broker must do, and
:mod:`~txrealtime.cluster.link` keeps the connection to one.
"""
