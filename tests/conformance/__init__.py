"""
The cases of the official Engine.IO 4 and Socket.IO 5 protocol suites, over loopback.

The suites are programs in JavaScript; their cases are told here in our own words. Any server can be tried
instead of ours: ``CONFORMANCE_URL=http://127.0.0.1:3000 python -m twisted.trial tests.conformance``.
"""
