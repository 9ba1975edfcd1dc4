"""
Completion of the command ``txrealtime`` in the shells themselves, set up as docs/howto/command.rst says.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, TXREALTIME, requirePart, run

try:
    import shtab
except ImportError:
    shtab = None

PAGE = (ROOT / "docs" / "howto" / "command.rst").read_text()

WITHIN = 60
"Seconds in which a shell must react; a machine under load is slow."

LINES = {
    "txrealtime ": ["serve", "listen", "load", "top"],
    "txrealtime serve --recovery-": ["--recovery-window", "--recovery-bytes"],
    "txrealtime serve --log-level ": ["debug", "critical"],
    "txrealtime call --transport ": ["polling", "websocket"],
    "txrealtime completion ": ["bash", "zsh", "fish"],
    "txrealtime client ": ["fetch"],
}
"A line up to the cursor, and words that the shell must offer there."


class ShellTestCase(SynchronousTestCase):
    """
    A shell with a home of its own, in which the commands of the page have run.

    :cvar shell: the shell's name.
    """

    shell: ClassVar[str]

    def setUp(self) -> None:
        requirePart(shtab, "no shtab: pip install --group test")
        requirePart(shutil.which(self.shell), f"no {self.shell}: apt install {self.shell}")
        self.home = Path(self.mktemp()).resolve()
        self.home.mkdir()
        path = f"{Path(TXREALTIME).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "HOME": str(self.home), "PATH": path, "TERM": "dumb"}
        for name in ("ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            self.environment.pop(name, None)
        for command in re.findall(r"^   \$ (.*\.(?:config/fish|zfunc).*)$", PAGE, re.MULTILINE):
            if ("fish" in command) == (self.shell == "fish"):
                run("/bin/sh", "-c", command, environment=self.environment)

    def offered(self, line: str) -> str:
        """Press TAB behind a line, and return what the shell shows, once all words are in it."""
        raise NotImplementedError

    def check(self) -> None:
        for line, words in LINES.items():
            shown = self.offered(line)
            for word in words:
                self.assertIn(word, shown, f"{self.shell}: {line}")


class FishTests(ShellTestCase):
    shell = "fish"

    def offered(self, line: str) -> str:
        done = subprocess.run(
            ["fish", "-c", f"complete -C '{line}'"],
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=WITHIN,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_completion(self) -> None:
        self.check()


class ZshTests(ShellTestCase):
    """
    An interactive zsh on a terminal.
    """

    shell = "zsh"

    def setUp(self) -> None:
        super().setUp()
        lines = re.findall(r"^   ((?:fpath=|autoload ).*)$", PAGE, re.MULTILINE)
        # Lists as long as they come, without a question, and no other start-up files than the user's.
        options = ["PS1='> '", "LISTMAX=10000", "unsetopt zle_bracketed_paste", "stty rows 500 cols 200"]
        (self.home / ".zshrc").write_text("\n".join([*options, *lines, "echo set up"]) + "\n")
        pid, self.terminal = pty.fork()
        if not pid:
            os.execvpe("zsh", ["zsh", "--no-global-rcs", "-i"], self.environment)
        self.addCleanup(self.end, pid)
        self.read(["set up\r\n"])

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(self.terminal)

    def read(self, words: list[str]) -> str:
        """Read what the terminal shows, until all of some words have come."""
        shown = b""
        deadline = time.monotonic() + WITHIN
        while not all(word.encode() in shown for word in words):
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            self.assertTrue(ready, f"{words} did not come: {shown[-2000:]!r}")
            shown += os.read(self.terminal, 65536)
        return shown.decode(errors="replace")

    def offered(self, line: str) -> str:
        os.write(self.terminal, line.encode())
        typed = self.read([line[-4:]])
        self.assertNotIn(LINES[line][0], typed)
        os.write(self.terminal, b"\t")
        shown = self.read(LINES[line])
        # Empty the line for the next one.
        os.write(self.terminal, b"\x15echo em''pty\r")
        self.read(["empty\r\n"])
        return shown

    def test_completion(self) -> None:
        self.check()
