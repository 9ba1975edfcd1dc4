"""
The Flask chapters of the guide: each program of docs/examples/guide, run and visited.
"""

from __future__ import annotations

from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, Window, webdriver
from tests.interop.clients import FOLDER, requireJavaScriptClient
from tests.interop.visitors import GUIDE, GuideTestCase
from tests.support import requirePart

CDN = "https://cdn.jsdelivr.net/npm/socket.io-client@4.8.4/dist/socket.io.min.js"


class InitializationTests(GuideTestCase):
    def test_initialization(self) -> None:
        """The page comes from Flask, and events by polling and by WebSocket."""
        self.serve("initialization")
        self.assertEqual(self.browser().get(self.url).text, (GUIDE / "page.html").read_text())
        for transport in ("polling", "websocket"):
            client = self.visitor(transport=transport)
            client.emit("my event", {"data": "Größe"})
            self.assertEqual(client.next(), ("my response", {"heard": {"data": "Größe"}}))

    def test_browser(self) -> None:
        """The page works in a browser, with the client from npm in place of the one from the network."""
        requirePart(webdriver, "selenium is not installed")
        requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
        requireJavaScriptClient("socket.io-client-4")
        bundle = FOLDER / "node_modules" / "socket.io-client-4" / "dist" / "socket.io.min.js"
        script = bundle.read_text("utf-8").replace("</script", "<\\/script")
        self.serve("initialization")
        page = self.folder / "page.html"
        page.write_text(page.read_text().replace(f' src="{CDN}">', f">{script}"))
        window = Window(self.url, str(self.folder / "browser"), DESKTOP)
        self.addCleanup(window.driver.quit)
        window.driver.get(window.url)
        window.sees("li", "connected", 'my response: {"heard":{"data":"I\'m connected!"}}')
        self.assertEqual(window.complaints(), [])


class ReceivingTests(GuideTestCase):
    def test_receiving(self) -> None:
        """Both styles of registration; text, JSON, bytes, and several arguments."""
        self.serve("receiving")
        client = self.visitor()
        for event, *args in (
            ("message", "hello"),
            ("json", {"a": [1, None, True]}),
            ("my event", b"\x00\xff"),
            ("my event", 42),
            ("my arguments", "one", 2, {"three": 3}),
            ("my_named_event", "x"),
            ("my other event", ["y"]),
        ):
            # Acked, so one is handled before the next.
            self.assertIsNone(client.call(event, *args))
        self.assertEqual(
            client.call("report"),
            [
                ["message", "hello"],
                ["json", {"a": [1, None, True]}],
                ["my event", "b'\\x00\\xff'"],
                ["my event", 42],
                ["my arguments", "one", 2, {"three": 3}],
                ["my_named_event", "x"],
                ["my other event", ["y"]],
            ],
        )

    def test_namespaces(self) -> None:
        self.serve("namespaces")
        client = self.visitor("/", "/test", "/class")
        for path, who in (
            ("/", "the default namespace, /"),
            ("/test", "by a decorator, /test"),
            ("/class", "by a class, /class"),
        ):
            self.assertEqual(client.call("who", namespace=path), who)
        self.assertEqual(client.next("/class"), ("news", "somebody came"))
        self.assertEqual(client.call("both", namespace="/class"), "by the decorator")
        client.emit("no such event", 1, namespace="/class")
        client.emit("my_event", {"data": 1}, namespace="/class")
        self.assertEqual(client.next("/class"), ("my response", {"data": 1}))
        self.assertEqual([client.left(path) for path in ("/", "/test", "/class")], [[], [], []])
        self.assertIn("/nowhere", self.refused("/nowhere"))


class SendingTests(GuideTestCase):
    def test_sending(self) -> None:
        self.serve("sending")
        client = self.visitor("/", "/chat", answers={"question": lambda text: (text.upper(), 2)})
        other = self.visitor("/", "/chat")
        for event, data in (("message", "hello"), ("json", {"a": [1]})):
            client.emit(event, data)
            self.assertEqual(client.next(), (event, data))
        client.emit("my event", {"data": b"bytes"})
        self.assertEqual(client.next(), ("my response", {"data": b"bytes"}))

        client.emit("to the chat", "hello")
        for each in (client, other):
            came = [each.next("/chat"), each.next("/chat")]
            self.assertEqual(came, [("message", "hello"), ("my response", "hello")])

        client.emit("my arguments", {"c": 1})
        self.assertEqual(client.next(), ("my response", "foo", "bar", {"c": 1}))
        self.assertEqual(client.next(), ("my response", ["foo", "bar", {"c": 1}]))
        self.assertEqual(other.left(), [])

    def test_acks(self) -> None:
        """Both sides ack events of the other."""
        self.serve("sending")
        client = self.visitor(answers={"question": lambda text: (text.upper(), 2)})
        silent = self.visitor()
        self.assertEqual(client.call("acknowledge", {}), ("one", 2))
        self.assertIsNone(client.call("acknowledge without a value"))
        client.emit("ask me", "why?")
        self.assertEqual([client.next(), client.next()], [("question", "why?"), ("thanks", 2)])
        self.assertEqual(client.call("ask me and wait", "how?"), ("HOW?", 2))
        silent.emit("ask me", "why?")
        self.assertEqual([silent.next(), silent.next()], [("question", "why?"), ("thanks", 0)])


class BroadcastingTests(GuideTestCase):
    def test_everybodyAnswers(self) -> None:
        self.serve("broadcasting")
        ada = self.visitor(answers={"question": lambda text: f"Ada to {text}"})
        grace = self.visitor(answers={"question": lambda text: f"Grace to {text}"})
        ada.emit("ask everybody", "why?")
        self.assertEqual(grace.next(), ("question", "why?"))
        came = [ada.next() for _ in range(3)]
        self.assertEqual(came.pop(0), ("question", "why?"))
        self.assertEqual(sorted(came), [("answered", "Ada to why?"), ("answered", "Grace to why?")])
        self.assertEqual(grace.left(), [])

    def test_broadcasting(self) -> None:
        """A handler, a view and a thread broadcast."""
        self.serve("broadcasting")
        ada, grace = self.visitor(), self.visitor(transport="polling")
        ada.emit("my event", {"data": 1})
        for each in (ada, grace):
            self.assertEqual(each.next(), ("my response", {"data": 1}))
        ada.emit("message", "hello")
        self.assertEqual(grace.next(), ("message", "hello"))

        self.assertEqual(self.browser().post(f"{self.url}/announce").text, "announced\n")
        for each in (ada, grace):
            self.assertEqual(each.next(), ("some event", {"data": 42}))

        self.assertEqual(ada.call("start counting"), "counting")
        self.assertEqual(grace.call("start counting"), "counting already")
        for each in (ada, grace):
            came = [each.next() for _ in range(4)]
            self.assertEqual(came, [("count", 0), ("count", 1), ("count", 2), ("message", "done")])


class RoomsTests(GuideTestCase):
    def test_rooms(self) -> None:
        self.serve("rooms")
        ada, grace, eve = self.visitor(), self.visitor(), self.visitor()
        ada.call("join", {"username": "Ada", "room": "red"})
        grace.call("join", {"username": "Grace", "room": "red"})
        entered = [("message", f"{name} has entered the room.") for name in ("Ada", "Grace")]
        self.assertEqual([ada.next(), ada.next()], entered)
        self.assertEqual(grace.next(), entered[1])
        self.assertEqual(grace.call("rooms"), ["red"])

        ada.call("tell", "red", "hello")
        self.assertEqual(grace.next(), ("message", "hello"))
        eve.call("whisper", ada.sid(), "psst")
        self.assertEqual(ada.next(), ("whispered", eve.sid(), "psst"))
        self.browser().post(f"{self.url}/rooms/red")
        for each in (ada, grace):
            self.assertEqual(each.next(), ("message", "from outside"))

        grace.call("leave", {"username": "Grace", "room": "red"})
        self.assertEqual(ada.next(), ("message", "Grace has left the room."))
        ada.call("close", "red")
        self.assertEqual(ada.next(), ("message", "This room closes."))
        self.assertEqual(ada.call("rooms"), [])
        eve.call("tell", "red", "nobody is there")
        # Acked or asked for, so all that was sent before has come.
        self.assertEqual([each.call("rooms") and each.left() for each in (ada, grace, eve)], [[], [], []])
        self.assertEqual([each.left() for each in (ada, grace, eve)], [[], [], []])


class ConnectingTests(GuideTestCase):
    def test_connecting(self) -> None:
        self.serve("connecting")
        watcher = self.visitor()
        self.assertEqual(watcher.next(), ("my response", {"data": "connected"}))

        client = self.visitor("/", "/chat", auth={"token": "sesame"})
        self.assertEqual(client.next(), ("my response", {"data": "connected"}))
        self.assertEqual(client.next("/chat"), ("my response", {"data": 42}))
        # Each namespace has its own end.
        client.emit("go away")
        self.assertEqual(watcher.next(), ("left", "/", "server disconnect"))
        client.close()
        # Which of the two, depends on whether the client's goodbye has left before it closes.
        self.assertIn(watcher.next()[2], ("client disconnect", "transport close"))

        for auth in (None, {"token": "wrong"}):
            self.assertIn("/chat", self.refused("/chat", auth=auth))

    def test_whyRefused(self) -> None:
        self.serve("connecting")
        client = self.visitor()
        self.assertEqual(client.next(), ("my response", {"data": "connected"}))
        import socketio

        from tests.interop.py.orderly import Client

        told = []
        other = Client(reconnection=False)
        other.on("connect_error", told.append, namespace="/members")
        with self.assertRaises(socketio.exceptions.ConnectionError):
            other.connect(
                self.url, namespaces=["/members"], transports=["websocket"], wait_timeout=30, retry=False
            )
        self.assertEqual(told, [{"message": "members only", "data": {"register at": "/register"}}])


class ErrorsTests(GuideTestCase):
    def test_errors(self) -> None:
        self.serve("errors")
        client = self.visitor("/", "/chat", "/other")
        self.assertEqual(client.call("divide", 6, 3), 2)
        for path, handler, answer in (
            ("/", "of /", None),
            ("/chat", "of /chat", "sorry"),
            ("/other", "default", None),
        ):
            self.assertEqual(client.call("divide", 1, 0, namespace=path), answer)
            self.assertEqual(client.next(path), ("failed", handler, "ZeroDivisionError", "divide", [1, 0]))
        # It goes on.
        self.assertEqual(client.call("divide", 9, 3), 3)


class ContextsTests(GuideTestCase):
    def test_contexts(self) -> None:
        """Handlers have Flask's contexts, and the hooks of requests do not run."""
        self.serve("contexts")
        self.url += "?colour=red"
        client = self.visitor(headers={"User-Agent": "visitor"})
        for _ in range(2):
            self.assertEqual(
                client.call("describe", 1, "two"),
                {
                    "app": "contexts",
                    "g": 1,
                    "sid": client.sid(),
                    "namespace": "/",
                    "event": {"message": "describe", "args": [1, "two"]},
                    "path": "/socket.io/",
                    "query": "red",
                    "agent": "visitor",
                },
            )
        hooks = self.browser().get(self.url.replace("?colour=red", "/hooks")).json()
        self.assertEqual(hooks, ["/hooks"])

    def test_forkedSession(self) -> None:
        """A handler sees the session as of the connection, and handlers share their changes."""
        self.serve("contexts")
        browser = self.browser()
        browser.post(f"{self.url}/session", {"name": "Ada"})
        client = self.visitor(http=browser)
        self.assertEqual(client.call("session", {"room": "red"}), {"name": "Ada", "room": "red"})
        browser.post(f"{self.url}/session", {"name": "Grace"})
        self.assertEqual(browser.get(f"{self.url}/session").json(), {"name": "Grace"})
        self.assertEqual(client.call("session", {"more": 1}), {"name": "Ada", "room": "red", "more": 1})
        self.assertEqual(self.visitor(http=browser).call("session", {}), {"name": "Grace"})

    def test_sharedSession(self) -> None:
        """Views and handlers see the changes of a session that is kept on the server."""
        self.serve("shared_session")
        browser = self.browser()
        browser.post(f"{self.url}/session", {"name": "Ada"})
        client = self.visitor(http=browser)
        self.assertEqual(client.call("session", {"room": "red"})["room"], "red")
        shown = browser.get(f"{self.url}/session").json()
        self.assertEqual((shown["name"], shown["room"]), ("Ada", "red"))
        browser.post(f"{self.url}/session", {"name": "Grace"})
        self.assertEqual(client.call("session", {})["name"], "Grace")


class AuthenticationTests(GuideTestCase):
    def test_authentication(self) -> None:
        """Handlers know the user of a login over HTTP."""
        self.serve("authentication")
        browser = self.browser()
        self.assertIn("/", self.refused(http=browser))
        wrong = browser.post(f"{self.url}/login", {"name": "ada", "password": "x"})
        self.assertEqual(wrong.status_code, 401)
        browser.post(f"{self.url}/login", {"name": "ada", "password": "engine"})
        ada = self.visitor("/", "/public", http=browser)
        self.assertEqual(ada.next(), ("my response", {"message": "ada has joined"}))

        nobody = self.visitor("/public")
        ada.emit("my event", "hello", namespace="/public")
        for each in (ada, nobody):
            self.assertEqual(each.next("/public"), ("my response", {"message": "ada says hello"}))
        # The decorator disconnects who is not logged in.
        nobody.emit("my event", "hello", namespace="/public")
        nobody.client.eio.wait()
        self.assertEqual(ada.left("/public"), [])
        browser.post(f"{self.url}/logout")
        self.assertIn("/", self.refused(http=browser))
