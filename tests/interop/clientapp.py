"""
The application that the client's interop tests talk to::

    twistd -n realtime --app tests.interop.clientapp:server

``recovering`` is the same server with recovery.
js/clientserver.cjs and py/clientserver.py are the same on Node's socket.io and on python-socketio.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from txrealtime import CloseReason, ConnectionRejected, Namespace, Server, on

TEXTS = ["てすと", "Я Б Г Д Ж Й", "Ä ä Ü ü ß", "utf8 — string", "🎉"]

server = Server(pingInterval=2, pingTimeout=10, perMessageDeflate=True)
recovering = Server(pingInterval=2, pingTimeout=10, perMessageDeflate=True, recoveryWindow=60)
_seen: dict[str, int] = {}


class Talk(Namespace):
    """The events of each namespace."""

    def connected(self, socket: Any, auth: Any) -> None:
        if self.path == "/no":
            raise ConnectionRejected("who are you?", {"code": 401})
        if self.path == "/" and socket.handshake.query.get("fail"):
            raise ConnectionRejected("Auth failed", {"code": 1})
        socket.emit("welcome", auth or {})

    @on("echo")
    def echo(self, socket: Any, *args: Any) -> Any:
        return args

    @on("back")
    def back(self, socket: Any, *args: Any) -> None:
        socket.emit("back", *args)

    @on("id")
    def id(self, socket: Any) -> str:
        return str(socket.id)

    @on("query")
    def query(self, socket: Any) -> Any:
        return dict(socket.handshake.query)

    @on("header")
    def header(self, socket: Any, name: str) -> Any:
        return socket.handshake.headers.get(name)

    @on("never")
    def never(self, socket: Any, *args: Any) -> Any:
        return Deferred(lambda _: None)

    @on("question")
    def question(self, socket: Any, *args: Any) -> None:
        def acked(ack: Any) -> None:
            socket.emit("answer", *(ack if isinstance(ack, tuple) else [] if ack is None else [ack]))

        socket.call("ask", *args).addCallback(acked)

    @on("bytes")
    def bytes(self, socket: Any) -> None:
        socket.emit("bytes", b"asdfasdf")

    @on("texts")
    def texts(self, socket: Any) -> None:
        for text in TEXTS:
            socket.emit("text", text)

    @on("false")
    def false(self, socket: Any) -> None:
        socket.emit("false", False)

    @on("bye")
    def bye(self, socket: Any) -> None:
        socket.disconnect()

    @on("hang up")
    def hangUp(self, socket: Any) -> None:
        socket.disconnect(close=True)

    @on("cut")
    def cut(self, socket: Any) -> None:
        socket.session.close(CloseReason.FORCED_CLOSE)

    @on("cut then back")
    def cutThenBack(self, socket: Any, *args: Any) -> None:
        socket.session.close(CloseReason.FORCED_CLOSE)
        self.to(socket.id).emit("back", *args)

    @on("count")
    def count(self, socket: Any, key: str) -> int:
        _seen[key] = _seen.get(key, 0) + 1
        return _seen[key]

    @on("third")
    def third(self, socket: Any, key: str) -> Any:
        _seen[key] = _seen.get(key, 0) + 1
        # An ack that is late makes the client send again.
        return 3 if _seen[key] >= 3 else Deferred(lambda _: None)


for path in ("/", "/foo", "/bar", "/no"):
    for each in (server, recovering):
        each.mount(path, Talk(concurrency=None))
