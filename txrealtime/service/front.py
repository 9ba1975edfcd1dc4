"""
The page at / of a server without pages.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata

from twisted.web.resource import Resource
from twisted.web.server import Request

from txrealtime.server import Server

__all__ = ["Front"]


class Front(Resource):
    """
    A page that tells what is here, and where Socket.IO and the documentation are; no page elsewhere.

    :param server: the server beside it.
    """

    def __init__(self, server: Server) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server
        self.putChild(b"", self)

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"x-content-type-options", b"nosniff")
        path = self._server.path.rstrip("/")
        lines = [
            "txrealtime, a Socket.IO server for Twisted.",
            "",
            f"Socket.IO is at {path}/, for clients; this server has no pages of its own.",
            "Serve some with --static FOLDER or --wsgi MODULE:NAME.",
            f"The documentation: {_documentation()}",
        ]
        return "".join(f"{line}\n" for line in lines).encode()


def _documentation() -> str:
    """Return the address of the documentation, from the metadata of the installed package."""
    try:
        urls = metadata("txrealtime").get_all("Project-URL") or []
    except PackageNotFoundError:  # a folder on PYTHONPATH
        urls = []
    for url in urls:
        label, _, address = str(url).partition(", ")
        if label == "Documentation":
            return address
    return "in the folder docs of the sources"
