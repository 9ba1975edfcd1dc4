"""
The server under test as its own process, and the clients' scripts against it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support import ROOT, TWISTD, Program, alone, freePort, requirePart, run, startProgram

FOLDER = Path(__file__).parent
NODE = shutil.which("node") or shutil.which("nodejs")
NPM = shutil.which("npm")

FETCHED = FOLDER / ".fetched"
"What the tests fetched once, because it does not install beside the rest."


def requireJavaScriptClient(name: str) -> None:
    """
    Skip (or fail, see `requirePart`) without Node and the package `name` of package.json.
    """
    requirePart(NODE, "no node: apt install nodejs npm")
    requirePart(
        (FOLDER / "node_modules" / name).is_dir(),
        f"no {name}: npm install --no-package-lock in tests/interop, as scripts/test does",
    )


def requirePythonClient(*modules: str) -> None:
    """
    Skip (or fail, see `requirePart`) without the modules that a client of python-socketio needs.
    """
    missing = [name for name in modules if find_spec(name) is None]
    requirePart(not missing, f"no {', '.join(missing)}: pip install --group test")


def oldPython() -> str:
    """
    The Python of an environment with python-socketio 4.6.1, which cannot stand beside version 5.

    It is made where it is missing, and kept. Where that cannot be done, the test is skipped (or fails, see
    `requirePart`).
    """
    folder = FETCHED / "python-socketio-4.6.1"
    executable = str(folder / "bin" / "python")
    ready = folder / "ready"
    with alone(folder):
        if not ready.exists():
            try:
                run(sys.executable, "-m", "venv", "--clear", folder)
                run(executable, "-m", "pip", "install", "--quiet", "python-socketio[client]==4.6.1")
            except AssertionError as error:
                requirePart(False, f"python-socketio 4.6.1 cannot be installed: {error}")
            ready.touch()
    return executable


def oldBundle() -> str:
    """
    socket.io-client 1.3.6 for browsers, as its package on npm holds it.

    The package does not install, for a dependency that is gone, but what it holds is whole. It is fetched
    where it is missing, and kept. Where that cannot be done, the test is skipped (or fails, see
    `requirePart`).
    """
    name = "socket.io-client-1.3.6"
    bundle = FETCHED / name / "package" / "socket.io.js"
    with alone(FETCHED / name):
        if not bundle.exists():
            requirePart(NPM, "no npm: apt install npm")
            bundle.parent.mkdir(parents=True, exist_ok=True)
            try:
                run(NPM, "pack", "--pack-destination", FETCHED, "socket.io-client@1.3.6")
            except AssertionError as error:
                requirePart(False, f"{name} cannot be fetched: {error}")
            with tarfile.open(FETCHED / f"{name}.tgz") as archive:
                bundle.write_bytes(archive.extractfile("package/socket.io.js").read())
        return bundle.read_text("utf-8")


def javaScript(script: str, *arguments: str) -> list[str]:
    """The command that runs a script of js/."""
    return [str(NODE), str(FOLDER / "js" / script), *arguments]


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs a script of py/."""
    return [sys.executable, str(FOLDER / "py" / script), *arguments]


async def untilListening(program: Program, port: int, timeout: float = Program.WITHIN) -> None:
    """
    Wait until a program accepts connections on a port of 127.0.0.1; AssertionError when it ends instead.
    """
    deadline = reactor.seconds() + timeout
    while True:
        if program.ended or reactor.seconds() > deadline:
            raise AssertionError(f"{program.command} does not listen on {port}:\n{program.output}")
        try:
            endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
            connection = await endpoint.connect(Factory.forProtocol(Protocol))
        except ConnectError:
            await deferLater(reactor, 0.05)
        else:
            connection.transport.abortConnection()
            return


class RealtimeServer:
    """
    A server started by `twistd -n realtime`, on the same port each time it is started.

    :param arguments: its options, but `--listen`.
    :param endpoint: the endpoint string, with `PORT` for the port.
    :ivar url: where it is, `http://127.0.0.1:PORT`.
    :ivar environment: its environment variables, beside those of the tests.
    """

    def __init__(
        self, case: TestCase, *arguments: str, endpoint: str = "tcp:PORT:interface=127.0.0.1"
    ) -> None:
        self.port = freePort()
        self.url = f"http://127.0.0.1:{self.port}"
        self._case = case
        listen = endpoint.replace("PORT", str(self.port))
        self._command = [TWISTD, "-n", "--pidfile=", "realtime", "--listen", listen, *arguments]
        self.environment = {"PYTHONPATH": str(ROOT)}

    async def start(self, timeout: float = Program.WITHIN) -> None:
        """Start it, and wait until it accepts connections."""
        self.program = startProgram(self._case, self._command, environment=self.environment)
        await untilListening(self.program, self.port, timeout)

    async def stop(self) -> None:
        """Stop it by SIGTERM; it must end well, and have logged no traceback."""
        code = await self.program.stop()
        self._case.assertEqual(code, 0, self.program.output)
        self._case.assertNotIn("Traceback", self.program.output)

    async def restart(self) -> None:
        await self.stop()
        await self.start()


async def play(case: TestCase, command: Sequence[str], server: RealtimeServer) -> list[str]:
    """
    Run a client's script to its end, restarting the server when it asks for that.

    :return: the steps that it passed, in order; AssertionError when one failed.
    """
    client = startProgram(case, command)
    await client.whenPrinted('"ask"', timeout=180)
    await server.restart()
    await client.whenEnded(timeout=180)
    reports = [json.loads(line) for line in client.output.splitlines() if line.startswith('{"step"')]
    failed = "\n".join(f"{report['step']}: {report['error']}" for report in reports if not report["ok"])
    case.assertFalse(failed, f"{failed}\nThe server's log:\n{server.program.output[-3000:]}")
    case.assertEqual(client.exitCode, 0, client.output)
    return [report["step"] for report in reports]
