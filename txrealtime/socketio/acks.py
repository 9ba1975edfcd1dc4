"""
Acks: the value of one client's ack, and the acks of many clients as one Deferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from txrealtime.errors import AckTimeout
from txrealtime.socketio.peers import Question

__all__ = ["ackValue", "gathered", "raiseLate", "simplified"]


def ackValue(args: Sequence[Any]) -> Any:
    """
    Make one value of an ack's arguments.

    :return: the value that a handler on this server returns to send the same ack: ``None`` for no argument,
        one argument as it is, several as a tuple.  One argument ``None`` becomes ``(None,)``.
    """
    if len(args) == 1 and args[0] is not None:
        return args[0]
    return tuple(args) if args else None


def simplified(ack: Any) -> Any:
    """Replace ``(None,)`` by ``None``: users of :meth:`Socket.call` need not tell them apart."""
    return None if ack == (None,) else ack


def gathered(
    waiting: list[Deferred[Any]], acks: list[Any], question: Question | None, event: str
) -> Deferred[list[Any]]:
    """
    Make a Deferred of the acks, which fires when none is awaited any longer.

    To cancel it cancels the Deferreds of the acks.

    :param waiting: a Deferred for each client of this server; their callbacks add to ``acks``.
    :param question: the question to the clients of other servers.  The Deferred fails with
        :exc:`~txrealtime.errors.AckTimeout` if a server went away with acks still awaited, and with
        the question's own error if the question fails.
    """
    cancelled = False

    def cancel(_: object) -> None:
        nonlocal cancelled
        cancelled = True
        everybody.cancel()

    def done(_: object) -> None:
        if cancelled:
            return
        if question is not None and question.silent:
            result.errback(
                AckTimeout(f"{event!r} was not acked by {_named(question.silent)}", acks, question.silent)
            )
        else:
            result.callback(acks)

    def failed(failure: Failure) -> None:
        nonlocal cancelled
        if not cancelled:
            cancelled = True
            everybody.cancel()
            result.errback(failure)

    result: Deferred[list[Any]] = Deferred(cancel)
    if question is not None:
        # The errback stands before the list's own callbacks: a failed question fails the whole.
        waiting = [*waiting, question.done.addErrback(failed)]
    everybody = DeferredList(waiting, consumeErrors=True)
    everybody.addCallback(done)
    return result


def raiseLate(event: str, asked: int, acks: list[Any], question: Question | None, seconds: float) -> NoReturn:
    """
    Raise the error for acks that are missing after the timeout.

    :param asked: the number of clients on this server that were asked.
    :raises AckTimeout: if it is called.
    """
    silent: Sequence[str] = ()
    if question is not None:
        asked += question.asked
        silent = question.silent
    message = f"{len(acks)} of {asked} acked {event!r} within {seconds} s"
    if silent:
        message += f"; no complete reply from {_named(silent)}"
    raise AckTimeout(message, acks, silent)


def _named(servers: Sequence[str]) -> str:
    """Name servers in a message."""
    return f"the server{'s' if len(servers) > 1 else ''} {', '.join(servers)}"
