"""
Fuzz targets for the decoders.

A target takes any bytes, and raises when what must hold for all of them does not: a decoder gives what it
decodes or its own error, what it gives is no larger than what it got, comes back when it is encoded, and is
the same on the fast path and the long one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.static import Data

from tests.memory import CLOSE, Link, Recorder, WebSocket, readResponse
from tests.test_frames import REQUEST, Listener
from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import proxyFilter, readHandshake
from txrealtime.engineio.http.site import EngineSite
from txrealtime.engineio.origins import Origins
from txrealtime.engineio.packet import Codec, EngineIO4
from txrealtime.engineio.packet3 import EngineIO3
from txrealtime.engineio.polling.jsonp import JSONPRequest
from txrealtime.engineio.settings import Settings
from txrealtime.engineio.websocket.autobahn import FrameFactory
from txrealtime.engineio.websocket.plain import Meter, readMessages
from txrealtime.errors import HandshakeError, PacketError
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.socketio.packet import RESERVED, IDecoder, JSONParser, Packet, PacketType, readPlain
from txrealtime.speedups import REFERENCES

__all__ = ["DECODERS"]

_LINE = b"\n"

_BLANKS = " " * 300
"""Behind a JSON text it means nothing, and makes it long enough for orjson."""


def _textOf(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


# -- Engine.IO ---------------------------------------------------------------------


def engineio4(data: bytes) -> None:
    """A body of Engine.IO 4, and the same as one message of a WebSocket."""
    with contextlib.suppress(PacketError):
        packets = EngineIO4.decodePayload(data)
        assert sum(len(packet.wire) for packet in packets) <= len(data)
        assert EngineIO4.decodePayload(EngineIO4.encodePayload(packets)) == packets
    _message(EngineIO4(), data)


def engineio3(data: bytes) -> None:
    """
    Bodies of Engine.IO 3 in a row, by one client; and the last as one message of a WebSocket.

    The first byte holds what the client is: 1, binary bodies; 2, base64; 4, before 1.4.
    """
    kind, bodies = data[0] if data else 0, data[1:].split(b"\n--\n")
    codec = EngineIO3(bool(kind & 2), bool(kind & 4))
    for body in bodies:
        with contextlib.suppress(PacketError):
            packets = codec.decodePayload(body, bool(kind & 1))
            assert sum(len(packet.wire) for packet in packets) <= len(body)
            if packets:
                other = EngineIO3(bool(kind & 2), bool(kind & 4))
                octets = other.encodePayload(packets)
                assert codec.isOctets(octets) is other.isOctets(octets)
                if other.isOctets(octets):
                    assert EngineIO3().decodePayload(octets, True) == packets
    _message(codec, bodies[-1])


def _message(codec: Codec, data: bytes) -> None:
    text = _textOf(data)
    for decode, message in ((codec.decodeText, text), (codec.decodeBytes, data)):
        if message is None:
            continue
        try:
            packet = decode(message)  # type: ignore[arg-type]
        except PacketError:
            continue
        for base64 in (False, True):
            wire, isBinary = codec.encodeMessage(packet, base64)
            again = codec.decodeBytes(wire) if isBinary else codec.decodeText(wire.decode())
            assert again == packet


class _Form:
    """A request whose answer is kept."""

    method = "GET"
    url = "/"
    peer = "192.0.2.7"
    secure = False

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.extra: dict[bytes, bytes] = {}
        self.answer = b""

    def header(self, name: str) -> str:
        return ""

    def headers(self) -> dict[str, str]:
        return {}

    def body(self, most: int) -> bytes:
        return self._body[:most]

    def respond(self, status: int, body: bytes, contentType: bytes = b"") -> None:
        self.answer = body

    def whenLost(self, call: Callable[[], object]) -> None:
        pass


def jsonp(data: bytes) -> None:
    """The index of a JSONP request, in the first line, and its form in the rest."""
    index, _, form = data.partition(_LINE)
    form_ = _Form(form)
    try:
        request = JSONPRequest(form_, index.decode("latin-1"))
    except HandshakeError:
        return
    assert index.isdigit()
    payload = request.body(1000)
    assert len(payload) <= max(1000, len(form))
    with contextlib.suppress(PacketError):
        EngineIO4.decodePayload(payload)
    request.respond(200, form)
    head = b"___eio[" + index + b"]("
    assert form_.answer.startswith(head) and form_.answer.endswith(b");")
    assert b"<" not in form_.answer and form_.answer.isascii()
    assert json.loads(form_.answer[len(head) : -2]) == form.decode(errors="replace")


# -- Socket.IO ---------------------------------------------------------------------

_PARSERS = (JSONParser(), JSONParser(accelerated=False))
_TEXTS = (JSONText(), JSONText(accelerated=False))
_MSGPACK = MsgpackParser()


def socketio(data: bytes) -> None:
    """Messages to a decoder, one in each line; a line that begins with ``=`` is binary."""
    decoders = [parser.decoder(5) for parser in _PARSERS]
    for line in data.split(_LINE):
        message = line[1:] if line[:1] == b"=" else _textOf(line)
        if message is None:
            return
        if isinstance(message, str):
            given = message, _TEXTS[1].decode, Packet, (PacketType.EVENT, PacketType.ACK), RESERVED
            assert repr(readPlain(*given)) == repr(REFERENCES["readPlain"](*given)), (
                "C reads it in another way"
            )
        padded = message + _BLANKS if isinstance(message, str) and message[-1:] in "]}" else message
        packets = [_fed(decoder, padded) for decoder in decoders]
        assert repr(packets[0]) == repr(packets[1]), "orjson reads it in another way"
        packet = packets[0]
        if isinstance(packet, PacketError):
            return
        # A CONNECT_ERROR is nothing that clients send.
        if packet is not None and packet.type is not PacketType.CONNECT_ERROR:
            for parser in _PARSERS:
                _comesBack(parser, packet)


def _fed(decoder: IDecoder, message: str | bytes) -> Packet | PacketError | None:
    try:
        return decoder.feed(message)
    except PacketError:
        return PacketError()


def _comesBack(parser: Any, packet: Packet) -> None:
    try:
        messages = parser.encode(packet)
    except (TypeError, ValueError):
        return  # too deep, say, or with a placeholder beside bytes: clients may send what we may not
    decoder = parser.decoder(1000)
    (*nothing, again) = [decoder.feed(message) for message in messages]
    assert not any(nothing)
    assert repr(again) == repr(packet)


def msgpack(data: bytes) -> None:
    """One MessagePack packet."""
    packet = _fed(_MSGPACK.decoder(5), data)
    # A time comes back without its microseconds.
    if isinstance(packet, Packet) and "datetime" not in repr(packet):
        _comesBack(_MSGPACK, packet)


def jsontext(data: bytes) -> None:
    """A JSON text, read by orjson and by the standard library, and written by both."""
    text = _textOf(data)
    if text is None:
        return
    values = []
    for json_ in _TEXTS:
        try:
            values.append(json_.decode(text + _BLANKS))
        except ValueError:
            values.append(ValueError)
    assert repr(values[0]) == repr(values[1]), "orjson reads it in another way"
    if values[0] is ValueError:
        return
    written = []
    for json_ in _TEXTS:
        try:
            written.append(json_.encode(values[0])[0])
        except ValueError:
            continue  # nested too deeply: one of them may go deeper than the other
    for again in written:
        assert repr(_TEXTS[1].decode(again)) == repr(values[0])


# -- WebSocket frames --------------------------------------------------------------


def frames(data: bytes) -> None:
    """
    Feed the bytes of a client over an open WebSocket.

    The first byte holds the length of the pieces in which it comes once more; it must be read the same
    in one piece and in many, and with the fast paths and without.
    """
    size, data = data[0] % 64 + 1 if data else 1, data[1:]
    for most in (-1, size % 4):
        given = data, min(size % 5, len(data)), 100_000, most
        meters = Meter(), Meter()
        read, again = readMessages(*given, meters[0]), REFERENCES["readMessages"](*given, meters[1])
        assert (read, meters[0]) == (again, meters[1]), "C reads it in another way"
    # Autobahn finds text that is not UTF-8 in a frame that is not complete: let every frame be.
    rest = bytes(600)
    outcomes = [
        _heard([*pieces, rest], shortWays)
        for pieces in ([data], _pieces(data, size))
        for shortWays in (True, False)
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _heard(pieces: list[bytes], shortWays: bool) -> tuple[Any, ...]:
    clock = Clock()
    settings = Settings(maxPayload=500, perMessageDeflate=False, shortWays=shortWays)
    client = WebSocket(Link().connect(FrameFactory(settings, clock, Listener)), REQUEST + b"\r\n")
    assert client.response is not None and client.response.status == 101
    server = client.link.protocol
    for piece in pieces:
        client.link.deliver(piece)
    sent = client.frames()
    codes = [frame.payload[:2] for frame in sent if frame.opcode == CLOSE]
    assert len(codes) <= 1, "closed twice"
    pongs = [frame for frame in sent if frame.opcode != CLOSE]
    assert all(not frame.rsv and frame.fin for frame in sent)
    client.link.lose()
    assert not clock.getDelayedCalls()
    return server.heard, codes, pongs


# -- HTTP --------------------------------------------------------------------------


def handshake(data: bytes) -> None:
    """The URL of an opening request in the first line, then its headers."""
    url, *lines = data.decode("latin-1").split("\n")
    headers = {name.lower(): value for name, _, value in (line.partition(":") for line in lines)}
    for proxies in ((), ("192.0.2.0/24", "unix")):
        read = readHandshake(headers, url, "192.0.2.7", False, proxyFilter(proxies))
        assert isinstance(read.cookies, dict)
        assert isinstance(read.protocol, int)
        for origins in ((), ("https://example.org", "https://*.example.org")):
            with contextlib.suppress(HandshakeError):
                Origins(origins).check(read)


def channel(data: bytes) -> None:
    """
    Feed the bytes of a client to a site, with ``{sid}`` for a session's.

    The first byte holds the length of the pieces in which it comes once more; the answers must be those
    of a site of ``twisted.web``.
    """
    # A head is refused as soon as it shows what it is, or when it is complete: let every head be.
    size, data = data[0] % 64 + 1 if data else 1, data[1:] + b"\r\n\r\n"
    try:
        outcomes = [
            _answers(data, pieces, shortWays) for pieces in (len(data), size) for shortWays in (True, False)
        ]
    except AttributeError as error:
        if "twisted/web" not in _lastFile(error):
            raise
        return  # it trips over some of it by itself
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes


def _lastFile(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def _answers(data: bytes, size: int, shortWays: bool) -> tuple[Any, ...]:
    clock, owners = Clock(), []

    def own(session: Any) -> Recorder:
        owners.append(Recorder(session))
        return owners[-1]

    engine = Engine(own, Settings(maxPayload=500, shortWays=shortWays), clock)
    root = Resource()
    root.putChild(b"hello", Data(b"hello", "text/plain"))
    site = EngineSite(root, "/engine.io", engine, reactor=clock, timeout=None)
    opener = Link().connect(site)
    opener.deliver(b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n")
    (sid,) = engine.sessions
    opener.lose()
    data = data.replace(b"{sid}", sid.encode())
    link = Link().connect(site)
    for start, stop in pairwise([*range(0, len(data), max(size, 1)), len(data)]):
        if link.disconnecting:
            break  # over TCP, nothing is read any more
        link.deliver(data[start:stop])
        for _ in range(3):
            clock.advance(0)
            link.turn()
    written = link.take()
    closed = link.disconnecting or link.disconnected
    link.lose()
    return _responses(written, sid), closed, owners[0].heard


def _responses(data: bytes, sid: str) -> list[tuple[int, bytes]]:
    answers = []
    while data:
        if data.startswith(b"HTTP/1.1 100 "):
            data = data.partition(b"\r\n\r\n")[2]
            continue
        answer, data = readResponse(data)
        if answer is None:
            break
        if answer.status == 101:
            answers.append((101, b""))
            break
        body = answer.body if answer.body[:6] != b'0{"sid' else b"opened"
        # A refusal may quote what the client says, and each site has another sid.
        answers.append((answer.status, body.replace(sid.encode(), b"{sid}")))
    return answers


DECODERS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (engineio4, engineio3, jsonp, socketio, msgpack, jsontext, frames, handshake, channel)
}
