"""
The engine: admission and refusals, responses to pages of other origins, and the end.
"""

from __future__ import annotations

import gc
import gzip
import json
from collections import Counter
from http.cookies import SimpleCookie
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource, Resource
from twisted.web.test.requesthelper import DummyRequest
from zope.interface.verify import verifyObject

from tests.examples import HealthCheck, given, st
from tests.examples import settings as hypothesisSettings
from tests.memory import CLOSE, Exchange, Link, Recorder, WireTestCase
from txrealtime.engineio.engine import Engine
from txrealtime.engineio.handshake import OpeningRequest, readHandshake
from txrealtime.engineio.http.resource import EngineResource
from txrealtime.engineio.packet import Packet, PacketType
from txrealtime.engineio.session import CloseReason, Session, State
from txrealtime.errors import ConnectionRejected, HandshakeError
from txrealtime.testing import FakeTransport


class RefusalTests(WireTestCase):
    """Refusals by the protocol's own errors, on both transports, before a session is opened."""

    def bothRefuse(self, error: tuple[int, int, str], **options: Any) -> None:
        """Assert that a GET and a WebSocket with the same query are refused alike."""
        self.assertEqual(self.get(**options).answer.error, error)
        query = {name: value for name, value in options.items() if name != "transport"}
        if options.get("transport", "polling") == "polling":
            client = self.webSocket(**query)
            assert client.response is not None
            self.assertEqual(client.response.error, error)
            self.assertEqual(client.response.headers["connection"], "close")
            self.assertTrue(client.link.disconnecting)
            client.link.lose()
        self.assertEqual(self.owners, [])
        self.assertNothingLeft()

    def test_transport(self) -> None:
        for transport in ("", "webtransport", "__proto__", "constructor", "Polling"):
            self.bothRefuse((400, 0, "Transport unknown"), transport=transport)
            client = self.webSocket(transport=transport)
            assert client.response is not None
            self.assertEqual(client.response.error, (400, 0, "Transport unknown"))
            client.link.lose()

    def test_versionInTheLog(self) -> None:
        """A client's own text goes to the log without its control characters."""
        with capturedLogs() as events:
            message = self.get(EIO="\n\x1b[31m4").answer.error[2]
        self.assertIn("EIO=\\n\\x1b[31m4,", message)
        self.assertNotIn("\x1b", "".join(str(formatEvent(event)) for event in events))

    def test_transportNotServed(self) -> None:
        self.makeEngine(transports=("websocket",))
        self.assertEqual(self.get().answer.error, (400, 0, "Transport unknown"))
        self.assertEqual(self.openWebSocket().response.status, 101)  # type: ignore[union-attr]
        self.makeEngine(transports=("polling",))
        client = self.webSocket()
        assert client.response is not None
        self.assertEqual(client.response.error, (400, 0, "Transport unknown"))
        self.openPolling()

    def test_session(self) -> None:
        for sid in ("unknown", "x" * 1000, "__proto__"):
            self.bothRefuse((400, 1, "Session ID unknown"), sid=sid)
        self.assertEqual(self.post("unknown", b"4a").answer.error, (400, 1, "Session ID unknown"))

    def test_emptySession(self) -> None:
        """``sid=`` names a session, and no session has that name."""
        link = Link().connect(self.site)
        link.deliver(self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling&sid="))
        self.assertEqual(Exchange(link).answer.error, (400, 1, "Session ID unknown"))

    def test_method(self) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            self.assertEqual(self.request(method, body=b"").answer.error, (400, 2, "Bad handshake method"))
        self.assertNothingLeft()

    def test_methodHEAD(self) -> None:
        self.assertEqual(self.request("HEAD").link.value()[:12], b"HTTP/1.1 400")
        self.assertNothingLeft()

    def test_protocol(self) -> None:
        """The version is refused before a WebSocket is open; the message names it."""
        for version in ("3", "5", "x", "44", "4.0", "-4", " 4"):
            status, code, message = self.get(EIO=version).answer.error
            self.assertEqual((status, code), (400, 5))
            self.assertTrue(message.startswith("Unsupported protocol version"), message)
            self.assertIn(version, message)
            self.bothRefuse((status, code, message), EIO=version)

    def test_noProtocol(self) -> None:
        """Clients of version 3 may leave the version out."""
        _, code, message = self.get(EIO="").answer.error
        self.assertEqual(code, 5)
        self.bothRefuse((400, 5, message), EIO="")

    def test_longProtocol(self) -> None:
        """A long version does not come back in full."""
        self.assertLess(len(self.get(EIO="x" * 5000).answer.body), 200)

    def test_protocolOfAnotherSession(self) -> None:
        sid = self.openPolling()
        self.assertEqual(self.get(sid, EIO="3").answer.error[:2], (400, 3))
        client = self.webSocket(sid, EIO="3")
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (400, 3))
        self.assertEqual(self.session.state, State.OPEN)

    def test_protocolNotRepeated(self) -> None:
        """Requests of a session need not repeat the version."""
        sid = self.openPolling()
        self.session.send("hello")
        self.assertEqual(self.get(sid, EIO="").payload, [b"4hello"])

    def test_webSocketWithoutUpgrade(self) -> None:
        self.assertEqual(self.get(transport="websocket").answer.error[:2], (400, 3))
        self.assertNothingLeft()

    def test_pollingWithUpgrade(self) -> None:
        client = self.webSocket(transport="polling")
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (400, 3))

    def test_pollingAfterTheUpgrade(self) -> None:
        sid = self.openPolling()
        client = self.upgrade(sid)
        self.assertEqual(self.get(sid).answer.error[:2], (400, 3))
        self.assertEqual(self.post(sid, b"4a").answer.error[:2], (400, 3))
        client.send("4b")
        self.assertEqual(self.owner.heard, ["b"])

    def test_pollingOfAWebSocket(self) -> None:
        self.openWebSocket()
        self.assertEqual(self.get(self.session.sid).answer.error[:2], (400, 3))
        self.assertEqual(self.session.state, State.OPEN)

    def test_bytes(self) -> None:
        """The bytes are those that official clients look for."""
        self.assertEqual(self.get("x").answer.body, b'{"code":1,"message":"Session ID unknown"}')

    @hypothesisSettings(suppress_health_check=[HealthCheck.differing_executors], max_examples=50)
    @given(
        st.sampled_from(["GET", "POST", "OPTIONS", "DELETE"]),
        st.one_of(
            st.text(
                st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\xa0\xad")
            ).map(lambda text: "".join(char for char in text if char.isprintable())),
            st.dictionaries(
                st.sampled_from(["sid", "EIO", "transport", "t", "b64", "j"]),
                st.sampled_from(["4", "3", "polling", "websocket", "%00", "%ff", "a&a=b", "[", ";", "=&"]),
            ).map(lambda query: "?" + "&".join(f"{name}={value}" for name, value in query.items())),
        ),
        st.sampled_from([{}, {"Origin": "http://["}, {"Cookie": "a[]=;;"}, {"X-Forwarded-For": ",,"}]),
    )
    def test_anythingIsAnswered(self, method: str, rest: str, headers: dict[str, str]) -> None:
        """Any request opens a session or is refused, without a traceback."""
        self.setUp()
        link = Link().connect(self.site)
        link.deliver(self.requestBytes(method, "/engine.io/" + rest, headers, b""))
        status = Exchange(link).answer.status
        self.assertIn(status, (200, 204, 400, 403, 404))
        self.assertEqual(self.flushLoggedErrors(), [])


class OpeningTests(WireTestCase):
    def test_resource(self) -> None:
        resource = EngineResource(self.engine)
        verifyObject(IResource, resource)
        self.assertTrue(resource.isLeaf)
        request = DummyRequest([b""])
        self.assertRaises(RuntimeError, resource.getChildWithDefault, b"x", request)
        self.assertRaises(RuntimeError, resource.putChild, b"x", Resource())

    def test_sid(self) -> None:
        """A sid is a secret of 120 bits from the system's random source, safe in a URL, never repeated."""
        sids = {self.openPolling() for _ in range(100)}
        self.assertEqual(len(sids), 100)
        self.assertEqual({len(sid) for sid in sids}, {20})
        characters = Counter("".join(sids))
        self.assertLess(max(characters.values()), 100)
        self.assertRegex("".join(sids), r"^[A-Za-z0-9_-]+$")

    def test_name(self) -> None:
        """The server's name is the end of each sid, after a dot, and a log has the random beginning only."""
        self.makeEngine(name="shop-1")
        sids = {self.openPolling() for _ in range(20)}
        for sid in sids:
            self.assertRegex(sid, r"\A[A-Za-z0-9_-]{20}\.shop-1\Z")
            self.assertEqual(self.engine.sessions[sid].label, sid[:6])
        self.assertEqual(len({sid[:20] for sid in sids}), 20)

    def test_sessions(self) -> None:
        sid = self.openPolling()
        self.assertEqual(self.engine.sessions, {sid: self.session})
        self.assertEqual(self.session.sid, sid)
        self.session.abort(CloseReason.FORCED_CLOSE)
        self.assertNothingLeft()

    def test_handshake(self) -> None:
        """The handshake stays that of the client's first request."""
        sid = self.openPolling(token="x", headers={"User-Agent": "u", "X-Twice": "1"}, address="203.0.113.9")
        self.get(sid, token="y", headers={"User-Agent": "v"})
        handshake = self.session.handshake
        self.assertEqual(handshake.query["token"], "x")
        self.assertEqual(handshake.headers["user-agent"], "u")
        self.assertEqual(handshake.address, "203.0.113.9")
        self.assertTrue(handshake.url.startswith("/engine.io/?EIO=4"))

    def test_handshakeOfAWebSocket(self) -> None:
        self.openWebSocket(token="x", headers={"User-Agent": "u"}, address="203.0.113.9")
        handshake = self.session.handshake
        self.assertEqual((handshake.query["token"], handshake.headers["user-agent"]), ("x", "u"))
        self.assertEqual((handshake.address, handshake.host), ("203.0.113.9", "example.org"))

    def test_repeatedHeaders(self) -> None:
        link = Link().connect(self.site)
        request = self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling", {"X-A": "1"})
        link.deliver(request.replace(b"X-A: 1\r\n", b"X-A: 1\r\nx-a: 2\r\n"))
        self.assertEqual(self.session.handshake.headers["x-a"], "1, 2")

    def test_repeatedCookies(self) -> None:
        """Browsers repeat the header over HTTP/2."""
        link = Link().connect(self.site)
        request = self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling", {"Cookie": "a=1"})
        link.deliver(request.replace(b"Cookie: a=1\r\n", b"Cookie: a=1\r\nCookie: b=2; c=3\r\n"))
        self.assertEqual(self.session.handshake.cookies, {"a": "1", "b": "2", "c": "3"})

    def test_upgrades(self) -> None:
        self.assertIn(b'"upgrades":["websocket"]', self.get().answer.body)
        client = self.webSocket()
        self.assertEqual(json.loads(client.messages()[0][1:])["upgrades"], [])
        for options in ({"allowUpgrades": False}, {"transports": ("polling",)}):
            self.makeEngine(**options)
            self.assertIn(b'"upgrades":[]', self.get().answer.body)

    def test_upgradesNotAllowed(self) -> None:
        self.makeEngine(allowUpgrades=False)
        sid = self.openPolling()
        client = self.webSocket(sid)
        assert client.response is not None
        if client.response.status == 101:
            self.assertEqual([frame.opcode for frame in client.frames()], [CLOSE])
        else:
            self.assertEqual(client.response.error[:2], (400, 3))
        self.assertEqual(self.session.state, State.OPEN)
        self.session.send("a")
        self.assertEqual(self.get(sid).payload, [b"4a"])

    def test_settings(self) -> None:
        self.makeEngine(pingInterval=0.3, pingTimeout=0.2, maxPayload=1234)
        opened = json.loads(self.get().answer.body[1:])
        self.assertEqual(list(opened), ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"])
        self.assertEqual(list(opened.values())[2:], [300, 200, 1234])

    def test_otherTransport(self) -> None:
        """A session may open on another kind of transport, as in the testing kit."""
        transport = FakeTransport()
        handshake = readHandshake({}, "/?EIO=4&transport=websocket", "127.0.0.1", False, lambda _: False)
        session = self.engine.openSession(handshake, transport)
        self.assertEqual([packet.type for packet in transport.take()], [PacketType.OPEN])
        self.assertIs(self.engine.sessions[session.sid], session)

    def test_defaultReactor(self) -> None:
        from twisted.internet import reactor

        handshake = readHandshake({}, "/", "127.0.0.1", False, lambda _: False)
        before = reactor.getDelayedCalls()
        session = Engine(Recorder).openSession(handshake, FakeTransport())
        self.assertEqual(len(reactor.getDelayedCalls()), len(before) + 1)  # its heartbeat
        session.abort(CloseReason.FORCED_CLOSE)
        self.assertEqual(reactor.getDelayedCalls(), before)

    def test_receiverFails(self) -> None:
        """A receiver that fails to be created ends this client's session and leaves nothing behind."""
        self.own = lambda session: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        answer = self.get().answer
        self.assertEqual(answer.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNothingLeft()

    def test_receiverFailsOnAWebSocket(self) -> None:
        self.own = lambda session: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        client = self.webSocket()
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        client.link.lose()
        self.assertNothingLeft()

    def test_receiverSendsTooMuch(self) -> None:
        """A session that ends while it opens still answers its first request."""
        self.makeEngine(maxBuffered=1000)

        def own(session: Session) -> Recorder:
            for _ in range(3):
                session.send("x" * 600)
            return WireTestCase.own(self, session)

        self.own = own  # type: ignore[method-assign]
        self.assertEqual(self.get().answer.error[:2], (400, 1))
        self.assertNothingLeft()

    def test_receiverCloses(self) -> None:
        """A receiver that closes the session while it is created is told of the end."""

        def own(session: Session) -> Recorder:
            session.close()
            return WireTestCase.own(self, session)

        self.own = own  # type: ignore[method-assign]
        self.get()
        self.clock.advance(100)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.owner.ends, [CloseReason.FORCED_CLOSE])
        self.assertNothingLeft()


class FastPathRefusalTests(RefusalTests):
    fastPath = True


class FastPathOpeningTests(OpeningTests):
    fastPath = True


class CookieTests(WireTestCase):
    def cookie(self, **options: Any) -> Any:
        (morsel,) = SimpleCookie(self.get(**options).answer.headers["set-cookie"]).values()
        return morsel

    def test_none(self) -> None:
        self.assertNotIn("set-cookie", self.get().answer.headers)

    def test_cookie(self) -> None:
        self.makeEngine(cookie="io")
        morsel = self.cookie()
        self.assertEqual((morsel.key, morsel.value), ("io", self.session.sid))
        self.assertEqual((morsel["path"], morsel["samesite"].lower()), ("/", "lax"))
        self.assertTrue(morsel["httponly"])
        self.assertFalse(morsel["secure"])

    def test_secure(self) -> None:
        """The cookie is Secure if the client speaks TLS, even to a proxy only."""
        self.makeEngine(cookie="io", trustedProxies=("127.0.0.1",))
        self.assertTrue(self.cookie(headers={"X-Forwarded-Proto": "https"}, address="127.0.0.1")["secure"])

    def test_secureByPublicURL(self) -> None:
        self.makeEngine(cookie="io", publicURL="https://page.org")
        self.assertTrue(self.cookie()["secure"])

    def test_onlyAtTheOpening(self) -> None:
        self.makeEngine(cookie="io")
        sid = self.openPolling()
        self.session.send("a")
        self.assertNotIn("set-cookie", self.get(sid).answer.headers)
        self.assertNotIn("set-cookie", self.post(sid, b"4a").answer.headers)
        client = self.webSocket()
        assert client.response is not None
        self.assertNotIn("set-cookie", client.response.headers)

    def test_refused(self) -> None:
        self.makeEngine(cookie="io")
        self.assertNotIn("set-cookie", self.get(EIO="3").answer.headers)


class FastPathCookieTests(CookieTests):
    fastPath = True


class OriginTests(WireTestCase):
    PAGE = {"Origin": "https://page.org"}

    def assertForbidden(self, **options: Any) -> None:
        for status, code, message in (
            self.get(**options).answer.error,
            self.webSocket(**options).response.error,  # type: ignore[union-attr]
        ):
            self.assertEqual((status, code), (403, 4))
            self.assertIn("https://page.org", message)
            self.assertIn("--origin", message)
        self.assertEqual(self.owners, [])

    def assertAllowed(self, **options: Any) -> dict[str, str]:
        """Assert that both transports open, and return the headers of the response to the GET."""
        answer = self.get(**options).answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.webSocket(**options).response.status, 101)  # type: ignore[union-attr]
        return answer.headers

    def test_none(self) -> None:
        headers = self.assertAllowed()
        self.assertNotIn("access-control-allow-origin", headers)

    def test_own(self) -> None:
        self.assertAllowed(headers={"Origin": "http://example.org"})

    def test_foreign(self) -> None:
        """Both transports refuse a foreign page, since browsers let any page open a WebSocket."""
        self.assertForbidden(headers=self.PAGE)
        self.assertNotIn("access-control-allow-origin", self.get(headers=self.PAGE).answer.headers)

    def test_listed(self) -> None:
        self.makeEngine(origins=("https://other.org", "https://page.org"))
        headers = self.assertAllowed(headers=self.PAGE)
        self.assertEqual(headers["access-control-allow-origin"], "https://page.org")
        self.assertEqual(headers["access-control-allow-credentials"], "true")
        self.assertIn("Origin", headers["vary"])

    def test_notListed(self) -> None:
        self.makeEngine(origins=("https://other.org",))
        self.assertForbidden(headers=self.PAGE)

    def test_any(self) -> None:
        """Any page may read, without credentials: CORS excludes both together."""
        self.makeEngine(origins="*")
        headers = self.assertAllowed(headers=self.PAGE)
        self.assertEqual(headers["access-control-allow-origin"], "*")
        self.assertNotIn("access-control-allow-credentials", headers)
        self.assertAllowed(headers={"Origin": "null"})

    def test_null(self) -> None:
        self.assertEqual(self.get(headers={"Origin": "null"}).answer.error[:2], (403, 4))
        self.makeEngine(origins="null")
        self.assertAllowed(headers={"Origin": "null"})

    def test_behindAProxy(self) -> None:
        forwarded = {**self.PAGE, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "page.org"}
        self.assertForbidden(headers=forwarded, address="127.0.0.1")
        self.makeEngine(trustedProxies=("127.0.0.1",))
        self.assertAllowed(headers=forwarded, address="127.0.0.1")
        self.owners.clear()
        self.assertForbidden(headers=forwarded, address="192.0.2.7")

    def test_behindTraefik(self) -> None:
        """Traefik reports https for a request, and wss for an upgrade."""
        self.makeEngine(trustedProxies=("127.0.0.1",))
        for proto in ("https", "wss"):
            forwarded = {**self.PAGE, "X-Forwarded-Proto": proto, "X-Forwarded-Host": "page.org"}
            self.assertAllowed(headers=forwarded, address="127.0.0.1")
            self.assertTrue(self.session.handshake.secure)

    def test_iOS(self) -> None:
        """Starscream sends the scheme of its URL in Origin."""
        headers = self.assertAllowed(headers={"Origin": "ws://example.org"})
        self.assertEqual(headers["access-control-allow-origin"], "ws://example.org")
        self.assertForbiddenAlone(headers={"Origin": "wss://example.org"})

    def test_publicURL(self) -> None:
        """A page of the public host is the server's own, and one of the host behind the proxy is not."""
        self.makeEngine(publicURL="https://page.org")
        self.assertAllowed(headers=self.PAGE)
        self.assertTrue(self.session.handshake.secure)
        self.assertEqual(self.session.handshake.host, "page.org")
        self.assertForbiddenAlone(headers={"Origin": "http://example.org"})

    def assertForbiddenAlone(self, **options: Any) -> None:
        self.assertEqual(self.get(**options).answer.error[:2], (403, 4))
        client = self.webSocket(**options)
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (403, 4))

    def test_onEachAnswer(self) -> None:
        """A page can read every response: to GETs, to POSTs, and refusals."""
        self.makeEngine(origins="https://page.org")
        sid = self.openPolling(headers=self.PAGE)
        self.session.send("x" * 2000)
        for exchange in (
            self.get(sid, headers={**self.PAGE, "Accept-Encoding": "gzip"}),
            self.post(sid, b"4a", headers=self.PAGE),
            self.get("unknown", headers=self.PAGE),
            self.get(EIO="3", headers=self.PAGE),
            self.post(sid, b"garbage", headers=self.PAGE),
        ):
            headers = exchange.answer.headers
            self.assertEqual(headers["access-control-allow-origin"], "https://page.org", exchange.answer)
            self.assertIn("Origin", headers["vary"])

    def test_preflight(self) -> None:
        """A browser sends a preflight request before a page sends a header of its own."""
        self.makeEngine(origins="https://page.org")
        sid = self.openPolling()
        asked = {
            **self.PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-token",
        }
        for session in (None, sid):
            answer = self.request("OPTIONS", session, headers=asked).answer
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.headers["access-control-allow-origin"], "https://page.org")
            self.assertEqual(answer.headers["access-control-allow-credentials"], "true")
            self.assertIn("POST", answer.headers["access-control-allow-methods"])
            self.assertEqual(answer.headers["access-control-allow-headers"], "x-token")
            self.assertEqual(answer.headers["vary"], "Origin, Access-Control-Request-Headers")
        self.assertEqual(len(self.owners), 1)

    def test_preflightWithoutHeaders(self) -> None:
        self.makeEngine(origins="*")
        headers = self.request("OPTIONS", headers=self.PAGE).answer.headers
        self.assertEqual(headers["access-control-allow-origin"], "*")
        self.assertNotIn("access-control-allow-headers", headers)

    def test_preflightOfAForeignPage(self) -> None:
        headers = self.request("OPTIONS", headers=self.PAGE).answer.headers
        self.assertNotIn("access-control-allow-origin", headers)
        self.assertNotIn("access-control-allow-credentials", headers)


class FastPathOriginTests(OriginTests):
    fastPath = True


class AllowRequestTests(WireTestCase):
    """The application's own check, before a session opens."""

    def asked(self, answer: Any) -> list[OpeningRequest]:
        """Make an engine whose application gives this answer; return the requests that it sees."""
        handshakes: list[OpeningRequest] = []

        def allowRequest(handshake: OpeningRequest) -> Any:
            handshakes.append(handshake)
            return answer(handshake) if callable(answer) else answer

        self.makeEngine(allowRequest)
        return handshakes

    def assertRefused(self, message: str) -> None:
        self.assertEqual(self.get().answer.error, (403, 4, message))
        client = self.webSocket()
        assert client.response is not None
        self.assertEqual(client.response.error, (403, 4, message))
        client.link.lose()
        self.assertEqual(self.owners, [])
        self.assertNothingLeft()

    def test_yes(self) -> None:
        for answer in (True, None, lambda handshake: succeed(True), lambda handshake: succeed(None)):
            asked = self.asked(answer)
            self.openPolling(token="x")
            self.openWebSocket(token="y")
            self.assertEqual([handshake.query["token"] for handshake in asked], ["x", "y"])

    def test_no(self) -> None:
        async def refuse(handshake: OpeningRequest) -> bool:
            return False

        for answer in (False, lambda handshake: succeed(False), refuse):
            self.asked(answer)
            self.assertRefused("Forbidden")

    def test_rejected(self) -> None:
        def reject(handshake: OpeningRequest) -> bool:
            raise ConnectionRejected("who are you?")

        async def rejectLater(handshake: OpeningRequest) -> bool:
            raise ConnectionRejected("who are you?")

        for answer in (reject, rejectLater, lambda handshake: fail(ConnectionRejected("who are you?"))):
            self.asked(answer)
            self.assertRefused("who are you?")

    def test_handshakeError(self) -> None:
        def refuse(handshake: OpeningRequest) -> bool:
            raise HandshakeError(3, "slow down", 429)

        self.asked(refuse)
        self.assertEqual(self.get().answer.error, (429, 3, "slow down"))

    def test_fails(self) -> None:
        """An application that fails admits nobody, and the client learns no reason."""

        async def failLater(handshake: OpeningRequest) -> bool:
            raise ZeroDivisionError("secret")

        for answer in (lambda handshake: 1 / 0, failLater):
            self.asked(answer)
            self.assertRefused("Forbidden")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_unfinished(self) -> None:
        """A generator, or a coroutine that nothing waits for, is true and admits nobody."""

        def lazy(handshake: OpeningRequest) -> Any:
            yield True

        async def unfinished(handshake: OpeningRequest) -> Any:
            return lazy(handshake)

        for answer in (lazy, unfinished):
            self.asked(answer)
            self.assertRefused("Forbidden")
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)

    def test_later(self) -> None:
        for refuses in (False, True):
            self.owners.clear()
            waiting: Deferred[bool] = Deferred()
            self.asked(lambda handshake, waiting=waiting: waiting)
            poll = self.get()
            self.assertIsNone(poll.response)
            self.assertEqual(self.owners, [])
            waiting.callback(not refuses)
            self.assertEqual(poll.answer.status, 403 if refuses else 200)

    def test_webSocketLater(self) -> None:
        """Frames that a hasty client sends meanwhile are not lost."""
        waiting: Deferred[bool] = Deferred()
        self.asked(lambda handshake: waiting)
        client = self.webSocket()
        self.assertIsNone(client.response)
        client.send("4hasty")
        waiting.callback(True)
        client.link.turn()
        self.assertEqual(client.messages()[0][:1], "0")
        self.assertEqual(self.owner.heard, ["hasty"])

    def test_notForKnownSessions(self) -> None:
        asked = self.asked(True)
        sid = self.openPolling()
        self.post(sid, b"4a")
        self.upgrade(sid)
        self.assertEqual(len(asked), 1)

    def test_afterTheOtherChecks(self) -> None:
        asked = self.asked(True)
        self.get(EIO="3")
        self.get(headers={"Origin": "http://evil.org"})
        self.get(transport="x")
        self.request("POST", body=b"")
        self.assertEqual(asked, [])

    def test_pollLostMeanwhile(self) -> None:
        """A client that goes before the answer leaves nothing behind, whatever the answer."""
        for answer in (True, False, ZeroDivisionError("x")):
            waiting: Deferred[bool] = Deferred()
            self.asked(lambda handshake, waiting=waiting: waiting)
            self.get().drop()
            if isinstance(answer, Exception):
                waiting.errback(answer)
            else:
                waiting.callback(answer)
            self.assertEqual(self.owners, [])
            gc.collect()  # an error in a Deferred shows when it goes
            self.flushLoggedErrors(ZeroDivisionError)
            self.assertEqual(self.flushLoggedErrors(), [], answer)
            self.assertNothingLeft()

    def test_webSocketLostMeanwhile(self) -> None:
        for answer in (True, False, ZeroDivisionError("x")):
            waiting: Deferred[bool] = Deferred()
            self.asked(lambda handshake, waiting=waiting: waiting)
            client = self.webSocket()
            client.link.lose()
            if isinstance(answer, Exception):
                waiting.errback(answer)
            else:
                waiting.callback(answer)
            self.assertEqual(self.owners, [])
            gc.collect()  # an error in a Deferred shows when it goes
            self.flushLoggedErrors(ZeroDivisionError)
            self.assertEqual(self.flushLoggedErrors(), [], answer)
            self.assertNothingLeft()

    def test_tooLate(self) -> None:
        """An answer that comes after handshakeTimeout opens nothing."""
        waiting: Deferred[bool] = Deferred()
        self.asked(lambda handshake: waiting)
        client = self.webSocket()
        self.clock.advance(10)
        self.assertTrue(client.link.disconnected)
        client.link.lose()
        waiting.callback(True)
        self.assertEqual(self.owners, [])
        self.assertNothingLeft()

    def test_drainedMeanwhile(self) -> None:
        """An engine that drains meanwhile opens no session."""
        for open in (self.get, self.webSocket):
            waiting: Deferred[bool] = Deferred()
            self.asked(lambda handshake, waiting=waiting: waiting)
            open()
            self.successResultOf(self.engine.drain(5))
            waiting.callback(True)
            self.assertEqual(self.owners, [])
            self.assertEqual(self.engine.sessions, {})


class FastPathAllowRequestTests(AllowRequestTests):
    fastPath = True


class DrainTests(WireTestCase):
    def test_empty(self) -> None:
        self.successResultOf(self.engine.drain(5))
        self.assertNothingLeft()

    def test_newcomers(self) -> None:
        self.successResultOf(self.engine.drain(5))
        self.assertEqual(self.get().answer.status, 503)
        client = self.webSocket()
        assert client.response is not None
        self.assertEqual(client.response.status, 503)
        self.assertEqual(self.owners, [])

    def test_reopen(self) -> None:
        self.successResultOf(self.engine.drain(5))
        self.engine.reopen()
        self.openPolling()

    def test_sessions(self) -> None:
        """Each session hears the reason and delivers its messages, and the drain ends with the last."""
        client = self.openWebSocket()
        self.session.send("last")
        sid = self.openPolling()
        self.session.send("last")
        drained = self.engine.drain(5)
        self.assertEqual([owner.ends for owner in self.owners], [[CloseReason.SHUTTING_DOWN]] * 2)
        last, close = client.frames()
        self.assertEqual(last.payload, b"4last")
        self.assertEqual((close.opcode, close.payload[:2]), (CLOSE, (1001).to_bytes(2, "big")))
        self.assertNoResult(drained)
        self.assertEqual(self.get(sid).payload, [b"4last"])
        self.assertNoResult(drained)
        client.sendFrame(CLOSE, (1001).to_bytes(2, "big"))
        self.assertNoResult(drained)
        client.link.lose()
        self.successResultOf(drained)
        self.assertNothingLeft()

    def test_clientThatStillSends(self) -> None:
        """
        A client that still sends keeps its connection until it closes.

        The end of the process answers what it sends by a reset, which destroys what it has not read yet.
        """
        client = self.openWebSocket()
        drained = self.engine.drain(5)
        for _ in range(10):
            client.send("4late")
        self.assertEqual([frame.opcode for frame in client.frames()], [CLOSE])
        self.assertEqual(self.owner.heard, [])
        self.assertNoResult(drained)
        client.sendFrame(CLOSE, (1001).to_bytes(2, "big"))
        client.link.lose()
        self.successResultOf(drained)
        self.assertNothingLeft()

    def test_closingBefore(self) -> None:
        """A drain waits also for WebSockets that were closing before."""
        client = self.openWebSocket()
        self.session.close()
        drained = self.engine.drain(5)
        self.assertNoResult(drained)
        client.link.lose()
        self.successResultOf(drained)

    def test_noCloseFrameInTime(self) -> None:
        """The drain's timeout ends a connection whose client answers no close frame, but without a reset."""
        client = self.openWebSocket()
        drained = self.engine.drain(5)
        self.clock.advance(5)
        self.successResultOf(drained)
        self.assertTrue(client.link.disconnecting)
        self.assertFalse(client.link.disconnected, "a reset")
        client.link.lose()
        self.assertNothingLeft()

    def test_timeout(self) -> None:
        self.openPolling()
        self.session.send("last")
        client = self.openWebSocket()
        client.link.fill()
        self.session.send("last")
        drained = self.engine.drain(5)
        self.clock.advance(4.9)
        self.assertNoResult(drained)
        self.clock.advance(0.1)
        self.successResultOf(drained)
        client.link.lose()
        self.assertNothingLeft()

    def test_twice(self) -> None:
        """Two drains at a time both fire."""
        sid = self.openPolling()
        self.session.send("last")
        first, second = self.engine.drain(5), self.engine.drain(5)
        self.get(sid)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNothingLeft()


class PROXYTests(WireTestCase):
    """Behind a proxy that speaks the PROXY protocol and ends TLS: stunnel, hitch, HAProxy's send-proxy."""

    def open(self, head: bytes, page: str = "https://page.org") -> Exchange:
        link = Link("127.0.0.1").connect(HAProxyWrappingFactory(self.site))
        headers = {"Host": "page.org", "Origin": page}
        link.deliver(head + self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling", headers))
        return Exchange(link)

    def test_publicURL(self) -> None:
        head = b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n"
        self.assertEqual(self.open(head).answer.status, 403)
        self.makeEngine(publicURL="https://page.org")
        self.assertEqual(self.open(head).answer.status, 200)
        self.assertEqual(
            (self.session.handshake.address, self.session.handshake.secure), ("203.0.113.9", True)
        )

    def test_noAddress(self) -> None:
        """Text that is no address is not believed, and does not reach the log."""
        with capturedLogs() as events:
            self.open(b"PROXY TCP4 e\x1b[31m 192.0.2.1 40000 443\r\n", "https://evil.org")
        self.assertIn("refused unknown: 403", "".join(str(formatEvent(event)) for event in events))
        self.assertNotIn("\x1b", "".join(str(formatEvent(event)) for event in events))


class FastPathPROXYTests(PROXYTests):
    fastPath = True


class WebSocketAloneTests(WireTestCase):
    """WebSocket on an endpoint of its own, without twisted.web."""

    def test_opens(self) -> None:
        client = self.openWebSocket(factory=self.engine.webSocketFactory())
        client.send("4hello")
        self.assertEqual(self.owner.heard, ["hello"])
        self.assertEqual(self.session.handshake.address, "192.0.2.7")

    def test_upgrades(self) -> None:
        """The endpoint upgrades sessions of the same engine."""
        sid = self.openPolling()
        client = self.webSocket(sid, factory=self.engine.webSocketFactory())
        client.send("2probe")
        client.send("5")
        self.assertEqual(self.session.transport.name, "websocket")

    def test_refuses(self) -> None:
        for query, error in (
            ({"EIO": "3"}, (400, 5)),
            ({"transport": "polling"}, (400, 3)),
            ({"sid": "x"}, (400, 1)),
        ):
            client = self.webSocket(factory=self.engine.webSocketFactory(), **query)
            assert client.response is not None
            self.assertEqual(client.response.error[:2], error)

    def test_plainRequest(self) -> None:
        for request in (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n",
            b"garbage\r\n\r\n",
            b"\xff\xff\r\n\r\n",
            b"GET //[/?EIO=4 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        ):
            link = Link().connect(self.engine.webSocketFactory())
            link.deliver(request)
            self.assertGreaterEqual(Exchange(link).answer.status, 400)
            self.assertTrue(link.disconnecting)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_nothingComes(self) -> None:
        link = Link().connect(self.engine.webSocketFactory())
        self.clock.advance(10)
        self.assertTrue(link.disconnected)
        link.lose()
        self.assertNothingLeft()


class ClockTests(SynchronousTestCase):
    def test_clock(self) -> None:
        """Heartbeats run on the clock that was given."""
        clock = Clock()
        engine = Engine(Recorder, reactor=clock)
        transport = FakeTransport()
        handshake = readHandshake({}, "/", "127.0.0.1", False, lambda _: False)
        session = engine.openSession(handshake, transport)
        clock.advance(25)
        clock.advance(20)
        self.assertEqual(session.state, State.CLOSED)
        self.assertEqual(engine.sessions, {})


class EngineIO3Tests(WireTestCase):
    """Clients of Socket.IO 1 and 2, on a server that serves them beside newer ones."""

    def setUp(self) -> None:
        super().setUp()
        self.makeEngine(allowEIO3=True)

    def open3(self, **query: str) -> str:
        poll = self.get(EIO="3", **query)
        self.assertEqual(poll.answer.headers["content-type"], "text/plain; charset=UTF-8")
        length, _, packet = poll.answer.body.decode().partition(":")
        self.assertEqual((int(length), packet[0]), (len(packet), "0"))
        sid: str = json.loads(packet[1:])["sid"]
        return sid

    def body(self, sid: str) -> bytes:
        answer = self.get(sid, EIO="3").answer
        self.assertEqual(answer.status, 200)
        return answer.body

    def test_versionsSideBySide(self) -> None:
        for version in ("3", ""):
            self.get(EIO=version)
            self.assertEqual(self.session.codec.version, 3)
        self.openPolling()
        self.assertEqual(self.session.codec.version, 4)

    def test_othersAreRefused(self) -> None:
        for version in ("2", "5", "x"):
            _, code, message = self.get(EIO=version).answer.error
            self.assertEqual(code, 5)
            self.assertIn("speaks 3 and 4", message)
            self.assertNotIn("allowEIO3", message)

    def test_notAllowed(self) -> None:
        """The refusal and the log name the setting that helps."""
        self.makeEngine()
        with capturedLogs() as logged:
            _, code, message = self.get(EIO="3").answer.error
        for text in (message, formatEvent(logged[-1])):
            for part in ("EIO=3", "speaks 4", "allowEIO3", "--allow-eio3"):
                self.assertIn(part, text)
        client = self.webSocket(EIO="3")
        assert client.response is not None
        self.assertEqual(client.response.error, (400, code, message))

    def test_binaryBodies(self) -> None:
        sid = self.open3()
        self.session.send("hello")
        self.session.send(b"\x01\x02\x03\x04")
        answer = self.get(sid, EIO="3").answer
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertEqual(answer.body.hex(" "), "00 06 ff 34 68 65 6c 6c 6f 01 05 ff 04 01 02 03 04")
        headers = {"Content-Type": "application/octet-stream"}
        self.assertEqual(self.post(sid, answer.body, headers=headers, EIO="3").answer.body, b"ok")
        self.assertEqual(self.owner.heard, ["hello", b"\x01\x02\x03\x04"])

    def test_base64IsRemembered(self) -> None:
        """Clients send b64 in the first request only."""
        sid = self.open3(b64="1")
        for _ in range(2):
            self.session.send(b"\x01\x02\x03\x04")
            self.assertEqual(self.body(sid), b"10:b4AQIDBA==")

    def test_oldest(self) -> None:
        """Clients before 1.4, known by the form of ``t``, need the open packet in a binary body, too."""
        answer = self.get(EIO="3", t="1795222700237-0").answer
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertRegex(answer.body, rb'^\x00[\x00-\x09]+\xff0\{"sid"')
        for time in ("Lj3xQ2", "Lj3xQ2.0", "1795222700.237", "1795222700237"):
            self.open3(t=time)
        self.open3(t="1795222700237-0", b64="1")

    def test_compressed(self) -> None:
        sid = self.open3()
        self.session.send(b"x" * 2000)
        answer = self.get(sid, EIO="3", headers={"Accept-Encoding": "gzip"}).answer
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertEqual(gzip.decompress(answer.body), b"\x01\x02\x00\x00\x01\xff\x04" + b"x" * 2000)

    def test_ping(self) -> None:
        sid = self.open3()
        for _ in range(3):
            self.post(sid, b"1:2", EIO="3")
            self.assertEqual(self.body(sid), b"1:3")

    def test_close(self) -> None:
        sid = self.open3()
        poll = self.get(sid, EIO="3")
        self.post(sid, b"1:1", EIO="3")
        self.assertEqual(poll.answer.body, b"1:6")
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_CLOSE])

    def test_broken(self) -> None:
        for body, headers in ((b"4hello", {}), (b"abc", {"Content-Type": "application/octet-stream"})):
            sid = self.open3()
            self.assertEqual(self.post(sid, body, EIO="3", headers=headers).answer.error[:2], (400, 3))
            self.assertEqual(self.owner.ends, [CloseReason.PARSE_ERROR])

    def test_webSocket(self) -> None:
        client = self.openWebSocket(EIO="3")
        client.send("2")
        client.send("4€")
        client.send(b"\x04\x01")
        client.send("b4AQI=")
        self.assertEqual(self.owner.heard, ["€", b"\x01", b"\x01\x02"])
        self.session.send("é")
        self.session.send(b"\x01")
        self.assertEqual(client.messages(), ["3", "4é", b"\x04\x01"])

    def test_webSocketBase64(self) -> None:
        for version, text in (("3", "b4AQIDBA=="), ("4", "bAQIDBA==")):
            client = self.openWebSocket(EIO=version, b64="1")
            self.session.send(b"\x01\x02\x03\x04")
            self.assertEqual(client.messages(), [text])

    def test_webSocketBroken(self) -> None:
        for message in (b"", b"\x00", "abc"):
            client = self.openWebSocket(EIO="3")
            client.send(message)
            self.assertEqual(client.frames()[-1].opcode, CLOSE)
            self.assertEqual(self.owner.ends, [CloseReason.PARSE_ERROR])

    def test_oneMessageForAll(self) -> None:
        """A packet may go to clients of all kinds, in any order."""
        clients = {
            version + base64: (self.openWebSocket(EIO=version, b64=base64), self.session)
            for version in ("3", "4")
            for base64 in ("", "1")
        }
        for order in (1, -1):
            packet = Packet(PacketType.MESSAGE, b"\x01")
            for _, session in list(clients.values())[::order]:
                session.sendPackets([packet])
        received = {name: client.messages() for name, (client, _) in clients.items()}
        self.assertEqual(
            received, {"3": [b"\x04\x01"] * 2, "31": ["b4AQ=="] * 2, "4": [b"\x01"] * 2, "41": ["bAQ=="] * 2}
        )

    def test_upgrade(self) -> None:
        sid = self.open3()
        poll = self.get(sid, EIO="3")
        client = self.webSocket(sid, EIO="3")
        client.send("2probe")
        self.assertEqual(client.messages(), ["3probe"])
        self.assertEqual(poll.answer.body, b"1:6")
        client.send("5")
        self.session.send(b"\x01")
        self.assertEqual(client.messages(), [b"\x04\x01"])
        client.send("2")
        self.assertEqual(client.messages(), ["3"])

    def test_upgradeSaysBase64Anew(self) -> None:
        """A browser that polls with JSONP may well take binary frames."""
        for base64, received in (("", b"\x04\x01"), ("1", "b4AQ==")):
            sid = self.open3(b64="1")
            client = self.webSocket(sid, EIO="3", b64=base64)
            client.send("2probe")
            client.send("5")
            self.session.send(b"\x01")
            self.assertEqual(client.messages()[1:], [received])

    def test_otherVersionOnTheSameSession(self) -> None:
        sid = self.open3()
        self.assertEqual(self.get(sid).answer.error[:2], (400, 3))
        client = self.webSocket(sid)
        assert client.response is not None
        self.assertEqual(client.response.error[:2], (400, 3))


class FastPathEngineIO3Tests(EngineIO3Tests):
    fastPath = True
