"""
The command line of ``twistd realtime`` and ``txrealtime serve``, and its help.

Most options are made from the fields of :class:`~txrealtime.server.Settings`: name, kind and default from the
field, the help from its metadata.
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import Field, fields
from typing import Any, ClassVar
from urllib.parse import quote

from twisted import copyright
from twisted.python import usage

from txrealtime._version import __version__
from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.dialects.choice import DialectChoice
from txrealtime.logs import printable
from txrealtime.monitor.output import FORMATS, LEVELS, choose
from txrealtime.server import Settings
from txrealtime.service.background import settle
from txrealtime.service.helptext import about, described, examples, groups, optionOf, row
from txrealtime.workers.marks import MOST_WORKERS

__all__ = ["Options", "ServeOptions", "StartupError"]


class StartupError(SystemExit, Exception):
    """
    The server cannot start: a message on standard error, and exit code 1.

    The class has both bases because twistd tidies up after an ``Exception``, and Python shows no traceback
    of a ``SystemExit``.
    """

    program: ClassVar[str] = "twistd realtime"
    """The command that runs in this process."""

    def __init__(self, message: object) -> None:
        super().__init__(f"{self.program}: {message}")


class Options(usage.Options):
    """
    The options of ``twistd realtime``.

    ``self["settings"]`` has the settings that were given, by the names of their fields.  :meth:`parseOptions`
    raises :exc:`StartupError` for values that make no sense.
    """

    synopsis = "[--app MODULE:NAME] [options]"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.update(
            app=None,
            # The object that --app names, once it has been found.
            application=None,
            # The page of the metrics, once it has been made.
            metricsPage=None,
            static=None,
            wsgi=None,
            wsgiThreads=64,
            path=None,
            parser=None,
            bus=None,
            hub=None,
            health=None,
            probes=False,
            metrics=None,
            metricsListen=None,
            admin=False,
            adminMode="production",
            adminWrite=False,
            adminAuth=None,
            adminUI=None,
            logLevel=None,
            logFormat=None,
            tracedClients=[],
            traceShown=0,
            blockedAfter=0.5,
            listen=[],
            workers=None,
            hangTimeout=30.0,
            maxRSS=0,
            # The command line as given, for the workers.
            arguments=[],
            # The words of a daemon, once there are some.
            notice=None,
            settings={},
        )

    def opt_app(self, name: str) -> None:
        """the application: a txrealtime.Server, a txrealtime.flask.SocketIO, or a callable that returns one;
        the module is found from the current folder or PYTHONPATH (default: a chat to try)"""
        self["app"] = name

    def opt_static(self, folder: str) -> None:
        """a folder to serve at /, with its index.html; hidden files are not served, nor lists of files"""
        if not os.path.isdir(folder):
            raise usage.UsageError(f"--static {folder}: there is no such folder")
        # twistd may go to another folder before the first request comes.
        self["static"] = os.path.abspath(folder)

    def opt_wsgi(self, name: str) -> None:
        """a WSGI application to serve at /, in a pool of threads"""
        self["wsgi"] = name

    def opt_wsgi_threads(self, count: str) -> None:
        """the most threads of the WSGI application that --wsgi names: one for each request that it answers
        at a time, also while it streams (default: 64)"""
        if not count.isdecimal() or int(count) < 1:
            raise usage.UsageError(f"--wsgi-threads {count}: expected a whole number above 0")
        self["wsgiThreads"] = int(count)

    def opt_path(self, path: str) -> None:
        """the path of Socket.IO (default: /socket.io, unless the application says otherwise)"""
        self["path"] = _checkedPath("path", path)

    def opt_parser(self, name: str) -> None:
        """the format of packets, the same for all clients: json, or msgpack for clients with
        socket.io-msgpack-parser (default: json, unless the application says otherwise)"""
        if name not in ("json", "msgpack"):
            raise usage.UsageError(f"--parser {name}: expected json or msgpack")
        self["parser"] = name

    def opt_bus(self, url: str) -> None:
        """the bus that makes several servers one: unix:PATH for the hub of this machine, redis://, rediss://,
        redis+unix://, redis+sentinel://, redis+streams://, amqp:// or amqps://, with ?dialect=node,
        ?dialect=node-streams or ?dialect=python-socketio to join servers of these; redis://A,redis://B,...
        spreads the load over several Redis servers (default: none, unless the application says otherwise)"""
        try:
            DialectChoice.fromURL(url)
        except ValueError as error:
            # Without the URL: it may have a password.
            raise usage.UsageError(f"--bus: {error}") from None
        self["bus"] = url

    def opt_hub(self, path: str) -> None:
        """run the hub of this machine in this process, at a socket that processes of the same user may
        connect to; without --bus, this server's bus is the hub (default: none)"""
        path = os.path.abspath(path)
        self["hubURL"] = f"unix:{quote(path)}"
        try:
            Address.fromURL(self["hubURL"])
        except ValueError as error:
            raise usage.UsageError(f"--hub {printable(path)}: {error}") from None
        self["hub"] = path

    def opt_health(self, path: str) -> None:
        """the path of a health check: status 200 while the server is ready, 503 while its link to the other
        servers is down (default: none)"""
        if not path.strip("/"):
            raise usage.UsageError(f"--health {path}: expected a path, such as /health")
        self["health"] = _checkedPath("health", path)

    def opt_probes(self) -> None:
        """serve /livez, status 200 while the process is fit, and /readyz, status 503 while the server starts,
        stops, is full or its link to the other servers is down; with ?verbose they list their checks"""
        self["probes"] = True

    def opt_metrics(self, path: str) -> None:
        """the path of the metrics, for Prometheus (default: none, or /metrics with --metrics-listen)"""
        if not path.strip("/"):
            raise usage.UsageError(f"--metrics {path}: expected a path, such as /metrics")
        self["metrics"] = _checkedPath("metrics", path)

    def opt_metrics_listen(self, endpoint: str) -> None:
        """an endpoint string for the metrics, such as tcp:9090:interface=127.0.0.1, in place of --listen's;
        the pages of --probes and --health are there too (default: none)"""
        self["metricsListen"] = endpoint

    def opt_admin(self) -> None:
        """let Socket.IO's admin UI show this server and its peers, at the namespace /admin, to the users of
        --admin-auth"""
        self["admin"] = True

    def opt_admin_mode(self, mode: str) -> None:
        """production, or development to show each socket, room and event too, with the values in them
        (default: production)"""
        if mode not in ("production", "development"):
            raise usage.UsageError(f"--admin-mode {printable(mode)}: expected production or development")
        self["adminMode"] = mode

    def opt_admin_write(self) -> None:
        """let users of the admin UI put clients into rooms, disconnect them and emit events (default: they
        may only look)"""
        self["adminWrite"] = True

    def opt_admin_auth(self, file: str) -> None:
        """a file with the users of the admin UI, a line of txrealtime password for each; or none,
        to let everybody in"""
        self["adminAuth"] = file if file == "none" else os.path.abspath(file)

    def opt_admin_ui(self, folder: str) -> None:
        """serve the admin UI at /admin/, from the folder of the npm package @socket.io/admin-ui; auto for the
        nearest node_modules (default: not served)"""
        self["adminUI"] = folder if folder == "auto" else os.path.abspath(folder)

    def opt_listen(self, endpoint: str) -> None:
        """an endpoint string of Twisted to listen at: tcp:, ssl:, unix:, systemd: and others; may be repeated
        (default: tcp:8000)"""
        self["listen"].append(endpoint)

    def opt_log_level(self, level: str) -> None:
        """the lowest level that is logged: debug, info, warn, error or critical (default: debug)"""
        if level not in LEVELS:
            raise usage.UsageError(f"--log-level {printable(level)}: expected one of {', '.join(LEVELS)}")
        self["logLevel"] = level

    def opt_log_format(self, format: str) -> None:
        """the form of the log: text, or json for one object a line (default: text)"""
        if format not in FORMATS:
            raise usage.UsageError(f"--log-format {printable(format)}: expected text or json")
        self["logFormat"] = format

    def opt_trace_packets(self, clients: str) -> None:
        """log the packets of a client: its address, the beginning of a session id, or all; with ,N the first
        N characters of each, which may be secrets of users (default: none); may be repeated"""
        client, comma, shown = clients.partition(",")
        if not client or (comma and not shown.isdecimal()):
            raise usage.UsageError(
                f"--trace-packets {printable(clients)}: expected an address, the beginning of a session "
                "id or all, with ,N to show the first N characters of each packet"
            )
        self["tracedClients"].append("" if client == "all" else client)
        self["traceShown"] = int(shown or self["traceShown"])

    def opt_blocked_after(self, seconds: str) -> None:
        """seconds after which a blocked reactor is logged with its stack and the handler's name; 0 for never
        (default: 0.5)"""
        try:
            self["blockedAfter"] = float(seconds)
        except ValueError:
            self["blockedAfter"] = -1.0
        if not 0 <= self["blockedAfter"] < math.inf:
            raise usage.UsageError(f"--blocked-after {printable(seconds)}: expected seconds, or 0 for never")

    def opt_workers(self, count: str) -> None:
        """the number of worker processes that share the ports, or auto for one on each core; clients need no
        sticky sessions (default: none, this process serves)"""
        if count == "auto":
            self["workers"] = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        elif count.isdecimal() and 1 <= int(count) <= MOST_WORKERS:
            self["workers"] = int(count)
        else:
            raise usage.UsageError(f"--workers {count}: expected auto, or a number from 1 to {MOST_WORKERS}")

    def opt_hang_timeout(self, seconds: str) -> None:
        """seconds after which a worker whose reactor stands still is killed, with its stacks in the log; 0
        for never (default: 30)"""
        try:
            value = _value(0.0, seconds)
        except ValueError as error:
            raise usage.UsageError(f"--hang-timeout {seconds}: {error}") from None
        if not isinstance(value, float) or value < 0:
            raise usage.UsageError(f"--hang-timeout {seconds}: expected a number of seconds, or 0")
        self["hangTimeout"] = value

    def opt_max_rss(self, size: str) -> None:
        """the memory, such as 500M or 2G, beyond which a worker is replaced by a new one (default: any)"""
        match = re.fullmatch(r"([1-9]\d*)([MG])", size, re.ASCII)
        if match is None:
            raise usage.UsageError(f"--max-rss {size}: expected a size, such as 500M or 2G")
        self["maxRSS"] = int(match[1]) << (20 if match[2] == "M" else 30)

    def opt_version(self) -> None:
        """show the versions and exit"""
        print(f"txrealtime {__version__}, Twisted {copyright.version}")
        sys.exit(0)

    def opt_help(self) -> None:
        """show this help and exit"""
        super().opt_help()  # type: ignore[no-untyped-call]

    def parseOptions(self, options: Any = None) -> None:
        self["arguments"] = list(sys.argv[1:] if options is None else options)
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            # twistd would print the whole help, and the error below it.
            raise StartupError(f"{error} (see {StartupError.program} --help)") from None

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"{args[0]!r} is not an option")

    def postOptions(self) -> None:
        if self["static"] and self["wsgi"]:
            raise usage.UsageError("--static and --wsgi both serve /: give one of them")
        if self["workers"] is None and (self["maxRSS"] or self["hangTimeout"] != 30.0):
            raise usage.UsageError("--hang-timeout and --max-rss are for workers: give --workers too")
        self._checkAdmin()
        self._chooseBus()
        self._chooseLog()
        self["notice"] = settle(self.parent, StartupError.program)

    def _chooseBus(self) -> None:
        """Let the hub be the bus, unless it is the hub of workers before another bus."""
        if self["hub"] and not self["bus"]:
            self["bus"] = self["hubURL"]
            return
        isBefore = self["workers"] is not None and not (self["bus"] or "").startswith("unix:")
        if self["hub"] and self["bus"].partition("?")[0] != self["hubURL"] and not isBefore:
            raise usage.UsageError(
                f"--hub and --bus: only with --workers the hub stands before another bus, so leave --bus "
                f"out, or give {self['hubURL']} with ?key= or ?dialect="
            )

    def _checkAdmin(self) -> None:
        """Check that the options of the admin UI go together."""
        others = {
            "--admin-mode": self["adminMode"] != "production",
            "--admin-write": self["adminWrite"],
            "--admin-auth": self["adminAuth"] is not None,
            "--admin-ui": self["adminUI"] is not None,
        }
        given = [option for option, isGiven in others.items() if isGiven]
        if given and not self["admin"]:
            raise usage.UsageError(f"{given[0]} is for --admin: give --admin too")
        if self["admin"] and self["adminAuth"] is None:
            raise usage.UsageError(
                "--admin: give --admin-auth FILE, with lines of txrealtime password, or "
                "--admin-auth none to let everybody in"
            )

    def _chooseLog(self) -> None:
        """Let twistd take our observer of the log, if an option asks for one."""
        given = [f"--log-{what}" for what in ("level", "format") if self[f"log{what.capitalize()}"]]
        twistd = getattr(self, "parent", None)
        if not given or twistd is None:
            return
        for other in ("syslog", "logger"):
            if twistd.get(other):
                raise usage.UsageError(
                    f"{given[0]}: twistd's --{other} writes the log: leave out one of them"
                )
        twistd["logger"] = choose(twistd, self["logLevel"] or "debug", self["logFormat"] or "text")

    def getUsage(self, width: int | None = None) -> str:
        width = width or int(os.environ.get("COLUMNS", "80"))
        shown = [
            f"{title}:\n" + "".join(row(form, self.docs[name], width) for name, form in rows)
            for title, rows in groups(StartupError.program).items()
        ]
        return "\n".join([about(StartupError.program), *shown, examples(StartupError.program)])


class ServeOptions(Options):
    """The options of ``txrealtime serve``: those of ``twistd realtime``, and two more."""

    def __init__(self) -> None:
        super().__init__()
        self["reload"] = False

    def opt_reload(self) -> None:
        """for development: start the server anew whenever a .py file changes in the current folder, below
        it, or on PYTHONPATH"""
        self["reload"] = True

    def opt_reactor(self, name: str) -> None:
        """the reactor, such as asyncio, select or quickepoll (default: the best one of the system)"""
        parent: Any = self.parent
        if parent is not None:  # else a worker, which has its supervisor's reactor
            parent.opt_reactor(name)

    def postOptions(self) -> None:
        super().postOptions()
        if self["reload"] and self["workers"] is not None:
            raise usage.UsageError("--reload is for development: leave out --workers")


def _checkedPath(option: str, path: str) -> str:
    """
    Return a path of a URL.

    :raises UsageError: if a request can never have this path.
    """
    if not path.isprintable() or set(path) & set("?# ") or ".." in path.split("/"):
        raise usage.UsageError(f"--{option} {printable(path)}: expected the path of a URL, such as /{option}")
    return path


# -- one option for each setting -------------------------------------------------------


def _value(default: object, text: str) -> str | int | float:
    """Convert a text of the command line to the type of the default."""
    if isinstance(default, str):
        return text
    kind = int if isinstance(default, int) else float
    with suppress(ValueError):
        number = kind(text)
        if math.isfinite(number):
            return number
    raise ValueError(f"expected a {'whole number' if kind is int else 'number'}")


def _give(options: Options, field: Field[Any], value: Any) -> None:
    with warnings.catch_warnings():
        # The server that gets the value warns.
        warnings.simplefilter("ignore")
        Settings(**{field.name: value})  # raises ValueError
    options["settings"][field.name] = value


def _handlers(field: Field[Any]) -> Iterator[tuple[str, Callable[..., None]]]:
    """Yield the options of a setting, each with a method for :class:`Options`."""
    option, default = optionOf(field), field.default
    if isinstance(default, bool):
        yield option, lambda self: _give(self, field, True)
        yield f"no-{option}", lambda self: _give(self, field, False)
        return

    def take(self: Options, text: str) -> None:
        try:
            if isinstance(default, tuple):
                _give(self, field, (*self["settings"].get(field.name, ()), text))
            else:
                _give(self, field, _value(default, text))
        except ValueError as error:
            raise usage.UsageError(f"--{option} {printable(text)}: {error}") from None

    yield option, take


for _field in fields(Settings):
    for _name, _handler in _handlers(_field):
        _handler.__doc__ = described(_field)
        setattr(Options, "opt_" + _name.replace("-", "_"), _handler)
