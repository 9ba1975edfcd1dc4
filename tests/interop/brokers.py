"""
Message brokers for tests: redis-server and RabbitMQ, each on a free port, with its data in its own folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.clients import untilListening
from tests.support import freePort, requirePart, startProgram

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/rabbitmq/bin"])
"Where Debian keeps them."

REDIS = shutil.which("redis-server", path=PATH)
REDIS_CLI = shutil.which("redis-cli", path=PATH)
EPMD = shutil.which("epmd", path=PATH)
# Not the one in /usr/sbin, which starts this as another user.
RABBITMQ = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin")


class Redis:
    """
    A redis-server, on the same port each time it is started.

    :param options: settings as in redis.conf: `requirepass="secret"`, underscores for hyphens.
    """

    def __init__(self, case: TestCase, **options: str) -> None:
        requirePart(REDIS and REDIS_CLI, "no redis-server: apt install redis-server")
        self.port = freePort()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._case = case
        self._password = options.get("requirepass")
        self._folder = tempfile.mkdtemp()
        case.addCleanup(shutil.rmtree, self._folder, True)
        settings = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": self._folder, **options}
        self._command = [str(REDIS)]
        for name, value in settings.items():
            self._command += [f"--{name.replace('_', '-')}", *(value.split(" ") if value else [""])]

    async def start(self) -> Redis:
        """Start it, and wait until it takes connections."""
        self.program = startProgram(self._case, self._command, cwd=self._folder)
        await untilListening(self.program, int(self.url.rpartition(":")[2]))
        return self

    async def stop(self) -> None:
        """End it, as a crash does."""
        self.program.signal("KILL")
        await self.program.whenEnded()

    async def cli(self, *command: str) -> str:
        """What it answers to a command of redis-cli; AssertionError when it is an error."""
        password = ["--no-auth-warning", "-a", self._password] if self._password else []
        cli = startProgram(self._case, [str(REDIS_CLI), "-e", "-p", str(self.port), *password, *command])
        code = await cli.whenEnded()
        self._case.assertEqual(code, 0, cli.output)
        return cli.output.strip()


class RabbitMQ:
    """
    A RabbitMQ, on the same port each time it is started, with the user guest.  It takes ten seconds to start.

    It is for several tests: whoever made it stops it.
    """

    def __init__(self) -> None:
        requirePart(RABBITMQ and EPMD, "no RabbitMQ: apt install rabbitmq-server")
        self.port = freePort()
        self.url = f"amqp://127.0.0.1:{self.port}"
        self._folder = Path(tempfile.mkdtemp())
        names = freePort()
        self._epmd = [str(EPMD), "-address", "127.0.0.1", "-port", str(names)]
        (self._folder / "rabbitmq.conf").write_text(
            "loopback_users = none\nlog.console = true\nlog.file = false\n"
        )
        (self._folder / "plugins").write_text("[].")
        self._environment = {
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "RABBITMQ_DIST_PORT": str(freePort()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_LOG_BASE": str(self._folder),
            "RABBITMQ_MNESIA_BASE": str(self._folder),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            # One scheduler: it shares a small machine with the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }

    async def start(self) -> RabbitMQ:
        """Start it, and wait until it takes connections."""
        self.names = startProgram(None, self._epmd)
        self.program = startProgram(None, [str(RABBITMQ)], environment=self._environment)
        await self.program.whenPrinted("Server startup complete", timeout=120)
        return self

    async def stop(self) -> None:
        """End it, as a crash does."""
        for program in (self.program, self.names):
            program.signal("KILL")
            await program.whenEnded()

    def remove(self) -> None:
        """Take its data away, after the last stop."""
        shutil.rmtree(self._folder, ignore_errors=True)
