"""
Commands to a Redis with Deferreds, for what is no bus: the results of :mod:`txrealtime.cluster.results`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.redis import TIMEOUT, RedisBus
from txrealtime.cluster.bus.redisconnection import Connection, RedisError
from txrealtime.errors import BusError

__all__ = ["RedisCommands"]


class RedisCommands:
    """
    Commands to a Redis, for other purposes than a bus.  It connects when it is first used, and again.

    :param address: as of a bus.
    """

    def __init__(self, address: Address) -> None:
        self._bus = RedisBus(address)
        self._connection: Connection | None = None
        self._waiting: list[Deferred[Connection]] = []

    async def ask(self, reactor: IReactorTime, *command: str | bytes) -> Any:
        """
        Send a command, and return the reply.

        :raises BusError: if Redis cannot be reached, does not reply in time, or refuses the command.
        """
        connection = await self._connected(reactor)
        asked: Deferred[Any] = connection.execute_command(*command)
        try:
            return await asked.addTimeout(TIMEOUT, reactor)
        except TimeoutError:
            connection.fail("Redis does not reply")
            raise BusError(f"{self._bus.name} does not reply") from None
        except RedisError as error:
            raise BusError(f"{self._bus.name}: {error}") from None

    async def _connected(self, reactor: IReactorTime) -> Connection:
        connection = self._connection
        # While a lost connection fails its commands, it is not marked as ended yet.
        if connection is not None and connection.connected and not connection.hasEnded:
            return connection
        waiting: Deferred[Connection] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._connect(reactor)).addBoth(self._tell)
        return await waiting

    async def _connect(self, reactor: IReactorTime) -> Connection:
        connection = Connection()
        await self._bus.connect(reactor, connection)
        self._connection = connection
        return connection

    def _tell(self, result: Any) -> None:
        """Called with the connection, or with the failure to connect.  Very many may wait: no recursion."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.abort()
