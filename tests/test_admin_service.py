"""
The options of the admin UI, its pages, and the command that hashes a password.
"""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.memory import Exchange, Link, Response
from tests.test_metrics import siteOf
from tests.test_service import ServiceTestCase, parse
from txrealtime import Server, __main__
from txrealtime.engineio.http.site import Beside, EngineSite
from txrealtime.monitor.admin.files import Pages, findPages
from txrealtime.monitor.admin.passwords import Passwords, hashed
from txrealtime.service.application import adminOf, rootOf
from txrealtime.socketio.msgpack import MsgpackParser

INDEX = (
    '<!DOCTYPE html><html><head><title>UI</title><link rel="stylesheet" href="https://fonts.example/x">'
    "<link rel=stylesheet href=//cdn.example/y.css><link href='css/app.css' rel=stylesheet></head>"
    '<body><script src="js/app.js"></script></body></html>'
)


class OptionTests(ServiceTestCase):
    def administer(self, *arguments: str) -> Any:
        """Make a server's admin as twistd does, and return it with the server."""
        options, server = parse(*arguments), Server(reactor=Clock())
        return server, adminOf(options, server)

    def test_withoutTheOption(self) -> None:
        server, admin = self.administer()
        self.assertIsNone(admin)
        self.assertEqual(server.namespaces, [])

    def test_withoutUsers(self) -> None:
        """Nobody opens the server to everybody by leaving an option out."""
        self.assertOneLine("--admin: give --admin-auth FILE", parse, "--admin")
        server, admin = self.administer("--admin", "--admin-auth", "none")
        self.assertIsNotNone(admin)
        self.assertEqual([each.path for each in server.namespaces], ["/admin"])
        self.assertIn("lets in everybody", self.messages[-1])

    def test_othersNeedIt(self) -> None:
        for others in (
            ["--admin-auth", "none"],
            ["--admin-mode", "development"],
            ["--admin-write"],
            ["--admin-ui", "auto"],
        ):
            self.assertOneLine(f"{others[0]} is for --admin", parse, *others)

    def test_mode(self) -> None:
        self.assertOneLine("expected production or development", parse, "--admin-mode", "dev")

    def test_badFiles(self) -> None:
        self.write("admins", "ann:secret\n")
        given = ("--admin", "--admin-auth")
        message = self.assertRefused(self.administer, *given, "admins")
        self.assertIn("admins: line 1: not a hash", message)
        self.assertNotIn("secret", message)
        self.assertOneLine("none-such: No such file", self.administer, *given, "none-such")

    def test_fileOfAnotherFolder(self) -> None:
        """twistd may change its folder between the options and the start."""
        self.write("admins", f"ann:{hashed('x', ln=4)}\n")
        options = parse("--admin", "--admin-auth", "admins")
        os.chdir("/")
        self.assertIsNotNone(adminOf(options, Server(reactor=Clock())))

    def test_namespaceOfTheApplication(self) -> None:
        server = Server(reactor=Clock())
        server.namespace("/admin")
        options = parse("--admin", "--admin-auth", "none")
        self.assertOneLine("--admin: there is a namespace at /admin already", adminOf, options, server)

    def test_sharedPaths(self) -> None:
        """No page hides another."""
        ui = ("--admin", "--admin-auth", "none", "--admin-ui", "auto")
        for problem, *arguments in (
            ("--metrics /a: --health answers at /a/:", "--metrics", "/a", "--health", "/a/"),
            ("--metrics /a/b: --health answers at /a:", "--metrics", "/a/b", "--health", "/a"),
            ("--metrics /a: --health answers at /a/b:", "--metrics", "/a", "--health", "/a/b"),
            ("--metrics /livez: --probes answers at /livez:", "--metrics", "/livez", "--probes"),
            ("--health /readyz/x: --probes answers at /readyz:", "--health", "/readyz/x", "--probes"),
            ("--metrics /admin: --admin-ui answers at /admin:", "--metrics", "/admin", *ui),
            ("--health /admin/x: --admin-ui answers at /admin:", "--health", "/admin/x", *ui),
        ):
            self.assertOneLine(problem, rootOf, parse(*arguments), Server(reactor=Clock()), None)
        for fine in (
            ("--metrics", "/a", "--health", "/ab", "--probes"),
            ("--metrics", "/a", "--health", "/a", "--metrics-listen", "tcp:9090"),
        ):
            rootOf(parse(*fine), Server(reactor=Clock()), None)

    def test_pages(self) -> None:
        options = parse("--admin", "--admin-auth", "none", "--admin-ui", "auto")
        server = Server(reactor=Clock())
        self.assertOneLine("npm install @socket.io/admin-ui", rootOf, options, server, None)
        folder = self.folder / "node_modules/@socket.io/admin-ui/ui/dist"
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(INDEX)
        root, _ = rootOf(options, server, None)
        self.assertIsInstance(root, Beside)
        under = Server("/admin/realtime", reactor=Clock())
        rootOf(options, under, None)
        hiding = Server("/admin", reactor=Clock())
        self.assertOneLine("Socket.IO answers at /admin", rootOf, options, hiding, None)


class PageTests(SynchronousTestCase):
    """The pages in a site, over HTTP."""

    def setUp(self) -> None:
        self.modules = self.mktemp() + "/node_modules"
        self.package = f"{self.modules}/@socket.io/admin-ui"
        self.write(f"{self.package}/ui/dist/index.html", INDEX)
        self.write(f"{self.package}/ui/dist/js/app.js", "run()")
        self.write(f"{self.package}/ui/dist/.secret", "x")
        self.write(f"{self.package}/package.json", "{}")

    def write(self, path: str, text: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def site(self, **options: Any) -> EngineSite:
        server = Server(reactor=Clock(), **options)
        server.startService()
        self.addCleanup(server.stopService)
        return siteOf(server, Beside("/admin", Pages(findPages(self.package), server), Resource()))

    def ask(self, url: str, **options: Any) -> Response:
        link = Link().connect(self.site(**options))
        link.deliver(f"GET {url} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode())
        return Exchange(link).answer

    def head(self, url: str) -> dict[str, str]:
        """Return the headers of a file."""
        link = Link().connect(self.site())
        link.deliver(f"HEAD {url} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode())
        first, *lines = link.take().decode().partition("\r\n\r\n")[0].split("\r\n")
        self.assertEqual(first, "HTTP/1.1 200 OK")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def test_index(self) -> None:
        """Links to other hosts are gone, and the browser is told to keep to this one."""
        page = self.ask("/admin/")
        self.assertEqual(page.status, 200)
        text = page.body.decode()
        self.assertNotIn("example", text)
        self.assertIn("<link href='css/app.css' rel=stylesheet>", text)
        self.assertLess(text.index("server.js"), text.index("js/app.js"))
        self.assertNotIn("mdi/", text)
        policy = page.headers["content-security-policy"]
        self.assertIn("default-src 'none'; script-src 'self';", policy)
        self.assertIn("connect-src 'self'", policy)
        self.assertEqual(page.headers["x-content-type-options"], "nosniff")
        self.assertEqual(self.ask("/admin/index.html").body, page.body)

    def test_icons(self) -> None:
        self.write(f"{self.modules}/@mdi/font/css/materialdesignicons.min.css", "icons")
        self.assertIn('href="mdi/css/materialdesignicons.min.css"', self.ask("/admin/").body.decode())
        # HEAD, as files are sent by the reactor.
        icons = self.head("/admin/mdi/css/materialdesignicons.min.css")
        self.assertEqual((icons["content-length"], icons["content-type"]), ("5", "text/css"))

    def test_others(self) -> None:
        """Files of the pages are served, and none beside them."""
        script = self.head("/admin/js/app.js")
        self.assertEqual((script["content-length"], script["content-type"]), ("5", "text/javascript"))
        self.assertIn("content-security-policy", script)
        for url in (
            "/admin/none",
            "/admin/.secret",
            "/admin/../../package.json",
            "/admin/%2e%2e/%2e%2e/package.json",
        ):
            self.assertEqual(self.ask(url).status, 404, url)

    def test_withoutTheSlash(self) -> None:
        """The pages have relative links, so they need the slash."""
        moved = self.ask("/admin")
        self.assertEqual((moved.status, moved.headers["location"]), (302, "admin/"))

    def test_form(self) -> None:
        """The UI's form is filled in with this server."""
        script = self.ask("/admin/server.js", path="/talk", parser=MsgpackParser()).body.decode()
        [values] = [json.loads(script[script.index("{") : script.index("}") + 1])]
        self.assertEqual(values, {"namespace": "/admin", "path": "/talk", "parser": "msgpack"})
        self.assertIn("server_url: location.origin", script)

    def test_places(self) -> None:
        pages = findPages(self.package)
        self.assertEqual(findPages(str(pages)), pages)
        self.assertRaises(ValueError, findPages, self.modules)
        self.addCleanup(os.chdir, os.getcwd())
        below = f"{self.modules}/../deep/down"
        os.makedirs(below)
        os.chdir(below)
        self.assertEqual(findPages("auto"), pages)
        os.chdir("/")
        error = self.assertRaises(ValueError, findPages, "auto")
        self.assertIn("npm install @socket.io/admin-ui @mdi/font", str(error))


class CommandTests(SynchronousTestCase):
    """``txrealtime password``."""

    def hash(self, name: str, typed: list[str] | str) -> tuple[int, str, str]:
        """Run the command; a list is typed at a terminal, a text comes from standard input."""
        output, errors = StringIO(), StringIO()
        given = StringIO("" if isinstance(typed, list) else typed)
        given.isatty = lambda: isinstance(typed, list)  # type: ignore[method-assign]
        for stream, value in (("stdin", given), ("stdout", output), ("stderr", errors)):
            self.patch(sys, stream, value)
        answers = iter(typed)
        self.patch(__main__, "getpass", lambda prompt: next(answers))
        code = __main__.main(["password", name])
        return code, output.getvalue(), errors.getvalue()

    def test_line(self) -> None:
        for typed in (["pony", "pony"], "pony\n", "pony\r\nrest", "pony"):
            code, line, errors = self.hash("ann", typed)
            self.assertEqual((code, errors), (0, ""))
            name, _, text = line.partition(":")
            self.assertTrue(Passwords({name: text.rstrip("\n")}).check("ann", "pony"))

    def test_refused(self) -> None:
        for name, typed, problem in (
            ("ann", ["pony", "Pony"], "the two passwords differ"),
            ("ann", ["", ""], "a password of 0 characters"),
            ("ann", "", "a password of 0 characters"),
            ("a:b", "pony", "'a:b' is no name for a user"),
            ("#a", "pony", "is no name"),
            (" a", "pony", "is no name"),
            ("", "pony", "is no name"),
        ):
            code, line, errors = self.hash(name, typed)  # type: ignore[arg-type]
            self.assertEqual((code, line), (1, ""))
            self.assertIn(problem, errors)
            self.assertEqual(len(errors.splitlines()), 1)
