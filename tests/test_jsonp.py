"""
JSONP: long polling by scripts and forms, in either version of the protocol.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from tests.examples import given, st
from tests.memory import Exchange, WireTestCase
from txrealtime.engineio.polling.jsonp import JSONPRequest
from txrealtime.engineio.session import CloseReason
from txrealtime.errors import HandshakeError


class Request:
    """The part of a request that JSONP reads."""

    method, url, peer, secure = "POST", "/", "", False

    def __init__(self, body: bytes = b"", **headers: str) -> None:
        self._body = body
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.extra: dict[bytes, bytes] = {}

    def body(self, most: int) -> bytes:
        return self._body[:most]

    def headers(self) -> dict[str, str]:
        return self._headers


def jsonp(body: bytes = b"", **headers: str) -> JSONPRequest:
    return JSONPRequest(Request(body, **headers), "0")  # type: ignore[arg-type]


def formOf(payload: str) -> bytes:
    """Return the form that a client sends, as a browser encodes it."""
    return urlencode({"d": payload.replace("\\n", "\\\n").replace("\n", "\\n")}).encode()


class FormTests(SynchronousTestCase):
    def read(self, form: bytes) -> bytes:
        return jsonp(form).body(1000)

    def test_payload(self) -> None:
        self.assertEqual(self.read(b"d=6%3A4hello"), b"6:4hello")
        self.assertEqual(self.read(b"d=2%3A4%E2%82%AC+x"), "2:4€ x".encode())

    def test_lineFeeds(self) -> None:
        r"""A line feed arrives as \n, and \n with one more backslash."""
        self.assertEqual(self.read(formOf("a\nb")), b"a\nb")
        self.assertEqual(self.read(formOf(r'["a\nb"]')), rb'["a\nb"]')
        self.assertEqual(self.read(rb"d=a\nb"), b"a\nb")
        self.assertEqual(self.read(rb"d=a\\nb"), rb"a\nb")

    @given(st.text(st.sampled_from("\\n\nab")))
    def test_whatAClientSendsArrives(self, payload: str) -> None:
        # A backslash before a line feed looks like "\n" in the form; JSON has no such sequence.
        payload = re.sub(r"\\+(?=\n)", "", payload)
        self.assertEqual(self.read(formOf(payload)).decode(), payload)

    def test_none(self) -> None:
        """A body that is no such form has an empty payload, which the codec refuses."""
        for form in (b"", b"x=1", b"D=1", b"d=%FF", b"\xff", b"&" * 900, b"d&" * 100):
            self.assertEqual(self.read(form), b"", form)

    def test_tooLarge(self) -> None:
        """A body above the limit is returned as it is, so that the transport refuses it."""
        self.assertEqual(jsonp(b"d=" + b"x" * 100).body(11), b"d=xxxxxxxxx")


class OriginTests(SynchronousTestCase):
    """
    The origin of the page, since browsers run a script's response in any page.
    """

    def originOf(self, **headers: str) -> str:
        return jsonp(**headers).header("origin")

    def test_asSent(self) -> None:
        self.assertEqual(
            self.originOf(origin="https://a.example", referer="https://b.example/"), "https://a.example"
        )

    def test_fromTheReferer(self) -> None:
        self.assertEqual(self.originOf(referer="https://b.example:8/x?y"), "https://b.example:8")

    def test_crossSiteWithoutReferer(self) -> None:
        for site in ("cross-site", "same-site"):
            self.assertEqual(self.originOf(sec_fetch_site=site), "null")
            self.assertEqual(self.originOf(sec_fetch_site=site, referer="https://[/"), "null")

    def test_nobodySays(self) -> None:
        """A request without a page, or of an old browser, has no origin."""
        for headers in ({}, {"sec_fetch_site": "same-origin"}, {"referer": "x"}, {"sec_fetch_site": "none"}):
            self.assertEqual(self.originOf(**headers), "")


class JSONPTests(WireTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.makeEngine(allowEIO3=True)

    def openJSONP(self, **query: str) -> str:
        text = self.payloadOf(self.get(j="0", **query))
        sid: str = json.loads(text[text.index("{") :])["sid"]
        return sid

    def payloadOf(self, exchange: Exchange, index: str = "0") -> str:
        """Return the argument of the page's function."""
        answer = exchange.answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["content-type"], "text/javascript; charset=UTF-8")
        match = re.fullmatch(rb'___eio\[(\d+)\]\(("[ -~]*")\);', answer.body)
        assert match is not None, answer.body
        self.assertEqual(match[1].decode(), index)
        payload: str = json.loads(match[2])
        return payload

    def test_open(self) -> None:
        self.assertRegex(self.payloadOf(self.get(j="0")), r'^0\{"sid"')
        self.assertRegex(self.payloadOf(self.get(j="12", EIO="3"), "12"), r'^[0-9]+:0\{"sid"')

    def test_index(self) -> None:
        """The index is repeated in a script, so anything but digits is refused."""
        sid = self.openJSONP()
        for index in ("", "x", "-1", "1;alert(1)", "0]", "\u0664", "1" * 11, "1\n"):
            link = self.request("GET", sid, **{"j": index or " "})
            status, code, message = link.answer.error
            self.assertEqual((status, code), (400, 3))
            self.assertNotIn(index or "j=", message.replace("j is not", ""))
        self.assertEqual(self.owner.ends, [])

    def test_indexOfEachRequest(self) -> None:
        sid = self.openJSONP()
        self.session.send("a")
        self.assertEqual(self.payloadOf(self.get(sid, j="7"), "7"), "4a")

    def test_escaped(self) -> None:
        sid = self.openJSONP()
        text = "\u2028\u2029</script><!--\"'\\\n\r\0€𝄞"
        self.session.send(text)
        poll = self.get(sid, j="0")
        self.assertEqual(self.payloadOf(poll), "4" + text)
        self.assertNotIn(b"<", poll.answer.body)

    def test_version3(self) -> None:
        """Lengths count the text in the page, and binary is always base64."""
        sid = self.openJSONP(EIO="3")
        self.session.send("hello")
        self.session.send(b"\x01\x02\x03\x04")
        self.assertEqual(self.payloadOf(self.get(sid, j="0", EIO="3")), "6:4hello10:b4AQIDBA==")

    def test_notCompressed(self) -> None:
        """A script is not compressed."""
        sid = self.openJSONP()
        self.session.send("x" * 2000)
        poll = self.get(sid, j="0", headers={"Accept-Encoding": "gzip"})
        self.assertNotIn("content-encoding", poll.answer.headers)
        self.assertEqual(self.payloadOf(poll), "4" + "x" * 2000)

    def push(self, sid: str, payload: str, **query: str) -> Exchange:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.post(sid, formOf(payload), headers=headers, j="0", **query)

    def test_push(self) -> None:
        sid = self.openJSONP()
        answer = self.push(sid, '4["a\\nb"]\x1e4€').answer
        self.assertEqual(
            (answer.status, answer.body, answer.headers["content-type"]), (200, b"ok", "text/html")
        )
        self.assertEqual(self.owner.heard, ['["a\\nb"]', "€"])

    def test_pushVersion3(self) -> None:
        sid = self.openJSONP(EIO="3")
        self.push(sid, "2:4€10:b4AQIDBA==", EIO="3")
        self.assertEqual(self.owner.heard, ["€", b"\x01\x02\x03\x04"])

    def test_pushNothing(self) -> None:
        sid = self.openJSONP()
        self.assertEqual(self.post(sid, b"x=1", j="0").answer.error[:2], (400, 3))
        self.assertEqual(self.owner.ends, [CloseReason.PARSE_ERROR])

    def test_pushTooMuch(self) -> None:
        self.makeEngine(maxPayload=100)
        sid = self.openJSONP()
        self.assertEqual(self.push(sid, "4" + "x" * 100).answer.status, 413)

    def test_dropped(self) -> None:
        sid = self.openJSONP()
        self.get(sid, j="0").drop()
        self.assertEqual(self.owner.ends, [CloseReason.TRANSPORT_ERROR])

    def test_refusal(self) -> None:
        """A refusal is plain JSON, since the status tells a script enough."""
        self.assertEqual(self.get("unknown", j="0").answer.error, (400, 1, "Session ID unknown"))

    def test_foreignPages(self) -> None:
        for headers in ({"Referer": "https://evil.example/x"}, {"Sec-Fetch-Site": "cross-site"}):
            self.assertEqual(self.get(j="0", headers=headers).answer.error[:2], (403, 4))
        self.assertEqual(self.engine.sessions, {})

    def test_ownPages(self) -> None:
        headers = {"Referer": "http://example.org/chat", "Sec-Fetch-Site": "same-origin"}
        self.payloadOf(self.get(j="0", headers=headers))

    def test_allowedPages(self) -> None:
        self.makeEngine(origins=("https://friend.example",))
        self.payloadOf(self.get(j="0", headers={"Referer": "https://friend.example/"}))
        self.makeEngine(origins=("*",))
        self.payloadOf(self.get(j="0", headers={"Sec-Fetch-Site": "cross-site"}))

    def test_indexIsRefusedAtOnce(self) -> None:
        self.assertRaises(HandshakeError, JSONPRequest, Request(), "x")


class FastPathTests(JSONPTests):
    fastPath = True
