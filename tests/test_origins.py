"""
Origins: their normal form, the values of the setting, the Origin check, and the headers for pages.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from tests.test_handshake import HOST, read
from txrealtime.engineio.origins import Origins, listedOrigin, normalOrigin
from txrealtime.engineio.settings import Settings
from txrealtime.errors import HandshakeError

NORMAL = {
    "https://example.org": "https://example.org",
    "HTTPS://Example.ORG/": "https://example.org",
    "https://example.org:443": "https://example.org",
    "https://example.org:": "https://example.org",
    "http://example.org:0080": "http://example.org",
    "http://example.org:443": "http://example.org:443",
    # Starscream, in iOS clients, names the scheme of its URL.
    "ws://example.org": "http://example.org",
    "wss://example.org:443": "https://example.org",
    "WSS://example.org:8443": "https://example.org:8443",
    "http://192.0.2.1:8000": "http://192.0.2.1:8000",
    "http://[2001:DB8:0:0::1]:80": "http://[2001:db8::1]",
    "http://my_host:5000": "http://my_host:5000",
    # As browsers send them.
    "https://münchen.example": "https://xn--mnchen-3ya.example",
    "https://MÜNCHEN.example:8443": "https://xn--mnchen-3ya.example:8443",
    "https://例え.テスト": "https://xn--r8jz45g.xn--zckzah",
    "null": "null",
    # Web views and desktop applications.
    "file://": "file://",
    "capacitor://localhost": "capacitor://localhost",
    "ionic://localhost": "ionic://localhost",
    "app://": "app://",
    "app://obsidian.md": "app://obsidian.md",
    "chrome-extension://abcdefgh": "chrome-extension://abcdefgh",
}

NO_ORIGINS = (
    "",
    "*",
    "NULL",
    "example.org",
    "//example.org",
    "https://",
    "https://:443",
    "https://example.org/chat",
    "https://example.org?x",
    "https://example.org#x",
    "https://user@example.org",
    "https://example.org:x",
    "https://example.org:0",
    "https://example.org:65536",
    "https://exa mple.org",
    "https://exa\tmple.org",
    "https://example.org\n",
    "https://[",
    "https://[::1",
    "https://[::1]x",
    "https://[::1%eth0]",
    "https://[1.2.3.4]",
    "https://*.example.org",
    "https://%65xample.org",
    "https://example.org\\@evil.org",
    # Browsers send "xn--strae-oqa.de", and Python's codec gives "strasse.de": another host.
    "https://straße.de",
    "https://" + "ä" * 70 + ".de",
)


class NormalFormTests(SynchronousTestCase):
    def test_origins(self) -> None:
        for origin, normal in NORMAL.items():
            self.assertEqual(normalOrigin(origin), normal, origin)
            self.assertEqual(normalOrigin(normal), normal)
            self.assertEqual(Settings(origins=origin).origins, (normal,))

    def test_noOrigins(self) -> None:
        for text in NO_ORIGINS:
            self.assertRaises(ValueError, normalOrigin, text)

    @given(st.text())
    @example("http://[::]")
    def test_isStable(self, text: str) -> None:
        """A normal form is its own normal form."""
        try:
            normal = normalOrigin(text)
        except ValueError:
            return
        self.assertEqual(normalOrigin(normal), normal)


class SettingTests(SynchronousTestCase):
    def test_wildcards(self) -> None:
        for text, listed in {
            "*": "*",
            "https://*.example.org": "https://*.example.org",
            "WSS://*.Example.org:443/": "https://*.example.org",
            "http://*.localhost:8000": "http://*.localhost:8000",
            "https://*.münchen.example": "https://*.xn--mnchen-3ya.example",
            "app://*.local": "app://*.local",
        }.items():
            self.assertEqual(listedOrigin(text), listed)
            self.assertEqual(listedOrigin(listed), listed)

    def test_neverMatching(self) -> None:
        """A value that no page could match is refused at once, with the reason."""
        for text, reason in {
            "https://*": "expected a form like",
            "https://*.": "expected a form like",
            "https://*example.org": "expected a form like",
            "https://www.*.org": "expected a form like",
            "https://*.*.example.org": "expected a form like",
            "*://example.org": "expected a form like",
            "*.example.org": "expected a form like",
            "http://localhost:*": "expected a form like",
            "http://*.192.0.2.1": "expected a host name after '*.'",
            "http://*.[::1]": "expected a host name after '*.'",
            "file://*.": "expected a host name after '*.'",
            "https://straße.de": "expected the host in its ASCII form, which begins with 'xn--'",
            "https://a.org:99999": "expected a port from 1 to 65535",
            "https://.example.org": "expected a name before each dot",
            "https://*..example.org": "expected a name before each dot",
            "https://a..org:81": "expected a name before each dot",
            "https://.": "expected a name before each dot",
            "http://127.1": "expected an address of four numbers",
            "http://0x7f000001:80": "expected an address of four numbers",
            "http://example.256": "expected an address of four numbers",
            "http://192.0.2.1.:8000": "expected an address of four numbers",
            "https://*.example.1": "expected an address of four numbers",
            "https://a|b.org": "expected a form like",
            "https://<host>": "expected a form like",
        }.items():
            error = self.assertRaises(ValueError, Settings, origins=[text])
            self.assertIn(repr(text), str(error))
            self.assertIn(reason, str(error))

    def test_noOrigins(self) -> None:
        for text in NO_ORIGINS:
            if text not in ("*", "https://*.example.org"):
                self.assertRaises(ValueError, Settings, origins=[text])


class CheckTests(SynchronousTestCase):
    def allows(self, origin: str | None, *origins: str, **options: Any) -> bool:
        headers = {**HOST, **options.pop("headers", {})}
        if origin is not None:
            headers["origin"] = origin
        handshake = read(headers, **options)
        allowed = Origins(Settings(origins=origins).origins)
        try:
            allowed.check(handshake)
        except HandshakeError:
            self.assertFalse(allowed.allow(handshake))
            return False
        self.assertTrue(allowed.allow(handshake))
        return True

    def test_none(self) -> None:
        """Clients other than browsers send no origin."""
        self.assertTrue(self.allows(None))
        self.assertTrue(self.allows(None, "https://a.org"))

    def test_own(self) -> None:
        self.assertTrue(self.allows("http://example.org"))
        self.assertTrue(self.allows("https://example.org", secure=True))
        self.assertTrue(self.allows("http://EXAMPLE.org"))

    def test_ownPort(self) -> None:
        """The port is part of an origin, and may be left out if the scheme implies it."""
        self.assertTrue(self.allows("http://example.org", headers={"host": "example.org:80"}))
        self.assertTrue(self.allows("https://example.org:443", secure=True))
        self.assertTrue(self.allows("http://example.org:8000", headers={"host": "example.org:8000"}))
        self.assertTrue(self.allows("http://[::1]:8000", headers={"host": "[::1]:8000"}))
        self.assertFalse(self.allows("http://example.org:8000"))
        self.assertFalse(self.allows("http://example.org", headers={"host": "example.org:8000"}))

    def test_foreign(self) -> None:
        for origin in (
            "http://evil.org",
            "https://example.org",
            "http://example.org.evil.org",
            "http://sub.example.org",
            "null",
            "",
            "example.org",
            "http://[",
            "http://example.org:x",
            "file://",
        ):
            self.assertFalse(self.allows(origin), origin)
            self.assertFalse(self.allows(origin, "https://a.org"), origin)

    def test_listed(self) -> None:
        origins = ("https://a.org", "http://b.org:8080")
        for origin in (*origins, "https://A.org"):
            self.assertTrue(self.allows(origin, *origins), origin)
        for origin in ("http://a.org", "https://a.org:8443", "http://b.org"):
            self.assertFalse(self.allows(origin, *origins), origin)

    def test_listedPort(self) -> None:
        """A listed port that browsers leave out makes no difference."""
        self.assertTrue(self.allows("https://a.org", "https://a.org:443"))
        self.assertTrue(self.allows("http://a.org", "http://a.org:80"))

    def test_ownBesideTheListed(self) -> None:
        self.assertTrue(self.allows("http://example.org", "https://a.org"))

    def test_any(self) -> None:
        for origin in ("https://a.org", "null", "http://["):
            self.assertTrue(self.allows(origin, "*"))

    def test_null(self) -> None:
        """Sandboxed pages and files send null."""
        self.assertTrue(self.allows("null", "null"))
        self.assertFalse(self.allows("null", "https://a.org"))

    def test_behindAProxy(self) -> None:
        """The page's origin names the proxy's host, which only a trusted proxy may report."""
        headers = {
            "host": "127.0.0.1:8000",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "example.org",
        }
        options = {"headers": headers, "peer": "127.0.0.1"}
        self.assertTrue(self.allows("https://example.org", proxies=("127.0.0.1",), **options))
        self.assertFalse(self.allows("https://example.org", **options))
        self.assertFalse(self.allows("http://127.0.0.1:8000", proxies=("127.0.0.1",), **options))

    def test_webSocketSchemes(self) -> None:
        """A client that names its URL's scheme comes from the server's own origin."""
        self.assertTrue(self.allows("ws://example.org"))
        self.assertTrue(self.allows("wss://example.org", secure=True))
        self.assertTrue(self.allows("ws://example.org:8000", headers={"host": "example.org:8000"}))
        self.assertFalse(self.allows("wss://example.org"))
        self.assertFalse(self.allows("ws://evil.org"))
        self.assertTrue(self.allows("wss://a.org", "https://a.org"))

    def test_wildcard(self) -> None:
        for origin in ("https://a.example.com", "https://a.b.Example.com:443", "wss://x.example.com"):
            self.assertTrue(self.allows(origin, "https://*.example.com"), origin)
        for origin in (
            "https://example.com",
            "https://.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://a.example.com.evil.org",
            "https://evilexample.com",
            "https://evil.org/.example.com",
            "https://evil.org#.example.com",
            "https://*.example.com",
            "null",
        ):
            self.assertFalse(self.allows(origin, "https://*.example.com"), origin)

    def test_hosts(self) -> None:
        """A host in the setting is read as a browser reads it."""
        self.assertTrue(self.allows("https://xn--mnchen-3ya.example", "https://münchen.example"))
        self.assertTrue(self.allows("https://a.xn--mnchen-3ya.example", "https://*.münchen.example"))

    def test_webViews(self) -> None:
        for origin in ("file://", "capacitor://localhost", "app://obsidian.md", "null"):
            self.assertTrue(self.allows(origin, origin))
            self.assertFalse(self.allows(origin))
            self.assertFalse(self.allows(origin, "https://localhost"))

    def test_oddHost(self) -> None:
        """A Host header that is no host makes no page the server's own."""
        for host in ("evil/x", "", "a b", "x@evil.org", "*.example.org"):
            self.assertFalse(self.allows(f"http://{host}", headers={"host": host}))
            self.assertFalse(self.allows("http://evil", headers={"host": host}))
            self.assertTrue(self.allows("https://a.org", "https://a.org", headers={"host": host}))


class RefusalTests(SynchronousTestCase):
    def refusal(self, origin: str, **options: Any) -> str:
        options["headers"] = {**HOST, "origin": origin, **options.get("headers", {})}
        handshake = read(**options)
        origins = Origins(())
        with capturedLogs() as self.events:
            for _ in range(2):
                error = self.assertRaises(HandshakeError, origins.check, handshake)
        self.assertEqual((error.code, error.status), (4, 403))
        self.assertTrue(
            error.message.startswith(
                f"Origin {origin!r} is neither this server's own, {handshake.ownOrigin!r}, "
                "nor listed in the setting origins (twistd realtime --origin)"
            ),
            error.message,
        )
        return error.message

    def assertNoAdvice(self, message: str) -> None:
        self.assertTrue(message.endswith("(twistd realtime --origin)"), message)
        self.assertEqual(self.events, [])

    def test_foreign(self) -> None:
        """A page from elsewhere can only be listed."""
        for origin in ("https://evil.org", "null", "file://", "http://[", "http://example.org:8000"):
            self.assertNoAdvice(self.refusal(origin))

    def test_forwarded(self) -> None:
        """The proxy reports the page's origin, and is not trusted."""
        for headers in (
            {"x-forwarded-proto": "https"},
            {"x-forwarded-proto": "wss, http"},
            {"host": "127.0.0.1:8000", "x-forwarded-proto": "https", "x-forwarded-host": "example.org"},
        ):
            message = self.refusal("https://example.org", headers=headers)
            self.assertIn("set trustedProxies (--trusted-proxy)", message)
            self.assertIn("PROXY protocol, set publicURL (--public-url) to 'https://example.org'", message)

    def test_believed(self) -> None:
        """The advice does not repeat what is set already."""
        headers = {"x-forwarded-proto": "http", "x-forwarded-host": "example.org"}
        message = self.refusal("https://evil.org", headers=headers, proxies=("192.0.2.7",))
        self.assertNoAdvice(message)

    def test_endsBelow(self) -> None:
        """TLS ends before the server, and no header tells."""
        message = self.refusal("https://example.org")
        self.assertIn("set publicURL (--public-url) to 'https://example.org'", message)
        self.assertNotIn("trustedProxies", message)

    def test_warnsOnce(self) -> None:
        """A refusal that a setting would cure is logged at level warn, once."""
        message = self.refusal("https://example.org")
        (event,) = self.events
        self.assertEqual(event["log_level"].name, "warn")
        self.assertIn(message, str(formatEvent(event)))
