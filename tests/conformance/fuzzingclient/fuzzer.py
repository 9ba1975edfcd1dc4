"""
Plays cases of Autobahn's suite against a server or a client, in the suite's own environment; `suite` starts
it.

Usage: ``fuzzer.py --list`` prints the ids of all cases, as JSON. ``fuzzer.py URL CASE ...`` plays those named
against the server there. ``fuzzer.py --serve PEM CASE ...`` listens on a free port, prints ``port`` and its
number, and plays those that a client asks for, until the client asks for ``/updateReports``; PEM is a file
with a key and its certificate, for TLS, or empty. Both tell each case as it begins, and last print an object
with

``verdicts``
    for each case that came to an end: ``behavior`` and ``behaviorClose``, which are the suite's grades of
    what the peer did and of how the connection ended, and words and the last frames to go with them
``errors``
    exceptions in the fuzzer itself. They drop the connection, which many cases take for a pass: so the first
    one ends the run, and what is left has no verdict
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from typing import Any

import autobahntestsuite
from autobahntestsuite import case, fuzzing
from autobahntestsuite.caseset import CaseSet
from twisted.internet import reactor, ssl
from twisted.logger import globalLogPublisher

FRAMES = 8
"How many of the last entries of the wire's log a verdict tells."

PATIENCE = float(os.environ.get("PATIENCE", "1"))
"By how much deadlines, mostly of a second, are longer than the suite's own: the peer's machine may be busy."


def octets(text: str | bytes) -> bytes:
    """The bytes that a `str` of Python 2 stands for."""
    return text.encode("latin-1") if isinstance(text, str) else text


def native(data: str | bytes) -> str:
    """Convert a value to a `str` as Python 2 had it: text stays, each byte becomes a character."""
    return data.decode("latin-1") if isinstance(data, bytes) else data


def asciiLogData(data: str | bytes, maxlen: int = 64, replace: bool = False) -> str:
    """Data for the log, cut to a length: as text, or in hexadecimal what is none."""
    data = native(data)
    shown = f"{data[:maxlen]} ..." if len(data) > maxlen - 4 else data
    try:
        return octets(shown).decode("utf-8", "replace" if replace else "strict")
    except UnicodeError:
        return "0x" + fuzzing.binLogData(data, maxlen)


class Octets:
    """
    A case of either side: makes bytes of what the suite sends, and its kind of text of what it gets.
    """

    def sendFrame(
        self,
        opcode: int,
        payload: str | bytes = b"",
        fin: bool = True,
        rsv: int = 0,
        mask: bytes | None = None,
        payload_len: int | None = None,
        chopsize: int | None = None,
        sync: bool = False,
    ) -> None:
        data = octets(payload)
        if payload_len is not None:  # Autobahn 0.10.9 would divide to a float
            data = data * (payload_len // len(data)) + data[: payload_len % len(data)]
        super().sendFrame(opcode, data, fin, rsv, mask, None, chopsize, sync)

    def sendMessage(self, payload: str | bytes, *arguments: Any, **options: Any) -> None:
        super().sendMessage(octets(payload), *arguments, **options)

    def sendMessageFrameData(self, payload: str | bytes, sync: bool = False) -> Any:
        return super().sendMessageFrameData(octets(payload), sync)

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: str | bytes | None = None, isReply: bool = False
    ) -> None:
        reason = None if reasonUtf8 is None else octets(reasonUtf8)
        super().sendCloseFrame(code, reason, isReply)

    def closeAfter(self, delay: float) -> None:
        super().closeAfter(delay * PATIENCE)

    def killAfter(self, delay: float) -> None:
        super().killAfter(delay * PATIENCE)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.runCase.onMessage(native(payload), isBinary)

    def onPong(self, payload: bytes) -> None:
        self.runCase.onPong(native(payload))

    def logRxFrame(self, frameHeader: Any, payload: list[bytes]) -> None:
        super().logRxFrame(frameHeader, [native(part) for part in payload])


class Client(Octets, fuzzing.FuzzingClientProtocol):
    """One case against a server."""


class Server(Octets, fuzzing.FuzzingServerProtocol):
    """One case against a client, or one of its questions."""

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if getattr(self, "path", "") == "/updateReports":
            reactor.stop()


class Verdicts:
    """
    The suite's factory of either side, which keeps the verdicts in place of reports in files.

    :ivar verdicts: by the ids of the cases.
    """

    def __init__(self, specification: dict[str, Any]) -> None:
        self.verdicts: dict[str, dict[str, Any]] = {}
        super().__init__(specification)  # type: ignore[call-arg]

    def logCase(self, caseResults: dict[str, Any]) -> None:
        kept = ("behavior", "behaviorClose", "result", "resultClose", "remoteCloseCode", "duration")
        verdict = {key: caseResults[key] for key in kept}
        verdict["frames"] = [repr(entry) for entry in caseResults["wirelog"][-FRAMES:]]
        self.verdicts[caseResults["id"]] = verdict
        super().logCase(caseResults)  # which responds to /getCaseStatus

    def createReports(self) -> None:
        """The suite's own, in files, are not wanted."""


class Fuzzer(Verdicts, fuzzing.FuzzingClientFactory):
    """Plays one case after the other against a server."""

    def __init__(self, url: str, cases: list[str]) -> None:
        # Without a name, the server's header would be one.
        super().__init__({"servers": [{"url": url, "agent": "server"}], "cases": cases})


class FuzzingServer(Verdicts, fuzzing.FuzzingServerFactory):
    """Plays the cases that a client asks for."""

    protocol = Server

    def __init__(self, certificate: str, cases: list[str]) -> None:
        scheme = "wss" if certificate else "ws"
        # Autobahn gives these 5 s and 1 s.
        options = {"openHandshakeTimeout": 5 * PATIENCE, "closeHandshakeTimeout": PATIENCE}
        super().__init__({"url": f"{scheme}://127.0.0.1", "cases": cases, "options": options})
        if certificate:
            with open(certificate) as file:
                pair = ssl.PrivateCertificate.loadPEM(file.read())
            port = reactor.listenSSL(0, self, pair.options(), interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, self, interface="127.0.0.1")
        # Compared with the port of the header Host.
        self.externalPort = port.getHost().port
        print(f"port {self.externalPort}", flush=True)


class Errors:
    """
    Observes the log for exceptions in the fuzzer, and stops it at the first.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is None and not event.get("isError"):
            return
        if failure is not None and failure.check(zlib.error):
            return  # what the server sent was broken: a finding, not a mistake
        self.seen.append(failure.getTraceback() if failure is not None else str(event))
        if len(self.seen) == 1:
            reactor.callWhenRunning(reactor.stop)


def main(arguments: list[str]) -> None:
    """List the cases, or play some."""
    if arguments == ["--list"]:
        cases = CaseSet("", case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories)
        ids = cases.parseSpecCases({"cases": ["*"]})
        titles = {**case.CaseCategories, **case.CaseSubCategories}
        print(json.dumps({"version": autobahntestsuite.version, "cases": ids, "titles": titles}))
        return
    errors = Errors()
    globalLogPublisher.addObserver(errors)
    fuzzing.asciiLogData = asciiLogData
    fuzzing.FuzzingClientProtocol = Client  # the factory looks this name up
    if arguments[0] == "--serve":
        fuzzer: Verdicts = FuzzingServer(arguments[1], arguments[2:])
    else:
        fuzzer = Fuzzer(arguments[0], arguments[1:])
    reactor.run()
    print(json.dumps({"verdicts": fuzzer.verdicts, "errors": errors.seen}))


if __name__ == "__main__":
    main(sys.argv[1:])
