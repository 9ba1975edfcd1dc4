"""
Sockets and their opening requests as the admin UI shows them, without secrets.

A header or a field of the query is shown if its name is known to carry no secret; of all others the name
alone.  The ``auth`` of clients is never shown.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlencode

from txrealtime.engineio.session import Session
from txrealtime.socketio.audience import Person
from txrealtime.socketio.handshake import Handshake
from txrealtime.socketio.jsontext import JSONText
from txrealtime.socketio.sockets import Socket

__all__ = ["HIDDEN", "clientId", "describe", "describePerson", "sendable", "timestamp"]

HIDDEN: Final = "(hidden)"
"""The text in place of a value that may be a secret."""

_HEADERS: Final = frozenset(
    name
    for line in (
        "accept accept-charset accept-encoding accept-language cache-control connection content-length",
        "content-type dnt expect host keep-alive origin pragma priority te upgrade user-agent",
        "sec-gpc sec-websocket-extensions sec-websocket-version upgrade-insecure-requests",
        "cf-connecting-ip cf-ipcountry cf-ray forwarded via x-forwarded-for x-forwarded-host",
        "x-forwarded-port x-forwarded-proto x-real-ip x-request-id x-requested-with",
    )
    for name in line.split()
)
_PREFIXES: Final = ("sec-ch-", "sec-fetch-")
_FIELDS: Final = frozenset(["EIO", "transport", "t", "b64", "j"])


def clientId(session: Session) -> str:
    """Return the id by which the UI knows a client: a digest, as the session's id is a secret."""
    return urlsafe_b64encode(sha256(session.sid.encode()).digest()[:9]).decode()


def timestamp(seconds: float) -> str:
    """Return a time in the form of JavaScript's JSON, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def describe(socket: Socket) -> dict[str, Any]:
    """Describe a socket of this server."""
    return {
        "id": socket.id,
        "clientId": clientId(socket.session),
        "transport": socket.transport,
        "nsp": socket.namespace.path,
        "data": sendable(socket.data),
        "handshake": _handshake(socket.handshake),
        "rooms": [socket.id, *sorted(socket.rooms - {socket.id})],
    }


def describePerson(path: str, person: Person) -> dict[str, Any] | None:
    """
    Describe a socket of a server of Node.

    :param path: its namespace.
    :return: ``None`` if its server has no admin UI: without its client the UI could not show it.
    """
    given, admin = _mapping(person.admin.get("handshake")), person.admin.get("_admin")
    if not isinstance(admin, dict):
        return None
    headers, query = _mapping(given.get("headers")), _mapping(given.get("query"))
    shown = {name: given.get(name) for name in ("address", "issued", "secure", "time", "xdomain")}
    return {
        "id": person.id,
        "clientId": admin.get("clientId"),
        "transport": admin.get("transport"),
        "nsp": path,
        "data": sendable(person.data),
        "handshake": {
            **shown,
            "headers": _headers(headers),
            "query": _query(query),
            "url": _url(str(given.get("url", "")), query),
        },
        "rooms": sorted(person.rooms),
    }


def _handshake(handshake: Handshake) -> dict[str, Any]:
    came = datetime.fromtimestamp(handshake.time, UTC)
    return {
        "address": handshake.address,
        "headers": _headers(handshake.headers),
        "query": _query(handshake.query),
        "issued": round(handshake.time * 1000),
        "secure": handshake.secure,
        "time": came.strftime("%a %b %d %Y %H:%M:%S GMT+0000"),
        "url": _url(handshake.url, handshake.query),
        "xdomain": handshake.origin is not None,
    }


def _headers(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: _header(name.lower(), str(value)) for name, value in headers.items()}


def _header(name: str, value: str) -> str:
    if name == "referer":
        # The page's own query may hold a token.
        page, mark, _ = value.partition("#")[0].partition("?")
        return f"{page}?{HIDDEN}" if mark else page
    return value if name in _HEADERS or name.startswith(_PREFIXES) else HIDDEN


def _query(query: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) if name in _FIELDS else HIDDEN for name, value in query.items()}


def _url(url: str, query: Mapping[str, Any]) -> str:
    path, mark, _ = url.partition("?")
    return f"{path}?{urlencode(_query(query), safe='()')}" if mark else path


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_json: Final = JSONText()


def sendable(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a socket's data for the UI; in place of a value that JSON lacks, the name of its class."""
    shown: dict[str, Any] = {}
    for key, value in data.items():
        try:
            # With bytes beside it: fewer values can be encoded then.
            _json.encode([value, b""])
            shown[str(key)] = value
        except (TypeError, ValueError, RecursionError):
            shown[str(key)] = f"({type(value).__qualname__})"
    return shown
