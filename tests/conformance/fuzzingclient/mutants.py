"""
Echoes that are broken on purpose, each in one way: what finds nothing wrong with them finds nothing.

They are the echo of `tests.conformance.servers`, on the fast paths, with one thing changed in each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.fuzzingclient.verdicts import FAILED, NON_STRICT
from tests.conformance.servers import EchoFrames, echoFactory
from txrealtime.engineio.websocket.autobahn import FrameFactory


@dataclass(frozen=True)
class Mutant:
    """
    A broken echo.

    :ivar name: what is wrong with it.
    :ivar make: makes its factory.
    :ivar cases: those that it is tried with, as patterns.
    :ivar found: those of them that must find it. All others must be OK, so what is found is this fault, and
        not that the echo does not work at all.
    :ivar grade: what those that find it say.
    """

    name: str
    make: Callable[[], FrameFactory]
    cases: tuple[str, ...]
    found: tuple[str, ...]
    grade: str = FAILED


# -- what Autobahn does for the echo


def changed(**members: Any) -> FrameFactory:
    """
    An echo whose Autobahn has some other members.
    """
    factory = echoFactory()
    for name, member in members.items():
        setattr(factory._autobahnProtocol, name, member)
    return factory


def forgiving(*reasons: str) -> FrameFactory:
    """
    An echo that goes on after violations of the protocol whose descriptions contain some words.
    """
    protocol = echoFactory()._autobahnProtocol

    def violation(self: Any, reason: str) -> bool:
        if any(words in reason for words in reasons):
            return False
        result: bool = protocol._protocol_violation(self, reason)
        return result

    return changed(_protocol_violation=violation)


def acceptsInvalidUTF8() -> FrameFactory:
    def received(self: Any, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.owner.bytesReceived(payload)
        else:
            self.owner.textReceived(payload.decode("utf-8", "replace"))

    return changed(utf8validateIncoming=False, onMessage=received)


def looksAtUTF8Late() -> FrameFactory:
    def received(self: Any, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.owner.bytesReceived(payload)
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self._invalid_payload("invalid UTF-8")
        else:
            self.owner.textReceived(text)

    return changed(utf8validateIncoming=False, onMessage=received)


def ignoresCloseFrames() -> FrameFactory:
    """An echo that answers every close frame with 1000, whatever the frame's code."""
    protocol = echoFactory()._autobahnProtocol
    return changed(onCloseFrame=lambda self, code, reason: protocol.onCloseFrame(self, 1000, None))


def keepsTheContext() -> FrameFactory:
    """An echo that agrees to no_context_takeover and keeps its context."""
    protocol = echoFactory()._autobahnProtocol

    def opened(self: Any) -> None:
        if self._perMessageCompress is not None:
            self._perMessageCompress.server_no_context_takeover = False
        protocol.onOpen(self)

    return changed(onOpen=opened)


# -- what the echo does itself


class Truncating(EchoFrames):
    def textReceived(self, text: str) -> None:
        super().textReceived(text[:-1])

    def bytesReceived(self, data: bytes) -> None:
        super().bytesReceived(data[:-1])


class TruncatingLarge(EchoFrames):
    """An echo that cuts messages at 64 KiB."""

    def textReceived(self, text: str) -> None:
        super().textReceived(text[:65536])


class Flipping(EchoFrames):
    """An echo that flips one bit of each binary message."""

    def bytesReceived(self, data: bytes) -> None:
        super().bytesReceived(data[:-1] + bytes(byte ^ 1 for byte in data[-1:]))


class AnsweringPingsWrong(EchoFrames):
    """An echo that flips one bit of each byte of a PING's payload."""

    def pinged(self, payload: bytes) -> None:
        super().pinged(bytes(byte ^ 1 for byte in payload))


class IgnoringPings(EchoFrames):
    def pinged(self, payload: bytes) -> None:
        pass


class Confusing(EchoFrames):
    """An echo that answers text with binary."""

    def textReceived(self, text: str) -> None:
        self.sendBytes(text.encode())


class Mute(EchoFrames):
    def textReceived(self, text: str) -> None:
        pass


class Dropping(EchoFrames):
    """An echo that aborts the connection on every message."""

    def textReceived(self, text: str) -> None:
        self.abort()


class Doubling(EchoFrames):
    """An echo that answers twice."""

    def textReceived(self, text: str) -> None:
        super().textReceived(text)
        super().textReceived(text)


def echoing(protocol: type[EchoFrames]) -> Callable[[], FrameFactory]:
    """Return a maker of factories for an echo of another class."""
    return lambda: echoFactory(protocol=protocol)


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "acceptsInvalidUTF8",
        acceptsInvalidUTF8,
        ("6.1.*", "6.2.*", "6.3.1", "6.4.2", "6.12.1"),
        ("6.3.1", "6.4.2", "6.12.1"),
    ),
    Mutant("looksAtUTF8Late", looksAtUTF8Late, ("6.3.*", "6.4.1", "6.4.2"), ("6.4.1", "6.4.2"), NON_STRICT),
    Mutant(
        "answersPingsWrong",
        echoing(AnsweringPingsWrong),
        ("2.1", "2.2", "2.3", "2.4"),
        ("2.2", "2.3", "2.4"),
    ),
    Mutant("ignoresPings", echoing(IgnoringPings), ("2.1", "2.5", "2.7", "2.10"), ("2.1", "2.10")),
    Mutant("acceptsReservedBits", lambda: forgiving("RSV"), ("1.1.1", "3.*"), ("3.*",)),
    Mutant(
        "acceptsReservedOpcodes",
        lambda: forgiving("reserved opcode"),
        ("1.1.1", "4.1.1", "4.1.3", "4.2.1", "4.2.3"),
        ("4.*",),
    ),
    Mutant("acceptsLongControlFrames", lambda: forgiving("> 125"), ("2.4", "7.3.*"), ("7.3.6",)),
    Mutant(
        "acceptsFragmentedControlFrames",
        lambda: forgiving("fragmented control"),
        ("5.1", "5.2", "5.3"),
        ("5.1",),
    ),
    Mutant(
        "acceptsContinuationsOfNothing",
        lambda: forgiving("outside fragmented"),
        ("5.9", "5.10", "5.15", "5.17"),
        ("5.9", "5.10", "5.17"),
    ),
    Mutant(
        "acceptsMessagesWithinMessages",
        lambda: forgiving("non-continuation"),
        ("5.6", "5.15", "5.18"),
        ("5.18",),
    ),
    Mutant(
        "acceptsInvalidCloseCodes", lambda: forgiving("invalid close code"), ("7.7.*", "7.9.*"), ("7.9.*",)
    ),
    Mutant(
        "ignoresCloseFrames", ignoresCloseFrames, ("7.5.*", "7.7.1", "7.9.1", "7.9.9"), ("7.5.*", "7.9.*")
    ),
    Mutant("keepsTheContext", keepsTheContext, ("13.1.3", "13.2.1", "13.2.3"), ("13.2.*",)),
    Mutant(
        "doesNotCompress",
        lambda: echoFactory(perMessageDeflate=False),
        ("1.1.1", "12.1.1", "13.1.1"),
        ("12.*", "13.*"),
    ),
    Mutant("truncates", echoing(Truncating), ("1.1.1", "1.1.2", "1.2.2"), ("1.1.2", "1.2.2")),
    Mutant(
        "truncatesLarge",
        echoing(TruncatingLarge),
        ("9.1.1", "9.1.2", "9.3.9", "9.5.6"),
        ("9.1.2", "9.3.9", "9.5.6"),
    ),
    Mutant("flipsABit", echoing(Flipping), ("1.1.2", "1.2.1", "1.2.2", "12.2.1"), ("1.2.2", "12.2.1")),
    Mutant("confusesTypes", echoing(Confusing), ("1.1.1", "1.1.2", "1.2.2"), ("1.1.*",)),
    Mutant("isMute", echoing(Mute), ("1.1.1", "1.2.1", "3.1", "4.1.1", "5.1"), ("1.1.1",)),
    Mutant("dropsConnections", echoing(Dropping), ("1.1.1", "1.2.1", "3.1"), ("1.1.1",)),
    Mutant("answersTwice", echoing(Doubling), ("1.1.1", "1.2.1"), ("1.1.1",)),
)
