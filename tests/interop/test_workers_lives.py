"""
Workers that die, grow and are replaced, under real clients that stay: which of them notice, and come back.

`scripts/workers` runs the reload with 500 clients and reloads a small server 1,000 times; WORKERS_STAYERS and
WORKERS_RELOADS in the environment change the numbers.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.interop.clients import javaScript, requireJavaScriptClient
from tests.interop.test_workers import APPLICATION, WorkersTestCase, alive
from tests.support import startProgram

STAYERS = int(os.environ.get("WORKERS_STAYERS", "40"))

RELOADS = int(os.environ.get("WORKERS_RELOADS", "10"))

EACH = [["polling"], ["websocket"], ["polling", "websocket"]]

LEAKING = """
from txrealtime import Server

server = Server()
kept = []

@server.on("grow")
def grow(socket):
    kept.append(bytearray(200_000_000))
    return len(kept)

@server.on("where")
def where(socket, value):
    import os
    return [value, "leaking", os.getpid()]
"""

SMALL = """
from txrealtime import Server
server = Server()
"""


class Stayers:
    """A program of clients that stay, see js/stayers.cjs."""

    def __init__(self, case: WorkersTestCase, url: str, count: int, transports: list[list[str]]) -> None:
        options = {"url": url, "count": count, "transports": transports, "pause": 500}
        self._program = startProgram(case, javaScript("stayers.cjs", json.dumps(options)))
        self._case = case
        self._count = count
        self._read = 0

    async def told(self) -> dict[str, Any]:
        """Return what has happened since the last call."""
        self._program.transport.write(b"told\n")
        await self._case.until(lambda: self._program.output.count("\n") > self._read)
        line = self._program.output.splitlines()[self._read]
        self._read += 1
        told: dict[str, Any] = json.loads(line)
        return told

    async def untilAll(self, seconds: float = 60.0, gone: Iterable[int] = ()) -> dict[str, Any]:
        """
        Wait until all are there; return the sum of what has happened, and where they are.

        :param gone: processes that have ended, which their clients may still have to notice.
        """
        total: dict[str, Any] = {"acked": 0, "wrong": 0, "refused": [], "cut": []}
        end = reactor.seconds() + seconds
        while True:
            told = await self.told()
            for key in total:
                total[key] = total[key] + told[key]
            at = {int(pid): count for pid, count in told["at"].items()}
            if sum(at.values()) == self._count and at.keys().isdisjoint(gone):
                return {**total, "at": at}
            self._case.assertLess(reactor.seconds(), end, f"not all have come: {told} {total}")
            await deferLater(reactor, 0.2)


class LivesTestCase(WorkersTestCase):
    timeout = 600 + 5 * RELOADS

    def setUp(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        super().setUp()


class KillTests(LivesTestCase):
    async def killed(self, transports: list[list[str]]) -> tuple[set[int], set[int], set[int]]:
        """
        Kill a worker under clients.

        :return: the clients, those of this worker, and those that were cut; all of them have come back.
        """
        program, url = await self.serve(4)
        stayers = Stayers(self, url, STAYERS, transports)
        before = await stayers.untilAll()
        self.assertEqual((before["cut"], before["refused"]), ([], []))
        victim = max(before["at"], key=before["at"].__getitem__)
        os.kill(victim, signal.SIGKILL)
        await program.whenPrinted("was ended by SIGKILL")
        await self.until(lambda: len(self.pids(program)) == 5)
        await deferLater(reactor, 1.0)
        after = await stayers.untilAll(gone=[victim])
        self.assertEqual(after["wrong"], 0)
        self.assertNotIn(victim, after["at"])
        cut = {number for number, pid, reason in after["cut"]}
        theirs = {number for number, pid, reason in after["cut"] if pid == victim}
        self.assertEqual(len(theirs), before["at"][victim])
        await self.stopped(program)
        return set(range(STAYERS)), theirs, cut

    async def test_webSocket(self) -> None:
        """Only clients of the killed worker notice."""
        clients, theirs, cut = await self.killed([["websocket"], ["polling", "websocket"]])
        self.assertEqual(cut, theirs)
        self.assertLess(len(theirs), len(clients) / 2)

    async def test_polling(self) -> None:
        """A poll that the killed worker had accepted for another's session may be lost, and nothing else."""
        clients, theirs, cut = await self.killed([["polling"]])
        self.assertLessEqual(theirs, cut)
        self.assertLess(len(cut - theirs), len(clients) / 4)


class ReloadTests(LivesTestCase):
    async def test_underClients(self) -> None:
        """In a rolling reload nobody is refused, and then only the new code answers."""
        # All clients come in one moment.
        program, url = await self.serve(2, "--drain", "3", "--connect-timeout", "120")
        stayers = Stayers(self, url, STAYERS, EACH)
        before = await stayers.untilAll(120)
        self.assertEqual((before["cut"], before["refused"]), ([], []))
        old = self.pids(program)
        self.assertEqual(set(before["at"]), set(old))
        self.application(APPLICATION.replace('"first"', '"second"'))
        program.signal("HUP")
        await program.whenPrinted("new workers serve", 120)
        await self.until(lambda: not any(map(alive, old)), 60)
        after = await stayers.untilAll(120, gone=old)
        self.assertEqual((after["refused"], after["wrong"]), ([], 0))
        # Each old worker let a client go once at most, and no new one did.  A busy worker may hear late
        # that it stops, and take clients of the other one until then.
        times = Counter((number, pid) for number, pid, _ in after["cut"])
        self.assertEqual({number for number, _ in times}, set(range(STAYERS)))
        # 0 is a worker that let the client go before its first ack.
        self.assertEqual({pid for _, pid in times} - {0, *old}, set(), after["cut"])
        self.assertEqual({count for (_, pid), count in times.items() if pid}, {1}, after["cut"])
        self.assertEqual(set(after["at"]) & set(old), set())
        acked, end = 0, reactor.seconds() + 60
        while acked <= STAYERS / 2:
            self.assertLess(reactor.seconds(), end)
            await deferLater(reactor, 0.5)
            last = await stayers.told()
            self.assertLessEqual(set(last["versions"]), {"second"})
            acked += last["acked"]
        await self.stopped(program)

    async def test_cannotImport(self) -> None:
        """New workers that cannot import the application are given up, and no client notices."""
        program, url = await self.serve(2)
        stayers = Stayers(self, url, STAYERS, EACH)
        await stayers.untilAll(120)
        for text in ("import nothere", "import sys; sys.exit(3)", "def broken(:"):
            count = program.output.count("the new workers are given up")
            self.application(text)
            program.signal("HUP")
            await self.until(lambda c=count: program.output.count("the new workers are given up") > c, 60)
            self.assertEqual(len([pid for pid in self.pids(program) if alive(pid)]), 2)
        after = await stayers.untilAll()
        self.assertEqual((after["cut"], after["refused"], after["wrong"]), ([], [], 0))
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0)

    async def test_manyTimes(self) -> None:
        """Reloads leave no descriptor, no file and no memory behind."""
        self.application(SMALL)
        program, _ = await self.serve(1, "--drain-timeout", "1")
        supervisor = program.transport.pid

        async def reload(number: int) -> None:
            program.signal("HUP")
            await self.until(lambda: program.output.count("new workers serve") > number, 60)
            before = self.children(supervisor)
            await self.until(lambda: len(self.children(supervisor)) == 1, 60)
            self.assertGreater(len(before), 0)

        measured = []
        for number in range(RELOADS):
            await reload(number)
            if number in (min(RELOADS // 2, 50), RELOADS - 1):
                # The pipes of a worker close a moment after it has ended, on a busy machine a long one.
                uses, end = [self.uses(supervisor)], reactor.seconds() + 20
                while len(uses) < 10 or (
                    measured and reactor.seconds() < end and uses[-1][:2] > measured[0][:2]
                ):
                    await deferLater(reactor, 0.05)
                    uses.append(self.uses(supervisor))
                measured.append(tuple(map(min, *uses)))
        (descriptors, names, memory), (descriptorsAfter, namesAfter, memoryAfter) = measured
        if RELOADS > 100:
            print(
                f"\n{RELOADS} reloads: {descriptors} descriptors before, {descriptorsAfter} after, "
                f"{memory >> 10} kB of memory before, {memoryAfter >> 10} kB after"
            )
        self.assertLessEqual(descriptorsAfter, descriptors)
        self.assertLessEqual(namesAfter, names)
        self.assertLess(memoryAfter, memory + 2_000_000 + 2_000 * RELOADS)
        await self.stopped(program)

    def children(self, pid: int) -> list[int]:
        """The children of a process."""
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def uses(self, pid: int) -> tuple[int, int, int]:
        """Return the descriptors of a supervisor, the names in its folder, and its memory in bytes."""
        [worker] = self.children(pid)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return (
            len(os.listdir(f"/proc/{pid}/fd")),
            len(os.listdir(self.folderOf(worker))),
            pages * os.sysconf("SC_PAGESIZE"),
        )


class GrowthTests(LivesTestCase):
    async def test_leaks(self) -> None:
        """A worker that grows beyond --max-rss is replaced; the new one serves before the old one stops."""
        self.application(LEAKING)
        program, url = await self.serve(2, "--max-rss", "200M")
        stayers = Stayers(self, url, 8, [["websocket"]])
        before = await stayers.untilAll()
        old = self.pids(program)
        sid = self.open(url)
        for body in (b"40", b'42["grow"]'):
            await deferToThread(self.post, url, sid, body)
        await self.until(lambda: "new workers serve" in program.output, 60)
        await self.until(lambda: not all(map(alive, old)))
        gone = [pid for pid in old if not alive(pid)]
        self.assertEqual(len(gone), 1, program.output)
        after = await stayers.untilAll(gone=gone)
        self.assertEqual(after["refused"], [])
        self.assertEqual([pid for _, pid, _ in after["cut"]], gone * before["at"].get(gone[0], 0))
        self.assertRegex(program.output, r"worker \d has \d+ MB of memory, more than --max-rss")
        await self.stopped(program)
