"""
The ways to play the suite's cases.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.fuzzingclient.suite import Suite
from tests.conformance.fuzzingclient.verdicts import Verdict, read
from tests.support import ROOT, TWISTD, freePort, makeCertificate

__all__ = ["CLIENT", "RUNS", "SERVER", "Run"]

QUICK: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
"All groups but those of compression, which takes place above TLS and without C."

UNIT: Final = 1800.0
"Seconds that the cases of one fuzzer may take."

AT_ONCE: Final = 4
"Cases that a client plays at a time: most of them wait."

PATIENCE: Final = "10"
"By how much the suite's deadlines are longer: the client and the suite share the machine."

START: Final = 60.0
"Seconds that a program may take until it listens."


@dataclass(frozen=True)
class Run:
    """
    One way to play cases, and the cases that must pass.

    :ivar name: as on the command line.
    :ivar title: in the report.
    :ivar patterns: of the cases.
    """

    name: str
    title: str
    patterns: tuple[str, ...] = ("*",)
    tls: bool = False

    def play(self, suite: Suite, cases: Sequence[str], log: Path) -> dict[str, Verdict]:
        """
        Play some cases, on programs of their own.

        :param log: a file for the words of the program that is tried; others lie beside it.
        """
        output = self.outputOf(suite, cases, log)
        if "Traceback" in log.read_text():
            raise AssertionError(f"an exception in {log.stem}:\n{log.read_text()[-3000:]}")
        return read(output)

    def outputOf(self, suite: Suite, cases: Sequence[str], log: Path) -> str:
        """Play some cases, and return the fuzzer's output."""
        raise NotImplementedError


@dataclass(frozen=True)
class ServerRun(Run):
    """
    The suite against the echo of tac/conformance.tac.

    :ivar shortWays: as the setting.
    :ivar pure: without C.
    """

    shortWays: bool = True
    pure: bool = False

    def outputOf(self, suite: Suite, cases: Sequence[str], log: Path) -> str:
        with self._echo(log) as url:
            return subprocess.run(
                suite.command(url, *cases),
                env={**os.environ, **suite.environment},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=UNIT,
            ).stdout

    @contextmanager
    def _echo(self, log: Path) -> Iterator[str]:
        """Serve tac/conformance.tac, and give the URL of the echo."""
        names = ("PORT", "EIO3_PORT", "ECHO_PORT", "CLIENT_PORT", "ENGINE_CLIENT_PORT")
        environment = {**os.environ, **{name: str(freePort()) for name in names}}
        environment["SHORT_WAYS"] = "yes" if self.shortWays else "no"
        environment["TXREALTIME_PURE"] = "1" if self.pure else ""
        if self.tls:
            environment["CERTIFICATE"] = str(makeCertificate(log.with_suffix(".pem")))
        port = int(environment["ECHO_PORT"])

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                return False
            return True

        command = [TWISTD, "-n", "--pidfile=", "-y", str(ROOT / "tac" / "conformance.tac")]
        with _running(command, environment, log) as server:
            _wait(server, log, listens)
            yield f"{'wss' if self.tls else 'ws'}://127.0.0.1:{port}"


@dataclass(frozen=True)
class ClientRun(Run):
    """
    The suite against the echo of `visitor`.

    :ivar deflate: offer compression; the suite accepts the offer in its cases of compression.
    :ivar pure: without C.
    """

    deflate: bool = False
    pure: bool = False

    def outputOf(self, suite: Suite, cases: Sequence[str], log: Path) -> str:
        certificate = str(makeCertificate(log.with_suffix(".pem"))) if self.tls else ""
        told = log.with_suffix(".fuzzer")
        environment = {**os.environ, **suite.environment, "PATIENCE": PATIENCE}
        with _running(suite.command("--serve", certificate, *cases), environment, told) as fuzzer:
            _wait(fuzzer, told, lambda: "\nport " in told.read_text())
            port = told.read_text().partition("\nport ")[2].split()[0]
            options = ["--at-once", str(AT_ONCE), *(["--deflate"] if self.deflate else [])]
            options += ["--certificate", certificate] if self.tls else []
            url = f"{'wss' if self.tls else 'ws'}://127.0.0.1:{port}"
            with log.open("w") as output:
                subprocess.run(
                    [sys.executable, "-m", "tests.conformance.fuzzingclient.visitor", url, *options],
                    cwd=ROOT,
                    env={**os.environ, "TXREALTIME_PURE": "1" if self.pure else ""},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=UNIT,
                )
            fuzzer.wait(START)
        return told.read_text()


@contextmanager
def _running(
    command: Sequence[str], environment: dict[str, str], output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside others, and write its output to a file."""
    with output.open("w") as file:
        program = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield program
    finally:
        program.terminate()
        program.wait()


def _wait(program: subprocess.Popen[bytes], output: Path, listens: Callable[[], bool]) -> None:
    """Wait until a program listens."""
    deadline = time.monotonic() + START
    while not listens():
        if program.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the program does not listen:\n{output.read_text()}")
        time.sleep(0.1)


SERVER: Final[tuple[Run, ...]] = (
    ServerRun("short", "On the fast paths"),
    ServerRun("pure", "On the fast paths, in Python alone", pure=True),
    ServerRun("autobahn", "By Autobahn alone", shortWays=False),
    ServerRun("tls", "Over TLS, on the fast paths", QUICK, tls=True),
    ServerRun("tls-autobahn", "Over TLS, by Autobahn alone", QUICK, tls=True, shortWays=False),
)

CLIENT: Final[tuple[Run, ...]] = (
    ClientRun("client", "With the functions in C", QUICK),
    ClientRun("client-pure", "In Python alone", QUICK, pure=True),
    ClientRun("client-deflate", "With compression offered", deflate=True),
    ClientRun("client-tls", "Over TLS", QUICK, tls=True),
)

RUNS: Final = SERVER + CLIENT
