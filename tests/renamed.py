"""
A Python in which libraries have renamed private names, as their next releases may::

    PYTHONPATH=. python tests/renamed.py -n realtime --app tests.interop.app:server

runs twistd there.  The program is named by its path, since the package of the tests imports the server.  The
source of each module of a library is changed when it is imported, so the libraries agree among themselves,
and only this project looks for the old names.
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType

NAMES = {
    "twisted.internet": (
        "_tempDataBuffer",
        "_poller",
        "_doReadOrWrite",
        "_disconnectSelectable",
        "_logger",
    ),
    "twisted.web": (
        "_path",
        "_handlingRequest",
        "_networkProducer",
        "_waitingForTransport",
        "_GenericHTTPChannelProtocol",
        "_channel",
    ),
    "autobahn": ("_dataReceived", "_max_message_size_exceeded", "current_frame", "inside_message"),
    "json": ("c_make_encoder", "encode_basestring", "encode_basestring_ascii", "scan_once"),
}
"""Package -> names without which everything must work, if slower."""


def rename(names: dict[str, tuple[str, ...]] = NAMES) -> None:
    """Import libraries with other names from now on."""
    patterns = {package: re.compile(rf"\b(?:{'|'.join(found)})\b") for package, found in names.items()}
    original = SourceFileLoader.get_code

    def patternOf(name: str) -> re.Pattern[str] | None:
        return next((patterns[package] for package in patterns if f"{name}.".startswith(f"{package}.")), None)

    def getCode(loader: SourceFileLoader, name: str) -> CodeType | None:
        pattern = patternOf(name)
        if pattern is None:
            return original(loader, name)
        path = loader.get_filename(name)
        source = loader.get_data(path).decode()
        return compile(pattern.sub(r"renamed_\g<0>", source), path, "exec", dont_inherit=True)

    SourceFileLoader.get_code = getCode  # type: ignore[method-assign]
    for name in [name for name in sys.modules if patternOf(name)]:
        del sys.modules[name]


if __name__ == "__main__":
    rename()
    from twisted.scripts.twistd import run

    run()
