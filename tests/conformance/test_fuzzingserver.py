"""
Autobahn's suite against the client: what a run of all tests has time for, and the proof that it finds faults.

`make conformance` plays all 517 cases, and those of framing over TLS too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client

from tests.conformance.fuzzingclient.verdicts import OK, Verdict, matching, problems, read
from tests.conformance.fuzzingclient.visitor import Echo, Visit
from tests.conformance.test_fuzzingclient import DEADLINE, FuzzingTestCase
from tests.support import ROOT, Program, makeCertificate, startProgram

FRAMING = (
    *(
        "1.*",
        "2.*",
        "3.*",
        "4.*",
        "5.*",
        "6.1.*",
        "6.2.*",
        "6.3.*",
        "6.4.*",
        "6.21.*",
        "7.*",
        "9.1.1",
        "10.*",
    ),
)

COMPRESSION = ("1.1.2", "5.15", "12.1.1", "12.2.2", "13.2.1", "13.3.1", "13.5.2")

AT_ONCE = 8
"Cases at a time: most of them wait."


PATIENCE = "30"
"By how much the suite's deadlines are longer."


class FuzzingServerTestCase(FuzzingTestCase):
    async def start(
        self, cases: list[str], patience: str = PATIENCE, certificate: str = ""
    ) -> tuple[Program, str]:
        """Let the suite serve some cases; return its program and its URL."""
        command = self.suite.command("--serve", certificate, *cases)
        environment = {**self.suite.environment, "PATIENCE": patience}
        fuzzer = startProgram(self, command, environment=environment)
        line = await fuzzer.whenPrinted("port ", DEADLINE)
        return fuzzer, f"{'wss' if certificate else 'ws'}://127.0.0.1:{line.split()[1]}"


class FuzzingServerTests(FuzzingServerTestCase):
    async def visit(
        self, *patterns: str, pure: bool = False, deflate: bool = False, certificate: str = ""
    ) -> None:
        """Visit the suite by a program of the client; all cases must pass."""
        cases = matching(self.suite.cases, patterns)
        fuzzer, url = await self.start(cases, certificate=certificate)
        command = [
            sys.executable,
            "-m",
            "tests.conformance.fuzzingclient.visitor",
            url,
            f"--at-once={AT_ONCE}",
        ]
        command += ["--deflate"] if deflate else []
        command += ["--certificate", certificate] if certificate else []
        environment = {"TXREALTIME_PURE": "1" if pure else ""}
        visitor = startProgram(self, command, cwd=str(ROOT), environment=environment)
        self.assertEqual((await visitor.whenEnded(DEADLINE), visitor.output), (0, ""))
        await fuzzer.whenEnded(DEADLINE)
        self.assertFalse(found := problems(read(fuzzer.output), cases), "\n".join(found))

    async def test_framing(self) -> None:
        await self.visit(*FRAMING)

    async def test_framingInPython(self) -> None:
        await self.visit(*FRAMING, pure=True)

    async def test_tls(self) -> None:
        certificate = makeCertificate(Path(self.mktemp()).resolve())
        await self.visit("2.*", "5.15", "7.*", "9.1.1", certificate=str(certificate))

    async def test_compression(self) -> None:
        await self.visit(*COMPRESSION, deflate=True)


# -- echoes that are broken on purpose


class Truncating(Echo):
    def echo(self, payload: bytes, isBinary: bool) -> None:
        super().echo(payload[:-1], isBinary)


class Confusing(Echo):
    """An echo that answers text with binary."""

    def echo(self, payload: bytes, isBinary: bool) -> None:
        super().echo(payload, True)


class IgnoringPings(Echo):
    def becomeFull(self, transport: Any, key: bytes, isOpen: bool) -> Any:
        protocol: Any = super().becomeFull(transport, key, isOpen)
        protocol.onPing = lambda payload: None  # type: ignore[method-assign]
        return protocol


class AcceptingReservedBits(Echo):
    def becomeFull(self, transport: Any, key: bytes, isOpen: bool) -> Any:
        protocol: Any = super().becomeFull(transport, key, isOpen)
        violation = protocol._protocol_violation
        protocol._protocol_violation = lambda reason: "RSV" not in reason and violation(reason)
        return protocol


MUTANTS = (
    (Truncating, ("1.1.1", "1.1.2", "1.2.2"), ("1.1.2", "1.2.2")),
    (Confusing, ("1.1.2", "1.2.2"), ("1.1.2",)),
    (IgnoringPings, ("2.1", "2.5", "2.7", "2.10"), ("2.1", "2.10")),
    (AcceptingReservedBits, ("1.1.1", "3.2", "3.3"), ("3.2", "3.3")),
)
"For each mutant the cases that it is tried with, and those of them that must find it."


class MutantTests(FuzzingServerTestCase):
    """The cases find faults."""

    async def test_eachMutantIsFound(self) -> None:
        for mutant, cases, finders in MUTANTS:
            verdicts = await self.trial(mutant, list(cases))
            seen = {case for case in cases if case in verdicts and verdicts[case].grade != OK}
            # A case with a deadline of a second may fail on a busy machine by itself.
            self.assertLessEqual(set(finders), seen, mutant.__name__)

    async def trial(self, mutant: type[Echo], cases: list[str]) -> dict[str, Verdict]:
        """Play cases against a mutant in this process."""
        # Each case that finds something waits for its deadline.
        fuzzer, url = await self.start(cases, patience="1")
        await Visit(reactor, url, echo=mutant).play(AT_ONCE)
        await fuzzer.whenEnded(DEADLINE)
        # A connection that hangs up has a deadline.
        while any(isinstance(each, Client) for each in [*reactor.getReaders(), *reactor.getWriters()]):
            await deferLater(reactor, 0.01)
        return read(fuzzer.output)
