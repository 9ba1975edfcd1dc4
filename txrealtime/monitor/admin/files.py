"""
The pages of the admin UI, from its npm package, without a request to any other host.

The package's index.html loads icons and a font from two other hosts.  The icons come from the package
``@mdi/font`` instead, and the font is left to the browser.  A Content-Security-Policy has the browser keep to
this host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from twisted.web.static import Data
from twisted.web.util import Redirect

from txrealtime.files import Folder
from txrealtime.monitor.admin.admin import PATH
from txrealtime.server import Server
from txrealtime.socketio.packet import JSONParser

__all__ = ["PLACE", "Pages", "findPages"]

PLACE: Final = "/admin"
"""The path of the pages."""

_PACKAGE: Final = "node_modules/@socket.io/admin-ui"
_ICONS: Final = "@mdi/font"
_STYLE: Final = "css/materialdesignicons.min.css"

# The UI's framework puts a style sheet of its own into the page.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# A link to another host.
_FOREIGN: Final = re.compile(r"<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>", re.IGNORECASE)


def findPages(where: str) -> Path:
    """
    Find the folder with the UI's index.html.

    :param where: ``auto`` for the package in the ``node_modules`` of the current folder, or of the nearest
        one above it; otherwise the folder of the package, or its ``ui/dist``.
    :raises ValueError: if there is none, with the command that installs it.
    """
    folder = Path.cwd()
    candidates = (
        [above / _PACKAGE for above in (folder, *folder.parents)] if where == "auto" else [Path(where)]
    )
    for candidate in candidates:
        for pages in (candidate / "ui" / "dist", candidate):
            if (pages / "index.html").is_file():
                return pages.resolve()
    raise ValueError(
        f"there is no admin UI in {'node_modules' if where == 'auto' else where}: install it by "
        "npm install @socket.io/admin-ui @mdi/font"
    )


def _iconsOf(pages: Path) -> Path | None:
    """Find the package of the icons, in the folder of packages that has the UI, or in the pages."""
    for above in pages.parents:
        if above.name == "node_modules" and (above / _ICONS / _STYLE).is_file():
            return above / _ICONS
    return None


class Pages(Resource):
    """
    The UI, which connects to the server that serves it.

    :param pages: the folder with its index.html: see :func:`findPages`.
    """

    def __init__(self, pages: Path, server: Server) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        icons = _iconsOf(pages)
        index = Data(_indexOf(pages, icons is not None).encode(), "text/html; charset=utf-8")
        children: dict[str, IResource] = {
            "": index,
            "index.html": index,
            "server.js": Data(_scriptOf(server).encode(), "text/javascript; charset=utf-8"),
        }
        if icons is not None:
            children["mdi"] = Folder(str(icons), "application/octet-stream")
        for name, child in children.items():
            self.putChild(name.encode(), child)
        self._folder = Folder(str(pages), "application/octet-stream")

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        _guard(request)
        child: IResource = super().getChildWithDefault(path, request)  # type: ignore[no-untyped-call]
        return child

    def getChild(self, path: bytes, request: Request) -> IResource:
        return self._folder.getChild(path, request)

    def render_GET(self, request: Request) -> object:
        # The pages have relative links.
        _guard(request)
        return Redirect(f"{PLACE.rpartition('/')[2]}/".encode()).render(request)


def _guard(request: Request) -> None:
    request.setHeader(b"content-security-policy", _POLICY.encode())
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"referrer-policy", b"no-referrer")
    request.setHeader(b"cache-control", b"no-cache")


def _indexOf(pages: Path, hasIcons: bool) -> str:
    """Return the page without links to other hosts, and with the script that knows this server."""
    page = _FOREIGN.sub("", (pages / "index.html").read_text("utf-8"))
    return page.replace("</head>", "".join(_ours(hasIcons)) + "</head>", 1)


def _ours(hasIcons: bool) -> Iterator[str]:
    if hasIcons:
        yield f'<link rel="stylesheet" href="mdi/{_STYLE}">'
    yield '<script src="server.js"></script>'


def _scriptOf(server: Server) -> str:
    """Return a script that fills in the form of the UI: it keeps its values in the browser."""
    values = {
        "namespace": PATH,
        "path": server.path,
        "parser": "default" if isinstance(server.parser, JSONParser) else "msgpack",
    }
    return f"""\
Object.assign(localStorage, {json.dumps(values)}, {{ server_url: location.origin }});
"""
