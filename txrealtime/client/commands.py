"""
``txrealtime listen`` and ``call``: a Socket.IO client on the command line.
"""

from __future__ import annotations

import argparse
import json
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from txrealtime.client.client import Client
from txrealtime.client.load import Load
from txrealtime.client.settings import TRANSPORTS
from txrealtime.errors import AckTimeout, RealtimeError

__all__ = ["FAILED", "LATE", "addCommands", "call", "clientOf", "listen"]

FAILED: Final = 1
"""The exit code after a refusal, or if there is no connection."""

LATE: Final = 3
"""The exit code if the ack or the event did not come in time."""

Write = Callable[[str], object]


def addCommands(commands: Any) -> None:
    """
    Add the commands to a parser of arguments.

    :param commands: the result of ``ArgumentParser.add_subparsers``.
    """
    options = _options()
    parser = commands.add_parser(
        "listen", parents=[options], help="print the events that a server sends", description=_LISTEN
    )
    parser.add_argument("--event", metavar="NAME", action="append", default=[], help="only these; repeatable")
    parser.add_argument("--count", metavar="N", type=_positive(int), help="end after so many events")
    parser.add_argument("--json", action="store_true", help="print each event as one object of JSON")
    parser.set_defaults(run=_run(listen))

    parser = commands.add_parser(
        "call", parents=[options], help="send an event to a server, and print its ack", description=_CALL
    )
    parser.add_argument("event", help="its name")
    parser.add_argument("arguments", metavar="JSON", nargs="*", type=_json, help="its arguments")
    parser.add_argument("--no-ack", action="store_true", help="do not wait for an ack")
    parser.add_argument("--json", action="store_true", help="print the ack as one array of JSON")
    parser.set_defaults(run=_run(call))

    parser = commands.add_parser(
        "load", parents=[options], help="load a server with many clients", description=_LOAD
    )
    Load.addArguments(parser, _positive, _json)
    parser.set_defaults(run=_run(load))


_LISTEN: Final = (
    "Print the events of a server, and connect again when the connection is lost. The exit code is 0 after "
    "--count events or an interrupt, 1 without a connection, 3 after --timeout."
)
_CALL: Final = (
    "Send an event, and print the values of its ack, each as a line of JSON. The exit code is 0 with an ack, "
    "1 without a connection, 3 without an ack in time."
)
_LOAD: Final = (
    "Connect many clients, have each send events at a rate, and print how long the acks took. The exit code "
    "is 0 if all clients connected and all acks came, otherwise 1."
)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("url", metavar="URL", help="the server, such as http://localhost:8000/chat")
    parser.add_argument("--namespace", metavar="PATH", help="the namespace, in place of the URL's path")
    parser.add_argument("--auth", metavar="JSON", type=_json, help="an object for the server")
    parser.add_argument(
        "--header", metavar="NAME:VALUE", action="append", default=[], type=_header, help="repeatable"
    )
    parser.add_argument("--path", default="/socket.io/", help="the path of Socket.IO (default: /socket.io/)")
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        help="use this one alone (default: polling, then an upgrade to websocket)",
    )
    parser.add_argument("--endpoint", metavar="STRING", help="where to connect, such as unix:/run/app.sock")
    parser.add_argument("--proxy", metavar="URL", help="an HTTP proxy to connect through")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive(float),
        help="for the whole (call: 10; listen: no limit)",
    )
    return parser


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        meant = json.dumps(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON; if it is a text, write {meant!r}") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME:VALUE")
    return name.strip(), value.strip()


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
        return value

    return number


def clientOf(options: argparse.Namespace, reactor: Any, **more: Any) -> Client:
    """Make the client that a command line asks for."""
    url = options.url
    if options.namespace is not None:
        url = urlsplit(url)._replace(path=options.namespace).geturl()
    return Client(
        url,
        options.auth,
        (options.transport,) if options.transport else TRANSPORTS,
        reactor,
        path=options.path,
        headers=dict(options.header),
        proxy=options.proxy,
        **{"endpoint": options.endpoint, **more},
    )


def shown(value: Any) -> str:
    """Return a value as JSON; bytes are an object with their base64."""
    return json.dumps(value, default=_bytes, ensure_ascii=False)


def _bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def listen(options: argparse.Namespace, client: Client, reactor: Any, write: Write) -> int:
    """Print events until there are enough, or time is up; return the exit code."""
    done: Deferred[int] = Deferred()
    left = options.count

    def received(event: str, *args: Any) -> None:
        nonlocal left
        if options.event and event not in options.event:
            return
        if options.json:
            write(shown({"event": event, "args": args}))
        else:
            write(" ".join([event, *map(shown, args)]))
        if left is not None:
            left -= 1
            if left == 0:
                done.callback(0)

    client.onAny(received)
    client.onDisconnect(lambda reason: _refused(client, done))
    await _connected(client, reactor, options.timeout)
    if options.timeout is not None:
        done.addTimeout(options.timeout, reactor, lambda *_: LATE)
    return await done


def _refused(client: Client, done: Deferred[int]) -> None:
    """End with an error if the client will not connect again."""

    def failed(failure: Failure) -> None:
        if not done.called:
            done.errback(failure)

    client.whenConnected().addErrback(failed)


async def call(options: argparse.Namespace, client: Client, reactor: Any, write: Write) -> int:
    """Send an event and print the ack; return the exit code."""
    timeout = 10.0 if options.timeout is None else options.timeout
    await _connected(client, reactor, timeout)
    if options.no_ack:
        client.emit(options.event, *options.arguments)
        return 0
    ack = await client.call(options.event, *options.arguments, timeout=timeout)
    values = list(ack) if isinstance(ack, tuple) else [] if ack is None else [ack]
    for line in [values] if options.json else values:
        write(shown(line))
    return 0


def _connected(client: Client, reactor: Any, timeout: float | None) -> Deferred[Client]:
    """Start a client, and wait for its first attempt to connect."""
    waiting = client.whenConnected(failAfterFailures=1)
    client.startService()
    return waiting if timeout is None else waiting.addTimeout(timeout, reactor, _late)


def _late(_: Any, seconds: float) -> Any:
    raise AckTimeout(f"no connection within {seconds:g} s")


async def load(options: argparse.Namespace, client: Client, reactor: Any, write: Write) -> int:
    """Run a load test; return the exit code."""
    test = Load(options, reactor, lambda: clientOf(options, reactor, reconnection=False))
    # The first client tells early whether there is a server at all.
    await _connected(client, reactor, options.timeout)
    await client.stopService()
    summary = await test.run(sys.stderr.write if sys.stderr.isatty() else None)
    for line in summary:
        write(line)
    return 0 if test.succeeded else FAILED


async def guarded(
    command: Callable[..., Any],
    options: argparse.Namespace,
    client: Client,
    reactor: Any,
    write: Write,
    warn: Write,
) -> int:
    """Run a command, and make an exit code and a message of its error."""
    try:
        code: int = await command(options, client, reactor, write)
    except AckTimeout as error:
        warn(str(error))
        code = LATE
    except (RealtimeError, TypeError, ValueError) as error:
        warn(str(error))
        code = FAILED
    await client.stopService()
    return code


def _run(command: Callable[..., Any]) -> Callable[[argparse.Namespace], int]:
    """Make a function that runs a command in the reactor and returns its exit code."""

    def run(options: argparse.Namespace) -> int:
        def warn(words: str) -> None:
            print(f"txrealtime {command.__name__}: {words}", file=sys.stderr)

        def write(line: str) -> None:
            print(line, flush=True)

        async def main(reactor: Any) -> None:
            try:
                client = clientOf(options, reactor)
            except (TypeError, ValueError) as error:
                warn(str(error))
                raise SystemExit(2) from None
            raise SystemExit(await guarded(command, options, client, reactor, write, warn))

        try:
            react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
        except SystemExit as exit:
            return int(exit.code or 0)
        return 0

    return run
