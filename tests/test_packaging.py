"""
The project as people install it: sdist, wheel and editable, each in an environment of its own.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, requirePart, run

LEFT_OUT = (
    ".git",
    ".venv",
    "node_modules",
    "__pycache__",
    ".hypothesis",
    ".fetched",
    "_build",
    "build",
    "dist",
    "*.egg-info",
    "*.so",
    ".*_cache",
    "_trial_temp*",
)
"What a tree in use has and a clone does not."

# Nothing of this checkout may be found by the programs under test.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

TESTED = (
    "tests.test_layers",
    "tests.test_routes",
    "tests.test_prose",
    "tests.test_build",
    "tests.test_server",
    "tests.test_metrics",
    "tests.hostile.test_documents",
)
"""Tests that read many files of the project; with TXREALTIME_SDIST=1, all tests in memory run."""


def memoryTests(folder: Path) -> list[str]:
    """Return the names of the tests in a folder that need no network, nor an installation."""
    alone = ("test_packaging", "test_docs", "test_checks", "test_serve", "test_upstream")
    files = sorted((folder / "tests").glob("test_*.py"))
    return [f"tests.{file.stem}" for file in files if file.stem not in alone]


_CONVERSATION = """
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from txrealtime import Server

server = Server(reactor=Clock())
server.startService()
server.on("double")(lambda socket, number: 2 * number)
transport = StringTransport()
client = server.webSocketFactory().buildProtocol(None)
client.makeConnection(transport)
client.dataReceived(
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\n"
    b"Connection: Upgrade\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
    b"Sec-WebSocket-Version: 13\\r\\n\\r\\n"
)
for text in (b"40", b'421["double",2]'):
    client.dataReceived(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
print(transport.value().rpartition(b"431")[2].decode())
"""
"A client's event and the ack."


class PackagingTests(SynchronousTestCase):
    """
    Each test builds from a copy of the sources, so that nothing is written into the tree.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.sources = self.folder / "sources"
        shutil.copytree(ROOT, self.sources, ignore=shutil.ignore_patterns(*LEFT_OUT))

    def build(self, kind: str, **environment: str) -> Path:
        """
        The file that `python -m build --sdist` or `--wheel` makes, with some variables in the environment.
        """
        dist = self.folder / "dist"
        run(
            sys.executable,
            "-m",
            "build",
            f"--{kind}",
            "--outdir",
            dist,
            self.sources,
            environment={**ENVIRONMENT, **environment},
        )
        [built] = dist.iterdir()
        return built

    def checkInstalled(self, *what: str | Path) -> None:
        """
        Install in a fresh environment and see that twistd there knows the command, and explains it.
        """
        home = self.folder / "environment"
        run(sys.executable, "-m", "venv", home, environment=ENVIRONMENT)
        run(home / "bin" / "pip", "install", "--quiet", *what, cwd=self.folder, environment=ENVIRONMENT)
        twistd = home / "bin" / "twistd"
        self.assertIn("realtime  ", run(twistd, "--help", cwd=self.folder, environment=ENVIRONMENT))
        self.assertIn("--listen", run(twistd, "realtime", "--help", cwd=self.folder, environment=ENVIRONMENT))
        command = home / "bin" / "txrealtime"
        self.assertIn("txrealtime ", run(command, "--version", cwd=self.folder, environment=ENVIRONMENT))
        # What is not Python is there too: the page of the demo, and the mark for type checkers.
        where = "import os, txrealtime; print(os.path.dirname(txrealtime.__file__))"
        package = Path(
            run(home / "bin" / "python", "-c", where, cwd=self.folder, environment=ENVIRONMENT).strip()
        )
        self.assertTrue((package / "py.typed").exists())
        self.assertTrue((package / "chat" / "static" / "index.html").exists())

    def execute(self, program: str) -> str:
        """
        Run a program in the environment of checkInstalled(), and return its output.
        """
        python = self.folder / "environment" / "bin" / "python"
        return run(python, "-c", program, cwd=self.folder, environment=ENVIRONMENT)

    def accelerators(self) -> list[str]:
        """
        Return True or False for the functions in C and for orjson, as text.
        """
        return self.execute(
            "from txrealtime import speedups; from txrealtime.socketio import jsontext; "
            "print(speedups.isAccelerated, jsontext.orjson is not None)"
        ).split()

    def test_sdist(self) -> None:
        built = self.build("sdist")
        with tarfile.open(built) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in (
            "setup.py",
            "txrealtime/_speedups.c",
            "docs/index.rst",
            "tac/chat.tac",
            "tests/test_packaging.py",
            "scripts/chat",
            "LICENSE",
        ):
            self.assertIn(name, names)
        self.assertEqual([name for name in names if name.endswith(".so")], [])
        self.checkInstalled(built)

    def test_wheel(self) -> None:
        built = self.build("wheel")
        self.checkMetadata(built)
        self.checkInstalled(f"{built}[speed]")
        if shutil.which("cc"):
            with zipfile.ZipFile(built) as archive:
                self.assertIn("txrealtime/_speedups.abi3.so", archive.namelist())
            self.assertIn("-abi3-", built.name)
            self.assertEqual(self.accelerators(), ["True", "True"])

    def test_withoutCompiler(self) -> None:
        """Without a compiler and without orjson, an installation works, in Python alone."""
        built = self.build("wheel", CC=str(self.folder / "no-compiler"))
        with zipfile.ZipFile(built) as archive:
            self.assertEqual([name for name in archive.namelist() if name.endswith(".so")], [])
        self.checkInstalled(built)
        pip = self.folder / "environment" / "bin" / "pip"
        run(pip, "uninstall", "--quiet", "--yes", "orjson", cwd=self.folder, environment=ENVIRONMENT)
        self.assertEqual(self.accelerators(), ["False", "False"])
        self.assertEqual(self.execute(_CONVERSATION).strip(), "[4]")

    def checkMetadata(self, built: Path) -> None:
        """PyPI takes it, and shows users what is for users."""
        with zipfile.ZipFile(built) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            [points] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
            metadata = email.message_from_bytes(archive.read(name))
            self.assertIn("txrealtime = txrealtime.__main__:main", archive.read(points).decode())
        self.assertEqual(metadata["License-Expression"], "MIT")
        self.assertNotIn("License", metadata)
        self.assertIn("Flask-SocketIO", metadata["Keywords"])
        labels = {url.partition(", ")[0] for url in metadata.get_all("Project-URL") or []}
        self.assertEqual(labels, {"Documentation", "Source", "Issues", "Changelog"})
        python = f"Programming Language :: Python :: {sys.version_info[0]}.{sys.version_info[1]}"
        self.assertIn(python, metadata.get_all("Classifier") or [])
        extras = set(metadata.get_all("Provides-Extra") or [])
        self.assertEqual(extras & {"dev", "fuzz", "test"}, set())
        # The extra of former releases is there, and empty.
        self.assertLessEqual({"flask", "redis", "reload", "completion", "speed"}, extras)
        needed = metadata.get_all("Requires-Dist") or []
        self.assertEqual([each for each in needed if "speed" in each], [])
        # Links of PyPI's page lead to the repository, and the files that they name are there.
        page = metadata.get_payload()
        self.assertIn("Socket.IO server for [Twisted]", page)
        source = next(
            url.partition(", ")[2] for url in metadata.get_all("Project-URL") or [] if "Source" in url
        )
        links = re.findall(r"\]\(([^)]*)\)", page)
        self.assertGreater(len(links), 15)
        for link in links:
            self.assertRegex(link, "^https://")
            if link.startswith(source):
                path = re.sub("^/(blob|raw)/main/", "", link.removeprefix(source))
                self.assertTrue((ROOT / path).exists(), link)
        requirePart(find_spec("twine"), "no twine: pip install --group dev")
        run(sys.executable, "-m", "twine", "check", "--strict", built, environment=ENVIRONMENT)

    def test_sdistTestsItself(self) -> None:
        """The archive has all that the tests need: those without a network pass in the unpacked folder."""
        with tarfile.open(self.build("sdist")) as archive:
            archive.extractall(self.folder)  # our own; Debian's Python 3.11.2 has no filters
        [unpacked] = self.folder.glob("txrealtime-*")
        names = TESTED if not os.environ.get("TXREALTIME_SDIST") else memoryTests(unpacked)
        environment = {**ENVIRONMENT, "PYTHONPATH": str(unpacked)}
        where = "import os, txrealtime; print(os.path.dirname(txrealtime.__file__))"
        found = run(sys.executable, "-c", where, cwd=unpacked, environment=environment)
        self.assertEqual(Path(found.strip()), unpacked / "txrealtime")
        run(sys.executable, "-m", "tests", *names, cwd=unpacked, environment=environment)

    def test_editable(self) -> None:
        self.checkInstalled("--editable", self.sources)
