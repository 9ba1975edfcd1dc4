"""
Means of the tests of the guide: its programs as processes, and clients of python-socketio to visit them.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.browser import ChatServer
from tests.interop.clients import requirePythonClient
from tests.support import ROOT, requirePart

try:
    import requests
    import socketio

    from tests.interop.py.orderly import Client
except ImportError:
    socketio = None

GUIDE = ROOT / "docs" / "examples" / "guide"

WITHIN = 60.0
"Seconds in which something has to come; nothing waits for so long that comes."


class Example(ChatServer):
    """
    A program of docs/examples/guide, on a free port in the place of 5000.

    :param folder: for a copy of the guide's programs.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder / f"{name}.log")
        self.url = self.url.rstrip("/")
        self.file = folder / f"{name}.py"
        for source in GUIDE.iterdir():
            if source.is_file():
                (folder / source.name).write_text(source.read_text())
        self.file.write_text(self.file.read_text().replace("5000", str(self.port)))

    def command(self) -> list[str]:
        return [sys.executable, str(self.file)]


class Visitor:
    """
    A client of python-socketio that keeps what comes, event by event.

    Each namespace has a queue of its own, of tuples: the name of the event and its arguments.

    :param answers: what it acks: a function for each event.
    :ivar client: the :class:`socketio.Client`.
    """

    def __init__(self, answers: Mapping[str, Callable[..., Any]] | None = None, http: Any = None) -> None:
        self.client = Client(reconnection=False, http_session=http)
        self._answers = answers or {}
        self._came: dict[str, queue.Queue[tuple[Any, ...]]] = {}

    def connect(self, url: str, *namespaces: str, transport: str = "websocket", **options: Any) -> Visitor:
        """
        Connect; ConnectionError of `socketio.exceptions` when a namespace refuses.

        :param options: as for `socketio.Client.connect`.
        """
        paths = list(namespaces) or ["/"]
        for path in paths:
            self._came[path] = queue.Queue()
            self.client.on("*", self._listener(path), namespace=path)
        self.client.connect(
            url, namespaces=paths, transports=[transport], wait_timeout=WITHIN, retry=False, **options
        )
        return self

    def _listener(self, path: str) -> Callable[..., Any]:
        def came(event: str, *args: Any) -> Any:
            self._came[path].put((event, *args))
            answer = self._answers.get(event)
            return answer(*args) if answer else None

        return came

    def emit(self, event: str, *args: Any, namespace: str = "/") -> None:
        """Send an event; without an ack."""
        self.client.emit(event, args, namespace=namespace)

    def call(self, event: str, *args: Any, namespace: str = "/") -> Any:
        """Send an event and wait for the ack: None, its one value, or a tuple of several (here: a list)."""
        return self.client.call(event, args, namespace=namespace, timeout=WITHIN)

    def next(self, namespace: str = "/") -> tuple[Any, ...]:
        """The next event, which has come or will."""
        try:
            return self._came[namespace].get(timeout=WITHIN)
        except queue.Empty:
            raise AssertionError(f"nothing came in {namespace}") from None

    def left(self, namespace: str = "/") -> list[tuple[Any, ...]]:
        """Return the events that came without having been waited for."""
        waiting = self._came[namespace]
        return [waiting.get() for _ in range(waiting.qsize())]

    def sid(self, namespace: str = "/") -> str:
        return str(self.client.get_sid(namespace))

    def close(self) -> None:
        self.client.disconnect()
        # Not client.wait(), which sleeps for a second.
        self.client.eio.wait()


class GuideTestCase(SynchronousTestCase):
    """
    Tests that run a program of the guide and visit it.
    """

    def setUp(self) -> None:
        requirePythonClient("socketio", "requests", "websocket")
        requirePart(socketio, "no python-socketio: pip install --group test")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def serve(self, name: str) -> Example:
        """Run a program; at the end of the test it must end well, and have logged no traceback."""
        example = Example(self.folder, name)
        self.addCleanup(lambda: self.assertNotIn("Traceback", example.stop()))
        example.start()
        self.url = example.url
        return example

    def visitor(self, *namespaces: str, **options: Any) -> Visitor:
        """A client that is connected to what runs, and closed at the end of the test."""
        kept = {name: options.pop(name) for name in ("answers", "http") if name in options}
        visitor = Visitor(**kept)
        self.addCleanup(visitor.close)
        return visitor.connect(self.url, *namespaces, **options)

    def refused(self, *namespaces: str, **options: Any) -> str:
        """Why a client was not let in."""
        with self.assertRaises(socketio.exceptions.ConnectionError) as caught:
            self.visitor(*namespaces, **options)
        return str(caught.exception)

    def browser(self) -> Any:
        """Something that keeps cookies, for views and clients."""
        session = requests.Session()
        self.addCleanup(session.close)
        return session
