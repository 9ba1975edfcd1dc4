"""
An application that another WSGI server serves.
"""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.internet.task import Clock

from tests.test_flask import FlaskTestCase
from txrealtime.flask import greenlets, hosted
from txrealtime.flask.client import Stage

PATH = "/socket.io/?EIO=4&transport=polling"


class HostedTests(FlaskTestCase):
    """The application, called as WSGI servers call it.  The reactor's thread is the test's."""

    def make(self, **options: Any) -> Any:
        socketio = super().make(**options)
        self.app.get("/")(lambda: "page")
        self.runs = True
        self.patch(hosted, "_reactorRuns", lambda: self.runs)
        self.errors = io.StringIO()
        self.serverOf(socketio)
        return socketio

    def serverOf(self, socketio: Any) -> None:
        self.server: Any = socketio.realtime
        self.server.configure(reactor=Clock())
        self.server._crossing = socketio.bridge.jobs = Stage()
        self.triggers: list[Any] = []
        self.server.reactor.addSystemEventTrigger = lambda *trigger: self.triggers.append(trigger)

    def ask(self, path: str = PATH, method: str = "GET", **more: Any) -> Any:
        """Call the application in a server with threads."""
        environ = {"wsgi.multithread": True, "wsgi.errors": self.errors, **more.pop("environ", {})}
        return self.app.test_client().open(path, method=method, environ_overrides=environ, **more)

    def open(self, path: str = PATH, **more: Any) -> tuple[str, dict[str, Any]]:
        """Open a session, and return its URL and handshake."""
        answer = self.ask(path, **more)
        self.assertEqual((answer.status_code, answer.text[0]), (200, "0"), answer.text)
        handshake: dict[str, Any] = json.loads(answer.text[1:])
        return f"{path}&sid={handshake['sid']}", handshake

    def test_polling(self) -> None:
        """Clients come, ask and leave by long polling, and are offered no other transport."""
        self.socketio.on_event("echo", lambda *values: values)
        url, handshake = self.open()
        self.assertEqual(handshake["upgrades"], [])
        posted = self.ask(url, "POST", data='40\x1e421["echo","ä"]'.encode())
        self.assertEqual((posted.status_code, posted.text), (200, "ok"))
        came = self.ask(url)
        self.assertRegex(came.text, r'40{"sid":"[^"]+"}\x1e431\["ä"\]')
        self.assertEqual(
            (came.headers["Content-Type"], came.headers["Cache-Control"]),
            ("text/plain; charset=UTF-8", "no-store"),
        )
        self.assertEqual(self.ask(url, "POST", data=b"1").text, "ok")
        self.assertEqual(self.ask(url).json, {"code": 1, "message": "Session ID unknown"})
        self.assertEqual(self.ask("/").text, "page")

    def test_started(self) -> None:
        """The first request starts the server, which stops with the reactor; the log names the limits."""
        warned: list[str] = []
        self.patch(hosted._log, "warn", warned.append)
        self.open()
        self.open()
        self.assertTrue(self.server.running)
        self.assertEqual(self.triggers, [("before", "shutdown", self.server.stopService)])
        (said,) = warned
        self.assertIn("long polling only", said)
        self.assertIn("gunicorn -k txrealtime.gunicorn.Worker", said)

    def test_ownListeners(self) -> None:
        """A server that runs already, for its own listeners, goes on offering WebSocket there."""
        self.server.startService()
        _, handshake = self.open()
        self.assertEqual((handshake["upgrades"], self.triggers), (["websocket"], []))

    def test_theRequest(self) -> None:
        """The engine reads method, URL, headers, address and scheme from the environment."""
        environ = {"REMOTE_ADDR": "192.0.2.7", "SCRIPT_NAME": "/blog", "HTTP_X_ID": "7"}
        self.open(environ=environ, base_url="https://shop.example/")
        (session,) = self.server.engine.sessions.values()
        request = session.handshake
        self.assertEqual((request.address, request.secure, request.host), ("192.0.2.7", True, "shop.example"))
        self.assertEqual(request.url, "/blog" + PATH)
        self.assertEqual(request.headers["x-id"], "7")

    def test_strangePath(self) -> None:
        """A path with any bytes is quoted again, as the client has sent it."""
        request = hosted.HostedRequest({"REQUEST_METHOD": "GET", "PATH_INFO": "/socket.io/\xc3\xa4 \r%"}, 9)
        self.assertEqual(request.url, "/socket.io/%C3%A4%20%0D%25")

    def test_unix(self) -> None:
        """A UNIX socket has no address."""
        self.open(environ={"REMOTE_ADDR": ""})
        (session,) = self.server.engine.sessions.values()
        self.assertEqual(session.handshake.address, "unix")

    def test_origins(self) -> None:
        """A foreign page is refused, and the own one gets its headers."""
        self.assertEqual(self.ask(headers={"Origin": "http://other.example"}).status_code, 403)
        answer = self.ask(headers={"Origin": "http://localhost"})
        self.assertEqual(
            (answer.status_code, answer.headers["Access-Control-Allow-Origin"]), (200, "http://localhost")
        )

    def test_bodies(self) -> None:
        """No more of a body is read than counts; a body without a length only if the server ends it."""

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                assert size is not None and size >= 0, "this may wait for ever"
                return super().read(min(size, 3))

        def body(most: int, **environ: Any) -> bytes:
            stream = Stream(b"0123456789")
            request = hosted.HostedRequest({"REQUEST_METHOD": "POST", "wsgi.input": stream, **environ}, most)
            return request.body(100)

        self.assertEqual(body(50, CONTENT_LENGTH="5"), b"01234")
        self.assertEqual(body(3, CONTENT_LENGTH="10"), b"0123")
        self.assertEqual(body(50, CONTENT_LENGTH="20"), b"0123456789")
        self.assertEqual(body(50, CONTENT_LENGTH="-1"), b"")
        self.assertEqual(body(50), b"")
        self.assertEqual(body(50, **{"wsgi.input_terminated": True}), b"0123456789")

    def test_tooLarge(self) -> None:
        self.make(max_http_buffer_size=100)
        url, _ = self.open()
        self.assertEqual(self.ask(url, "POST", data=b"4" * 101).status_code, 413)

    def test_refused(self) -> None:
        """Clients and the log get the reason if long polling cannot work."""
        for environ, reason in (
            ({"wsgi.multithread": False}, "one request at a time"),
            ({"wsgi.multiprocess": True}, "several processes"),
            ({"HTTP_UPGRADE": "WebSocket"}, "only long polling does"),
        ):
            for _ in range(2):
                answer = self.ask(environ=environ)
                self.assertEqual(answer.status_code, 501)
                self.assertIn(reason, answer.text)
                self.assertIn("twistd -n realtime", answer.text)
            self.assertEqual(self.errors.getvalue().count(reason), 1)
        self.assertFalse(self.server.running)

    def test_greenlets(self) -> None:
        """gevent's server names no threads; with its patches, a request occupies a greenlet only."""

        class Patched:
            __module__ = "gevent.thread"

        self.patch(greenlets._thread, "start_new_thread", Patched())
        self.open(environ={"wsgi.multithread": False})

    def test_stopped(self) -> None:
        """When the reactor has stopped, clients are told to come again."""
        self.runs = False
        answer = self.ask()
        self.assertEqual(answer.status_code, 503)
        self.assertIn("start another process", answer.text)

    def test_otherPath(self) -> None:
        """The path counts that the server has, which twistd may have changed."""
        self.server.configure(path="/talk")
        self.open("/talk/?EIO=4&transport=polling")
        self.assertEqual(self.ask().status_code, 404)
        self.assertEqual(self.ask("/talkative").status_code, 404)
