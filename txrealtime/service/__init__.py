"""
``twistd realtime``: its options, and the service that they describe.
"""

from txrealtime.service.listener import Listener
from txrealtime.service.options import Options, StartupError
from txrealtime.service.service import RealtimeService, makeService

__all__ = ["Listener", "Options", "RealtimeService", "StartupError", "makeService"]
