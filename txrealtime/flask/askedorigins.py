"""
An application's function in place of a list of allowed origins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from txrealtime.engineio.handshake import OpeningRequest
from txrealtime.engineio.origins import Origins
from txrealtime.errors import HandshakeError
from txrealtime.logs import Logger

__all__ = ["AskedOrigins"]

_log = Logger()


class AskedOrigins(Origins):
    """
    The origins that a function allows.

    The function runs in the reactor's thread, at each request with an Origin, and must not block.

    :param function: ``f(origin, environ)`` or ``f(origin)``.
    :param environOf: returns the WSGI environment of a request.
    """

    def __init__(
        self, function: Callable[..., object], environOf: Callable[[OpeningRequest], dict[str, Any]]
    ) -> None:
        super().__init__(())
        self._function = function
        self._environOf = environOf
        try:
            inspect.signature(function).bind("", {})
        except TypeError:
            self._takesEnviron = False
        except ValueError:  # a built-in that tells nothing
            self._takesEnviron = True
        else:
            self._takesEnviron = True

    def allow(self, request: OpeningRequest) -> bool:
        if request.origin is None:
            return True
        try:
            if self._takesEnviron:
                return bool(self._function(request.origin, self._environOf(request)))
            return bool(self._function(request.origin))
        except Exception:
            _log.failure("cors_allowed_origins: the function failed, and the page is refused")
            return False

    def check(self, request: OpeningRequest) -> None:
        if not self.allow(request):
            raise HandshakeError(4, f"Origin {request.origin!r}: the application's function refuses it")
