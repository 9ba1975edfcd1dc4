"""
Names of libraries that no documentation promises: a table, held against the libraries and the sources.

``tests/interop/test_renamed.py`` plays clients against a server without many of these names.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import LogEvent, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import Link, WireTestCase, readResponse
from tests.renamed import NAMES
from tests.support import ROOT, requirePart
from tests.talk import textOf
from txrealtime import foreign
from txrealtime.engineio import tcp
from txrealtime.engineio.http import lease, site
from txrealtime.engineio.http.fastpath import EngineChannel
from txrealtime.engineio.websocket import autobahn
from txrealtime.socketio import jsontext


class Use(NamedTuple):
    """
    A use of private or undocumented names.

    :ivar owner: ``module:class`` that has the names, or a module.
    :ivar names: the names, separated by blanks.
    :ivar where: the module that uses them, without ``txrealtime.``.
    :ivar without: the loss if a release lacks one; "Needed" if there is no other way.
    """

    owner: str
    names: str
    where: str
    without: str


SERVER = "autobahn.twisted.websocket:WebSocketServerProtocol"
CLIENT = "autobahn.twisted.websocket:WebSocketClientProtocol"

TABLE = [
    # Twisted
    Use(
        "twisted.internet.tcp:Server",
        "dataBuffer _tempDataBuffer socket",
        "engineio.tcp",
        "Each write waits for the reactor's next turn, 3.5 us more.",
    ),
    Use(
        "twisted.internet.tcp:Client",
        "dataBuffer _tempDataBuffer socket",
        "engineio.tcp",
        "Each write of a client waits for the reactor's next turn, 3.5 us more.",
    ),
    Use(
        "twisted.internet.tcp:Server",
        "protocol connectionLost",
        "engineio.tcp",
        "Needed: a connection changes its protocol, and tells of its loss by a function in place of its own.",
    ),
    Use(
        "twisted.internet.unix:Port",
        "_fromListeningDescriptor _shouldShutdown",
        "gunicorn",
        "Needed: a port of adoptStreamPort() shuts a UNIX socket down and deletes its path, for all.",
    ),
    Use(
        "twisted.web.http",
        "_GenericHTTPChannelProtocol",
        "engineio.http.site",
        "HTTP/1.1 only.",
    ),
    Use(
        "twisted.web.http:_GenericHTTPChannelProtocol",
        "_channel",
        "engineio.http.lease",
        "On a Site of users, twisted.web reads all polling requests.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "requests persistent",
        "engineio.http.lease",
        "Needed: they tell if a connection is free.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "_path",
        "engineio.http.measured",
        "A body that twisted.web reads is refused only after it was read.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "_handlingRequest _waitingForTransport _networkProducer",
        "engineio.http.site",
        "Requests that the fast path leaves out have no deadline, and are read while answers wait.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "allContentReceived requestDone totalHeadersSize",
        "engineio.http.site",
        "Needed: overridden for the same limits.",
    ),
    Use(
        "twisted.web.http:Request",
        "gotLength handleContentChunk content requestReceived _disconnected",
        "engineio.http.measured",
        "Needed: overridden to refuse a large body while it comes, and to leave forms unparsed.",
    ),
    Use(
        "twisted.web._http2:H2Stream",
        "path site abortConnection",
        "engineio.http.measured",
        "Needed for HTTP/2: the path of a request whose body has not been read.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "_send100Continue requests",
        "engineio.http.site",
        "A client that was refused is told to send its body all the same.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "_waitingForTransport",
        "service.outlet",
        "A view sends one piece more while the transport is full.",
    ),
    Use(
        "twisted.web.http:HTTPChannel",
        "_abortingCall",
        "service.outlet",
        "A client that leaves the end of a response unread keeps its connection.",
    ),
    Use(
        "twisted.web._http2:H2Connection",
        "_outboundStreamQueues conn",
        "service.outlet",
        "Over HTTP/2, responses of views wait in memory for slow clients.",
    ),
    Use("twisted.web._http2:H2Stream", "_conn streamID", "service.outlet", "The same."),
    Use(
        "twisted.internet.epollreactor:EPollReactor",
        "_poller _selectables _doReadOrWrite _disconnectSelectable "
        "_started _justStopped threadCallQueue _newTimedCalls _pendingTimedCalls",
        "reactor",
        "quickepoll does what epoll does.",
    ),
    Use(
        "twisted.internet.tcp:Port",
        "_logger",
        "service.listener",
        "A shortage of descriptors is logged at each connection.",
    ),
    Use(
        "twisted.logger._global:LogBeginner",
        "_temporaryObserver",
        "flask.serving",
        "Needed: it tells if the application has begun logging.",
    ),
    # Autobahn
    Use(SERVER, "_dataReceived", "engineio.websocket.autobahn", "An unusual frame takes 3 us more."),
    Use(
        SERVER,
        "state data current_frame inside_message",
        "engineio.websocket.autobahn",
        "Autobahn reads all frames of each WebSocket.",
    ),
    Use(
        SERVER,
        "_max_message_size_exceeded",
        "engineio.websocket.autobahn",
        "Clients are told the limit of a message's size.",
    ),
    Use(
        SERVER,
        "websocket_version websocket_protocol_in_use websocket_extensions websocket_extensions_in_use "
        "http_request_uri CONFIG_ATTRS log",
        "engineio.websocket.autobahn",
        "Needed: the opening handshake, and the state behind it.",
    ),
    Use(
        SERVER,
        "failedByMe dropConnection sendCloseFrame sendHttpErrorResponse sendData sendFrame "
        "message_data_total_length",
        "engineio.websocket.autobahn",
        "Needed: failures, closing and output.",
    ),
    Use(CLIENT, "_dataReceived", "client.autobahn", "An unusual frame takes 3 us more."),
    Use(
        CLIENT,
        "state data current_frame inside_message",
        "client.autobahn",
        "Autobahn reads all frames of each WebSocket of a client.",
    ),
    Use(
        CLIENT,
        "websocket_extensions_in_use websocket_key wasMaxFramePayloadSizeExceeded "
        "wasMaxMessagePayloadSizeExceeded log",
        "client.autobahn",
        "Needed: the state behind the opening handshake, and the reason of a failure.",
    ),
    Use(
        CLIENT,
        "failedByMe sendCloseFrame onCloseFrame dropConnection sendData sendFrame message_data_total_length "
        "wasNotCleanReason remoteCloseReason CONFIG_ATTRS",
        "client.autobahn",
        "Needed: failures, closing and output.",
    ),
    Use(
        "autobahn.websocket.xormasker",
        "create_xor_masker",
        "engineio.websocket.plain",
        "Needed: removes the mask of large messages without the functions in C.",
    ),
    # The standard library
    Use(
        "json.encoder",
        "c_make_encoder encode_basestring encode_basestring_ascii",
        "socketio.jsontext",
        "json.JSONEncoder writes each event, 0.6 us more.",
    ),
    Use("json:JSONDecoder", "scan_once", "socketio.jsontext", "raw_decode reads each event."),
    Use("socket:socket", "_accept", "workers.sharedport", "Accepting a connection takes 2 us more."),
    # Brokers
    Use(
        "pika.adapters.twisted_connection:TwistedProtocolConnection",
        "_impl",
        "cluster.bus.amqp",
        "The log lacks the broker's reason for closing.",
    ),
    Use(
        "pika.connection:Connection",
        "_error",
        "cluster.bus.amqp",
        "The log lacks the broker's reason for closing.",
    ),
    Use(
        "pika:BlockingConnection",
        "_impl",
        "cluster.bus.amqpblocking",
        "An Emitter waits for the broker without a limit.",
    ),
    Use(
        "pika.adapters.select_connection:SelectConnection",
        "ioloop _transport",
        "cluster.bus.amqpblocking",
        "As for _impl.",
    ),
    Use(
        "pika.adapters.utils.io_services_utils:_AsyncTransportBase",
        "_sock",
        "cluster.bus.amqpblocking",
        "The socket of a broken connection stays open until it is collected.",
    ),
    Use(
        "txredisapi:HiredisProtocol",
        "replyReceived execute_command",
        "cluster.bus.redisconnection",
        "Needed: commands while a connection starts.",
    ),
    Use(
        "txredisapi:HiredisProtocol",
        "auth select sentinel_get_master_addr_by_name",
        "cluster.bus.redis",
        "Needed: commands while a connection starts.",
    ),
    Use(
        "txredisapi",
        "HiredisProtocol InvalidData hiredis",
        "cluster.bus.redisconnection",
        "Needed: the protocol.",
    ),
    # asyncio
    Use("asyncio", "_get_running_loop", "socketio.handler", "Needed, for handlers that are tasks."),
    Use(
        "asyncio:Future",
        "_asyncio_future_blocking",
        "socketio.tasks",
        "Needed: a task takes a Future that `await` gives, by this sign.",
    ),
    # Flask
    Use("werkzeug.local:LocalProxy", "_get_current_object", "flask.contexts", "Needed; Flask documents it."),
    Use("werkzeug.local:LocalProxy", "_get_current_object", "flask.socketio", "Needed; Flask documents it."),
    Use("werkzeug._reloader", "run_with_reloader", "flask.serving", "Needed for run(use_reloader=True)."),
]

OPTIONAL = {"twisted.web._http2"}
"""Modules that need more than the tests do."""

DOCUMENTED = {"_current_frames", "_enter_task", "_exit", "_leave_task", "_replace", "_thread"}
"""Names with an underscore that Python's documentation promises."""

SOURCES = {
    ".".join(path.relative_to(ROOT / "txrealtime").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "txrealtime").rglob("*.py"))
}


def isPrivate(name: str) -> bool:
    """Tell if a name begins with one underscore."""
    return name[:1] == "_" and name[:2] != "__" and name.isidentifier()


def strings(node: ast.AST) -> Iterator[str]:
    """All strings in a piece of source."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def definedIn(tree: ast.AST) -> set[str]:
    """Names that a module gives to its own functions, classes and attributes."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            # An attribute of another object belongs to its library.
            found.update([node.attr] if ast.unparse(node.value) == "self" else [])
        if isinstance(node, ast.Assign) and "__slots__" in ast.unparse(node.targets[0]):
            found.update(strings(node.value))
    return found


def usedIn(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names that a module takes from an object or imports, and if the object is ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            yield node.attr, own
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("txrealtime"):
            yield from ((alias.name, False) for alias in node.names)
            yield from ((part, False) for part in (node.module or "").split("."))
        elif isinstance(node, ast.Call):
            # getattr, hasattr, stands, report
            for argument in [*node.args, *[keyword.value for keyword in node.keywords]]:
                yield from ((text, True) for text in strings(argument) if text.isidentifier())


def has(owner: Any, name: str) -> bool:
    """Tell if a module or class has a name, or methods of the class or its bases set an attribute of it."""
    if hasattr(owner, name):
        return True
    for kind in inspect.getmro(owner) if inspect.isclass(owner) else ():
        with contextlib.suppress(OSError, TypeError):  # written in C
            if name in setIn(ast.parse(textwrap.dedent(inspect.getsource(kind)))):
                return True
    return False


def setIn(tree: ast.AST) -> Iterator[str]:
    """Attributes that a piece of source sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


class TableTests(SynchronousTestCase):
    def test_librariesHaveTheNames(self) -> None:
        """The installed versions have each name.  CI installs the newest ones."""
        for use in TABLE:
            module, _, name = use.owner.partition(":")
            try:
                owner: Any = import_module(module)
            except ImportError as error:
                requirePart(module in OPTIONAL, f"{error}: pip install --group test")
                continue
            if name:
                owner = getattr(owner, name)
            for wanted in use.names.split():
                self.assertTrue(has(owner, wanted), f"{use.owner} has no {wanted}. {use.without}")

    def test_modulesUseTheNames(self) -> None:
        """No row of the table outlives its use."""
        for use in TABLE:
            tree = ast.parse(SOURCES[use.where].read_bytes())
            mentioned = definedIn(tree) | {name for name, _ in usedIn(tree)} | set(strings(tree))
            for name in use.names.split():
                self.assertIn(name, mentioned, f"txrealtime.{use.where} no longer uses {name} of {use.owner}")

    def test_tableIsComplete(self) -> None:
        """Each private name that a module uses is its own, another module's by ``self``, or in the table."""
        trees = {where: ast.parse(path.read_bytes()) for where, path in SOURCES.items()}
        known = {where: definedIn(tree) for where, tree in trees.items()}
        everywhere = set().union(*known.values())
        friends = set().union(*(known[where] for where in FRIENDS))
        listed = {(use.where, name) for use in TABLE for name in use.names.split()}
        listed |= {(use.where, part) for use in TABLE for part in use.owner.partition(":")[0].split(".")}
        for where, tree in trees.items():
            for name, own in usedIn(tree):
                if isPrivate(name) and name not in DOCUMENTED and (where, name) not in listed:
                    ours = everywhere | FIELDS if own else known[where] | OTHERS.get(where, set()) | friends
                    self.assertIn(
                        name, ours, f"txrealtime.{where} uses {name}: add it to the table, or avoid it"
                    )


FIELDS = {"_placeholder", "_permanent", "_version", "_made", "_total"}
"""Strings with an underscore that name no attribute of a library."""

FRIENDS = ["socketio.namespace", "socketio.sockets", "socketio.audience", "server"]
"""Modules whose classes are held by users: their internals have an underscore, for other modules as well."""

OTHERS: dict[str, set[str]] = {"": {"_version"}, "service.options": {"_version"}}
"""Module -> private names of other modules of this project."""


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(foreign, "_reported", set())

    def told(self, events: list[LogEvent]) -> list[str]:
        return [textOf([event]) for event in events if "missing" in event]

    def test_stands(self) -> None:
        with capturedLogs() as events:
            self.assertTrue(foreign.stands(json, "loads", without="nothing works"))
        self.assertEqual(self.told(events), [])

    def test_gone(self) -> None:
        """Each loss has one line in the log, and no more."""
        with capturedLogs() as events:
            for _ in range(3):
                self.assertFalse(foreign.stands(json, "loads", "_a", "_b", without="loading is slow"))
                self.assertFalse(foreign.stands(Link, "_c", without="nothing"))
        one, other = self.told(events)
        self.assertIn("json has no _a and _b any more: loading is slow.", one)
        self.assertIn("tests.memory.Link has no _c any more", other)


class OrdinaryPathTests(WireTestCase):
    """Clients of an engine for which every check says that a name is gone."""

    def setUp(self) -> None:
        self.patch(foreign, "_reported", set())
        for module in (autobahn, site):
            self.patch(module, "stands", lambda owner, *names, without: False)
        self.patch(site, "_Wrapper", None)
        # A Link has none of the attributes that directSend() reads.
        self.patch(tcp, "_PLAIN", frozenset([Link]))
        super().setUp()

    def play(self) -> None:
        client = self.openWebSocket()
        client.send("4hello")
        self.session.send("welcome")
        self.assertEqual(client.messages(), ["4welcome"])
        client.sendFrame(1, b"4to", fin=False)
        client.sendFrame(0, b"gether")
        client.send("4again")
        self.assertEqual(self.owner.heard, ["hello", "together", "again"])
        sid = self.openPolling()
        self.assertEqual(self.post(sid, b"4hello").answer.body, b"ok")
        self.session.send("welcome")
        self.assertEqual(self.get(sid).payload, [b"4welcome"])
        upgraded = self.upgrade(sid)
        upgraded.send("4bye")
        self.assertEqual(self.owner.heard, ["hello", "bye"])

    def test_siteOfUsers(self) -> None:
        with capturedLogs() as events:
            self.play()
        self.assertEqual(textOf(events).count("has no"), 1)
        self.assertIn("tests.memory.Link has no dataBuffer and _tempDataBuffer and socket", textOf(events))

    def test_siteOfOurs(self) -> None:
        self.fastPath = True
        self.makeEngine()
        self.play()

    def test_twistedWebAlone(self) -> None:
        self.fastPath = True
        self.makeEngine(shortWays=False, maxPayload=100)
        self.play()
        sid = self.openPolling()
        self.assertEqual(self.post(sid, b"4" + b"x" * 100).answer.status, 413)

    def test_autobahnStays(self) -> None:
        """Without names that tell how far it has read, Autobahn reads to the end."""
        client = self.openWebSocket()
        client.send("4hello")
        self.assertIsNotNone(client.link.protocol._autobahn)
        unopened = self.engine.webSockets.makeAutobahn(client.link.protocol)
        self.assertFalse(hasattr(unopened, "current_frame"))
        self.assertFalse(unopened.isBetweenMessages)

    def test_noHTTP2(self) -> None:
        self.fastPath = True
        self.makeEngine()
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])


class LeaseTests(WireTestCase):
    """The connection of a user's site."""

    def opened(self) -> Link:
        link = Link().connect(self.site)
        link.deliver(self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling"))
        response, _ = readResponse(link.take())
        assert response is not None and response.status == 200
        return link

    def test_wrapperWithoutChannel(self) -> None:
        wrapper = type("Wrapper", (), {"__module__": "twisted.web.http"})
        self.patch(lease, "currentProtocol", lambda transport: wrapper())
        self.patch(foreign, "_reported", set())
        with capturedLogs() as events:
            link = self.opened()
        self.assertNotIsInstance(link.protocol, EngineChannel)
        self.assertIn("twisted.web.http.Wrapper has no _channel any more", textOf(events))

    def test_noWrapper(self) -> None:
        """Without support for HTTP/2, the channel is the protocol."""
        self.patch(lease, "currentProtocol", lambda transport: transport.protocol._channel)
        self.assertIsInstance(self.opened().protocol, EngineChannel)


class JSONTests(SynchronousTestCase):
    """The same text, and the same values, by documented means."""

    def setUp(self) -> None:
        self.usual = jsontext.JSONText(accelerated=False)
        self.patch(jsontext, "_MAKES_ENCODERS", False)
        self.plain = jsontext.JSONText(accelerated=False)

    def test_encode(self) -> None:
        for data in (
            ["echo", "x" * 64, 1.5, None, True, {"a": [1, (2,)]}],
            ["long", "x" * 1000, "€" * 1000],
            ["lone", "\ud800"],
            ["bytes", b"1", {"more": b"2"}],
            [],
        ):
            self.assertEqual(self.plain.encode(data), self.usual.encode(data))

    def test_refused(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        for data in ([float("nan")], [object()], [{object(): 1}], circle):
            with self.assertRaises((TypeError, ValueError)) as usual:
                self.usual.encode(data)
            with self.assertRaises((TypeError, ValueError)) as plain:
                self.plain.encode(data)
            self.assertEqual(str(plain.exception), str(usual.exception))

    def test_decode(self) -> None:
        texts = [
            '["a",1,{"b":[]}]',
            " [1] ",
            '2["a"]',
            "[NaN]",
            "[1",
            "",
            " ",
            "[1] x",
            "[" * 100_000,
            "[1e999]",
        ]
        usual = [self.decoded(text) for text in texts]
        self.patch(jsontext, "_scan", jsontext._plainScan)
        self.assertEqual([self.decoded(text) for text in texts], usual)

    def decoded(self, text: str) -> Any:
        try:
            return self.plain.decode(text, 1 if text[:1] == "2" else 0)
        except ValueError:
            return ValueError


class RenamedTests(SynchronousTestCase):
    def test_librariesHaveTheNames(self) -> None:
        """The names that tests/renamed.py takes away exist."""
        for package, names in NAMES.items():
            (folder,) = import_module(package).__path__
            text = "\n".join(path.read_text("utf-8") for path in Path(folder).rglob("*.py"))
            for name in names:
                self.assertRegex(text, rf"\b{name}\b", package)
