"""
The hooks of an engine: functions that are told of sessions, or ``None`` while nobody watches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txrealtime.engineio.session import Session

__all__ = ["NO_HOOKS", "SessionHooks"]


class SessionHooks:
    """
    The hooks of an engine.  None of them raises.

    :ivar sessionOpened: called with a session that has opened.
    :ivar sessionUpgraded: called with a session that has moved to WebSocket.
    :ivar sessionClosed: called with a session that has ended, and has delivered what it could.
    """

    __slots__ = ("sessionClosed", "sessionOpened", "sessionUpgraded")

    def __init__(self) -> None:
        self.sessionOpened: Callable[[Session], object] | None = None
        self.sessionUpgraded: Callable[[Session], object] | None = None
        self.sessionClosed: Callable[[Session], object] | None = None


NO_HOOKS: Final = SessionHooks()
"""The hooks of a session without an engine; never set."""
