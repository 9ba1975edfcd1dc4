"""
``app.run()`` and ``flask run``: Flask's own ways to serve, for an application with Socket.IO.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Protocol

import click
from flask import Flask
from flask.cli import ScriptInfo, run_command

from txrealtime.server import IApplication

__all__ = ["command", "refuseFlaskRun", "takeOverRun"]

_WERKZEUG: Final = ("load_dotenv", "processes", "threaded", "use_debugger", "use_evalex")
"""Options of Werkzeug's server that go without saying here, or mean nothing."""


class Runnable(Protocol):
    """An object that serves an application: :class:`~txrealtime.flask.SocketIO`."""

    def run(self, app: Flask, host: str | None = None, port: int | None = None, **options: Any) -> None: ...


def takeOverRun(app: Flask, socketio: Runnable) -> None:
    """Have ``app.run()`` serve Socket.IO too."""
    original: Callable[..., None] = app.run

    def run(
        host: str | None = None, port: int | None = None, debug: bool | None = None, **options: Any
    ) -> None:
        """Serve the application and Socket.IO, as ``socketio.run(app)`` does."""
        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
            # Flask says that the command serves, and not this call.
            original(host, port, debug, **options)
            return
        if debug is not None:
            options["debug"] = debug
        for name in _WERKZEUG:
            options.pop(name, None)
        # Werkzeug's server logs, and tells its address.
        options.setdefault("log_output", True)
        socketio.run(app, host, port, **options)

    app.run = run  # type: ignore[method-assign, assignment]


def refuseFlaskRun(app: Flask) -> None:
    """
    Refuse to be served by Flask's own ``flask run``, which runs if ``flask`` cannot find :data:`command`.

    :raises click.ClickException: if ``flask run`` is running; the ``flask`` command shows the message and
        ends.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.command is run_command:
        raise click.ClickException(
            "flask run has not found txrealtime's command, so it cannot serve Socket.IO: install txrealtime "
            "by pip, or serve the application by socketio.run(app), as in "
            f"'python {app.import_name}.py', or by: twistd -n realtime --app {app.import_name}:socketio"
        )


@click.pass_context
def _run(context: click.Context, /, **options: Any) -> None:
    try:
        app = context.ensure_object(ScriptInfo).load_app()
    except Exception:
        # Flask's own command shows the error, and waits for a change of the source.
        socketio: Any = None
    else:
        socketio = app.extensions.get("socketio")
    if socketio is None or not IApplication.providedBy(socketio):
        context.invoke(run_command, **options)
        return
    reload = options.get("reload")
    runnable: Any = socketio
    runnable.run(
        app,
        options.get("host"),
        options.get("port"),
        use_reloader=app.debug if reload is None else reload,
        extra_files=options.get("extra_files"),
        ssl_context=options.get("cert"),
        log_output=True,
    )


command: Final = click.Command(
    "run",
    params=run_command.params,
    callback=_run,
    short_help=run_command.short_help,
    help=run_command.help,
)
"""``flask run``, as an entry point: Flask's own, except for an application with Socket.IO."""
