"""
Clients that come back, in an application of Flask: the same request, session and order of handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
from flask import Flask
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.flask import SocketIO, emit, join_room, rooms
from txrealtime.flask.client import Stage
from txrealtime.testing import Client


class Jobs:
    """Threads that begin a job when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def submit(self, name: str, job: Callable[[], object]) -> None:
        self.waiting.append(job)

    def runAll(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class FlaskRecoveryTests(SynchronousTestCase):
    """
    An application with a user's session.
    """

    def setUp(self) -> None:
        app = Flask(__name__)
        app.secret_key = "for tests"
        self.socketio = SocketIO(app, recoveryWindow=60)
        self.jobs = self.socketio.bridge.jobs = Jobs()
        server = self.socketio.realtime
        self.clock = Clock()
        server.configure(reactor=self.clock)
        server._crossing = Stage()
        self.seen: list[tuple[Any, ...]] = []

        @self.socketio.on("connect")
        def connect(auth: Any) -> None:
            if not flask.request.recovered:
                join_room("red")
            self.seen.append(("connect", flask.request.recovered, flask.session.get("name"), auth))

        @self.socketio.on("disconnect")
        def disconnect(reason: str) -> None:
            self.seen.append(("disconnect", reason))

        @self.socketio.on("name")
        def name(name: str) -> None:
            flask.session["name"] = name

        @self.socketio.on("look")
        def look() -> None:
            seen = (flask.request.args.get("page"), flask.request.recovered, flask.session.get("name"))
            emit("seen", (*seen, len(rooms())))

        server.startService()
        self.addCleanup(server.stopService)
        self.client = Client(server, query={"page": "7"})
        self.client.connect(auth={"token": "x"})
        self.run_()

    def run_(self) -> None:
        self.jobs.runAll()
        self.client.flush()

    def test_return(self) -> None:
        sid = self.client.id()
        self.client.emit("name", "Alice")
        self.run_()
        self.client.lose()
        self.run_()
        self.socketio.emit("missed", 1, to="red")
        self.client._url = self.client._url.replace("page=7", "page=8")
        coming = self.client.comeBack()
        self.run_()
        self.assertEqual(self.successResultOf(coming), [sid])
        self.assertEqual(self.client.received(), [("missed", 1)])
        self.client.emit("look")
        self.run_()
        self.assertEqual(self.client.received(), [("seen", "7", True, "Alice", 2)])
        self.assertEqual(
            self.seen,
            [
                ("connect", False, None, {"token": "x"}),
                ("disconnect", "transport error"),
                ("connect", True, "Alice", {"token": "x"}),
            ],
        )
        self.assertEqual(self.socketio.bridge.spaces["/"].parting, {})

    def test_order(self) -> None:
        """The connect handler of a return waits for the disconnect handler of the cut."""
        self.client.emit("look")
        self.client.lose()
        coming = self.client.comeBack()
        self.assertNoResult(coming)
        self.run_()
        self.successResultOf(coming)
        self.assertEqual([seen[0] for seen in self.seen], ["connect", "disconnect", "connect"])
        self.assertEqual(self.client.received(), [("seen", "7", False, None, 2)])
        self.assertEqual(self.socketio.bridge.spaces["/"]._returning, {})

    def test_cutWhileWaiting(self) -> None:
        self.client.lose()
        self.client.comeBack().addErrback(lambda failure: None)
        self.client.lose()
        self.run_()
        coming = self.client.comeBack()
        self.run_()
        self.successResultOf(coming)
        self.assertEqual([seen[0] for seen in self.seen], ["connect", "disconnect", "connect"])

    def test_fresh(self) -> None:
        self.client.lose()
        self.run_()
        self.clock.advance(60)
        self.client.comeBack()
        self.run_()
        self.assertEqual(self.seen[-1], ("connect", False, None, {"token": "x"}))
