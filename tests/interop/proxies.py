"""
Proxies in front of a server, each a child process with an example of docs/examples for its configuration.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.clients import untilListening
from tests.support import ROOT, Program, freePort, makeCertificate, requirePart, startProgram, withPorts

EXAMPLES = ROOT / "docs" / "examples"

_PATH = f"{os.environ['PATH']}:/usr/sbin"

_ROOT = getpass.getuser() == "root"


class Proxy:
    """
    A proxy on free ports of 127.0.0.1.

    It runs as the user of the tests, in a folder of its own, with the example as printed but for the ports.

    :param tls: whether clients speak TLS.
    :param edits: texts to replace in the example, old -> new.
    :cvar program: the name of the program.
    :cvar package: the name of the Debian package.
    :cvar example: the name of the file in docs/examples.
    :ivar edits: the texts to replace.
    :ivar url: the address for clients.
    :ivar certificate: the file with key and certificate, which is its own authority.
    """

    program: str
    package: str
    example: str

    def __init__(self, case: TestCase, tls: bool = False, edits: dict[str, str] | None = None) -> None:
        path = shutil.which(self.program, path=_PATH)
        requirePart(path, f"no {self.program}: apt install {self.package}")
        self._program = str(path)
        self._case = case
        self.edits = dict(edits or {})
        self.ports = {8080: freePort(), 8443: freePort()}
        self.port = self.ports[8443 if tls else 8080]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.folder = Path(case.mktemp()).resolve()
        self.folder.mkdir()
        self.certificate = makeCertificate(self.folder / "cert.pem")
        shutil.copy(self.certificate, self.folder / "key.pem")

    @property
    def file(self) -> Path:
        """The configuration in use."""
        return self.folder / self.example

    def command(self) -> list[str]:
        """Return the command, without the path of the program."""
        raise NotImplementedError

    def serverOptions(self) -> list[str]:
        """Return the options of `twistd realtime` at the head of the example; the endpoint is at `PORT`."""
        [line] = re.findall(
            "twistd -n realtime (.*)", re.sub(r"\b8000\b", "PORT", withPorts(self.text(), self.ports))
        )
        return shlex.split(line)

    def text(self) -> str:
        """Return the example with the edits, and the ports as printed."""
        text = (EXAMPLES / self.example).read_text()
        for old, new in {**self.edits, "localhost": "127.0.0.1"}.items():
            text = text.replace(old, new)
        return text

    async def start(self, backend: int = 0) -> Program:
        """
        Start, and wait for the own port.

        :param backend: the server's port, in place of 8000.
        """
        self.file.write_text(withPorts(self.text(), {**self.ports, 8000: backend}))
        command = [self._program, *self.command()]
        # Caddy keeps files at home.
        home = {"HOME": str(self.folder)}
        program = startProgram(self._case, command, cwd=str(self.folder), environment=home)
        await untilListening(program, self.port)
        return program


class Nginx(Proxy):
    program = "nginx"
    package = "nginx-light"
    example = "nginx.conf"

    def command(self) -> list[str]:
        # Started by root, nginx would take a user that cannot enter this folder.
        user = f"user {getpass.getuser()};"
        return ["-e", "stderr", "-p", str(self.folder), "-c", str(self.file), "-g", user]


class NginxOfCluster(Nginx):
    """
    Nginx in front of two or three servers.

    :param backends: the ports of the servers.
    """

    example = "nginx-cluster.conf"

    def __init__(self, case: TestCase, backends: list[int]) -> None:
        third = "        server 127.0.0.1:8003 max_fails=0;\n"
        super().__init__(case, edits={third: ""} if len(backends) == 2 else {})
        self.ports |= _placed(backends)


class HAProxy(Proxy):
    program = "haproxy"
    package = "haproxy"
    example = "haproxy.cfg"

    def command(self) -> list[str]:
        return ["-f", str(self.file)]


def _placed(backends: list[int]) -> dict[int, int]:
    return dict(enumerate(backends, 8001))


class NginxOfNames(Nginx):
    """
    Nginx in front of servers with names.

    :param backends: the ports of the servers a, b and c.
    """

    example = "nginx-names.conf"

    def __init__(self, case: TestCase, backends: list[int], edits: dict[str, str] | None = None) -> None:
        super().__init__(case, edits=edits)
        self.ports |= _placed(backends)


class HAProxyOfNames(HAProxy):
    """
    HAProxy in front of servers with names.

    :param backends: the ports of the servers a, b and c.
    """

    example = "haproxy-names.cfg"

    def __init__(self, case: TestCase, backends: list[int], edits: dict[str, str] | None = None) -> None:
        super().__init__(case, edits=edits)
        self.ports |= _placed(backends)


class HAProxyOfTCP(HAProxy):
    example = "haproxy-tcp.cfg"


class Apache(Proxy):
    program = "apache2"
    package = "apache2"
    example = "apache.conf"

    def command(self) -> list[str]:
        own = [f"PidFile {self.folder}/pid", f"DefaultRuntimeDir {self.folder}"]
        if _ROOT:
            own += ["User www-data", "Group www-data"]
        return ["-f", str(self.file), "-D", "FOREGROUND", *(part for line in own for part in ("-c", line))]


class Caddy(Proxy):
    program = "caddy"
    package = "caddy"
    example = "Caddyfile"

    def command(self) -> list[str]:
        return ["run", "--config", str(self.file), "--adapter", "caddyfile"]


class Stunnel(Proxy):
    program = "stunnel"
    package = "stunnel4"
    example = "stunnel.conf"

    def command(self) -> list[str]:
        return [str(self.file)]


class Hitch(Proxy):
    program = "hitch"
    package = "hitch"
    example = "hitch.conf"

    def command(self) -> list[str]:
        return [f"--config={self.file}", *(["--user=nobody"] if _ROOT else [])]


class Varnish(Proxy):
    """
    Varnish, behind clients or behind hitch.

    :param hitch: whether hitch comes before it, and sends a PROXY header.
    """

    program = "varnishd"
    package = "varnish"
    example = "varnish.vcl"

    def __init__(self, case: TestCase, hitch: bool = False) -> None:
        super().__init__(case)
        self._listen = f"127.0.0.1:{self.port}{',PROXY' if hitch else ''}"

    def command(self) -> list[str]:
        # Started by root, Varnish would compile as a user that cannot enter this folder.
        jail = ["-j", "none"] if _ROOT else []
        return ["-F", *jail, "-f", str(self.file), "-a", self._listen, "-n", str(self.folder / "work")]
