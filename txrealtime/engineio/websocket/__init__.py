"""
The WebSocket transport (RFC 6455): a fast path for plain frames, and Autobahn for everything else.
"""
