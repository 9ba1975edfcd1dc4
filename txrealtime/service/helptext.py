"""
The help of ``twistd realtime``: its options by subject, with their defaults.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import Field, fields
from typing import Any, Final

from txrealtime.server import Settings

__all__ = ["SERVE", "SUBJECTS", "about", "described", "examples", "groups", "optionOf", "row"]

SERVE: Final = "txrealtime serve"
"""The command that serves in the foreground."""

_ABOUT: Final = """
Serves Socket.IO, and pages beside it. Options of twistd itself, such as -n to
stay in the foreground, --logfile and --pidfile, come before "realtime".
"""

_ABOUT_SERVE: Final = """
Serves Socket.IO, and pages beside it, in the foreground: ctrl+C stops it. To
serve as a daemon take twistd realtime, which has the same options.
"""

_EXAMPLES: Final = """\
Settings that are given here take the place of those that the application has
set. Any option may be shortened as long as it is clear which is meant.

Examples:
  twistd -n realtime
      a chat to try, on http://localhost:8000
  twistd -n realtime --app chat:server --static public
      the Server named server in chat.py, and the files in the folder public
  twistd -n realtime --app chat:server --origin https://example.org \\
          --listen tcp:8000:interface=127.0.0.1 --trusted-proxy 127.0.0.1
      the same behind a proxy on this machine, also for the pages of example.org
  twistd -n realtime --app shop:realtime --wsgi shop:app \\
          --listen ssl:443:privateKey=key.pem:certKey=cert.pem
      beside a Flask or Django application, over TLS
  twistd -n realtime --app chat:server --workers auto
      the same server as one process on each core
"""

_RELOAD_EXAMPLE: Final = """\
  txrealtime serve --app chat:server --reload
      the same while you write it: each change of a file starts it anew
"""


def about(program: str) -> str:
    """Return the beginning of the help."""
    return _ABOUT_SERVE if program == SERVE else _ABOUT


def examples(program: str) -> str:
    """Return the end of the help: examples for a command."""
    if program != SERVE:
        return _EXAMPLES
    return _EXAMPLES.replace("twistd -n realtime", SERVE) + _RELOAD_EXAMPLE


# The settings by subject; one that is not here yet is shown among "Other settings".
SUBJECTS: Final = {
    "Who may connect, and how": (
        "origins",
        "trustedProxies",
        "publicURL",
        "transports",
        "allowUpgrades",
        "allowEIO3",
        "cookie",
        "name",
    ),
    "Times": (
        "pingInterval",
        "pingTimeout",
        "connectTimeout",
        "upgradeTimeout",
        "handshakeTimeout",
        "requestTimeout",
        "closeTimeout",
        "drainDelay",
        "drain",
        "drainTimeout",
        "disconnectOnStop",
    ),
    "Limits": (
        "maxConnections",
        "maxConnectionsPerAddress",
        "maxHeaderSize",
        "maxPayload",
        "maxUpload",
        "maxBuffered",
    ),
    "Limits of one client": (
        "maxMessageRate",
        "maxByteRate",
        "maxFragments",
        "maxAttachments",
        "maxWaiting",
        "maxNamespaces",
        "maxRooms",
    ),
    "Clients that come back": (
        "recoveryWindow",
        "recovery",
        "recoverySessions",
        "recoveryEvents",
        "recoveryBytes",
        "recoveryAddress",
        "recoveryUnasked",
        "recoveryAway",
    ),
    "Compression and speed": ("compressionThreshold", "perMessageDeflate", "shortWays"),
}


def groups(program: str = "") -> dict[str, list[tuple[str, str]]]:
    """Return the options of a command as the help shows them: title -> (name, form)."""
    rows = {field.name: (optionOf(field), _shown(field)) for field in fields(Settings)}
    del rows["client"]
    groups = {
        "What is served": [
            ("app", "--app MODULE:NAME"),
            ("path", "--path PATH"),
            ("parser", "--parser NAME"),
            ("client", "--client auto|FOLDER|off"),
            ("static", "--static FOLDER"),
            ("wsgi", "--wsgi MODULE:NAME"),
            ("wsgi-threads", "--wsgi-threads N"),
            ("health", "--health PATH"),
            ("probes", "--probes"),
            ("metrics", "--metrics PATH"),
        ],
        "The admin UI": [
            ("admin", "--admin"),
            ("admin-auth", "--admin-auth FILE"),
            ("admin-mode", "--admin-mode MODE"),
            ("admin-write", "--admin-write"),
            ("admin-ui", "--admin-ui FOLDER"),
        ],
        "Where": [("listen", "--listen ENDPOINT"), ("metrics-listen", "--metrics-listen ENDPOINT")],
        "On all cores": [
            ("workers", "--workers N"),
            ("hang-timeout", "--hang-timeout SECONDS"),
            ("max-rss", "--max-rss SIZE"),
        ],
        "Together with other servers": [("bus", "--bus URL"), ("hub", "--hub PATH")],
        **{title: [rows.pop(name) for name in names] for title, names in SUBJECTS.items()},
    }
    if rows:
        groups["Other settings"] = list(rows.values())
    groups["The log"] = [
        ("log-level", "--log-level LEVEL"),
        ("log-format", "--log-format FORMAT"),
        ("trace-packets", "--trace-packets CLIENT[,N]"),
        ("blocked-after", "--blocked-after SECONDS"),
    ]
    if program == SERVE:
        groups["The process"] = [("reload", "--reload"), ("reactor", "--reactor NAME")]
    groups["Information"] = [("help", "--help"), ("version", "--version")]
    return groups


def row(shown: str, text: str, width: int) -> str:
    """Return one option and its text, in two columns."""
    column = 30
    indent = " " * column
    lines = textwrap.fill(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent)
    left = f"  {shown}"
    return (left.ljust(column) + lines[column:] if len(left) < column else f"{left}\n{lines}") + "\n"


def optionOf(field: Field[Any]) -> str:
    """Return a field's option: ``ping-interval`` of ``pingInterval``; of a list, the singular."""
    name = field.name
    if isinstance(field.default, tuple):
        name = f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _shown(field: Field[Any]) -> str:
    """Return the form of an option in the help."""
    option = optionOf(field)
    if isinstance(field.default, bool):
        return f"--[no-]{option}"
    if isinstance(field.default, float):
        return f"--{option} SECONDS"
    return f"--{option} {'N' if isinstance(field.default, int) else option.rpartition('-')[2].upper()}"


def described(field: Field[Any]) -> str:
    """Return the help of a setting, with its default."""
    default, text = field.default, str(field.metadata["help"])
    if isinstance(default, bool):
        return f"{text} (default: {'yes' if default else 'no'})"
    if isinstance(default, tuple):
        shown = f"default: {', '.join(default)}; " if default else ""
        return f"{text} ({shown}may be repeated)"
    if isinstance(default, float):
        return f"{text} (default: {default:g})"
    return f"{text} (default: {default})" if default != "" else text
