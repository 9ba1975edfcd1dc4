"""
Bodies of requests, kept until a view reads them: in memory, and beyond a size in a temporary file.

Threads write and close the files: a disk may block, and the system takes time in proportion to a file's
size to close it.  While much data waits for the disk, reading from the client pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any, Final

from twisted.logger import LogLevel

from txrealtime.logs import Logger
from txrealtime.pool import Threads

__all__ = ["IN_MEMORY", "MOST_WAITING", "Bodies", "Body"]

_log = Logger()

IN_MEMORY: Final = 256 * 1024
"""The largest body that stays in memory, in bytes."""

MOST_WAITING: Final = 512 * 1024
"""Bytes of a body that may wait for the disk before reading from the client pauses."""

# The most bytes on disk, in units of the largest body.
_MOST_LARGE: Final = 4


class Bodies:
    """
    All bodies of one application.

    :param maxBody: the most bytes of one body.
    :ivar held: the bytes on disk, of all bodies.
    """

    def __init__(self, reactor: Any, maxBody: int) -> None:
        self.reactor = reactor
        self.maxBody = maxBody
        # With two threads, a file that is slow to close holds up no other.
        self.jobs = Threads(2, "body")
        self.held = 0
        self._lock = Lock()

    @property
    def mostHeld(self) -> int:
        """The most bytes on disk, of all bodies."""
        return _MOST_LARGE * self.maxBody

    def newBody(self, pause: Callable[[], object], resume: Callable[[], object]) -> Body:
        """
        Begin to keep a body.

        :param pause: stops reading from the client.
        :param resume: starts reading again.
        """
        return Body(self, pause, resume)

    async def drain(self, timeout: float) -> None:
        """Wait for the disk, and let the threads end."""
        await self.jobs.drain(self.reactor, timeout)

    def hold(self, size: int) -> None:
        """Count bytes on disk, negative when they are given up.  Any thread may call this."""
        with self._lock:
            self.held += size


class Body:
    """
    One body, as the file that ``twisted.web`` expects.  It can be read once all of it is kept.

    Only the reactor's thread calls its methods, except :meth:`dispose`.

    :ivar size: the bytes received.
    :ivar trouble: the reason if the body cannot be kept, for the client; otherwise ``None``.
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
        # The first write to the disk takes along the bytes in memory.
        growth = len(data) if self._onDisk else self.size
        if self._bodies.held + growth > self._bodies.mostHeld:
            _log.limited(
                "",
                LogLevel.warn,
                "a request's body is refused, because bodies take {held} bytes on disk already: "
                "raise maxUpload if the application needs more at a time",
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
        """Call a function as soon as all data is kept, or cannot be kept."""
        if self._writing:
            self._kept = call
        else:
            self._file.seek(0)
            call()

    def _fail(self) -> None:
        self.trouble = "the server has no room for the body of this request"
        self._batch = []

    def _writeOn(self) -> None:
        """Have a thread write the waiting data, unless one is writing."""
        if not self._writing:
            self._writing = True
            batch, self._batch, self._waiting = self._batch, [], 0
            self._bodies.jobs.submit("writing a request's body", lambda: self._write(batch))

    def _write(self, batch: list[bytes]) -> None:
        """Write to the disk, in a thread.  The file is the thread's until it reports to the reactor."""
        failed = False
        try:
            file = self._file
            if isinstance(file, BytesIO):
                self._file = TemporaryFile()  # noqa: SIM115
                self._file.write(file.getbuffer())
            self._file.writelines(batch)
            # Otherwise a full disk would show only when a view reads.
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
        """Called by ``twisted.web`` when the request is finished or its client has gone."""
        if not self._closed:
            self._closed = True
            self._batch, self._kept = [], None
            if not self._writing:
                self._disposeSoon()

    def take(self) -> IO[bytes]:
        """
        Give the file to a thread, which calls :meth:`dispose` when it is done.

        From then on :meth:`close` does nothing: ``twisted.web`` calls it when the client goes, and the
        thread may still be reading.
        """
        self._closed = True
        return self._file

    def _disposeSoon(self) -> None:
        if self._onDisk:
            self._bodies.jobs.submit("closing a request's body", self.dispose)
        else:
            self._file.close()

    def dispose(self) -> None:
        """Close the file, in a thread."""
        self._file.close()
        self._bodies.hold(-self._onDisk)
        self._onDisk = 0
