"""
The chat on several processes as one chat: `--workers`, and two servers on one Redis, with python-socketio.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.brokers import REDIS
from tests.interop.browser import ChatServer
from tests.interop.clients import requirePythonClient
from tests.interop.visitors import Visitor, socketio
from tests.support import freePort, requirePart

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40

PEOPLE = 12

WITHIN = 90.0
"Seconds; the lease of a server that was killed is 15."


class ChatTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        requirePythonClient("socketio", "requests", "websocket")
        requirePart(socketio, "no python-socketio: pip install --group test")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.keys: dict[Visitor, str] = {}
        self.nicks: dict[Visitor, str] = {}

    def serve(self, name: str, *arguments: str) -> ChatServer:
        """Run a chat; at the end of the test it must end well, and have logged no traceback."""
        server = ChatServer(self.folder / f"{name}.log", *arguments)
        self.addCleanup(lambda: self.assertNotIn("Traceback", server.stop()))
        server.start()
        self.until("it serves", lambda: "serving Socket.IO at" in server.log.read_text())
        return server

    def come(self, server: ChatServer, nick: str, key: str = "", transport: str = "websocket") -> Visitor:
        """Somebody who is connected, and in no room yet."""
        visitor = Visitor()
        self.addCleanup(visitor.close)
        auth = {"nick": nick, "key": key or f"key of {nick}"}
        return visitor.connect(server.url, transport=transport, auth=auth)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    def crowd(self, *servers: ChatServer) -> list[Visitor]:
        """
        Let namesakes come to the lobby, and check that all servers see the same people.
        """
        people = []
        for n in range(PEOPLE):
            transport = "websocket" if n % 3 else "polling"
            person = self.come(servers[n % len(servers)], "Ada", f"key {n}", transport)
            self.keys[person] = f"key {n}"
            self.nicks[person] = person.call("join", "lobby")["you"]
            people.append(person)
        nicks = {"Ada", *(f"Ada {n}" for n in range(2, PEOPLE + 1))}

        def seen() -> bool:
            lists = [person.call("join", "lobby")["people"] for person in people]
            return all(set(each) == nicks and len(each) == PEOPLE for each in lists)

        self.until("everybody sees everybody", seen)
        self.assertEqual(len({tuple(person.call("join", "lobby")["people"]) for person in people}), 1)
        return people

    def talk(self, people: list[Visitor]) -> None:
        """Let all say something at once, send a picture, and type; check who has got what."""
        for person in people:
            person.left()
        for n, person in enumerate(people):
            person.emit("say", f"id {n}", f"text {n}")
        for n, person in enumerate(people):
            expected = {f"text {m}" for m in range(len(people)) if m != n}
            texts: list[str] = []
            while not expected.issubset(texts):
                event, *args = person.next()
                if event == "said":
                    texts.append(args[0]["text"])
            self.assertEqual(sorted(texts), sorted(expected))  # each once
        histories = [[said["id"] for said in self.historyOf(person)] for person in people]
        self.assertEqual(sorted(histories[0]), sorted(f"id {n}" for n in range(len(people))))
        self.assertEqual(histories, histories[:1] * len(people))
        people[0].call("picture", "lake", PNG)
        for person in people[1:]:
            self.assertEqual(self.next(person, "said")[0]["id"], "lake")
            self.assertEqual(person.call("fetch", "lake"), PNG)
        waiting = list(people[1:])

        def typing() -> bool:
            # Volatile: a client that polls may miss one, between two requests.
            people[0].emit("typing", True)
            waiting[:] = [
                person for person in waiting if not any(name == "typing" for name, *_ in person.left())
            ]
            return not waiting

        self.until("all see that somebody types", typing)

    def next(self, person: Visitor, kind: str) -> tuple[Any, ...]:
        """Return the arguments of the next event of a kind."""
        while True:
            event, *args = person.next()
            if event == kind:
                return tuple(args)

    def historyOf(self, person: Visitor) -> list[dict[str, Any]]:
        history: list[dict[str, Any]] = person.call("join", "lobby")["said"]
        return history


class WorkersTests(ChatTestCase):
    def setUp(self) -> None:
        super().setUp()
        requirePart(Path("/proc/self/stat").exists(), "no /proc, which the supervisor needs")
        self.server = self.serve("chat", "--workers", "4")

    def workerOf(self, person: Visitor) -> str:
        """Return the mark of the worker that has a client's session: the end of the sid."""
        return str(person.client.eio.sid)[-4:]

    def test_oneChat(self) -> None:
        """
        The clients of four workers see the same people and the same history.

        The people of a worker that is killed are seen to leave when its lease is over, but for those who have
        come back by then, with their nicks.
        """
        people = self.crowd(self.server)
        self.assertGreater(len({self.workerOf(person) for person in people}), 2)
        self.talk(people)
        later = self.come(self.server, "Grace")
        self.assertEqual(later.call("join", "lobby")["you"], "Grace")
        self.assertEqual(later.call("fetch", "lake"), PNG)
        later.close()

        victims = self.kill(people)
        witness = next(person for person in people if person not in victims)
        witness.left()
        back, *others = victims
        returned = self.come(self.server, "Ada", self.keys[back])
        self.assertEqual(returned.call("join", "lobby")["you"], self.nicks[back])
        gone = {self.nicks[person] for person in others}
        came: list[str] = []
        while not gone.issubset(came):
            came += [str(nick) for nick in self.next(witness, "left")]
        self.assertEqual(sorted(came), sorted(gone))
        self.assertEqual(set(witness.call("join", "lobby")["people"]), set(self.nicks.values()) - gone)
        self.assertEqual(len(self.historyOf(returned)), PEOPLE + 1)

    def kill(self, people: list[Visitor]) -> list[Visitor]:
        """Kill a worker that has clients, and return these, once they have noticed."""
        marks = {person: self.workerOf(person) for person in people}
        gone = lambda: {marks[person] for person in people if not person.client.connected}  # noqa: E731
        for pid in re.findall(r"worker \d+ serves, as process (\d+)", self.server.log.read_text()):
            os.kill(int(pid), signal.SIGKILL)
            deadline = time.monotonic() + 20
            while not gone() and time.monotonic() < deadline:
                time.sleep(0.05)
            if gone():
                (mark,) = gone()
                return self.noticed([person for person in people if marks[person] == mark])
        raise AssertionError("no worker had a client")

    def noticed(self, people: list[Visitor]) -> list[Visitor]:
        """Wait until the clients of a worker that was killed have noticed, and return these."""
        self.until("all notice", lambda: not any(person.client.connected for person in people))
        return people


class RedisTests(ChatTestCase):
    def test_twoServers(self) -> None:
        """Two servers on one Redis are one chat."""
        requirePart(REDIS, "no redis-server: apt install redis-server")
        port = freePort()
        redis = subprocess.Popen(
            [str(REDIS), "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        self.addCleanup(redis.wait)
        self.addCleanup(redis.terminate)
        servers = [self.serve(name, "--bus", f"redis://127.0.0.1:{port}") for name in ("one", "two")]
        people = self.crowd(*servers)
        self.talk(people)
        later = self.come(servers[1], "Grace")
        later.call("join", "lobby")
        self.assertEqual(later.call("fetch", "lake"), PNG)
