"""
The benchmark of the client: see :mod:`benchmarks.clients.__main__`.
"""
