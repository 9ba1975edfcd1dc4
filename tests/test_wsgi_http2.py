"""
Views over HTTP/2, as twisted.web speaks it with h2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import h2.config
import h2.connection
import h2.events
import h2.settings
import twisted.internet

from tests.memory import Link
from tests.test_wsgi import Pieces, plain
from tests.views import ViewsTestCase
from txrealtime.service.body import IN_MEMORY

HEADERS = [(":authority", "shop.example"), (":scheme", "https")]


class SecureLink(Link):
    """A connection on which TLS has agreed on HTTP/2."""

    negotiatedProtocol = b"h2"


class Client:
    """
    An HTTP/2 client.

    :ivar events: the events of the server's frames, by stream.
    """

    def __init__(self, case: ViewsTestCase, window: int = 65535) -> None:
        self.case = case
        # Otherwise the idle time of a connection may run out while a test waits for a thread.
        case.site.timeOut = None
        self.link = SecureLink().connect(case.site)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.h2.increment_flow_control_window(window)
        self.events: dict[int, list[Any]] = {}
        self.flush()

    def flush(self) -> None:
        """Send the waiting frames, and read the server's."""
        self.link.deliver(self.h2.data_to_send())
        for event in self.h2.receive_data(self.link.take()):
            self.events.setdefault(getattr(event, "stream_id", 0), []).append(event)

    def turn(self) -> None:
        """Let the server take a call of a thread, and 10 ms pass."""
        if not self.case.reactor.handed.empty():
            self.case.reactor.turn()
        self.case.reactor.advance(0.01)
        self.flush()

    def request(
        self, method: str = "GET", path: str = "/", *headers: tuple[str, str], ends: bool = True
    ) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), *HEADERS, *headers]
        self.h2.send_headers(stream, fields, end_stream=ends)
        self.flush()
        return stream

    def upload(self, stream: int, data: bytes) -> None:
        """Send a body as the server's window allows."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            if room:
                self.h2.send_data(stream, data[:room], end_stream=room == len(data))
                data = data[room:]
            self.turn()

    def has(self, stream: int, kind: Any) -> list[Any]:
        return [event for event in self.events.get(stream, []) if isinstance(event, kind)]

    def read(self) -> None:
        """Open the window again for the bytes read."""
        for stream, events in self.events.items():
            for event in events:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                    event.flow_controlled_length = 0
        self.flush()

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.has(stream, h2.events.DataReceived))

    def answer(self, stream: int) -> tuple[dict[str, str], bytes]:
        """The response on a stream."""
        while not self.has(stream, h2.events.StreamEnded):
            assert not self.has(stream, h2.events.StreamReset), "reset"
            self.turn()
            self.read()
        (head,) = self.has(stream, h2.events.ResponseReceived)
        return dict(head.headers), self.body(stream)


class HTTP2Tests(ViewsTestCase):
    def setUp(self) -> None:
        super().setUp()
        # twisted.web makes its connections of HTTP/2 with the installed one.
        patched = patch.object(twisted.internet, "reactor", self.reactor, create=True)
        patched.start()
        self.addCleanup(patched.stop)

    def application(self, environ: Any, respond: Any) -> Iterable[bytes]:
        self.environ = environ
        body = environ["wsgi.input"].read()
        respond("200 OK", [("Connection", "close"), ("X-Length", str(len(body)))])
        return [b"a", b"b", body[:2]]

    def test_requests(self) -> None:
        """Several on one connection, with and without bodies; none is an HTTP/1 header."""
        self.serve(self.application)
        client = Client(self)
        streams = [client.request("GET", "/a?b", ("cookie", "a=b"), ("cookie", "c=d"), ("x_user", "admin"))]
        streams.append(client.request("POST", "/", ends=False))
        client.upload(streams[1], b"hi" * 200_000)
        self.assertEqual([client.answer(stream)[1] for stream in streams], [b"ab", b"abhi"])
        headers, _ = client.answer(streams[1])
        self.assertEqual((headers[":status"], headers["x-length"]), ("200", "400000"))
        self.assertEqual(headers.keys() & {"connection", "transfer-encoding"}, set())
        self.assertEqual(self.environ["CONTENT_LENGTH"], "400000")
        client.answer(
            client.request("GET", "/a?b", ("cookie", "a=b"), ("cookie", "c=d"), ("x_user", "admin"))
        )
        expected = {
            "SERVER_PROTOCOL": "HTTP/2",
            "HTTP_HOST": "shop.example",
            "HTTP_COOKIE": "a=b; c=d",
            "QUERY_STRING": "b",
            "PATH_INFO": "/a",
        }
        self.assertEqual({key: self.environ[key] for key in expected}, expected)
        self.assertNotIn("HTTP_X_USER", self.environ)

    def test_HEAD(self) -> None:
        self.serve(plain(b"four", ("Content-Length", "4")))
        client = Client(self)
        headers, body = client.answer(client.request("HEAD"))
        self.assertEqual((headers["content-length"], body), ("4", b""))

    def test_uploadIsHeldUpByTheDisk(self) -> None:
        """While a thread writes, the client gets no more room, and then goes on."""
        self.serve(self.application)
        client = Client(self)
        data = b"x" * (3 * IN_MEMORY)
        stream = client.request("POST", ends=False)
        client.upload(stream, data)
        headers, _ = client.answer(stream)
        self.assertEqual(headers["x-length"], str(len(data)))

    def test_tooLarge(self) -> None:
        self.serve(self.application, maxUpload=1000)
        client = Client(self)
        stream = client.request("POST", ends=False)
        client.upload(stream, b"x" * 1001)
        headers, body = client.answer(stream)
        self.assertEqual(
            (headers[":status"], body), ("413", b"the body is larger than maxUpload, 1000 bytes")
        )

    def test_windowIsFull(self) -> None:
        """The view waits for the client's window."""
        body = Pieces(*[b"x" * 65536] * 10)
        self.serve(plain(body))
        client = Client(self)
        stream = client.request()
        self.reactor.turn()
        for _ in range(200):
            client.turn()
        self.assertEqual(len(client.body(stream)), 65535)
        self.assertEqual(body.given, 1)
        _, received = client.answer(stream)
        self.assertEqual(len(received), 655360)

    def test_connectionIsFull(self) -> None:
        """The view waits for the connection too, whatever the window."""
        body = Pieces(*[b"x" * 65536] * 10)
        self.serve(plain(body))
        client = Client(self, window=2**31 - 1 - 65535)
        stream = client.request()
        client.link.fill()
        self.reactor.turn()
        for _ in range(200):
            client.turn()
        self.assertEqual(body.given, 1)
        client.link.drain()
        _, received = client.answer(stream)
        self.assertEqual(len(received), 655360)

    def test_tooSlow(self) -> None:
        """The stream is reset, and the others of the connection stay."""
        body = Pieces(*[b"x" * 65536] * 10)
        self.serve(plain(body))
        client = Client(self)
        stream = client.request()
        self.reactor.turn()
        for _ in range(10):
            client.turn()
        self.reactor.advance(60)
        client.flush()
        self.assertTrue(client.has(stream, h2.events.StreamReset))
        self.whenIdle()
        self.assertEqual(body.closed, 1)
        self.assertFalse(client.link.disconnected)

    def test_connectionCloses(self) -> None:
        """While it closes, as after a time without frames, a view's piece is dropped without an error."""
        body = Pieces(b"a", b"b")
        self.serve(plain(body))
        client = Client(self)
        client.request()
        client.link.protocol._channel.timeoutConnection()
        self.reactor.turn()
        self.whenIdle()
        self.assertEqual((body.given, body.closed), (1, 1))

    def test_clientResets(self) -> None:
        """The generator is closed."""
        body = Pieces(*[b"x" * 65536] * 10)
        self.serve(plain(body))
        client = Client(self)
        stream = client.request()
        self.reactor.turn()
        for _ in range(10):
            client.turn()
        client.h2.reset_stream(stream)
        client.flush()
        self.whenIdle()
        self.assertEqual(body.closed, 1)

    def test_failsInTheMiddle(self) -> None:
        """The stream is reset: an ordinary end would make the response look complete."""
        self.serve(plain(Pieces(b"a", KeyError("x"))))
        client = Client(self)
        stream = client.request()
        while not client.has(stream, h2.events.StreamReset):
            client.turn()
        self.assertFalse(client.has(stream, h2.events.StreamEnded))
        self.whenIdle()
        self.assertEqual(self.takeLog(), ["GET / failed: KeyError('x')"])
