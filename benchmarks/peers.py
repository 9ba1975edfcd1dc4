"""
The servers that are compared, as data. A variant of one is an entry with other options or variables.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from benchmarks import machine
from benchmarks.load import Wrong

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENTS = HERE / ".venv"
SERVERS = HERE / "servers"

REFERENCE = "node-ws"
"The server that the others are compared with."

TLS = {"KEY": str(ENVIRONMENTS / "key.pem"), "CERT": str(ENVIRONMENTS / "cert.pem")}
"What a server gets that shall talk TLS."


@dataclass(frozen=True)
class Peer:
    """
    A server to measure.

    :ivar name: for the command line.
    :ivar title: for tables and charts.
    :ivar environment: the folder in `ENVIRONMENTS` that it is installed in.
    :ivar command: the program, to be found in the environment, and its arguments; {port} is filled in.
    :ivar tls: the arguments that take the place of `command` over TLS; None: it looks at KEY and CERT.
    :ivar versions: the packages whose versions a report tells.
    :ivar variables: of its process.
    :ivar only: the workloads that it is for; all when empty.
    :ivar optional: not part of a run unless it is asked for by name.
    """

    name: str
    title: str
    environment: str
    command: tuple[str, ...]
    versions: tuple[str, ...]
    tls: tuple[str, ...] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    optional: bool = False

    def program(self, secure: bool) -> list[str]:
        """The command to start it."""
        name, *arguments = (self.tls or self.command) if secure else self.command
        if name == "node":
            return [name, *arguments]
        if name == "bun":
            return [str(ENVIRONMENTS / self.environment / "node_modules" / ".bin" / name), *arguments]
        return [str(ENVIRONMENTS / self.environment / "bin" / name), *arguments]

    @property
    def installed(self) -> bool:
        """True if `install` has installed the peer."""
        return (ENVIRONMENTS / self.environment / ".installed").exists()


def twistd(
    *options: str,
    app: str = "txrealtime_app:server",
    listen: str = "tcp:{port}:interface=127.0.0.1:backlog=1024",
) -> tuple[str, ...]:
    """The command line of a txrealtime."""
    daemon = ("twistd", "-n", "--pidfile=", "--logfile=-", *options)
    return (*daemon, "realtime", "--app", app, "--listen", listen)


SSL = f"ssl:{{port}}:interface=127.0.0.1:backlog=1024:privateKey={TLS['KEY']}:certKey={TLS['CERT']}"
OURS = ("txrealtime", "twisted", "autobahn", "orjson")

PEERS = [
    Peer("txrealtime", "txrealtime", "txrealtime", twistd(), versions=OURS, tls=twistd(listen=SSL)),
    Peer(
        "txrealtime-plain",
        "txrealtime, plain Python",
        "plain",
        twistd(),
        versions=OURS,
        tls=twistd(listen=SSL),
        optional=True,
    ),
    Peer(
        "txrealtime-pure",
        "txrealtime, Python alone",
        "txrealtime",
        twistd("--reactor=epoll"),
        versions=OURS,
        tls=twistd("--reactor=epoll", listen=SSL),
        variables={"TXREALTIME_PURE": "1"},
        optional=True,
    ),
    Peer(
        "txrealtime-site",
        "txrealtime in a twisted.web Site",
        "txrealtime",
        ("python", "txrealtime_app.py"),
        versions=OURS,
        only=frozenset({"polling"}),
    ),
    Peer(
        "txrealtime-asyncio",
        "txrealtime, asyncio reactor",
        "txrealtime",
        twistd("--reactor=asyncio"),
        versions=OURS,
        optional=True,
    ),
    Peer(
        "node-ws",
        "Socket.IO on Node, ws",
        "node",
        ("node", "node.cjs"),
        versions=("socket.io", "ws", "bufferutil"),
        variables={"ENGINE": "ws"},
    ),
    Peer(
        "node-eiows",
        "Socket.IO on Node, eiows",
        "eiows",
        ("node", "node.cjs"),
        versions=("socket.io", "eiows"),
        variables={"ENGINE": "eiows"},
    ),
    Peer(
        "bun",
        "Socket.IO on Bun",
        "bun",
        ("bun", "bun.mjs"),
        versions=("bun", "socket.io", "@socket.io/bun-engine"),
    ),
    Peer(
        "python-socketio",
        "python-socketio, uvicorn + uvloop",
        "python",
        ("python", "python_socketio.py"),
        versions=("python-socketio", "python-engineio", "uvicorn", "uvloop", "websockets"),
    ),
    Peer(
        "flask-socketio",
        "Flask-SocketIO, gevent",
        "python",
        ("python", "flask_socketio_gevent.py"),
        versions=("Flask-SocketIO", "python-socketio", "gevent", "gevent-websocket"),
    ),
    Peer(
        "flask-socketio-threads",
        "Flask-SocketIO, threads",
        "python",
        ("python", "flask_socketio_threads.py"),
        versions=("Flask-SocketIO", "python-socketio", "Werkzeug", "simple-websocket"),
        optional=True,
    ),
    Peer(
        "txrealtime-flask",
        "txrealtime.flask",
        "flask",
        twistd(app="txrealtime_flask:server"),
        versions=(*OURS, "Flask"),
        optional=True,
    ),
]


def versionsOf(peer: Peer) -> dict[str, str]:
    """The versions of what a peer is made of, as installed."""
    folder = ENVIRONMENTS / peer.environment
    if peer.command[0] in ("node", "bun"):
        packages = {
            name: json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]
            for name in peer.versions
        }
        if peer.command[0] == "bun":
            return packages
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        return {"node": node.stdout.strip().lstrip("v"), **packages}
    code = (
        "import sys, json, platform, importlib.metadata as m\n"
        "found = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    command = [str(folder / "bin" / "python"), "-c", code, *peer.versions]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


class Running:
    """
    A peer's process, on the servers' core: a context manager that starts and ends it.

    :ivar address: where it listens.
    """

    def __init__(self, peer: Peer, secure: bool = False) -> None:
        self.peer = peer
        self.secure = secure
        self.address = ("127.0.0.1", freePort())
        self.log = ENVIRONMENTS / "logs" / f"{peer.name}.log"

    def __enter__(self) -> Running:
        port = str(self.address[1])
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [part.replace("{port}", port) for part in self.peer.program(self.secure)],
                cwd=SERVERS,
                env=machine.environment(
                    **self.peer.variables,
                    **(TLS if self.secure else {}),
                    PORT=port,
                    PYTHONPATH=str(SERVERS),
                    MODULES=str(ENVIRONMENTS / self.peer.environment),
                    NODE_ENV="production",
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=machine.toServerCore,
            )
        self.pid = self.process.pid
        try:
            self._untilListening()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        # Nothing of it is needed any more, and ten thousand goodbyes take their time.
        self.process.kill()
        self.process.wait()

    def _untilListening(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(self.address).close()
                return
            except OSError:
                ended = self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log = self.log.read_text()[-2000:]
                    raise Wrong(f"{self.peer.name} does not listen\n{log}") from None
                time.sleep(0.05)

    def cpu(self) -> float:
        """Seconds of CPU that it has used so far, in user and kernel mode."""
        return machine.cpuTime(self.pid)

    def memory(self) -> int:
        """Bytes of it that are in memory."""
        return machine.residentMemory(self.pid)


class RunningCluster:
    """
    Five servers of a kind that are one over a Redis of their own: one that says, and four that hear.

    All of them share the servers' core, and the Redis is on the load's.

    :ivar servers: their processes.
    """

    SERVERS = 5
    SETTLING = 3.0
    "Seconds that they have to hear each other."

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.servers: list[Running] = []

    def __enter__(self) -> RunningCluster:
        with ExitStack() as stack:
            port = str(freePort())
            command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", ""]
            self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(self.redis.wait)
            stack.callback(self.redis.kill)
            time.sleep(0.5)
            for number in range(self.SERVERS):
                variables = {**self.peer.variables, "BUS": f"redis://127.0.0.1:{port}"}
                peer = replace(self.peer, name=f"{self.peer.name}-{number}", variables=variables)
                self.servers.append(stack.enter_context(Running(peer)))
            time.sleep(self.SETTLING)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cpu(self) -> float:
        """Seconds of CPU that the servers have used so far, without the Redis."""
        return sum(server.cpu() for server in self.servers)

    def redisCPU(self) -> float:
        """Seconds of CPU that the Redis has used so far."""
        return machine.cpuTime(self.redis.pid)

    def memory(self) -> int:
        """Bytes of the servers that are in memory."""
        return sum(server.memory() for server in self.servers)


def freePort() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
