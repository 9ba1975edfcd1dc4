"""
The bridge between a server, in the reactor's thread, and the handlers of a Flask application, in others.

::

    reactor's thread                             a handler's thread
    BridgedNamespace: an event arrives   ----->  Bridge: contexts, the handler, error handlers
    Connection: the ack                  <-----  the result, a copy
    Audience._transmit                   <-----  ServerSender: emit(), encoded already

Both ways back share one queue, so a client gets the events that a handler has emitted before its ack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from flask import Flask
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txrealtime import Namespace, Socket
from txrealtime.engineio import packet as engineio
from txrealtime.engineio.admission import isForeignFalse
from txrealtime.engineio.session import CloseReason, Session
from txrealtime.errors import ConnectionRejected
from txrealtime.flask.contexts import Visit, environOf
from txrealtime.flask.eventlog import encodeAndLog
from txrealtime.flask.invoking import ErrorAck, Invoker
from txrealtime.flask.membership import Membership
from txrealtime.flask.options import Configuration
from txrealtime.flask.repeats import handledOnce, onceOf
from txrealtime.flask.routes import ANY, Route, Routes
from txrealtime.flask.server import BridgedServer
from txrealtime.logs import Logger
from txrealtime.pool import Jobs
from txrealtime.socketio.audience import Audience
from txrealtime.socketio.namespace import NO_ACK
from txrealtime.socketio.namespaces import invalidNamespace
from txrealtime.socketio.packet import IParser, Packet

__all__ = ["Bridge", "BridgedNamespace"]

_log = Logger()

NOT_BEGUN: Final = object()
"""The result of a connect handler that was not called, because the client had left."""

_REASONS: Final = {
    CloseReason.CLIENT_DISCONNECT: "client disconnect",
    CloseReason.SERVER_DISCONNECT: "server disconnect",
}
"""Flask-SocketIO's words for reasons, where they differ from the server's."""


class BridgedNamespace(Namespace):
    """
    A namespace whose events go to an application's handlers, in threads.

    :ivar memberships: the clients whose handlers run or may run, until they have left and all is handled.
    :ivar connecting: those whose connect handlers wait or run, by sid.
    :ivar parting: the rooms of clients that have left, by sid, until their disconnect handlers have returned.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(concurrency=bridge.concurrency)
        self._bridge = bridge
        self.memberships: dict[Socket, Membership] = {}
        self.connecting: dict[str, Membership] = {}
        self.parting: dict[str, frozenset[str]] = {}
        # Clients that have come back, and wait for the disconnect handler of their cut.
        self._returning: dict[str, Deferred[None]] = {}
        self.onAny(self._received)

    def _bind(self, path: str, home: Any) -> None:
        super()._bind(path, home)
        self._bridge.spaces[path] = self
        limits = self._bridge.configuration.histories.get(path)
        if limits is not None:
            self.keepHistory(**limits)

    def _encode(self, packet: Packet) -> list[engineio.Packet]:
        log = self._bridge.server.packetLog
        return super()._encode(packet) if log is None else encodeAndLog(log, super()._encode, packet)

    def membershipOf(self, socket: Socket) -> Membership:
        """Return the membership of a client that is in the namespace."""
        membership = self.memberships.get(socket)
        if membership is None:
            membership = self.memberships[socket] = Membership(partial(self._ended, socket))
        return membership

    # -- coming ------------------------------------------------------------------------

    def connected(self, socket: Socket, auth: Any) -> Any:
        bridge = self._bridge
        if not bridge.accepts(self.path):
            raise invalidNamespace(self.path, self._bridge.routes.paths)
        if bridge.visitOf(socket).jobs > bridge.mostJobs:
            # Handlers of sockets that the client has left are counted nowhere else.
            raise ConnectionRejected("Too many events wait")
        if socket.recovered and socket.id in self.parting:
            # One client's handlers run in order: that of the cut first.
            parted = self._returning[socket.id] = Deferred(lambda _: None)
            return parted.addCallback(lambda _: self.connected(socket, auth))
        self._log("connecting: %s [%s]", socket.label, self.path)
        bridge.keepVisit(socket)
        route = bridge.routes.find(self.path, "connect")
        if route is None:
            return None
        membership = self.membershipOf(socket)
        membership.isConnecting = True
        self.connecting[socket.id] = membership
        asked: Deferred[None] = Deferred(lambda _: self._leftEarly(socket))
        # A client of python-socketio always gives auth, {} for none.
        done = bridge.schedule(route, socket, membership, "connect", (auth or None,))
        done.addCallbacks(_admit, _refuse)
        done.addBoth(self._decided, socket, membership, asked)
        return None if bridge.configuration.alwaysConnect else asked

    def _leftEarly(self, socket: Socket) -> None:
        """Called when a client leaves before its connect handler has returned."""
        self.parting[socket.id] = frozenset((socket.id, *socket._joined))
        self._left(socket, socket.session.closeReason or CloseReason.CLIENT_DISCONNECT)

    def _decided(self, result: Any, socket: Socket, membership: Membership, asked: Deferred[None]) -> None:
        """Called when the connect handler has returned, or was not begun because the client had left."""
        refusal = result if isinstance(result, Failure) else None
        membership.decided(refusal is None and result is not NOT_BEGUN)
        if self.connecting.get(socket.id) is membership:
            del self.connecting[socket.id]
        always = self._bridge.configuration.alwaysConnect
        if refusal is not None and (always or asked.called):
            # Nobody else looks at it.
            if not refusal.check(ConnectionRejected):
                _log.failure("{namespace}: the connect handler failed", refusal, namespace=self.path)
            if always:
                socket.disconnect()
        elif refusal is not None:
            asked.errback(refusal)
        elif not (always or asked.called):
            asked.callback(None)
        if socket._leftBecause is not None and not membership.hasEnded:
            # Another server has disconnected the client, or the CONNECT packet was too much for it.
            self._left(socket, socket._leftBecause)
        membership.release()
        if membership.isRefused and membership.reason is None:
            del self.memberships[socket]

    def _letIn(self, socket: Socket) -> None:
        super()._letIn(socket)
        membership = self.memberships.get(socket)
        if membership is not None and membership.isLeaving:
            socket.disconnect()

    # -- events ------------------------------------------------------------------------

    def _log(self, format: str, *args: Any) -> None:
        log = self._bridge.configuration.eventLog
        if log is not None:
            log.info(format, *args)

    def _received(self, socket: Socket, event: str, *args: Any) -> Any:
        self._log("received event %.100r from %s [%s]", event, socket.label, self.path)
        if socket._leftBecause is not None and socket not in self.memberships:
            return NO_ACK
        membership = self.membershipOf(socket)
        if not membership.isConnecting:
            return self._schedule(socket, membership, event, args)
        # With always_connect, events may come while the connect handler runs.
        turn: Deferred[Any] = Deferred()
        turn.addCallback(lambda _: self._schedule(socket, membership, event, args))
        membership.hold(lambda: turn.callback(None))
        return turn

    def _schedule(self, socket: Socket, membership: Membership, event: str, args: Sequence[Any]) -> Any:
        route = self._bridge.routes.find(self.path, event)
        if route is None:
            self._dispatcher.nobodyHandles(event)
        if route is None or membership.isRefused or membership.hasEnded:
            return NO_ACK
        schedule = partial(self._bridge.schedule, route, socket, membership, event, args)
        once = onceOf(route)
        if once is None:
            return schedule()
        return handledOnce(once, socket, membership, event, args, partial(schedule, telling=True))

    def _eventsHandled(self) -> Iterable[str]:
        return self._bridge.routes.names(self.path)

    def _ackFailed(self, socket: Socket, error: Exception, event: str) -> None:
        if self._bridge.failed is None:
            super()._ackFailed(socket, error, event)
        else:
            self._bridge.failed(error)

    # -- going -------------------------------------------------------------------------

    def sendAway(self, audience: Audience, names: Sequence[str]) -> None:
        """
        Disconnect clients.

        A client whose connect handler runs is let in first, so that it gets the events of that handler.
        """
        early = [] if self._bridge.configuration.alwaysConnect else self.connecting.keys() & set(names)
        for sid in early:
            self.connecting[sid].isLeaving = True
        (audience.excluding(*early) if early else audience).disconnect()

    def disconnecting(self, socket: Socket, reason: CloseReason) -> None:
        self.parting[socket.id] = frozenset((socket.id, *socket.rooms, *socket._joined))

    def disconnected(self, socket: Socket, reason: CloseReason) -> None:
        self._left(socket, reason)

    def _left(self, socket: Socket, reason: CloseReason) -> None:
        self._log("gone: %s [%s], %s", socket.label, self.path, reason.value)
        self.membershipOf(socket).left(_REASONS.get(reason, reason.value))

    def _ended(self, socket: Socket) -> None:
        """Called when a client has left and its handlers have returned."""
        membership = self.memberships.pop(socket)
        route = self._bridge.routes.find(self.path, "disconnect")
        if route is None or membership.isRefused:
            self._parted(socket.id)
            return

        def done(result: Any) -> None:
            self._parted(socket.id)
            if isinstance(result, Failure):
                _log.failure("{namespace}: the disconnect handler failed", result, namespace=self.path)

        self._bridge.schedule(route, socket, membership, "disconnect", (membership.reason,)).addBoth(done)

    def _parted(self, sid: str) -> None:
        """Called when a client has left and its disconnect handler has returned."""
        self.parting.pop(sid, None)
        returning = self._returning.pop(sid, None)
        if returning is not None and not returning.called:
            returning.callback(None)

    def roomsOf(self, sid: str) -> list[str]:
        """Return the rooms of a client; in its disconnect handler, those that it was in."""
        socket = self.rooms.find(sid)
        return sorted(self.parting.get(sid, ()) if socket is None else socket.rooms)


def _admit(result: Any) -> Any:
    if result is False or isForeignFalse(result):
        raise ConnectionRejected()
    return result


def _refuse(failure: Failure) -> Any:
    # Applications may raise the built-in ConnectionRefusedError by mistake for the bridge's.
    if failure.check(ConnectionRefusedError):
        raise ConnectionRejected("Connection refused by server")
    return failure


class Bridge(Invoker):
    """
    One application's handlers and its server.

    :ivar server: the server; its thread is the reactor's.
    :ivar spaces: the namespaces, by path.
    :ivar jobs: the threads in which handlers run.
    :ivar failed: for tests: called with the exceptions of handlers, in place of the log.
    """

    def __init__(
        self, app: Flask, routes: Routes, configuration: Configuration, server: BridgedServer, jobs: Jobs
    ) -> None:
        super().__init__(app, routes, configuration)
        self.server = server
        self.jobs = jobs
        self.failed: Callable[[BaseException], object] | None = None
        # One client cannot take all threads.
        self.concurrency = max(1, configuration.threads // 2) if configuration.asyncHandlers else 1
        self.spaces: WeakValueDictionary[str, BridgedNamespace] = WeakValueDictionary()
        self.visits: WeakKeyDictionary[Session, Visit] = WeakKeyDictionary()
        # Those of clients that may come back, by a session of another request.
        self._kept: WeakKeyDictionary[Socket, Visit] = WeakKeyDictionary()
        self._local = threading.local()
        settings = server.settings
        self.mostJobs = self.concurrency + settings.maxWaiting + settings.maxNamespaces
        for path in {"/", *configuration.namespaces, *routes.paths} - {ANY}:
            self.open(path)
        server.mount(lambda path, auth: self.accepts(path), lambda: BridgedNamespace(self))

    # -- in the reactor's thread -----------------------------------------------------

    def open(self, path: str) -> None:
        """Mount a namespace at a path, unless there is one."""
        if path not in self.spaces:
            self.server.mount(path, BridgedNamespace(self))

    def accepts(self, path: str) -> bool:
        """Tell if clients may connect to a path: the path is named in the options or has handlers."""
        named = self.configuration.namespaces
        return path in named or ANY in named or bool({path, ANY} & self.routes.paths)

    def visitOf(self, socket: Socket) -> Visit:
        """Return a client's opening request."""
        visit = self.visits.get(socket.session)
        if visit is None:
            visit = self._kept.get(socket) or Visit(environOf(self.app, socket.handshake.request))
            self.visits[socket.session] = visit
        return visit

    def keepVisit(self, socket: Socket) -> None:
        """Keep a client's opening request and session, in case the client comes back."""
        if socket._ticket is not None:
            visit = self._kept[socket] = self.visitOf(socket)
            visit.noteReturn(socket.namespace.path, socket.recovered)

    def schedule(
        self,
        route: Route,
        socket: Socket,
        membership: Membership,
        event: str,
        args: Sequence[Any],
        telling: bool = False,
    ) -> Deferred[Any]:
        """
        Have a handler called in a thread.

        :param telling: tell if the handler has failed, by :class:`ErrorAck`.
        :return: a Deferred of its result, or of that of an error handler.
        """
        done: Deferred[Any] = Deferred()
        path, visit = socket.namespace.path, self.visitOf(socket)
        visit.jobs += 1
        membership.started()
        self.server.unfinished += 1

        def finish(result: Any) -> None:
            visit.jobs -= 1
            if isinstance(result, ErrorAck):
                if event not in ("connect", "disconnect"):
                    socket.namespace._dispatcher.erred(event)
                if not telling:
                    result = result.ack
            done.callback(result)
            # Afterwards, since the ack may let the next event of the client begin.
            membership.finished()
            self.server.unfinished -= 1

        if event == "connect":
            job = partial(self._runConnect, finish, membership, route, visit, socket.id, path, args)
        else:
            job = partial(self._runJob, finish, route, visit, socket.id, path, event, args)
        self.jobs.submit(f"{path} {event[:100]!r}", job)
        return done

    # -- in a handler's thread ---------------------------------------------------------

    def _runConnect(
        self,
        finish: Callable[[Any], None],
        membership: Membership,
        route: Route,
        visit: Visit,
        sid: str,
        path: str,
        args: Sequence[Any],
    ) -> None:
        """
        Call a connect handler, unless its client has left.

        As in Flask-SocketIO, a TypeError makes the handler run once more if the client has sent no auth.
        Published applications depend on this.
        """
        if membership.reason is not None:
            self.server.callFromThread(finish, NOT_BEGUN)
            return
        before, self._local.connecting = getattr(self._local, "connecting", None), (path, sid)
        try:
            self._runJob(finish, route, visit, sid, path, "connect", args, twice=args[0] is None)
        finally:
            self._local.connecting = before

    def admits(self, path: str, sid: str) -> bool:
        """Tell if this thread runs the connect handler of a client that is not let in before it returns."""
        connecting = getattr(self._local, "connecting", None)
        return connecting == (path, sid) and not self.configuration.alwaysConnect

    def _runJob(
        self,
        finish: Callable[[Any], None],
        route: Route,
        visit: Visit,
        sid: str,
        path: str,
        event: str,
        args: Sequence[Any],
        twice: bool = False,
    ) -> None:
        """
        Handle one event, and hand the result to the reactor's thread.

        :param twice: call the handler once more if it raises TypeError.
        """
        call = partial(self.callInContext, route, visit, sid, path, event, self.received(args))
        try:
            result = self.sendable(self._twice(path, call) if twice else call())
        except BaseException as error:
            if self.failed is None or isinstance(error, ConnectionRejected):
                self.server.callFromThread(finish, Failure())
                return
            self.failed(error)
            result = ErrorAck(False if event == "connect" else NO_ACK)
        self.server.callFromThread(finish, result)

    def encode(self, packet: Packet) -> list[engineio.Packet]:
        """
        Return the messages of a packet.

        :raises TypeError: if a value cannot be sent, with the path to it.
        :raises ValueError: if a number is one that JSON lacks.
        """
        # A parser must not be shared by two threads.
        parser: Any = getattr(self._local, "parser", None)
        if parser is None:
            kind: Any = type(self.server.parser)
            parser = self._local.parser = kind()
        log = self.server.packetLog
        return (
            self._encode(parser, packet)
            if log is None
            else encodeAndLog(log, partial(self._encode, parser), packet)
        )

    def _encode(self, parser: IParser, packet: Packet) -> list[engineio.Packet]:
        return [engineio.message(part) for part in parser.encode(packet)]
