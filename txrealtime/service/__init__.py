"""
``twistd realtime``: the options, and the service that is made from them.
"""

from txrealtime.service.listener import Listener
from txrealtime.service.options import Options, StartupError
from txrealtime.service.service import RealtimeService, makeService

__all__ = ["Listener", "Options", "RealtimeService", "StartupError", "makeService"]
