"""
All cores of one machine: the hub, which is the bus of the processes on it.
"""
