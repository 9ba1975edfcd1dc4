"""
Our codecs against those of the JavaScript clients, in both directions, on thousands of packets.

The packets are made up by a generator with a fixed seed, so a failure comes again; SEED in the environment is
another one.
"""

from __future__ import annotations

import json
import os
import random
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.clients import javaScript, requireJavaScriptClient
from tests.support import run
from txrealtime.engineio import packet as engine
from txrealtime.engineio.packet import EngineIO4
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.socketio.packet import JSONParser, Packet, PacketType

T = TypeVar("T")

SEED = int(os.environ.get("SEED", "6"))
COUNT = 2000
"Packets, or payloads of several, that a test tries."

MAX_ATTACHMENTS = 10

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LETTERS = [*'ab01 :,-/[]{}"\\\b\n\r\0\x7f\x85', *"äß€日本\u2028\u2029\ufeff\ufffd", "𝄞", "👩‍🚀"]
"One to four bytes in UTF-8, one or two units in JavaScript, and whatever means something to a parser."


def marked(value: Any) -> Any:
    """A value as golden.cjs reads it."""
    match value:
        case bytes():
            return {"$bytes": b64encode(value).decode()}
        case datetime():
            return {"$date": (value - EPOCH) // timedelta(milliseconds=1)}
        case list() | tuple():
            return [marked(item) for item in value]
        case dict():
            return {key: marked(item) for key, item in value.items()}
    return value


def unmarked(value: Any) -> Any:
    """A value that golden.cjs printed."""
    match value:
        case {"$bytes": text}:
            return b64decode(text)
        case {"$date": milliseconds}:
            return EPOCH + timedelta(milliseconds=milliseconds)
        case list():
            return [unmarked(item) for item in value]
        case dict():
            return {key: unmarked(item) for key, item in value.items()}
    return value


class Generator:
    """
    Makes up what may be sent.

    :ivar floats: some that are at the limits of a codec.
    """

    def __init__(self) -> None:
        self._random = random.Random(SEED)
        self.floats = [0.5, 5e-324, 1e21, 1e300]

    def text(self, maxLength: int = 12) -> str:
        return "".join(self._random.choices(LETTERS, k=self._length(maxLength)))

    def bytes(self, maxLength: int = 12) -> bytes:
        return self._random.randbytes(self._length(maxLength))

    def date(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self._random.randint(-(10**13), 10**13))

    def value(self, depth: int = 4, withBytes: bool = True) -> Any:
        """Anything that JSON has, and bytes."""
        choose = self._random.choice
        kind = choose(["text", "int", "float", "constant", "bytes", *(["list", "dict"] * 2 if depth else [])])
        match kind:
            case "text":
                return self.text()
            case "int":
                return choose([0, 1, -1, self._random.randint(-(2**53), 2**53)])
            case "float":
                return choose([*self.floats, self._random.uniform(-1e6, 1e6)])
            case "constant":
                return choose([None, True, False])
            case "bytes":
                return self.bytes() if withBytes else b"".decode()
            case "list":
                return [self.value(depth - 1, withBytes) for _ in range(self._length(4))]
        return {self.text(): self.value(depth - 1, withBytes) for _ in range(self._length(4))}

    def enginePacket(self) -> engine.Packet:
        if self._random.random() < 0.2:
            type = self._random.choice(
                [each for each in engine.PacketType if each is not engine.PacketType.MESSAGE]
            )
            return engine.Packet(type, self._random.choice(["", "probe"]))
        # Lengths of one, two, three and, in JavaScript's units, also of four digits.
        length = self._random.choice([5, 20, 200, 2000])
        return engine.message(self._random.choice([self.text, self.bytes])(length))

    def enginePayload(self) -> list[engine.Packet]:
        return [self.enginePacket() for _ in range(1 + self._length(4))]

    def socketPacket(self) -> Packet:
        """An event or an ack, with few enough bytes in it."""
        type = self._random.choice([PacketType.EVENT, PacketType.ACK])
        id = self._random.choice([0, 1, 12, self._random.randint(0, 2**53)])
        while True:
            data = [self.value() for _ in range(self._length(4))]
            if str(marked(data)).count("$bytes") <= MAX_ATTACHMENTS:
                break
        if type is PacketType.EVENT:
            data.insert(0, "event " + self.text())
            id = self._random.choice([id, None])
        return Packet(type, self.namespace(), data, id)

    def namespace(self) -> str:
        return self._random.choice(["/", "/chat", "/größe", "/a/b-1", "/12"])

    def _length(self, most: int) -> int:
        return self._random.randint(0, most)


class GoldenCase(SynchronousTestCase):
    def setUp(self) -> None:
        requireJavaScriptClient("engine.io-parser-2")
        self.generator = Generator()

    def javaScript(
        self, codec: str, packets: Sequence[Any], wires: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """
        The wire forms that a codec of golden.cjs gives to packets, and the packets that it reads from wires.
        """
        tasks = Path(self.mktemp())
        tasks.write_text(json.dumps([{"codec": codec, "packets": marked(packets), "wires": marked(wires)}]))
        [result] = json.loads(run(*javaScript("golden.cjs", str(tasks))))
        return unmarked(result["wires"]), unmarked(result["packets"])

    def assertSame(self, actual: Sequence[T], expected: Sequence[T], wires: Sequence[Any]) -> None:
        """Each as expected; otherwise, show the first that is not, and its wire form."""
        self.assertEqual(len(actual), len(expected))
        for index, wire in enumerate(wires):
            self.assertEqual(actual[index], expected[index], f"number {index} of seed {SEED}: {wire!r}")


class EngineIOCase(GoldenCase):
    def assertAgree(
        self,
        codec: str,
        payloads: Sequence[Sequence[engine.Packet]],
        encode: Callable[[Sequence[engine.Packet]], str | bytes],
        decode: Callable[[Any], Sequence[engine.Packet]],
        alike: bool = True,
    ) -> None:
        """
        Our codec and theirs read each other's bytes, and make the same if they are `alike`.
        """
        described = [[[packet.type.name.lower(), packet.data] for packet in payload] for payload in payloads]
        ours = [encode(payload) for payload in payloads]
        theirs, read = self.javaScript(codec, described, ours)
        if alike:
            self.assertSame(ours, theirs, ours)
        self.assertSame(read, described, ours)
        self.assertSame([decode(wire) for wire in theirs], payloads, theirs)


class EngineIO4Tests(EngineIOCase):
    """npm engine.io-parser 5.2.3."""

    def test_payloads(self) -> None:
        payloads = [self.generator.enginePayload() for _ in range(COUNT)]
        self.assertAgree(
            "engine 4 payload",
            payloads,
            lambda payload: EngineIO4.encodePayload(payload).decode(),
            lambda wire: EngineIO4.decodePayload(wire.encode()),
        )

    def test_frames(self) -> None:
        packets = [[self.generator.enginePacket()] for _ in range(COUNT)]

        def encode(payload: Sequence[engine.Packet]) -> str | bytes:
            [packet] = payload
            return packet.wire if packet.isBinary else packet.wire.decode()

        def decode(wire: str | bytes) -> Sequence[engine.Packet]:
            return [EngineIO4.decodeBytes(wire) if isinstance(wire, bytes) else EngineIO4.decodeText(wire)]

        self.assertAgree("engine 4 frame", packets, encode, decode)


class EngineIO3Tests(EngineIOCase):
    """npm engine.io-parser 1.3.2 and 2.2.1."""

    def assertPayloadsAgree(self, codec: str, ours: EngineIO3, alike: bool = True) -> None:
        payloads = [self.generator.enginePayload() for _ in range(COUNT)]

        def encode(payload: Sequence[engine.Packet]) -> str | bytes:
            body = ours.encodePayload(payload)
            return body if ours.isOctets(body) else body.decode()

        def decode(wire: str | bytes) -> Sequence[engine.Packet]:
            if isinstance(wire, bytes):
                return ours.decodePayload(wire, octets=True)
            return ours.decodePayload(wire.encode())

        self.assertAgree(codec, payloads, encode, decode, alike)

    def test_payloadsOfClients2(self) -> None:
        ours = EngineIO3()
        ours.decodePayload("2:4€".encode())  # who this comes from is a client 2
        self.assertPayloadsAgree("engine 3 payload of clients 2", ours)

    def test_payloadsOfClients2InBase64(self) -> None:
        ours = EngineIO3(base64=True)
        ours.decodePayload("2:4€".encode())
        self.assertPayloadsAgree("engine 3 payload of clients 2 in base64", ours)

    def test_payloadsOfClients1(self) -> None:
        # Theirs are binary always, ours where it makes a difference.
        self.assertPayloadsAgree("engine 3 payload of clients 1", EngineIO3(), alike=False)

    def test_payloadsOfClients1InBase64(self) -> None:
        ours = EngineIO3(base64=True)
        ours.decodePayload("4:4â\x82¬".encode())  # and this from a client 1
        self.assertPayloadsAgree("engine 3 payload of clients 1 in base64", ours)

    def test_payloadsOfClientsNotKnownYet(self) -> None:
        """Both revisions read the same bytes of a client before it has shown its own."""
        payloads = [self.generator.enginePayload() for _ in range(COUNT)]
        described = [[[packet.type.name.lower(), packet.data] for packet in payload] for payload in payloads]
        ours = [EngineIO3().encodePayload(payload) for payload in payloads]
        wires = [body if EngineIO3().isOctets(body) else body.decode() for body in ours]
        for version in (1, 2):
            _, read = self.javaScript(f"engine 3 payload of clients {version}", [], wires)
            self.assertSame(read, described, ours)

    def test_frames(self) -> None:
        for version in (1, 2):
            for base64 in (False, True):
                self.assertFramesAgree(
                    f"engine 3 frame of clients {version}{' in base64' if base64 else ''}", base64
                )

    def assertFramesAgree(self, codec: str, base64: bool) -> None:
        packets = [[self.generator.enginePacket()] for _ in range(COUNT)]
        ours = EngineIO3(base64)

        def encode(payload: Sequence[engine.Packet]) -> str | bytes:
            data, isBinary = ours.encodeMessage(payload[0], base64)
            return data if isBinary else data.decode()

        def decode(wire: str | bytes) -> Sequence[engine.Packet]:
            return [ours.decodeBytes(wire) if isinstance(wire, bytes) else ours.decodeText(wire)]

        self.assertAgree(codec, packets, encode, decode)


class SocketIOCase(GoldenCase):
    def assertAgree(self, codec: str, parser: Any, packets: Sequence[Packet]) -> None:
        """
        Our parser and theirs read each other's messages; the messages differ, as JSON may.
        """
        described = [
            {"type": packet.type, "nsp": packet.namespace}
            | ({} if packet.data is None else {"data": packet.data})
            | ({} if packet.id is None else {"id": packet.id})
            for packet in packets
        ]
        ours = [parser.encode(packet) for packet in packets]
        theirs, read = self.javaScript(codec, described, ours)
        self.assertSame(read, [[packet] for packet in described], ours)
        self.assertSame([self.decoded(parser, messages) for messages in theirs], packets, theirs)

    def decoded(self, parser: Any, messages: Sequence[str | bytes]) -> Packet:
        decoder = parser.decoder(MAX_ATTACHMENTS)
        *incomplete, packet = [decoder.feed(message) for message in messages]
        self.assertEqual(set(incomplete) - {None}, set())
        return packet

    def packets(self) -> list[Packet]:
        return [self.generator.socketPacket() for _ in range(COUNT)]

    def openings(self) -> list[Packet]:
        """Connections and their ends, as version 5 has them."""
        packets = []
        for _ in range(COUNT // 10):
            namespace, auth = self.generator.namespace(), {"auth": self.generator.value(withBytes=False)}
            packets += [
                Packet(PacketType.CONNECT, namespace),
                Packet(PacketType.CONNECT, namespace, auth),
                Packet(PacketType.CONNECT_ERROR, namespace, {"message": self.generator.text(), "data": auth}),
                Packet(PacketType.DISCONNECT, namespace),
            ]
        return packets


class SocketIO5Tests(SocketIOCase):
    """npm socket.io-parser 4.2.7."""

    def test_packets(self) -> None:
        for accelerated in (True, False):
            self.assertAgree("socket 5", JSONParser(accelerated), self.packets())

    def test_openings(self) -> None:
        self.assertAgree("socket 5", JSONParser(), self.openings())


class MsgpackTests(SocketIOCase):
    """npm socket.io-msgpack-parser 3.0.2."""

    def setUp(self) -> None:
        super().setUp()
        # To JavaScript the others are integers, and this parser cuts them to 64 bits.
        self.generator.floats = [0.5, 5e-324]

    def test_packets(self) -> None:
        packets = self.packets()
        # Beyond JSON there are dates.
        packets += [
            Packet(PacketType.EVENT, "/", ["event", self.generator.date(), [self.generator.date()]])
            for _ in range(COUNT // 10)
        ]
        self.assertAgree("socket 5 in msgpack", MsgpackParser(), packets)

    def test_openings(self) -> None:
        self.assertAgree("socket 5 in msgpack", MsgpackParser(), self.openings())

    def test_undefined(self) -> None:
        event = {"type": PacketType.EVENT, "nsp": "/", "data": ["event", {"$undefined": True}]}
        parser = MsgpackParser()
        [messages], _ = self.javaScript("socket 5 in msgpack", [event], [])
        self.assertEqual(self.decoded(parser, messages), Packet(PacketType.EVENT, "/", ["event", None]))


class SocketIO4Tests(SocketIOCase):
    """npm socket.io-parser 3.3.6."""

    def test_packets(self) -> None:
        for accelerated in (True, False):
            self.assertAgree("socket 4", JSONParser(accelerated), self.packets())

    def test_openings(self) -> None:
        namespaces = [self.generator.namespace() for _ in range(COUNT // 10)]
        types = (PacketType.CONNECT, PacketType.DISCONNECT)
        self.assertAgree(
            "socket 4", JSONParser(), [Packet(type, path) for path in namespaces for type in types]
        )

    def test_errors(self) -> None:
        # Clients 2 take text and objects.
        values = [self.generator.value(withBytes=False) for _ in range(COUNT)]
        reasons = [value for value in values if isinstance(value, str | list | dict)]
        packets = [Packet(PacketType.CONNECT_ERROR, self.generator.namespace(), reason) for reason in reasons]
        self.assertAgree("socket 4", JSONParser(), packets)
