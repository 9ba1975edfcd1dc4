"""
The admin namespace, as the UI of npm @socket.io/admin-ui uses it.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.talk import TalkTestCase
from txrealtime import ConnectionRejected, Namespace, Server
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.engineio.packet import Packet, PacketType
from txrealtime.monitor.admin.admin import Admin
from txrealtime.monitor.admin.logins import LIFETIME, Attempts, Sessions
from txrealtime.monitor.admin.passwords import Passwords, hashed
from txrealtime.monitor.admin.view import clientId, describePerson
from txrealtime.socketio.audience import Person
from txrealtime.testing import Client, FakeTransport, MemoryBus, MemoryHub

NOW = 1_800_000_000.25
STAMP = "2027-01-15T08:00:00.250Z"
ANN = {"username": "ann", "password": "pony"}
PASSWORDS = Passwords({"ann": hashed("pony", ln=4), "bob": hashed("Käse", ln=4)})


class AdminTestCase(TalkTestCase):
    """Tests with servers and their admins, and with clients of the UI."""

    def setUp(self) -> None:
        super().setUp()
        self.admins: list[Admin] = []

    def tearDown(self) -> None:
        for admin in self.admins:
            admin.stop()
        for server in self.servers:
            if server.cluster.status != "alone":
                server.stopService()
        self.clock.pump([0.1] * 20)
        for client in self.clients:
            client.close()
        self.clock.advance(70)
        super().tearDown()

    def administered(self, passwords: Passwords | None = None, **options: Any) -> Server:
        """Make a server with an admin; arguments of neither go to the other."""
        ours = ("development", "write", "path", "inThread", "now")
        given = {name: options.pop(name) for name in ours if name in options}
        server = self.makeServer(**options)
        admin = Admin(server, passwords, **{"inThread": maybeDeferred, "now": lambda: NOW, **given})
        self.admins.append(admin)
        admin.start()
        return server

    def ui(self, server: Server, auth: Any = None, **options: Any) -> Client:
        """Make a client of the UI that is connected."""
        client = self.join(server, "/admin", auth, **options)
        self.clock.advance(0)
        return client

    def told(self, ui: Client, *names: str) -> list[tuple[Any, ...]]:
        """Return what the UI has been told since the last call, but statistics unless they are asked for."""
        found = ui.received("/admin")
        return [each for each in found if (each[0] in names if names else each[0] != "server_stats")]

    def rejection(self, server: Server, auth: Any, **options: Any) -> str:
        """Return the message with which the UI is refused."""
        client = self.makeClient(server, **options)
        failure = self.failureResultOf(client.connect("/admin", auth), ConnectionRejected)
        return str(failure.value)


class LoginTests(AdminTestCase):
    def test_withoutPasswords(self) -> None:
        """Everybody comes in, and gets no session."""
        server = self.administered()
        self.assertEqual(
            self.told(self.ui(server)), [("config", {"supportedFeatures": ["AGGREGATED_EVENTS"]})]
        )

    def test_anonymous(self) -> None:
        server = self.administered(PASSWORDS)
        for auth in (None, {}, {"username": "ann"}, {"password": "pony"}, {"sessionId": ""}):
            self.assertEqual(self.rejection(server, auth), "invalid credentials")

    def test_firstVisit(self) -> None:
        """The UI's page looks for a session before it shows its form: that is no failed login."""
        server = self.administered(PASSWORDS)
        for _ in range(30):
            self.assertEqual(self.rejection(server, {"sessionId": None}), "")

    def test_password(self) -> None:
        """The session comes behind the admission, before the rest."""
        server = self.administered(PASSWORDS)
        session, config = self.told(self.ui(server, ANN))
        self.assertEqual((session[0], config[0]), ("session", "config"))
        self.assertRegex(session[1], "^[A-Za-z0-9_-]{32}$")
        self.ui(server, {"username": "bob", "password": "Ka\u0308se"})  # composed as other keyboards do

    def test_wrongPassword(self) -> None:
        server = self.administered(PASSWORDS)
        for auth in (
            {"username": "ann", "password": "Pony"},
            {"username": "bob", "password": "pony"},
            {"username": "eve", "password": "pony"},
            {"username": "ann", "password": "pony" + "x" * 2000},
            {"username": "ann", "password": 1},
            {"username": ["ann"], "password": "pony"},
        ):
            self.assertEqual(self.rejection(server, auth), "invalid credentials", auth)

    def test_session(self) -> None:
        server = self.administered(PASSWORDS)
        [(_, id), _] = self.told(self.ui(server, ANN))
        self.assertEqual([each[0] for each in self.told(self.ui(server, {"sessionId": id}))], ["config"])
        self.assertEqual(self.rejection(server, {"sessionId": id[:-1]}), "invalid credentials")
        self.assertEqual(self.rejection(server, {"sessionId": [id]}), "invalid credentials")

    def test_sessionEnds(self) -> None:
        """After a day the UI is sent away, and its session is worth nothing."""
        server = self.administered(PASSWORDS, pingInterval=LIFETIME * 2)
        first = self.ui(server, ANN)
        [(_, id), _] = self.told(first)
        self.clock.advance(LIFETIME - 3)
        self.ui(server, {"sessionId": id})
        self.clock.advance(6)
        self.assertEqual(server.namespace("/admin").sockets, {})
        self.assertEqual(self.rejection(server, {"sessionId": id}), "invalid credentials")

    def test_tooManyFailures(self) -> None:
        """After ten failures from one network even the right password waits for the next minute."""
        server = self.administered(PASSWORDS)
        wrong = {"username": "ann", "password": "?"}
        for _ in range(10):
            self.assertEqual(self.rejection(server, wrong), "invalid credentials")
        self.assertEqual(
            self.rejection(server, ANN), "too many failed logins from this address: try again in 60 s"
        )
        self.ui(server, ANN, address="192.0.2.9")
        self.clock.advance(61)
        self.ui(server, ANN)

    def test_sessionsDespiteFailures(self) -> None:
        """Wrong passwords of a network block neither its clients that are connected nor their sessions."""
        server = self.administered(PASSWORDS)
        first = self.ui(server, ANN)
        [(_, id), _] = self.told(first)
        for _ in range(30):
            self.rejection(server, {"username": "ann", "password": "?"})
        self.assertIn("too many failed logins", self.rejection(server, ANN))
        self.assertTrue(first.isConnected("/admin"))
        self.assertEqual([each[0] for each in self.told(self.ui(server, {"sessionId": id}))], ["config"])
        self.assertIn("too many failed logins", self.rejection(server, ANN), "sessions take nothing back")
        # Whoever shows a session that has ended has tried no password.
        self.assertEqual(self.rejection(server, {"sessionId": "x"}), "invalid credentials")

    def test_unknownSessions(self) -> None:
        """Sessions that nobody knows are no failed logins, and peers are asked for few of them."""
        server = self.administered(PASSWORDS)
        [(_, id), _] = self.told(self.ui(server, ANN))
        asked: list[str] = []

        async def askPeers(digest: str) -> float:
            asked.append(digest)
            return 0.0

        self.admins[0]._logins._askPeers = askPeers
        for number in range(10):
            self.assertEqual(self.rejection(server, {"sessionId": f"x{number}"}), "invalid credentials")
        for number in range(10):
            self.assertIn("try again in 60 s", self.rejection(server, {"sessionId": f"y{number}"}))
        self.assertEqual(len(asked), 10)
        self.ui(server, {"sessionId": id})
        self.ui(server, ANN)

    def test_nothingTried(self) -> None:
        """Without a password nothing has been tried."""
        server = self.administered(PASSWORDS)
        for _ in range(30):
            self.assertEqual(self.rejection(server, {"username": "ann"}), "invalid credentials")
        self.ui(server, ANN)

    def test_checksInThreads(self) -> None:
        """Few passwords are checked at a time; one who leaves counts until the thread ends."""
        waiting: list[Deferred[bool]] = []

        def inThread(function: Any, *args: Any) -> Deferred[bool]:
            waiting.append(Deferred())
            return waiting[-1]

        server = self.administered(PASSWORDS, inThread=inThread)
        clients = [self.makeClient(server) for _ in range(4)]
        asked = [client.connect("/admin", ANN) for client in clients]
        clients[0].close()
        busy = "too many logins at a time: try again in a few seconds"
        for _ in range(20):  # none of which is a failed login
            self.assertEqual(self.rejection(server, ANN), busy)
        waiting[0].callback(True)
        late = self.makeClient(server).connect("/admin", ANN)
        self.assertEqual(len(waiting), 5)
        for each in waiting[1:]:
            each.callback(True)
        self.advance(1)
        for admitted in (*asked[1:], late):
            self.successResultOf(admitted)

    def test_failingCheck(self) -> None:
        """A fault of the check lets nobody in."""

        def inThread(function: Any, *args: Any) -> Deferred[bool]:
            return maybeDeferred(lambda: 1 // 0)

        server = self.administered(PASSWORDS, inThread=inThread)
        self.assertEqual(self.rejection(server, ANN), "Internal server error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AttemptTests(SynchronousTestCase):
    def test_networks(self) -> None:
        """An IPv6 host has 2**64 addresses, and counts as one."""
        clock = Clock()
        attempts = Attempts(clock.seconds)
        for number in range(10):
            attempts.begin(f"2001:db8::{number}")
        self.assertRaises(ConnectionRejected, attempts.begin, "2001:db8::abcd")
        attempts.begin("2001:db8:0:1::1")
        attempts.succeeded("2001:db8::1")
        attempts.begin("2001:db8::2")
        self.assertRaises(ConnectionRejected, attempts.begin, "2001:db8::3")

    def test_fewAreKept(self) -> None:
        attempts = Attempts(lambda: 0.0)
        for number in range(20_000):
            attempts.begin(f"10.0.{number // 256}.{number % 256}")
        self.assertEqual(len(attempts._failures), 10_000)

    def test_sessionsAreFew(self) -> None:
        clock = Clock()
        sessions = Sessions(clock.seconds)
        ids = [sessions.make() for _ in range(10_010)]
        self.assertEqual(len(sessions._ends), 10_000)
        self.assertNotIn(ids[-1], str(sessions._ends), "only digests are kept")
        clock.advance(LIFETIME)
        last = sessions.make()
        self.assertEqual(list(sessions._ends), [Sessions.digest(last)])
        sessions.keep("x", -1)
        sessions.keep("y", LIFETIME * 9)
        self.assertEqual((sessions.left("x"), sessions.left("y")), (0, LIFETIME))


class FeatureTests(AdminTestCase):
    def features(self, **options: Any) -> list[str]:
        [(_, config)] = self.told(self.ui(self.administered(**options)), "config")
        features: list[str] = config["supportedFeatures"]
        return features

    def test_features(self) -> None:
        """By default the UI may only look; production mode shows numbers alone."""
        write = ["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"]
        self.assertEqual(self.features(), ["AGGREGATED_EVENTS"])
        self.assertEqual(self.features(write=True), [*write, "AGGREGATED_EVENTS"])
        self.assertEqual(self.features(development=True), ["AGGREGATED_EVENTS", "ALL_EVENTS"])
        self.assertEqual(
            self.features(write=True, development=True), [*write, "AGGREGATED_EVENTS", "ALL_EVENTS"]
        )

    def test_otherPath(self) -> None:
        server = self.administered(path="/operators")
        client = self.join(server, "/operators")
        self.assertEqual(client.received("/operators")[0][0], "config")
        self.failureResultOf(self.makeClient(server).connect("/admin"), ConnectionRejected)

    def test_taken(self) -> None:
        server = self.makeServer()
        server.namespace("/admin")
        self.assertRaises(ValueError, Admin, server, None)

    def test_productionIsQuiet(self) -> None:
        """No socket, room or event is told, and no hook is set."""
        server = self.administered()
        ui = self.ui(server)
        self.told(ui)
        client = self.join(server)
        self.socketOf(server, client).join("red")
        client.emit("x")
        server.emit("y")
        self.assertEqual(self.told(ui), [])
        self.assertIsNone(server._namespaces.hooks.eventReceived)

    def test_noRecovery(self) -> None:
        """Nothing is kept for a UI that has lost its connection, where other clients recover."""
        server = self.administered(recoveryWindow=60)
        self.join(server)
        ui = self.ui(server)
        self.told(ui)
        ui.lose()
        self.clock.advance(10)
        self.successResultOf(ui.comeBack())
        self.assertFalse(ui.recovered("/admin"))
        self.assertEqual([each[0] for each in self.told(ui)], ["config"])
        self.assertIsNone(server.namespace("/admin")._recovery)
        self.assertIsNotNone(server.namespace()._recovery)
        ui.close()
        server.stopService()


class StatsTests(AdminTestCase):
    def test_stats(self) -> None:
        """The statistics come every two seconds, with the changes since the last ones."""
        server = self.administered()
        ui = self.ui(server)
        polling = self.join(server, transport="polling")
        self.join(server).close()
        self.clock.advance(2)
        [(_, stats)] = self.told(ui, "server_stats")
        events = {(each["type"], each.get("subType")): each for each in stats.pop("aggregatedEvents")}
        self.assertIsInstance(stats.pop("pid"), int)
        self.assertIsInstance(stats.pop("hostname"), str)
        self.assertEqual(
            stats,
            {
                "serverId": server.cluster.name,
                "uptime": 0.0,
                "clientsCount": 2,
                "pollingClientsCount": 1,
                "namespaces": [{"name": "/", "socketsCount": 1}, {"name": "/admin", "socketsCount": 1}],
            },
        )
        self.assertEqual(events["rawConnection", None]["count"], 3)
        self.assertEqual(
            events["rawDisconnection", "transport close"],
            {
                "timestamp": 1_800_000_000_000,
                "type": "rawDisconnection",
                "subType": "transport close",
                "count": 1,
            },
        )
        self.clock.advance(2)
        [(_, stats)] = self.told(ui, "server_stats")
        self.assertEqual(stats["aggregatedEvents"], [])
        polling.close()
        self.clock.advance(1.9)
        self.assertEqual(self.told(ui, "server_stats"), [])
        self.clock.advance(0.1)
        [(_, stats)] = self.told(ui, "server_stats")
        self.assertEqual([each["type"] for each in stats["aggregatedEvents"]], ["rawDisconnection"])

    def test_namespacesOfClients(self) -> None:
        """Clients choose paths for a pattern: the statistics have few of them, and no long ones."""
        server = self.administered()
        ui = self.ui(server)
        server.mount(re.compile("/room-.*"), Namespace)
        clients = [self.join(server) for _ in range(13)]
        for number in range(1100):
            clients[number // 90].connect(f"/room-{number}")
        clients[12].connect("/room-" + "x" * 200)
        self.clock.advance(2)
        stats = self.told(ui, "server_stats")[-1][1]
        shown = [each["name"] for each in stats["namespaces"]]
        self.assertEqual(len(shown), 1000)
        self.assertTrue(all(len(name) <= 200 for name in shown))


class SocketTests(AdminTestCase):
    def test_allSockets(self) -> None:
        """The UI gets all sockets, its own included, in all namespaces."""
        server = self.administered(development=True)
        client = self.join(server)
        server.namespace("/chat")
        self.successResultOf(client.connect("/chat"))
        self.socketOf(server, client).join("b", "a")
        self.socketOf(server, client).data["name"] = "Ada"
        ui = self.ui(server)
        [(_, sockets)] = self.told(ui, "all_sockets")
        shown = {(each["nsp"], each["id"]): each for each in sockets}
        id = client.id()
        self.assertEqual(set(shown), {("/", id), ("/chat", client.id("/chat")), ("/admin", ui.id("/admin"))})
        socket = shown["/", id]
        self.assertEqual(socket["rooms"], [id, "a", "b"])
        self.assertEqual(socket["data"], {"name": "Ada"})
        self.assertEqual(socket["transport"], "websocket")
        self.assertEqual(socket["clientId"], shown["/chat", client.id("/chat")]["clientId"])
        self.assertNotEqual(socket["clientId"], shown["/admin", ui.id("/admin")]["clientId"])
        handshake = socket["handshake"]
        self.assertEqual(
            sorted(handshake), ["address", "headers", "issued", "query", "secure", "time", "url", "xdomain"]
        )
        self.assertEqual((handshake["address"], handshake["secure"]), ("127.0.0.1", False))

    def test_noSecrets(self) -> None:
        """Cookies, authorization, tokens, auth, and the session's id are shown nowhere."""
        server = self.administered(development=True)
        headers = {
            "host": "localhost",
            "cookie": "session=SECRET",
            "authorization": "Bearer SECRET",
            "x-api-key": "SECRET",
            "sec-websocket-protocol": "SECRET",
            "referer": "http://localhost/page?token=SECRET",
            "user-agent": "Firefox",
        }
        query = {"token": "SECRET", "u": "SECRET"}
        client = self.join(server, auth={"token": "SECRET"}, headers=headers, query=query)
        self.ui(server)
        ui = self.ui(server)
        later = self.join(server, auth={"token": "SECRET"}, headers=headers, query=query)
        told = self.told(ui)
        self.assertEqual([each[0] for each in told[-2:]], ["room_joined", "socket_connected"])
        text = json.dumps(told)
        self.assertNotIn("SECRET", text)
        for each in (client, later):
            self.assertNotIn(each.session.sid[:8], text)
        handshake = told[-1][1]["handshake"]
        self.assertEqual(handshake["headers"]["user-agent"], "Firefox")
        self.assertEqual(handshake["headers"]["cookie"], "(hidden)")
        self.assertEqual(handshake["headers"]["referer"], "http://localhost/page?(hidden)")
        self.assertEqual(handshake["query"]["token"], "(hidden)")
        self.assertEqual(handshake["query"]["transport"], "websocket")
        self.assertIn("token=(hidden)", handshake["url"])

    def test_valuesThatJSONLacks(self) -> None:
        server = self.administered(development=True)
        client = self.join(server)
        self.socketOf(server, client).data.update(a=1, b=object(), c={"d": b"x"}, e="x" * 100_000)
        [(_, sockets)] = self.told(self.ui(server), "all_sockets")
        [socket] = [each for each in sockets if each["nsp"] == "/"]
        self.assertRegex(socket["data"]["data"], r"^\(1000\d\d bytes\)$")
        del self.socketOf(server, client).data["e"]
        [(_, sockets)] = self.told(self.ui(server), "all_sockets")
        [socket] = [each for each in sockets if each["nsp"] == "/"]
        self.assertEqual(socket["data"], {"a": 1, "b": "(object)", "c": {"d": b"x"}})

    def test_manySockets(self) -> None:
        """The first page is all_sockets, which makes the UI forget others; the rest comes one by one."""
        server = self.administered(development=True)
        clients = [self.join(server) for _ in range(450)]
        ui = self.ui(server)
        self.clock.pump([0.05] * 10)
        told = ui.received("/admin")
        shown = [each["id"] for name, *rest in told if name == "all_sockets" for each in rest[0]]
        # The UI itself has been told of before.
        before = [name for name, *_ in told].index("all_sockets")
        later = [rest[0]["id"] for name, *rest in told[before:] if name == "socket_connected"]
        self.assertEqual(
            sorted(shown + later), sorted([ui.id("/admin"), *(client.id() for client in clients)])
        )

    def test_uiThatLeavesBeforeTheRest(self) -> None:
        server = self.administered(development=True)
        for _ in range(250):
            self.join(server)
        self.ui(server).close()
        self.clock.pump([0.05] * 10)
        self.assertEqual(server.namespace("/admin").sockets, {})


class EventTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.administered(development=True)
        self.seen = self.ui(self.server)
        self.told(self.seen)

    def test_lifeOfASocket(self) -> None:
        """Connected, joined, left, disconnected, in this order, with their times."""
        client = self.join(self.server)
        id, socket = client.id(), self.socketOf(self.server, client)
        joined, connected = self.told(self.seen)
        self.assertEqual(joined, ("room_joined", "/", id, id, STAMP))
        self.assertEqual((connected[0], connected[1]["id"], connected[2]), ("socket_connected", id, STAMP))
        socket.join("red")
        socket.join("red")
        socket.leave("red", "blue")
        socket.join("green")
        self.assertEqual(
            self.told(self.seen),
            [
                ("room_joined", "/", "red", id, STAMP),
                ("room_left", "/", "red", id, STAMP),
                ("room_joined", "/", "green", id, STAMP),
            ],
        )
        client.disconnect()
        self.assertEqual(
            self.told(self.seen),
            [
                ("socket_disconnected", "/", id, "client namespace disconnect", STAMP),
                ("room_left", "/", "green", id, STAMP),
                ("room_left", "/", id, id, STAMP),
            ],
        )

    def test_refusedSocket(self) -> None:
        """A client that was never admitted is not told of, nor are the rooms that it was put into."""

        @self.server.onConnect
        def connected(socket: Any) -> bool:
            socket.join("red")
            return False

        self.failureResultOf(self.makeClient(self.server).connect("/"), ConnectionRejected)
        self.assertEqual(self.told(self.seen), [])

    def test_dynamicNamespaces(self) -> None:
        self.server.mount(re.compile("/room-[0-9]+"), Namespace)
        client = self.join(self.server, "/room-7")
        client.emit("x", namespace="/room-7")
        self.assertEqual(
            [
                (name, rest[0] if isinstance(rest[0], str) else rest[0]["nsp"])
                for name, *rest in self.told(self.seen)
            ],
            [("room_joined", "/room-7"), ("socket_connected", "/room-7"), ("event_received", "/room-7")],
        )

    def test_events(self) -> None:
        """Events of clients and to clients, with their arguments; acks are neither."""
        self.server.on("say")(lambda socket, *args: args)
        client = self.join(self.server)
        id = client.id()
        self.told(self.seen)
        client.emit("say", 1, {"a": b"\1\2"})
        self.successResultOf(client.call("say", "x"))
        self.server.emit("news", b"\3")
        self.socketOf(self.server, client).call("asked", None).addErrback(lambda failure: None)
        self.assertEqual(
            self.told(self.seen),
            [
                ("event_received", "/", id, ["say", 1, {"a": b"\1\2"}], STAMP),
                ("event_received", "/", id, ["say", "x"], STAMP),
                ("event_sent", "/", id, ["news", b"\3"], STAMP),
                ("event_sent", "/", id, ["asked", None], STAMP),
            ],
        )

    def test_ownEventsAreNotTold(self) -> None:
        self.seen.emit("x", namespace="/admin")
        self.assertEqual(self.told(self.seen), [])

    def test_largeEvents(self) -> None:
        client = self.join(self.server)
        self.told(self.seen)
        client.emit("say", "x" * 70_000)
        [(_, _, _, event, _)] = self.told(self.seen)
        self.assertEqual(event, ["say", "(70004 bytes)"])

    def test_floodOfEvents(self) -> None:
        """1000 events of a flood are told in two seconds; sockets and rooms always are."""
        client = self.join(self.server)
        self.told(self.seen)
        for _ in range(600):
            client.emit("x")
            self.server.emit("y")
        self.socketOf(self.server, client).join("red")
        names = [each[0] for each in self.told(self.seen)]
        self.assertEqual(len(names), 1001)
        self.assertEqual(names[-1], "room_joined")
        self.clock.advance(2)
        client.emit("x")
        self.assertEqual([each[0] for each in self.told(self.seen)], ["event_received"])

    def test_changedData(self) -> None:
        """New data are told within two seconds, once."""
        client = self.join(self.server)
        socket = self.socketOf(self.server, client)
        self.told(self.seen)
        self.server.on("name")(lambda socket, name: socket.data.update(name=name))
        client.emit("name", "Ada")
        self.told(self.seen)
        self.clock.advance(2)
        updated = {"id": client.id(), "nsp": "/", "data": {"name": "Ada"}}
        self.assertEqual(self.told(self.seen), [("socket_updated", updated)])
        self.clock.advance(4)
        self.assertEqual(self.told(self.seen), [])
        socket.data["name"] = {"first": "Ada"}
        self.clock.advance(4)
        socket.data["name"]["first"] = "Grace"
        self.clock.advance(4)
        self.assertEqual(
            [each[1]["data"]["name"] for each in self.told(self.seen)], [{"first": "Ada"}, {"first": "Grace"}]
        )

    def test_upgrade(self) -> None:
        client = self.join(self.server, transport="polling")
        self.told(self.seen)
        probed, session = FakeTransport("websocket"), client.session
        probed.session = session
        session.upgrade(probed)
        session.packetReceived(probed, Packet(PacketType.PING, "probe"))
        session.packetReceived(probed, Packet(PacketType.UPGRADE, ""))
        self.assertEqual(
            self.told(self.seen),
            [("socket_updated", {"id": client.id(), "nsp": "/", "transport": "websocket"})],
        )
        session.abort(session.closeReason or "transport close")  # type: ignore[arg-type]

    def test_onlyWhileSomebodyLooks(self) -> None:
        """The hooks are set while a UI is connected, and a moment longer."""
        hooks = self.server._namespaces.hooks
        self.assertIsNotNone(hooks.eventReceived)
        self.seen.close()
        self.clock.advance(2)
        self.assertIsNone(hooks.eventReceived)
        self.ui(self.server)
        self.assertIsNotNone(hooks.eventReceived)


class TaskTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.administered(write=True)
        self.hand = self.ui(self.server)
        self.ada, self.bob = self.join(self.server), self.join(self.server)
        self.socketOf(self.server, self.ada).join("red")

    def ask(self, *args: Any) -> None:
        self.hand.emit(*args, namespace="/admin")

    def rooms(self, client: Client) -> set[str]:
        return set(self.socketOf(self.server, client).rooms) - {client.id()}

    def test_join(self) -> None:
        self.ask("join", "/", "blue", self.ada.id())
        self.ask("join", "/", "green", "red")
        self.ask("join", "/", "all")
        self.assertEqual(self.rooms(self.ada), {"red", "blue", "green", "all"})
        self.assertEqual(self.rooms(self.bob), {"all"})

    def test_leave(self) -> None:
        self.ask("join", "/", "all")
        self.ask("leave", "/", "red", self.ada.id())
        self.assertEqual(self.rooms(self.ada), {"all"})
        self.ask("leave", "/", "all")
        self.assertEqual((self.rooms(self.ada), self.rooms(self.bob)), (set(), set()))

    def test_emit(self) -> None:
        self.ask("emit", "/", self.ada.id(), "a", 1, b"2")
        self.ask("emit", "/", "red", "b")
        self.ask("emit", "/", "", "c")
        self.ask("emit", "/", None, "d")
        self.assertEqual(self.ada.received(), [("a", 1, b"2"), ("b",), ("c",), ("d",)])
        self.assertEqual(self.bob.received(), [("c",), ("d",)])

    def test_disconnect(self) -> None:
        self.ask("_disconnect", "/", False, "red")
        self.assertEqual(list(self.server.namespace().sockets), [self.bob.id()])
        self.assertEqual(len(self.server.engine.sessions), 3)
        self.ask("_disconnect", "/", True, self.bob.id())
        self.assertEqual(self.server.namespace().sockets, {})
        self.clock.advance(0)
        self.assertEqual(self.bob.session.closeReason, "server namespace disconnect")

    def test_nonsense(self) -> None:
        """A task that cannot be done changes nothing, and is one line in the log."""
        for args in (
            ("join", 1, "x"),
            ("join", "/", 1),
            ("join", "/", "x", 1),
            ("join", "/", self.bob.id(), self.ada.id()),
            ("join", "/none", "x"),
            ("emit", "/", None, "connect"),
            ("emit", "/", None, 5),
            ("_disconnect", None),
            ("leave", {}, []),
        ):
            self.ask(*args)
        self.assertEqual((self.rooms(self.ada), self.rooms(self.bob)), ({"red"}, set()))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(sorted(each.path for each in self.server.namespaces), ["/", "/admin"])

    def test_readOnly(self) -> None:
        """Without write, the tasks are no events."""
        server = self.administered()
        hand, ada = self.ui(server), self.join(server)
        for task in (
            ("join", "/", "x"),
            ("emit", "/", "", "x"),
            ("_disconnect", "/", True),
            ("leave", "/", "x"),
        ):
            hand.emit(*task, namespace="/admin")
        self.assertEqual(self.socketOf(server, ada).rooms, {ada.id()})
        self.assertEqual(ada.received(), [])


class ClusterTests(AdminTestCase):
    """Two servers in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.hub = MemoryHub()

    def pair(self, passwords: Passwords | None = None, **options: Any) -> tuple[Server, Server]:
        one, two = (self.administered(passwords, bus=MemoryBus(self.hub), **options) for _ in range(2))
        two.cluster.name = "two"
        self.clock.pump([0.1] * 20)
        return one, two

    def settle(self) -> None:
        self.clock.pump([0.1] * 10)

    def test_oneView(self) -> None:
        """The UI at one server sees the other's sockets, events and statistics."""
        one, two = self.pair(development=True)
        before = self.join(two)
        seen = self.ui(one)
        self.settle()
        told = seen.received("/admin")
        [sockets] = [rest[0] for name, *rest in told if name == "all_sockets"]
        self.assertEqual({each["id"] for each in sockets}, {before.id(), seen.id("/admin")})
        later = self.join(two)
        before.emit("x", 1)
        self.settle()
        told = self.told(seen)
        self.assertEqual([each[0] for each in told], ["room_joined", "socket_connected", "event_received"])
        self.assertEqual(told[1][1]["id"], later.id())
        self.clock.advance(2)
        self.settle()
        servers = {rest[0]["serverId"] for rest in (each[1:] for each in self.told(seen, "server_stats"))}
        self.assertEqual(servers, {one.cluster.name, "two"})

    def test_onlyWhileSomebodyLooksAnywhere(self) -> None:
        one, two = self.pair(development=True)
        hooks = two._namespaces.hooks
        self.assertIsNone(hooks.eventReceived)
        seen = self.ui(one)
        self.settle()
        self.assertIsNotNone(hooks.eventReceived)
        for _ in range(10):
            self.clock.pump([0.5] * 4)
        self.assertIsNotNone(hooks.eventReceived)
        seen.close()
        self.clock.pump([0.5] * 20)
        self.assertIsNone(hooks.eventReceived)

    def test_tasks(self) -> None:
        """A task reaches clients of the other server, in a namespace that only the other has, too."""
        one, two = self.pair(write=True)
        two.mount(re.compile("/room-[0-9]+"), Namespace)
        hand, far = self.ui(one), self.join(two, "/room-7")
        self.settle()
        id = far.id("/room-7")
        hand.emit("join", "/room-7", "red", id, namespace="/admin")
        self.settle()
        self.assertEqual(two.namespace("/room-7").sockets[id].rooms, {id, "red"})
        hand.emit("emit", "/room-7", "red", "hello", namespace="/admin")
        self.settle()
        self.assertEqual(far.received("/room-7"), [("hello",)])
        hand.emit("_disconnect", "/room-7", False, id, namespace="/admin")
        self.settle()
        self.assertNotIn("/room-7", [each.path for each in two.namespaces])

    def test_sessionOfTheOther(self) -> None:
        """A page that is loaded again may reach the other server, which asks for the session."""
        one, two = self.pair(PASSWORDS)
        [(_, id), _] = self.told(self.ui(one, ANN))
        client = self.makeClient(two)
        admitted = client.connect("/admin", {"sessionId": id})
        self.assertEqual(two.namespace("/admin").sockets, {}, "it asks first")
        self.settle()
        self.advance(1)
        self.successResultOf(admitted)
        # From then on the second knows it by itself.
        one.stopService()
        self.settle()
        self.successResultOf(self.makeClient(two).connect("/admin", {"sessionId": id}))
        unknown = self.makeClient(two).connect("/admin", {"sessionId": "x" * 32})
        self.settle()
        self.advance(1)
        self.failureResultOf(unknown, ConnectionRejected)

    def test_failuresOfTheOther(self) -> None:
        """A client that fails at one server has no further attempts at the other, for a minute."""
        one, two = self.pair(PASSWORDS)

        def refusal(server: Server) -> str:
            refused = self.makeClient(server).connect("/admin", {"username": "ann", "password": "wrong"})
            self.settle()
            return self.failureResultOf(refused, ConnectionRejected).value.message

        for number in range(10):
            self.assertEqual(refusal((one, two)[number % 2]), "invalid credentials")
        for server in (one, two):
            self.assertIn("too many failed logins", refusal(server))
        # A session of one is good at both, nevertheless.
        id = self.admins[0]._logins.sessions.make()
        for server in (two, one):
            admitted = self.makeClient(server).connect("/admin", {"sessionId": id})
            self.settle()
            self.advance(1)
            self.successResultOf(admitted)
        self.advance(60)
        self.assertEqual(refusal(two), "invalid credentials")

    def test_manySocketsOfTheOther(self) -> None:
        one, two = self.pair(development=True)
        far = [self.join(two) for _ in range(450)]
        near = [self.join(one) for _ in range(210)]
        seen = self.ui(one)
        self.clock.pump([0.05] * 40)
        told = seen.received("/admin")
        before = [name for name, *_ in told].index("all_sockets")
        shown = [each["id"] for each in told[before][1]]
        later = [rest[0]["id"] for name, *rest in told[before:] if name == "socket_connected"]
        expected = [seen.id("/admin"), *(client.id() for client in far + near)]
        self.assertEqual(sorted(shown + later), sorted(expected))

    def test_withoutTheBroker(self) -> None:
        """While the broker is away nothing waits for it, and the UI sees its own server."""
        one, _ = self.pair(development=True)
        seen = self.ui(one)
        self.settle()
        self.told(seen)
        self.hub.stop()
        self.settle()
        link = one.cluster.link
        assert link is not None
        waiting = len(link._outgoing._waiting)
        self.join(one)
        self.clock.pump([0.5] * 8)
        names = [each[0] for each in seen.received("/admin")]
        self.assertIn("socket_connected", names)
        self.assertIn("server_stats", names)
        self.assertEqual(len(link._outgoing._waiting), waiting)
        self.hub.start()
        self.clock.pump([0.5] * 20)


class OtherDialectTests(AdminTestCase):
    """Servers whose dialect is that of another make."""

    def pair(self, dialect: str, key: str) -> tuple[Server, Server]:
        hub, servers = MemoryHub(), []
        for name in ("one", "two"):
            server = self.administered(PASSWORDS, development=True, start=False)
            server.cluster.use(MemoryBus(hub), DialectChoice(dialect, key))
            server.cluster.name = name
            server.startService()
            server.namespace()
            servers.append(server)
        self.clock.pump([0.1] * 20)
        return servers[0], servers[1]

    def settle(self) -> None:
        self.clock.pump([0.1] * 15)

    def logIn(self, server: Server) -> Client:
        client = self.join(server, "/admin", ANN)
        self.settle()
        return client

    def test_node(self) -> None:
        """Sockets are asked for as Node asks, so that servers of Node reply; secrets are hidden here."""
        one, two = self.pair("node", "socket.io")
        headers = {"cookie": "SECRET", "host": "localhost"}
        client = self.join(two, headers=headers, query={"token": "SECRET"}, auth={"token": "SECRET"})
        self.socketOf(two, client).data["name"] = "Ada"
        seen = self.logIn(one)
        self.settle()
        told = seen.received("/admin")
        self.assertNotIn("SECRET", json.dumps(told))
        [sockets] = [rest[0] for name, *rest in told if name == "all_sockets"]
        [shown] = [each for each in sockets if each["nsp"] == "/"]
        [near] = [each for each in sockets if each["nsp"] == "/admin"]
        self.assertEqual(sorted(shown), sorted(near))
        self.assertEqual(sorted(shown["handshake"]), sorted(near["handshake"]))
        self.assertEqual((shown["id"], shown["transport"]), (client.id(), "websocket"))
        self.assertEqual(shown["data"], {"name": "Ada"})
        self.assertEqual(shown["clientId"], clientId(client.session))
        self.assertIn("token=(hidden)", shown["handshake"]["url"])
        client.emit("x")
        self.settle()
        self.assertIn(("event_received", "/", client.id(), ["x"], STAMP), seen.received("/admin"))

    def test_applicationsSeeNothingOfIt(self) -> None:
        """Node's admin keeps its client among the data of sockets; here the data are the application's."""
        one, two = self.pair("node", "socket.io")
        client = self.join(two)
        fetched = one.fetch()
        self.settle()
        [person] = self.successResultOf(fetched)
        self.assertEqual((person.id, person.data), (client.id(), {}))

    def test_socketsWithoutAnAdmin(self) -> None:
        """A socket of a server without the admin has no client that the UI could show."""
        self.assertIsNone(describePerson("/", Person("x", frozenset("x"), {})))
        nonsense = {"handshake": 5, "_admin": {"clientId": 1}}
        shown = describePerson("/", Person("x", frozenset("x"), {}, admin=nonsense))
        assert shown is not None
        self.assertEqual(shown["handshake"]["headers"], {})

    def test_watchedAlways(self) -> None:
        """Servers of other makes do not tell when somebody looks, so events are always told."""
        one, _ = self.pair("node", "socket.io")
        self.assertIsNotNone(one._namespaces.hooks.eventReceived)

    def test_pythonSocketIO(self) -> None:
        """Others cannot be asked: the UI sees the present sockets of its own server, and what happens."""
        one, two = self.pair("python-socketio", "socketio")
        far, near = self.join(two), self.join(one)
        seen = self.logIn(one)
        told = seen.received("/admin")
        [sockets] = [rest[0] for name, *rest in told if name == "all_sockets"]
        self.assertEqual({each["id"] for each in sockets}, {near.id(), seen.id("/admin")})
        far.emit("x")
        self.settle()
        told = seen.received("/admin")
        self.assertIn(("event_received", "/", far.id(), ["x"], STAMP), told)
        self.clock.advance(2)
        self.settle()
        names = {
            rest[0]["serverId"] for name, *rest in told + seen.received("/admin") if name == "server_stats"
        }
        self.assertEqual(names, {"one", "two"})
        unknown = self.makeClient(one).connect("/admin", {"sessionId": "x"})
        self.settle()
        self.advance(1)
        self.failureResultOf(unknown, ConnectionRejected)


class PasswordTests(SynchronousTestCase):
    def write(self, text: str | bytes) -> str:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def test_file(self) -> None:
        ann, bob = hashed("pony", ln=4), hashed("käse", ln=5, r=4, p=2)
        self.assertRegex(ann, r"^\$scrypt\$ln=4,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$")
        passwords = Passwords.fromFile(self.write(f"# users\n\nann:{ann}\r\n  Bob B.:{bob}  \n"))
        self.assertTrue(passwords.check("ann", "pony"))
        self.assertTrue(passwords.check("Bob B.", "käse"))
        self.assertFalse(passwords.check("ann", "käse"))
        self.assertFalse(passwords.check("nobody", "pony"))
        self.assertNotEqual(hashed("pony", ln=4), ann, "each hash has a salt")

    def test_otherProgramsForm(self) -> None:
        """The hash of RFC 7914's third example, in the form that passlib writes."""
        hash = b64encode(
            bytes.fromhex(
                "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
                "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
            )
        )
        text = f"$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU${hash.decode().rstrip('=')}"
        self.assertTrue(Passwords({"x": text}).check("x", "pleaseletmein"))

    def test_badFiles(self) -> None:
        good = hashed("x", ln=4)
        for text, problem in (
            ("", "no user has a password"),
            ("# nobody\n", "no user has a password"),
            ("ann", "line 1: no colon"),
            (good, "line 1: no colon"),
            ("\nann:secret", "line 2: not a hash of the form"),
            (f":{good}", "line 1: '' is no name"),
            (f"ann:{good}\nann:{good}", "line 2: a second line for one name"),
            (f"ann:{good[:-30]}", "line 1: not a hash"),
            (f"ann:{good.replace('ln=4', 'ln=40')}", "line 1: a hash whose parameters"),
            (f"ann:{good.replace('ln=4', 'ln=0')}", "line 1: a hash whose parameters"),
            (f"ann:{good.replace('p=3', 'p=0')}", "line 1: a hash whose parameters"),
            (b"\xff\xfe", "not a file of text"),
            ("# a comment\n" * 100_000, "larger than 1048576 bytes"),
        ):
            error = self.assertRaises(ValueError, Passwords.fromFile, self.write(text))
            self.assertIn(problem, str(error))
            self.assertNotIn("$scrypt$ln=4", str(error))
            self.assertNotIn("secret", str(error))

    def test_passwordsThatCannotBe(self) -> None:
        for password in ("", "x" * 1001):
            self.assertRaises(ValueError, hashed, password)
