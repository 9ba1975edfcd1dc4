"""
Names of libraries that no documentation promises.

Fast paths read a few private attributes of Twisted, Autobahn and the standard library.  Each such
path asks :func:`stands` first, or calls :func:`report` when an attribute turns out to be missing, and then
takes the ordinary way.  ``tests/test_foreign_names.py`` lists every name with its place and its use.
"""

from __future__ import annotations

from types import ModuleType

from txrealtime.logs import Logger

__all__ = ["report", "stands"]

_log = Logger()

_reported: set[tuple[str, ...]] = set()


def stands(owner: object, *names: str, without: str) -> bool:
    """
    Check that a library's module, class or object still has some names.

    :param owner: the module, class or object.
    :param names: its private or undocumented names.
    :param without: what is slower or off if a name is missing, for the log.
    """
    if all(hasattr(owner, name) for name in names):
        return True
    report(owner, *names, without=without)
    return False


def report(owner: object, *names: str, without: str) -> None:
    """Log once in the life of the process that a library lacks a name, as :func:`stands` does."""
    missing = tuple(name for name in names if not hasattr(owner, name))
    library = _nameOf(owner)
    if missing and (library, *missing) not in _reported:
        _reported.add((library, *missing))
        _log.warn(
            "{library} has no {missing} any more: {without}. Everything else works as before; "
            "a newer txrealtime may know this version",
            library=library,
            missing=" and ".join(missing),
            without=without,
        )


def _nameOf(owner: object) -> str:
    """Return the dotted name of a module, of a class, or of an object's class."""
    if isinstance(owner, ModuleType):
        return owner.__name__
    kind = owner if isinstance(owner, type) else type(owner)
    return f"{kind.__module__}.{kind.__qualname__}"
