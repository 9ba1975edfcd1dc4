"""A stand-in for Flask-SocketIO: txrealtime.flask under its name, for applications that import it."""

import sys

import txrealtime.flask

sys.modules[__name__] = txrealtime.flask
