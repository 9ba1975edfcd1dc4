"""
``python -m txrealtime``: ``emit`` on a bus; ``listen``, ``call`` and ``load`` as a client; ``password``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from getpass import getpass
from typing import Any, Final

from txrealtime.client.commands import addCommands
from txrealtime.cluster.emitter import Emitter
from txrealtime.errors import BusError
from txrealtime.monitor.admin.passwords import checkedName, hashed

__all__ = ["main"]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        meant = json.dumps(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON; if it is a text, write {meant!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m txrealtime")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    emit = commands.add_parser("emit", help="send an event to clients of the servers on a bus")
    emit.add_argument(
        "--bus",
        metavar="URL",
        default=os.environ.get("TXREALTIME_BUS"),
        help="the servers' bus, as for twistd realtime; in the environment variable TXREALTIME_BUS other "
        "users of the machine do not see a password",
    )
    emit.add_argument("--namespace", metavar="PATH", default="/", help="the clients' namespace (default: /)")
    emit.add_argument(
        "--to", metavar="ROOM", action="append", default=[], help="only clients in this room; repeatable"
    )
    emit.add_argument(
        "--excluding", metavar="ROOM", action="append", default=[], help="no clients in this room; repeatable"
    )
    emit.add_argument(
        "--volatile", action="store_true", help="leave out clients that cannot take the event at once"
    )
    emit.add_argument("event", help="the name of the event")
    emit.add_argument("arguments", metavar="JSON", nargs="*", type=_json, help="the arguments of the event")
    addCommands(commands)
    password = commands.add_parser(
        "password", help="hash a password for the file of twistd realtime --admin-auth", description=_PASSWORD
    )
    password.add_argument("name", help="the user's name")
    password.set_defaults(run=_hashPassword)
    return parser


_PASSWORD: Final = (
    "Print a line for the file of twistd realtime --admin-auth: the name and the hash of a password. On a "
    "terminal the password is asked for twice; otherwise it is the first line of standard input."
)


def _hashPassword(options: argparse.Namespace) -> int:
    """Print a name and the hash of a password that the user enters."""
    try:
        name = checkedName(options.name)
        if sys.stdin.isatty():
            password = getpass("Password: ")
            if getpass("The same again: ") != password:
                raise ValueError("the two passwords differ")
        else:
            password = sys.stdin.readline().rstrip("\r\n")
        print(f"{name}:{hashed(password)}")
    except (EOFError, KeyboardInterrupt, ValueError) as error:
        print(f"python -m txrealtime password: {error or 'no password'}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command line.

    :return: the exit code, 0 if the broker has taken the event.
    """
    options = _parser().parse_args(arguments)
    if "run" in options:
        return int(options.run(options))
    try:
        if not options.bus:
            raise ValueError("no bus: give --bus URL, or TXREALTIME_BUS in the environment")
        with Emitter(options.bus) as emitter:
            receivers = emitter.namespace(options.namespace)
            if options.to:
                receivers = receivers.to(*options.to)
            if options.excluding:
                receivers = receivers.excluding(*options.excluding)
            receivers.emit(options.event, *options.arguments, volatile=options.volatile)
    except (BusError, TypeError, ValueError) as error:
        print(f"python -m txrealtime emit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
