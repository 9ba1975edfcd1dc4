"""
What clients answer: one of them, and many to one question, as one Deferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from txrealtime.errors import AckTimeout
from txrealtime.socketio.peers import Inquiry

__all__ = ["acked", "gathered", "late", "returned"]


def returned(args: Sequence[Any]) -> Any:
    """
    The arguments of an ack as one value: what a handler of ours would have returned to send them.

    That is ``None`` for nothing, one value as it is but for ``(None,)``, and several as a tuple.
    """
    if len(args) == 1 and args[0] is not None:
        return args[0]
    return tuple(args) if args else None


def acked(answer: Any) -> Any:
    """The same for who does not care whether nothing or ``None`` was acked."""
    return None if answer == (None,) else answer


def gathered(
    waiting: list[Deferred[Any]], answers: list[Any], inquiry: Inquiry | None, event: str
) -> Deferred[list[Any]]:
    """
    A Deferred of the answers, once nobody is waited for; cancelled, it cancels those that are.

    :param waiting: clients of this server, who add their answers themselves.
    :param inquiry: what other servers were asked; when one of them went away and left
        answers owing, the Deferred fails with :exc:`~txrealtime.errors.AckTimeout`, and with
        the inquiry's own error when that fails.
    """
    cancelled = False

    def cancel(_: object) -> None:
        nonlocal cancelled
        cancelled = True
        everybody.cancel()

    def done(_: object) -> None:
        if cancelled:
            return
        if inquiry is not None and inquiry.silent:
            result.errback(
                AckTimeout(f"{event!r} was not answered by {_named(inquiry.silent)}", answers, inquiry.silent)
            )
        else:
            result.callback(answers)

    def failed(failure: Failure) -> None:
        nonlocal cancelled
        if not cancelled:
            cancelled = True
            everybody.cancel()
            result.errback(failure)

    result: Deferred[list[Any]] = Deferred(cancel)
    if inquiry is not None:
        # Before the list has a look at it: its failure is that of the whole.
        waiting = [*waiting, inquiry.done.addErrback(failed)]
    everybody = DeferredList(waiting, consumeErrors=True)
    everybody.addCallback(done)
    return result


def late(
    event: str, asked: int, answers: list[Any], inquiry: Inquiry | None, result: object, seconds: float
) -> NoReturn:
    """
    Not all have answered in time.

    :param asked: how many were asked on this server.
    :raises AckTimeout: always.
    """
    silent: Sequence[str] = ()
    if inquiry is not None:
        asked += inquiry.asked
        silent = inquiry.silent
    message = f"{len(answers)} of {asked} answered {event!r} within {seconds} s"
    if silent:
        message += f", and not all is known of {_named(silent)}"
    raise AckTimeout(message, answers, silent)


def _named(servers: Sequence[str]) -> str:
    """Servers for a message."""
    return f"the server{'s' if len(servers) > 1 else ''} {', '.join(servers)}"
