"""
Watchers: objects that are told what happens on a server, and the hooks by which they are.

All parts of a server share one :class:`Hooks`.  A hook is ``None`` while no watcher has it, so a server that
nobody watches pays a comparison for each event, and no call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from txrealtime.engineio.hooks import SessionHooks
from txrealtime.engineio.session import CloseReason, Session
from txrealtime.logs import Logger

if TYPE_CHECKING:
    from txrealtime.socketio.sockets import Socket

__all__ = ["NO_HOOKS", "Hooks", "Watcher", "Watchers"]

_log = Logger()


class Watcher:
    """
    An object that is told what happens on a server: see :meth:`~txrealtime.Server.watch`.

    A subclass defines the methods that it needs; a method that it leaves out costs the server nothing.  All
    are called at once, in the reactor's thread, so they should be quick.  An exception of theirs is logged
    and changes nothing.
    """

    def sessionOpened(self, session: Session) -> None:
        """Called when a client's session has opened."""

    def sessionUpgraded(self, session: Session) -> None:
        """Called when a session has moved from polling to WebSocket."""

    def sessionClosed(self, session: Session) -> None:
        """
        Called when a session has ended, after its last messages were delivered.

        ``session.closeReason`` is the reason.
        """

    def socketConnected(self, socket: Socket) -> None:
        """Called when a client was admitted to a namespace."""

    def socketLeft(self, socket: Socket, reason: CloseReason) -> None:
        """Called when a client has left a namespace, and all its rooms."""

    def roomJoined(self, socket: Socket, room: str) -> None:
        """
        Called when a socket has joined a room, its own excepted.

        A handler of connections may put a socket into rooms before the socket is admitted.
        """

    def roomLeft(self, socket: Socket, room: str) -> None:
        """Called when a socket has left a room, its own excepted, also because its client leaves."""

    def eventReceived(self, socket: Socket, event: str, args: list[Any]) -> None:
        """
        Called when a client's event goes to the middleware and its handler.

        :param args: the arguments, which belong to the handler and must not be changed.
        """

    def eventSent(self, sockets: Sequence[Socket], event: str, args: Sequence[Any]) -> None:
        """
        Called when an event was sent to clients of this server, once for all of them.

        :param sockets: the receivers; none for an event to an empty room.
        :param args: the arguments, which must not be changed.
        """


_NAMES: Final = tuple(name for name in vars(Watcher) if not name.startswith("_"))


class Hooks(SessionHooks):
    """
    The hooks of a server: for each method of :class:`Watcher` a function, or ``None`` without a watcher.

    None of them raises.
    """

    __slots__ = ("eventReceived", "eventSent", "roomJoined", "roomLeft", "socketConnected", "socketLeft")

    def __init__(self) -> None:
        super().__init__()
        self.socketConnected: Callable[[Socket], object] | None = None
        self.socketLeft: Callable[[Socket, CloseReason], object] | None = None
        self.roomJoined: Callable[[Socket, str], object] | None = None
        self.roomLeft: Callable[[Socket, str], object] | None = None
        self.eventReceived: Callable[[Socket, str, list[Any]], object] | None = None
        self.eventSent: Callable[[Sequence[Socket], str, Sequence[Any]], object] | None = None


NO_HOOKS: Final = Hooks()
"""The hooks of a namespace that is not mounted; never set."""


class Watchers:
    """
    The watchers of a server.

    :param hooks: the server's, which this object sets.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._watchers: list[Watcher] = []

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """
        Tell a watcher from now on.

        :return: a function that ends it.
        :raises TypeError: if the object is no watcher, or defines no method of one.
        """
        if not isinstance(watcher, Watcher):
            raise TypeError(f"watch() takes a Watcher, not {watcher!r}")
        if not any(_defines(watcher, name) for name in _NAMES):
            raise TypeError(f"{watcher!r} watches nothing: define one of {', '.join(_NAMES)}")
        self._watchers.append(watcher)
        self._set()

        def stop() -> None:
            # By identity: a watcher may compare as it likes, and may be added twice.
            place = next((n for n, each in enumerate(self._watchers) if each is watcher), None)
            if place is not None and not stopped:
                stopped.append(True)
                del self._watchers[place]
                self._set()

        stopped: list[bool] = []
        return stop

    def _set(self) -> None:
        for name in _NAMES:
            functions = list(self._functions(name))
            setattr(self._hooks, name, _guarded(name, functions) if functions else None)

    def _functions(self, name: str) -> Iterator[Callable[..., object]]:
        for watcher in self._watchers:
            if _defines(watcher, name):
                yield getattr(watcher, name)


def _defines(watcher: Watcher, name: str) -> bool:
    return getattr(getattr(watcher, name), "__func__", None) is not getattr(Watcher, name)


def _guarded(name: str, functions: Sequence[Callable[..., object]]) -> Callable[..., None]:
    """Make a function that calls all functions, and logs their exceptions."""

    def tell(*args: Any) -> None:
        for function in functions:
            try:
                function(*args)
            except Exception:
                _log.failure("{name}() of a watcher failed", name=name)

    return tell
