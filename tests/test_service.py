"""
The command line of `twistd realtime` and the services that it makes, without processes and without a network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from dataclasses import fields
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IServiceCollection, loadApplication
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest
from zope.interface import implementer

import txrealtime.service
from tests.support import ROOT
from txrealtime import Server, Settings
from txrealtime.cluster.bus.address import Address
from txrealtime.files import Folder
from txrealtime.monitor.health import Health, Live, Ready
from txrealtime.service import Options, RealtimeService, StartupError, certificates, makeService, signals
from txrealtime.service.application import load, rootOf, serverOf
from txrealtime.service.front import Front
from txrealtime.service.metrics import metricsOf
from txrealtime.service.supervised import SupervisedService
from txrealtime.service.wsgi import Views
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.socketio.packet import JSONParser, Packet, PacketType
from txrealtime.testing import Client, MemoryBus, MemoryHub, makeServer
from txrealtime.workers.listening import openPorts


def _noPorts(reactor: Any, description: str, failed: Any) -> list[Any]:
    """Open no ports, as an endpoint that reads standard input."""
    return []


def parse(*arguments: str) -> Options:
    """Parse a command line."""
    options = Options()
    options.parseOptions(list(arguments))
    return options


class ServiceTestCase(SynchronousTestCase):
    """
    Tests that may look into what is logged, and that start in a folder of their own.

    :ivar messages: what was logged, as text.
    """

    def setUp(self) -> None:
        self.messages: list[str] = []
        globalLogPublisher.addObserver(self._logged)
        self.addCleanup(globalLogPublisher.removeObserver, self._logged)
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.patch(sys, "path", [path for path in sys.path if path])
        known = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in sys.modules.keys() - known])

    def _logged(self, event: LogEvent) -> None:
        self.messages.append(formatEvent(event))

    def write(self, name: str, text: str) -> None:
        """Write a file into the current folder."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def module(self, **content: Any) -> None:
        """Let there be a module `served`."""
        module = ModuleType("served")
        module.__dict__.update(content)
        sys.modules["served"] = module

    def assertRefused(self, function: Any, *arguments: Any) -> str:
        """The message on standard error with which something is refused, without the program's name."""
        error = self.assertRaises(StartupError, function, *arguments)
        # Python shows the code of a SystemExit, and ends with code 1 when it is a text.
        self.assertEqual(error.code, str(error))
        name, _, message = str(error).partition(": ")
        self.assertEqual(name, "twistd realtime")
        return message

    def assertOneLine(self, wanted: str, function: Any, *arguments: Any) -> None:
        message = self.assertRefused(function, *arguments)
        self.assertIn(wanted, message)
        self.assertEqual(len(message.splitlines()), 1, message)


class OptionsTests(ServiceTestCase):
    def test_nothingGiven(self) -> None:
        options = parse()
        self.assertEqual(options["settings"], {})
        self.assertEqual(options["listen"], [])
        self.assertEqual([options[name] for name in ("app", "static", "wsgi", "path")], [None] * 4)

    def test_allowEIO3(self) -> None:
        """Its name is that of Node's, as an option is written."""
        self.assertEqual(parse("--allow-eio3")["settings"], {"allowEIO3": True})

    def test_parser(self) -> None:
        for name, kind in (("json", JSONParser), ("msgpack", MsgpackParser)):
            self.assertIsInstance(serverOf(parse("--parser", name)).parser, kind)

    def test_parserOfAnApplication(self) -> None:
        """The parser is replaced in existing namespaces, too."""
        module = ModuleType("served")
        module.server = server = Server()  # type: ignore[attr-defined]
        lobby = server.namespace("/lobby")
        sys.modules["served"] = module
        self.addCleanup(sys.modules.pop, "served")
        serverOf(parse("--app", "served:server", "--parser", "msgpack"))
        [message] = lobby._encode(Packet(PacketType.DISCONNECT, "/lobby"))
        self.assertTrue(message.isBinary)

    def test_unknownParser(self) -> None:
        error = self.assertRaises(StartupError, parse, "--parser", "xml")
        self.assertIn("--parser xml: expected json or msgpack", str(error))

    def test_parserNotInstalled(self) -> None:
        for name in ("msgpack", "txrealtime.socketio.msgpack"):
            self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
        sys.modules["msgpack"] = None  # type: ignore[assignment]
        error = self.assertRaises(StartupError, serverOf, parse("--parser", "msgpack"))
        self.assertIn("pip install txrealtime[msgpack]", str(error))

    def test_listenRepeats(self) -> None:
        self.assertEqual(parse("--listen", "tcp:1", "--listen=unix:x")["listen"], ["tcp:1", "unix:x"])

    def test_eachSettingIsAnOption(self) -> None:
        """Whatever its kind, it ends up in Settings with the value given."""
        for field in fields(Settings):
            words = re.sub("[A-Z]+", lambda capitals: f"-{capitals[0].lower()}", field.name)
            if isinstance(field.default, bool):
                given, value = [f"--{'no-' if field.default else ''}{words}"], not field.default
            elif isinstance(field.default, tuple):
                singular = {
                    "origins": "origin",
                    "trusted-proxies": "trusted-proxy",
                    "transports": "transport",
                }
                text = {"origins": "https://a.example", "transports": "polling"}.get(words, "10.0.0.0/8")
                given, value = [f"--{singular[words]}", text], (text,)
            else:
                texts = {"publicURL": "https://a.example", "recovery": "all"}
                value = texts.get(field.name, type(field.default)(7))
                given = [f"--{words}", str(value) if isinstance(value, str) else "7"]
            settings = parse(*given)["settings"]
            self.assertEqual(settings, {field.name: value})
            self.assertIs(type(settings[field.name]), type(field.default))

    def test_fractions(self) -> None:
        self.assertEqual(parse("--ping-interval", "0.3")["settings"], {"pingInterval": 0.3})

    def test_repeated(self) -> None:
        options = parse("--origin", "https://a.example", "--origin", "https://b.example")
        self.assertEqual(options["settings"], {"origins": ("https://a.example", "https://b.example")})

    def test_bothWords(self) -> None:
        """An option that the application has switched on can be switched off, whatever the default."""
        self.assertEqual(parse("--no-per-message-deflate")["settings"], {"perMessageDeflate": False})
        options = parse("--no-allow-upgrades", "--allow-upgrades")
        self.assertEqual(options["settings"], {"allowUpgrades": True})

    def test_workers(self) -> None:
        """As many as asked for, or one for each core that the process may use."""
        self.assertIsNone(parse()["workers"])
        options = parse("--workers", "3", "--hang-timeout", "5.5", "--max-rss", "2G", "--listen", "tcp:1")
        self.assertEqual((options["workers"], options["hangTimeout"]), (3, 5.5))
        self.assertEqual(options["maxRSS"], 2 << 30)
        self.assertEqual(options["arguments"][-2:], ["--listen", "tcp:1"])
        self.patch(os, "sched_getaffinity", lambda pid: {0, 2, 5})
        self.assertEqual(parse("--workers", "auto")["workers"], 3)

    def test_workersAreSupervised(self) -> None:
        """The supervisor runs no code of the application, and makes no server."""
        self.write("shop.py", "raise AssertionError('imported')")
        service = makeService(parse("--workers", "2", "--app", "shop:server"), MemoryReactorClock())
        self.assertIsInstance(service, SupervisedService)
        self.assertNotIn("shop", sys.modules)

    def test_endpointsOfWorkers(self) -> None:
        """A string that makes no port to share is told before a worker starts."""
        for text, wanted in (
            ("pigeon:8000", "--listen pigeon:8000: Unknown endpoint type: 'pigeon'"),
            ("stdio:", "--listen stdio:: workers cannot share this kind of endpoint, use tcp:8000"),
        ):
            self.patch(sys, "__stderr__", StringIO())
            service = makeService(parse("--workers", "2", "--listen", text), MemoryReactorClock())
            with patch(
                "txrealtime.service.supervised.openPorts", _noPorts if text == "stdio:" else openPorts
            ):
                error = self.assertRaises(StartupError, service.privilegedStartService)
            self.assertEqual(error.code, 1)
            self.assertIn(wanted, sys.__stderr__.getvalue())  # type: ignore[union-attr]

    def test_refusals(self) -> None:
        for arguments, wanted in [
            (["--ping-interval", "soon"], "--ping-interval soon: expected a number"),
            (["--ping-interval", "inf"], "--ping-interval inf: expected a number"),
            (
                ["--ping-interval", "-1"],
                "--ping-interval -1: pingInterval is -1.0, expected a number above 0",
            ),
            (["--max-payload", "1.5"], "--max-payload 1.5: expected a whole number"),
            (["--origin", "example"], "--origin example: origin 'example', expected a form like"),
            (["--trusted-proxy", "proxy"], "--trusted-proxy proxy: trustedProxies has 'proxy'"),
            (["--transport", "pigeon"], "--transport pigeon: transports is ('pigeon',), expected"),
            (["--allow-upgrades=no"], "--allow-upgrades must not have an argument"),
            (["--pings"], "--pings not recognized"),
            (["--app"], "--app requires argument"),
            (["chat:server"], "'chat:server' is not an option"),
            (["--static", "nowhere"], "--static nowhere: there is no such folder"),
            (["--static", ".", "--wsgi", "shop:app"], "--static and --wsgi both serve /"),
            (["--wsgi-threads", "0"], "--wsgi-threads 0: expected a whole number above 0"),
            (["--wsgi-threads", "many"], "--wsgi-threads many: expected a whole number above 0"),
            (["--workers", "0"], "--workers 0: expected auto, or a number from 1 to 256"),
            (["--workers", "257"], "--workers 257: expected auto, or a number from 1 to 256"),
            (["--workers", "all"], "--workers all: expected auto, or a number from 1 to 256"),
            (["--workers", "2", "--hang-timeout", "-1"], "--hang-timeout -1: expected a number of seconds"),
            (["--workers", "2", "--hang-timeout", "no"], "--hang-timeout no: expected a number"),
            (["--workers", "2", "--max-rss", "500"], "--max-rss 500: expected a size, such as 500M or 2G"),
            (["--max-rss", "500M"], "--hang-timeout and --max-rss are for workers: give --workers too"),
            (["--health", "/"], "--health /: expected a path, such as /health"),
            (["--health", "/he alth"], "--health /he alth: expected the path of a URL"),
            (["--path", "/a?b"], "--path /a?b: expected the path of a URL"),
            (["--path", "/a\r\nb"], r"--path /a\r\nb: expected the path of a URL"),
            (
                ["--cookie", "a\r\nX-Inj: y"],
                r"--cookie a\r\nX-Inj: y: cookie is 'a\r\nX-Inj: y', expected a name",
            ),
            (["--cookie", "a b;c"], "expected a name of letters, digits and"),
            (["--bus", "redis://host?dialect=java"], "--bus: dialect=java: expected native, node"),
            (["--bus", "unix:"], "--bus: the URL of the hub names no file: expected unix:/PATH"),
            (["--hub", "/run/" + "x" * 99], "--hub /run/xxxx"),
            (["--hub", "/a", "--bus", "unix:/b"], "or give unix:/a with ?key= or ?dialect="),
            (["--bus", "redis://host", "--hub", "/a"], "only with --workers the hub stands before"),
            (["--bus", "unix:/b", "--hub", "/a", "--workers", "2"], "the hub stands before another bus"),
        ]:
            self.assertOneLine(wanted, parse, *arguments)

    def test_hub(self) -> None:
        """Without a bus of its own, the server's bus is the hub."""
        os.chdir("/")
        for arguments, bus in (
            (["--hub", "run/a b?.hub"], "unix:/run/a%20b%3F.hub"),
            (["--hub", "/a", "--bus", "unix:/a?key=x"], "unix:/a?key=x"),
        ):
            options = parse(*arguments)
            self.assertEqual(options["bus"], bus)
            self.assertEqual(Address.fromURL(bus.partition("?")[0]).path, options["hub"])

    def test_staticIsAbsolute(self) -> None:
        """As twistd may go elsewhere."""
        (self.folder / "public").mkdir()
        self.assertEqual(parse("--static", "public")["static"], str(self.folder / "public"))

    def printed(self, option: str) -> str:
        """Return the output of an option, which ends the program well."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        self.assertEqual(self.assertRaises(SystemExit, parse, option).code, 0)
        return output.getvalue()

    def test_help(self) -> None:
        self.patch(os, "environ", {**os.environ, "COLUMNS": "80"})
        shown = self.printed("--help")
        self.assertLessEqual(max(map(len, shown.splitlines())), 80)
        lines = [line.split()[0] for line in shown.splitlines() if line.startswith("  --")]
        self.assertEqual(len(lines), len(set(lines)))
        offered = {line.removeprefix("--").removeprefix("[no-]") for line in lines}
        known = {name.rstrip("=").removeprefix("no-") for name in Options().longOpt}
        self.assertEqual(offered, known)
        self.assertNotIn("Other settings", shown)
        for field in fields(Settings):
            self.assertIn(field.metadata["help"].split(",")[0].split()[0], shown)
        for example in ("--ping-interval SECONDS", "(default: 25)", "(default: 1000000)", "Examples:"):
            self.assertIn(example, shown)

    def test_version(self) -> None:
        self.assertIn(f"txrealtime {txrealtime.__version__}, Twisted ", self.printed("--version"))


class LoadTests(ServiceTestCase):
    def test_fromTheCurrentFolder(self) -> None:
        self.write("shop.py", "class things:\n    one = 1")
        self.write("pack/inside.py", "two = 2")
        self.assertEqual(load("--app", "shop:things.one"), 1)
        self.assertEqual(load("--app", "pack.inside:two"), 2)
        self.assertEqual(sys.path.count(str(self.folder)), 1)

    def test_refusals(self) -> None:
        self.write("shop.py", "one = 1")
        for name, wanted in [
            ("shop", "expected MODULE:NAME"),
            (":shop", "expected MODULE:NAME"),
            ("shop:", "expected MODULE:NAME"),
            (".shop:one", "expected MODULE:NAME"),
            ("shop:two", "shop has no two"),
            ("shop:one.two", "shop has no one.two"),
            ("shoe:one", f"No module named 'shoe' (sought in {self.folder} and on PYTHONPATH)"),
            ("shoe.box:one", "No module named 'shoe'"),
            ("shop.box:one", "No module named 'shop.box'; 'shop' is not a package"),
        ]:
            self.assertOneLine(f"--app {name}: {wanted}", load, "--app", name)

    def failingModule(self, text: str) -> list[str]:
        self.write("shop.py", text)
        lines = self.assertRefused(load, "--wsgi", "shop:app").splitlines()
        self.assertEqual(lines[0], "--wsgi shop:app: shop failed")
        return lines[1:]

    def test_whatTheApplicationImportsIsMissing(self) -> None:
        """Told apart from a missing application, and it is shown where."""
        lines = self.failingModule("import shoe")
        self.assertEqual(lines[0], f'  File "{self.folder}/shop.py", line 1, in <module>')
        self.assertEqual(lines[-1], "ModuleNotFoundError: No module named 'shoe'")

    def test_theApplicationFails(self) -> None:
        lines = self.failingModule("def price():\n    return 1 / 0\n\nprice()")
        self.assertEqual(
            [line for line in lines if "File" in line],
            [
                f'  File "{self.folder}/shop.py", line 4, in <module>',
                f'  File "{self.folder}/shop.py", line 2, in price',
            ],
        )
        self.assertEqual(lines[-1], "ZeroDivisionError: division by zero")

    def test_theApplicationExits(self) -> None:
        """sys.exit() in a module would end twistd, with the application's code and without a word."""
        for number, (code, shown) in enumerate([("", ""), ("0", "0"), ("3", "3"), ("'usage'", "'usage'")]):
            self.write(f"shop{number}.py", f"import sys\nsys.exit({code})")
            name = f"shop{number}:app"
            wanted = (
                f"--app {name}: shop{number} called sys.exit({shown}): keep code for the command line below"
            )
            self.assertOneLine(wanted, load, "--app", name)

    def test_theApplicationRaisesAnything(self) -> None:
        """An exception beside Exception, as asyncio's for a cancelled task, is an error; Ctrl-C is not."""
        self.write("shop.py", "import asyncio\nraise asyncio.CancelledError()")
        lines = self.assertRefused(load, "--app", "shop:app").splitlines()
        self.assertEqual(lines[0], "--app shop:app: shop failed")
        self.assertEqual(lines[-1], "asyncio.exceptions.CancelledError")
        self.write("called.py", "def make():\n    raise GeneratorExit('early')")
        lines = self.assertRefused(serverOf, parse("--app", "called:make")).splitlines()
        self.assertEqual(lines[0], "--app called:make: the call failed")
        self.assertEqual(lines[-1], "GeneratorExit: early")
        self.write("stopped.py", "raise KeyboardInterrupt\ndef make(): raise KeyboardInterrupt")
        self.assertRaises(KeyboardInterrupt, load, "--app", "stopped:app")
        self.write("stopped2.py", "def make():\n    raise KeyboardInterrupt")
        self.assertRaises(KeyboardInterrupt, serverOf, parse("--app", "stopped2:make"))

    def test_milliseconds(self) -> None:
        """A time that was meant in milliseconds is warned of once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            serverOf(parse("--ping-interval", "25000"))
        (warning,) = caught
        self.assertEqual(str(warning.message), "pingInterval is 25000.0: times are in seconds")

    def test_theApplicationIsNoPython(self) -> None:
        lines = self.failingModule("def price(:")
        self.assertEqual(lines[0], f'  File "{self.folder}/shop.py", line 1')
        self.assertIn("SyntaxError", lines[-1])


class ServerTests(ServiceTestCase):
    """
    The server that the command line names.
    """

    def test_server(self) -> None:
        server = Server("/talk", pingInterval=3)
        self.module(server=server)
        self.assertIs(serverOf(parse("--app", "served:server")), server)
        self.assertEqual((server.path, server.settings), ("/talk", Settings(pingInterval=3)))

    def test_callable(self) -> None:
        server = Server()
        self.module(make=lambda **settings: server)
        self.assertIs(serverOf(parse("--app", "served:make")), server)

    def test_theCommandLineWins(self) -> None:
        """And leaves alone what it does not name."""
        self.module(server=Server("/talk", pingInterval=3, pingTimeout=4, origins=["https://a.example"]))
        arguments = ["--ping-interval", "5", "--origin", "https://b.example", "--path", "walk/"]
        server = serverOf(parse("--app", "served:server", *arguments))
        self.assertEqual(server.path, "/walk")
        self.assertEqual(
            server.settings, Settings(pingInterval=5, pingTimeout=4, origins=("https://b.example",))
        )
        self.assertIs(server.engine.settings, server.settings)

    def test_bus(self) -> None:
        self.module(server=(server := Server()))
        serverOf(parse("--app", "served:server", "--bus", "redis://h/2?dialect=python-socketio&channel=x"))
        self.assertEqual(server.cluster.dialect.name, "python-socketio")
        self.assertEqual(server.cluster.status, "stopped")
        self.assertEqual(serverOf(parse("--bus", "redis://host")).cluster.status, "stopped")

    def test_tac(self) -> None:
        """tac/cluster.tac makes an application of a server on a bus and of what listens."""
        application = loadApplication(str(ROOT / "tac" / "cluster.tac"), "python")
        server, listener = IServiceCollection(application)
        self.assertEqual((type(server), server.cluster.status), (Server, "stopped"))
        self.assertEqual(type(listener), StreamServerEndpointService)

    def test_noBus(self) -> None:
        """Errors do not show the password."""
        for url in (
            "redis://:secret@h?dialect=x",
            "http://:secret@h",
            "redis://:secret@h/x",
            "amqp://:secret@h?key=",
        ):
            message = self.assertRefused(lambda url=url: serverOf(parse("--bus", url)))
            self.assertNotIn("secret", message)
            self.assertEqual(len(message.splitlines()), 1, message)

    def test_workersMetricsNotInstalled(self) -> None:
        with patch.dict(sys.modules, {"txrealtime.monitor.metrics": None}):
            options = parse("--workers", "2", "--metrics", "/metrics")
            self.assertOneLine("pip install txrealtime[metrics]", makeService, options, Clock())

    def test_workersMetricsListen(self) -> None:
        """A string that makes no endpoint is refused before any worker starts."""
        options = parse("--workers", "2", "--metrics-listen", "nothing:x")
        self.assertOneLine("--metrics-listen nothing:x", makeService, options, Clock())

    def test_workersOptions(self) -> None:
        """The options of logs and metrics go to the workers."""
        for option in (
            ["--trace-packets", "all"],
            ["--log-format", "json"],
            ["--log-level", "warn"],
            ["--metrics", "/metrics"],
            ["--metrics-listen", "tcp:1"],
        ):
            makeService(parse("--workers", "2", *option), Clock())

    def test_busNotInstalled(self) -> None:
        # In the dictionary itself: the import system has its own reference to that.
        with patch.dict(sys.modules, {"txrealtime.cluster.bus.redis": None}):
            self.assertOneLine("pip install txrealtime[redis]", serverOf, parse("--bus", "redis://host"))

    def test_inUseAlready(self) -> None:
        """Settings that would come too late are refused; without any, such a server is served."""
        server = Server(reactor=Clock())
        server.resource()
        self.module(server=server)
        self.assertIs(serverOf(parse("--app", "served:server")), server)
        options = parse("--app", "served:server", "--ping-interval", "5")
        self.assertOneLine("--app served:server: the server is in use", serverOf, options)

    def test_notAServer(self) -> None:
        self.module(number=3, make=lambda: "text")
        for name, kind in (("number", "int"), ("make", "str")):
            expected = "expected a Server, a SocketIO, or a callable that returns one"
            wanted = f"--app served:{name}: {expected}, not {kind}"
            self.assertOneLine(wanted, serverOf, parse("--app", f"served:{name}"))

    def test_theCallFails(self) -> None:
        self.write("shop.py", "def make():\n    return {}['key']")
        lines = self.assertRefused(serverOf, parse("--app", "shop:make")).splitlines()
        self.assertEqual(lines[0], "--app shop:make: the call failed")
        self.assertEqual(lines[-1], "KeyError: 'key'")

    def test_theCallExits(self) -> None:
        self.write("shop.py", "import sys\ndef make():\n    sys.exit(3)")
        self.assertOneLine(
            "--app shop:make: the call called sys.exit(3)", serverOf, parse("--app", "shop:make")
        )

    def test_theChat(self) -> None:
        server = serverOf(parse("--ping-interval", "5", "--path", "/talk"))
        self.assertEqual((server.path, server.settings), ("/talk", Settings(pingInterval=5)))
        self.assertEqual(type(server.namespace("/")).__name__, "Chat")


class RootTests(ServiceTestCase):
    """
    The root resource, at /.
    """

    def rootOf(self, *arguments: str) -> tuple[Any, str]:
        options = parse(*arguments)
        return rootOf(options, serverOf(options), MemoryReactorClock())

    def test_nothing(self) -> None:
        self.module(server=Server())
        root, name = self.rootOf("--app", "served:server")
        self.assertEqual((type(root), name), (Front, ""))

    def test_theChat(self) -> None:
        root, name = self.rootOf("--path", "/talk")
        self.assertEqual(name, "the chat")
        self.assertIn(b'"/talk"', root.getChildWithDefault(b"", DummyRequest([b""])).data)

    def test_pathHidesThePages(self) -> None:
        """At / Socket.IO would answer for all pages; without pages it may be there."""
        self.write("public/index.html", "page")
        self.module(server=Server(), app=lambda environment, start: [b"hello"])
        for path in ("", "/"):
            self.assertOneLine("--path /: Socket.IO would hide the chat", self.rootOf, "--path", path)
            arguments = ("--app", "served:server", "--path", path)
            self.assertOneLine("would hide", self.rootOf, *arguments, "--static", "public")
            self.assertOneLine("would hide served:app", self.rootOf, *arguments, "--wsgi", "served:app")
            self.assertEqual(self.rootOf(*arguments)[1], "")

    def test_healthBelowSocketIO(self) -> None:
        self.module(server=Server())
        for path, health in (
            ("/socket.io", "/socket.io"),
            ("/socket.io", "socket.io/health/"),
            ("/a/b", "/a/b/health"),
            ("/", "/health"),
        ):
            arguments = ("--app", "served:server", "--path", path, "--health", health)
            self.assertOneLine(
                f"--health {health}: Socket.IO answers at {path} and below", self.rootOf, *arguments
            )
        self.rootOf("--app", "served:server", "--path", "/socket.io", "--health", "/socket.iota")

    def test_probes(self) -> None:
        """Before --static and --wsgi, beside --health."""
        self.write("public/index.html", "page")
        self.module(server=Server(), app=lambda environment, start: [b"hello"])
        for pages in ((), ("--static", "public"), ("--wsgi", "served:app")):
            root, _ = self.rootOf("--app", "served:server", "--probes", "--health", "/health", *pages)
            self.assertIsInstance(root.getChild(b"livez", DummyRequest([])), Live)
            self.assertIsInstance(root.getChild(b"readyz", DummyRequest([])), Ready)
            request: Any = DummyRequest([b"health"])
            self.assertIsInstance(root.getChildWithDefault(b"health", request), Health)
        root, _ = self.rootOf("--app", "served:server", "--static", "public")
        self.assertEqual(self.get(root, b"livez"), 404)

    def test_metrics(self) -> None:
        self.module(server=Server(reactor=Clock()), app=lambda environment, start: [b"hello"])
        options = parse("--app", "served:server", "--metrics", "/metrics", "--wsgi", "served:app")
        server = serverOf(options)
        self.assertIsNotNone(metricsOf(options, server))
        root: Any = rootOf(options, server, MemoryReactorClock())[0]
        self.assertIs(root.getChild(b"metrics", DummyRequest([])), options["metricsPage"])

    def test_noMetrics(self) -> None:
        self.module(server=Server(reactor=Clock()))
        options = parse("--app", "served:server")
        self.assertIsNone(metricsOf(options, serverOf(options)))

    def test_metricsBelowSocketIO(self) -> None:
        self.module(server=Server(reactor=Clock()))
        options = parse("--app", "served:server", "--metrics", "/socket.io/metrics")
        server = serverOf(options)
        metricsOf(options, server)
        self.assertOneLine(
            "--metrics /socket.io/metrics: Socket.IO answers at", rootOf, options, server, None
        )

    def test_metricsNotInstalled(self) -> None:
        self.module(server=Server(reactor=Clock()))
        for arguments in (("--metrics", "/metrics"), ("--metrics-listen", "tcp:9090")):
            options = parse("--app", "served:server", *arguments)
            with patch.dict(sys.modules, {"txrealtime.monitor.metrics": None}):
                self.assertOneLine("pip install txrealtime[metrics]", metricsOf, options, serverOf(options))

    def test_probesBelowSocketIO(self) -> None:
        self.module(server=Server())
        for path in ("/", "/livez", "/readyz"):
            self.module(server=Server())
            arguments = ("--app", "served:server", "--path", path, "--probes")
            self.assertOneLine("give another --path", self.rootOf, *arguments)
        self.module(server=Server())
        for health in ("livez", "/readyz/"):
            arguments = ("--app", "served:server", "--health", health, "--probes")
            self.assertOneLine(f"--health {health}: --probes answers at /", self.rootOf, *arguments)

    def test_wsgi(self) -> None:
        self.module(server=Server(), app=lambda environment, start: [b"hello"], number=3)
        root, name = self.rootOf("--app", "served:server", "--wsgi", "served:app")
        self.assertEqual((type(root), name, root.threads.size), (Views, "served:app", 64))
        root, _ = self.rootOf("--app", "served:server", "--wsgi", "served:app", "--wsgi-threads", "3")
        self.assertEqual(root.threads.size, 3)
        wanted = "--wsgi served:number: expected a WSGI application, not int"
        self.assertOneLine(wanted, self.rootOf, "--wsgi", "served:number")

    def get(self, root: Any, *path: bytes) -> bytes | int:
        """Return the content of a folder at a path, or the status."""
        request: Any = DummyRequest(list(path))
        resource = root
        while request.postpath:
            resource = resource.getChildWithDefault(request.postpath.pop(0), request)
        resource.render(request)
        return request.responseCode if request.responseCode == 404 else b"".join(request.written)

    def test_health(self) -> None:
        hub, clock = MemoryHub(), Clock()
        server = Server(bus=MemoryBus(hub), reactor=clock)
        self.module(server=server, app=lambda environment, start: [b"hello"])
        arguments = ("--app", "served:server", "--health", "/is/ready", "--wsgi", "served:app")
        root, _ = self.rootOf(*arguments)

        def answer() -> tuple[int, Any]:
            request: Any = DummyRequest([b"is", b"ready"])
            # As twisted.web does: a Beside takes more than one part of the path.
            request.prepath = [request.postpath.pop(0)]
            request.render(root.getChild(b"is", request))
            return request.responseCode, json.loads(b"".join(request.written))

        self.assertEqual(answer(), (503, {"status": "stopped", "clients": 0, "servers": 0}))
        server.startService()
        self.assertEqual(answer()[1]["status"], "connecting")
        for _ in range(9):
            clock.advance(0)
        self.assertEqual(answer(), (200, {"status": "ready", "clients": 0, "servers": 0}))
        hub.stop()
        self.assertEqual(answer(), (503, {"status": "deaf", "clients": 0, "servers": 0}))

    def test_healthAlone(self) -> None:
        self.module(server=(server := makeServer()))
        root, _ = self.rootOf("--app", "served:server", "--health", "health")
        request: Any = DummyRequest([])
        request.render(root.getChild(b"health", request))
        self.assertEqual(request.responseCode, 200)
        self.assertEqual(json.loads(b"".join(request.written))["status"], "alone")
        self.assertNotIsInstance(root.getChild(b"other", DummyRequest([])), Health)
        server.stopService()

    def test_static(self) -> None:
        (self.folder / "public" / "deep").mkdir(parents=True)
        for name in ("index.html", "a b.txt", "unknown", ".hidden", ".well-known"):
            self.write(f"public/{name}", name)
        self.write("secret", "secret")
        root, name = self.rootOf("--static", "public")
        self.assertEqual(name, str(self.folder / "public"))
        self.assertEqual(type(root), Folder)
        self.assertEqual(self.get(root, b""), b"index.html")
        self.assertEqual(self.get(root, b"a b.txt"), b"a b.txt")
        self.assertEqual(self.get(root, b".well-known"), b".well-known")
        for path in ([b".hidden"], [b"deep", b""], [b"..", b"secret"], [b"../secret"], [b"nothing"]):
            self.assertEqual(self.get(root, *path), 404, path)
        for path in ([b"\xff"], [b"index.html\0"], [b"deep", b".."]):
            self.assertEqual(self.get(root, *path), 404, path)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unknownFilesAreNoPages(self) -> None:
        self.write("public/unknown", "<script>")
        root, _ = self.rootOf("--static", "public")
        request: Any = DummyRequest([])
        root.getChildWithDefault(b"unknown", request).render(request)
        self.assertEqual(request.responseHeaders.getRawHeaders("content-type"), ["application/octet-stream"])


@implementer(IStreamServerEndpoint)
class SlowEndpoint:
    """An endpoint that waits until `listening` is fired."""

    def __init__(self) -> None:
        self.listening: Deferred[Any] = Deferred()

    def listen(self, factory: Any) -> Deferred[Any]:
        return self.listening


class RunningTestCase(ServiceTestCase):
    """
    Tests of the services on a reactor in memory.
    """

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.server = Server(reactor=self.reactor, drainTimeout=4)
        self.server.namespace()
        self.module(server=self.server)

    def makeService(self, *listen: str) -> RealtimeService:
        arguments = [argument for endpoint in listen for argument in ("--listen", endpoint)]
        return makeService(parse("--app", "served:server", *arguments), self.reactor)

    def start(self, *listen: str) -> RealtimeService:
        """Start as twistd does."""
        service = self.makeService(*listen)
        service.privilegedStartService()
        service.startService()
        return service

    def lines(self, wanted: str) -> list[str]:
        """The lines of the log with these words."""
        return [message for message in self.messages if wanted in message]


class ServiceTests(RunningTestCase):
    """
    The services, and the faults that keep them from starting.
    """

    def test_tree(self) -> None:
        service = self.start("tcp:1234:interface=127.0.0.1", "unix:x.sock")
        self.assertEqual([child.name for child in service], ["server", "listen-0", "listen-1"])
        self.assertIs(service.getServiceNamed("server"), self.server)
        self.assertTrue(all(child.running for child in service))
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [1234])
        self.assertEqual([server[0] for server in self.reactor.unixServers], ["x.sock"])

    def startWithHub(self) -> RealtimeService:
        folder = tempfile.mkdtemp()  # the path of a socket is short
        self.addCleanup(shutil.rmtree, folder)
        self.path = f"{folder}/hub"
        service = makeService(parse("--app", "served:server", "--hub", self.path), self.reactor)
        service.privilegedStartService()
        service.startService()
        return service

    def test_hub(self) -> None:
        """The hub listens before the server connects, and stops after the server."""
        service = self.startWithHub()
        self.assertEqual([child.name for child in service], ["hub", "server", "listen-0"])
        self.assertEqual([server[0] for server in self.reactor.unixServers], [self.path])
        self.assertEqual({client[0] for client in self.reactor.unixClients}, {self.path})
        hub = service.getServiceNamed("hub")
        stopped = service.stopService()
        self.assertTrue(hub.running)
        self.reactor.pump([1] * 9)
        self.successResultOf(stopped)
        self.assertFalse(hub.running)

    def test_hubCannotListen(self) -> None:
        stderr = StringIO()
        self.patch(sys, "__stderr__", stderr)

        def listenUNIX(*arguments: Any, **options: Any) -> None:
            raise CannotListenError("", self.path, OSError(30, "Read-only file system"))

        self.reactor.listenUNIX = listenUNIX  # type: ignore[assignment]
        error = self.assertRaises(StartupError, self.startWithHub)
        self.assertEqual((error.code, str(error)), (1, f"Read-only file system: unix:{self.path}"))
        line = f"cannot listen on unix:{self.path}: Read-only file system"
        self.assertEqual(stderr.getvalue(), f"twistd realtime: {line}\n")
        self.assertEqual(self.lines("cannot"), [line])

    def test_defaultPort(self) -> None:
        self.start()
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [8000])

    def test_startedAlone(self) -> None:
        """Without the step that twistd takes with the rights of root."""
        self.makeService().startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_takenFromItsTree(self) -> None:
        """A server may come with a tree of its own, for `twistd -y`."""
        other = RealtimeService(self.reactor, self.server, [])
        service = self.makeService()
        self.assertIs(self.server.parent, service)
        self.assertEqual(list(other), [])

    def test_addresses(self) -> None:
        """One line in the log for each address."""
        self.start("tcp:1", "tcp:2:interface=127.0.0.1", r"tcp6:3:interface=\:\:1", r"tcp6:4", "unix:x.sock")
        self.assertEqual(
            self.lines("serving"),
            [
                # MemoryReactor calls every address but an IPv6 one 0.0.0.0.
                "serving Socket.IO at http://localhost:1/socket.io/",
                "serving Socket.IO at http://localhost:2/socket.io/",
                "serving Socket.IO at http://[::1]:3/socket.io/",
                "serving Socket.IO at http://localhost:4/socket.io/",
                "serving Socket.IO at unix:x.sock:/socket.io/",
            ],
        )

    def test_addressOfThePages(self) -> None:
        options = parse("--path", "/talk")
        makeService(options, self.reactor).startService()
        self.assertEqual(
            self.lines("serving"),
            ["serving Socket.IO at http://localhost:8000/talk/, the chat at http://localhost:8000/"],
        )

    def test_noEndpoint(self) -> None:
        self.write("text.pem", "text")
        for endpoint, wanted in [
            ("8000", "Unknown endpoint type: '8000'"),
            ("tcp", "missing 1 required positional argument: 'port'"),
            ("tcp:http", "expected a number in place of 'http'"),
            ("tcp6:", "expected a number in place of ''"),
            ("unix:x:mode=rw", "expected an octal number in place of 'rw'"),
            (r"haproxy:tcp\:1\:interface=x", "expected TYPE:ARGUMENTS, such as tcp:8000 or haproxy:tcp:8000"),
            ("haproxy:80", "Unknown endpoint type: '80'; expected a form like tcp:8000"),
            ("haproxy:tcp:http", "expected a number in place of 'http'"),
            ("tcp:1\\", "expected TYPE:ARGUMENTS"),
            ("tcp:1:speed=3", "got an unexpected keyword argument 'speed'"),
            ("ssl:1:privateKey=nothing.pem", "No such file or directory: "),
            (
                "ssl:1:privateKey=text.pem",
                "the key or the certificate cannot be read, or they do not fit; expected PEM",
            ),
            ("systemd:domain=INET:index=0", "systemd has passed no such socket"),
        ]:
            message = self.assertRefused(self.makeService, endpoint)
            self.assertTrue(message.startswith(f"--listen {endpoint}: "), message)
            self.assertTrue(wanted in message and "\n" not in message, message)

    def test_cannotListen(self) -> None:
        """twistd says it on standard error and in the log; what a daemon shows has the reason first."""

        def listenTCP(*arguments: Any, **options: Any) -> None:
            raise CannotListenError("", 1234, OSError(98, "Address already in use"))

        self.reactor.listenTCP = listenTCP  # type: ignore[assignment]
        service = self.makeService("tcp:1234")
        stderr = StringIO()
        self.patch(sys, "__stderr__", stderr)
        error = self.assertRaises(StartupError, service.privilegedStartService)
        self.assertEqual(error.code, 1)
        self.assertEqual(str(error), "Address already in use: tcp:1234")
        self.assertEqual(
            stderr.getvalue(), "twistd realtime: cannot listen on tcp:1234: Address already in use\n"
        )
        self.assertEqual(self.lines("cannot"), ["cannot listen on tcp:1234: Address already in use"])

    def test_cannotListenAfterAll(self) -> None:
        """An endpoint of a plugin may find out later."""
        endpoint = SlowEndpoint()
        self.patch(certificates, "serverFromString", lambda *_: endpoint)
        self.patch(sys, "__stderr__", StringIO())
        self.reactor.run()
        self.start("slow:1")
        endpoint.listening.errback(OverflowError("port must be 0-65535"))
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.lines("cannot"), ["cannot listen on slow:1: port must be 0-65535"])

    def test_stoppedBeforeItListens(self) -> None:
        endpoint = SlowEndpoint()
        self.patch(certificates, "serverFromString", lambda *_: endpoint)
        service = self.start("slow:1")
        stopped = service.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.lines("cannot"), [])


class ClosingPort:
    """A port that stops listening when `closed` is fired."""

    isStopping = False

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def stopListening(self) -> Deferred[None]:
        self.isStopping = True
        return self.closed


class StopTests(RunningTestCase):
    """
    The order of the stop, and its bound.
    """

    def setUp(self) -> None:
        super().setUp()
        self.port = ClosingPort()
        self.reactor.listenTCP = lambda *_, **__: self.port  # type: ignore[assignment]
        self.service = self.start()

    def test_firstThePortThenTheClients(self) -> None:
        client = Client(self.server)
        client.connect("/")
        stopped = self.service.stopService()
        self.assertFalse(self.service.running)
        self.assertNoResult(stopped)
        self.assertTrue(client.isConnected())
        self.port.closed.callback(None)
        self.assertEqual(self.server.engine.sessions, {})
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(
            self.messages[-2:],
            ["stopping: 1 clients have 4 seconds to take what is left for them", "stopped"],
        )

    def test_pollingClientsFetchFirst(self) -> None:
        """The port stays open until polling clients have their messages: some connect for each request."""
        client = Client(self.server, transport="polling")
        client.connect("/")
        client.transport.writable = False
        self.server.emit("last")
        stopped = self.service.stopService()
        self.reactor.pump([0.01] * 50)
        self.assertFalse(self.port.isStopping)
        client.transport.writable = True
        client.session.transportWritable(client.transport)
        self.reactor.advance(0.01)
        self.assertTrue(self.port.isStopping)
        self.assertTrue(client.isConnected())
        self.port.closed.callback(None)
        self.assertFalse(client.isConnected())
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def test_bounded(self) -> None:
        """A client that takes nothing more holds the stop up for so long, and no longer."""
        client = Client(self.server, transport="polling")
        client.connect("/")
        client.transport.writable = False
        self.server.emit("last")
        self.port.closed.callback(None)
        stopped = self.service.stopService()
        self.reactor.pump([0.1] * 39)
        self.assertNoResult(stopped)
        self.reactor.pump([0.2, 0])
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_whatTheReactorHasToWrite(self) -> None:
        """The service waits until the reactor has written its data, which would be lost."""
        self.reactor.addWriter("connection")  # type: ignore[arg-type]
        self.port.closed.callback(None)
        stopped = self.service.stopService()
        self.reactor.pump([0, 1])
        self.assertNoResult(stopped)
        self.reactor.removeWriter("connection")  # type: ignore[arg-type]
        self.reactor.advance(0.01)
        self.successResultOf(stopped)

    def test_whatItCannotWrite(self) -> None:
        """The bound is for this and for the clients together."""
        self.reactor.addWriter("connection")  # type: ignore[arg-type]
        self.port.closed.callback(None)
        stopped = self.service.stopService()
        self.reactor.pump([0, 3.9])
        self.assertNoResult(stopped)
        self.reactor.advance(0.2)
        self.successResultOf(stopped)

    def test_aPortThatFails(self) -> None:
        """A port that fails to close does not keep the clients from being let go."""
        Client(self.server)
        stopped = self.service.stopService()
        self.port.closed.errback(ZeroDivisionError())
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.server.engine.sessions, {})
        self.assertEqual(self.lines("did not stop"), ["listen-0 did not stop"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SignalTests(RunningTestCase):
    """
    Signals, on a record of their handlers in place of the system's.
    """

    def setUp(self) -> None:
        super().setUp()
        self.reactor.sigTerm = lambda *_: None  # type: ignore[attr-defined]
        self.reactor.sigInt = lambda *_: None  # type: ignore[attr-defined]
        self.reactor.callFromThread = lambda f, *args: f(*args)  # type: ignore[attr-defined]
        self.handlers: dict[int, Any] = {}
        self.restore()
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(signal, "getsignal", self.handlers.__getitem__)
        self.terminal = False
        self.patch(signals, "_hasTerminal", lambda: self.terminal)

    def restore(self) -> None:
        """Put the handlers back that are there when a service starts."""
        self.handlers |= {
            signal.SIGTERM: self.reactor.sigTerm,  # type: ignore[attr-defined]
            signal.SIGINT: self.reactor.sigInt,  # type: ignore[attr-defined]
            signal.SIGHUP: signal.SIG_DFL,
            signal.SIGUSR1: signal.SIG_DFL,
        }

    def send(self, number: int) -> None:
        self.handlers[number](number, None)

    def test_theFirstStopsAndTheSecondEnds(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.reactor.hasRun = False
            self.restore()
            self.start()
            self.reactor.run()
            self.reactor.hasStopped = False
            self.send(number)
            self.assertTrue(self.reactor.hasStopped)
            self.assertEqual(self.lines("received")[-1], f"{number.name} received")
            for each in (signal.SIGTERM, signal.SIGINT):
                self.assertEqual(self.handlers[each], signal.SIG_DFL)

    def openLog(self) -> LogFile:
        log = LogFile.fromFullPath(str(self.folder / "server.log"))
        self.addCleanup(log.close)
        log.write("before\n")
        return log

    def test_logsAreReopened(self) -> None:
        """By USR1 and HUP alike, as logrotate has moved the file."""
        for number in (signal.SIGUSR1, signal.SIGHUP):
            self.reactor.hasRun = False
            self.restore()
            self.start()
            self.reactor.run()
            log, moved = self.openLog(), self.folder / f"server.log.{number.name}"
            (self.folder / "server.log").rename(moved)
            self.reactor.hasStopped = False
            self.send(number)
            log.write("after\n")
            self.assertEqual(moved.read_text(), "before\n")
            self.assertEqual((self.folder / "server.log").read_text(), "after\n")
            (self.folder / "server.log").unlink()
            self.assertFalse(self.reactor.hasStopped)
            self.assertIn(f"{number.name} received", self.messages)

    def test_aLogThatCannotBeReopened(self) -> None:
        """Logging goes on, into the file as it was."""
        self.start()
        self.reactor.run()
        log, moved = self.openLog(), self.folder / "moved"
        (self.folder / "server.log").rename(moved)
        (self.folder / "server.log").mkdir()
        self.send(signal.SIGUSR1)
        log.write("after\n")
        self.assertEqual(moved.read_text(), "before\nafter\n")
        self.assertIn("Is a directory; logging goes on", "".join(self.lines("cannot be reopened")))

    def test_closedLogsStayClosed(self) -> None:
        self.start()
        self.reactor.run()
        log = LogFile.fromFullPath(str(self.folder / "closed.log"))
        log.close()
        self.send(signal.SIGUSR1)
        self.assertTrue(log.closed)

    def test_hangUpOfATerminal(self) -> None:
        """A terminal that has been closed can stop nothing any more, so the server stops itself."""
        self.terminal = True
        self.start()
        self.reactor.run()
        self.reactor.hasStopped = False
        self.send(signal.SIGHUP)
        self.assertFalse(self.reactor.hasStopped)
        self.terminal = False
        self.send(signal.SIGHUP)
        self.assertTrue(self.reactor.hasStopped)

    def test_ignoredUnderNohup(self) -> None:
        self.handlers[signal.SIGHUP] = signal.SIG_IGN
        self.start()
        self.reactor.run()
        self.assertEqual(self.handlers[signal.SIGHUP], signal.SIG_IGN)

    def test_twistdsHandler(self) -> None:
        """twistd's handler moves the log itself, and fails if logrotate has; others' handlers stay."""
        theirs = self.handlers[signal.SIGUSR1] = lambda *_: None
        self.start()
        self.reactor.run()
        self.assertIs(self.handlers[signal.SIGUSR1], theirs)
        self.reactor.hasRun = False
        theirs.__module__ = "twisted.scripts._twistd_unix"
        self.start()
        self.reactor.run()
        self.assertIsNot(self.handlers[signal.SIGUSR1], theirs)

    def test_inAThread(self) -> None:
        """Such as the reloader's: Python would refuse."""
        before = dict(self.handlers)
        thread = threading.Thread(target=signals.Signals(self.reactor, print, print).take)
        thread.start()
        thread.join()
        self.assertEqual(self.handlers, before)

    def test_afterTheReactorHasStopped(self) -> None:
        """Nothing is left to do, and that is no error."""

        def stop() -> None:
            raise ReactorNotRunning

        self.start()
        self.reactor.run()
        self.reactor.stop = stop  # type: ignore[method-assign]
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)

    def test_handlersOfOthersStay(self) -> None:
        """Such as that of the debugger, `twistd --debug`."""
        debugger = self.handlers[signal.SIGINT] = lambda *_: None
        self.start()
        self.reactor.run()
        self.assertIs(self.handlers[signal.SIGINT], debugger)
