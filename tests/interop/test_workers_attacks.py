"""
Attacks on two real workers, beside a bystander: half request lines, wrong secrets, smuggling, a full relay.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.interop.test_workers import HANDSHAKE, WorkersTestCase
from tests.support import Program


def resident(pid: int) -> int:
    """Return the bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Raw:
    """A connection that sends bytes, and reads responses."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._rest = b""

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """Send a request, and return status and body of the response; (0, b"") if the connection ends."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)
            return self.read()
        return 0, b""

    def read(self) -> tuple[int, bytes]:
        """Read one response."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            data = self.socket.recv(65536)
            if not data:
                return 0, b""
            self._rest += data
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        while len(self._rest) < size and (data := self.socket.recv(65536)):
            self._rest += data
        body, self._rest = self._rest[:size], self._rest[size:]
        return int(head.split()[1]), body

    def open(self) -> str:
        """Open a session over this connection, which then stays at the worker of the session."""
        status, body = self.ask(f"GET {HANDSHAKE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        found = re.search(rb'"sid":"([^"]+)"', body)
        assert status == 200 and found is not None, body
        return found[1].decode()


def post(sid: str, body: bytes, *lines: str) -> bytes:
    head = [f"POST {HANDSHAKE}&sid={sid} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


class AttackTests(WorkersTestCase):
    program: Program
    port: int

    async def begin(self, *options: str) -> None:
        """Start two workers, and find a session on each, with a connection that stays at the other one."""
        self.program, url = await self.serve(2, "--hang-timeout", "0", *options)
        self.port = int(url.rpartition(":")[2])
        self.url = url
        await deferToThread(self._find)

    def _find(self) -> None:
        found: dict[str, tuple[str, Raw]] = {}
        for _ in range(200):
            if len(found) == 2:
                break
            connection = self.raw()
            sid = connection.open()
            found.setdefault(sid[16:20], (sid, connection))
        (self.victim, self.near), (self.other, self.far) = found.values()

    def raw(self) -> Raw:
        connection = Raw(self.port)
        self.addCleanup(connection.socket.close)
        return connection

    def works(self, sid: str, connection: Raw | None = None) -> None:
        """A session takes an event, and answers; the wait for each response has a limit."""
        connection = connection or self.raw()
        self.assertEqual(connection.ask(post(sid, b'420["echo",1]'))[1], b"ok")
        body = b""
        while b"430[1]" not in body:
            status, part = connection.ask(f"GET {HANDSHAKE}&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(status, 200)
            body += part

    def enter(self) -> None:
        for sid, connection in ((self.victim, self.near), (self.other, self.near)):
            self.assertEqual(connection.ask(post(sid, b"40"))[1], b"ok")

    async def test_halfLines(self) -> None:
        """A thousand connections with half a line that names a session are closed in time."""
        await self.begin("--request-timeout", "8")

        def attack() -> None:
            self.enter()
            half = f"GET {HANDSHAKE}&sid={self.victim}"[:-3].encode()
            silent = []
            for number in range(1000):
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                self.addCleanup(connection.close)
                connection.sendall(half[: number % len(half)] or b"G")
                silent.append(connection)
                if number % 250 == 0:
                    self.works(self.victim)
            self.works(self.victim)
            self.works(self.other)
            for connection in silent:
                # Closed by the server, some after a response 408 or 400; otherwise, TimeoutError after 30 s.
                with contextlib.suppress(ConnectionError):
                    while connection.recv(65536):
                        pass
            self.works(self.victim)

        await deferToThread(attack)
        await self.stopped(self.program)

    async def test_guessesAndSmuggling(self) -> None:
        """Wrong secrets, bodies that are too large, and requests in requests reach no session."""
        await self.begin("--max-payload", "10000")

        def attack() -> None:
            self.enter()
            for number in range(200):
                guess = f"{number:016d}{self.victim[16:]}"
                connection = self.far if number % 2 else self.raw()
                self.assertEqual(connection.ask(post(guess, b"4x"))[0], 400)
            hidden = post(self.victim, b'421["echo","smuggled"]')
            for lines, body in (
                (["Transfer-Encoding: chunked"], b"0\r\n\r\n" + hidden),
                (["Content-Length: 5"], b"4body" + hidden),
                (["Transfer-Encoding : chunked"], b"0\r\n\r\n" + hidden),
                (["X: y", " Transfer-Encoding: chunked"], b"0\r\n\r\n" + hidden),
                ([], b"4" + b"x" * 20_000),
                (["Expect: 100-continue"], b"4" + b"x" * 20_000),
            ):
                connection = self.raw()
                first = connection.open()
                while first[16:20] == self.victim[16:20]:
                    connection = self.raw()
                    first = connection.open()
                # By relay: the connection is at the other worker.
                status, body = connection.ask(post(self.victim, body, *lines))
                self.assertIn(status, (0, 200, 400, 411, 413), (lines, body))
                # A session that these bodies have closed is refused, and no answer of the hidden event waits.
                poll = f"GET {HANDSHAKE}&sid={self.victim} HTTP/1.1\r\nHost: x\r\n\r\n"
                connection = self.raw()
                self.assertIn(connection.ask(post(self.victim, b'429["echo",1]'))[0], (200, 400))
                self.assertNotIn(b"smuggled", connection.ask(poll.encode())[1])
            connection = self.raw()
            self.works(self.other, connection)
            fresh = self.raw().open()
            self.assertEqual(connection.ask(post(fresh, b"40"))[1], b"ok")
            self.works(fresh, connection)

        await deferToThread(attack)
        await self.stopped(self.program)
        self.assertNotIn("smuggled", self.program.output)

    async def test_fullRelay(self) -> None:
        """The owner stands still while clients send for it: memory is bounded, and others are served."""
        await self.begin()
        pids = self.pids(self.program)

        def attack() -> Any:
            self.enter()
            owner = self._ownerOf(self.victim)
            self.assertIn(owner, pids)
            connections = [self.raw() for _ in range(120)]
            # Connections that the other worker serves, as the session says that was opened by each.
            senders = [each for each in connections if each.open()[16:20] == self.other[16:20]][:60]
            before = [resident(pid) for pid in pids]
            body = b"4" + b"x" * 900_000
            os.kill(owner, signal.SIGSTOP)
            try:
                for connection in senders:
                    connection.socket.sendall(post(self.victim, body))
                # The first response is the refusal of a body for which there is no room.
                ready, _, _ = select.select([connection.socket for connection in senders], [], [], 60)
                self.assertTrue(ready)
                time.sleep(1)
                grown = [resident(pid) - old for pid, old in zip(pids, before, strict=True)]
                self.works(self.other, self.far)
            finally:
                os.kill(owner, signal.SIGCONT)
            statuses = [connection.read()[0] for connection in senders]
            return grown, statuses

        grown, statuses = await deferToThread(attack)
        self.assertLess(max(grown), 120_000_000)
        self.assertIn(503, statuses)
        self.assertLessEqual(set(statuses), {200, 400, 503, 0})
        await self.stopped(self.program)

    def _ownerOf(self, sid: str) -> int:
        """Return the process that has a session, which its handler tells."""
        connection = self.raw()
        self.assertEqual(connection.ask(post(sid, b'421["where",0]'))[1], b"ok")
        body = b""
        while (told := re.search(rb'431\[\[0,"first",(\d+)\]\]', body)) is None:
            body += connection.ask(f"GET {HANDSHAKE}&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())[1]
        return int(told[1])
