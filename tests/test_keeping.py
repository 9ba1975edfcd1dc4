"""
Offsets that tell how far a server has read the stream, and the choice of missed events.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.client.recovery import Recovery
from txrealtime.cluster import missedevents
from txrealtime.cluster.dialects.messages import Emit, Target
from txrealtime.cluster.dialects.native import NativeDialect
from txrealtime.engineio import packet as engineio
from txrealtime.socketio.eventlog import EventLog, Store
from txrealtime.socketio.msgpack import MsgpackParser
from txrealtime.socketio.packet import JSONParser, Packet, PacketType


class OffsetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.places = iter(("17.0", "17.3", "18.0", "19.0"))

    def log(self, parser: object) -> EventLog:
        store = Store(Clock(), parser, 60, 100, 100_000)
        store.place = lambda: next(self.places)
        return EventLog(store)

    def test_place(self) -> None:
        """The place at the time of the event is in its offset, and the log finds the number again."""
        for parser in (JSONParser(), MsgpackParser()):
            self.setUp()
            log = self.log(parser)
            packet = Packet(PacketType.EVENT, "/", ["story", 'a","b-1"]', b"1" if parser else 1], None)
            messages = [engineio.message(part) for part in parser.encode(packet)]
            log.append(None, frozenset(), messages)
            log.append(None, frozenset(), messages)
            offset = log.offset()
            self.assertEqual(missedevents.placeOf(offset), (log.epoch, (18, 0), 2))
            self.assertEqual(log.numberOf(offset), 2)
            for number in (1, 2):
                entry = dict(log.after(0, ()))[number]
                self.assertEqual(
                    [bytes(m) if isinstance(m, bytes) else m for m in log.plain(number, entry)],
                    [message.data for message in messages],
                )

    def test_client(self) -> None:
        recovery = Recovery()
        recovery.admitted("p", "epoch-_12.1795884975163.0-0")
        offset = "epoch-_12.1795884999999.17-4000000000"
        self.assertEqual(recovery.stripped(["a", offset]), ["a"])
        self.assertEqual(recovery.auth(None), {"pid": "p", "offset": offset})
        for other in ("stranger.1795884999999.17-4", "epoch-_12.1-x", "a text"):
            self.assertEqual(recovery.stripped(["a", other]), ["a", other])

    def test_noOffset(self) -> None:
        for text in ("", "-", "a-1", "a.1-1", "a.1.x-1", "a.1.2-", "a.1.2.3-1", "a.1.²-1", "1795884975163-0"):
            self.assertIsNone(missedevents.placeOf(text), text)
        self.assertLess(missedevents.placeOf("a.9.0-3"), missedevents.placeOf("a.10.0-2"))


class NumberTests(SynchronousTestCase):
    """
    The number in the sender's log, which goes with an event.
    """

    def setUp(self) -> None:
        self.ours, self.theirs = NativeDialect("a" * 8), NativeDialect("b" * 8)

    def sent(self, rooms: tuple[str, ...] | None, volatile: bool, logged: int) -> tuple[str, Emit]:
        messages = [engineio.message('2["hi"]')]
        emit = Emit(Target("/", rooms, frozenset()), None, messages, volatile, logged)
        ((topic, data),) = self.ours.write(emit)
        return topic, self.theirs.read(topic, data)

    def test_carried(self) -> None:
        for volatile, logged, expected in ((False, 0, 0), (True, 0, 0), (False, 1, 1), (False, 77, 77)):
            _, emit = self.sent(("red",), volatile, logged)
            self.assertEqual((emit.volatile, emit.logged), (volatile, expected))

    def test_topics(self) -> None:
        """An event for one client of this server is on a topic of this server's, while the client is here."""
        own = "a" * 28
        self.assertEqual(self.sent((own,), False, 5)[0], "txrealtime@aaaaaaaa")
        self.assertEqual(self.sent((own,), False, 0)[0], "txrealtime,/")
        self.assertEqual(self.sent((own, "red"), False, 5)[0], "txrealtime,/")
        self.assertEqual(self.sent(("red",), False, 5)[0], "txrealtime,/,red")
