"""
A connection to Redis.

The only importer of txredisapi, and of its protocol alone: replies read by hiredis, and commands with
Deferreds while a connection starts.  Its factory stops for good when a connection is lost while it
authenticates, and does not subscribe again.  Once a connection has started, messages go past txredisapi,
without a Deferred for each.
"""

from __future__ import annotations

from typing import Any

import txredisapi  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if txredisapi.hiredis is None:
    raise ImportError("No module named 'hiredis'")

__all__ = ["Connection", "RedisError"]

RedisError = txredisapi.RedisError


class Connection(txredisapi.HiredisProtocol):  # type: ignore[misc]
    """
    A connection to Redis.

    :ivar established: true once the login is done.  Replies then go to :meth:`received`.
    :ivar why: the reason for the end of the connection, once it has ended.
    """

    def __init__(self) -> None:
        # By default txredisapi turns payloads that look like numbers into numbers.
        super().__init__(charset=None, convertNumbers=False)
        self.established = False
        self.why = ""
        self._ended = False
        # The one of HiredisProtocol has a private name.
        self._replies = txredisapi.hiredis.Reader(
            protocolError=txredisapi.InvalidData, replyError=txredisapi.ResponseError
        )

    def connectionMade(self) -> Any:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        return super().connectionMade()

    def ask(self, *command: str) -> Deferred[Any]:
        """
        Send a command that the server may refuse.

        :return: fires with the reply, which may be an error.
        """
        asked: Deferred[Any] = self.execute_command(*command)
        return asked.addErrback(lambda failure: failure.trap(txredisapi.ResponseError) and failure.value)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        # As in txredisapi, without its transactions and conversions.
        reader = self._replies
        try:
            reader.feed(data)
            while not self._ended and (reply := reader.gets()) is not False:
                if self.established:
                    self.received(reply)
                else:
                    self.replyReceived(reply)
        except txredisapi.InvalidData as error:
            self.fail(f"the server does not speak Redis's protocol: {error}")

    def received(self, reply: Any) -> None:
        """Called with each reply of an established connection."""

    def connectionLost(self, why: Failure) -> None:
        self.why = self.why or why.getErrorMessage()
        super().connectionLost(why)
        if not self._ended:
            self._ended = True
            self.ended(self.why)

    def ended(self, reason: str) -> None:
        """Called when the connection has ended by itself."""

    def fail(self, reason: str) -> None:
        """End the connection as if it had ended by itself."""
        if not self._ended:
            self.why = reason
            self.abort()
            self.ended(reason)

    @property
    def hasEnded(self) -> bool:
        """True once the connection has ended."""
        return self._ended

    def abort(self) -> None:
        """Abort the connection without calling :meth:`ended`."""
        self._ended = True
        if self.transport is not None:
            self.transport.abortConnection()
