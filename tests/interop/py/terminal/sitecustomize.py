"""Make Flask-SocketIO believe in a terminal: without one, it refuses to run Werkzeug's server."""

import sys

if sys.stdin is not None:
    sys.stdin.isatty = lambda: True
