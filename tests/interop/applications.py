"""
Published applications for Flask-SocketIO: how they are started, and visits that tell what they do.

A visit returns what a user sees, in a form that does not differ from run to run, so that the visits to an
application on this server and on the real library can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.visitors import Visitor, requests

Visit = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """
    An application on PyPI, or one whose sources lie in a folder.

    :ivar requirements: the packages to install.
    :ivar command: what to run, of the environment's programs; ``{port}`` and ``{folder}`` are filled in.
    :ivar visit: visits the application at a URL, in a thread.
    :ivar later: packages to install last, against what the application asks for.
    :ivar tools: other programs that the application needs.
    :ivar files: files for the folder, by name, with the same fields; a script becomes executable.
    :ivar environment: variables, with the same fields.
    :ivar source: the repository with the sources, as OWNER/NAME; none for a package.
    :ivar below: the folder of the sources in which the command runs.
    :ivar environmentName: the name of the virtual environment, if it is another one than the application's.
    """

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    visit: Visit
    later: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    source: str | None = None
    below: str = "."
    environmentName: str | None = None

    def arguments(self, bin: Path, port: int, folder: Path) -> list[str]:
        """Return the command line, with the programs of an environment or those among the sources."""
        program, *rest = [part.format(port=port, folder=folder) for part in self.command]
        return [str(bin / "python"), program if self.source else str(bin / program), *rest]


def until(visitor: Visitor, namespace: str, found: Callable[[tuple[Any, ...]], Any], most: int = 500) -> Any:
    """Read events until one has what is looked for."""
    seen = []
    for _ in range(most):
        event = visitor.next(namespace)
        result = found(event)
        if result:
            return result
        seen.append(event)
    raise AssertionError(f"not among {most} events: {seen[-5:]}")


def terminal(url: str) -> dict[str, Any]:
    """Visit pyxtermjs: its page, and a shell in the browser, on each transport and for a second client."""
    said = {"page": requests.get(url, timeout=30).status_code}
    for number, transport in enumerate(("polling", "websocket")):
        visitor = Visitor().connect(url, "/pty", transport=transport)
        visitor.emit("resize", {"rows": 40, "cols": 100}, namespace="/pty")
        visitor.emit("pty-input", {"input": f"echo begin$((6*7+{number}))end\n"}, namespace="/pty")
        text = ""

        def answered(event: tuple[Any, ...], number: int = number) -> bool:
            nonlocal text
            text += event[1]["output"]
            return f"begin{42 + number}end" in text

        said[transport] = until(visitor, "/pty", answered)
        visitor.close()
    return said


def debugger(url: str) -> dict[str, Any]:
    """Visit gdbgui: a session of gdb for a client with the page's cookie; none for one without."""
    http = requests.Session()
    page = http.get(url, timeout=30)
    [token] = set(re.findall(r'csrf_token"?\s*:\s*"([^"]+)"', page.text))
    path = "/gdb_listener"
    query = f"{url}/?csrf_token={token}&gdbpid=0&gdb_command=gdb&mi_version=mi2"
    visitor = Visitor(http=http).connect(query, path, transport="polling")
    [begun] = [
        until(visitor, path, lambda event: event[0] == "debug_session_connection_event" and [event[1]])
    ][0]
    visitor.emit("run_gdb_command", {"cmd": ["-data-evaluate-expression 6*7"]}, namespace=path)

    def value(event: tuple[Any, ...]) -> Any:
        parts = event[1] if event[0] == "gdb_response" else []
        return [part["payload"] for part in parts if part["message"] == "done" and part["payload"]]

    result = until(visitor, path, value)
    visitor.close()
    stranger = Visitor().connect(f"{url}/?csrf_token=wrong", path, transport="polling")
    refused = stranger.next(path)
    stranger.close()
    return {
        "begun": (begun["ok"], begun["started_new_gdb_process"]),
        "value": result,
        "upgrades": visitor.client.eio.upgrades,
        "stranger": refused,
    }


def watcher(url: str) -> dict[str, Any]:
    """Visit changedetection.io: what its page is told at first, and after an operation."""
    said: dict[str, Any] = {"page": requests.get(url, timeout=60).status_code}
    for transport in ("polling", "websocket"):
        visitor = Visitor().connect(url, transport=transport)
        events = [visitor.next()[0]]
        visitor.emit("checkbox-operation", {"op": "nothing", "uuids": []})
        said[transport] = events
        visitor.close()
    return said


def administrator(url: str) -> dict[str, Any]:
    """Visit pgAdmin 4: its namespaces, with the cookie of its page, and without."""
    http = requests.Session()
    said: dict[str, Any] = {"page": http.get(f"{url}/browser/", timeout=60).status_code}
    for path in ("/erd", "/schema_diff"):
        for transport in ("polling", "websocket"):
            visitor = Visitor(http=http).connect(url, path, transport=transport)
            event, *args = visitor.next(path)
            said[f"{path} {transport}"] = (
                event,
                [sorted(each) if isinstance(each, dict) else each for each in args],
            )
            visitor.close()
    return said


def karaoke(url: str) -> dict[str, Any]:
    """Visit PiKaraoke, which brings gevent's server: pages, and two screens that find their roles."""
    pages = [requests.get(f"{url}/{page}", timeout=60).status_code for page in ("", "splash", "queue")]
    said: list[Any] = [pages]
    first = Visitor().connect(url, transport="polling")
    first.emit("register_splash")
    said.append(first.next())
    second = Visitor().connect(url, transport="polling")
    second.emit("register_splash")
    said.append(second.next())
    first.emit("playback_position", 1.5)
    said.append(second.next())
    first.close()
    # The first screen's disconnect handler hands its role over.
    said.append(second.next())
    second.close()
    return {"said": said}


SHORT = [
    Published(
        "pyxtermjs",
        ("pyxtermjs==0.5.0.2",),
        ("pyxtermjs", "--port={port}"),
        terminal,
        # It asks for Flask 2.0.1, which is older than any that this project takes.
        later=("flask-socketio==5.7.0",),
    ),
    Published(
        "gdbgui",
        ("gdbgui==0.15.2.0",),
        ("gdbgui", "--port={port}", "--no-browser"),
        debugger,
        tools=("gdb",),
    ),
]
"""The applications that install in less than a minute."""

LONG = [
    Published(
        "pikaraoke",
        ("pikaraoke==1.23.0",),
        ("pikaraoke", "-p", "{port}", "--headless", "--skip-youtubedl-upgrade", "-d", "{folder}"),
        karaoke,
        # It looks for ffmpeg when it starts, and runs it for songs only.
        files=(("ffmpeg", "#!/bin/sh\necho ffmpeg version 6.1\n"),),
        environment=(("PATH", "{folder}:/usr/bin:/bin"),),
    ),
    Published(
        "changedetection",
        ("changedetection.io==0.60.10",),
        ("changedetection.io", "-C", "-d", "{folder}/data", "-P", "true", "-h", "127.0.0.1", "-p", "{port}"),
        # Watches are paused: fetching pages keeps the process alive for minutes without a network.
        watcher,
    ),
    Published(
        "pgadmin4",
        ("pgadmin4==9.18",),
        ("pgadmin4",),
        administrator,
        files=(
            (
                "config_local.py",
                "SERVER_MODE = False\nMASTER_PASSWORD_REQUIRED = False\nDEFAULT_SERVER = '127.0.0.1'\n"
                "UPGRADE_CHECK_ENABLED = False\nUSE_OS_SECRET_STORAGE = False\n"
                "DEFAULT_SERVER_PORT = {port}\nDATA_DIR = '{folder}/data'\nLOG_FILE = '{folder}/log'\n"
                "SQLITE_PATH = '{folder}/data/db'\nSESSION_DB_PATH = '{folder}/data/sessions'\n"
                "STORAGE_DIR = '{folder}/data/storage'\nAZURE_CREDENTIAL_CACHE_DIR = '{folder}/data/azure'\n"
                "KERBEROS_CCACHE_DIR = '{folder}/data/kerberos'\n",
            ),
        ),
    ),
]
"""The others: hundreds of megabytes, and minutes."""
