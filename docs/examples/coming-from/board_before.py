"""
A notice board on python-socketio's AsyncServer and aiohttp.
"""

import socketio
from aiohttp import web

sio = socketio.AsyncServer(async_mode="aiohttp", ping_timeout=20)
app = web.Application()
sio.attach(app)
notes = []


@sio.event
async def connect(sid, environ, auth):
    if not auth or auth.get("token") != "secret":
        raise socketio.exceptions.ConnectionRefusedError("a wrong token")
    await sio.save_session(sid, {"name": auth["name"]})
    await sio.emit("notes", notes, to=sid)


@sio.event
async def follow(sid, topic):
    await sio.enter_room(sid, topic)
    return topic in sio.rooms(sid), topic


@sio.event
async def note(sid, topic, text):
    async with sio.session(sid) as session:
        name = session["name"]
    notes.append([topic, name, text])
    await sio.emit("note", (topic, name, text), room=topic, skip_sid=sid)
    return len(notes)


@sio.on("sure")
async def sure(sid, question):
    return await sio.call("sure?", question, to=sid, timeout=10)


@sio.on("*")
async def other(event, sid, *args):
    return f"no {event} here"


@sio.event
async def disconnect(sid, reason):
    session = await sio.get_session(sid)
    await sio.emit("left", session["name"])


class Clock(socketio.AsyncNamespace):
    def __init__(self, path):
        super().__init__(path)
        self.running = False

    async def on_start(self, sid):
        if not self.running:
            self.running = True
            sio.start_background_task(self.tick)

    async def tick(self):
        number = 0
        while True:
            await sio.sleep(0.05)
            number += 1
            await self.emit("tick", number)


sio.register_namespace(Clock("/clock"))

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=5000)
