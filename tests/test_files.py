"""
Files for everybody: only regular ones, and each at most once for a request.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from txrealtime.chat import page
from txrealtime.files import Folder

SIZE = 300_000
CONTENT = bytes(range(250)) * (SIZE // 250)


class FolderTestCase(SynchronousTestCase):
    """
    Tests of requests for the files in a folder.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "data.bin").write_bytes(CONTENT)
        self.root: Any = Folder(str(self.folder), "application/octet-stream")

    def get(self, path: str, wanted: str = "") -> tuple[int, bytes]:
        """Return the status and the body of a request, which may have a Range header."""
        request: Any = DummyRequest(path.encode().split(b"/")[1:])
        if wanted:
            request.requestHeaders.setRawHeaders("range", [wanted.encode("latin-1")])
        resource = self.root
        while request.postpath:
            resource = resource.getChildWithDefault(request.postpath.pop(0), request)
        body = resource.render(request)
        if isinstance(body, bytes):
            request.write(body)
        return request.responseCode or 200, b"".join(request.written)

    def status(self, path: str) -> int:
        return self.get(path)[0]


class RangeTests(FolderTestCase):
    def test_one(self) -> None:
        for wanted, begin, end in (
            ("bytes=0-", 0, SIZE),
            ("bytes=100-199", 100, 200),
            ("bytes=-50", SIZE - 50, SIZE),
            (f"bytes=-{SIZE}", 0, SIZE),
            (f"bytes=299999-{10**17}", 299_999, SIZE),
        ):
            self.assertEqual(self.get("/data.bin", wanted), (206, CONTENT[begin:end]), wanted)

    def test_beyondTheFile(self) -> None:
        for wanted in ("bytes=300000-", "bytes=400000-500000", "bytes=-0"):
            self.assertEqual(self.get("/data.bin", wanted)[0], 416, wanted)

    def test_several(self) -> None:
        """A file is sent once, however often it is asked for."""
        for wanted in (
            "bytes=" + ",".join(["0-"] * 1000),
            "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)),
            "bytes=0-1,5-6",
            "bytes=0-65400,0-65400,0-65400",
            "bytes=0-,400000-",
        ):
            status, body = self.get("/data.bin", wanted)
            self.assertEqual((status, len(body)), (200, SIZE), wanted[:40])

    def test_malformed(self) -> None:
        """A range that is none is no reason for an error, in the answer or in the log."""
        for wanted in (
            "bytes=",
            "bytes",
            "bytes=-",
            "bytes=5-2",
            "lines=1-2",
            "bytes=a-b",
            "bytes=--5",
            "bytes=\xff-",
            f"bytes=-{SIZE + 1}",
            f"bytes=0-{'9' * 5000}",
        ):
            status, body = self.get("/data.bin", wanted)
            self.assertEqual((status, len(body)), (200, SIZE), wanted[:40])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_theChat(self) -> None:
        """Its pages are files as well."""
        self.root = page()
        whole = self.get("/chat.js")
        self.assertGreater(len(whole[1]), 1000)
        self.assertEqual(self.get("/chat.js", "bytes=" + ",".join(["0-"] * 1000)), whole)


class RegularTests(FolderTestCase):
    def test_fifo(self) -> None:
        """The open of a FIFO waits for a writer: the test would hang here."""
        os.mkfifo(self.folder / "fifo")
        self.assertEqual(self.status("/fifo"), 404)

    def test_fifoAsIndex(self) -> None:
        os.mkfifo(self.folder / "index.html")
        self.assertEqual(self.status("/"), 404)

    def test_links(self) -> None:
        """A symbolic link is followed to a file, and not to a FIFO or a device."""
        os.mkfifo(self.folder / "fifo")
        (self.folder / "to-fifo").symlink_to("fifo")
        (self.folder / "to-null").symlink_to(os.devnull)
        (self.folder / "to-nothing").symlink_to("nothing")
        (self.folder / "to-data").symlink_to("data.bin")
        for name in ("to-fifo", "to-null", "to-nothing"):
            self.assertEqual(self.status(f"/{name}"), 404, name)
        self.assertEqual(self.status("/to-data"), 200)

    def test_replacedMeanwhile(self) -> None:
        """A FIFO that takes the place of a file after the look at it: refused, and not waited for."""
        child = self.root.getChild(b"data.bin", None)
        (self.folder / "data.bin").unlink()
        os.mkfifo(self.folder / "data.bin")
        self.assertRaises(PermissionError, child.openForReading)

    def test_folders(self) -> None:
        (self.folder / "deep").mkdir()
        (self.folder / "deep" / "file").write_text("deep")
        self.assertEqual(self.get("/deep/file"), (200, b"deep"))
        self.assertEqual(self.status("/deep/"), 404)
