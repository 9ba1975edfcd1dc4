"""
The options of a server: their names, as an editor sees them, and the types of their values.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable
from dataclasses import fields
from fractions import Fraction
from typing import Any, get_args, get_type_hints

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txrealtime import Server, Settings
from txrealtime.chat import chat
from txrealtime.server import ServerOptions
from txrealtime.socketio.settings import Options
from txrealtime.testing import makeServer

TYPES = get_type_hints(Settings)
NUMBERS = [name for name, kind in TYPES.items() if kind in (int, float)]


class TypedTests(SynchronousTestCase):
    """
    `Server(...)` and its kin, for type checkers and editors.
    """

    def test_optionsAreTheSettings(self) -> None:
        """
        They have the same names in the same order, and types that take at least what the fields have.
        """
        hints = get_type_hints(Options)
        self.assertEqual(list(hints), [field.name for field in fields(Settings)])
        self.assertEqual(Options.__required_keys__, frozenset())
        for name, kind in TYPES.items():
            expected = (str | Iterable[str]) if kind == tuple[str, ...] else kind
            self.assertEqual(hints[name], expected, name)

    def test_signatures(self) -> None:
        for function, options in (
            (Server.__init__, Options),
            (Server.configure, Options),
            (makeServer, ServerOptions),
            (chat.makeServer, ServerOptions),
        ):
            [hint] = get_args(
                get_type_hints(function)["options" if function != chat.makeServer else "settings"]
            )
            self.assertIs(hint, options)

    def test_otherArguments(self) -> None:
        """
        ServerOptions has all keyword arguments of a server but `reactor`.
        """
        arguments = inspect.signature(Server).parameters.keys() - {"reactor", "options"}
        self.assertEqual(ServerOptions.__annotations__.keys() - Options.__annotations__.keys(), arguments)


class UnknownTests(SynchronousTestCase):
    """
    Names that are no options.
    """

    def adviceOn(self, name: str, value: Any = 1) -> str:
        messages = {
            str(self.assertRaises(TypeError, function, **{name: value}))
            for function in (
                Server,
                Server(reactor=Clock()).configure,
                makeServer,
                chat.makeServer,
            )
        }
        self.assertEqual(len(messages), 1)
        [message] = messages
        self.assertIn(f"unknown option {name!r}: ", message)
        return message.partition(": ")[2]

    def test_optionsOfOtherServers(self) -> None:
        for names, advice in {
            "cors_allowed_origins cors corsAllowedOrigins": "origins",
            "max_http_buffer_size maxHttpBufferSize": "maxPayload",
            "ping_interval": "pingInterval (in seconds)",
            "ping_timeout PingTimeout": "pingTimeout (in seconds)",
            "upgrade_timeout": "upgradeTimeout (in seconds)",
            "connect_timeout": "connectTimeout (in seconds)",
            "allow_upgrades": "allowUpgrades",
            "allow_eio3": "allowEIO3",
            "http_compression httpCompression": "compressionThreshold",
            "compression_threshold": "compressionThreshold",
            "per_message_deflate websocket_compression": "perMessageDeflate",
            "adapter client_manager message_queue": "bus",
            "serializer json": "parser",
            "socketio_path resource": "path",
            "allow_request": "allowRequest",
            "connectionStateRecovery connection_state_recovery": "recoveryWindow",
            "async_mode": "reactor",
            "async_handlers": "concurrency",
            "always_connect": "connected()",
            "logger engineio_logger": "twisted.logger",
            "serveClient serve_client": "JavaScript client",
            "namespaces": "server.mount",
            "cleanupEmptyChildNamespaces": "pattern",
            "cors_credentials": "leave it out",
            "monitor_clients": "leave it out",
            "host port": "server.site()",
        }.items():
            for name in names.split():
                self.assertIn(advice, self.adviceOn(name))

    def test_misspelt(self) -> None:
        for name, meant in {
            "pingInterwal": "pingInterval",
            "maxPaylod": "maxPayload",
            "origin": "origins",
            "trusted_proxy": "trustedProxies",
            "buss": "bus",
            "cookies": "cookie",
        }.items():
            self.assertEqual(self.adviceOn(name), f"did you mean {meant}?")

    def test_nothingAlike(self) -> None:
        self.assertEqual(self.adviceOn("xyzzy"), "see txrealtime.Settings for all options")

    def test_adviceIsTrue(self) -> None:
        """
        An option to pass in place of another one is an option.
        """
        from txrealtime.socketio.settings import _FOREIGN

        arguments = {*Options.__annotations__, *inspect.signature(Server).parameters}
        for name, advice in _FOREIGN.items():
            self.assertEqual(name, name.lower().replace("_", ""))
            self.assertNotIn(name, {argument.lower() for argument in arguments})
            if advice.startswith("pass "):
                self.assertIn(advice.split()[1].rstrip(","), arguments)


class ValueTests(SynchronousTestCase):
    """
    Types of values.
    """

    def assertRefused(self, kind: type[Exception], name: str, value: Any, expected: str) -> None:
        for function in (Server, Settings):
            error = self.assertRaises(kind, function, **{name: value})
            self.assertEqual(str(error), f"{name} is {value!r}, expected {expected}")

    def test_numbers(self) -> None:
        for name in NUMBERS:
            for wrong in ("5", b"5", None, [5], True, 1j):
                self.assertRefused(TypeError, name, wrong, "a number")

    def test_notFinite(self) -> None:
        for name in NUMBERS:
            for wrong in (math.inf, -math.inf, math.nan):
                error = self.assertRaises(ValueError, Server, **{name: wrong})
                self.assertIn(f"{name} is {wrong!r}, expected ", str(error))

    def test_wholeNumbers(self) -> None:
        for name in (name for name in NUMBERS if TYPES[name] is int):
            for given in (1e6, Fraction(1_000_000)):
                value = getattr(Settings(**{name: given}), name)
                self.assertEqual(value, 1_000_000)
                self.assertIs(type(value), int)
            self.assertRefused(ValueError, name, 1.5, "a whole number")

    def test_fractions(self) -> None:
        for name in (name for name in NUMBERS if TYPES[name] is float):
            self.assertEqual(getattr(Settings(**{name: 0.5}), name), 0.5)
            self.assertEqual(getattr(Settings(**{name: Fraction(1, 2)}), name), 0.5)
            self.assertEqual(getattr(Settings(**{name: 2}), name), 2)

    def test_truth(self) -> None:
        for name in (name for name, kind in TYPES.items() if kind is bool):
            for wrong in (1, 0, "yes", None, {"threshold": 1024}):
                self.assertRefused(TypeError, name, wrong, "True or False")

    def test_text(self) -> None:
        for wrong in (None, True, {"name": "io"}, b"io"):
            self.assertRefused(TypeError, "cookie", wrong, "a str")

    def test_texts(self) -> None:
        for name in ("transports", "origins", "trustedProxies"):
            for wrong in (None, True, 5, b"websocket", [b"websocket"], [None], {"origin": "*"}):
                self.assertRefused(TypeError, name, wrong, "a str or a list of str")
        settings = Settings(origins=iter(["https://a.org"]))  # type: ignore[arg-type]
        self.assertEqual(settings.origins, ("https://a.org",))

    def test_configure(self) -> None:
        server = Server(reactor=Clock(), maxPayload=1e6)  # type: ignore[arg-type]
        self.assertEqual(repr(server.settings.maxPayload), "1000000")
        self.assertRaises(TypeError, server.configure, pingInterval="5")
        server.configure(pingInterval=5)
        self.assertEqual((server.settings.maxPayload, server.settings.pingInterval), (1_000_000, 5))

    def test_milliseconds(self) -> None:
        """
        A time above an hour warns, at the line that gave it.
        """
        for name in (name for name in NUMBERS if TYPES[name] is float):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                Server(**{name: 25_000}, reactor=Clock())
            [warning] = caught
            self.assertEqual(str(warning.message), f"{name} is 25000: times are in seconds")
            self.assertEqual(warning.filename.rpartition("/")[2], "test_options.py")
        server = Server(reactor=Clock())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            server.configure(pingInterval=25_000)
            # The present value has been warned of.
            server.configure(pingTimeout=5)
        self.assertEqual([warning.filename.rpartition("/")[2] for warning in caught], ["test_options.py"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Server(pingInterval=3600, maxPayload=25_000, reactor=Clock())
        self.assertEqual(caught, [])
