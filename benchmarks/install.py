"""
The environments that the servers and the charts run in, in ``.venv``.

They are made at the first run, and made anew when what they are made of changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import ENVIRONMENTS, ROOT, TLS

PYTHON = {
    "txrealtime": ["--editable", f"{ROOT}[redis,emitter]"],
    "python": [
        "python-socketio==5.18.1",
        "python-engineio==4.15.1",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "websockets==17.4",
        "flask-socketio==5.7.0",
        "gevent==26.9.0",
        "gevent-websocket==0.10.1",
        "redis[hiredis]==8.1.0",
        "simple-websocket==1.1.0",
    ],
    "flask": ["--editable", f"{ROOT}[flask]"],
    "plain": ["--editable", f"{ROOT}[redis,emitter]"],
    "report": ["matplotlib>=3.10"],
}

NODE = {
    "node": ["socket.io@4.8.4", "ws@8", "bufferutil@4", "@socket.io/redis-adapter@8.3.0", "redis@5.8.2"],
    "bun": ["bun@1.4.5", "socket.io@4.8.4", "@socket.io/bun-engine@0.1.2"],
    "node-cluster": [
        "socket.io@4.8.4",
        "ws@8",
        "bufferutil@4",
        "@socket.io/cluster-adapter@0.3.0",
        "@socket.io/sticky@2.0.1",
    ],
    "node-streams": [
        "socket.io@4.8.4",
        "ws@8",
        "bufferutil@4",
        "@socket.io/redis-adapter@8.3.0",
        "@socket.io/redis-streams-adapter@0.3.0",
        "redis@5.8.2",
    ],
    # Later ones do not run on Node 20.
    "eiows": ["socket.io@4.8.4", "eiows@9.2.0"],
}

PLAIN = os.environ.get("PLAIN_PYTHON", "")
"A Python that was compiled without optimizations; its environment is made only if there is one."

OPTIONAL = {"eiows"}
"Built from Node's own sources, which its installation fetches: it fails in many places."


def install(again: bool = False, only: Sequence[str] = ()) -> list[str]:
    """
    Make what is missing.

    :param again: make all of it, also what could not be made before.
    :param only: the names of the environments; all if there is none.
    :return: what could not be made, and why, of what is optional.
    :raises SystemExit: if an environment that is needed could not be made.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    missing = []
    for name, packages in {**PYTHON, **NODE}.items():
        if (only and name not in only) or (name == "plain" and not PLAIN):
            continue
        folder = ENVIRONMENTS / name
        recipe = _recipe(packages)
        done, failed = folder / ".installed", folder / ".failed"
        if not again and recipe in (_text(done), _text(failed).partition("\0")[0]):
            if not done.exists():
                missing.append(f"{name}: {_text(failed).partition(chr(0))[2]}")
            continue
        print(f"-- installing {', '.join(packages)}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            (_installPython if name in PYTHON else _installNode)(folder, packages)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = _reason(error)
            if name not in OPTIONAL:
                raise SystemExit(f"cannot install {', '.join(packages)}: {reason}") from None
            failed.write_text(f"{recipe}\0{reason}")
            missing.append(f"{name}: {reason}")
        else:
            done.write_text(recipe)
    _makeCertificate()
    return missing


def _recipe(packages: Sequence[str]) -> str:
    """Return the recipe of an environment: if it changes, `install` builds the environment again."""
    recipe = f"{sys.version}\n{packages}\n"
    if str(ROOT) not in " ".join(packages):
        return recipe
    return recipe + "".join(
        (ROOT / name).read_text()
        for name in (
            "setup.cfg",
            "txrealtime/_speedups.c",
        )
    )


def _installPython(folder: Path, packages: Sequence[str]) -> None:
    _run(PLAIN if folder.name == "plain" else sys.executable, "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, *packages)


def _installNode(folder: Path, packages: Sequence[str]) -> None:
    options = ("--no-audit", "--no-fund", "--no-package-lock", "--no-update-notifier", "--loglevel=error")
    _run("npm", "install", "--prefix", str(folder), *options, *packages)


def _makeCertificate() -> None:
    key, certificate = TLS["KEY"], TLS["CERT"]
    if not Path(certificate).exists():
        kind = ("-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=localhost")
        _run("openssl", "req", *kind, "-keyout", key, "-out", certificate)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    """The line that tells most of what a program said before it failed."""
    lines = (getattr(error, "stdout", None) or str(error)).strip().splitlines()
    return next((line for line in lines if "fatal" in line or "ERROR" in line), lines[-1])


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
