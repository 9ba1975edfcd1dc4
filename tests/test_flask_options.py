"""
The options of ``SocketIO()``.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from flask import Flask
from twisted.internet.task import Clock

from tests.test_flask import FlaskTestCase
from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.errors import HandshakeError
from txrealtime.flask import SocketIO


class OptionTests(FlaskTestCase):
    def test_settings(self) -> None:
        self.make(
            path="/talk",
            ping_interval=(3, 1),
            ping_timeout=4,
            max_http_buffer_size=500,
            cors_allowed_origins="*",
            http_compression=False,
            cookie="io",
            transports="websocket",
            allow_upgrades=False,
            maxBuffered=9,
        )
        settings, server = self.socketio.realtime.settings, self.socketio.realtime
        self.assertEqual((server.path, settings.pingInterval, settings.pingTimeout), ("/talk", 4, 4))
        self.assertEqual((settings.maxPayload, settings.origins), (500, ("*",)))
        self.assertEqual((settings.compressionThreshold, settings.cookie), (0, "io"))
        self.assertEqual((settings.transports, settings.allowUpgrades), (("websocket",), False))
        self.assertEqual(settings.maxBuffered, 9)

    def test_othersAreNamedOnce(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.make(async_mode="gevent", host_id="a", monitor_clients=True)
        (warning,) = caught
        self.assertIn("change nothing: async_mode, host_id, monitor_clients", str(warning.message))
        self.assertEqual(self.socketio.async_mode, "threading")

    def test_cookie(self) -> None:
        """A dictionary gives the name; a warning says that the other attributes are ignored."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.make(cookie={"name": "sid", "httponly": True})
            self.assertEqual(self.socketio.realtime.settings.cookie, "sid")
            self.make(cookie={})
            self.assertEqual(self.socketio.realtime.settings.cookie, "io")
        (warning,) = caught
        self.assertIn("change nothing: cookie (all but its name)", str(warning.message))

    def test_noneForTheDefault(self) -> None:
        settings = self.make(cookie=None, transports=None).realtime.settings
        self.assertEqual((settings.cookie, settings.transports), ("", ("polling", "websocket")))

    def test_compressionThreshold(self) -> None:
        """0 compresses everything."""
        for given, expected in ((0, 1), (10, 10)):
            settings = self.make(compression_threshold=given).realtime.settings
            self.assertEqual(settings.compressionThreshold, expected)
        settings = self.make(compression_threshold=0, http_compression=False).realtime.settings
        self.assertEqual(settings.compressionThreshold, 0)

    def warned(self, **options: Any) -> list[str]:
        """
        Make an application, and return the warnings.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.make(**options)
        return [str(warning.message) for warning in caught]

    def test_unknown(self) -> None:
        """An option that nobody knows is ignored, and named in one warning with the others."""
        (said,) = self.warned(pings=3, debug=False, engineio_options={"a": 1}, async_method="eventlet")
        self.assertIn("change nothing: async_method, debug, engineio_options, pings", said)
        self.assertTrue(self.join().is_connected())

    def test_numbers(self) -> None:
        """Numbers may be floats, or strings, as from the environment."""
        for given in (5e5, "500000", "5e5", 500_000):
            for name in ("max_http_buffer_size", "maxPayload"):
                limit = self.make(**{name: given}).realtime.settings.maxPayload
                self.assertEqual((limit, type(limit)), (500_000, int))
        settings = self.make(
            ping_timeout="60", ping_interval=("25", 5), maxHeaderSize=1e4, compression_threshold="0"
        ).realtime.settings
        self.assertEqual((settings.pingTimeout, settings.pingInterval), (60, 30))
        self.assertEqual((settings.maxHeaderSize, settings.compressionThreshold), (10_000, 1))
        self.assertIs(type(settings.maxHeaderSize), int)
        self.assertEqual(self.make(handler_threads="5").bridge.configuration.threads, 5)
        self.assertEqual(self.make(maxPayload=2**60 + 1).realtime.settings.maxPayload, 2**60 + 1)

    def test_noNumbers(self) -> None:
        for name in ("max_http_buffer_size", "ping_timeout", "ping_interval", "handler_threads", "maxRooms"):
            for value in ("much", float("nan"), float("inf"), None, {1: 2}):
                error = self.assertRaises(ValueError, self.make, **{name: value})
                self.assertIn("expected", str(error))

    def test_origins(self) -> None:
        """An origin that no browser sends matches nothing, and a warning names it."""
        good = "https://example.org"
        for given in ("http://a,http://b", "a.example", "http://localhost:3000/app", re.compile("x"), 3):
            for value in ([given, good], [given], given):
                (said,) = self.warned(cors_allowed_origins=value)
                self.assertIn(repr(given), said)
                kept = self.socketio.realtime.settings.origins
                self.assertEqual(kept, (good,) if value == [given, good] else ())
        for given, kept in (("", ()), ([None], ()), (None, ()), ([], ("*",)), ("*", ("*",)), (good, (good,))):
            self.assertEqual(self.warned(cors_allowed_origins=given), [])
            self.assertEqual(self.socketio.realtime.settings.origins, kept)

    def allows(self, function: Any, origin: str | None) -> int:
        """Return the status of an opening request with an origin that a function decides about."""
        self.make(cors_allowed_origins=function)
        server = self.socketio.realtime
        server.configure(reactor=Clock())
        headers = {"host": "here"} if origin is None else {"host": "here", "origin": origin}
        request = OpeningRequest(
            headers=headers, query={}, url="/socket.io/?EIO=4", address="192.0.2.1", secure=False, host="here"
        )
        try:
            server.engine._admission.origins.check(request)
        except HandshakeError as error:
            self.assertIn("the application's function refuses it", str(error))
            return 403
        return 200

    def test_functionOfOrigins(self) -> None:
        """A function decides in place of a list, by the origin and the environment if it takes one."""
        asked: list[Any] = []

        def both(origin: str, environ: Any) -> bool:
            asked.append((origin, environ["HTTP_HOST"]))
            return origin == "https://good"

        for function in (both, lambda origin: origin == "https://good"):
            self.assertEqual(self.allows(function, "https://good"), 200)
            self.assertEqual(self.allows(function, "https://bad"), 403)
            self.assertEqual(self.allows(function, "http://here"), 403)
            self.assertEqual(self.allows(function, None), 200)
        self.assertEqual(asked, [(f"http{rest}", "here") for rest in ("s://good", "s://bad", "://here")])
        self.assertIs(self.socketio.server.eio.cors_allowed_origins, function)

    def test_transports(self) -> None:
        """A test client uses a transport that is served."""
        for value in ("polling", ["polling"], "websocket", ["websocket", "polling"], None):
            self.make(transports=value)
            self.socketio.on("echo")(lambda text: text)
            self.assertEqual(self.join().emit("echo", "hi", callback=True), "hi")

    def test_functionOfOriginsFails(self) -> None:
        self.assertEqual(self.allows(lambda origin: 1 / 0, "https://good"), 403)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_clientManager(self) -> None:
        """The message queue is in the options, and names what is in place of python-socketio's manager."""
        for app, only in ((Flask(__name__), False), (None, True)):
            socketio = SocketIO(app, message_queue="redis://")
            manager = socketio.server_options["client_manager"]
            self.assertIs(manager.write_only, only)
            error = self.assertRaises(AttributeError, getattr, manager, "redis_url")
            self.assertIn("python-socketio's server does not run here", str(error))
        # The options are read again.
        socketio.init_app(Flask(__name__))
        self.assertFalse(socketio.server_options["client_manager"].write_only)

    def test_noSense(self) -> None:
        self.assertRaises(ValueError, self.make, serializer="pickle")
        self.assertRaises(ValueError, self.make, handler_threads=0)
        self.assertRaises(ValueError, self.make, ping_interval=-1)

    def test_later(self) -> None:
        """Handlers and options from before init_app() count."""
        socketio = SocketIO(ping_timeout=3)
        error = self.assertRaises(RuntimeError, socketio.emit, "x")
        self.assertIn("call init_app(app) first", str(error))
        socketio.on("ask", "/n")(lambda: "answer")
        app = Flask(__name__)
        socketio.init_app(app, ping_interval=2)
        settings = socketio.realtime.settings
        self.assertEqual((settings.pingInterval, settings.pingTimeout), (2, 3))
        client = socketio.test_client(app, namespace="/n")
        self.assertEqual(client.emit("ask", callback=True, namespace="/n"), "answer")

    def test_running(self) -> None:
        """A running server refuses test clients."""
        self.socketio.bridge.server.running = True
        self.assertRaises(RuntimeError, self.join)
