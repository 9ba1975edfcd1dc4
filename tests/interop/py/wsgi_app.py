"""
A WSGI application that tells what it is asked; as a program, Werkzeug's server or gunicorn with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any


def application(environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        respond("200 OK", [("Content-Type", "text/plain")])
        return stream()
    if path == "/fails":
        raise KeyError("as it should")
    if path == "/fails-late":
        respond("200 OK", [("Content-Type", "text/plain")])
        return failing()
    if path == "/none":
        respond("204 No Content", [])
        return []
    if path == "/long":
        respond("200 OK", [("Content-Length", "3")])
        return [b"abc", b"def"]
    if path == "/file":
        respond("200 OK", [("Content-Type", "text/plain")])
        wrapper = environ.get("wsgi.file_wrapper", lambda file: iter(lambda: file.read(8192), b""))
        return wrapper(open(__file__, "rb"))
    body = b"" if path == "/unread" else readBody(environ)
    told = {key: value for key, value in environ.items() if isinstance(value, str | bool | int)}
    answer = json.dumps({"environ": told, "body": body.decode("latin-1")}).encode()
    respond(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer))), ("X-A", "b")]
    )
    return [answer]


def readBody(environ: dict[str, Any]) -> bytes:
    length = -1 if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length)
    return body


def stream() -> Iterator[bytes]:
    for number in range(3):
        yield b"%d" % number


def failing() -> Iterator[bytes]:
    yield b"begun"
    raise KeyError("as it should")


def main(server: str, port: str) -> None:
    if server == "werkzeug":
        from werkzeug.serving import WSGIRequestHandler, run_simple

        WSGIRequestHandler.protocol_version = "HTTP/1.1"
        run_simple("127.0.0.1", int(port), application, threaded=True)
        return
    from gunicorn.app.base import BaseApplication

    class Gunicorn(BaseApplication):
        def load_config(self) -> None:
            self.cfg.set("bind", f"127.0.0.1:{port}")
            self.cfg.set("threads", 4)

        def load(self) -> Any:
            return application

    Gunicorn().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
