"""
The health check: tells load balancers and supervisors if this server can take clients.
"""

from __future__ import annotations

import json

from twisted.web.http import OK, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request

from txrealtime.server import Server

__all__ = ["Health"]


class Health(Resource):
    """
    A page with status 200 while the server is ready, and 503 while its link to the other servers is down.

    The body is JSON: the ``status`` of the link, the number of ``clients``, and of the other ``servers``
    if the dialect tells.  None of this is a secret.  The access log leaves these requests out.
    """

    isLeaf = True

    def __init__(self, server: Server) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server

    def render_GET(self, request: Request) -> bytes:
        server, cluster = self._server, self._server.cluster
        request.isQuiet = True  # type: ignore[attr-defined]
        request.setResponseCode(OK if server.running and cluster.isReady else SERVICE_UNAVAILABLE)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        body = {
            "status": cluster.status,
            "clients": len(server.engine.sessions),
            "servers": len(cluster.servers),
        }
        return json.dumps(body).encode() + b"\n"
