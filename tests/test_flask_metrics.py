"""
The metrics of an application with handlers in threads.
"""

from __future__ import annotations

from typing import Any

from flask import Flask
from twisted.trial.unittest import SynchronousTestCase

from tests.test_flask_facade import LogCatcher
from txrealtime.flask import SocketIO, SocketIOTestClient, emit
from txrealtime.monitor.metrics import Metrics


class FlaskMetricsTests(SynchronousTestCase):
    def make(self, **options: Any) -> SocketIO:
        self.app = Flask(__name__)
        self.socketio = SocketIO(self.app, **options)
        self.socketio.on("ask")(lambda: emit("answer"))
        self.socketio.on("fail")(lambda: 1 / 0)
        self.join().disconnect()  # the first client puts the server on a clock
        self.metrics = Metrics(self.socketio.realtime)
        return self.socketio

    def join(self) -> SocketIOTestClient:
        return self.socketio.test_client(self.app)

    def values(self, name: str) -> dict[str, float]:
        """Return the values of a metric by the last label."""
        for family, values in self.metrics.read():
            if family.name == name:
                return {key[-1]: value for key, value in values.items()}
        raise KeyError(name)

    def test_handledErrors(self) -> None:
        """An exception counts, also if an error handler deals with it."""
        self.make().on_error()(lambda error: "dealt with")
        client = self.join()
        client.emit("fail")
        client.emit("fail")
        self.assertEqual(self.values("handler_errors"), {"fail": 2})

    def test_errorsOfConnectHandlers(self) -> None:
        """As elsewhere, these are no events."""

        def connect(auth: Any) -> None:
            raise ValueError

        self.make().on_error()(lambda error: "dealt with")
        self.socketio.on("connect")(connect)
        self.join().emit("ask")
        self.assertEqual(self.values("handler_errors"), {"ask": 0})

    def test_eventsSent(self) -> None:
        """Those of handlers and those of the facade."""
        self.make()
        client = self.join()
        client.emit("ask")
        self.socketio.emit("news")
        self.assertEqual([event["name"] for event in client.get_received()], ["answer", "news"])
        self.assertEqual(self.values("events_sent"), {"/": 2})

    def test_packetsAreLogged(self) -> None:
        """Metrics leave ``engineio_logger`` to its work."""
        self.make(engineio_logger=True)
        with LogCatcher("txrealtime.flask.packets") as lines:
            self.join().emit("ask")
        self.assertIn("sending packet EVENT [/]", "\n".join(lines))
