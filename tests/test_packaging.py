"""
The project as people install it: sdist, wheel and editable, each in an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, run

LEFT_OUT = (
    ".git",
    ".venv",
    "node_modules",
    ".fetched",
    "_build",
    "build",
    "dist",
    "*.egg-info",
    ".*_cache",
    "_trial_temp*",
)
"What a tree in use has and a clone does not."

# Nothing of this checkout may be found by the programs under test.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class PackagingTests(SynchronousTestCase):
    """
    Each test builds from a copy of the sources, so that nothing is written into the tree.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.sources = self.folder / "sources"
        shutil.copytree(ROOT, self.sources, ignore=shutil.ignore_patterns(*LEFT_OUT))

    def build(self, kind: str) -> Path:
        """
        The file that `python -m build --sdist` or `--wheel` makes.
        """
        dist = self.folder / "dist"
        run(
            sys.executable,
            "-m",
            "build",
            f"--{kind}",
            "--outdir",
            dist,
            self.sources,
            environment=ENVIRONMENT,
        )
        [built] = dist.iterdir()
        return built

    def checkInstalled(self, *what: str | Path) -> None:
        """
        Install in a fresh environment and see that twistd there knows the command, and explains it.
        """
        home = self.folder / "environment"
        run(sys.executable, "-m", "venv", home, environment=ENVIRONMENT)
        run(home / "bin" / "pip", "install", "--quiet", *what, cwd=self.folder, environment=ENVIRONMENT)
        twistd = home / "bin" / "twistd"
        self.assertIn("realtime  ", run(twistd, "--help", cwd=self.folder, environment=ENVIRONMENT))
        self.assertIn("--listen", run(twistd, "realtime", "--help", cwd=self.folder, environment=ENVIRONMENT))
        # What is not Python is there too: the page of the demo, and the mark for type checkers.
        where = "import os, txrealtime; print(os.path.dirname(txrealtime.__file__))"
        package = Path(
            run(home / "bin" / "python", "-c", where, cwd=self.folder, environment=ENVIRONMENT).strip()
        )
        self.assertTrue((package / "py.typed").exists())
        self.assertTrue((package / "chat" / "static" / "index.html").exists())

    def test_sdist(self) -> None:
        built = self.build("sdist")
        with tarfile.open(built) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in ("docs/index.rst", "tac/chat.tac", "tests/test_packaging.py", "scripts/chat", "LICENSE"):
            self.assertIn(name, names)
        self.checkInstalled(built)

    def test_wheel(self) -> None:
        self.checkInstalled(self.build("wheel"))

    def test_editable(self) -> None:
        self.checkInstalled("--editable", self.sources)
