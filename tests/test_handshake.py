"""
The opening request: its fields, and the reports of proxies that it may carry.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import example, given, st
from txrealtime.engineio.handshake import OpeningRequest, proxyFilter, readHandshake
from txrealtime.engineio.origins import Origins
from txrealtime.errors import HandshakeError

HOST = {"host": "example.org"}


def read(
    headers: dict[str, str] | None = None,
    url: str = "/engine.io/?EIO=4&transport=polling",
    peer: str = "192.0.2.7",
    secure: bool = False,
    proxies: tuple[str, ...] = (),
    publicURL: str = "",
) -> OpeningRequest:
    return readHandshake(headers or {}, url, peer, secure, proxyFilter(proxies), publicURL)


class ReadTests(SynchronousTestCase):
    def test_plain(self) -> None:
        handshake = read({"host": "example.org", "user-agent": "x"})
        self.assertEqual(handshake.headers["user-agent"], "x")
        self.assertEqual(handshake.query, {"EIO": "4", "transport": "polling"})
        self.assertEqual(handshake.url, "/engine.io/?EIO=4&transport=polling")
        self.assertEqual((handshake.address, handshake.secure), ("192.0.2.7", False))
        self.assertEqual((handshake.host, handshake.ownOrigin), ("example.org", "http://example.org"))
        self.assertIsNone(handshake.origin)
        self.assertGreater(handshake.time, 1_700_000_000)

    def test_secure(self) -> None:
        self.assertEqual(read(HOST, secure=True).ownOrigin, "https://example.org")

    def test_query(self) -> None:
        """Empty values are kept, and the last of repeated fields counts."""
        handshake = read(url="/x?token=a%20b&empty=&token=c%2Bd&%C3%A9=1")
        self.assertEqual(handshake.query, {"token": "c+d", "empty": "", "é": "1"})

    def test_protocol(self) -> None:
        """A client that names no protocol speaks 3; text that is no number is protocol 0."""
        for version, protocol in (
            ("EIO=4", 4),
            ("EIO=3", 3),
            ("", 3),
            ("EIO=", 0),
            ("EIO=x", 0),
            ("EIO=-4", 0),
            ("EIO=" + "4" * 100, 0),
        ):
            self.assertEqual(read(url="/?" + version).protocol, protocol, version)

    def test_cookies(self) -> None:
        self.assertEqual(read({"cookie": 'a=1; b="x y"'}).cookies, {"a": "1", "b": "x y"})
        self.assertEqual(read().cookies, {})

    def test_oddCookies(self) -> None:
        """A cookie that cannot be read takes no other cookie along."""
        for odd, cookies in (
            ("version=2", {"version": "2"}),
            ('prefs={"x": 1}', {"prefs": '{"x": 1}'}),
            ("a@b=1", {"a@b": "1"}),
            ("n=\xe4; flag; =; ;;", {"n": "\xe4", "": ""}),
            ('quoted="a\\"\\073b"', {"quoted": 'a";b'}),
            ("session=of-a-wider-path", {}),
        ):
            for header in (f"session=abc; {odd}; csrf=x=", f"session=abc;csrf=x=;{odd}"):
                self.assertEqual(
                    read({"cookie": header}).cookies, {"session": "abc", "csrf": "x=", **cookies}
                )

    @given(
        st.text(st.characters(codec="latin-1")),
        st.dictionaries(
            st.sampled_from(
                ["host", "origin", "cookie", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
            ),
            st.one_of(st.text(st.characters(codec="latin-1")), st.sampled_from(["http://[", "127.0.0.1, ,"])),
        ),
        st.sampled_from([(), ("192.0.2.7", "127.0.0.0/8", "unix")]),
    )
    @example("//[/engine.io/?EIO=4", {}, ())
    def test_anythingIsReadOrRefused(
        self, url: str, headers: dict[str, str], proxies: tuple[str, ...]
    ) -> None:
        try:
            handshake = read(headers, url, proxies=proxies)
        except HandshakeError:
            return
        _ = handshake.cookies, handshake.protocol
        try:
            Origins(("https://a.org",)).check(handshake)
        except HandshakeError as error:
            self.assertEqual((error.code, error.status), (4, 403))


class ProxyTests(SynchronousTestCase):
    FORWARDED = {
        "host": "127.0.0.1:8000",
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "example.org",
    }

    def test_trusted(self) -> None:
        handshake = read(self.FORWARDED, peer="127.0.0.1", proxies=("127.0.0.1",))
        self.assertEqual(handshake.address, "203.0.113.9")
        self.assertTrue(handshake.secure)
        self.assertEqual(handshake.ownOrigin, "https://example.org")

    def test_notTrusted(self) -> None:
        """Headers of an untrusted peer change nothing."""
        for peer, proxies in (("127.0.0.1", ()), ("192.0.2.7", ("127.0.0.1",)), ("unix", ("127.0.0.1",))):
            handshake = read(self.FORWARDED, peer=peer, proxies=proxies)
            self.assertEqual((handshake.address, handshake.secure), (peer, False))
            self.assertEqual(handshake.ownOrigin, "http://127.0.0.1:8000")

    def test_silentProxy(self) -> None:
        """A trusted proxy that adds no headers looks like the client."""
        handshake = read(HOST, peer="127.0.0.1", secure=True, proxies=("127.0.0.1",))
        self.assertEqual((handshake.address, handshake.ownOrigin), ("127.0.0.1", "https://example.org"))

    def test_endsTLS(self) -> None:
        headers = {**self.FORWARDED, "x-forwarded-proto": "http"}
        self.assertFalse(read(headers, peer="127.0.0.1", secure=True, proxies=("127.0.0.1",)).secure)

    def test_chain(self) -> None:
        """The client is the last address that is no trusted proxy; anybody can have written the left ones."""
        chain = "1.1.1.1, 203.0.113.9, 10.0.0.2 ,10.0.0.3"
        handshake = read({"x-forwarded-for": chain}, peer="10.0.0.1", proxies=("10.0.0.0/8",))
        self.assertEqual(handshake.address, "203.0.113.9")

    def test_chainOfProxies(self) -> None:
        handshake = read({"x-forwarded-for": "10.0.0.3, 10.0.0.2"}, peer="10.0.0.1", proxies=("10.0.0.0/8",))
        self.assertEqual(handshake.address, "10.0.0.3")

    def test_listsOfAChain(self) -> None:
        """Each proxy may add to the other headers, too, or leave them unchanged."""
        headers = {
            "x-forwarded-for": "1.1.1.1, 203.0.113.9, 10.0.0.2",
            "x-forwarded-proto": "http, https, http",
            "x-forwarded-host": "written.by.anybody, example.org, inner.example.org",
        }
        for proto, host, origin in (
            ("http, https, http", "written.by.anybody, example.org, inner", "https://example.org"),
            ("https,http", "example.org,inner", "https://example.org"),
            ("https", "example.org", "https://example.org"),
        ):
            headers.update({"x-forwarded-proto": proto, "x-forwarded-host": host})
            handshake = read(headers, peer="10.0.0.1", proxies=("10.0.0.0/8",))
            self.assertEqual((handshake.address, handshake.ownOrigin), ("203.0.113.9", origin))

    def test_listsOfOneProxy(self) -> None:
        """Without X-Forwarded-For, the last value of the other headers counts."""
        headers = {"x-forwarded-proto": "http, https", "x-forwarded-host": "anybody, example.org"}
        handshake = read(headers, peer="10.0.0.1", proxies=("10.0.0.1",))
        self.assertEqual(handshake.ownOrigin, "https://example.org")

    def test_ports(self) -> None:
        for hop, address in (
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ):
            for chain in (hop, f"{hop}, 10.0.0.2:80"):
                handshake = read({"x-forwarded-for": chain}, peer="10.0.0.1", proxies=("10.0.0.0/8",))
                self.assertEqual(handshake.address, address)

    def test_noAddress(self) -> None:
        """A hop that is no address is not believed, and neither are the hops to its left."""
        for hop in (
            "unknown",
            "_hidden",
            "localhost",
            "1.1.1.1 2.2.2.2",
            "010.0.0.1",
            "forged \x1b[31m",
            "fe80::1%\x1b[31m",
            "10.0.0.2%eth0",
            "for=1.1.1.1",
        ):
            for left, right, address in (
                ("", "", "10.0.0.1"),
                ("1.1.1.1, ", ",,", "10.0.0.1"),
                ("1.1.1.1, ", ", 10.0.0.2", "10.0.0.2"),
            ):
                headers = {"x-forwarded-for": left + hop + right}
                handshake = read(headers, peer="10.0.0.1", proxies=("10.0.0.0/8", "fe80::/10", "unix"))
                self.assertEqual(handshake.address, address, headers)

    def test_noPeer(self) -> None:
        """Twisted takes any text for the address in a PROXY header."""
        for peer in ("", "evil", "\x1b[31m", "1.2.3", "fe80::1%\x1b"):
            self.assertEqual(
                read(self.FORWARDED, peer=peer, proxies=("0.0.0.0/0", "unix")).address, "unknown"
            )
        for peer in ("192.0.2.7", "2001:db8::1", "fe80::1%eth0", "unix"):
            self.assertEqual(read(peer=peer).address, peer)

    def test_unixInTheChain(self) -> None:
        """nginx behind a UNIX socket reports ``unix:``."""
        headers = {"x-forwarded-for": "203.0.113.9, unix:"}
        self.assertEqual(read(headers, peer="unix", proxies=("unix",)).address, "203.0.113.9")
        self.assertEqual(read(headers, peer="10.0.0.1", proxies=("10.0.0.1",)).address, "unix")

    def test_schemes(self) -> None:
        """Traefik reports the scheme of a WebSocket."""
        for proto, secure in (
            ("https", True),
            ("wss", True),
            ("WSS", True),
            ("http", False),
            ("ws", False),
            ("", False),
            ("httpss", False),
        ):
            handshake = read({"x-forwarded-proto": proto}, peer="127.0.0.1", proxies=("127.0.0.1",))
            self.assertEqual(handshake.secure, secure, proto)

    def test_publicURL(self) -> None:
        """publicURL replaces scheme and host, whatever the request and the proxies say."""
        for proxies in ((), ("127.0.0.1",)):
            for headers in (HOST, {**self.FORWARDED, "x-forwarded-proto": "http"}):
                handshake = read(headers, peer="127.0.0.1", proxies=proxies, publicURL="https://a.org:8443")
                self.assertEqual((handshake.secure, handshake.host), (True, "a.org:8443"))
                self.assertEqual(handshake.ownOrigin, "https://a.org:8443")
        self.assertFalse(read(secure=True, publicURL="http://a.org").secure)

    def test_filter(self) -> None:
        trusts = proxyFilter(("127.0.0.1", "10.0.0.0/8", "2001:db8::/32"))
        for address in ("127.0.0.1", "10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3"):
            self.assertTrue(trusts(address), address)
        for address in ("127.0.0.2", "11.0.0.1", "2001:db9::1", "::ffff:11.0.0.1", "unix", "", "localhost"):
            self.assertFalse(trusts(address), address)

    def test_unix(self) -> None:
        trusts = proxyFilter(("unix",))
        self.assertTrue(trusts("unix"))
        self.assertFalse(trusts("127.0.0.1"))

    def test_hostBits(self) -> None:
        self.assertTrue(proxyFilter(("10.0.0.1/8",))("10.9.9.9"))

    def test_notAnAddress(self) -> None:
        self.assertRaises(ValueError, proxyFilter, ("localhost",))
