"""
txrealtime side by side with its peers: ``scripts/benchmark``.

=============  ===============================================================
`peers`        the servers, as data: how each is started
`install`      the environments that they run in, made once in ``.venv``
`machine`      cores, clocks and limits of this computer
`frames`       WebSocket frames, as a client sends and a server answers them
`load`         the loop and the connections of the load generator
`websocket`    its WebSocket clients: those that ask, those that listen
`polling`      its long polling clients
`workloads`    what is asked of every server, and what is measured
`workers`      all cores: ``python -m benchmarks.workers``
`report`       medians and ratios, as tables; `chart` draws them
=============  ===============================================================

Only the standard library is needed here; what the servers and the charts need is in ``.venv``.
"""
