"""
The form of the log, the trace of packets, and the watch over the reactor.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import WireTestCase
from tests.test_logs import lineOf
from txrealtime import Socket, logs
from txrealtime.logs import Repeats
from txrealtime.monitor import blocked, output
from txrealtime.monitor.blocked import Watch
from txrealtime.monitor.metrics import Metrics
from txrealtime.monitor.output import jsonLine, observer
from txrealtime.monitor.trace import Trace
from txrealtime.service import Options, StartupError
from txrealtime.testing import Client, makeServer


class JSONTests(SynchronousTestCase):
    """
    Events as lines of JSON.
    """

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.log = logs.Logger("here", observer=self.events.append)

    def line(self) -> dict[str, Any]:
        """Return the last event, as a reader of the log takes it."""
        text = jsonLine(self.events[-1])
        self.assertEqual(text.count("\n"), 1)
        self.assertTrue(text.endswith("\n"))

        def fail(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        line: dict[str, Any] = json.loads(text, parse_constant=fail)
        return line

    def test_keys(self) -> None:
        self.log.warn("{address} sent {count}", address="192.0.2.7", count=3)
        self.events[-1]["log_time"] = 1.5
        self.assertEqual(
            list(self.line().items()),
            [
                ("time", "1970-01-01T00:00:01.500000+00:00"),
                ("level", "warn"),
                ("system", "here"),
                ("message", "192.0.2.7 sent 3"),
                ("values", {"address": "192.0.2.7", "count": 3}),
            ],
        )

    def test_oneLine(self) -> None:
        """Whatever the values are."""
        for value in ("a\nb\u2028c", math.nan, math.inf, -math.inf, object(), b"bytes", {"a": 1}, None, True):
            self.log.info("value {value}", value=value)
            self.assertEqual(set(self.line()["values"]) - {"value"}, set())
        self.assertEqual(self.line()["values"], {"value": True})

    def test_failure(self) -> None:
        self.log.failure("it failed", Failure(ValueError("wrong")))
        line = self.line()
        self.assertEqual((line["message"], line["level"]), ("it failed", "critical"))
        self.assertIn("ValueError: wrong", line["traceback"])

    def test_legacy(self) -> None:
        """Twisted's own lines, by twisted.python.log, of which some have no format."""
        from twisted.python import log

        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        log.msg("a page", "and more")
        line = self.line()
        self.assertEqual((line["message"], line["level"], line["values"]), ("a page and more", "info", {}))


class ObserverTests(SynchronousTestCase):
    """
    The observer that writes the log.
    """

    def write(self, options: dict[str, Any], level: str, format: str) -> None:
        written = observer(options, level, format)
        self.assertTrue(ILogObserver.providedBy(written))
        log = Logger("here", observer=written)
        log.debug("one")
        log.info("two")
        log.error("three")

    def test_standardOutput(self) -> None:
        self.patch(sys, "stdout", StringIO())
        self.write({"nodaemon": 1, "logfile": None}, "info", "json")
        lines = [json.loads(line)["message"] for line in sys.stdout.getvalue().splitlines()]  # type: ignore[attr-defined]
        self.assertEqual(lines, ["two", "three"])

    def test_file(self) -> None:
        path = Path(self.mktemp())
        self.write({"nodaemon": 0, "logfile": str(path)}, "debug", "text")
        self.assertEqual([line[-3:] for line in path.read_text().splitlines()], ["one", "two", "ree"])

    def test_level(self) -> None:
        path = Path(self.mktemp())
        self.write({"nodaemon": 1, "logfile": str(path)}, "critical", "text")
        self.assertEqual(path.read_text(), "")

    def test_daemonWithoutAFile(self) -> None:
        self.assertRaises(SystemExit, observer, {"nodaemon": 0, "logfile": "-"}, "info", "text")


class OptionTests(SynchronousTestCase):
    """
    The options of the log, as twistd parses them.
    """

    def setUp(self) -> None:
        self.patch(output, "_choice", {})

    def parse(self, *arguments: str) -> ServerOptions:
        options = ServerOptions()
        options.parseOptions(["-n", "--pidfile=", *arguments])
        return options

    def test_chosen(self) -> None:
        """twistd gets a function that makes the observer."""
        path = self.mktemp()
        options = self.parse("--logfile", path, "realtime", "--log-format", "json", "--log-level", "warn")
        log = Logger("here", observer=options["logger"]())
        log.info("one")
        log.warn("two")
        self.assertEqual(
            [json.loads(line)["message"] for line in Path(path).read_text().splitlines()], ["two"]
        )

    def test_notAsked(self) -> None:
        """Without these options, twistd's own observer writes."""
        self.assertIsNone(self.parse("realtime")["logger"])

    def test_another(self) -> None:
        for other in (["--syslog"], ["--logger", "twisted.logger.globalLogPublisher"]):
            error = self.assertRaises(StartupError, self.parse, *other, "realtime", "--log-level", "info")
            self.assertIn(f"--log-level: twistd's {other[0]} writes the log", str(error))

    def test_refused(self) -> None:
        for arguments, wanted in (
            (["--log-level", "loud"], "--log-level loud: expected one of debug, info"),
            (["--log-format", "xml"], "--log-format xml: expected text or json"),
            (["--trace-packets", ""], "--trace-packets : expected an address"),
            (["--trace-packets", "192.0.2.7,x"], "--trace-packets 192.0.2.7,x: expected"),
            (["--blocked-after", "soon"], "--blocked-after soon: expected seconds"),
            (["--blocked-after", "-1"], "--blocked-after -1: expected seconds"),
            (["--blocked-after", "inf"], "--blocked-after inf: expected seconds"),
            (["--blocked-after", "nan"], "--blocked-after nan: expected seconds"),
        ):
            error = self.assertRaises(StartupError, Options().parseOptions, arguments)
            self.assertIn(wanted, str(error))

    def test_values(self) -> None:
        options = Options()
        options.parseOptions(
            ["--trace-packets", "192.0.2.7", "--trace-packets", "all,20", "--blocked-after", "2"]
        )
        self.assertEqual((options["tracedClients"], options["traceShown"]), (["192.0.2.7", ""], 20))
        self.assertEqual(options["blockedAfter"], 2)


class TraceTests(WireTestCase):
    """
    The trace of packets.
    """

    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.write)
        self.addCleanup(globalLogPublisher.removeObserver, self.write)

    def write(self, event: LogEvent) -> None:
        if event["log_namespace"] == "txrealtime.monitor.trace":
            self.lines.append(lineOf(event).split(" ", 2)[2])

    def test_addresses(self) -> None:
        """Only the clients that were named."""
        Trace(["192.0.2.9"]).install(self.engine)
        self.openPolling(address="192.0.2.7")
        self.assertEqual(self.lines, [])
        client = self.openWebSocket(address="192.0.2.9")
        client.send("4hello")
        self.session.send("good day")
        self.session.send(b"12")
        self.session.sendMessages(["an ack"])
        self.assertEqual(
            self.lines[1:],
            [
                "192.0.2.9 websocket in MESSAGE 5 characters",
                "192.0.2.9 websocket out MESSAGE 8 characters",
                "192.0.2.9 websocket out MESSAGE 2 bytes",
                "192.0.2.9 websocket out MESSAGE 6 characters",
            ],
        )
        self.assertRegex(self.lines[0], r"^192\.0\.2\.9 websocket out OPEN \d+ characters$")
        self.assertEqual(self.owner.heard, ["hello"])

    def test_ids(self) -> None:
        """A beginning of the session id; all have the empty one."""
        self.patch(sys.modules["txrealtime.engineio.engine"].secrets, "token_urlsafe", lambda size: "ABC")
        Trace(["AB"]).install(self.engine)
        self.openPolling()
        self.assertEqual(len(self.lines), 1)
        self.makeEngine()
        Trace(["B"]).install(self.engine)
        self.openPolling()
        self.assertEqual(len(self.lines), 1)

    def test_payloads(self) -> None:
        """Cut, without line ends, and without what is secret."""
        Trace([""], 12).install(self.engine)
        sid = self.openPolling()
        self.post(sid, b'40{"token":"secret"}\x1e42["a\nb","a long text"]')
        client = self.upgrade(sid)
        client.send(b"secret")
        self.assertEqual(
            self.lines[1:],
            [
                "192.0.2.7 polling in MESSAGE 19 characters",
                r'192.0.2.7 polling in MESSAGE 22 characters: 2["a\nb","a l...',
                "192.0.2.7 polling in PING 5 characters: probe",
                "192.0.2.7 polling in UPGRADE 0 characters",
                "192.0.2.7 websocket in MESSAGE 6 bytes",
            ],
        )
        self.assertNotIn(sid, "".join(self.lines))

    def test_adminUI(self) -> None:
        """The session of a login to the admin UI is no text for a log."""
        Trace([""], 80).install(self.engine)
        client = self.openWebSocket()
        self.session.send('2/admin,["session","SECRET"]')
        self.session.send('51-/admin,["session",{"_placeholder":true}]')
        client.send('42/admin,["join","SECRET"]')
        client.send('42/admins,["join","red"]')
        self.assertNotIn("SECRET", "".join(self.lines))
        self.assertNotIn("_placeholder", "".join(self.lines))
        self.assertIn('2/admins,["join","red"]', self.lines[-1])

    def test_formsOfAddresses(self) -> None:
        """An address of IPv6 has many forms, and one of IPv4 may come as one of IPv6."""
        Trace(["2001:DB8:0::7", "192.0.2.9"]).install(self.engine)
        self.openPolling(address="2001:db8::7")
        self.openPolling(address="::ffff:192.0.2.9")
        self.openPolling(address="2001:db8::8")
        self.assertEqual(len(self.lines), 2)

    def test_off(self) -> None:
        """Sessions that are not traced are of the plain class."""
        Trace(["192.0.2.9"]).install(self.engine)
        self.openPolling()
        self.assertEqual(type(self.session).__name__, "Session")


class WatchTests(SynchronousTestCase):
    """
    The watch, without its thread: the test looks at times that it chooses.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.patch(logs, "repeats", Repeats(self.reactor.seconds))
        self.now = 0.0
        self.watch = Watch(self.reactor, 0.5, lambda: self.now)
        self.lines: list[str] = []
        observer = lambda event: self.lines.append(lineOf(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.watch.turn()

    def block(self, seconds: float) -> None:
        """Let time pass in the middle of a call, while the thread looks four times a second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.125
            self.watch.look()

    def go(self, seconds: float) -> None:
        """Let time pass while the reactor turns."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.125
            self.reactor.advance(0.125)
            self.watch.look()

    def test_turning(self) -> None:
        self.go(10)
        self.block(0.5)
        self.go(10)
        self.assertEqual(self.lines, [])

    def test_blocked(self) -> None:
        """One line when it is blocked, with the stack, and one when it goes on."""
        self.go(1)
        self.block(3)
        (line,) = self.lines
        first, *stack = line.splitlines()
        self.assertIn("the reactor is blocked for 0.6 s by a callback", first)
        self.assertTrue(any("in test_blocked" in each for each in stack), stack)
        self.go(1)
        self.assertEqual(self.lines[1:], ["the reactor turns again after 3.1 s"])
        self.block(1)
        self.assertEqual(len(self.lines), 3)

    def handle(self, handler: Any, metrics: bool = False, middleware: bool = False) -> None:
        """Let a handler handle an event."""
        server = makeServer()
        if metrics:
            Metrics(server)
        if middleware:
            server.use(lambda incoming, proceed: proceed(incoming))
        self.patch(logs, "repeats", Repeats(self.reactor.seconds))
        server.on("compute")(handler)
        client = Client(server)
        self.successResultOf(client.connect("/"))
        client.emit("compute")

    def test_handler(self) -> None:
        """The handler has its name."""

        def handler(socket: Socket) -> None:
            self.block(1)

        self.handle(handler)
        self.assertIn("<locals>.handler, the handler of 'compute' in /, and all clients wait", self.lines[0])

    def test_timedHandler(self) -> None:
        """So has one that metrics time, with middleware and without."""

        def handler(socket: Socket) -> None:
            self.block(1)
            self.assertEqual(list(blocked._handlersOf(sys._getframe())), [f"{name}.handler, {ending}"])
            self.go(1)

        name, ending = f"{type(self).__name__}.test_timedHandler.<locals>", "the handler of 'compute' in /"
        for middleware in (False, True):
            self.lines.clear()
            self.handle(handler, True, middleware)
            self.assertIn(f"<locals>.handler, {ending}, and all clients wait", self.lines[0])
            self.assertIn("turns again", self.lines[1])

    def test_asyncHandler(self) -> None:
        """So has an async one, before and after it waits."""
        waits: Deferred[None] = Deferred()

        async def handler(socket: Socket) -> None:
            self.block(1)
            await waits
            self.go(1)
            self.block(1)

        self.handle(handler)
        self.assertIn("<locals>.handler, the handler of 'compute' in /", self.lines[0])
        waits.callback(None)
        self.assertIn("<locals>.handler, a handler that was waiting", self.lines[2])

    def test_flood(self) -> None:
        """A handler that blocks again and again is few lines."""

        async def handler(socket: Socket) -> None:
            for _ in range(50):
                self.block(1)
                self.go(0.5)

        self.handle(handler)
        self.assertLess(len(self.lines), 30)

    def test_stoppedProcess(self) -> None:
        """A process that was stopped is not blocked: the reactor waits for events."""

        def doPoll() -> None:
            self.block(10)

        doPoll()
        frames = {threading.get_ident(): _frameOf(doPoll)}
        self.patch(blocked.sys, "_current_frames", lambda: frames)
        self.lines.clear()
        self.go(1)
        self.lines.clear()
        self.block(10)
        self.assertEqual(self.lines, [])

    def test_stop(self) -> None:
        """No call and no thread are left."""
        self.watch.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        other = Watch(self.reactor, 0.5)
        other.start()
        other.stop()
        before = threading.active_count()
        for hook, arguments, options in self.reactor.whenRunningHooks:
            hook(*arguments, **options)
        self.assertEqual(threading.active_count(), before)

    def test_thread(self) -> None:
        """The thread looks, and ends with the watch."""
        looked = threading.Event()
        watch = Watch(self.reactor, 0.01)
        self.patch(watch, "look", looked.set)
        before = set(threading.enumerate())
        watch._begin()
        (thread,) = set(threading.enumerate()) - before
        self.assertTrue(looked.wait(10))
        watch.stop()
        thread.join(10)
        self.assertFalse(thread.is_alive())


def _frameOf(function: Any) -> Any:
    """Return a frame with the code of a function, without a call."""

    class Frame:
        f_code = function.__code__

    return Frame()
