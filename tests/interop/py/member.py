"""A python-socketio server of a cluster that does what its clients tell it, as ../member.py does for ours.

::

    python member.py PORT redis://127.0.0.1:PORT [CHANNEL]
"""

import sys

import socketio
from aiohttp import web

PORT, URL, *CHANNEL = sys.argv[1:]

server = socketio.AsyncServer(
    async_mode="aiohttp",
    client_manager=socketio.AsyncRedisManager(URL, **({"channel": CHANNEL[0]} if CHANNEL else {})),
)


async def enter(sid, order):
    for name in order["names"]:
        await server.enter_room(sid, name)


async def emit(sid, order):
    for args in order["each"]:
        await server.emit(
            order["event"], tuple(args), room=order.get("rooms") or None, skip_sid=order.get("except")
        )


async def join(sid, order):
    for each in order["rooms"]:
        for name in order["names"]:
            await server.enter_room(each, name)


async def leave(sid, order):
    if order["rooms"] == order["names"]:
        await server.close_room(order["names"][0])
        return
    for each in order["rooms"]:
        for name in order["names"]:
            await server.leave_room(each, name)


async def disconnect(sid, order):
    for each in order["rooms"]:
        await server.disconnect(each)


async def call(sid, order):
    answer = await server.call(
        order["event"], tuple(order["args"]), to=order["rooms"][0], timeout=order["timeout"]
    )
    return {"answers": [answer]}


OPERATIONS = {function.__name__: function for function in (enter, emit, join, leave, disconnect, call)}


@server.event
async def connect(sid, environ, auth):
    pass


@server.on("do")
async def do(sid, order):
    try:
        return await OPERATIONS[order["op"]](sid, order)
    except Exception as error:
        return {"error": repr(error)}


application = web.Application()
server.attach(application)
web.run_app(application, host="127.0.0.1", port=int(PORT), print=None)
