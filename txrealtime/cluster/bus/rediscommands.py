"""
Commands to a Redis with Deferreds, for what is no bus: the results of :mod:`txrealtime.cluster.results`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from txrealtime.cluster.bus.address import Address
from txrealtime.cluster.bus.redis import TIMEOUT, Connection, RedisBus, RedisError
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
        self._connecting = DeferredLock()

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
        await self._connecting.acquire()
        try:
            if self._connection is None or self._connection.hasEnded:
                connection = Connection()
                await self._bus.connect(reactor, connection)
                self._connection = connection
            return self._connection
        finally:
            self._connecting.release()

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.abort()
