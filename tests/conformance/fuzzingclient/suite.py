"""
Fetches Autobahn's suite, and says how to run it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Final

from tests.support import alone, run

HERE: Final = Path(__file__).parent

FETCHED: Final = HERE.parent / ".fetched"
"What the tests fetched once; neither in version control nor in the sdist."

VERSION: Final = "25.10.1"
SDIST: Final = f"autobahntestsuite-{VERSION}.tar.gz"
SHA256: Final = "b083d6e15330fc16f3e5f0975cce2b15f21bfa0c6db09547316b1852c6dbd6df"

REQUIREMENTS: Final = (
    # The suite asks for exactly this Autobahn.
    "autobahn==0.10.9",
    "txaio==2.1.0",
    # Without it the large messages take four times as long.
    "wsaccel==0.6.7",
    "six",
    "twisted==26.10.0",
    "pyopenssl",
    "service_identity",
    'fissix; python_version >= "3.13"',
)


class Suite:
    """
    The suite, ready to run.

    :param folder: where it was fetched to.
    :ivar cases: the ids of all cases, in order.
    :ivar titles: of groups (`"6"`) and some subgroups (`"6.4"`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        contents = json.loads((folder / "contents.json").read_text())
        self.cases: list[str] = contents["cases"]
        self.titles: dict[str, str] = contents["titles"]
        self.environment = {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}

    def command(self, *arguments: str) -> list[str]:
        """
        The command that runs `fuzzer`, in :attr:`environment`; `verdicts.read` understands what it prints.
        """
        # -P: what lies beside the script is not for it to import.
        return [str(_python(self._folder)), "-P", str(HERE / "fuzzer.py"), *arguments]


def fetch() -> Suite:
    """
    Make the suite ready, which takes half a minute and the package index, unless it was before.

    :raises AssertionError: if that cannot be done.
    """
    folder = FETCHED / f"autobahntestsuite-{VERSION}"
    ready = folder / "ready"
    recipe = "\n".join([sys.version, *REQUIREMENTS, (HERE / "convert.py").read_text()])
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    with alone(folder):
        if not ready.exists() or ready.read_text() != digest:
            ready.unlink(missing_ok=True)
            _make(folder)
            ready.write_text(digest)
    return Suite(folder)


def _make(folder: Path) -> None:
    run(sys.executable, "-m", "venv", "--clear", folder / "environment")
    pip = (_python(folder), "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", *REQUIREMENTS)
    source = ("--no-deps", "--no-binary=:all:", "--dest", folder, f"autobahntestsuite=={VERSION}")
    run(*pip, "download", *source)
    digest = hashlib.sha256((folder / SDIST).read_bytes()).hexdigest()
    if digest != SHA256:
        raise AssertionError(f"the SHA-256 of {SDIST} is {digest}, expected {SHA256}")
    run(_python(folder), HERE / "convert.py", folder / SDIST, folder)
    listing = (_python(folder), "-P", HERE / "fuzzer.py", "--list")
    (folder / "contents.json").write_text(run(*listing, environment={"PYTHONPATH": str(folder)}))


def _python(folder: Path) -> Path:
    return folder / "environment" / "bin" / "python"
