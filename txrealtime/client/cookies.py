"""
The cookies of a client: load balancers use them to lead a session to its server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import Message
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.request import Request

__all__ = ["Cookies"]

# Where one cookie ends and the next begins in values that were joined; a comma also stands in dates.
_NEXT: Final = re.compile(r",\s*(?=[^;,=\s]+=)")


# Cookies of a server beside those that were there before.  Browsers keep 180 of a site.
_MOST: Final = 200


class Cookies:
    """
    A jar, for both transports.

    :param jar: the cookies; an empty jar by default.
    :param fixed: cookies that the application has given as a header.
    """

    def __init__(self, jar: CookieJar | None = None, fixed: str = "") -> None:
        self.jar = CookieJar() if jar is None else jar
        self._most = _MOST + len(self.jar)
        self._fixed = fixed

    def header(self, url: str) -> str | None:
        """Return the value of ``Cookie`` for a request, if there is any."""
        request = Request(_plain(url))
        self.jar.add_cookie_header(request)
        return "; ".join(filter(None, [self._fixed, request.get_header("Cookie")])) or None

    def received(self, url: str, values: Sequence[str]) -> None:
        """
        Keep the cookies of a response.  In a full jar, only those that are there change.

        :param values: the values of ``Set-Cookie``.
        """
        if not values:
            return
        headers = Message()
        for value in values:
            for cookie in _NEXT.split(value):
                headers["Set-Cookie"] = cookie
        request = Request(_plain(url))
        known = {(cookie.domain, cookie.path, cookie.name) for cookie in self.jar}
        for cookie in self.jar.make_cookies(_Response(headers), request):  # type: ignore[arg-type]
            isKnown = (cookie.domain, cookie.path, cookie.name) in known
            if isKnown or len(self.jar) < self._most:
                self.jar.set_cookie_if_ok(cookie, request)


class _Response:
    """A response, as a jar reads it."""

    def __init__(self, headers: Message) -> None:
        self._headers = headers

    def info(self) -> Any:
        return self._headers


def _plain(url: str) -> str:
    """Return the URL with the scheme that a jar knows."""
    return "http" + url[2:] if url.startswith("ws") else url
