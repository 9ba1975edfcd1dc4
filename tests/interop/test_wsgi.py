"""
Views over real sockets: the same requests to Werkzeug's server and gunicorn, and what costs memory or time.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.clients import FOLDER, RealtimeServer, python, untilListening
from tests.support import ROOT, freePort, startProgram
from tests.views import Answer, readAnswer

PLAIN = "Host: shop.example:81\r\nConnection: close\r\n"

REQUESTS = {
    "GET": f"GET /a%20b/%C3%BC?c=d%20e HTTP/1.1\r\n{PLAIN}X-One: 1\r\n\r\n",
    "no query": f"GET /a? HTTP/1.1\r\n{PLAIN}\r\n",
    "slashes": f"GET /a//b%2Fc/../d/ HTTP/1.1\r\n{PLAIN}\r\n",
    "escapes": f"GET /%00%FF%25 HTTP/1.1\r\n{PLAIN}\r\n",
    "a fragment": f"GET /a?b#c HTTP/1.1\r\n{PLAIN}\r\n",
    "headers": f"GET / HTTP/1.1\r\n{PLAIN}X-Two: 1\r\nX-Two: 2\r\nAccept:  a , b \r\nX-Empty:\r\n\r\n",
    "underscores": f"GET / HTTP/1.1\r\n{PLAIN}X-User: alice\r\nX_User: admin\r\nOnly_Mine: x\r\n\r\n",
    "HEAD": f"HEAD / HTTP/1.1\r\n{PLAIN}\r\n",
    "HEAD of a stream": f"HEAD /stream HTTP/1.1\r\n{PLAIN}\r\n",
    "OPTIONS": f"OPTIONS /a HTTP/1.1\r\n{PLAIN}\r\n",
    "POST": f"POST / HTTP/1.1\r\n{PLAIN}Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    "POST of nothing": f"POST / HTTP/1.1\r\n{PLAIN}Content-Length: 0\r\n\r\n",
    "a form": f"POST / HTTP/1.1\r\n{PLAIN}Content-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\n--x",
    "chunked": f"PUT / HTTP/1.1\r\n{PLAIN}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "expecting": f"POST / HTTP/1.1\r\n{PLAIN}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "unread": f"POST /unread HTTP/1.1\r\n{PLAIN}Content-Length: 5\r\n\r\nhello",
    "HTTP/1.0": "GET /a HTTP/1.0\r\nHost: shop.example\r\n\r\n",
    "HTTP/1.0 without Host": "GET /a HTTP/1.0\r\n\r\n",
    "a stream": f"GET /stream HTTP/1.1\r\n{PLAIN}\r\n",
    "a stream, HTTP/1.0": "GET /stream HTTP/1.0\r\n\r\n",
    "a file": f"GET /file HTTP/1.1\r\n{PLAIN}\r\n",
    "nothing": f"GET /none HTTP/1.1\r\n{PLAIN}\r\n",
    "a failure": f"GET /fails HTTP/1.1\r\n{PLAIN}\r\n",
    "a late failure": f"GET /fails-late HTTP/1.1\r\n{PLAIN}\r\n",
    "more than its length": f"GET /long HTTP/1.1\r\n{PLAIN}\r\n",
    "pipelined": "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" + f"GET /2 HTTP/1.1\r\n{PLAIN}\r\n",
}

OWN = {"SERVER_SOFTWARE", "SERVER_PORT", "REMOTE_PORT", "wsgi.multiprocess", "HTTP_TRANSFER_ENCODING"}
"Keys whose values are each server's own; the last is left out here, as the body has a length by then."

MORE = {"REQUEST_URI", "wsgi.input_terminated", "CONTENT_LENGTH"}
"Keys that not every peer has; the last here for bodies in chunks."

BODILESS = {"CONTENT_LENGTH", "CONTENT_TYPE"}
"Keys that may be empty or not there."

KNOWN: dict[tuple[str, str], str] = {
    ("werkzeug", "escapes"): "what is no UTF-8 is lost; PEP 3333 wants the bytes",
    ("werkzeug", "headers"): "keeps white space at the end of a value",
    ("werkzeug", "pipelined"): "does not answer the second request",
    ("werkzeug", "HEAD"): "sends the body, if the application has one",
    ("werkzeug", "HEAD of a stream"): "the same",
    ("werkzeug", "more than its length"): "sends all of it, which a client takes for the next response",
}
"Where a peer does something else, and why."


class Seen(NamedTuple):
    """The responses of a server, and bytes that are none."""

    answers: list[Answer]
    rest: bytes


def exchange(port: int, request: str) -> Seen:
    """Send a request, and read until the server ends the connection."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(request.encode("latin-1"))
        try:
            while data := client.recv(65536):
                got += data
        except (ConnectionError, TimeoutError):
            pass
    answers = []
    method = request.partition(" ")[0]
    while (found := readAnswer(got, method, ended=True)) is not None:
        answer, got = found
        if answer.status >= 200:
            answers.append(answer)
    return Seen(answers, got)


def environOf(answer: Answer) -> dict[str, Any] | None:
    """Return the environ of a response, without each server's own keys; None if there is none."""
    if answer.headers.get("content-type") != "application/json" or not answer.body:
        return None
    told: dict[str, Any] = json.loads(answer.body)
    environ = {
        key: value
        for key, value in told["environ"].items()
        if key not in OWN and not key.startswith(("werkzeug.", "gunicorn."))
    }
    for key in BODILESS:
        if not environ.get(key):
            environ.pop(key, None)
    return {**environ, "body": told["body"]}


def compare(ours: Seen, theirs: Seen) -> list[object]:
    """List the differences between two servers' responses."""
    different: list[object] = []

    def check(what: str, one: object, other: object) -> None:
        if one != other:
            different.append((what, one, other))

    check("status", [a.status for a in ours.answers], [a.status for a in theirs.answers])
    check("rest", bodyOf(ours.rest), bodyOf(theirs.rest))
    for one, other in zip(ours.answers, theirs.answers, strict=False):
        if one.status == other.status == 500:
            continue  # each has a page of its own
        told, heard = environOf(one), environOf(other)
        check("reason", one.reason, other.reason)
        check("headers", headersOf(one), headersOf(other))
        if told is None or heard is None:
            check("body", one.body, other.body)
            continue
        check("more keys", told.keys() - heard.keys() - MORE, set())
        for key, value in heard.items():
            check(key, told.get(key), value)
    return different


def bodyOf(rest: bytes) -> bytes:
    """Return the body of an incomplete response, or bytes that are no response."""
    return rest.partition(b"\r\n\r\n")[2] if rest.startswith(b"HTTP/") else rest


def headersOf(answer: Answer) -> dict[str, str]:
    """Return the headers of the application."""
    own = ("server", "date", "connection", "content-length", "transfer-encoding")
    return {name: value for name, value in answer.headers.items() if name not in own}


class DifferentialTests(TestCase):
    """
    Clients and applications see the same as with Werkzeug's server and gunicorn.
    """

    timeout = 300

    async def start(self, name: str) -> int:
        port = freePort()
        command = python("wsgi_app.py", name, str(port))
        program = startProgram(self, command, environment={"PYTHONPATH": str(ROOT)})
        await untilListening(program, port)
        return port

    async def startOwn(self) -> int:
        server = RealtimeServer(self, "--wsgi", "wsgi_app:application")
        environment = {"PYTHONPATH": f"{ROOT}:{FOLDER / 'py'}"}
        server.program = startProgram(self, server._command, environment=environment)
        await untilListening(server.program, server.port)
        return server.port

    async def test_same(self) -> None:
        own = await self.startOwn()
        different: dict[tuple[str, str], object] = {}
        for peer in ("werkzeug", "gunicorn"):
            port = await self.start(peer)
            for name, request in REQUESTS.items():
                ours, theirs = [await deferToThread(exchange, which, request) for which in (own, port)]
                found = compare(ours, theirs)
                if found:
                    different[peer, name] = found
        self.assertEqual(
            different.keys(), KNOWN.keys(), "".join(f"\n{key}: {value}" for key, value in different.items())
        )


class CostTests(TestCase):
    """
    The cost of slow clients and large bodies, on real sockets.
    """

    timeout = 300

    async def start(self, code: str, *arguments: str) -> RealtimeServer:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "costly.py").write_text(code)
        server = RealtimeServer(self, *(arguments or ("--wsgi", "costly:application")))
        environment = {"PYTHONPATH": f"{ROOT}:{folder.absolute()}"}
        server.program = startProgram(self, server._command, environment=environment)
        await untilListening(server.program, server.port)
        return server

    def memory(self, server: RealtimeServer) -> int:
        """Return the megabytes of a server."""
        pid = server.program.transport.pid
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 2**20

    async def test_slowReader(self) -> None:
        """One that asks for 300 MB and reads nothing costs a few; when it goes, the generator is closed."""
        server = await self.start(
            "def application(environ, respond):\n"
            "    respond('200 OK', [])\n"
            "    try:\n"
            "        for _ in range(3000): yield b'x' * 100_000\n"
            "    finally: print('closed', flush=True)\n"
        )
        before = self.memory(server)

        def readNothing() -> int:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", server.port))
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                time.sleep(2)
                return self.memory(server)

        after = await deferToThread(readNothing)
        self.assertLess(after - before, 10)
        await server.program.whenPrinted("closed")

    async def test_upload(self) -> None:
        """A file of 100 MB holds up nobody, and takes no memory."""
        server = await self.start(
            "def application(environ, respond):\n"
            "    size = 0\n"
            "    while data := environ['wsgi.input'].read(65536): size += len(data)\n"
            "    respond('200 OK', [])\n"
            "    return [b'%d' % size]\n"
        )
        before = self.memory(server)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
        part = b"\n" * 1_000_000

        def upload() -> bytes:
            with socket.create_connection(("127.0.0.1", server.port), 30) as client:
                client.sendall(head + b"Connection: close\r\nContent-Length: 100000000\r\n\r\n")
                for _ in range(100):
                    client.sendall(part)
                got = b""
                while data := client.recv(65536):
                    got += data
                return got

        uploading = deferToThread(upload)
        answered = await deferToThread(self.answered, server.port, lambda: bool(uploading.called))
        self.assertTrue((await uploading).endswith(b"100000000"))
        # A server that took the file in one go would answer no request for most of the time.
        self.assertGreater(answered, 50)
        self.assertLess(self.memory(server) - before, 20)

    def answered(self, port: int, isOver: Any) -> int:
        """Send requests to the engine one after the other, and return how many were answered."""
        count = 0
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            while not isOver():
                client.sendall(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
                client.recv(65536)
                count += 1
        return count

    async def test_unixSocket(self) -> None:
        """A view over a UNIX socket, as behind nginx."""
        # The path of such a socket is short.
        short = Path("/tmp") / f"txrealtime-{freePort()}.sock"
        self.addCleanup(short.unlink, missing_ok=True)
        code = (
            "def application(environ, respond):\n"
            "    respond('200 OK', [])\n"
            "    return [repr((environ['REMOTE_ADDR'], environ['SERVER_NAME'])).encode()]\n"
        )
        await self.start(code, "--wsgi", "costly:application", "--listen", f"unix:{short}")

        def ask() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(short))
                client.sendall(b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
                got = b""
                while data := client.recv(65536):
                    got += data
                return got

        self.assertTrue((await deferToThread(ask)).endswith(b"('', 'shop.example')"))
