"""The steps of python-socketio's clients with the server in tests/interop/app.py.

::

    python scenario.py Client|AsyncClient polling|websocket|upgrade http://127.0.0.1:PORT

Prints one JSON line a step, ``{"step", "ok"[, "error"]}``, and ``{"ask": "restart"}`` when it wants the
server restarted.
"""

import asyncio
import json
import sys
import traceback

import orderly
import socketio

CLIENT, TRANSPORT, URL = sys.argv[1:]
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}[
    TRANSPORT
]
AUTH = {"token": "abc", "name": "Zoë", "nested": {"list": [1, None, True]}}
TEXT = "Größe € 日本 𝄞"
MEGABYTE = bytes(index * 31 % 251 for index in range(1_000_000))
STEP_TIMEOUT = 60


class Peer:
    """Either client, awaited: the blocking one works in threads, as it would in an application.

    :ivar heard: event name -> the arguments of each event that came, as tuples.
    """

    def __init__(self, namespaces=("/",), **options):
        self.client = (orderly.Client if CLIENT == "Client" else socketio.AsyncClient)(
            **{"reconnection": False, **options}
        )
        self.namespaces = list(namespaces)
        self.heard = {}
        opened.append(self)

    def _do(self, method, *args, **kwargs):
        function = getattr(self.client, method)
        if CLIENT == "AsyncClient":
            return function(*args, **kwargs)
        return asyncio.to_thread(function, *args, **kwargs)

    def collect(self, event, namespace="/"):
        """The arguments of each coming *event*, in a list that grows."""
        seen = self.heard[namespace, event] = []
        # The client wants None, not a list, from a handler that has nothing to say.
        self.client.on(event, lambda *args: seen.append(args), namespace=namespace)
        return seen

    async def connect(self, auth=None):
        await self._do(
            "connect", URL, auth=auth, transports=TRANSPORTS, namespaces=self.namespaces, wait_timeout=30
        )
        assert self.client.transport() == TRANSPORTS[-1], self.client.transport()
        return self

    async def call(self, event, *args, namespace="/"):
        """The answer to *event*: a value, or a tuple of several."""
        return await self._do("call", event, args, namespace=namespace, timeout=STEP_TIMEOUT)

    async def emit(self, event, *args, namespace="/"):
        await self._do("emit", event, args, namespace=namespace)

    def id(self, namespace="/"):
        return self.client.get_sid(namespace)

    async def close(self):
        await self._do("shutdown")


opened: list[Peer] = []


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


async def connectWithAuth():
    peer = await Peer().connect(auth=AUTH)
    assert await peer.call("auth") == AUTH


async def refusal(peer, namespace, auth=None):
    """Return the server's words when it refuses *peer*."""
    reasons = peer.collect("connect_error", namespace)
    try:
        await peer.connect(auth)
    except socketio.exceptions.ConnectionError as error:
        assert namespace in str(error), error
        ((reason,),) = reasons
        return reason
    raise AssertionError("let in")


async def refusalWithData():
    peer = Peer(namespaces=["/members"])
    reason = await refusal(peer, "/members", auth={"token": "wrong"})
    assert reason == {"message": "who are you?", "data": {"code": 401}}, reason
    await peer.connect(auth={"token": "open sesame"})
    assert await peer.call("echo", "inside", namespace="/members") == "inside"

    reason = await refusal(Peer(namespaces=["/nowhere"]), "/nowhere")
    assert reason == {"message": "Invalid namespace"}, reason


async def ackFromTheServer():
    peer = await Peer().connect()
    assert await peer.call("echo") is None
    assert await peer.call("echo", 1) == 1
    various = (1, "two", None, True, 4.5, ["a", ["b"]], {"c": {"d": None}})
    assert await peer.call("echo", *various) == various


async def ackFromTheClient():
    peer = await Peer().connect()
    peer.client.on("question", lambda *args: ("answer", *args))
    assert await peer.call("ask", "really?", {"sure": True}) == ("answer", "really?", {"sure": True})


async def binaryBothWays():
    peer = await Peer().connect()
    nested = {"a": b"\0\1\2\xff", "list": [1, {"b": b"zwei"}, b"\x1e"], "none": None}
    assert await peer.call("echo", nested, b"\7") == (nested, b"\7")

    back = peer.collect("back")
    await peer.emit("back", nested, "text", b"")
    await until(lambda: back)
    assert back == [(nested, "text", b"")], back

    peer.client.on("question", lambda data: ({"reversed": data[::-1]}, data))
    assert await peer.call("ask", b"\1\2\3") == ({"reversed": b"\3\2\1"}, b"\1\2\3")


async def oneMegabyteEachWay():
    peer = await Peer().connect()
    assert await peer.call("echo", {"file": MEGABYTE}) == {"file": MEGABYTE}
    text = TEXT * 80_000
    assert await peer.call("echo", text) == text


async def namespaces():
    peer = Peer(namespaces=["/red", "/blue"])
    red, blue = peer.collect("here", "/red"), peer.collect("here", "/blue")
    await peer.connect()
    assert peer.id("/red") != peer.id("/blue")
    assert await peer.call("where", 1, namespace="/red") == ("/red", 1)
    assert await peer.call("where", 2, namespace="/blue") == ("/blue", 2)
    assert (red, blue) == ([("/red", 1)], [("/blue", 2)])

    gone = peer.collect("disconnect", "/red")
    await peer.emit("kick me", namespace="/red")
    await until(lambda: gone)
    assert await peer.call("where", 3, namespace="/blue") == ("/blue", 3)


async def rooms():
    ada, bob, cyd = [await Peer().connect() for _ in range(3)]
    heard = [peer.collect("heard") for peer in (ada, bob, cyd)]

    async def tell(peer, *args):
        await peer.call(*args)
        # The answer to an event sent after the emit: what was emitted to this client is here by then.
        await asyncio.gather(*(each.call("echo") for each in (ada, bob, cyd)))
        texts = [[text for (text,) in messages] for messages in heard]
        for messages in heard:
            messages.clear()
        return texts

    await ada.call("join", "team")
    await bob.call("join", "team")
    await bob.call("join", "muted")
    assert await tell(cyd, "tell room", "team", "members") == [["members"], ["members"], []]
    assert await tell(ada, "tell room", "team", "me too") == [["me too"], ["me too"], []]
    assert await tell(ada, "tell room's others", "team", "not me") == [[], ["not me"], []]
    assert await tell(cyd, "tell room except", "team", "muted", "unmuted") == [["unmuted"], [], []]
    assert await tell(cyd, "tell room", bob.id(), "private") == [[], ["private"], []]

    ada.client.on("question", lambda text: f"ada: {text}")
    bob.client.on("question", lambda text: f"bob: {text}")
    assert sorted(await cyd.call("ask room", "team", "ready?")) == ["ada: ready?", "bob: ready?"]

    await ada.call("leave", "team")
    assert await tell(cyd, "tell room", "team", "ada left") == [[], ["ada left"], []]
    bobId = bob.id()
    await bob.close()
    await cyd.call("farewell", bobId)
    assert await cyd.call("ask room", "team", "anyone?") == []


async def broadcast():
    peers = [await Peer().connect() for _ in range(3)]
    heard = [peer.collect("heard") for peer in peers]
    everyone = {"bytes": b"all"}
    await peers[0].call("tell everyone", everyone)
    await peers[0].call("tell others", "others")
    await asyncio.gather(*(peer.call("echo") for peer in peers))
    assert heard == [[(everyone,)], [(everyone,), ("others",)], [(everyone,), ("others",)]], heard


async def text():
    peer = await Peer().connect()
    assert await peer.call("echo", TEXT, {TEXT: TEXT}) == (TEXT, {TEXT: TEXT})
    back = peer.collect("Grüße")
    await peer.emit("Grüße", TEXT, TEXT.encode())
    await until(lambda: back)
    assert back == [(TEXT, TEXT.encode())], back
    awkward = '\0\x1e\u2028\\n\n"\x7f'
    assert await peer.call("echo", awkward) == awkward


async def manyEventsInOrder():
    peer = await Peer().connect()
    numbers = peer.collect("number")
    for n in range(1000):
        await peer.emit("number", n)
        # On polling the client gives up when more than 16 packets come in one response.
        if n % 10 == 9 and TRANSPORT == "polling":
            await peer.call("echo")
    assert await peer.call("numbers") == list(range(1000))
    await until(lambda: len(numbers) == 1000)
    assert numbers == [(n,) for n in range(1000)]


async def disconnectByTheServer():
    for event in ("kick me", "hang up"):
        peer = await Peer().connect()
        gone = peer.collect("disconnect")
        await peer.emit(event)
        await until(lambda gone=gone: gone)
        assert gone == [("server disconnect",)], gone


async def disconnectByTheClient():
    witness = await Peer().connect()
    polite = await Peer().connect()
    politeId = polite.id()
    await polite.close()
    reasons = {"client namespace disconnect"}
    if TRANSPORT != "polling":
        # The client closes its WebSocket at once: whether DISCONNECT leaves before that is its race.
        reasons.add("transport close")
    assert await witness.call("farewell", politeId) in reasons

    abrupt = await Peer().connect()
    abruptId = abrupt.id()
    # Without the DISCONNECT of its namespaces first.
    closing = abrupt.client.eio.disconnect()
    if closing is not None:
        await closing
    # Over polling it is the client's race again, with its own writer, whether CLOSE leaves.
    reasons = {"transport close", "ping timeout"} if TRANSPORT == "polling" else {"transport close"}
    assert await witness.call("farewell", abruptId) in reasons


async def reconnectAfterARestart():
    peer = Peer(reconnection=True, reconnection_delay=0.05, reconnection_delay_max=0.2)
    comings, goings = peer.collect("connect"), peer.collect("disconnect")
    await peer.connect(auth=AUTH)
    formerId = peer.id()
    report(ask="restart")
    await until(lambda: goings)
    # Its own attempts wait a second for the namespaces, and begin anew on a busy machine.
    await until(lambda: len(comings) >= 2 and peer.client.connected)
    assert peer.id() != formerId
    assert peer.client.transport() == TRANSPORTS[-1]
    assert await peer.call("auth") == AUTH


STEPS = {
    "connect with auth": connectWithAuth,
    "refusal with data": refusalWithData,
    "ack from the server": ackFromTheServer,
    "ack from the client": ackFromTheClient,
    "binary both ways": binaryBothWays,
    "1 MB each way": oneMegabyteEachWay,
    "namespaces": namespaces,
    "rooms": rooms,
    "broadcast": broadcast,
    "text": text,
    "1000 events in order": manyEventsInOrder,
    "disconnect by the server": disconnectByTheServer,
    "disconnect by the client": disconnectByTheClient,
    "reconnect after a restart": reconnectAfterARestart,
}


def report(**line):
    print(json.dumps(line), flush=True)


async def main():
    failures = 0
    for step, run in STEPS.items():
        try:
            await asyncio.wait_for(run(), STEP_TIMEOUT)
            report(step=step, ok=True)
        except Exception:
            failures += 1
            report(step=step, ok=False, error=traceback.format_exc())
        while opened:
            await opened.pop().close()
    return 1 if failures else 0


sys.exit(asyncio.run(main()))
