"""
A Flask application on this server, with python-socketio's clients and handlers in real threads.
"""

from __future__ import annotations

import json
import os
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop.brokers import Redis
from tests.interop.clients import FOLDER, RealtimeServer, python, untilListening
from tests.interop.environments import OTHERS, environmentOf
from tests.support import ROOT, Program, freePort, startProgram

APP = FOLDER / "py" / "flask_app.py"
SECONDS = float(os.environ.get("CROWD_SECONDS", "10"))
"For how long a crowd has handlers block; two minutes by hand."


class FlaskServer(RealtimeServer):
    """
    flask_app.py, served by twistd.
    """

    def __init__(self, case: TestCase, **environment: str) -> None:
        super().__init__(case, "--app", "flask_app:socketio")
        self.environment = environment

    async def start(self) -> None:
        environment = {"PYTHONPATH": f"{ROOT}:{APP.parent}", **self.environment}
        self.program = startProgram(self._case, self._command, environment=environment)
        await untilListening(self.program, self.port)


class FlaskTests(TestCase):
    timeout = 600

    async def play(self, *urls: str) -> None:
        """Run the whole scenario of a client."""
        client = startProgram(self, python("flask_scenario.py", *urls))
        await client.whenEnded(timeout=240)
        reports = [json.loads(line) for line in client.output.splitlines() if line.startswith('{"step"')]
        self.assertEqual([report["step"] for report in reports if not report["ok"]], [], client.output)
        self.assertEqual(len(reports), 5, client.output)

    async def test_twistd(self) -> None:
        server = FlaskServer(self)
        await server.start()
        await self.play(server.url)
        await server.stop()

    async def test_ordered(self) -> None:
        """With async_handlers=False, and as few threads as there can be."""
        server = FlaskServer(self, ORDERED="yes", THREADS="2")
        await server.start()
        await self.play(server.url)
        await server.stop()

    async def test_twoServers(self) -> None:
        """Two servers share a queue."""
        redis = await Redis(self).start()
        servers = [FlaskServer(self, QUEUE=redis.url) for _ in range(2)]
        for server in servers:
            await server.start()
        await self.play(*[server.url for server in servers])
        for server in servers:
            await server.stop()

    async def run_(self, **environment: str) -> tuple[Program, str]:
        """Start `socketio.run(app)`, and return the program and its URL."""
        port = freePort()
        environment = {"PYTHONPATH": str(ROOT), **environment}
        program = startProgram(self, [sys.executable, str(APP), str(port)], environment=environment)
        await untilListening(program, port)
        return program, f"http://127.0.0.1:{port}"

    async def test_run(self) -> None:
        """SIGTERM ends run() without an error."""
        program, url = await self.run_()
        await program.whenPrinted(f"on {url} (Press CTRL+C to quit)")
        await self.play(url)
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)

    async def test_ownSignalHandlers(self) -> None:
        """An application's handlers are called, and sys.exit() in one ends the server; no second run()."""
        for way, name, code in (
            ("exit", "TERM", 3),
            ("exit", "INT", 3),
            ("interrupt", "HUP", 0),
            ("stop", "TERM", 0),
        ):
            port = freePort()
            command = python("flask_signals.py", str(port), f"SIG{name}", way)
            program = startProgram(self, command, environment={"PYTHONPATH": str(ROOT)})
            await untilListening(program, port)
            program.signal(name)
            self.assertEqual(await program.whenEnded(), code, program.output)
            self.assertIn("own handler", program.output)
            self.assertEqual("run has returned" in program.output, code == 0)
            self.assertEqual("run() has returned once in this process" in program.output, code == 0)

    async def test_eventlet(self) -> None:
        """In a process that eventlet has patched, Ctrl-C and SIGTERM let views end and tell clients."""
        executable = environmentOf(*OTHERS)
        for name in ("INT", "TERM"):
            port = freePort()
            command = [executable, str(FOLDER / "py" / "flask_eventlet.py"), str(port)]
            program = startProgram(self, command, environment={"PYTHONPATH": str(ROOT)})
            await untilListening(program, port)
            url = f"http://127.0.0.1:{port}"
            code = (
                "import socketio; c = socketio.Client(reconnection=False); "
                "c.on('disconnect', lambda reason: print('told', reason, flush=True)); "
                f"c.connect({url!r}, transports=['websocket'], wait_timeout=30); "
                "print(c.call('echo', 'here'), flush=True); c.wait()"
            )
            client = startProgram(self, [sys.executable, "-c", code])
            await client.whenPrinted("here")
            slow = deferToThread(self.get, f"{url}/slow")
            await program.whenPrinted("a slow view begins")
            program.signal(name)
            self.assertEqual(await slow, "slow, but here")
            self.assertEqual(await program.whenEnded(), 0, program.output)
            self.assertIn("run has returned", program.output)
            await client.whenPrinted("told")

    async def test_stop(self) -> None:
        """stop() in a handler makes run() return."""
        program, url = await self.run_()
        code = (
            "import socketio; c = socketio.Client(); "
            f"c.connect({url!r}, wait_timeout=30); c.emit('stop'); c.wait()"
        )
        startProgram(self, [sys.executable, "-c", code])
        self.assertEqual(await program.whenEnded(), 0, program.output)

    def request(self, url: str, **headers: str) -> Request:
        """Make a request for a session, as the page of https://page.example sends it."""
        headers = {"Host": "page.example", "Origin": "https://page.example", **headers}
        return Request(f"{url}/socket.io/?EIO=4&transport=polling", headers=headers)

    async def test_behindTLS(self) -> None:
        """The log names, once, the setting that lets in pages behind a proxy that ends TLS."""
        for headers, setting in (
            ({"X-Forwarded-Proto": "https"}, "set trustedProxies (--trusted-proxy) to the proxy's address"),
            ({}, "set publicURL (--public-url) to 'https://page.example'"),
        ):
            program, url = await self.run_()
            for _ in range(2):
                with self.assertRaises(HTTPError) as caught:
                    await deferToThread(urlopen, self.request(url, **headers), timeout=30)
                self.assertEqual(caught.exception.code, 403)
                self.assertIn(setting, json.load(caught.exception)["message"])
            await program.whenPrinted(setting)
            await program.stop()
            self.assertEqual(program.output.count(setting), 1, program.output)

    async def test_behindTrustedTLS(self) -> None:
        """With the settings that the log names, the pages come in."""
        for environment in ({"TRUSTED": "127.0.0.1"}, {"PUBLIC_URL": "https://page.example"}):
            program, url = await self.run_(**environment)
            forwarded = {"X-Forwarded-Proto": "https"}
            body = await deferToThread(self.get, self.request(url, **forwarded))
            self.assertTrue(body.startswith("0{"), body)
            await program.stop()

    def get(self, url: str | Request) -> str:
        """Return the body at a URL; call this in a thread."""
        with urlopen(url, timeout=30) as response:
            body: bytes = response.read()
            return body.decode()

    async def test_stopInAView(self) -> None:
        """The responses of this view and of slower ones arrive before the end."""
        program, url = await self.run_()
        slow = deferToThread(self.get, f"{url}/slow")
        await program.whenPrinted("a slow view begins")
        self.assertEqual(await deferToThread(self.get, f"{url}/stop"), "slow, but here")
        self.assertEqual(await slow, "slow, but here")
        self.assertEqual(await program.whenEnded(), 0, program.output)

    async def test_terminatedInAView(self) -> None:
        server = FlaskServer(self)
        await server.start()
        response = deferToThread(self.get, f"{server.url}/slow")
        await server.program.whenPrinted("a slow view begins")
        await server.stop()
        self.assertEqual(await response, "slow, but here")

    async def test_stuckView(self) -> None:
        """A view that never returns does not keep the server from ending."""
        program, url = await self.run_()
        response = deferToThread(self.get, f"{url}/stuck")
        await program.whenPrinted("a stuck view begins")
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertIn("run has returned", program.output)
        self.assertRegex(program.output, r"view-\d+ is left behind: GET /stuck has run for")
        with self.assertRaises(OSError):
            await response

    async def test_debug(self) -> None:
        """Under the reloader too, stop() makes run() return, and a port that is taken ends it."""
        program, url = await self.run_(DEBUG="yes")
        second = [sys.executable, str(APP), url.rpartition(":")[2]]
        other = startProgram(self, second, environment={"PYTHONPATH": str(ROOT), "DEBUG": "yes"})
        self.assertEqual(await other.whenEnded(), 1, other.output)
        self.assertIn("Address already in use", other.output)
        self.assertEqual(await deferToThread(self.get, f"{url}/stop"), "slow, but here")
        self.assertEqual(await program.whenEnded(), 0, program.output)
        self.assertIn("run has returned", program.output)

    async def test_stuckHandler(self) -> None:
        """A handler that never returns does not keep the server from ending: the log names it."""
        server = FlaskServer(self)
        await server.start()
        code = (
            "import socketio; c = socketio.Client(); c.on('is stuck', lambda: print('stuck', flush=True)); "
            f"c.connect({server.url!r}, wait_timeout=30); c.emit('stuck'); c.wait()"
        )
        await startProgram(self, [sys.executable, "-c", code]).whenPrinted("stuck")
        await server.stop()
        self.assertRegex(server.program.output, r"handler-\d+ is left behind: / 'stuck' has run for")

    async def test_crowd(self) -> None:
        """While the handlers of 200 clients block, others are answered, and nobody is lost."""
        server = FlaskServer(self)
        await server.start()
        crowd = startProgram(self, python("flask_crowd.py", server.url, str(SECONDS), "200"))
        report = json.loads(await crowd.whenPrinted('{"lost"', timeout=SECONDS + 240))
        self.assertEqual((report["lost"], report["errors"]), (0, []), crowd.output)
        self.assertGreater(report["fewest"], 0)
        self.assertGreater(report["poller"], 0)
        await server.stop()

    async def test_flaskRun(self) -> None:
        """Flask's own command serves the application, with the reloader too, and other applications."""
        for app, options in (
            ("flask_app", []),
            ("flask_app", ["--debug"]),
            ("gunicorn_app:bare", []),
        ):
            port = freePort()
            command = [sys.executable, "-m", "flask", "--app", app, "run", "--port", str(port), *options]
            program = startProgram(self, command, environment={"PYTHONPATH": f"{ROOT}:{APP.parent}"})
            await untilListening(program, port)
            if app == "flask_app":
                await self.play(f"http://127.0.0.1:{port}")
            else:
                await program.whenPrinted("WARNING: This is a development server")
            await program.stop()
            self.assertNotIn("Traceback", program.output)

    async def test_appRun(self) -> None:
        """app.run() serves Socket.IO too."""
        port = freePort()
        code = f"import flask_app; flask_app.app.run(port={port}, debug=False, threaded=True)"
        environment = {"PYTHONPATH": f"{ROOT}:{APP.parent}"}
        program = startProgram(self, [sys.executable, "-c", code], environment=environment)
        await untilListening(program, port)
        await self.play(f"http://127.0.0.1:{port}")
        program.signal("TERM")
        self.assertEqual(await program.whenEnded(), 0, program.output)
