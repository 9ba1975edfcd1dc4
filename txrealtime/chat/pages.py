"""
The page of the chat.
"""

from __future__ import annotations

import os
from pathlib import Path
from xml.sax.saxutils import quoteattr

from twisted.web.static import Data
from twisted.web.util import Redirect

from txrealtime.clientfiles import findClient
from txrealtime.files import Folder

__all__ = ["page"]

STATIC = Path(__file__).with_name("static")
CLIENT = Path("node_modules/socket.io-client/dist/socket.io.min.js")
CDN = b"https://cdn.jsdelivr.net/npm/socket.io-client@4.8.4/dist/socket.io.min.js"


def installedClient() -> Path | None:
    """
    Find the JavaScript client, or return ``None``.

    The file is the one that TXREALTIME_CLIENT names in the environment, else the one in the ``node_modules``
    of the current folder or of the nearest one above it, else the one of ``txrealtime client fetch``.
    """
    named = os.environ.get("TXREALTIME_CLIENT")
    folder = Path.cwd()
    candidates = [Path(named)] if named else [above / CLIENT for above in (folder, *folder.parents)]
    fetched = None if named else findClient()
    if fetched is not None:
        candidates.append(fetched / CLIENT.name)
    return next(filter(Path.exists, candidates), None)


def page(client: str | None = None, path: str = "/socket.io") -> Folder:
    """
    Return the page of the chat, for the root of a site; the server's resource may become a child of it.

    :param client: a file ``socket.io.min.js`` to hand out in place of the installed one; without either, the
        browser is sent to a CDN.
    :param path: the server's path, to which the page connects.
    """
    root = Folder(str(STATIC))
    index = (STATIC / "index.html").read_bytes()
    root.putChild(
        b"", Data(index.replace(b'"/socket.io"', quoteattr(path).encode()), "text/html; charset=utf-8")
    )
    found = client or installedClient()
    script = Folder(str(found), "text/javascript") if found else Redirect(CDN)
    root.putChild(b"socket.io.min.js", script)
    return root
