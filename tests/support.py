"""
Shared means of several test modules: an optional part, a free port, a program to run or to talk to.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import ipaddress
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import indent

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from txrealtime.speedups import REFERENCES

ROOT = Path(__file__).resolve().parent.parent
"The project's folder."

TWISTD = str(Path(sys.executable).with_name("twistd"))
"The twistd of the environment that the tests run in."

TXREALTIME = str(Path(sys.executable).with_name("txrealtime"))
"The command of this package there."


def requirePart(condition: object, message: str) -> None:
    """
    Go on when `condition` holds; otherwise skip the test and say why.

    With CI=true in the environment nothing may be missing, so there the test fails instead.
    """
    if condition:
        return
    if os.environ.get("CI") == "true":
        raise AssertionError(f"missing, and CI=true: {message}")
    raise SkipTest(message)


def withoutC(test: SynchronousTestCase) -> None:
    """
    Have the references in Python run, for one test, in the place of the functions in C.
    """
    for module in [module for name, module in sys.modules.items() if name.startswith("txrealtime.")]:
        for name, reference in REFERENCES.items():
            if module.__name__ != "txrealtime._speedups" and name in vars(module):
                test.patch(module, name, reference)


_reserved: list[socket.socket] = []


def freePort() -> int:
    """
    Return a TCP port of the loopback interface that nobody listens on, and nobody else is given.

    The port lies below the range of the ports that the system gives to connections and to listeners on port
    0, so neither takes the port before the program under test does, and no client that connects to the port
    again and again meets itself.  Test modules run at the same time, and share the reservations by the names
    of sockets, which last as long as their process.
    """
    ports = range(10_000, 32_000)
    for port in random.sample(ports, len(ports)):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0a port of the tests of txrealtime: {port}")
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            reservation.close()
        else:
            _reserved.append(reservation)
            return port
    raise AssertionError("no port is free")


def withPorts(text: str, ports: Mapping[int, int]) -> str:
    """Replace the ports of an example, as whole numbers: one of the new ports may contain an old one."""
    for old, new in ports.items():
        text = re.sub(rf"\b{old}\b", str(new), text)
    return text


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder that tests keep while no other process does: modules run at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """
    Run a program to its end and return what it printed; AssertionError, which shows that, when it fails.

    The reactor stands still meanwhile: for a program that the test itself talks to, use `startProgram`.

    :param environment: its whole environment; that of the tests when left out.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


SHOWN = 6000
"Characters of a program's output that a test shows if it fails, counted from the end."


class Program(ProcessProtocol):
    """
    A running program: what it printed so far, and Deferreds for its next words and for its end.

    Standard output and standard error are read into one text, line by line in the order of arrival: a line of
    one does not break a line of the other.
    """

    WITHIN = 120.0
    "Seconds within which a program must print or end, unless a test says otherwise: a busy machine is slow."

    STOP_AFTER = 60.0
    "Seconds between asking it to end (SIGTERM) and ending it (SIGKILL)."

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.output = ""
        self.exitCode: int | None = None
        self.ended = False
        self._waiting: list[tuple[str, Deferred[str]]] = []
        self._endings: list[Deferred[int | None]] = []
        # A character may arrive in two pieces.
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {file: decoder("replace") for file in (1, 2)}
        # The beginnings of lines of which the end has not arrived.
        self._rests = {1: "", 2: ""}

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        return self.output.splitlines()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        text = self._rests[childFD] + self._decoders[childFD].decode(data)
        lines, end, self._rests[childFD] = text.rpartition("\n")
        self.output += lines + end
        self._answer()

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        self.output += "".join(self._rests.values())
        self.exitCode = reason.value.exitCode  # None when a signal ended it
        self._answer()
        endings, self._endings = self._endings, []
        for ending in endings:
            ending.callback(self.exitCode)

    def whenPrinted(self, text: str, timeout: float = WITHIN) -> Deferred[str]:
        """
        Fires with the first whole line that contains `text`, also when it has been printed already.

        Fails with AssertionError, which shows the output, after `timeout` seconds or when the program ends.
        """
        waiter: Deferred[str] = Deferred(lambda d: self._waiting.remove((text, d)))
        self._waiting.append((text, waiter))

        def late(result: object, seconds: float) -> object:
            raise AssertionError(f"{self.command} did not print {text!r} in {seconds} s:\n{self.output}")

        waiter.addTimeout(timeout, reactor, late)
        self._answer()
        return waiter

    def whenEnded(self, timeout: float = WITHIN) -> Deferred[int | None]:
        """
        Fires with the exit code (None when a signal ended it), also when it ended already.

        Fails with AssertionError, which shows the output, after `timeout` seconds.
        """
        ending: Deferred[int | None] = Deferred(lambda d: self._endings.remove(d))

        def late(result: object, seconds: float) -> object:
            raise AssertionError(f"{self.command} did not end in {seconds} s:\n{self.output}")

        if self.ended:
            ending.callback(self.exitCode)
        else:
            self._endings.append(ending)
            ending.addTimeout(timeout, reactor, late)
        return ending

    def signal(self, name: str) -> None:
        """
        Send a signal (`"TERM"`, `"INT"`, `"KILL"`); nothing happens when the program has ended.
        """
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def stop(self) -> Deferred[int | None]:
        """
        End the program and fire when it is gone: SIGTERM first, SIGKILL after `STOP_AFTER` seconds.
        """
        if self.ended:
            return self.whenEnded()
        self.signal("TERM")
        kill = reactor.callLater(self.STOP_AFTER, self.signal, "KILL")

        def gone(code: int | None) -> int | None:
            if kill.active():
                kill.cancel()
            return code

        return self.whenEnded(self.STOP_AFTER + 10).addCallback(gone)

    def _answer(self) -> None:
        for entry in list(self._waiting):
            text, waiter = entry
            line = next((line for line in self.lines if text in line), None)
            if line is not None:
                self._waiting.remove(entry)
                waiter.callback(line)
            elif self.ended:
                self._waiting.remove(entry)
                waiter.errback(
                    AssertionError(f"{self.command} ended and never printed {text!r}:\n{self.output}")
                )


def startProgram(
    case: TestCase,
    command: Sequence[str],
    *,
    cwd: str | None = None,
    environment: Mapping[str, str] | None = None,
    childFDs: Mapping[int, str | int] | None = None,
) -> Program:
    """
    Start a program for one test, which stops it at its end.

    :param command: the program, with its folder or found on PATH, and its arguments.
    :param environment: added to the environment of the tests.
    :param childFDs: as for `spawnProcess`, beside the standard streams.
    """
    program = Program(command)
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    files = {0: "w", 1: "r", 2: "r", **(childFDs or {})}
    reactor.spawnProcess(program, command[0], list(command), env=env, path=cwd, childFDs=files)

    async def stop() -> None:
        await program.stop()
        if not getattr(case, "_passed", True):  # as trial marks a test
            ended = f"{' '.join(command)}\nended with {program.exitCode}, and printed:"
            # tests/__main__.py finds these blocks, and shows them again beside the failures.
            print(f"\n[PROGRAM]\n{ended}\n{indent(program.output[-SHOWN:], '    ')}\n=====", flush=True)

    case.addCleanup(stop)
    return program


def makeCertificate(file: Path) -> Path:
    """
    Write a key and a certificate for 127.0.0.1 and localhost, its own authority, to a file, and return that.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    address = x509.SubjectAlternativeName(names)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
    return file
