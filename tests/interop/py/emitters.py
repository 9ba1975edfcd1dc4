"""Emit to two clients from a process without a server, by one of several libraries.

::

    python emitters.py Emitter|DeferredEmitter|RedisManager|Flask URL ID ID

The clients are those of js/listen.cjs, and what they must see is in test_emitters.py.
"""

import sys

KIND, URL, FIRST, SECOND = sys.argv[1:]


def txrealtime():
    from txrealtime import Emitter

    with Emitter(URL) as emitter:
        emitter.emit("one", 1, {"a": None})
        emitter.to("all").excluding(FIRST).emit("two")
        emitter.to("room 0").emit("three", b"\x00\xff")
        emitter.to(SECOND).join("late")
        emitter.to("late").emit("four")
        emitter.namespace("/other").emit("never")
        emitter.emit("end")
        emitter.to(SECOND).disconnect()


def deferred():
    from twisted.internet.task import react

    from txrealtime import DeferredEmitter

    async def main(reactor):
        emitter = DeferredEmitter(URL, reactor=reactor)
        emitter.emit("one", 1, {"a": None})
        emitter.to("all").excluding(FIRST).emit("two")
        await emitter.to("room 0").emit("three", b"\x00\xff")
        emitter.to(SECOND).join("late")
        emitter.to("late").emit("four")
        await emitter.emit("end")
        await emitter.to(SECOND).disconnect()
        await emitter.close()

    react(main)


def pythonSocketIO():
    import socketio

    manager = socketio.RedisManager(URL, write_only=True)
    manager.emit("one", (1, {"a": None}))
    manager.emit("two", None, room="all", skip_sid=FIRST)
    manager.emit("three", b"\x00\xff", to="room 0")
    manager.enter_room(SECOND, "/", "late")
    manager.emit("four", None, room="late")
    manager.emit("never", None, namespace="/other")
    manager.emit("end", None)


def flask():
    from flask_socketio import SocketIO

    server = SocketIO(message_queue=URL)
    server.emit("one", (1, {"a": None}))
    server.emit("two", to="all", skip_sid=FIRST)
    server.emit("three", b"\x00\xff", to="room 0")
    server.emit("end")


{"Emitter": txrealtime, "DeferredEmitter": deferred, "RedisManager": pythonSocketIO, "Flask": flask}[KIND]()
