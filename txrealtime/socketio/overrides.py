"""
The check of a namespace's class: each method that an application wrote has an effect.

A method that hides one of :class:`Namespace`, or one that resembles a hook and is never called, lets
clients in that the application meant to refuse.  Mounting refuses such a class, with the right way in the
message.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from functools import partial, partialmethod
from typing import Any, Final, NoReturn

from txrealtime.socketio.namespace import Namespace, checkConcurrency
from txrealtime.socketio.registry import eventsOf, marksIn, place

__all__ = ["checkClass", "checkInstance", "hookLike"]

_HOOKS: Final = {
    "connected": "onConnect",
    "disconnecting": "onDisconnecting",
    "disconnected": "onDisconnect",
}
"""The methods meant for overriding, each with the decorator that does the same."""

_ALIKE: Final = {
    "connect": "connected",
    "connection": "connected",
    "connecting": "connected",
    "onconnect": "connected",
    "onconnected": "connected",
    "onconnecting": "connected",
    "onconnection": "connected",
    "handleconnect": "connected",
    "handleconnection": "connected",
    "connected": "connected",
    "connectionmade": "connected",
    "onopen": "connected",
    "disconnect": "disconnected",
    "disconnection": "disconnected",
    "ondisconnect": "disconnected",
    "ondisconnected": "disconnected",
    "ondisconnection": "disconnected",
    "handledisconnect": "disconnected",
    "disconnected": "disconnected",
    "connectionlost": "disconnected",
    "onclose": "disconnected",
    "ondisconnecting": "disconnecting",
    "disconnecting": "disconnecting",
}
"""Names that resemble a hook's, in lower case and without underscores, each with the hook."""

_INSTEAD: Final = {
    "path": "give the path to mount()",
    "concurrency": "give it to super().__init__(concurrency=...)",
    "reactor": "give the reactor to Server",
    "onConnect": "name it connected()",
    "onDisconnecting": "name it disconnecting()",
    "onDisconnect": "name it disconnected()",
}

_OURS: Final = frozenset(
    name
    for name in {
        *vars(Namespace()),
        *Namespace.__annotations__,
        *(name for kind in Namespace.__mro__[:-1] for name in vars(kind)),
    }
    if name not in _HOOKS and not (name.startswith("__") and name.endswith("__"))
)
"""The names of Namespace that are not meant for overriding."""

_MISSING: Final = object()
_NONE: Final[Mapping[str, object]] = {}


def checkClass(kind: type[Namespace]) -> None:
    """
    Check a class before an instance of it is mounted.

    :raises TypeError: if a method has no effect, or hides one that is not meant for overriding.  The message
        names the method and the right way.
    """
    bases = kind.__mro__
    behind = bases.index(Namespace)
    for owner in bases[:behind]:
        # The classes of this package may override more than those of an application.
        if owner.__module__.partition(".")[0] != "txrealtime":
            for name in _OURS.intersection(vars(owner)):
                _refuseOverride(f"{owner.__qualname__}.{name}", name, vars(owner)[name])
        _checkMarks(owner)
    for owner in bases[behind:]:
        if owner not in Namespace.__mro__:
            _checkBehind(kind, owner)
    if not any("__init__" in vars(owner) for owner in bases[:behind]):
        # Otherwise __init__() may register the methods, as checkInstance() sees.
        _checkAlike(kind, [])


def checkInstance(namespace: Namespace) -> None:
    """
    Check an instance before it is mounted.

    :raises TypeError: if a method or an attribute has no effect or hides another; see :func:`checkClass`.
    :raises ValueError: if ``concurrency`` is no number above 0.
    """
    kind, attributes = type(namespace), vars(namespace)
    made: dict[str, Any] | None = attributes.get("_made")
    if made is None:
        raise TypeError(f"{kind.__qualname__}.__init__() does not call super().__init__()")
    for name in _HOOKS.keys() & attributes.keys():
        raise TypeError(
            f"self.{name} of {kind.__qualname__} would not be called: "
            f"define a method {name}(), or write self.{_HOOKS[name]}(function)"
        )
    for name in _OURS.intersection(attributes) - {"concurrency", "_made"}:
        if attributes[name] is not made.get(name, _MISSING):
            _refuseOverride(f"self.{name} of {kind.__qualname__}", name, attributes[name])
    for name in made.keys() - attributes.keys():
        raise TypeError(f"{kind.__qualname__} deletes self.{name}, without which a namespace does not work")
    checkConcurrency(namespace.concurrency)
    _checkAlike(kind, [_plain(function) for function in namespace._handlers.functions()], attributes)


def _refuseOverride(what: str, name: str, value: object) -> NoReturn:
    if events := eventsOf(value):
        instead = f"choose another name for the method; on({events[0]!r}) above it may stay"
    else:
        instead = _INSTEAD.get(name, "choose another name")
    raise TypeError(f"{what} hides Namespace.{name}, which is not meant for overriding: {instead}")


# -- marks ---------------------------------------------------------------------------


def _checkMarks(owner: type) -> None:
    """Check that each method marked in a class's body is an attribute of the class, with its mark."""
    kept = Counter(event for attribute in vars(owner).values() for event in eventsOf(attribute))
    for method, event in marksIn(owner):
        if kept[event]:
            continue
        name = getattr(method, "__name__", "")
        hiding = vars(owner).get(name)
        if isinstance(hiding, staticmethod | classmethod):
            way = f"write @on({event!r}) above @{type(hiding).__name__}"
        elif eventsOf(hiding):
            way = f"another {name}() in the class replaces it: choose another name"
        else:
            way = f"a decorator hides it: write @on({event!r}) above all other decorators"
        raise TypeError(f"on({event!r}) has no effect on {place(method)}: {way}")


def _checkBehind(kind: type, owner: type) -> None:
    """Check a base class that stands behind Namespace, whose methods Namespace's hide."""
    for name, value in vars(owner).items():
        if name in _HOOKS or (name in _OURS and eventsOf(value)):
            raise TypeError(
                f"{owner.__qualname__}.{name} is never called, because Namespace stands before it among the "
                f"bases of {kind.__qualname__}: write class {kind.__name__}({owner.__name__}, Namespace)"
            )
    _checkMarks(owner)


# -- methods that resemble hooks -------------------------------------------------------


def _checkAlike(kind: type, registered: list[object], attributes: Mapping[str, object] = _NONE) -> None:
    """
    Check that no method resembles a hook, unless it handles an event or is registered.

    :param registered: functions.
    :param attributes: those of an instance, which may be functions too.
    """
    owners = [owner for owner in kind.__mro__ if owner not in Namespace.__mro__]
    marked = {name for owner in owners for name, value in vars(owner).items() if eventsOf(value)}
    for where, members in [("self", attributes), *((owner.__qualname__, vars(owner)) for owner in owners)]:
        for name, value in members.items():
            hook = hookLike(name)
            if hook is None or name in _HOOKS or name in marked or not _isFunction(value):
                continue
            if _plain(value) not in registered:
                raise TypeError(
                    f"{where}.{name}() is never called by the server, though it resembles a hook: "
                    f"name it {hook}(), "
                    f"or register it by self.{_HOOKS[hook]}(self.{name}) in __init__(), "
                    "or choose another name if it is meant for something else"
                )


def hookLike(name: str) -> str | None:
    """Return the hook that a method's name resembles, if there is one."""
    return None if name.startswith("_") else _ALIKE.get(name.replace("_", "").lower())


def _isFunction(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, (staticmethod, classmethod, partial, partialmethod))


def _plain(function: Any) -> Any:
    """Get the function of a method, bound or not, under its decorators."""
    function = inspect.unwrap(getattr(function, "func", function))
    return getattr(function, "__func__", function)
