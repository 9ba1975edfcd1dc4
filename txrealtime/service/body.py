"""
Bodies of requests, kept until a view reads them: in memory, and beyond a size in a temporary file.

A disk may block, and closing a large file takes the system time in proportion to its size, so
threads of their own do both.  While much waits for the disk, nothing more is read from the client.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any, Final

from twisted.logger import Logger

from txrealtime.pool import Threads

__all__ = ["IN_MEMORY", "MOST_WAITING", "Bodies", "Body"]

_log = Logger()

IN_MEMORY: Final = 256 * 1024
"""The largest body that stays in memory, in bytes."""

MOST_WAITING: Final = 512 * 1024
"""How much of a body may wait for the disk before reading from the client pauses, in bytes."""

# All bodies on disk together, in units of the largest.
_MOST_LARGE: Final = 4


class Bodies:
    """
    The bodies that are kept for an application.

    :param maxBody: the most bytes of one body.
    :ivar held: bytes on disk, of all bodies.
    """

    def __init__(self, reactor: Any, maxBody: int) -> None:
        self.reactor = reactor
        self.maxBody = maxBody
        # More than one disk is seldom there, and a file that is slow to close holds up no other.
        self.jobs = Threads(2, "body")
        self.held = 0
        self._lock = Lock()

    @property
    def mostHeld(self) -> int:
        """The most bytes that all bodies together may take on disk."""
        return _MOST_LARGE * self.maxBody

    def newBody(self, pause: Callable[[], object], resume: Callable[[], object]) -> Body:
        """
        Begin to keep a body.

        :param pause: stops reading from the client.
        :param resume: goes on with it.
        """
        return Body(self, pause, resume)

    async def drain(self, timeout: float) -> None:
        """Wait for the disk, and let the threads end."""
        await self.jobs.drain(self.reactor, timeout)

    def hold(self, size: int) -> None:
        """Count bytes on disk: more, or fewer when negative.  From any thread."""
        with self._lock:
            self.held += size


class Body:
    """
    One body: a file as ``twisted.web`` expects, though it can be read only when all of it is kept.

    Its methods are called in the reactor's thread, but for :meth:`dispose`.

    :ivar size: bytes that have come.
    :ivar trouble: why the body could not be kept, or ``None``.
    """

    def __init__(self, bodies: Bodies, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        self.trouble: str | None = None
        self._bodies = bodies
        self._pause = pause
        self._resume = resume
        self._file: IO[bytes] = BytesIO()
        self.size = 0
        self._onDisk = 0
        self._batch: list[bytes] = []
        self._waiting = 0
        self._writing = False
        self._paused = False
        self._closed = False
        self._kept: Callable[[], object] | None = None

    def write(self, data: bytes) -> None:
        """Keep more of the body."""
        if self._closed or self.trouble is not None:
            return
        self.size += len(data)
        if self.size <= IN_MEMORY:
            self._file.write(data)
            return
        # With the first bytes on disk go those in memory.
        growth = len(data) if self._onDisk else self.size
        if self._bodies.held + growth > self._bodies.mostHeld:
            _log.warn(
                "request bodies take {held} bytes on disk, and no more are kept: raise maxUpload if that is "
                "what the application needs",
                held=self._bodies.held,
            )
            self._fail()
            return
        self._onDisk += growth
        self._bodies.hold(growth)
        self._batch.append(data)
        self._waiting += len(data)
        self._writeOn()
        if self._waiting > MOST_WAITING:
            self._paused = True
            self._pause()

    def whenKept(self, call: Callable[[], object]) -> None:
        """Call a function when all that was written is kept, or cannot be kept."""
        if self._writing:
            self._kept = call
        else:
            self._file.seek(0)
            call()

    def _fail(self) -> None:
        self.trouble = "the server has no room for the body of this request"
        self._batch = []

    def _writeOn(self) -> None:
        """Let a thread write what waits, if none is at it."""
        if not self._writing:
            self._writing = True
            batch, self._batch, self._waiting = self._batch, [], 0
            self._bodies.jobs.submit("writing a request's body", lambda: self._write(batch))

    def _write(self, batch: list[bytes]) -> None:
        """Write to the disk; in a thread, which has the file until it reports."""
        failed = False
        try:
            file = self._file
            if isinstance(file, BytesIO):
                self._file = TemporaryFile()  # noqa: SIM115
                self._file.write(file.getbuffer())
            self._file.writelines(batch)
            # What remains in Python's buffer is small, but a full disk would be noticed by a view.
            self._file.flush()
        except OSError:
            failed = True
            _log.failure("the body of a request cannot be written to the temporary folder")
        self._bodies.reactor.callFromThread(self._written, failed)

    def _written(self, failed: bool) -> None:
        self._writing = False
        if failed:
            self._fail()
        if self._closed:
            self._disposeSoon()
            return
        if self._batch:
            self._writeOn()
        if self._paused:
            self._paused = False
            self._resume()
        call, self._kept = (self._kept, None) if not self._writing else (None, self._kept)
        if call is not None:
            self.whenKept(call)

    # -- as a file ---------------------------------------------------------------------

    def tell(self) -> int:
        return self.size if self._writing else self._file.tell()

    def seek(self, place: int, whence: int = 0) -> int:
        return 0 if self._writing else self._file.seek(place, whence)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        """Called by ``twisted.web`` when the request is over or its client has gone."""
        if not self._closed:
            self._closed = True
            self._batch, self._kept = [], None
            if not self._writing:
                self._disposeSoon()

    def take(self) -> IO[bytes]:
        """
        Let a thread have the file, at its beginning.  It calls :meth:`dispose` at last.

        What ``twisted.web`` closes, when the client goes, is no longer what the thread reads.
        """
        self._closed = True
        return self._file

    def _disposeSoon(self) -> None:
        if self._onDisk:
            self._bodies.jobs.submit("closing a request's body", self.dispose)
        else:
            self._file.close()

    def dispose(self) -> None:
        """Close the file; in a thread."""
        self._file.close()
        self._bodies.hold(-self._onDisk)
        self._onDisk = 0
