"""
The interface of a client, for the annotations of applications.

A function that takes an :class:`AnyClient` works with a :class:`~txrealtime.client.Client` and with a
:class:`~txrealtime.testing.MemoryClient`; one that takes an :class:`AnyNamespace` also works with a
:class:`~txrealtime.client.Namespace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload, runtime_checkable

from twisted.internet.defer import Deferred

from txrealtime.client.namespace import ACK_TIMEOUT

__all__ = ["AnyClient", "AnyNamespace"]

F = TypeVar("F", bound=Callable[..., Any])


@runtime_checkable
class AnyNamespace(Protocol):
    """A namespace, or a client for its own namespace; see :class:`~txrealtime.client.Namespace`."""

    @property
    def connected(self) -> bool: ...

    @property
    def id(self) -> str | None: ...

    @property
    def recovered(self) -> bool: ...

    def emit(self, event: str, *args: Any, volatile: bool = ...) -> None: ...

    def send(self, *args: Any, volatile: bool = ...) -> None: ...

    def call(self, event: str, *args: Any, timeout: float | None = ACK_TIMEOUT) -> Deferred[Any]: ...

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def whenConnected(self, failAfterFailures: int | None = None) -> Deferred[Any]: ...

    def on(self, event: str, *, replace: bool = ...) -> Callable[[F], F]: ...

    @overload
    def onAny(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onAny(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    @overload
    def onConnect(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onConnect(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    @overload
    def onDisconnect(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onDisconnect(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    @overload
    def onConnectError(self, function: F, *, replace: bool = ...) -> F: ...

    @overload
    def onConnectError(self, function: None = ..., *, replace: bool = ...) -> Callable[[F], F]: ...

    def onError(self, *kinds: type[BaseException]) -> Callable[[F], F]: ...

    def use(self, function: F) -> F: ...


@runtime_checkable
class AnyClient(AnyNamespace, Protocol):
    """A client; see :class:`~txrealtime.client.Client`."""

    @property
    def transport(self) -> str | None: ...

    @property
    def buffered(self) -> int: ...

    def namespace(self, path: str, auth: Any = None) -> AnyNamespace: ...

    def startService(self) -> None: ...

    def stopService(self) -> Deferred[None]: ...


if TYPE_CHECKING:
    from txrealtime.client.client import Client
    from txrealtime.client.memory import MemoryClient
    from txrealtime.client.namespace import Namespace

    def compared(
        client: Client, memory: MemoryClient, namespace: Namespace
    ) -> tuple[AnyClient, AnyClient, AnyNamespace]:
        """Have mypy compare the classes with the interface."""
        return client, memory, namespace
