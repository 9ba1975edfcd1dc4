"""
The parts of the client by themselves: addresses, settings, cookies, the tunnel through a proxy, frames.
"""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.clientmemory import MemoryEndpoint, World
from txrealtime.client import Client, ClientSettings
from txrealtime.client.address import Address
from txrealtime.client.buffer import Buffer
from txrealtime.client.cookies import Cookies
from txrealtime.client.deadlines import Deadlines
from txrealtime.client.frames import nextMask
from txrealtime.client.polling import explained
from txrealtime.client.session import encodedSize
from txrealtime.client.tunnel import TunnelEndpoint
from txrealtime.client.waiters import Waiters
from txrealtime.engineio.packet import EngineIO4, message
from txrealtime.engineio.websocket.plain import maskedFrame
from txrealtime.errors import TransportError


class AddressTests(SynchronousTestCase):
    def test_urls(self) -> None:
        for url, namespace, shown, http, ws in (
            ("http://h", "/", "http://h", "http://h/socket.io/", "ws://h/socket.io/"),
            ("https://h:443/", "/", "https://h", "https://h/socket.io/", "wss://h/socket.io/"),
            ("ws://h:80/a/b/", "/a/b", "http://h", "http://h/socket.io/", "ws://h/socket.io/"),
            (
                "wss://h:8443/chat",
                "/chat",
                "https://h:8443",
                "https://h:8443/socket.io/",
                "wss://h:8443/socket.io/",
            ),
            (
                "http://[::1]:8000",
                "/",
                "http://[::1]:8000",
                "http://[::1]:8000/socket.io/",
                "ws://[::1]:8000/socket.io/",
            ),
            (
                "http://bücher.example",
                "/",
                "http://xn--bcher-kva.example",
                "http://xn--bcher-kva.example/socket.io/",
                "ws://xn--bcher-kva.example/socket.io/",
            ),
        ):
            address = Address(url, "/socket.io/", {})
            self.assertEqual((address.namespace, str(address)), (namespace, shown))
            self.assertEqual(address.url("polling", None), http + "?EIO=4&transport=polling")
            self.assertEqual(address.url("websocket", "s/"), ws + "?EIO=4&transport=websocket&sid=s%2F")

    def test_query(self) -> None:
        address = Address("http://h/?a=1&b=%26&EIO=3", "/x y/", {"c": "ü"})
        self.assertEqual(
            address.url("polling", "s", "stamp"),
            "http://h/x%20y/?a=1&b=%26&EIO=4&c=%C3%BC&transport=polling&sid=s&t=stamp",
        )

    def test_refused(self) -> None:
        for url in ("localhost:8000", "ftp://h", "http://", "http:///chat", "", "//h"):
            self.assertRaises(ValueError, Address, url, "/", {})
        with self.assertRaises(ValueError) as raised:
            Address("http://user:secret@h", "/", {})
        self.assertNotIn("secret", str(raised.exception))
        with self.assertRaises(ValueError) as raised:
            Address("nonsense?token=secret", "/", {})
        self.assertNotIn("secret", str(raised.exception))
        self.assertRaises(TypeError, Address, None, "/", {})
        self.assertRaises(ValueError, Address, "http://h:99999", "/", {})

    def test_endpoints(self) -> None:
        reactor = MemoryReactorClock()
        plain, secure = Address("http://h", "/", {}), Address("https://h", "/", {})
        self.assertIsInstance(plain.endpoint(reactor, None, None, None), HostnameEndpoint)
        self.assertIsInstance(plain.endpoint(reactor, "unix:/run/x", None, None), UNIXClientEndpoint)
        self.assertIsInstance(plain.endpoint(reactor, None, "http://p:3128", None), TunnelEndpoint)
        mine = HostnameEndpoint(reactor, "other", 1)
        self.assertIs(plain.endpoint(reactor, mine, None, None), mine)
        for each in (mine, "unix:/run/x"):
            self.assertIn("_WrapperEndpoint", type(secure.endpoint(reactor, each, None, None)).__name__)
        self.assertRaises(ValueError, plain.endpoint, reactor, mine, "http://p", None)
        for proxy in ("p:3128", "https://p", "socks5://p"):
            self.assertRaises(ValueError, plain.endpoint, reactor, None, proxy, None)


class SettingsTests(SynchronousTestCase):
    def test_refused(self) -> None:
        for options in (
            {"transports": ()},
            {"transports": ("webtransport",)},
            {"transports": ("polling", "polling")},
            {"timeout": 0},
            {"timeout": float("inf")},
            {"reconnectionDelay": -1},
            {"randomizationFactor": 2},
            {"retries": -1},
            {"reconnectionAttempts": -1},
            {"ackTimeout": 0},
            {"maxPayload": 0},
            {"headers": {"Host": "x"}},
            {"headers": {"x": "a\r\nb: c"}},
        ):
            with self.assertRaises(ValueError) as raised:
                ClientSettings(**options)
            self.assertIn(next(iter(options)), str(raised.exception))
        self.assertRaises(TypeError, Client, "http://h", reactor=Clock(), pingTimeout=5)

    def test_forms(self) -> None:
        self.assertEqual(ClientSettings(transports="websocket").transports, ("websocket",))
        for path, expected in (("socket.io", "/socket.io/"), ("/a/b", "/a/b/"), ("/", "/"), ("", "/")):
            self.assertEqual(ClientSettings(path=path).path, expected)


class CookieTests(SynchronousTestCase):
    URL = "http://example.org/socket.io/?EIO=4"

    def test_keptAndSent(self) -> None:
        cookies = Cookies()
        self.assertIsNone(cookies.header(self.URL))
        cookies.received(self.URL, ["io=one; Path=/; HttpOnly", "route=two; Path=/socket.io"])
        self.assertEqual(sorted(str(cookies.header(self.URL)).split("; ")), ["io=one", "route=two"])
        self.assertEqual(cookies.header("http://example.org/other"), "io=one")
        self.assertIsNone(cookies.header("http://example.com/"))
        cookies.received(self.URL, ["io=; Path=/; Max-Age=0"])
        self.assertEqual(cookies.header(self.URL), "route=two")

    def test_secure(self) -> None:
        cookies = Cookies()
        cookies.received("wss://example.org/", ["a=1; Secure; Path=/"])
        self.assertEqual(cookies.header("wss://example.org/x"), "a=1")
        self.assertIsNone(cookies.header("ws://example.org/x"))

    def test_joined(self) -> None:
        """Autobahn joins repeated headers by a comma, which also stands in dates."""
        cookies = Cookies()
        cookies.received(self.URL, ["a=1; Expires=Wed, 01 Jan 2099 00:00:00 GMT; Path=/, b=2; Path=/"])
        self.assertEqual(sorted(str(cookies.header(self.URL)).split("; ")), ["a=1", "b=2"])

    def test_localhostAndAddresses(self) -> None:
        for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
            cookies = Cookies()
            cookies.received(f"http://{host}/socket.io/", ["a=1; Path=/"])
            self.assertEqual(cookies.header(f"http://{host}/socket.io/?x"), "a=1", host)


class TunnelTests(World):
    """A proxy that answers by a text, in front of an echo."""

    def tunnel(self, answer: bytes, target: tuple[str, int] = ("h", 443), url: str = "http://p") -> Any:
        class Proxy(Protocol):
            asked = b""

            def dataReceived(proxy, data: bytes) -> None:
                if proxy.asked.endswith(b"\r\n\r\n"):
                    proxy.transport.write(data.upper())
                    return
                proxy.asked += data
                self.asked = proxy.asked
                if proxy.asked.endswith(b"\r\n\r\n"):
                    proxy.transport.write(answer)
                    if not answer:
                        proxy.transport.loseConnection()

        class Talk(Protocol):
            got = b""
            lost = False

            def connectionMade(talk) -> None:
                talk.transport.write(b"hello")

            def dataReceived(talk, data: bytes) -> None:
                talk.got += data

            def connectionLost(talk, reason: Any = None) -> None:
                talk.lost = True

        proxy = TunnelEndpoint.fromURL(self.clock, url, *target)
        self.proxied = proxy._proxy = MemoryEndpoint(self.clock, Factory.forProtocol(Proxy))
        connected = proxy.connect(Factory.forProtocol(Talk))
        self.settle()
        return connected

    def test_through(self) -> None:
        talk = self.successResultOf(self.tunnel(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nearly"))
        self.assertEqual(self.asked, b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n")
        self.assertEqual(talk.got, b"earlyHELLO")
        talk.transport.loseConnection()
        self.settle()
        self.assertTrue(talk.lost)

    def test_headInPieces(self) -> None:
        talk = self.successResultOf(self.tunnel(b"HTTP/1.0 200 OK\r\n\r\n"))
        self.assertEqual(talk.got, b"HELLO")

    def test_authorizationAndIPv6(self) -> None:
        self.tunnel(b"HTTP/1.1 200 OK\r\n\r\n", ("::1", 80), "http://us%40er:pass@p:3128")
        self.assertEqual(
            self.asked,
            b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n"
            b"Proxy-Authorization: Basic dXNAZXI6cGFzcw==\r\n\r\n",
        )

    def test_refusals(self) -> None:
        for answer, words in (
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
            (b"SSH-2.0\r\n\r\n", "no status"),
            (b"SSH-2.0 200 x\r\n\r\n", "200"),
            (b"x" * 20_000, "16384"),
            (b"", "without a response"),
        ):
            failure = self.failureResultOf(self.tunnel(answer), TransportError)
            self.assertIn(words, str(failure.value))
            self.settle()
            self.assertEqual(self.proxied.alive, [])

    def test_cancel(self) -> None:
        connected = self.tunnel(b"HTTP/1.1 2")
        self.assertNoResult(connected)
        connected.cancel()
        self.failureResultOf(connected)
        self.settle()
        self.assertEqual(self.proxied.alive, [])


class FrameTests(SynchronousTestCase):
    def test_maskedFrames(self) -> None:
        for size in (0, 1, 125, 126, 65535, 65536):
            payload = bytes(index % 251 for index in range(size))
            for isBinary in (False, True):
                frame = maskedFrame(payload, isBinary, nextMask())
                self.assertEqual(frame[0], 0x82 if isBinary else 0x81)
                start = 2 if size < 126 else 4 if size < 65536 else 10
                length = frame[1] & 127 if start == 2 else int.from_bytes(frame[2:start], "big")
                self.assertEqual((length, frame[1] & 128), (size, 128))
                mask = itertools.cycle(frame[start : start + 4])
                plain = bytes(byte ^ key for byte, key in zip(frame[start + 4 :], mask, strict=False))
                self.assertEqual(plain, payload)

    def test_masksDiffer(self) -> None:
        masks = [nextMask() for _ in range(2000)]
        self.assertEqual({len(mask) for mask in masks}, {4})
        self.assertGreater(len(set(masks)), 1990)

    def test_encodedSize(self) -> None:
        for data in ("", "ä€", b"", b"1", b"12", b"123", b"1" * 1000):
            packet = message(data)
            self.assertEqual(encodedSize(packet), len(EngineIO4.encodePayload([packet])))


class BufferTests(SynchronousTestCase):
    def test_buffer(self) -> None:
        buffer = Buffer()
        buffer.add([message("a")], 1, None)
        buffer.add([message("b")], 2, 7)
        buffer.add([message("c")], 4, 8)
        self.assertEqual((buffer.size, 7 in buffer, 9 in buffer), (7, True, False))
        buffer.remove(7)
        buffer.remove(9)
        self.assertEqual(buffer.size, 5)
        self.assertEqual([id for _, id in buffer.take()], [None, 8])
        self.assertEqual((buffer.size, 8 in buffer), (0, False))


class WaiterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiters = Waiters()

    def test_fire(self) -> None:
        waiting = [self.waiters.add(None), self.waiters.add(1)]
        self.waiters.fire("connected")
        self.assertEqual([self.successResultOf(each) for each in waiting], ["connected"] * 2)
        self.waiters.fail(TransportError("nobody waits"))

    def test_attempts(self) -> None:
        """Each fails after its own number of attempts, and one without a number only with all others."""
        error = TransportError("no")
        once, twice, ever = [self.waiters.add(attempts) for attempts in (1, 2, None)]
        self.waiters.attemptFailed(error)
        self.assertIs(self.failureResultOf(once).value, error)
        self.assertNoResult(twice)
        self.waiters.attemptFailed(error)
        self.assertIs(self.failureResultOf(twice).value, error)
        self.waiters.attemptFailed(error)
        self.assertNoResult(ever)
        self.waiters.fail(error)
        self.assertIs(self.failureResultOf(ever).value, error)

    def test_aCallbackCancelsOthers(self) -> None:
        """The others are cancelled, no matter for which event they waited."""
        error = TransportError("no")
        for end in (
            lambda: self.waiters.fire("connected"),
            lambda: self.waiters.fail(error),
            lambda: self.waiters.attemptFailed(error),
        ):
            first, second = self.waiters.add(1), self.waiters.add(1)
            first.addBoth(lambda _, second=second: second.cancel())
            end()
            self.successResultOf(first)
            self.failureResultOf(second, CancelledError)


class ExplainedTests(SynchronousTestCase):
    def test_errorsOfTheNetwork(self) -> None:
        from twisted.internet.error import ConnectionRefusedError, DNSLookupError
        from twisted.python.failure import Failure
        from twisted.web.client import ResponseFailed

        for error, words in (
            (ConnectionRefusedError("refused"), "cannot connect"),
            (DNSLookupError("no such host"), "no such host"),
            (ResponseFailed([Failure(OSError("broken"))]), "broken"),
            (ResponseFailed([]), "ResponseFailed"),
            (KeyError(), "KeyError"),
            (None, "connection failed"),
        ):
            self.assertIn(words, str(explained(error)))
        inner = TransportError("mine")
        self.assertIs(explained(ResponseFailed([Failure(inner)])), inner)


class LogTests(World):
    def test_noSecretsInTheLog(self) -> None:
        from twisted.logger import formatEvent, globalLogPublisher

        lines: list[str] = []
        observer = lambda event: lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for transports in (("polling",), ("websocket",), ("polling", "websocket")):
            client = self.makeClient(
                "http://example.org?key=secret",
                auth={"token": "secret"},
                headers={"Authorization": "secret"},
                transports=transports,
            )
            client.emit("x", "secret")
            self.settle()
            self.endpoint.cut()
            self.wait(3)
            client.stopService()
            self.settle()
        self.assertNotIn("secret", "\n".join(lines))


class DeadlineTests(SynchronousTestCase):
    """The timeouts of acks, which share a delayed call."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[tuple[float, int]] = []
        self.waiting: set[int] = set()
        self.deadlines = Deadlines(self.clock, self.waiting.__contains__, self.isLate)

    def isLate(self, key: int) -> None:
        self.waiting.discard(key)
        self.late.append((self.clock.seconds(), key))

    def add(self, key: int, delay: float) -> None:
        self.waiting.add(key)
        self.deadlines.add(key, delay)

    def test_eachAtItsTime(self) -> None:
        for key, delay in enumerate((5.0, 1.0, 3.0, 3.0, 0.5)):
            self.add(key, delay)
        self.waiting.discard(2)
        self.clock.pump([0.25] * 24)
        self.assertEqual(self.late, [(0.5, 4), (1.0, 1), (3.0, 3), (5.0, 0)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_addedByALateOne(self) -> None:
        """A later deadline does not hide an earlier one."""

        def isLate(key: int) -> None:
            self.isLate(key)
            if key == 0:
                self.add(2, 60)

        self.deadlines._late = isLate
        self.add(0, 1)
        self.add(1, 2)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.late, [(1.0, 0), (2.0, 1)])

    def test_oneDelayedCallAndBoundedMemory(self) -> None:
        for key in range(10_000):
            self.add(key, 60)
            if key % 100:
                self.waiting.discard(key)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertLess(len(self.deadlines._heap), 3 * 100 + 64)
        self.clock.advance(60)
        self.assertEqual([key for _, key in self.late], list(range(0, 10_000, 100)))

    def test_stop(self) -> None:
        self.add(1, 5)
        self.deadlines.stop()
        self.deadlines.stop()
        self.clock.advance(10)
        self.assertEqual(self.late, [])
