"""
Health checks: pages that tell load balancers and supervisors about this server.

``/livez`` answers if the process is fit, ``/readyz`` if clients may come.  A liveness check that failed with
the broker would restart all servers at once, so ``/livez`` asks nothing but the reactor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.web.http import OK, SERVICE_UNAVAILABLE
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from txrealtime.cluster.link.link import LinkStatus
from txrealtime.engineio.http.site import Beside
from txrealtime.server import Server

__all__ = ["PROBES", "Check", "Fleet", "FleetHealth", "FleetReady", "Health", "Live", "Probes", "Ready"]

PROBES: Final = ("/livez", "/readyz")
"""The paths of :class:`Live` and :class:`Ready`."""


class Fleet(Protocol):
    """The workers of which this process is one; see :class:`~txrealtime.workers.fleet.Fleet`."""

    def report(self) -> list[dict[str, Any]]:
        """Describe the workers: each has ``fit``, ``clients`` and more."""


class _Page(Resource):
    """A page for programs: never cached, not in the access log, and HEAD has the status and size of GET."""

    isLeaf = True
    contentType = b"text/plain; charset=utf-8"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def render_GET(self, request: Request) -> bytes:
        fit, body = self._answer(request)
        request.isQuiet = True  # type: ignore[attr-defined]
        request.setResponseCode(OK if fit else SERVICE_UNAVAILABLE)
        request.setHeader(b"content-type", self.contentType)
        request.setHeader(b"cache-control", b"no-store")
        return body

    def render_HEAD(self, request: Request) -> bytes:
        # twisted.web takes a body for a mistake, and logs it.
        request.setHeader(b"content-length", b"%d" % len(self.render_GET(request)))
        return b""

    def _answer(self, request: Request) -> tuple[bool, bytes]:
        """Return if all is well, and the body."""
        raise NotImplementedError


class Health(_Page):
    """
    A page with status 200 while the server is ready, and 503 while its link to the other servers is down.

    The body is JSON: the ``status`` of the link, the number of ``clients``, and of the other ``servers``
    if the dialect tells; of several ``buses`` the status of each; ``draining`` from the first moment of a
    stop on.  None of this is a secret.  The access log leaves these requests out.

    Among workers, any of them answers for all: with status 200 while at least one is ready, with the clients
    of all, and with a list of ``workers``.
    """

    contentType = b"application/json"

    def __init__(self, server: Server, fleet: Fleet | None = None) -> None:
        super().__init__()
        self._server = server
        self._fleet = fleet

    def _answer(self, request: Request) -> tuple[bool, bytes]:
        server, cluster = self._server, self._server.cluster
        body: dict[str, Any] = {
            "status": cluster.status,
            "clients": len(server.engine.sessions),
            "servers": len(cluster.servers),
        }
        if len(cluster.links) > 1:
            body["buses"] = {link.bus.name: link.status.value for link in cluster.links}
        if server.isRetiring:
            body["draining"] = True
        fit = bool(server.running) and not server.isRetiring and cluster.isReady
        if self._fleet is not None:
            workers = self._fleet.report()
            body |= _countsOf(workers)
            # A worker that has just begun has not been told of any.
            fit = any(worker["fit"] for worker in workers) if workers else fit
        return fit, _json(body)


class FleetHealth(_Page):
    """
    :class:`Health` of a process that has workers and serves no clients itself.

    The body has the ``workers`` and the ``clients`` of all.
    """

    contentType = Health.contentType

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self._fleet = fleet

    def _answer(self, request: Request) -> tuple[bool, bytes]:
        workers = self._fleet.report()
        return any(worker["fit"] for worker in workers), _json(_countsOf(workers))


def _countsOf(workers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"workers": workers, "clients": sum(worker["clients"] for worker in workers)}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Check:
    """
    The result of one check.

    :ivar name: its name, such as ``bus``.
    :ivar passed: whether it passed.
    :ivar state: the state that was found, in a few words.
    """

    name: str
    passed: bool
    state: str


class _Probe(_Page):
    """
    A page with status 200 if all checks pass, and 503 if one fails.

    The body is ``ok``, or the failed checks with their states.  With ``?verbose`` it lists all checks, one a
    line, marked ``[+]`` or ``[-]``.
    """

    name = ""

    def checks(self) -> list[Check]:
        """Make the checks."""
        raise NotImplementedError

    def _answer(self, request: Request) -> tuple[bool, bytes]:
        checks = self.checks()
        failed = [check for check in checks if not check.passed]
        # Not request.args, which leaves out a field without "=".
        fields = request.uri.partition(b"?")[2].split(b"&")
        if any(field.partition(b"=")[0] == b"verbose" for field in fields):
            lines = [f"[{'+' if check.passed else '-'}] {check.name}: {check.state}" for check in checks]
            lines.append(f"{self.name}: {'failed' if failed else 'ok'}")
        else:
            lines = [f"{check.name}: {check.state}" for check in failed] or ["ok"]
        return not failed, "\n".join([*lines, ""]).encode()


class Live(_Probe):
    """
    ``/livez``: the process is fit.

    The page is an answer by itself: a blocked reactor sends none.  The state of the broker does not matter.

    :param server: the server, as for :class:`Ready`; the page does not look at it.
    """

    name = "livez"

    def __init__(self, server: Server | None = None) -> None:
        super().__init__()

    def checks(self) -> list[Check]:
        return [Check("reactor", True, "turns")]


class Ready(_Probe):
    """
    ``/readyz``: new clients may come.

    The page has status 503 before the server has started, while it stops, while its link to the other servers
    is not ready, and while it has as many sessions as ``maxConnections`` allows.  Among workers, one that is
    ready is enough.
    """

    name = "readyz"

    def __init__(self, server: Server, fleet: Fleet | None = None) -> None:
        super().__init__()
        self._server = server
        self._fleet = fleet

    def checks(self) -> list[Check]:
        engine = self._server.engine
        room = Check("room", not engine.isFull, self._room())
        workers = self._fleet.report() if self._fleet is not None else []
        if workers:
            return [_checkOf(workers), room]
        return [self._service(), self._bus(), room]

    def _bus(self) -> Check:
        cluster = self._server.cluster
        away = [link.bus.name for link in cluster.links if link.status is not LinkStatus.READY]
        without = f", without {', '.join(away)}" if away and len(cluster.links) > 1 else ""
        return Check("bus", cluster.isReady, cluster.status + without)

    def _service(self) -> Check:
        server = self._server
        if not server.engine.isOpen:
            return Check("service", False, "draining: no new clients are taken")
        if server.isRetiring:
            return Check("service", False, "draining: new clients should go elsewhere")
        if server.running:
            return Check("service", True, "runs")
        return Check("service", False, "has not started")

    def _room(self) -> str:
        count, most = self._server.engine.tally.total, self._server.settings.maxConnections
        return (
            f"{count} of {most} sessions (maxConnections)" if most else f"{count} sessions, without a limit"
        )


class FleetReady(_Probe):
    """
    :class:`Ready` of a process that has workers and serves no clients itself.

    One worker that is ready is enough.
    """

    name = Ready.name

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self._fleet = fleet

    def checks(self) -> list[Check]:
        return [_checkOf(self._fleet.report())]


def _checkOf(workers: list[dict[str, Any]]) -> Check:
    shown = [f"{each['number']} {each['status'] if each['fit'] else each['state']}" for each in workers]
    return Check("workers", any(each["fit"] for each in workers), ", ".join(shown) or "none")


class Probes(Beside):
    """
    A root resource with :class:`Live` at ``/livez`` and :class:`Ready` at ``/readyz``, beside another root.

    ::

        site = server.site(Probes(server, File("public")))

    :param root: the rest of the site.
    :param fleet: the workers, if this process is one.
    :ivar reserved: connections that the site admits beyond ``maxConnections``: a supervisor would restart
        a full server whose liveness check gets no connection.
    """

    reserved: Final = 16

    def __init__(self, server: Server, root: IResource, fleet: Fleet | None = None) -> None:
        live, ready = PROBES
        super().__init__(live, Live(server), Beside(ready, Ready(server, fleet), root))
