"""
Autobahn's suite for WebSocket: what a run of all tests has time for, and the proof that it finds faults.

`make conformance` plays all 517 cases. Here those of compression, which take minutes, are samples: each
payload, each size, each way to fragment, each set of parameters.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.protocol import ServerFactory
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.conformance.fuzzingclient.mutants import MUTANTS, Mutant
from tests.conformance.fuzzingclient.report import report
from tests.conformance.fuzzingclient.suite import Suite, fetch
from tests.conformance.fuzzingclient.verdicts import (
    FAILED,
    INFORMATIONAL,
    NON_STRICT,
    OK,
    Verdict,
    grades,
    matching,
    problems,
    read,
)
from tests.conformance.servers import echoFactory
from tests.conformance.sessions import Loopback
from tests.support import freePort, makeCertificate, requirePart, startProgram

FRAMING = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")

PAYLOADS = ("12.1.*", "12.2.4", "12.2.11", "12.3.5", "12.3.12", "12.4.9", "12.4.14", "12.5.7", "12.5.13")
PARAMETERS = tuple(f"13.{group}.{size}" for group in range(1, 8) for size in (2, 5, 9, 14))

DEADLINE = 600.0
"Seconds after which a fuzzer has not come to its end; it takes a tenth of that where it is alone."


class FuzzingTestCase(TestCase):
    """
    A test that plays cases; servers are in this process, so what they log as an error fails it.
    """

    timeout = 900

    def setUp(self) -> None:
        try:
            self.suite: Suite = fetch()
        except AssertionError as error:
            requirePart(False, f"autobahntestsuite cannot be made ready: {error}")

    def serve(self, factory: ServerFactory) -> str:
        """Serve the echo of a factory until the test ends, and return its URL."""
        loopback = Loopback(factory, MultiService())
        self.addCleanup(loopback.stop)
        return loopback.url.replace("http", "ws")

    def serveTLS(self, factory: ServerFactory) -> str:
        """The same over TLS."""
        file = Path(self.mktemp())
        makeCertificate(file)
        options = PrivateCertificate.loadPEM(file.read_bytes()).options()
        return self.serve(TLSMemoryBIOFactory(options, False, factory)).replace("ws", "wss")

    async def play(self, url: str, *patterns: str) -> dict[str, Verdict]:
        """
        Play the cases that patterns name, by a fuzzer of their own.
        """
        cases = matching(self.suite.cases, patterns)
        program = startProgram(self, self.suite.command(url, *cases), environment=self.suite.environment)
        await program.whenEnded(DEADLINE)
        return read(program.output)

    async def check(self, url: str, *parts: tuple[str, ...]) -> None:
        """
        All cases must pass; each part has a fuzzer of its own, for they wait much.
        """
        played = [Deferred.fromCoroutine(self.play(url, *part)) for part in parts]
        verdicts = {case: verdict for part in await gatherResults(played) for case, verdict in part.items()}
        cases = matching(self.suite.cases, [pattern for part in parts for pattern in part])
        self.assertFalse(found := problems(verdicts, cases), "\n".join(found))


class FuzzingClientTests(FuzzingTestCase):
    async def test_shortWays(self) -> None:
        await self.check(self.serve(echoFactory()), (*FRAMING, *PARAMETERS), ("9.*", *PAYLOADS))

    async def test_byAutobahnAlone(self) -> None:
        compression = ("12.*.1", "13.1.3", "13.2.5", "13.3.9")
        url = self.serve(echoFactory(shortWays=False))
        await self.check(url, FRAMING, ("9.1.*", "9.2.*", "9.3.1", "9.4.9", "9.6.3", "9.7.*", *compression))

    async def test_tls(self) -> None:
        large = ("9.1.*", "9.2.6", "9.3.2", "9.4.9", "9.5.3", "9.8.*", "12.1.9", "12.5.11", "13.5.9")
        await self.check(self.serveTLS(echoFactory()), FRAMING, large)

    async def test_tlsByAutobahnAlone(self) -> None:
        framing = ("1.*", "2.*", "3.*", "4.*", "5.*", "7.*", "10.*")
        url = self.serveTLS(echoFactory(shortWays=False))
        await self.check(
            url, framing, ("6.1.*", "6.2.*", "6.3.*", "6.4.1", "9.1.3", "9.4.2", "12.1.3", "13.1.3")
        )


class MutantTests(FuzzingTestCase):
    """
    That the cases find something.
    """

    async def test_eachMutantIsFound(self) -> None:
        # They mostly wait for what does not come.
        places = DeferredSemaphore(6)
        tries = [
            places.run(lambda mutant=mutant: Deferred.fromCoroutine(self.trial(mutant))) for mutant in MUTANTS
        ]
        different = [line for line in await gatherResults(tries) if line]
        self.assertFalse(different, "\n".join(different))

    async def trial(self, mutant: Mutant) -> str:
        """Play the mutant's cases; returns what differs from what is expected of them."""
        verdicts = await self.play(self.serve(mutant.make()), *mutant.cases)
        cases = matching(self.suite.cases, mutant.cases)
        finders = matching(cases, mutant.found)
        expected = {case: mutant.grade if case in finders else OK for case in cases}
        seen = {case: verdicts[case].grade if case in verdicts else "missing" for case in cases}
        return "" if seen == expected else f"{mutant.name}: {seen}, expected {expected}"

    async def test_nobodyListens(self) -> None:
        verdicts = await self.play(f"ws://127.0.0.1:{freePort()}", "1.1.1", "1.1.2")
        self.assertEqual(problems(verdicts, ["1.1.1", "1.1.2"]), ["1.1.1: missing", "1.1.2: missing"])

    async def test_fuzzerEndsEarly(self) -> None:
        program = startProgram(
            self, self.suite.command("ws://127.0.0.1", "99.1"), environment=self.suite.environment
        )
        await program.whenEnded(DEADLINE)
        self.assertIn("did not come to its end", str(self.assertRaises(AssertionError, read, program.output)))


class VerdictTests(SynchronousTestCase):
    def test_grade(self) -> None:
        for behavior, close, grade in (
            ("OK", "OK", OK),
            ("OK", "INFORMATIONAL", OK),
            ("NON-STRICT", "OK", NON_STRICT),
            ("INFORMATIONAL", "INFORMATIONAL", INFORMATIONAL),
            ("FAILED", "OK", FAILED),
            ("UNIMPLEMENTED", "OK", FAILED),
            ("OK", "FAILED", FAILED),
            ("OK", "WRONG CODE", FAILED),
            ("OK", "UNCLEAN", FAILED),
            ("OK", "FAILED BY CLIENT", FAILED),
        ):
            self.assertEqual(Verdict(behavior, close).grade, grade, (behavior, close))

    def test_problems(self) -> None:
        verdicts = {
            "1.1.1": Verdict("OK", "OK"),
            "1.1.2": Verdict("OK", "UNCLEAN", "why"),
            "3.2": Verdict("NON-STRICT", "OK", "why"),
            "6.4.1": Verdict("NON-STRICT", "OK", "late"),
            "7.1.5": Verdict("INFORMATIONAL", "OK", "why"),
            "7.1.6": Verdict("INFORMATIONAL", "INFORMATIONAL"),
        }
        cases = [*verdicts, "10.1.1"]
        found = [
            "1.1.2: OK, UNCLEAN: why",
            "3.2: NON-STRICT, OK: why",
            "7.1.5: INFORMATIONAL, OK: why",
            "10.1.1: missing",
        ]
        self.assertEqual(problems(verdicts, cases), found)
        found.insert(2, "6.4.1: NON-STRICT, OK: late")
        self.assertEqual(problems(verdicts, cases, strict=True), found)
        self.assertEqual(grades(verdicts, cases), {OK: 1, NON_STRICT: 2, INFORMATIONAL: 2, FAILED: 2})

    def test_errorsOfTheFuzzer(self) -> None:
        report = {"verdicts": {}, "errors": ["Traceback: it broke"]}
        error = self.assertRaises(AssertionError, read, f"Running ...\n{json.dumps(report)}\n")
        self.assertIn("it broke", str(error))

    def test_report(self) -> None:
        cases = ["1.1.1", "1.2.1", "7.1.6", "10.1.1"]
        verdicts = dict.fromkeys(cases[:2], Verdict("OK", "OK"))
        verdicts["7.1.6"] = Verdict("INFORMATIONAL", "INFORMATIONAL")
        titles = {"1": "Framing", "7": "Closing", "10": "Misc"}
        lines = report({"suite": "1", "server": "2"}, titles, [("All", cases, verdicts)]).split("\n")
        self.assertIn("Of suite 1, server 2.", lines)
        tables = "\n".join(lines).replace("\n     - ", "|")
        for row in (
            "* - 1.\\*|Framing|2|2|0|0|0",
            "* - 7.\\*|Closing|1|0|0|1|0",
            "* - 10.\\*|Automatic fragmentation|1|0|0|0|1",
            "* -|All|4|2|0|1|1",
        ):
            self.assertIn(f"   {row}\n", tables)
        self.assertIn("Not OK: 7.1.6 (INFORMATIONAL), 10.1.1 (missing).", lines)

    def test_matching(self) -> None:
        cases = ["1.1.1", "1.1.2", "1.2.1", "1.10.1"]
        self.assertEqual(matching(cases, ["1.2.1", "1.1.*"]), ["1.1.1", "1.1.2", "1.2.1"])
        self.assertEqual(matching(cases, ["1.*", "1.1.1"]), cases)
        self.assertEqual(matching(cases, ["*.1"]), ["1.1.1", "1.2.1", "1.10.1"])
        for nothing in ("1.1", "2.*", ""):
            self.assertRaises(ValueError, matching, cases, [nothing])
