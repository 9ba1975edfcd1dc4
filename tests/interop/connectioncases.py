"""
Cases of the client's connection: those of the JavaScript client's own suites, in our words.
"""

from __future__ import annotations

from tests.interop.visits import Cases, Switch, Visit, events, notice, raised, until, wait, within
from tests.support import freePort
from txrealtime import CloseReason, ConnectionRejected
from txrealtime.errors import TransportError

cases = Cases()


@cases.add
async def connectsToTheMainNamespace(visit: Visit) -> None:
    client = visit.client(start=False)
    welcome = events(client, "welcome", 1)
    client.startService()
    visit.equal(await welcome, [({},)])


@cases.add
async def connectsToANamespaceOfTheURL(visit: Visit) -> None:
    for path in ("/foo", "/foo/", "/foo?a=b"):
        client = await visit.connected(path)
        visit.equal(await within(client.call("id")), client.id)


@cases.add
async def severalNamespacesOnOneConnection(visit: Visit) -> None:
    client = await visit.connected()
    foo, bar = client.namespace("/foo"), client.namespace("/bar")
    await within(foo.whenConnected())
    await within(bar.whenConnected())
    visit.equal(await within(foo.call("echo", 1)), 1)
    visit.equal(await within(bar.call("echo", 2)), 2)
    visit.equal(len({client.id, foo.id, bar.id}), 3)


@cases.add
async def twoClientsForOneNamespace(visit: Visit) -> None:
    one, two = await visit.connected("/foo"), await visit.connected("/foo")
    visit.equal(one.id != two.id, True)


@cases.add
async def clientsWithDifferentQueries(visit: Visit) -> None:
    one, two = await visit.connected("/?a=1"), await visit.connected("/?a=2")
    visit.equal([(await within(each.call("query")))["a"] for each in (one, two)], ["1", "2"])


@cases.add
async def startsWhenTold(visit: Visit) -> None:
    client = visit.client(start=False)
    await wait(0.1)
    visit.equal((client.connected, client.id, client.transport), (False, None, None))
    client.startService()
    client.connect()
    await within(client.whenConnected())
    id = client.id
    client.connect()
    await within(client.whenConnected())
    visit.equal((client.id, await within(client.call("id"))), (id, id))


@cases.add
async def sendsTheQueryAndHeaders(visit: Visit) -> None:
    # python-engineio decodes the query of aiohttp's requests twice, in part.
    odd = "&=?#+ä / %41" if visit.server != "python" else "ä / ?"
    client = await visit.connected("/?a=1", query={"b": odd}, headers={"X-Token": "three"})
    query = await within(client.call("query"))
    visit.equal((query["a"], query["b"], query["EIO"]), ("1", odd, "4"))
    visit.equal(await within(client.call("header", "x-token")), "three")


@cases.add
async def disconnectsAndConnectsByHand(visit: Visit) -> None:
    client = await visit.connected()
    for _ in range(3):
        first = client.id
        gone = notice(client.onDisconnect) if _ == 0 else None
        client.disconnect()
        if gone is not None:
            visit.equal(await gone, CloseReason.CLIENT_DISCONNECT)
        visit.equal((client.connected, client.id), (False, None))
        client.connect()
        await within(client.whenConnected())
        visit.equal(client.id != first, True)


@cases.add
async def disconnectsWhileConnecting(visit: Visit) -> None:
    client = visit.client()
    errors: list[Exception] = []
    client.onConnectError(errors.append)
    client.disconnect()
    await wait(0.1)
    visit.equal((client.connected, errors), (False, []))
    client.connect()
    await within(client.whenConnected())
    visit.equal(errors, [])


@cases.add
async def aNamespaceAfterTheConnectionWasClosed(visit: Visit) -> None:
    client = await visit.connected()
    client.disconnect()
    foo = client.namespace("/foo")
    await within(foo.whenConnected())
    visit.equal((client.connected, await within(foo.call("echo", 1))), (False, 1))


@cases.add
async def connectsAgainByItselfAfterConnectingByHand(visit: Visit) -> None:
    client = await visit.connected()
    client.disconnect()
    client.connect()
    await within(client.whenConnected())
    first, gone = client.id, notice(client.onDisconnect)
    client.emit("cut")
    await gone
    await within(client.whenConnected())
    visit.equal(client.id != first, True)


@cases.add
async def oneNamespaceStaysAwayAndTheOtherReturns(visit: Visit) -> None:
    client = await visit.connected()
    foo = client.namespace("/foo")
    await within(foo.whenConnected())
    gone = notice(client.onDisconnect)
    client.emit("cut")
    await gone
    foo.disconnect()
    await within(client.whenConnected())
    await within(client.call("echo", 1))
    visit.equal(foo.connected, False)


@cases.add
async def connectsAgainAfterTheConnectionWasCut(visit: Visit) -> None:
    client = await visit.connected()
    foo = client.namespace("/foo")
    await within(foo.whenConnected())
    first, gone = client.id, notice(client.onDisconnect)
    client.emit("cut")
    visit.equal(await gone in (CloseReason.TRANSPORT_CLOSE, CloseReason.TRANSPORT_ERROR), True)
    await within(client.whenConnected())
    await within(foo.whenConnected())
    visit.equal(client.id != first, True)
    visit.equal(await within(foo.call("echo", "x")), "x")


@cases.add
async def staysAwayWithoutReconnection(visit: Visit) -> None:
    client = await visit.connected(reconnection=False)
    gone = notice(client.onDisconnect)
    client.emit("cut")
    await gone
    await wait(0.3)
    visit.equal(client.connected, False)
    client.connect()
    await within(client.whenConnected())


@cases.add
async def staysAwayAfterTheServersDisconnect(visit: Visit) -> None:
    for event in ("bye", "hang up"):
        client = await visit.connected()
        gone = notice(client.onDisconnect)
        client.emit(event)
        visit.equal(await gone, CloseReason.SERVER_DISCONNECT)
        await wait(0.3)
        visit.equal(client.connected, False)
        client.connect()
        await within(client.whenConnected())


@cases.add
async def otherNamespacesStayAfterTheServersDisconnect(visit: Visit) -> None:
    client = await visit.connected()
    foo = client.namespace("/foo")
    await within(foo.whenConnected())
    gone = notice(foo.onDisconnect)
    foo.emit("bye")
    await gone
    visit.equal(await within(client.call("echo", 1)), 1)


@cases.add
async def refusalsHaveTextAndData(visit: Visit) -> None:
    refused = visit.client("/?fail=1")
    errors: list[Exception] = []
    refused.onConnectError(errors.append)
    error = await raised(refused.whenConnected(), ConnectionRejected)
    visit.equal((str(error), error.data), ("Auth failed", {"code": 1}))
    await wait(0.2)
    visit.equal((errors, refused.connected), ([error], False))
    client = await visit.connected()
    no = client.namespace("/no")
    told = notice(no.onConnectError)
    error = await raised(no.whenConnected(), ConnectionRejected)
    visit.equal((str(error), error.data), ("who are you?", {"code": 401}))
    visit.equal(await told, error)
    visit.equal((client.connected, no.connected), (True, False))


@cases.add
async def namespacesThatDoNotExist(visit: Visit) -> None:
    error = await raised(visit.client("/nowhere").whenConnected(), ConnectionRejected)
    expected = "Unable to connect" if visit.server == "python" else "Invalid namespace"
    visit.equal(str(error), expected)


@cases.add
async def triesAsOftenAsAllowed(visit: Visit) -> None:
    client = visit.client(start=False, reconnectionAttempts=2)
    client._address.port = freePort()
    errors: list[Exception] = []
    client.onConnectError(errors.append)
    client.startService()
    error = await raised(client.whenConnected(), TransportError)
    visit.equal(len(errors), 3)
    visit.equal("cannot connect" in str(error), True)


@cases.add
async def theWrongPath(visit: Visit) -> None:
    client = visit.client(path="/elsewhere", reconnection=False)
    await raised(client.whenConnected(), TransportError)


@cases.add
async def triesAgainAfterItGaveUp(visit: Visit) -> None:
    for options, attempts in (({"reconnectionAttempts": 2}, 3), ({"reconnection": False}, 1)):
        switch = Switch(visit.url)
        client = visit.client(endpoint=switch, start=False, **options)
        errors: list[Exception] = []
        client.onConnectError(errors.append)
        client.startService()
        await raised(client.whenConnected(), TransportError)
        visit.equal(len(errors), attempts)
        client.connect()
        await raised(client.whenConnected(), TransportError)
        visit.equal(len(errors), 2 * attempts)
        switch.isOff = False
        client.connect()
        await within(client.whenConnected())
        visit.equal(len(errors), 2 * attempts)


@cases.add
async def stopsTryingWhenDisconnected(visit: Visit) -> None:
    switch = Switch(visit.url)
    client = visit.client(endpoint=switch, start=False)
    errors: list[Exception] = []
    client.onConnectError(errors.append)
    client.startService()
    await until(lambda: len(errors) > 1)
    client.disconnect()
    tries = len(errors)
    await wait(0.4)
    visit.equal(len(errors), tries)
    switch.isOff = False
    client.connect()
    await within(client.whenConnected())


@cases.add
async def aNamespaceDuringTheAttempts(visit: Visit) -> None:
    client = visit.client(endpoint=Switch(visit.url), start=False, reconnectionAttempts=2)
    errors: list[Exception] = []
    client.onConnectError(errors.append)
    client.startService()
    await until(lambda: bool(errors))
    foo = client.namespace("/foo")
    await raised(foo.whenConnected(), TransportError)
    await raised(client.whenConnected(), TransportError)
    visit.equal(len(errors), 3)


@cases.add
async def attemptsThatTakeTooLong(visit: Visit) -> None:
    client = visit.client(start=False, timeout=1e-6, reconnectionAttempts=2)
    errors: list[Exception] = []
    client.onConnectError(errors.append)
    client.startService()
    error = await raised(client.whenConnected(), TransportError)
    visit.equal((len(errors), "setting timeout" in str(error)), (3, True))


@cases.add
async def otherNamespacesStayAfterADisconnect(visit: Visit) -> None:
    client = await visit.connected()
    foo = client.namespace("/foo")
    await within(foo.whenConnected())
    id = client.id
    foo.disconnect()
    visit.equal(await within(client.call("id")), id)
    visit.equal(foo.connected, False)


@cases.add
async def theSameNamespaceAgain(visit: Visit) -> None:
    client = await visit.connected()
    foo = client.namespace("/foo")
    await within(foo.whenConnected())
    id = foo.id
    visit.equal(client.namespace("/foo/") is foo, True)
    foo.connect()
    visit.equal(await within(foo.call("id")), id)
    foo.disconnect()
    visit.equal(client.namespace("/foo") is foo, True)
    foo.connect()
    await within(foo.whenConnected())
    visit.equal(foo.id != id, True)


@cases.add
async def compression(visit: Visit) -> None:
    client = await visit.connected(perMessageDeflate=True)
    await until(lambda: client.transport == visit.transports[-1])
    for value in ("x" * 5000, b"y" * 5000, "z"):
        visit.equal(await within(client.call("echo", value)), value)
