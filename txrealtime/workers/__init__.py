"""
All cores of one machine behind one port: a supervisor and its workers.

:mod:`~txrealtime.workers.supervisor` holds the ports and keeps the workers running, and
:mod:`~txrealtime.workers.hub` is their bus.  In each worker,
:mod:`~txrealtime.workers.worker` speaks with the supervisor, :mod:`~txrealtime.workers.handoff` passes a new
connection to the worker that has its session, and :mod:`~txrealtime.workers.relay` and
:mod:`~txrealtime.workers.tunnel` carry what cannot be passed.
"""
