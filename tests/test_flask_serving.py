from __future__ import annotations

import contextlib
import signal
import threading
from _thread import allocate_lock, start_new_thread
from pathlib import Path
from typing import Any

import twisted.internet
from flask import Flask
from OpenSSL import SSL
from twisted.internet.ssl import Certificate
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import makeCertificate
from txrealtime.flask import SocketIO, serving
from txrealtime.flask.listening import ListeningAddress, takeTLS
from txrealtime.flask.signals import OwnHandlers, inMainThread


def sent(context: Any) -> list[bytes]:
    """Return the certificates that a server with a context sends, as DER."""
    server = SSL.Connection(context.getContext(), None)
    server.set_accept_state()
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(100_000))
    return [Certificate(each).dump() for each in client.get_peer_cert_chain() or []]


class TLSTests(SynchronousTestCase):
    """
    The options of `run()` for TLS.
    """

    def setUp(self) -> None:
        # An endpoint string would have these colons quoted.
        self.folder = Path(self.mktemp()) / "a:b"
        self.folder.mkdir(parents=True)
        self.pem = makeCertificate(self.folder / "own.pem")
        self.above = makeCertificate(self.folder / "above.pem").read_text()
        self.above = self.above[self.above.index("-----BEGIN CERTIFICATE") :]

    def certificateOf(self, pem: str) -> bytes:
        return Certificate.loadPEM(pem[pem.index("-----BEGIN CERTIFICATE") :]).dump()

    def test_none(self) -> None:
        options = {"certfile": None, "keyfile": None, "ssl_context": None, "ca_certs": None, "other": 1}
        self.assertIsNone(takeTLS(options))
        self.assertEqual(options, {"other": 1})

    def test_chain(self) -> None:
        """All certificates of the file are sent, with whatever ends of lines."""
        chain = self.folder / "chain.pem"
        own = self.pem.read_text()
        chain.write_text(own + self.above.replace("\n", "\r\n"), newline="")
        wanted = [self.certificateOf(own), self.certificateOf(self.above)]
        for options in (
            {"certfile": str(chain), "keyfile": str(self.pem)},
            {"certfile": str(chain)},
            {"ssl_context": (str(chain), str(self.pem))},
            {"ssl_context": (chain, None)},
        ):
            self.assertEqual(sent(takeTLS(options)), wanted)

    def test_refused(self) -> None:
        """Options that would lead to plain text or to another certificate are refused."""
        (self.folder / "text").write_text("text")
        other = str(makeCertificate(self.folder / "other.pem"))
        pem, text = str(self.pem), str(self.folder / "text")
        for options, wanted in (
            ({"ssl_context": "adhoc"}, "and not ssl_context as given: for more, "),
            ({"certfile": pem, "ciphers": "x", "ca_certs": "y"}, "and not ca_certs, ciphers as given"),
            ({"keyfile": pem}, "no certfile"),
            ({"certfile": text}, "expected a certificate and its key, as PEM"),
            ({"certfile": pem, "keyfile": text}, "expected a certificate and its key, as PEM"),
            ({"certfile": pem, "keyfile": other}, "expected a certificate and its key, as PEM"),
        ):
            self.assertIn(wanted, str(self.assertRaises(ValueError, takeTLS, dict(options))))
        self.assertRaises(FileNotFoundError, takeTLS, {"certfile": "nothing.pem"})

    def test_place(self) -> None:
        reactor = MemoryReactorClock()
        for address, wanted in (
            (ListeningAddress("127.0.0.1", 5000), "tcp:5000:interface=127.0.0.1"),
            (
                ListeningAddress("::1", 5000, takeTLS({"certfile": str(self.pem)})),
                "ssl:5000:interface=\\:\\:1",
            ),
        ):
            self.assertEqual(str(address), wanted)
            address.endpoint(reactor).listen(None)
        self.assertEqual([server[0::3] for server in reactor.tcpServers], [(5000, "127.0.0.1")])
        self.assertEqual([server[0::4] for server in reactor.sslServers], [(5000, "::1")])


class SignalTests(SynchronousTestCase):
    """
    An application's own signal handlers.
    """

    def setUp(self) -> None:
        self.stops: list[str] = []
        self.before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
        self.addCleanup(lambda: [signal.signal(*each) for each in self.before.items()])

    def handled(self, handler: Any, number: signal.Signals = signal.SIGTERM) -> OwnHandlers:
        """
        Raise a signal after the reactor has installed its own handler.
        """
        signal.signal(number, handler)
        handlers = OwnHandlers(lambda: self.stops.append("stop"))
        signal.signal(number, lambda *args: self.stops.append("reactor"))
        handlers.install()
        signal.raise_signal(number)
        handlers.restore()
        self.assertIs(signal.getsignal(number), handler)
        return handlers

    def test_called(self) -> None:
        got: list[int] = []
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self.handled(lambda number, frame: got.append(number), number).raiseError()
        self.assertEqual((got, self.stops), ([signal.SIGTERM, signal.SIGUSR1], []))

    def test_raises(self) -> None:
        """An exception ends the server; KeyboardInterrupt is no error, as under other servers."""

        def leave(error: BaseException) -> Any:
            def handler(number: int, frame: object) -> None:
                raise error

            return handler

        for error in (SystemExit(3), ValueError("no")):
            handlers = self.handled(leave(error))
            self.assertIs(self.assertRaises(type(error), handlers.raiseError), error)
        self.handled(leave(KeyboardInterrupt())).raiseError()
        self.assertEqual(self.stops, ["stop"] * 3)

    def test_none(self) -> None:
        """Without an own handler the reactor's stays; an ignored SIGTERM stays ignored."""
        for own, expected in ((signal.SIG_DFL, ["reactor"]), (signal.SIG_IGN, [])):
            self.stops.clear()
            signal.signal(signal.SIGTERM, own)
            handlers = OwnHandlers(lambda: None)
            signal.signal(signal.SIGTERM, lambda *args: self.stops.append("reactor"))
            handlers.install()
            signal.raise_signal(signal.SIGTERM)
            self.assertEqual(self.stops, expected)

    def test_mainThread(self) -> None:
        """The answer does not depend on `threading`, which eventlet changes."""
        self.patch(threading, "current_thread", lambda: None)
        self.assertTrue(inMainThread())
        answers: list[bool] = []
        self.patch(threading, "current_thread", threading.main_thread)
        done = allocate_lock()
        done.acquire()
        start_new_thread(lambda: (answers.append(inMainThread()), done.release()), ())
        done.acquire()
        self.assertEqual(answers, [False])


class RunTests(SynchronousTestCase):
    def test_secondRun(self) -> None:
        """A second run() is refused before anything is opened."""
        reactor = MemoryReactorClock()
        self.patch(twisted.internet, "reactor", reactor)
        self.patch(serving, "_ran", ["shop"])
        app = Flask("shop")
        error = self.assertRaises(RuntimeError, SocketIO(app).run, app)
        self.assertIn("run() has returned once in this process", str(error))
        self.assertEqual(reactor.tcpServers, [])

    def test_runningReactor(self) -> None:
        """A running reactor is refused with advice, before anything is opened."""
        reactor = MemoryReactorClock()
        reactor.running = True
        self.patch(twisted.internet, "reactor", reactor)
        app = Flask("shop")
        error = self.assertRaises(RuntimeError, SocketIO(app).run, app)
        self.assertIn("twistd -n realtime --app shop:socketio", str(error))
        self.assertEqual(reactor.tcpServers, [])
