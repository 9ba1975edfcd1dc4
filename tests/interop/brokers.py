"""
Message brokers for tests: redis-server and RabbitMQ, each on a free port, with its data in its own folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.interop.clients import untilListening
from tests.support import freePort, requirePart, startProgram

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/rabbitmq/bin"])
"The folder of RabbitMQ's programs on Debian."

REDIS = shutil.which("redis-server", path=PATH)
REDIS_CLI = shutil.which("redis-cli", path=PATH)
EPMD = shutil.which("epmd", path=PATH)
# Not the program in /usr/sbin, which starts this one as another user.
RABBITMQ = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin")
RABBITMQCTL = shutil.which("rabbitmqctl", path="/usr/lib/rabbitmq/bin")


def pauseProcess(pid: int) -> None:
    """Stop a child process, and wait until all its threads have stopped: one may answer yet."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


class Redis:
    """
    A redis-server, on the same port each time it is started.

    :param options: settings as in redis.conf: `requirepass="secret"`, underscores for hyphens.
    """

    def __init__(self, case: TestCase, **options: str) -> None:
        requirePart(REDIS and REDIS_CLI, "no redis-server: apt install redis-server")
        self.port = freePort()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.folder = tempfile.mkdtemp()
        self.options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "dir": self.folder,
            **options,
        }
        self._case = case
        case.addCleanup(shutil.rmtree, self.folder, True)

    async def start(self) -> Redis:
        """Start Redis, and wait until it takes connections."""
        command = [str(REDIS)]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", *(value.split(" ") if value else [""])]
        self.program = startProgram(self._case, command, cwd=self.folder)
        await untilListening(self.program, self.port)
        return self

    async def startSentinel(self, service: str, master: Redis) -> Redis:
        """Start Redis as a Sentinel, which alone decides that a master is gone."""
        configuration = Path(self.folder) / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {service} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {service} 4000\nsentinel failover-timeout {service} 5000\n"
        )
        self.program = startProgram(self._case, [str(REDIS), str(configuration), "--sentinel"])
        await untilListening(self.program, self.port)
        return self

    async def stop(self) -> None:
        """Kill Redis, like a crash."""
        self.program.signal("KILL")
        await self.program.whenEnded()

    def pause(self) -> None:
        """Suspend Redis, which keeps its connections."""
        pauseProcess(self.program.transport.pid)

    def resume(self) -> None:
        """Resume Redis."""
        os.kill(self.program.transport.pid, signal.SIGCONT)

    async def cli(self, *command: str) -> str:
        """Return Redis's answer to a command of redis-cli; raise AssertionError if it is an error."""
        secret = self.options.get("requirepass")
        password = ["--no-auth-warning", "-a", secret] if secret else []
        cli = startProgram(self._case, [str(REDIS_CLI), "-e", "-p", str(self.port), *password, *command])
        code = await cli.whenEnded()
        self._case.assertEqual(code, 0, cli.output)
        return cli.output.strip()


class RabbitMQ:
    """
    A RabbitMQ, on the same port each time it is started, with the user guest.

    It takes ten seconds to start, so tests share one: see :func:`rabbitMQ`.  Its output is a file and not a
    pipe, as trial wants the reactor to have nothing left when a class of tests is over.
    """

    def __init__(self) -> None:
        requirePart(RABBITMQ and EPMD, "no RabbitMQ: apt install rabbitmq-server")
        self.port = freePort()
        self.url = f"amqp://127.0.0.1:{self.port}"
        self.running: list[subprocess.Popen[bytes]] = []
        self._folder = Path(tempfile.mkdtemp())
        names = freePort()
        self._epmd = [str(EPMD), "-address", "127.0.0.1", "-port", str(names)]
        (self._folder / "rabbitmq.conf").write_text("log.console = true\nlog.file = false\n")
        (self._folder / "plugins").write_text("[].")
        self._log = self._folder / "log"
        self._environment = {
            **os.environ,
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(names),
            # Otherwise a shell stands between, and a signal to the shell does not reach RabbitMQ.
            "RABBITMQ_ALLOW_INPUT": "1",
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
            # One scheduler: RabbitMQ shares a small machine with the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }
        atexit.register(self._remove)

    async def start(self, timeout: float = 180.0) -> RabbitMQ:
        """Start RabbitMQ, and wait until it takes connections.  If it runs, do nothing."""
        if self.running:
            return self
        with self._log.open("wb") as log:
            for command in (self._epmd, [str(RABBITMQ)]):
                self.running.append(
                    # It reads from the pipe, and ends with the pipe, so it does not outlive the tests.
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment
                    )
                )
        deadline = reactor.seconds() + timeout
        while "Server startup complete" not in self._log.read_text("utf-8", "replace"):
            if self.running[-1].poll() is not None or reactor.seconds() > deadline:
                self.stop()
                raise AssertionError(f"RabbitMQ did not start:\n{self._log.read_text('utf-8', 'replace')}")
            await deferLater(reactor, 0.1)
        return self

    def stop(self) -> None:
        """Kill RabbitMQ, like a crash."""
        while self.running:
            process = self.running.pop()
            process.kill()
            process.wait()
            process.stdin.close()

    def pause(self) -> None:
        """Suspend RabbitMQ, which keeps its connections."""
        pauseProcess(self.running[-1].pid)

    def resume(self) -> None:
        """Resume RabbitMQ."""
        self.running[-1].send_signal(signal.SIGCONT)

    async def control(self, *arguments: str) -> None:
        """Call rabbitmqctl."""
        command = [str(RABBITMQCTL), "--quiet", *arguments]
        output, errors, code = await getProcessOutputAndValue(command[0], command[1:], self._environment)
        if code:
            raise AssertionError(f"{command} failed: {(output + errors).decode()}")

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


_shared: list[RabbitMQ] = []


async def rabbitMQ() -> RabbitMQ:
    """
    The RabbitMQ that all tests share, running.  It is stopped when the tests are over.
    """
    if not _shared:
        _shared.append(RabbitMQ())
    return await _shared[0].start()
