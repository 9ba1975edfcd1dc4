"""
A client of python-socketio that handles one packet after the other.

python-socketio's threaded client handles each message in a thread of its own.  Which of two threads comes
first is left to chance: events change places, an attachment comes before its event and both are lost, and the
end of a connection overtakes the events before it.  On a busy machine one test in some hundreds meets that,
with any server.  The bytes to the server are the same as without this module.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import engineio
import socketio

LONGEST = 30.0
"Seconds that an end waits at most for the messages before it."


class _Orderly(engineio.Client):
    """An Engine.IO client with one thread at a time for messages."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def _trigger_event(self, event: str, *args: Any, **options: Any) -> Any:
        if event == "message" and options.get("run_async"):
            with self._changed:
                self._waiting.append(args)
                if self._worker is None:
                    self._worker = threading.Thread(target=self._work, daemon=True)
                    self._worker.start()
            return None
        if event == "disconnect" and threading.current_thread() is not self._worker:
            with self._changed:
                self._changed.wait_for(lambda: self._worker is None, LONGEST)
        return super()._trigger_event(event, *args, **options)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._worker = None
                    self._changed.notify_all()
                    return
                args = self._waiting.popleft()
            super()._trigger_event("message", *args)


class Client(socketio.Client):
    """The client.  A handler that waits for an ack waits for ever: the ack waits for the handler."""

    def _engineio_client_class(self) -> type[engineio.Client]:
        return _Orderly
