"""
Compressed input that means no good.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Any, ClassVar

from tests.hostile.means import SECRET, HostileTestCase, event, peakOf
from tests.memory import BINARY, CONTINUATION, TEXT, WebSocket, clientFrame

MB = 1 << 20


class DeflateTests(HostileTestCase):
    """permessage-deflate, RFC 7692."""

    settings: ClassVar[dict[str, Any]] = {"perMessageDeflate": True}

    OFFER = "permessage-deflate"

    def attacker(self) -> WebSocket:
        client = self.join(headers={"Sec-WebSocket-Extensions": self.OFFER})
        assert client.response is not None
        self.assertIn("permessage-deflate", client.response.headers["sec-websocket-extensions"])
        self.deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        return client

    def deflate(self, payload: bytes) -> bytes:
        return (self.deflater.compress(payload) + self.deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def test_works(self) -> None:
        client = self.attacker()
        client.sendFrame(TEXT, self.deflate(event("hello").encode()), rsv=4)
        self.assertEqual(self.heard, [("hello",)])

    def test_bomb(self) -> None:
        """1000 times its size: refused when it has inflated to maxPayload, 1009, without the rest."""
        client = self.attacker()
        bomb = clientFrame(BINARY, self.deflate(bytes(200 * MB)), rsv=4)
        self.assertLess(len(bomb), MB // 4)
        self.assertLess(peakOf(lambda: client.link.deliver(bomb)), 5 * MB)
        self.assertClosed(client, 1009)
        self.assertEqual(self.ends, ["transport error"])

    def test_bombInFragments(self) -> None:
        """All fragments count together."""
        client = self.attacker()
        bomb = self.deflate(bytes(200 * MB))
        pieces = [bomb[at : at + 100] for at in range(0, len(bomb), 100)]

        def attack() -> None:
            client.sendFrame(BINARY, pieces[0], fin=False, rsv=4)
            for piece in pieces[1:]:
                if self.ends:
                    break
                client.sendFrame(CONTINUATION, piece, fin=False)

        self.assertLess(peakOf(attack), 8 * MB)
        self.assertClosed(client, 1009)

    def test_bombsInARow(self) -> None:
        """Messages of the allowed size may come one after the other, and none of them stays."""
        client = self.attacker()
        message = event("zeros", "0" * 900_000).encode()
        frames = [clientFrame(TEXT, self.deflate(message), rsv=4) for _ in range(21)]

        def attack(frames: list[bytes]) -> None:
            for frame in frames:
                client.link.deliver(frame)
                self.heard.clear()

        one = peakOf(lambda: attack(frames[:1]))
        self.assertLess(one, 20 * MB)
        self.assertLess(peakOf(lambda: attack(frames[1:])), 1.2 * one)
        self.assertEqual(self.ends, [])

    def test_emptyBlocks(self) -> None:
        """Blocks of nothing take time and no room; they are bounded by what may be sent compressed."""
        client = self.attacker()
        blocks = b"\x00\x00\x00\xff\xff" * 250_000
        self.assertLess(peakOf(lambda: client.sendFrame(BINARY, blocks, rsv=4)), 8 * MB)
        self.assertClosed(client, 1009)

    def test_corrupt(self) -> None:
        """Data that cannot be inflated ends with 1007, and no word of zlib's."""
        for data in (b"\xff\xff\xff\xff", b"\x07", SECRET.encode(), self.corrupted()):
            client = self.attacker()
            client.sendFrame(TEXT, data, rsv=4)
            last = client.frames()[-1]
            self.assertEqual((last.opcode, int.from_bytes(last.payload[:2], "big")), (8, 1007), data[:10])
            self.assertEqual(self.ends, ["transport error"])
            self.ends.clear()

    def corrupted(self) -> bytes:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        whole = deflater.compress(bytes(range(256)) * 10) + deflater.flush()
        return whole[:20] + b"\xff" * 20

    def test_notUTF8Inside(self) -> None:
        client = self.attacker()
        client.sendFrame(TEXT, self.deflate(b"\xff" + SECRET.encode()), rsv=4)
        self.assertClosed(client, 1007)

    def test_bitOnAContinuation(self) -> None:
        client = self.attacker()
        client.sendFrame(BINARY, self.deflate(b"x"), fin=False, rsv=4)
        client.sendFrame(CONTINUATION, b"x", rsv=4)
        self.assertClosed(client, 1002)

    def test_parametersThatAreNone(self) -> None:
        """An offer that RFC 7692 does not know gets an answer, and no compression."""
        for offer in (
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=99999999999999999999",
            "permessage-deflate; nonsense=1",
            "permessage-deflate; client_max_window_bits=\xe9",
            "permessage-deflate" + "; a" * 2000,
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-bzip2; client_max_compress_level=9",
            "__proto__, constructor; toString",
            ",;,;=,",
        ):
            client = self.webSocket(headers={"Sec-WebSocket-Extensions": offer})
            response = client.response
            assert response is not None
            self.assertIn(response.status, (101, 400), offer)
            self.assertNotIn("sec-websocket-extensions", response.headers, offer)


class OffTests(HostileTestCase):
    """Without perMessageDeflate, as it is by default."""

    def test_notAgreed(self) -> None:
        client = self.join(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        client.sendFrame(BINARY, zlib.compress(bytes(100)), rsv=4)
        self.assertClosed(client, 1002)

    def test_compressedBody(self) -> None:
        """The body of a POST is never inflated, so there is no bomb: it is what it is, and no packet."""
        sid = self.joinPolling()
        bomb = gzip.compress(b"4" + bytes(10 * MB))
        exchange = self.post(sid, bomb, headers={"Content-Encoding": "gzip"})
        status, code, message = exchange.answer.error
        self.assertEqual((status, code), (400, 3))
        self.assertIn("not UTF-8", message)
        self.assertEqual(self.ends, ["parse error"])
