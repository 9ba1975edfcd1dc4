"""
The environ of a WSGI application.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import ISSLTransport
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import directlyProvides, providedBy

from tests.memory import Link
from tests.test_wsgi import plain
from tests.views import ViewsTestCase
from txrealtime._version import __version__
from txrealtime.service.environ import ErrorStream, FileWrapper
from txrealtime.service.wsgi import Views


class EnvironTests(ViewsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.environs: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.serve(self.application)

    def application(self, environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        self.environs.append(environ)
        self.bodies.append(environ["wsgi.input"].read())
        respond("200 OK", [])
        return [b"ok"]

    def environ(self, *lines: str, body: bytes = b"", link: Link | None = None) -> dict[str, Any]:
        """Send a request, and return its environment."""
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        link = link or Link()
        link.connect(self.site).deliver(head + body)
        self.answer(link, lines[0].partition(" ")[0])
        return self.environs.pop()

    def test_all(self) -> None:
        environ = self.environ(
            "POST /a%20b/%C3%BC?c=d%20e HTTP/1.1",
            "Host: example.org:81",
            "Content-Type: text/plain",
            "Content-Length: 2",
            "X-One: 1",
            "X-One: 2",
            "Cookie: a=b",
            "Cookie: c=d",
            body=b"hi",
        )
        stream = environ.pop("wsgi.input"), environ.pop("wsgi.errors")
        self.assertEqual((type(stream[1]), self.bodies), (ErrorStream, [b"hi"]))
        self.assertEqual(
            environ,
            {
                "REQUEST_METHOD": "POST",
                "SCRIPT_NAME": "",
                "PATH_INFO": "/a b/\xc3\xbc",
                "QUERY_STRING": "c=d%20e",
                "REQUEST_URI": "/a%20b/%C3%BC?c=d%20e",
                "RAW_URI": "/a%20b/%C3%BC?c=d%20e",
                "CONTENT_TYPE": "text/plain",
                "CONTENT_LENGTH": "2",
                "SERVER_NAME": "10.0.0.1",
                "SERVER_PORT": "12345",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "SERVER_SOFTWARE": f"txrealtime/{__version__}",
                "REMOTE_ADDR": "192.0.2.7",
                "REMOTE_PORT": "40000",
                "HTTP_HOST": "example.org:81",
                "HTTP_X_ONE": "1,2",
                "HTTP_COOKIE": "a=b; c=d",
                "wsgi.version": (1, 0),
                "wsgi.url_scheme": "http",
                "wsgi.input_terminated": True,
                "wsgi.file_wrapper": FileWrapper,
                "wsgi.multithread": True,
                "wsgi.multiprocess": False,
                "wsgi.run_once": False,
            },
        )
        for key, value in environ.items():
            if key.isupper():
                self.assertIs(type(value), str, key)

    def test_underscores(self) -> None:
        """A header with one would be taken for the proxy's with a hyphen."""
        environ = self.environ(
            "GET / HTTP/1.1", "Host: x", "X-User: alice", "X_User: admin", "Content_Length: 5", "Only_Mine: x"
        )
        self.assertEqual(environ["HTTP_X_USER"], "alice")
        self.assertEqual(environ.keys() & {"CONTENT_LENGTH", "HTTP_CONTENT_LENGTH", "HTTP_ONLY_MINE"}, set())

    def test_unixSocket(self) -> None:
        """The client has no address; the server's name and port are those of the Host header."""
        for host, name, port in (
            ("shop.example:81", "shop.example", "81"),
            ("shop.example", "shop.example", "80"),
            ("[::1]:82", "[::1]", "82"),
            ("", "localhost", "80"),
            ("a:b:c", "localhost", "80"),
        ):
            link = Link()
            link.peerAddr, link.hostAddr = UNIXAddress(""), UNIXAddress("/run/socket")
            environ = self.environ("GET / HTTP/1.0", f"Host: {host}", link=link)
            self.assertEqual((environ["SERVER_NAME"], environ["SERVER_PORT"]), (name, port))
            self.assertEqual(environ["REMOTE_ADDR"], "")
            self.assertNotIn("REMOTE_PORT", environ)

    def test_IPv6(self) -> None:
        link = Link()
        link.peerAddr, link.hostAddr = IPv6Address("TCP", "2001:db8::7", 4), IPv6Address("TCP", "::1", 80)
        environ = self.environ("GET / HTTP/1.1", "Host: x", link=link)
        self.assertEqual((environ["REMOTE_ADDR"], environ["REMOTE_PORT"]), ("2001:db8::7", "4"))
        self.assertEqual((environ["SERVER_NAME"], environ["SERVER_PORT"]), ("::1", "80"))

    def test_TLS(self) -> None:
        link: Any = Link()
        directlyProvides(link, providedBy(link), ISSLTransport)
        link.setTcpNoDelay = lambda enabled: None
        link.hostAddr = IPv4Address("TCP", "192.0.2.1", 443)
        environ = self.environ("GET / HTTP/1.1", "Host: x", link=link)
        self.assertEqual((environ["wsgi.url_scheme"], environ["SERVER_PORT"]), ("https", "443"))

    def test_chunked(self) -> None:
        """A body that came in chunks has a length: without one, frameworks read nothing."""
        environ = self.environ(
            "POST / HTTP/1.1",
            "Host: x",
            "Transfer-Encoding: chunked",
            body=b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n",
        )
        self.assertEqual((self.bodies, environ["CONTENT_LENGTH"]), ([b"hello!"], "6"))
        self.assertEqual(environ.keys() & {"HTTP_TRANSFER_ENCODING", "HTTP_X_TRAILER"}, set())

    def test_noBody(self) -> None:
        environ = self.environ("GET / HTTP/1.1", "Host: x")
        self.assertEqual(environ.keys() & {"CONTENT_LENGTH", "CONTENT_TYPE"}, set())
        self.assertEqual(self.bodies, [b""])
        self.assertEqual(environ["QUERY_STRING"], "")

    def test_targets(self) -> None:
        """An absolute target has a host, and what is no path becomes one."""
        environ = self.environ("GET http://shop.example:81/a?b HTTP/1.1", "Host: other.example")
        self.assertEqual((environ["PATH_INFO"], environ["HTTP_HOST"]), ("/a", "shop.example:81"))
        self.assertEqual(environ["REQUEST_URI"], "http://shop.example:81/a?b")
        self.assertEqual(self.environ("GET //a//b/ HTTP/1.1", "Host: x")["PATH_INFO"], "//a//b/")
        self.assertEqual(self.environ("GET /a%2Fb HTTP/1.1", "Host: x")["PATH_INFO"], "/a/b")
        self.assertEqual(self.environ("GET x HTTP/1.1", "Host: x")["PATH_INFO"], "/x")

    def test_fragment(self) -> None:
        """A fragment, which no target has, is a part of neither path nor query; an escaped one is."""
        for target, path, query in (
            ("/a#b", "/a", ""),
            ("/a?b#c?d", "/a", "b"),
            ("/a#b?c", "/a", ""),
            ("/a%23b?c%23d", "/a#b", "c%23d"),
        ):
            environ = self.environ(f"GET {target} HTTP/1.1", "Host: x")
            self.assertEqual((environ["PATH_INFO"], environ["QUERY_STRING"]), (path, query), target)
            self.assertEqual(environ["RAW_URI"], target)

    def test_oneThread(self) -> None:
        self.serve(self.application, threads=1)
        self.assertFalse(self.environ("GET / HTTP/1.1", "Host: x")["wsgi.multithread"])

    def test_belowAPath(self) -> None:
        """In a site of another, below a path of its own."""
        root = Resource()
        root.putChild(b"my shop", Views(self.reactor, self.application, 1, self.server))
        self.site = Site(root, reactor=self.reactor)
        environ = self.environ(
            "POST /my%20shop/a%20b HTTP/1.1",
            "Host: x",
            "Transfer-Encoding: chunked",
            body=b"1\r\nx\r\n0\r\n\r\n",
        )
        self.assertEqual((environ["SCRIPT_NAME"], environ["PATH_INFO"]), ("/my shop", "/a b"))
        self.assertEqual((self.bodies, environ["CONTENT_LENGTH"]), ([b"x"], "1"))
        self.assertEqual(self.environ("GET /my%20shop HTTP/1.1", "Host: x")["PATH_INFO"], "")

    def test_input(self) -> None:
        """All methods of PEP 3333 work, and the file ends where the body ends."""
        lines: list[Any] = []

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            body = environ["wsgi.input"]
            lines.extend([body.readline(), body.readline(2), body.readlines(1), list(body), body.read(5)])
            respond("200 OK", [])
            return []

        self.serve(application)
        link = self.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\na\nbcd\ne\nf\ngh+ next")
        self.answer(link)
        self.assertEqual(lines, [b"a\n", b"bc", [b"d\n"], [b"e\n", b"f\n", b"gh"], b""])


class ErrorStreamTests(ViewsTestCase):
    def test_lines(self) -> None:
        """A line is an entry, however it is put together; what is in braces is no format."""
        stream = ErrorStream()
        stream.writelines(["a {b", "} c"])
        self.assertEqual(stream.write("\n"), 1)
        stream.write("two\nlines\x1b[1m\n")
        stream.write("unended")
        stream.flush()
        stream.flush()
        self.assertEqual(self.takeLog(), ["a {b} c", "two\nlines\\x1b[1m", "unended"])
        bad: Any = b"bytes"
        self.assertRaises(TypeError, stream.write, bad)

    def test_unended(self) -> None:
        """An unended line is logged when the application ends."""

        def application(environ: Any, respond: Any) -> Iterable[bytes]:
            environ["wsgi.errors"].write("left")
            respond("200 OK", [])
            return []

        self.serve(application)
        self.ask("GET / HTTP/1.1", "Host: x")
        self.whenIdle()
        self.assertEqual(self.takeLog(), ["left"])


class FileWrapperTests(ViewsTestCase):
    def test_withoutClose(self) -> None:
        """close() is there when the file has one."""

        class File:
            def read(self, size: int) -> bytes:
                return b""

        self.assertFalse(hasattr(FileWrapper(File()), "close"))
        self.assertEqual(list(FileWrapper(io.BytesIO(b"x" * 100_000))), [b"x" * 65536, b"x" * 34464])
        self.serve(plain(FileWrapper(io.BytesIO(b"abc"))))
        self.assertEqual(self.ask("GET / HTTP/1.1", "Host: x").body, b"abc")
