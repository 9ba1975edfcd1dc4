"""
`txrealtime serve`, the pid file and the words of a daemon, the page of a server without pages.
"""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.python import usage
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from tests.support import requirePart
from txrealtime import Server, __version__
from txrealtime.__main__ import main
from txrealtime.service import StartupError, serve
from txrealtime.service.background import Notice, settle
from txrealtime.service.front import Front
from txrealtime.service.options import ServeOptions


class FolderTestCase(SynchronousTestCase):
    """Tests in a folder of their own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)


class PidFileTests(FolderTestCase):
    def twistd(self, *arguments: str) -> ServerOptions:
        """Parse the options of twistd that stand before a command, as twistd does until then."""
        options = ServerOptions()
        with patch.object(ServerOptions, "postOptions", lambda self: None):
            options.parseOptions(list(arguments))
        return options

    def test_foreground(self) -> None:
        """Without a pid file, unless one is asked for, also by its usual name."""
        for arguments, wanted in (
            (["-n"], ""),
            (["-n", "--pidfile=x.pid"], "x.pid"),
            (["-n", f"--pidfile={'twistd' + '.pid'}"], "twistd.pid"),
            (["-n", "--pidfile="], ""),
        ):
            options = self.twistd(*arguments)
            self.assertIsNone(settle(options, "twistd realtime"))
            self.assertEqual(options["pidfile"], wanted)

    def test_otherPrograms(self) -> None:
        """`twist` has no pid file, and tests no parent."""
        self.assertIsNone(settle(None, "twistd realtime"))
        self.assertIsNone(settle({}, "twistd realtime"))

    def test_background(self) -> None:
        options = self.twistd("--logfile", "a.log")
        notice = settle(options, "twistd realtime")
        self.assertIsNotNone(notice)
        self.assertEqual(options["pidfile"], "twistd.pid")
        for arguments in ([], ["--syslog"], ["--pidfile="]):
            self.assertIsNotNone(settle(self.twistd(*arguments), "twistd realtime"))

    def test_theSecondInOneFolder(self) -> None:
        """The second is told of the first, and how to go on; a number that no process has is no obstacle."""
        pidfile = self.folder / "twistd.pid"
        pidfile.write_text(str(os.getpid()))
        error = self.assertRaises(usage.UsageError, settle, self.twistd(), "twistd realtime")
        for words in (f"process {os.getpid()}", f"kill {os.getpid()}", str(pidfile), "--pidfile FILE"):
            self.assertIn(words, str(error))
        ended = subprocess.Popen(["/bin/true"])
        ended.wait()
        for content in (str(ended.pid), "none", "", "9" * 40):
            pidfile.write_text(content)
            self.assertIsNotNone(settle(self.twistd(), "twistd realtime"))

    def test_aProcessOfAnotherUser(self) -> None:
        (self.folder / "twistd.pid").write_text("1")
        with patch("os.kill", side_effect=PermissionError):
            self.assertRaises(usage.UsageError, settle, self.twistd(), "twistd realtime")


class NoticeTests(SynchronousTestCase):
    def told(self, *arguments: Any) -> str:
        """Return the words of a notice that is made and asked to speak twice."""
        reader, writer = os.pipe()
        with patch("os.dup", lambda descriptor: writer):
            notice = Notice(*arguments)
        notice.tell(["http://localhost:8000", "unix:/run/a"])
        notice.tell(["again"])
        with open(reader) as file:  # to its end: the notice has closed the other
            return file.read()

    def test_words(self) -> None:
        told = self.told("twistd realtime", "/srv/twistd.log", "/srv/a b.pid")
        self.assertEqual(
            told,
            "twistd realtime: serving in the background, at http://localhost:8000, unix:/run/a\n"
            "  the log:    /srv/twistd.log\n"
            "  to stop it: kill $(cat '/srv/a b.pid')\n",
        )

    def test_withoutPidFile(self) -> None:
        self.assertIn(f"kill {os.getpid()}\n", self.told("twistd realtime", "syslog", ""))

    def test_nobodyReads(self) -> None:
        """Neither a closed standard error nor a reader that has gone keeps a server from starting."""
        with patch("os.dup", side_effect=OSError):
            Notice("twistd realtime", "", "").tell(["x"])
        reader, writer = os.pipe()
        os.close(reader)
        with patch("os.dup", lambda descriptor: writer):
            Notice("twistd realtime", "", "").tell(["x"])
        self.assertRaises(OSError, os.fstat, writer)


class FrontTests(SynchronousTestCase):
    def page(self, path: str = "/socket.io") -> str:
        request = DummyRequest([b""])
        front = Front(Server(path))
        self.assertIs(front.getChildWithDefault(b"", request), front)
        body: bytes = front.render_GET(request)
        self.assertEqual(
            request.responseHeaders.getRawHeaders(b"content-type"), [b"text/plain; charset=utf-8"]
        )
        return body.decode()

    def test_page(self) -> None:
        for path, shown in (("/socket.io", "/socket.io/"), ("/", "/"), ("talk/", "/talk/")):
            self.assertIn(f"Socket.IO is at {shown}, for clients", self.page(path))

    def test_documentation(self) -> None:
        class Metadata:
            def get_all(self, name: str) -> list[str]:
                return ["Source, https://a.example", "Documentation, https://docs.example/"]

        with patch("txrealtime.service.front.metadata", lambda name: Metadata()):
            self.assertIn("The documentation: https://docs.example/\n", self.page())
        with patch("txrealtime.service.front.metadata", side_effect=_missing):
            self.assertIn("The documentation: in the folder docs of the sources\n", self.page())

    def test_noOtherPage(self) -> None:
        child = Front(Server()).getChildWithDefault(b"other", DummyRequest([b"other"]))
        self.assertNotIsInstance(child, Front)


def _missing(name: str) -> None:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


class ServeTests(FolderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(StartupError, "program", "twistd realtime")
        self.served: list[Any] = []
        self.patch(serve.twistd, "runApp", self.served.append)

    def test_foreground(self) -> None:
        """With the options of twistd realtime, and without a pid file."""
        self.assertEqual(main(["serve", "--app", "chat:server", "--ping-interval", "3"]), 0)
        [options] = self.served
        self.assertEqual((options["nodaemon"], options["pidfile"]), (1, ""))
        self.assertEqual(options.subOptions["app"], "chat:server")
        self.assertEqual(options.subOptions["settings"], {"pingInterval": 3.0})
        # What twistd asks for when it makes the application.
        maker = options.loadedPlugins[options.subCommand]
        self.assertEqual((maker.tapname, maker.module), ("realtime", "txrealtime.service"))

    def test_refused(self) -> None:
        for arguments, wanted in (
            (["--pings"], "option --pings not recognized (see txrealtime serve --help)"),
            (["--workers", "2", "--reload"], "--reload is for development: leave out --workers"),
            (["--reactor", "none"], "The specified reactor does not exist: 'none'."),
        ):
            error = self.assertRaises(StartupError, main, ["serve", *arguments])
            self.assertTrue(str(error).startswith(f"txrealtime serve: {wanted}"), error)
        self.assertEqual(self.served, [])

    def test_help(self) -> None:
        """Each option has a line, as in the help of twistd realtime."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        self.assertEqual(self.assertRaises(SystemExit, main, ["serve", "--help"]).code, 0)
        shown = output.getvalue()
        self.assertTrue(shown.startswith("Usage: txrealtime serve [--app MODULE:NAME]"), shown)
        lines = [line.split()[0] for line in shown.splitlines() if line.startswith("  --")]
        offered = {line.removeprefix("--").removeprefix("[no-]") for line in lines}
        known = {name.rstrip("=").removeprefix("no-") for name in ServeOptions().longOpt}
        self.assertEqual(offered, known)
        self.assertNotIn("twistd -n", shown)

    def test_reload(self) -> None:
        """The process that serves has all options but this one; folders of modules are watched."""
        (self.folder / "lib").mkdir()
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": f"lib{os.pathsep}{os.pathsep}none"})
        self.patch(serve.signal, "signal", lambda *_: None)
        calls: list[Any] = []
        with patch.dict(sys.modules, watchfiles=_Watching(calls)):
            arguments = ["--reload", "--app", "chat:server"]
            self.assertEqual(main(["serve", *arguments]), 0)
        [(paths, options)] = calls
        self.assertEqual(paths, (str(self.folder), "lib"))
        self.assertEqual(options["target"], f"{sys.executable} -m txrealtime serve --app chat:server")
        errors = StringIO()
        self.patch(sys, "stderr", errors)
        options["callback"]({(1, str(self.folder / "b.py")), (2, str(self.folder / "a.py"))})
        self.assertEqual(errors.getvalue(), "txrealtime serve: changed: a.py, b.py; starting anew\n")

    def test_reloadNotInstalled(self) -> None:
        with patch.dict(sys.modules, watchfiles=None):
            error = self.assertRaises(StartupError, main, ["serve", "--reload"])
        self.assertIn("pip install 'txrealtime[reload]'", str(error))


class _Watching:
    """A module like watchfiles that only notes its calls."""

    PythonFilter = object

    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls

    def run_process(self, *paths: str, **options: Any) -> None:
        self._calls.append((paths, options))


class CommandTests(SynchronousTestCase):
    def printed(self, *arguments: str) -> tuple[object, str]:
        output = StringIO()
        self.patch(sys, "stdout", output)
        try:
            code: object = main(list(arguments))
        except SystemExit as exit:
            code = exit.code
        return code, output.getvalue()

    def test_version(self) -> None:
        code, shown = self.printed("--version")
        self.assertEqual(code, 0)
        self.assertTrue(shown.startswith(f"txrealtime {__version__}, Twisted "), shown)

    def test_help(self) -> None:
        code, shown = self.printed("--help")
        self.assertEqual(code, 0)
        for command in ("serve", "emit", "listen", "call", "load", "top", "password", "client", "completion"):
            self.assertIn(f"\n    {command}", shown)

    def test_completion(self) -> None:
        """The scripts have all commands and options, and bash can read its one."""
        requirePart(sys.modules.get("shtab") or _importable("shtab"), "no shtab: pip install shtab")
        for shell in ("bash", "zsh"):
            code, script = self.printed("completion", shell)
            self.assertEqual(code, 0)
            for word in ("serve", "listen", "--ping-interval", "--reload", "--volatile", "--log-level"):
                self.assertIn(word, script)
        code, script = self.printed("completion", "bash")
        # COMP_WORDS is the command line, and COMPREPLY what bash would offer.
        asked = "COMP_WORDS=(txrealtime serve --recovery-); COMP_CWORD=2; _shtab_txrealtime"
        shown = subprocess.run(
            ["bash", "-c", f"{script}\n{asked}; echo ${{COMPREPLY[@]}}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.split()
        self.assertIn("--recovery-window", shown)
        self.assertNotIn("--reload", shown)

    def test_completionNotInstalled(self) -> None:
        errors = StringIO()
        self.patch(sys, "stderr", errors)
        with patch.dict(sys.modules, {"txrealtime.service.completion": None}):
            self.assertEqual(main(["completion", "bash"]), 1)
        self.assertIn("pip install 'txrealtime[completion]'", errors.getvalue())


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
