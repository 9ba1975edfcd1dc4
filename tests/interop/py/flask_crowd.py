"""
`python flask_crowd.py URL SECONDS COUNT`: a crowd whose handlers block, and one who wants a quick answer.

Prints one line of JSON: how many clients were lost, the fewest answers that one of the crowd got, how often
the other client was answered and how long it waited at most.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import socketio


class Somebody:
    """
    One of the crowd: asks the next question when it has the answer to the last.
    """

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.answers = 0
        self.lost: list[str] = []
        self.client.on("disconnect", self.lost.append)

    async def ask(self, until: float) -> None:
        while time.monotonic() < until and not self.lost:
            await self.client.call("block", self.answers, timeout=60)
            self.answers += 1


async def main(url: str, seconds: float, count: int) -> None:
    crowd = [Somebody() for _ in range(count)]
    coming = [one.client.connect(url, transports=["websocket"], wait_timeout=60) for one in crowd]
    await asyncio.gather(*coming)
    poller = Somebody()
    await poller.client.connect(url, transports=["polling"], wait_timeout=60)
    # From now on: on a busy machine all the time might go by while they come.
    until = time.monotonic() + seconds
    asking = [asyncio.ensure_future(somebody.ask(until)) for somebody in crowd]
    answered, longest = 0, 0.0
    while time.monotonic() < until and not poller.lost:
        asked = time.monotonic()
        await poller.client.call("echo", timeout=60)
        longest = max(longest, time.monotonic() - asked)
        answered += 1
        await asyncio.sleep(0.1)
    results = await asyncio.gather(*asking, return_exceptions=True)
    report = {
        "lost": sum(bool(one.lost) for one in [*crowd, poller]),
        "errors": [repr(result) for result in results if result is not None][:3],
        "fewest": min(one.answers for one in crowd),
        "all": sum(one.answers for one in crowd),
        "poller": answered,
        "longest": round(longest, 3),
    }
    print(json.dumps(report), flush=True)
    await asyncio.gather(*[one.client.disconnect() for one in [*crowd, poller]], return_exceptions=True)


asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
