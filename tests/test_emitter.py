"""
Emitting from a process without clients: the messages, and the results.

Real brokers are in tests/interop/test_emitters.py.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from enum import Enum
from importlib.util import find_spec
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import txrealtime.__main__
from tests.clusters import ClusterTestCase
from tests.support import ROOT, requirePart, run
from txrealtime import BusError, DeferredEmitter, Emitter
from txrealtime.cluster import emitter
from txrealtime.cluster.bus import blocking
from txrealtime.cluster.bus.memory import MemoryBus
from txrealtime.cluster.dialects.interfaces import Unsupported


class Broker:
    """A blocking publisher that keeps what it gets, or fails."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.problem = ""
        self.closed = 0

    def publish(self, topic: str, payload: bytes) -> None:
        if self.problem:
            raise BusError(self.problem)
        self.got.append((topic, payload))

    def close(self) -> None:
        self.closed += 1


FORK = """
import os, signal, threading, time
from txrealtime import Emitter
from txrealtime.cluster import emitter

class Broker:
    def publish(self, topic, payload): pass

class Writing(threading.Event):
    def encode(self, packet):
        self.set()
        time.sleep(0.2)
        return ["2[]"]

emitter.publisherFromURL = lambda *arguments: Broker()
writing = Writing()
emits = Emitter("redis://host", writing)
thread = threading.Thread(target=emits.emit, args=("hi",))
thread.start()
writing.wait()
child = os.fork()
if not child:
    signal.alarm(10)  # which ends it
    emits.emit("hi")
    os._exit(0)
thread.join()
emits.emit("hi")
assert os.waitpid(child, 0)[1] == 0, "the child hangs"
"""
"A process that forks while a thread of it encodes a message."


class EmitterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.broker = Broker()
        self.patch(emitter, "publisherFromURL", lambda *arguments: self.broker)

    def said(self) -> list[tuple[str, str]]:
        """Return the topics and the messages without their sender, and without the random names of events."""
        got, self.broker.got = self.broker.got, []
        return [(topic, re.sub(r',"[\w-]{12}",', ",", payload[14:].decode())) for topic, payload in got]


class EmitterTests(EmitterTestCase):
    def test_emit(self) -> None:
        emitter = Emitter("redis://host")
        emitter.emit("hi", 1)
        emitter.namespace("/chat").to("red", "blue").excluding("x").emit("hi", volatile=True)
        emitter.to("red").send("text")
        self.assertEqual(
            self.said(),
            [
                ("txrealtime,/", '["emit","/",null,[],false,[9]]\n2["hi",1]'),
                ("txrealtime,/chat", '["emit","/chat",["red","blue"],["x"],true,[13]]\n2/chat,["hi"]'),
                ("txrealtime,/,red", '["emit","/",["red"],[],false,[19]]\n2["message","text"]'),
            ],
        )

    def test_operations(self) -> None:
        red = Emitter("redis://host?key=shop").to("red")
        red.join("a", "b")
        red.leave("a")
        red.disconnect(close=True)
        self.assertEqual(
            self.said(),
            [
                ("shop,/,red", '["join","/",["red"],[],["a","b"],[]]\n'),
                ("shop,/,red", '["leave","/",["red"],[],["a"],[]]\n'),
                ("shop,/,red", '["disconnect","/",["red"],[],true,[]]\n'),
            ],
        )

    def test_dialects(self) -> None:
        Emitter("redis://host?dialect=python-socketio&channel=x").emit("hi")
        Emitter("redis://host?dialect=node").to("red").emit("hi")
        self.assertEqual([topic for topic, _ in self.broker.got], ["x", "socket.io#/#red#"])
        self.assertRaises(Unsupported, Emitter("redis://host?dialect=python-socketio").to("red").join, "a")

    def test_neverChanges(self) -> None:
        everyone = Emitter("redis://host")
        red = everyone.to("red")
        red.to("blue")
        red.excluding("green")
        red.emit("hi")
        everyone.emit("hi")
        self.assertEqual([topic for topic, _ in self.said()], ["txrealtime,/,red", "txrealtime,/"])

    def test_mistakes(self) -> None:
        emitter = Emitter("redis://host")
        for wrong, error in (
            (lambda: emitter.emit("disconnect"), ValueError),
            (lambda: emitter.emit("hi", float("nan")), ValueError),
            (lambda: emitter.emit("hi", object()), TypeError),
            (lambda: emitter.emit("hi", "x" * 3_000_000), ValueError),
            (lambda: emitter.to(), ValueError),
            (lambda: emitter.to("a").excluding(), ValueError),
            (lambda: emitter.to(1), TypeError),
            (lambda: emitter.join(1), TypeError),
            (lambda: emitter.namespace("chat"), ValueError),
            (lambda: Emitter("http://host"), ValueError),
        ):
            self.assertRaises(error, wrong)
        self.assertEqual(self.said(), [])

    def test_threads(self) -> None:
        """One message is encoded at a time: the attachments of one must not go out with another."""
        emitter = Emitter("redis://host")
        thread = Thread(target=emitter.emit, args=("theirs", b"their secret"))

        class Meanwhile(Enum):
            HERE = 1

            @property
            def value(self) -> str:
                """Called while the event is encoded."""
                thread.start()
                thread.join(0.2)
                return "here"

        emitter.emit("ours", b"our secret", Meanwhile.HERE)
        thread.join()
        theirs, ours = sorted((payload for _, payload in self.broker.got), key=len)
        self.assertTrue(ours.endswith(b'["ours",{"_placeholder":true,"num":0},"here"]our secret'), ours)
        self.assertTrue(theirs.endswith(b'["theirs",{"_placeholder":true,"num":0}]their secret'), theirs)

    def test_dialectsToo(self) -> None:
        speaker = Emitter("redis://host")
        free: list[bool] = []

        def write(message: object) -> list[tuple[str, bytes]]:
            other = Thread(target=lambda: free.append(emitter._writing.acquire(blocking=False)))
            other.start()
            other.join()
            return []

        self.patch(speaker._dialect, "write", write)
        for say in (speaker.emit, speaker.send, speaker.join, speaker.leave):
            say("x")
        speaker.disconnect()
        self.assertEqual(free, [False] * 5)

    def test_forkMeanwhile(self) -> None:
        """The child can emit, though it lacks the thread that was encoding."""
        run(sys.executable, "-c", FORK, cwd=ROOT)

    def test_closes(self) -> None:
        with Emitter("redis://host") as emitter:
            emitter.emit("hi")
        self.assertEqual(self.broker.closed, 1)


class NotInstalledTests(SynchronousTestCase):
    def test_redis(self) -> None:
        for name in ("txrealtime.cluster.bus.redisblocking", "txrealtime.cluster.bus.amqpblocking"):
            if name in sys.modules:
                self.addCleanup(sys.modules.__setitem__, name, sys.modules[name])
            else:
                self.addCleanup(sys.modules.pop, name)
            sys.modules[name] = None  # type: ignore[assignment]
        for url, extra in (("redis://h", "emitter"), ("amqp://h", "amqp")):
            error = self.assertRaises(ValueError, blocking.publisherFromURL, url, (), 1.0)
            self.assertIn(f"pip install txrealtime[{extra}]", str(error))


class RedisTests(SynchronousTestCase):
    def test_hostIsChecked(self) -> None:
        """redis-py 5 checks the name of the host only if told to."""
        requirePart(find_spec("redis"), "no redis: pip install '.[emitter]'")
        publisher: Any = blocking.publisherFromURL("rediss://h?ssl_ca_certs=f", (), 1.0)
        self.assertTrue(publisher._client.connection_pool.connection_kwargs["ssl_check_hostname"])


class ReactorTests(SynchronousTestCase):
    def test_noneIsInstalled(self) -> None:
        """A process without a reactor gets none, so it can choose one later."""
        for url, library in (("redis://h", "redis"), ("amqp://h", "pika")):
            requirePart(find_spec(library), f"no {library}: pip install --group test")
            code = (
                "import sys, txrealtime\n"
                f"txrealtime.Emitter({url!r})\n"
                f"assert {library!r} in sys.modules\n"
                "assert 'twisted.internet.reactor' not in sys.modules"
            )
            run(sys.executable, "-c", code, cwd=ROOT)


class CommandTests(EmitterTestCase):
    def run_(self, *arguments: str) -> tuple[int | str | None, str]:
        """Return the exit code and standard error."""
        with contextlib.redirect_stderr(io.StringIO()) as stream:
            try:
                code: Any = txrealtime.__main__.main(["emit", *arguments])
            except SystemExit as error:
                code = error.code
        return code, stream.getvalue()

    def test_emit(self) -> None:
        arguments = ["--namespace", "/chat", "--to", "red", "--to", "blue", "--excluding", "x", "--volatile"]
        self.assertEqual(self.run_("--bus", "redis://host", *arguments, "hi", '{"json": 1}', "2"), (0, ""))
        ((_, message),) = self.said()
        self.assertEqual(
            message,
            '["emit","/chat",["red","blue"],["x"],true,[26]]\n2/chat,["hi",{"json":1},2]',
        )

    def test_busOfTheEnvironment(self) -> None:
        self.patch(txrealtime.__main__.os, "environ", {"TXREALTIME_BUS": "redis://host"})
        self.assertEqual(self.run_("hi"), (0, ""))

    def test_refusals(self) -> None:
        self.patch(txrealtime.__main__.os, "environ", {})
        bus = ("--bus", "redis://host")
        self.broker.problem = "no broker"
        for arguments, code, text in (
            (("hi",), 1, "no bus: give --bus URL"),
            ((*bus, "hi", "{"), 2, "'{' is not JSON; if it is a text, write"),
            ((*bus, "disconnect"), 1, "reserved"),
            ((*bus, "hi"), 1, "no broker"),
            ((*bus,), 2, "event"),
        ):
            got, printed = self.run_(*arguments)
            self.assertEqual(got, code)
            self.assertIn(text, " ".join(printed.split()))


class DeferredEmitterTests(ClusterTestCase):
    NAMES = ("one", "two")

    def setUp(self) -> None:
        super().setUp()
        self.patch(emitter, "busFromURL", lambda url, fanout: MemoryBus(self.hub))
        self.emitter = DeferredEmitter("redis://host", reactor=self.clock)

    def test_emit(self) -> None:
        client = self.join(self.one)
        said = self.emitter.emit("hi", b"\x01")
        self.assertNoResult(said)
        self.assertIsNone(self.resultOf(said))
        self.assertEqual(self.get(client), [[("hi", b"\x01")]])

    def test_toASocket(self) -> None:
        """No server is known to have the socket."""
        client = self.join(self.one)
        self.emitter.to(client.id()).emit("hi")
        self.assertEqual(self.get(client), [[("hi",)]])

    def test_operations(self) -> None:
        client = self.join(self.two)
        self.emitter.join("red")
        self.settle()
        self.one.to("red").emit("hi")
        self.assertEqual(self.get(client), [[("hi",)]])
        self.emitter.to("red").disconnect()
        self.settle()
        self.assertFalse(client.isConnected())

    def test_order(self) -> None:
        client = self.join(self.one)
        for number in range(10):
            self.emitter.emit("n", number)
        self.assertEqual([number for _, number in self.get(client)[0]], list(range(10)))

    def test_noBroker(self) -> None:
        self.hub.stop()
        self.settle()
        self.failureResultOf(self.emitter.emit("hi"), BusError)
        self.hub.start()
        self.resultOf(self.emitter.emit("hi"))

    def test_close(self) -> None:
        self.assertIsNone(self.resultOf(self.emitter.close()))
        said = self.emitter.emit("hi")
        closed = self.emitter.close()
        self.resultOf(closed)
        self.successResultOf(said)
        self.resultOf(self.emitter.emit("again"))
