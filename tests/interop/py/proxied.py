"""python-socketio's AsyncClient behind a proxy: one connection by each transport, and foreign pages.

::

    python proxied.py URL ADDRESS

ADDRESS is the client's own. Prints one JSON line: ``{"polling", "websocket", "upgrade", "foreign"}``, as
js/proxied.cjs does. The certificate of the proxy is not checked.
"""

import asyncio
import json
import sys

import aiohttp
import socketio

URL, ADDRESS = sys.argv[1:]
TEXT = "Größe € " * 1000
BYTES = bytes(20_000)


async def connect(session, origin, *transports):
    """Return a client whose page has this origin."""
    client = socketio.AsyncClient(reconnection=False, http_session=session)
    await client.connect(URL, {"Origin": origin}, transports=transports, wait_timeout=30, retry=False)
    assert client.transport() == transports[-1], client.transport()
    return client


async def accepted(session, *transports):
    """Return what the server sees of a client."""
    client = await connect(session, URL, *transports)
    assert [*await client.call("echo", (TEXT, BYTES), timeout=20)] == [TEXT, BYTES]
    seen = await client.call("seen", timeout=20)
    await client.disconnect()
    return seen


async def refused(session, transport):
    """Return the word "refused" if a foreign page is refused."""
    try:
        await connect(session, "https://evil.example", transport)
    except socketio.exceptions.ConnectionError:
        return "refused"
    return "accepted"


async def main():
    connector = aiohttp.TCPConnector(local_addr=(ADDRESS, 0), ssl=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        report = {
            "polling": await accepted(session, "polling"),
            "websocket": await accepted(session, "websocket"),
            "upgrade": await accepted(session, "polling", "websocket"),
            "foreign": {
                "polling": await refused(session, "polling"),
                "websocket": await refused(session, "websocket"),
            },
        }
    print(json.dumps(report))


asyncio.run(main())
