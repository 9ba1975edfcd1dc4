"""
The engine's settings: their normal forms, and the values refused.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txrealtime.engineio.settings import Settings


class SettingsTests(SynchronousTestCase):
    def refused(self, **settings: Any) -> str:
        return str(self.assertRaises(ValueError, Settings, **settings))

    def test_defaults(self) -> None:
        """Defaults are those of the JavaScript server."""
        settings = Settings()
        self.assertEqual((settings.pingInterval, settings.pingTimeout), (25, 20))
        self.assertEqual((settings.upgradeTimeout, settings.maxPayload), (10, 1_000_000))
        self.assertEqual(settings.transports, ("polling", "websocket"))
        self.assertTrue(settings.allowUpgrades)
        self.assertFalse(settings.perMessageDeflate)
        self.assertEqual((settings.cookie, settings.compressionThreshold), ("", 1024))
        self.assertEqual((settings.origins, settings.trustedProxies), ((), ()))
        self.assertEqual(settings.maxBuffered, 4_000_000)

    def test_eachHasAHelpText(self) -> None:
        for field in fields(Settings):
            self.assertTrue(field.metadata["help"], field.name)

    def test_cannotBeChanged(self) -> None:
        self.assertRaises(FrozenInstanceError, setattr, Settings(), "pingInterval", 1)

    def test_fractions(self) -> None:
        self.assertEqual(Settings(pingInterval=0.3, pingTimeout=0.2).pingInterval, 0.3)

    def test_oneIsAList(self) -> None:
        settings = Settings(transports="websocket", origins="https://a.org", trustedProxies="127.0.0.1")
        self.assertEqual(settings.transports, ("websocket",))
        self.assertEqual(settings.origins, ("https://a.org",))
        self.assertEqual(settings.trustedProxies, ("127.0.0.1",))

    def test_lists(self) -> None:
        self.assertEqual(Settings(transports=["websocket"]).transports, ("websocket",))

    def test_name(self) -> None:
        for name in ("a", "shop-1", "0123456789abcdef"):
            self.assertEqual(Settings(name=name).name, name)
        for name in ("A", "a.b", "a b", "ä", "a\n", "a" * 17, "a/b", "a_b"):
            self.assertIn("expected 1 to 16 characters of a-z, 0-9 and -", self.refused(name=name))

    def test_transports(self) -> None:
        for transports in ((), ("websockets",), ("polling", "webtransport")):
            self.assertIn("expected 'polling', 'websocket' or both", self.refused(transports=transports))

    def test_mustBePositive(self) -> None:
        for name in (
            "pingInterval",
            "pingTimeout",
            "upgradeTimeout",
            "closeTimeout",
            "handshakeTimeout",
            "requestTimeout",
            "maxHeaderSize",
            "maxPayload",
        ):
            for value in (0, -1, float("nan")):
                self.assertEqual(
                    self.refused(**{name: value}), f"{name} is {value!r}, expected a number above 0"
                )

    def test_mustNotBeNegative(self) -> None:
        for name in (
            "maxBuffered",
            "compressionThreshold",
            "maxConnections",
            "maxConnectionsPerAddress",
            "maxFragments",
            "maxMessageRate",
            "maxByteRate",
        ):
            self.assertIn(name, self.refused(**{name: -1}))
            self.assertEqual(getattr(Settings(**{name: 0}), name), 0)

    def test_mustBeFinite(self) -> None:
        """The client receives these times as milliseconds, and JSON has no infinity."""
        for name in ("pingInterval", "pingTimeout"):
            self.assertIn(name, self.refused(**{name: float("inf")}))

    def test_origins(self) -> None:
        """Origins take the form in which browsers send them: in lower case, without a path."""
        settings = Settings(origins=["https://Example.org/", "http://a.org:8080", "*", "null"])
        self.assertEqual(settings.origins, ("https://example.org", "http://a.org:8080", "*", "null"))

    def test_notAnOrigin(self) -> None:
        for origin in ("example.org", "", "https://", "https://a.org/chat", "https://a.org?x", "//a.org"):
            self.assertIn("expected a form like 'https://example.org'", self.refused(origins=[origin]))

    def test_brokenOrigin(self) -> None:
        for origin in ("https://[", "https://a.org:99999", "https://a.org:x"):
            self.refused(origins=[origin])

    def test_publicURL(self) -> None:
        self.assertEqual(Settings().publicURL, "")
        for url in ("https://Example.org", "wss://example.org:443/"):
            self.assertEqual(Settings(publicURL=url).publicURL, "https://example.org")
        self.assertEqual(Settings(publicURL="http://a.org:8000").publicURL, "http://a.org:8000")

    def test_noPublicURL(self) -> None:
        for url in (
            "example.org",
            "null",
            "file://",
            "https://a.org/chat",
            "https://*.a.org",
            "*",
            "app://x",
        ):
            self.assertEqual(
                self.refused(publicURL=url),
                f"publicURL is {url!r}, expected a form like 'https://example.org'",
            )

    def test_proxies(self) -> None:
        settings = Settings(trustedProxies=["127.0.0.1", "10.0.0.0/8", "::1", "unix"])
        self.assertEqual(settings.trustedProxies, ("127.0.0.1", "10.0.0.0/8", "::1", "unix"))

    def test_notAProxy(self) -> None:
        for proxy in ("localhost", "10.0.0.0/33", "all", ""):
            message = self.refused(trustedProxies=[proxy])
            self.assertIn(f"trustedProxies has {proxy!r}, expected an address", message)
