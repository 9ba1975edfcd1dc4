"""
The signs of clients that can recover: opening requests as real clients sent them.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txrealtime.engineio.handshake import readHandshake
from txrealtime.socketio.clients import isKnownToRecover
from txrealtime.socketio.handshake import Handshake

POLLING = "/socket.io/?who=x&EIO=4&transport=polling&t=13vxchlv"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
WS = {"sec-websocket-extensions": "permessage-deflate; client_max_window_bits"}

ABLE = {
    "4.8.4 on Node 20, polling": (POLLING, {"user-agent": "node-XMLHttpRequest", "accept": "*/*"}),
    "4.6.2 on Node 20, polling": (POLLING + "&b64=1", {"user-agent": "node-XMLHttpRequest", "accept": "*/*"}),
    "4.8.4 on Node 20, bun and Deno, WebSocket": (WEBSOCKET, WS),
    "the same with a query": ("/socket.io/?who=x&EIO=4&transport=websocket", WS),
    "Firefox, WebSocket": (
        WEBSOCKET,
        {**WS, "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)", "origin": "http://localhost"},
    ),
    "Chromium, polling": (POLLING, {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}),
    "txrealtime.client": (WEBSOCKET, {"user-agent": "txrealtime/1.0"}),
}

UNABLE = {
    "python-socketio with requests, polling": (
        "/socket.io/?transport=polling&EIO=4&t=1795907776.9743583",
        {"user-agent": "python-requests/2.34.2", "accept-encoding": "gzip, deflate", "accept": "*/*"},
    ),
    "python-socketio with websocket-client": (
        "/socket.io/?transport=websocket&EIO=4&t=1795907777.2278655",
        {"origin": "http://127.0.0.1:18777"},
    ),
    "python-socketio with aiohttp": (
        "/socket.io/?transport=websocket&EIO=4&t=1795907777.881824",
        {"user-agent": "Python/3.11 aiohttp/3.14.5", "accept": "*/*"},
    ),
    "Java, by OkHttp": (WEBSOCKET, {**WS, "user-agent": "okhttp/4.12.0"}),
    "C++": (WEBSOCKET + "&t=1", {"user-agent": "WebSocket++/0.8.2"}),
    "Swift": ("/socket.io/?transport=websocket&EIO=4", {**WS, "origin": "http://localhost"}),
    "a program without any sign": (WEBSOCKET, {}),
    "a program with the order of python-socketio": ("/socket.io/?transport=websocket&EIO=4", WS),
    "a query without EIO": ("/socket.io/?transport=websocket", WS),
    "an agent that mentions a browser": (WEBSOCKET, {"user-agent": "MyClient (like Mozilla/5.0)"}),
}


class SignTests(SynchronousTestCase):
    """
    The opening requests of clients.
    """

    def isKnown(self, url: str, headers: dict[str, str]) -> bool:
        request = readHandshake(
            {"host": "localhost", **headers}, url, "192.0.2.1", False, lambda address: False
        )
        return isKnownToRecover(Handshake(request))

    def test_able(self) -> None:
        for client, (url, headers) in ABLE.items():
            self.assertTrue(self.isKnown(url, headers), client)

    def test_unable(self) -> None:
        for client, (url, headers) in UNABLE.items():
            self.assertFalse(self.isKnown(url, headers), client)
