"""
Long polling for browsers without cross-origin requests: JSONP.

A GET comes from a ``<script>``.  Its response is JavaScript that hands the payload to a function, which the
page keeps under the number ``j``.  A POST comes from a form, with the payload in the field ``d``.
:class:`JSONPRequest` translates both, so that the transport sees an ordinary request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from twisted.web.http import OK

from txrealtime.engineio.origins import originOfPage
from txrealtime.engineio.polling.request import TEXT, HTTPRequest
from txrealtime.errors import HandshakeError

__all__ = ["JSONPRequest"]

# Not text/plain: browsers do not run plain text as a script under "nosniff".
_JAVASCRIPT: Final = b"text/javascript; charset=UTF-8"

_INDEX: Final = re.compile(r"[0-9]{1,10}")


class JSONPRequest:
    """
    A request with a ``j`` in its query.

    :param request: the request as it came.
    :param index: the ``j``.
    :raises HandshakeError: if ``j`` is anything but digits, since the response repeats it.
    """

    __slots__ = ("_fields", "_index", "_request", "extra", "method", "url")

    def __init__(self, request: HTTPRequest, index: str) -> None:
        if not _INDEX.fullmatch(index):
            raise HandshakeError(3, "Bad request: j is not a number")
        self._request = request
        self._index = index
        self._fields = _fieldsOf(request)
        self.method = request.method
        self.url = request.url
        self.extra = request.extra

    @property
    def peer(self) -> str:
        return self._request.peer

    @property
    def secure(self) -> bool:
        return self._request.secure

    def header(self, name: str) -> str:
        return self._fields.get(name, "")

    def headers(self) -> dict[str, str]:
        return self._fields

    def body(self, most: int) -> bytes:
        body = self._request.body(most)
        return body if len(body) >= most else _formPayload(body)

    def respond(self, status: int, body: bytes, contentType: bytes = TEXT) -> None:
        if status == OK and self.method == "GET":
            self._request.respond(OK, _script(self._index, body), _JAVASCRIPT)
        else:
            self._request.respond(status, body, contentType)

    def whenLost(self, call: Callable[[], object]) -> None:
        self._request.whenLost(call)


def _fieldsOf(request: HTTPRequest) -> dict[str, str]:
    """
    Return the headers of a request as if the page's own script had sent it: with an ``Origin``.

    A browser sends none for a ``<script>``, see :func:`~txrealtime.engineio.origins.originOfPage`.
    """
    # The transport would compress the payload, and not the script around it.
    fields = {name: value for name, value in request.headers().items() if name != "accept-encoding"}
    if "origin" not in fields and (origin := originOfPage(fields)) is not None:
        fields["origin"] = origin
    return fields


def _script(index: str, body: bytes) -> bytes:
    """Return the JavaScript that the page runs."""
    # In ASCII, U+2028 and U+2029, which end a line of JavaScript, are escaped with the rest.  Without "<",
    # no payload ends a script or begins a comment of HTML.
    text = json.dumps(body.decode(errors="replace")).replace("<", "\\u003c")
    return f"___eio[{index}]({text});".encode()


def _formPayload(form: bytes) -> bytes:
    r"""
    Return the payload in a form, or nothing if the form has none.

    Browsers change line ends in forms.  Clients therefore send a line feed as ``\n``, and add a backslash to
    a ``\n`` of the text itself.
    """
    try:
        fields = parse_qs(form.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=8)
        return _ESCAPED.sub(_unescaped, fields["d"][0]).encode()
    except (KeyError, ValueError):
        return b""


_ESCAPED: Final = re.compile(r"\\?\\n")


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[0] == "\\n" else "\\n"
