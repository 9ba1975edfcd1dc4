"""
The objects that the command line names: the application's server, and the pages beside it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from twisted.web.resource import IResource

from txrealtime import chat
from txrealtime.clientfiles import ClientFiles
from txrealtime.engineio.http.site import Beside
from txrealtime.files import Folder
from txrealtime.monitor.admin.admin import Admin
from txrealtime.monitor.admin.files import PLACE, Pages, findPages
from txrealtime.monitor.admin.passwords import Passwords
from txrealtime.monitor.health import PROBES, Fleet, Health, Probes
from txrealtime.server import IApplication, Server
from txrealtime.service.front import Front
from txrealtime.service.options import Options, StartupError
from txrealtime.service.wsgi import Views
from txrealtime.socketio.packet import IParser, JSONParser

__all__ = ["adminOf", "load", "parserOf", "rootOf", "serverOf"]


def load(option: str, name: str) -> Any:
    """
    Import the object named ``module:name`` from the current folder or ``PYTHONPATH``.

    :param option: the option with this name, for the error.
    :raises StartupError: if there is no such object, or its module fails or calls ``sys.exit()``.
    """
    moduleName, _, path = name.partition(":")
    if not moduleName or not path or moduleName.startswith("."):
        raise StartupError(f"{option} {name}: expected MODULE:NAME, such as chat:server")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(moduleName)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        # A module that the application imports may be missing as well as the application.
        if missing and f"{moduleName}.".startswith(f"{missing}."):
            sought = f"sought in {os.getcwd()} and on PYTHONPATH"
            raise StartupError(f"{option} {name}: {error} ({sought})") from None
        raise StartupError(f"{option} {name}: {moduleName} {_howItEnded(error)}") from None
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise StartupError(f"{option} {name}: {moduleName} has no {path}") from None
    return found


def _howItEnded(error: BaseException) -> str:
    """Tell how code of the application failed: sys.exit() in one line, an error with its place."""
    if isinstance(error, SystemExit):
        reason = "" if error.code is None else repr(error.code)
        return f"called sys.exit({reason}): keep code for the command line below if __name__ == '__main__'"
    return f"failed\n{_lastLines(error)}"


def _lastLines(error: BaseException) -> str:
    """Format the application's own frames of an error, without those that led there."""
    ours = (__file__, importlib.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in ours and not frame.filename.startswith("<frozen importlib")
    ]
    lines = [*traceback.format_list(frames[-4:]), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()


def parserOf(name: str) -> IParser:
    """
    Return the parser with a name on the command line.

    :raises StartupError: if the parser's package is not installed.
    """
    if name == "json":
        return JSONParser()
    try:
        from txrealtime.socketio.msgpack import MsgpackParser
    except ModuleNotFoundError as error:
        raise StartupError(f"--parser {name}: {error}; pip install txrealtime[{name}]") from None
    return MsgpackParser()


def serverOf(options: Options) -> Server:
    """
    Return the server that the command line names, with the settings given there; by default the chat's.

    :raises StartupError: if there is no such server, or it does not take the settings.
    """
    name, given = options["app"], dict(options["settings"])
    if options["path"] is not None:
        given["path"] = options["path"]
    if options["parser"] is not None:
        given["parser"] = parserOf(options["parser"])
    if options["bus"] is not None:
        given["bus"] = options["bus"]
    server = chat.makeServer(**given) if name is None else _applicationOf(options, name, given)
    try:
        server.cluster.open()
    except ValueError as error:
        raise StartupError(f"the bus: {error}") from None
    try:
        ClientFiles(server.settings.client)
    except ValueError as error:
        raise StartupError(f"--client: {error}") from None
    return server


def _applicationOf(options: Options, name: str, given: dict[str, Any]) -> Server:
    """Return the server that ``--app`` names."""
    found = load("--app", name)
    if not _isApplication(found) and callable(found):
        try:
            found = found()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise StartupError(f"--app {name}: the call {_howItEnded(error)}") from None
    if not _isApplication(found):
        kind = type(found).__qualname__
        raise StartupError(
            f"--app {name}: expected a Server, a SocketIO, or a callable that returns one, not {kind}"
        )
    options["application"] = found
    found = found if isinstance(found, Server) else found.realtime
    if given:
        try:
            found.configure(**given)
        except (RuntimeError, ValueError) as error:
            raise StartupError(f"--app {name}: {error}") from None
    return found


def _isApplication(found: object) -> bool:
    return isinstance(found, Server) or IApplication.providedBy(found)


def rootOf(
    options: Options, server: Server, reactor: Any, fleet: Fleet | None = None
) -> tuple[IResource, str]:
    """
    Return the resource for /, and its name for the log.

    :param fleet: the workers, if this process is one.
    :raises StartupError: if the pages or the health check cannot be had, or are at Socket.IO's path.
    """
    root, name = _pagesOf(options, server, reactor)
    if name and server.path == "/":
        raise StartupError(f"--path /: Socket.IO would hide {name}, at /: give a path such as /socket.io")
    _checkApart(options)
    health = options["health"]
    if health is not None:
        _checkPlace(f"--health {health}", health, server, "give a path such as /health")
        root = Beside(health, Health(server, fleet), root)
    if options["adminUI"] is not None:
        _checkPlace(f"--admin-ui: {PLACE}", PLACE, server, "give another --path")
        try:
            root = Beside(PLACE, Pages(findPages(options["adminUI"]), server), root)
        except (OSError, ValueError) as error:
            raise StartupError(f"--admin-ui: {error}") from None
    page = options["metricsPage"]
    if page is not None and options["metricsListen"] is None:
        path = options["metrics"]
        _checkPlace(f"--metrics {path}", path, server, "give a path such as /metrics")
        root = Beside(path, page, root)
    if options["probes"]:
        for path in PROBES:
            _checkPlace(f"--probes: {path}", path, server, "give another --path")
        root = Probes(server, root, fleet)
    return root, name


def _checkPlace(what: str, path: str, server: Server, advice: str) -> None:
    """
    Check that Socket.IO does not hide a page.

    :raises StartupError: if Socket.IO answers at its path.
    """
    if f"/{path.strip('/')}/".startswith(f"{server.path.rstrip('/')}/"):
        raise StartupError(f"{what}: Socket.IO answers at {server.path} and below: {advice}")


def _checkApart(options: Options) -> None:
    """
    Check that no page hides another: each answers at its path and below.

    :raises StartupError: if two pages would.
    """
    pages = [("--probes", path) for path in PROBES if options["probes"]]
    if options["adminUI"] is not None:
        pages.append(("--admin-ui", PLACE))
    for option in ("health", "metrics"):
        path = options[option]
        if path is None or (option == "metrics" and options["metricsListen"] is not None):
            continue
        for other, taken in pages:
            one, two = (f"/{each.strip('/')}/" for each in (path, taken))
            if one.startswith(two) or two.startswith(one):
                raise StartupError(f"--{option} {path}: {other} answers at {taken}: give another path")
        pages.append((f"--{option}", path))


def adminOf(options: Options, server: Server) -> Admin | None:
    """
    Make the server's side of the admin UI, if an option asks for it.

    :raises StartupError: if the file of users cannot be read, or the application has the namespace.
    """
    if not options["admin"]:
        return None
    file = options["adminAuth"]
    try:
        passwords = None if file == "none" else Passwords.fromFile(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartupError(f"--admin-auth {file}: {reason}") from None
    try:
        return Admin(
            server, passwords, development=options["adminMode"] == "development", write=options["adminWrite"]
        )
    except ValueError as error:
        raise StartupError(f"--admin: {error}") from None


def _pagesOf(options: Options, server: Server, reactor: Any) -> tuple[IResource, str]:
    folder, name = options["static"], options["wsgi"]
    if folder is not None:
        # A browser must not take a file without a known extension for a page.
        return Folder(folder, "application/octet-stream"), folder
    if name is not None:
        application = load("--wsgi", name)
        if not callable(application):
            kind = type(application).__qualname__
            raise StartupError(f"--wsgi {name}: expected a WSGI application, not {kind}")
        return Views(reactor, application, options["wsgiThreads"], server), name
    application = options["application"]
    if IApplication.providedBy(application):
        return application.root(reactor), options["app"]
    if options["app"] is None:
        return chat.page(path=server.path), "the chat"
    return Front(server), ""
