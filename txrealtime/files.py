"""
Files of a folder, for everybody.

``twisted.web`` serves files, but with three traps for a public server.  1,000 ranges of one file make 300 MB
of a request of 4 kB, or end in a ``ValueError`` in the reactor with the connection left open.  A FIFO blocks
the reactor when it is opened.  A folder without an index shows its list of files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Any, BinaryIO, Final

from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.static import File

__all__ = ["Folder"]

# One range.  Beyond 18 digits no file has a byte.
_RANGE: Final = re.compile(rb"bytes=(?:\d{1,18}-\d{0,18}|-(\d{1,18}))")


class Folder(File):
    """
    The regular files in a folder, but none that is hidden, and no list of them.

    Of a Range header one range is answered; for several the whole file is sent, as RFC 9110, 14.2 allows.
    """

    indexNames = ["index.html"]

    def getChild(self, path: bytes, request: Request) -> IResource:
        # A hidden file is not meant for others, except for those of RFC 8615.
        if path.startswith(b".") and path != b".well-known":
            return self.childNotFound
        # File makes tracebacks of these.
        if b"\0" in path or not _isUTF8(path):
            return self.childNotFound
        child: Any = super().getChild(path, request)  # type: ignore[no-untyped-call]
        if isinstance(child, Folder) and not (child.isdir() or child.isfile()):
            return self.childNotFound
        found: IResource = child
        return found

    def directoryListing(self) -> IResource:
        return self.childNotFound

    def openForReading(self) -> BinaryIO:
        # Another file may have the name since getChild() looked: never wait for a FIFO's writer.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EACCES, "not a regular file", self.path)
        return os.fdopen(descriptor, "rb")

    def makeProducer(self, request: Request, fileForReading: BinaryIO) -> object:
        wanted = request.getHeader(b"range")
        if wanted is not None and not self._isOneRange(wanted):
            request.requestHeaders.removeHeader(b"range")
        producer: object = super().makeProducer(request, fileForReading)  # type: ignore[no-untyped-call]
        return producer

    def _isOneRange(self, wanted: bytes) -> bool:
        match = _RANGE.fullmatch(wanted.strip())
        # For the last 200 of 100 bytes, which are all, File would seek to before the first.
        size: int = self.getFileSize()  # type: ignore[no-untyped-call]
        return match is not None and (match[1] is None or int(match[1]) <= size)


def _isUTF8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
