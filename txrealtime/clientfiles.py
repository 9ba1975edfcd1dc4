"""
The JavaScript client, which a server hands out below its path as Node's does.

Its files come from the npm package ``socket.io-client``, or from ``client-dist`` of ``socket.io``.  They are
read when a browser first asks for them, and stay in memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from twisted.web.http import NOT_MODIFIED, OK

from txrealtime.engineio.handshake import readQuery
from txrealtime.engineio.polling.request import HTTPRequest
from txrealtime.engineio.polling.transport import acceptsGzip
from txrealtime.errors import HandshakeError

__all__ = ["NAMES", "ClientFiles", "cacheFolder", "findClient"]

NAMES: Final = frozenset(
    f"socket.io{kind}.js{ending}"
    for kind in ("", ".min", ".esm.min", ".msgpack.min")
    for ending in ("", ".map")
)
"""The files of Node's server."""

# Seconds for which a browser need not ask again: a day, or a year if the URL names the version.
_SHORT: Final = b"public, max-age=86400"
_LONG: Final = b"public, max-age=31536000, immutable"

_PACKAGES: Final = ("node_modules/socket.io-client", "node_modules/socket.io")


def cacheFolder() -> Path:
    """
    Return the folder with the clients that ``txrealtime client fetch`` has fetched, by version.

    :raises RuntimeError: if the user has no home.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "txrealtime" / "client"


def findClient(where: str = "auto") -> Path | None:
    """
    Find the folder with the client's files.

    :param where: ``auto`` for ``node_modules`` of the current folder, and else the client that was fetched
        last; otherwise a folder with the files, or of a package that has them.  ``auto`` looks into no folder
        above the current one, since others may write there.
    """
    if where != "auto":
        return _filesIn(Path(where).absolute())
    for package in _PACKAGES:
        found = _filesIn(Path.cwd() / package)
        if found is not None:
            return found
    try:
        fetched = sorted(cacheFolder().iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    except (OSError, RuntimeError):
        return None
    return next(filter(None, map(_filesIn, fetched)), None)


def _filesIn(folder: Path) -> Path | None:
    for candidate in (folder / "dist", folder / "client-dist", folder):
        if (candidate / "socket.io.js").is_file() or (candidate / "socket.io.min.js").is_file():
            return candidate
    return None


@dataclass
class _File:
    """
    A file of the client.

    :ivar tag: its entity tag: the version of the package, as Node's, or a hash of the content.
    """

    name: str
    content: bytes
    tag: str

    @property
    def contentType(self) -> bytes:
        kind = b"json" if self.name.endswith(".map") else b"javascript"
        return b"application/%s; charset=utf-8" % kind

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.content, 9, mtime=0)


class ClientFiles:
    """
    The client's files, for browsers.

    :param where: the setting ``client``: ``auto``, ``off`` or a folder.
    :raises ValueError: if the folder has none.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._files: dict[str, _File] = {}
        if where not in ("auto", "off") and findClient(where) is None:
            raise ValueError(
                f"there is no socket.io.js in {where}: expected a folder of the npm package socket.io-client"
            )

    def serve(self, request: HTTPRequest) -> bool:
        """
        Respond to a request for a file of the client.

        :return: false if the request is for something else, and has no response.
        :raises HandshakeError: if there is no client to hand out.
        """
        name = request.url.partition("?")[0].rpartition("/")[2]
        if name not in NAMES or request.method not in ("GET", "HEAD"):
            return False
        file = self._file(name)
        named = readQuery(request.url).get("v") == file.tag
        request.extra[b"Cache-Control"] = _LONG if named else _SHORT
        request.extra[b"ETag"] = b'"%s"' % file.tag.encode()
        request.extra[b"Vary"] = b"Origin, Accept-Encoding"
        body = file.content
        if acceptsGzip(request.header("accept-encoding")):
            request.extra[b"Content-Encoding"] = b"gzip"
            body = file.compressed
        status = NOT_MODIFIED if _isKnown(request.header("if-none-match"), file.tag) else OK
        request.respond(status, body, file.contentType)
        return True

    def _file(self, name: str) -> _File:
        """
        Return a file, and read it if this has not been done.

        :raises HandshakeError: if there is no such file.
        """
        found = self._files.get(name)
        if found is None:
            folder = None if self._where == "off" else findClient(self._where)
            try:
                if folder is None:
                    raise FileNotFoundError
                content = (folder / name).read_bytes()
            except OSError:
                raise self._missing() from None
            found = self._files[name] = _File(name, content, _tagOf(folder, content))
        return found

    def _missing(self) -> HandshakeError:
        # Node's message without a client, and the way to one.
        advice = (
            "this server hands out no client: the setting client (--client) is off"
            if self._where == "off"
            else "no JavaScript client is installed here: run txrealtime client fetch, or npm install "
            "socket.io-client in the server's folder"
        )
        return HandshakeError(0, f"Transport unknown: {advice}", reason="transport")


def _isKnown(header: str, tag: str) -> bool:
    """Return whether an ``If-None-Match`` has a file's tag, strong or weak (RFC 9110, 13.1.2)."""
    known = [each.strip().removeprefix("W/") for each in header.split(",")]
    return f'"{tag}"' in known or known == ["*"]


def _tagOf(folder: Path, content: bytes) -> str:
    for place in (folder, folder.parent):
        try:
            package = json.loads((place / "package.json").read_bytes())
            version = package["version"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if package.get("name") in ("socket.io-client", "socket.io") and _isPlain(version):
            return str(version)
    return hashlib.sha256(content).hexdigest()[:16]


def _isPlain(version: object) -> bool:
    """Return whether a version is a word that a header may hold."""
    return (
        isinstance(version, str) and version.isascii() and version.replace(".", "").replace("-", "").isalnum()
    )
