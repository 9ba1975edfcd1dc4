"""
``socketio.server``: the methods of python-socketio's server that applications for Flask-SocketIO call.

All of these may be called in any thread but the reactor's, and know the clients of this server only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from txrealtime.engineio.session import Session
from txrealtime.flask.bridge import Bridge
from txrealtime.flask.interfaces import Application
from txrealtime.socketio.sockets import Socket

__all__ = ["EngineFacade", "ManagerFacade", "QueueFacade", "ServerFacade"]

_SUBSTITUTES: Final = {
    "on": "socketio.on()",
    "event": "socketio.event()",
    "register_namespace": "socketio.on_namespace()",
    "handle_request": "socketio.run(app), or twistd -n realtime --app MODULE:socketio",
    "instrument": "the metrics and the health check of twistd realtime",
    "shutdown": "socketio.stop()",
    "transport": "socketio.realtime.namespace().sockets[sid].transport, in the reactor's thread",
    "handlers": "socketio.handlers",
}
"""Substitutes for attributes that the facades lack."""


def _refuse(what: str, name: str) -> NoReturn:
    substitute = _SUBSTITUTES.get(name, "socketio, or socketio.realtime, the txrealtime.Server")
    raise AttributeError(
        f"{what} has no {name!r}: python-socketio's server does not run here. Use {substitute} instead"
    )


class _Facade:
    """
    Access to the server from other threads.

    :param bridge: the bridge to the server.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def _ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the reactor's thread, or here as long as there can be no clients."""
        server = self._bridge.server
        if not (server.running or server.stopped):
            return function(*args)
        return server.blockingCallFromThread(function, *args)

    def _socket(self, sid: str, namespace: str | None) -> Socket:
        """
        Return a client, in the reactor's thread.

        :raises KeyError: if no such client is in the namespace.
        """
        space = self._bridge.spaces.get(namespace or "/")
        socket = None if space is None else space.rooms.find(sid)
        if socket is None:
            raise KeyError(sid)
        return socket

    def _sockets(self, namespace: str | None) -> list[Socket]:
        """Return the clients of a namespace, in the reactor's thread."""
        space = self._bridge.spaces.get(namespace or "/")
        return [] if space is None else list(space.sockets.values())


class EngineFacade(_Facade):
    """The engine, as ``socketio.server.eio``: its settings, and the sids of its sessions."""

    async_mode = "threading"

    @property
    def sockets(self) -> dict[str, Session]:
        """Return the sessions, by sid."""
        server = self._bridge.server
        if "engine" not in server.__dict__:
            # The engine would take the settings, which twistd may still change.
            return {}
        sessions: dict[str, Session] = self._ask(lambda: dict(server.engine.sessions))
        return sessions

    @property
    def cors_allowed_origins(self) -> str | list[str] | Callable[..., object] | None:
        """Return the allowed origins, ``*`` for any, ``None`` for the server's own only; or a function."""
        function = self._bridge.configuration.asksOrigin
        if function is not None:
            return function
        origins = self._bridge.server.settings.origins
        return "*" if "*" in origins else list(origins) or None

    def __getattr__(self, name: str) -> Any:
        if name in _ENGINE_SETTINGS:
            return getattr(self._bridge.server.settings, _ENGINE_SETTINGS[name])
        _refuse("socketio.server.eio", name)


_ENGINE_SETTINGS: Final = {
    "allow_upgrades": "allowUpgrades",
    "compression_threshold": "compressionThreshold",
    "cookie": "cookie",
    "max_http_buffer_size": "maxPayload",
    "ping_interval": "pingInterval",
    "ping_timeout": "pingTimeout",
    "transports": "transports",
}
"""Settings by python-engineio's names."""


class ManagerFacade(_Facade):
    """The rooms and their members, as ``socketio.server.manager``."""

    @property
    def rooms(self) -> dict[str, dict[str | None, dict[str, str]]]:
        """
        Return a copy: namespace, room, and the members' sids with those of their Engine.IO sessions.

        The room ``None`` has everybody.
        """
        rooms: dict[str, dict[str | None, dict[str, str]]] = self._ask(self._copyRooms)
        return rooms

    def _copyRooms(self) -> dict[str, dict[str | None, dict[str, str]]]:
        result: dict[str, dict[str | None, dict[str, str]]] = {}
        for path in list(self._bridge.spaces):
            for socket in self._sockets(path):
                rooms = result.setdefault(path, {})
                for room in (None, *socket.rooms):
                    rooms.setdefault(room, {})[socket.id] = socket.session.sid
        return result

    def get_namespaces(self) -> list[str]:
        """Return the namespaces that have clients."""
        return list(self.rooms)

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """Yield the members of a room, or of all rooms for ``None``, each as (sid, sid of its session)."""
        for name in room if isinstance(room, list) else [room]:
            name = name if name is None or isinstance(name, str) else str(name)
            yield from self.rooms.get(namespace, {}).get(name, {}).items()

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Tell if a client is in a namespace."""
        return sid in self.rooms.get(namespace, {}).get(None, {})

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        """Return the rooms of a client, its own included."""
        rooms = self.rooms.get(namespace, {})
        return [room for room, members in rooms.items() if room is not None and sid in members]

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        """Return the sid of a client's Engine.IO session."""
        return self.rooms.get(namespace, {}).get(None, {}).get(sid)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        """Return the sid that the client of an Engine.IO session has in a namespace."""
        members = self.rooms.get(namespace, {}).get(None, {})
        return next((sid for sid, session in members.items() if session == eio_sid), None)

    def __getattr__(self, name: str) -> Any:
        _refuse("socketio.server.manager", name)


class QueueFacade:
    """
    The message queue, as ``socketio.server_options["client_manager"]``.

    :ivar write_only: if the process only sends.
    """

    def __init__(self, write_only: bool) -> None:
        self.write_only = write_only

    def __getattr__(self, name: str) -> Any:
        _refuse("socketio.server_options['client_manager']", name)


class ServerFacade(_Facade):
    """
    The server, as ``socketio.server``.

    :param application: the :class:`~txrealtime.flask.SocketIO`.
    :ivar manager: a :class:`ManagerFacade`.
    :ivar eio: an :class:`EngineFacade`.
    """

    async_mode = "threading"

    def __init__(self, bridge: Bridge, application: Application) -> None:
        super().__init__(bridge)
        self._application = application
        self.manager = ManagerFacade(bridge)
        self.eio = EngineFacade(bridge)

    # -- opening requests ----------------------------------------------------------------

    @property
    def environ(self) -> dict[str, dict[str, Any]]:
        """Return the WSGI environments of the clients, by the sids of their Engine.IO sessions."""
        environs: dict[str, dict[str, Any]] = self._ask(self._copyEnvirons)
        return environs

    def _copyEnvirons(self) -> dict[str, dict[str, Any]]:
        return {
            session.sid: {**visit.environ, "saved_session": visit.session}
            for session, visit in list(self._bridge.visits.items())
        }

    def get_environ(self, sid: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return the WSGI environment of a client's opening request; ``None`` for an unknown sid."""

        def find() -> dict[str, Any] | None:
            try:
                socket = self._socket(sid, namespace)
            except KeyError:
                return None
            return dict(self._bridge.visitOf(socket).environ)

        environ: dict[str, Any] | None = self._ask(find)
        return environ

    # -- sessions --------------------------------------------------------------------------

    def get_session(self, sid: str, namespace: str | None = None) -> dict[str, Any]:
        """
        Return the dictionary that the application keeps for a client.

        :raises KeyError: if no such client is in the namespace.
        """
        session: dict[str, Any] = self._ask(lambda: self._socket(sid, namespace).data)
        return session

    def save_session(self, sid: str, session: dict[str, Any], namespace: str | None = None) -> None:
        """
        Replace the dictionary that the application keeps for a client.

        :raises KeyError: if no such client is in the namespace.
        """

        def save() -> None:
            self._socket(sid, namespace).data = session

        self._ask(save)

    @contextmanager
    def session(self, sid: str, namespace: str | None = None) -> Iterator[dict[str, Any]]:
        """Edit the dictionary that the application keeps for a client, and save it afterwards."""
        session = self.get_session(sid, namespace)
        yield session
        self.save_session(sid, session, namespace)

    # -- sending ---------------------------------------------------------------------------

    def emit(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """Send an event; see :meth:`txrealtime.flask.SocketIO.emit`."""
        self._application.emit(
            event,
            data,
            namespace=namespace,
            to=room if to is None else to,
            skip_sid=skip_sid,
            callback=callback,
        )

    def send(self, data: Any, *args: Any, **options: Any) -> None:
        """Send the event ``message``, as :meth:`emit` does."""
        self.emit("message", data, *args, **options)

    def call(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        sid: Any = None,
        namespace: str | None = None,
        timeout: float = 60,
        ignore_queue: bool = False,
    ) -> Any:
        """Send an event and wait for the ack; see :meth:`txrealtime.flask.SocketIO.call`."""
        to = sid if to is None else to
        return self._application.call(event, data, namespace=namespace, to=to, timeout=timeout)

    # -- rooms -----------------------------------------------------------------------------

    def enter_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """Put a client into a room."""
        self._application.enter_room(sid, room, namespace)

    def leave_room(self, sid: str, room: Any, namespace: str | None = None) -> None:
        """Take a client out of a room."""
        self._application.leave_room(sid, room, namespace)

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        """Take everybody out of a room."""
        self._application.close_room(room, namespace)

    def rooms(self, sid: str, namespace: str | None = None) -> list[str]:
        """Return the rooms of a client."""
        return self._application.rooms(sid, namespace)

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Disconnect a client from a namespace."""
        self._application.disconnect(sid, namespace)

    def start_background_task(self, target: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Run a function in a daemon thread, and return the thread."""
        return self._application.start_background_task(target, *args, **keywords)

    def sleep(self, seconds: float = 0) -> None:
        """Sleep in the current thread."""
        self._application.sleep(seconds)

    def __getattr__(self, name: str) -> Any:
        _refuse("socketio.server", name)
