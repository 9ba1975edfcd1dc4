"""
The ``environ`` of a request (PEP 3333, "environ Variables").

The keys are those of Werkzeug's server and gunicorn. Like these, it leaves out a header with an
underscore in its name: ``X_User`` and ``X-User`` would both be ``HTTP_X_USER``, and a client could
overwrite a proxy's header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

from twisted.web.server import Request

from txrealtime._version import __version__
from txrealtime.logs import Logger, printableLines

__all__ = ["ErrorStream", "FileWrapper", "environOf"]

_log = Logger()

_BLOCK: Final = 65536

_ORIGIN: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[.*\]|[^:]*)(?::([0-9]*))?")


def environOf(request: Request, body: IO[bytes], size: int, multithread: bool) -> dict[str, Any]:
    """
    Return the ``environ`` of a request.

    :param body: the whole body.
    :param size: the number of its bytes.
    :param multithread: true if several threads may call the application at a time.
    """
    # A fragment stays with the client (RFC 9110, 7.1): some clients send it by mistake.
    target, _, query = request.uri.partition(b"#")[0].partition(b"?")
    script = b"".join(b"/" + segment for segment in request.prepath or ())
    secure = bool(request.isSecure())
    environ: dict[str, Any] = {
        "REQUEST_METHOD": _text(request.method),
        "SCRIPT_NAME": _text(script),
        "PATH_INFO": _text(_pathOf(target)[len(script) :]),
        "QUERY_STRING": _text(query),
        "REQUEST_URI": _text(request.uri),
        "RAW_URI": _text(request.uri),
        "SERVER_PROTOCOL": _text(request.clientproto),
        "SERVER_SOFTWARE": f"txrealtime/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if secure else "http",
        "wsgi.input": body,
        # The file ends where the body ends, also for chunked bodies.
        "wsgi.input_terminated": True,
        "wsgi.errors": ErrorStream(),
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    _addHeaders(environ, request)
    if "HTTP_TRANSFER_ENCODING" in environ or (size and "CONTENT_LENGTH" not in environ):
        # Many frameworks read this many bytes, and none without it.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["CONTENT_LENGTH"] = str(size)
    origin = _ORIGIN.match(target)
    if origin is not None:
        # RFC 9112, 3.2.2: the host of an absolute target replaces the header.
        environ["HTTP_HOST"] = _text(origin[0].partition(b"://")[2])
    _addAddresses(environ, request, secure)
    return environ


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _pathOf(target: bytes) -> bytes:
    """Return the path of a request's target, unescaped."""
    path = unquote_to_bytes(_ORIGIN.sub(b"", target, count=1))
    return path if path.startswith(b"/") else b"/" + path


def _addHeaders(environ: dict[str, Any], request: Request) -> None:
    for name, values in request.requestHeaders.getAllRawHeaders():
        if b"_" in name:
            continue
        key = _text(name).upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        # Over HTTP/2, browsers send each cookie by itself (RFC 9113, 8.2.3).
        environ[key] = _text((b"; " if key == "HTTP_COOKIE" else b",").join(values))


def _addAddresses(environ: dict[str, Any], request: Request, secure: bool) -> None:
    """Add the client's address, and the server's.  On a UNIX socket the Host header stands for the latter."""
    client: Any = request.getClientAddress()
    environ["REMOTE_ADDR"] = getattr(client, "host", "")
    if hasattr(client, "port"):
        environ["REMOTE_PORT"] = str(client.port)
    server: Any = request.getHost()
    if hasattr(server, "port"):
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server.host, str(server.port)
        return
    match = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
    name, port = match.groups() if match else ("", "")
    environ["SERVER_NAME"] = name or "localhost"
    environ["SERVER_PORT"] = port or ("443" if secure else "80")


class ErrorStream:
    """
    ``wsgi.errors``: each write that ends a line, and each flush, makes an entry in the log.
    """

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"wsgi.errors takes str, not {type(text).__name__}")
        self._text += text
        if self._text.endswith("\n"):
            self.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        text, self._text = self._text.rstrip("\n"), ""
        if text:
            _log.error("{text}", text=_Lines(text))


class _Lines:
    """A text for the log that keeps its line ends, such as a traceback."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return printableLines(self._text)


class FileWrapper:
    """
    ``wsgi.file_wrapper``: a file as the body of a response, in blocks.

    :param file: an object with ``read``, and perhaps ``close``.
    :param size: the bytes of a block. Seekable files are read in blocks of at least 64 kB, because each
        block costs a change of threads.
    """

    def __init__(self, file: Any, size: int = 8192) -> None:
        self._file = file
        seekable = getattr(file, "seekable", None)
        self._size = max(size, _BLOCK) if seekable is not None and seekable() else size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self._file.read(self._size)
        if not data:
            raise StopIteration
        return data
