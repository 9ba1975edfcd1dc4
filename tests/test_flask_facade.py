"""
``socketio.server``, and the logs of events and packets.
"""

from __future__ import annotations

import logging
from typing import Any

import flask
from flask import Flask

from tests.test_flask import FlaskTestCase
from txrealtime.errors import AckTimeout
from txrealtime.flask import Namespace, SocketIO, emit, join_room
from txrealtime.flask.eventlog import loggerOf


class FacadeTests(FlaskTestCase):
    """
    `socketio.server`, as applications know it from python-socketio.
    """

    def setUp(self) -> None:
        super().setUp()
        self.socketio.on("join")(lambda room: join_room(room))
        self.socketio.on("sid")(lambda: flask.request.sid)
        self.socketio.on("save")(lambda: flask.session.update(user="ann"))
        self.ann = self.join(query_string="a=1")
        self.bob = self.join()
        self.sid = self.ann.emit("sid", callback=True)
        self.other = self.bob.emit("sid", callback=True)
        self.server = self.socketio.server

    def test_manager(self) -> None:
        self.ann.emit("join", "red")
        manager, session = self.server.manager, self.ann.eio_sid
        self.assertEqual(manager.rooms["/"]["red"], {self.sid: session})
        self.assertEqual(set(manager.rooms["/"]), {None, "red", self.sid, self.other})
        self.assertEqual(list(manager.get_participants("/", "red")), [(self.sid, session)])
        self.assertEqual(len(list(manager.get_participants("/", None))), 2)
        self.assertEqual(list(manager.get_participants("/nowhere", "red")), [])
        self.assertEqual(sorted(manager.get_rooms(self.sid, "/")), sorted([self.sid, "red"]))
        self.assertEqual(manager.get_namespaces(), ["/"])
        self.assertEqual(manager.eio_sid_from_sid(self.sid, "/"), session)
        self.assertEqual(manager.sid_from_eio_sid(session, "/"), self.sid)
        self.ann.disconnect()
        asked = [manager.is_connected(sid, "/") for sid in (self.sid, self.other, "nobody")]
        self.assertEqual(asked, [False, True, False])

    def test_environ(self) -> None:
        self.ann.emit("save")
        environ = self.server.environ[self.ann.eio_sid]
        self.assertEqual((environ["QUERY_STRING"], environ["saved_session"]), ("a=1", {"user": "ann"}))
        self.assertEqual(self.server.get_environ(self.sid)["QUERY_STRING"], "a=1")
        self.assertIsNone(self.server.get_environ("nobody"))

    def test_engine(self) -> None:
        engine = self.server.eio
        self.assertEqual(set(engine.sockets), {self.ann.eio_sid, self.bob.eio_sid})
        self.assertEqual((engine.ping_interval, engine.max_http_buffer_size), (25, 1_000_000))
        self.assertEqual((engine.async_mode, self.server.async_mode), ("threading", "threading"))
        for given, seen in (("*", "*"), (None, None), (["http://a"], ["http://a"])):
            self.assertEqual(self.make(cors_allowed_origins=given).server.eio.cors_allowed_origins, seen)

    def test_sessions(self) -> None:
        self.server.save_session(self.sid, {"n": 1})
        with self.server.session(self.sid) as session:
            session["m"] = 2
        self.assertEqual(self.server.get_session(self.sid), {"n": 1, "m": 2})
        self.assertEqual(self.server.get_session(self.other), {})
        self.assertRaises(KeyError, self.server.get_session, "nobody")

    def test_sending(self) -> None:
        server = self.server
        server.enter_room(self.sid, "red")
        server.emit("x", 1, room="red")
        server.send("y", to="red")
        self.assertEqual(server.rooms(self.sid), sorted([self.sid, "red"]))
        server.leave_room(self.sid, "red")
        server.enter_room(self.sid, "blue")
        server.close_room("blue")
        server.emit("z", skip_sid=self.sid)
        self.assertEqual(self.received(self.ann), [("x", [1]), ("message", "y")])
        self.assertEqual(self.received(self.bob), [("z", [])])
        self.assertEqual(server.rooms(self.sid), [self.sid])
        self.assertRaises(AckTimeout, server.call, "x", to=self.sid)
        server.disconnect(self.sid)
        self.assertFalse(self.ann.is_connected())
        server.start_background_task(server.sleep, 0).join(30)

    def test_missing(self) -> None:
        """A missing attribute is an error that names the substitute."""
        for object, name, substitute in (
            (self.server, "register_namespace", "socketio.on_namespace()"),
            (self.server, "whatever", "socketio.realtime"),
            (self.server.manager, "pending_disconnect", "socketio.realtime"),
            (self.server.eio, "service_task_handle", "socketio.realtime"),
        ):
            error = self.assertRaises(AttributeError, getattr, object, name)
            self.assertIn(f"has no {name!r}", str(error))
            self.assertIn(substitute, str(error))

    def test_beforeTheServerRuns(self) -> None:
        self.assertIsNone(SocketIO().server)
        socketio = SocketIO(Flask(__name__))
        server = socketio.server
        self.assertEqual((server.manager.rooms, server.environ, server.eio.sockets), ({}, {}, {}))
        # The engine would take the settings, which twistd may still change.
        self.assertNotIn("engine", socketio.realtime.__dict__)

    def test_namespaceMethods(self) -> None:
        """A class has the methods that python-socketio's has."""
        seen: list[Any] = []

        class Mine(Namespace):
            def on_go(self) -> None:
                sid = flask.request.sid
                self.enter_room(sid, "red")
                self.enter_room(sid, "blue")
                self.leave_room(sid, "blue")
                with self.session(sid) as session:
                    session["n"] = 1
                self.save_session(sid, {**self.get_session(sid), "m": 2})
                seen.append((self.rooms(sid) == sorted([sid, "red"]), self.get_session(sid)))
                try:
                    self.call("x", sid=sid)
                except TimeoutError:
                    seen.append("asked")
                self.disconnect(sid)

        self.socketio.on_namespace(Mine("/n"))
        client = self.join("/n")
        client.emit("go", namespace="/n")
        self.assertEqual(seen, [(True, {"n": 1, "m": 2}), "asked"])
        self.assertFalse(client.is_connected("/n"))


class LogCatcher(logging.Handler):
    """A context manager that collects the lines of a logger."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.logger = logging.getLogger(name)
        self.logger.setLevel(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> list[str]:
        self.logger.addHandler(self)
        return self.lines

    def __exit__(self, *args: object) -> None:
        self.logger.removeHandler(self)


class LogTests(FlaskTestCase):
    """
    The options `logger` and `engineio_logger`.
    """

    def talk(self, **options: Any) -> None:
        self.make(**options)
        self.socketio.on("secret")(lambda text: emit("answer", text))
        client = self.join()
        client.emit("secret", "password")
        client.disconnect()

    def test_events(self) -> None:
        for option, name in ((True, "txrealtime.flask.events"), (logging.getLogger("own"), "own")):
            with LogCatcher(name) as lines:
                self.talk(logger=option)
            words = [line.split(" ")[0] for line in lines]
            self.assertEqual(words, ["connecting:", "received", "emitting", "gone:"])
            self.assertIn("received event 'secret' from ", lines[1])
            self.assertIn("emitting event 'answer' to ", lines[2])
            self.assertNotIn("password", "".join(lines))

    def test_packets(self) -> None:
        with LogCatcher("txrealtime.flask.packets") as lines:
            self.talk(engineio_logger=True)
            self.socketio.test_client(self.app)._client.close()
        for part in (
            "received packet CONNECT, length 1",
            "sending packet CONNECT [/]",
            "received packet EVENT, length 22",
            "sending packet EVENT [/], 23 bytes",
            "received packet DISCONNECT",
            "closed, transport close",
        ):
            self.assertIn(part, "\n".join(lines))
        self.assertNotIn("password", "".join(lines))
        with LogCatcher("txrealtime.flask.packets") as lines:
            self.make(engineio_logger=True)
            self.join().emit("x", b"bytes")
        self.assertIn("received packet attachment, length 5", lines[-1])
        with LogCatcher("txrealtime.flask.packets") as lines:
            self.make(engineio_logger=True)
            self.socketio.on("ask")(lambda: "x")
            self.join().emit("ask", callback=True)
        self.assertRegex(lines[-1], r"sending packet ACK \[/\], \d+ bytes")

    def test_off(self) -> None:
        for option in (False, None):
            configuration = self.make(logger=option, engineio_logger=option).bridge.configuration
            self.assertEqual((configuration.eventLog, configuration.packetLog), (None, None))

    def test_standardError(self) -> None:
        """Unless the application has configured it, the log is on standard error."""
        logger = logging.getLogger("txrealtime.flask.test")
        self.patch(logging.getLogger(), "handlers", [])
        self.assertIs(loggerOf(True, logger.name), logger)
        (handler,) = logger.handlers
        self.assertEqual((type(handler), logger.level), (logging.StreamHandler, logging.INFO))
        loggerOf(True, logger.name)
        self.assertEqual(logger.handlers, [handler])
        logger.removeHandler(handler)
