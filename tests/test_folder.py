"""
The folder of a supervisor: it goes with the last process that holds it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txrealtime.workers import folder
from txrealtime.workers.folder import Folder, holdFolder, removeStale


def made() -> Folder:
    """Return a folder that was made."""
    folder = Folder()
    folder.make()
    return folder


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.parent = Path(self.mktemp()).resolve()
        self.parent.mkdir()
        self.patch(tempfile, "tempdir", str(self.parent))

    def names(self) -> set[str]:
        removeStale()
        return set(os.listdir(self.parent))

    def killed(self) -> Path:
        """Return the folder of a supervisor that was killed, with a socket and a file in it."""
        killed = made()
        os.close(killed._lock)
        for name in ("hub", "AAAB.counts"):
            (Path(killed.path) / name).touch()
        return Path(killed.path)

    def test_life(self) -> None:
        """A folder is this user's alone, stays while its process lives, and goes at the end."""
        living = made()
        self.assertEqual(os.stat(living.path).st_mode & 0o777, 0o700)
        self.assertFalse(os.get_inheritable(living._lock))
        self.assertEqual(self.names(), {os.path.basename(living.path)})
        living.remove()
        self.assertEqual(self.names(), set())
        self.assertRaises(OSError, os.fstat, living._lock)
        living.remove()

    def test_stale(self) -> None:
        """A folder that nobody holds is removed, and no other one."""
        living, dead = made(), self.killed()
        self.addCleanup(living.remove)
        self.assertTrue(dead.exists())
        self.assertEqual(self.names(), {os.path.basename(living.path)})

    def test_worker(self) -> None:
        """The folder of a killed supervisor stays while one of its workers lives."""
        path = self.killed()
        worker, another = holdFolder(str(path)), holdFolder(str(path))
        os.close(another)
        self.assertEqual(self.names(), {path.name})
        os.close(worker)
        self.assertEqual(self.names(), set())
        self.assertRaises(FileNotFoundError, holdFolder, str(path))

    def test_others(self) -> None:
        """Folders of other users and programs, and links, stay."""
        kept = {"txrealtime-abcdefgh", "txrealtime-12345678", "txrealtime", "txrealtime-abcdefgh.old"}
        for name in kept:
            (self.parent / name).mkdir()
        (self.parent / "txrealtime" / "alive").touch()
        (self.parent / "txrealtime-abcdefgh.old" / "alive").touch()
        (self.parent / "txrealtime-00000000").symlink_to(self.parent / "txrealtime")
        (self.parent / "txrealtime-12345678" / "alive").symlink_to(self.parent / "txrealtime" / "alive")
        theirs = self.killed()
        with patch.object(os, "geteuid", lambda: os.getuid() + 1):
            self.assertEqual(self.names(), kept | {theirs.name, "txrealtime-00000000"})
        self.assertEqual(self.names(), kept | {"txrealtime-00000000"})
        self.assertTrue((self.parent / "txrealtime" / "alive").exists())

    def test_race(self) -> None:
        """A folder that is removed between its making and its lock is replaced by another one."""
        moments = ["before the file", "before the lock", "after the lock"]
        hold = folder.holdFolder

        def removedMeanwhile(path: str) -> int:
            moment = moments.pop(0) if moments else ""
            if moment == "before the file":
                os.rmdir(path)
            elif moment == "before the lock":
                os.close(hold(path))
                other = folder._locked(path, folder.fcntl.LOCK_EX)
                self.addCleanup(os.close, other)
            lock = hold(path)
            if moment == "after the lock":
                os.unlink(os.path.join(path, "alive"))
            return lock

        with patch.object(folder, "holdFolder", removedMeanwhile):
            living = made()
        self.assertEqual(moments, [])
        self.assertTrue((Path(living.path) / "alive").exists())
        living.remove()

    def test_noFolder(self) -> None:
        """A folder for temporary files that cannot be read keeps no supervisor from starting."""
        self.patch(tempfile, "tempdir", str(self.parent / "nothing"))
        removeStale()
