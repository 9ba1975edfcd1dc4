"""
Cases of the client's events, acks, buffer and retries: those of the JavaScript client's own suites, in our
words.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.interop.clientapp import TEXTS
from tests.interop.visits import WAYS, Cases, Visit, events, notice, raised, until, wait, within
from txrealtime.errors import AckTimeout, Disconnected

cases = Cases()


# -- events and acks -----------------------------------------------------------------


@cases.add
async def acksOfEachKind(visit: Visit) -> None:
    client = await visit.connected()
    for args, expected in (
        ((5,), 5),
        ((5, {"test": True}), (5, {"test": True})),
        (([],), []),
        ((False,), False),
    ):
        visit.equal(await within(client.call("echo", *args)), expected)


@cases.add
async def acksForTheServer(visit: Visit) -> None:
    client = await visit.connected()
    client.on("ask")(lambda *args: (5, {"test": True}, *args))
    answer = events(client, "answer", 1)
    client.emit("question", "x", b"y")
    visit.equal(await answer, [(5, {"test": True}, "x", b"y")])

    @client.on("ask", replace=True)
    async def later(*args: Any) -> Any:
        await wait(0.05)
        return list(args)

    answer = events(client, "answer", 1)
    client.emit("question", 1)
    visit.equal(await answer, [([1],)])


@cases.add
async def texts(visit: Visit) -> None:
    client = await visit.connected()
    got = events(client, "text", len(TEXTS))
    client.emit("texts")
    visit.equal([text for (text,) in await got], TEXTS)
    visit.equal(await within(client.call("echo", *TEXTS)), tuple(TEXTS))


@cases.add
async def falseAndNone(visit: Visit) -> None:
    client = await visit.connected()
    got = events(client, "false", 1)
    client.emit("false")
    visit.equal(await got, [(False,)])
    visit.equal(await within(client.call("echo", None, 0, "")), (None, 0, ""))


@cases.add
async def binary(visit: Visit) -> None:
    client = await visit.connected()
    got = events(client, "bytes", 1)
    client.emit("bytes")
    visit.equal(await got, [(b"asdfasdf",)])
    value = {"hello": "lol", "message": b"\x00howdy\xff", "goodbye": [b"", bytearray(b"gotcha")]}
    back = events(client, "back", 1)
    client.emit("back", value)
    visit.equal(await back, [({**value, "goodbye": [b"", b"gotcha"]},)])
    # python-engineio on aiohttp reads of a POST no more than has arrived by then: large ones come cut off.
    size = 300_000 if visit.server != "python" or client.transport == "websocket" else 30_000
    visit.equal(await within(client.call("echo", b"x" * size)), b"x" * size)


@cases.add
async def binaryKeepsItsPlace(visit: Visit) -> None:
    client = await visit.connected()
    back = events(client, "back", 4)
    for value in (1, b"two", {"three": b"3"}, "four"):
        client.emit("back", value)
    visit.equal(await back, [(1,), (b"two",), ({"three": b"3"},), ("four",)])


@cases.add
async def manyEventsInOrder(visit: Visit) -> None:
    client = visit.client()
    back = events(client, "back", 300)
    for number in range(300):
        client.emit("back", number, b"x" if number % 10 == 0 else "x")
        if number % 30 == 0:
            await wait(0.005)
    visit.equal([number for number, _ in await back], list(range(300)))
    await until(lambda: client.transport == visit.transports[-1])


@cases.add
async def reservedNames(visit: Visit) -> None:
    client = await visit.connected()
    for name in ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"):
        visit.test.assertRaises(ValueError, client.emit, name)
        visit.test.assertRaises(ValueError, client.call, name)
        visit.test.assertRaises(ValueError, client.on, name)
    visit.equal(await within(client.call("echo", 1)), 1)


@cases.add
async def eventsWithoutAHandler(visit: Visit) -> None:
    client = await visit.connected()
    got: Deferred[Any] = Deferred()
    client.onAny(lambda event, *args: got.callback((event, *args)) if event == "back" else None)
    client.emit("back", 1, 2)
    visit.equal(await within(got), ("back", 1, 2))


@cases.add
async def authValues(visit: Visit) -> None:
    async def later() -> Any:
        await wait(0.02)
        return {"a": "later"}

    for auth, expected in (
        ({"a": "b"}, {"a": "b"}),
        (lambda: {"a": "c"}, {"a": "c"}),
        (later, {"a": "later"}),
    ):
        client = visit.client(start=False, auth=auth)
        welcome = events(client, "welcome", 1)
        foo = events(client.namespace("/foo", auth={"of": "foo"}), "welcome", 1)
        client.startService()
        visit.equal(await welcome, [(expected,)])
        visit.equal(await foo, [({"of": "foo"},)])


@cases.add
async def middlewareSeesAllEvents(visit: Visit) -> None:
    client = visit.client(start=False)
    seen: list[Any] = []

    @client.use
    def look(incoming: Any, proceed: Any) -> Any:
        seen.append((incoming.event, incoming.args))
        return proceed(incoming)

    back = events(client, "back", 1)
    client.startService()
    client.emit("back", 1, b"2")
    await back
    visit.equal(seen, [("welcome", [{}]), ("back", [1, b"2"])])


# -- the buffer, volatile events, timeouts -----------------------------------------------


@cases.add
async def eventsWaitForTheConnection(visit: Visit) -> None:
    client = visit.client(start=False)
    back = events(client, "back", 2)
    client.emit("back", 1)
    client.emit("back", "volatile", volatile=True)
    client.emit("back", 2)
    acked = client.call("echo", 3)
    client.startService()
    visit.equal(await back, [(1,), (2,)])
    visit.equal(await within(acked), 3)


@cases.add
async def eventsWaitForTheNextConnection(visit: Visit) -> None:
    client = await visit.connected()
    gone = notice(client.onDisconnect)
    client.emit("cut")
    await gone
    back = events(client, "back", 2)
    client.emit("back", 1)
    client.emit("back", "volatile", volatile=True)
    client.emit("back", 2)
    visit.equal(await back, [(1,), (2,)])


@cases.add
async def volatileEventsArrive(visit: Visit) -> None:
    client = await visit.connected()
    await within(client.call("echo", 1))
    while not client._connection.isWritable:
        await wait(0.01)
    back = events(client, "back", 1)
    client.emit("back", 1, volatile=True)
    visit.equal(await back, [(1,)])


@cases.add
async def timeouts(visit: Visit) -> None:
    client = await visit.connected()
    await raised(client.call("never", timeout=0.05), AckTimeout)
    visit.equal(await within(client.call("echo", 1, timeout=30)), 1)
    unconnected = visit.client(start=False)
    await raised(unconnected.call("echo", timeout=0.05), AckTimeout)


@cases.add
async def acksOfALostConnection(visit: Visit) -> None:
    client = await visit.connected()
    waiting = client.call("never")
    client.emit("cut")
    await raised(waiting, Disconnected)
    visit.equal(await within(client.call("echo", 1)), 1)


@cases.add
async def volatileEventsThatCannotLeave(visit: Visit) -> None:
    client = await visit.connected()
    await until(lambda: client._connection.isWritable)
    client.emit("back", 1)
    # Polling has one request on its way; a WebSocket takes all.
    passes = client._connection.isWritable
    client.emit("back", "volatile", volatile=True)
    client.emit("back", 2)
    expected = [(1,), ("volatile",), (2,)] if passes else [(1,), (2,)]
    visit.equal(await events(client, "back", len(expected)), expected)
    if visit.transports != WAYS["upgrade"]:
        visit.equal(passes, visit.transports == WAYS["websocket"])


@cases.add
async def acksThatAreLate(visit: Visit) -> None:
    client = await visit.connected()
    await raised(client.call("echo", 1, timeout=0), AckTimeout)
    visit.equal(await within(client.call("echo", 2)), 2)


@cases.add
async def theDefaultTimeout(visit: Visit) -> None:
    client = await visit.connected(ackTimeout=0.05)
    await raised(client.call("never"), AckTimeout)
    visit.equal(await within(client.call("echo", 1, timeout=30)), 1)


# -- retries -------------------------------------------------------------------------------


@cases.add
async def retriesKeepTheOrder(visit: Visit) -> None:
    client = visit.client(retries=100, ackTimeout=1)
    results = [client.call("echo", number) for number in range(3)]
    visit.equal([await within(result) for result in results], [0, 1, 2])


@cases.add
async def retriesUntilTheAck(visit: Visit) -> None:
    client = await visit.connected(retries=100, ackTimeout=0.2)
    visit.equal(await within(client.call("third", f"key {id(client)}")), 3)


@cases.add
async def retriesEnd(visit: Visit) -> None:
    client = await visit.connected(retries=2)
    lost = client.call("never", timeout=0.05)
    await raised(lost, AckTimeout)
    visit.equal(await within(client.call("echo", 1)), 1)


@cases.add
async def retriesAcrossConnections(visit: Visit) -> None:
    client = await visit.connected(retries=10, ackTimeout=5)
    client.namespace("/foo").emit("cut")
    results = [client.call("echo", number) for number in range(5)]
    visit.equal([await within(result) for result in results], [0, 1, 2, 3, 4])


@cases.add
async def retriesInTheConnectHandlerAreSentOnce(visit: Visit) -> None:
    client = visit.client(start=False, retries=3, ackTimeout=20)
    key = f"key {id(client)}"
    count: Deferred[Any] = Deferred()

    @client.onConnect
    def ask() -> None:
        client.call("count", key).chainDeferred(count)

    client.startService()
    visit.equal(await within(count), 1)
    other = await visit.connected()
    visit.equal(await within(other.call("count", key)), 2)
