"""
The application of clientapp.py on python-socketio, with aiohttp: python clientserver.py PORT
"""

import sys

import socketio
from aiohttp import web

TEXTS = ["てすと", "Я Б Г Д Ж Й", "Ä ä Ü ü ß", "utf8 — string", "🎉"]

io = socketio.AsyncServer(async_mode="aiohttp", ping_interval=2, ping_timeout=10)
queries = {}
seen = {}


class Talk(socketio.AsyncNamespace):
    async def on_connect(self, sid, environ, auth=None):
        query = dict(part.partition("=")[::2] for part in environ["QUERY_STRING"].split("&"))
        if self.namespace == "/no":
            raise socketio.exceptions.ConnectionRefusedError("who are you?", {"code": 401})
        if self.namespace == "/" and query.get("fail"):
            raise socketio.exceptions.ConnectionRefusedError("Auth failed", {"code": 1})
        queries[sid] = query, environ
        await self.emit("welcome", auth or {}, to=sid)

    async def on_echo(self, sid, *args):
        return args

    async def on_back(self, sid, *args):
        await self.emit("back", args, to=sid)

    async def on_id(self, sid):
        return sid

    async def on_query(self, sid):
        return queries[sid][0]

    async def on_header(self, sid, name):
        return queries[sid][1].get("HTTP_" + name.upper().replace("-", "_"))

    async def on_question(self, sid, *args):
        async def answered(*answers):
            await self.emit("answer", answers, to=sid)

        await self.emit("ask", args, to=sid, callback=answered)

    async def on_bytes(self, sid):
        await self.emit("bytes", b"asdfasdf", to=sid)

    async def on_texts(self, sid):
        for text in TEXTS:
            await self.emit("text", text, to=sid)

    async def on_false(self, sid):
        await self.emit("false", False, to=sid)

    async def on_count(self, sid, key):
        seen[key] = seen.get(key, 0) + 1
        return seen[key]

    async def on_bye(self, sid):
        await self.disconnect(sid)

    async def trigger_event(self, event, *args):
        # Events whose names are no names of methods.
        sid = args[0]
        if event == "hang up":
            await self.disconnect(sid)
            return None
        if event == "cut":
            await io.eio.disconnect(io.manager.eio_sid_from_sid(sid, self.namespace))
            return None
        if event == "never":
            await never()
        if event == "third":
            seen[args[1]] = seen.get(args[1], 0) + 1
            if seen[args[1]] < 3:
                await never()
            return 3
        return await super().trigger_event(event, *args)


async def never():
    import asyncio

    await asyncio.Event().wait()


for path in ("/", "/foo", "/bar", "/no"):
    io.register_namespace(Talk(path))
app = web.Application()
io.attach(app)
print("listening", flush=True)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, handle_signals=True)
