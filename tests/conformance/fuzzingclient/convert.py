"""
Makes a package for Python 3 of the sdist of autobahntestsuite, which is Python 2.

Usage: ``convert.py autobahntestsuite-25.10.1.tar.gz FOLDER`` makes ``FOLDER/autobahntestsuite``.

A ``str`` of Python 2 becomes a ``str`` with one character for each octet: all sources are read as Latin-1,
those that say that they are UTF-8 as well, for the octets of their literals must stay octets. ``fuzzer.py``
makes bytes of such text, and such text of bytes, where payloads enter and leave Autobahn, and nowhere else.
"""

from __future__ import annotations

import re
import sys
import tarfile
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        from lib2to3 import refactor
    except ImportError:  # Python 3.13 and later
        from fissix import refactor

FIXERS = f"{refactor.__name__.partition('.')[0]}.fixes"
TOP = "autobahntestsuite-25.10.1/autobahntestsuite/"
KEPT = re.compile(r"(_version|caseset|fuzzing|report)\.py$|case/.*\.py$|testdata/.*")

PATCHES = [
    # An order of bases that only old-style classes have.
    (r"case/.*\.py", r"\(object, Case, \)", "(Case, )", 6),
    (r"case/case10_1_1\.py", r"len\(self\.payload\) / self", "len(self.payload) // self", 1),
    (
        r"case/case6_x_x\.py",
        r"res = v\.validate\(vss\[:i\]\)",
        "res = v.validate(vss[:i].encode('latin-1'))",
        1,
    ),
    (
        r"case/case9_9_1\.py",
        r"(?m)^from zope\.interface import implements$|^ *implements\(.*\)$",
        "",
        2,
    ),
    # These cases work on real bytes, of which they take the hash.
    (
        r"case/case12_x_x\.py",
        r"def onMessage\(self, msg, binary\):\n",
        "def onMessage(self, msg, binary):\n   msg = msg.encode('latin-1')\n",
        1,
    ),
    # Pickles tell equal objects apart that are not identical.
    (r"case/case\.py", r"return pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "return obj1 == obj2", 1),
    # Of the reports only constants are imported.
    (r"report\.py", r"(?m)^import jinja2$", "", 1),
    (r"report\.py", r"(?s)\nREPORT_DIR_PERMISSIONS = .*", "\n", 1),
]
"Which files, what is there, what to put in its place, and how often that must happen in all of them."

REPLACED = ("binascii", "pkg_resources")

REPLACEMENT = '''\
"""In place of what Python 3 has otherwise, or no more."""

import binascii
import os


def b2a_hex(octets):
    return binascii.b2a_hex(octets.encode("latin-1") if isinstance(octets, str) else octets).decode("ascii")


hexlify = b2a_hex


def resource_filename(package, name):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
'''


def replaceImports(source: str) -> str:
    """
    Import the module with the replacements, under the names of what it replaces.
    """

    def replace(found: re.Match[str]) -> str:
        names = [name.strip() for name in found[1].split(",")]
        kept = [name for name in names if name not in REPLACED]
        lines = [f"import {', '.join(kept)}"] if kept else []
        lines += [f"from autobahntestsuite import python3 as {name}" for name in names if name in REPLACED]
        return "\n".join(lines)

    return re.sub(rf"(?m)^import (.*\b(?:{'|'.join(REPLACED)})\b.*)$", replace, source)


def unpack(sdist: str, package: Path) -> list[Path]:
    """
    Write the files that are needed, as they are.

    :return: the modules among them.
    """
    modules = []
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            name = member.name.removeprefix(TOP)
            if member.isfile() and member.name.startswith(TOP) and KEPT.match(name):
                file = package / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.extractfile(member).read())
                if file.suffix == ".py":
                    modules.append(file)
    return sorted(modules)


def convert(modules: list[Path], package: Path) -> None:
    """
    Convert the modules in place.

    :raises SystemExit: if a patch does not fit, as the sources are of another version.
    """
    tool = refactor.RefactoringTool(sorted(refactor.get_fixers_from_package(FIXERS)))
    applied = [0] * len(PATCHES)
    for module in modules:
        source = module.read_bytes().decode("latin-1").replace("\r\n", "\n")
        source = replaceImports(re.sub(r"\A# coding=utf-8\n", "", source))
        for number, (files, old, new, _) in enumerate(PATCHES):
            if re.fullmatch(files, str(module.relative_to(package))):
                source, times = re.subn(old, lambda found, new=new: new, source)
                applied[number] += times
        converted = tool.refactor_string(source if source.endswith("\n") else source + "\n", str(module))
        octets = f"# coding=latin-1\n{converted}".encode("latin-1")
        compile(octets, str(module), "exec")
        module.write_bytes(octets)
    for (_, old, _, expected), times in zip(PATCHES, applied, strict=True):
        if times != expected:
            raise SystemExit(f"{old!r} was found {times} times, expected {expected}")


def main(sdist: str, folder: str) -> None:
    """Unpack and convert."""
    package = Path(folder) / "autobahntestsuite"
    # All is there before any is converted: whether an import is relative depends on the files around.
    modules = unpack(sdist, package)
    (package / "__init__.py").write_text("from ._version import __version__\nversion = __version__\n")
    (package / "python3.py").write_text(REPLACEMENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the literals of the suite
        convert(modules, package)


if __name__ == "__main__":
    main(*sys.argv[1:])
