"""
See inside a running server.
"""
