"""
The metrics that ``--metrics`` and ``--metrics-listen`` ask for.

prometheus_client is imported only if they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from txrealtime.engineio.http.site import Beside
from txrealtime.monitor.health import PROBES, Live
from txrealtime.server import Server
from txrealtime.service.listener import Listener
from txrealtime.service.options import Options, StartupError

if TYPE_CHECKING:
    from txrealtime.monitor.metrics import Maker, Metrics

__all__ = ["listenerOf", "metricsOf", "pageOf"]


def metricsOf(
    options: Options,
    server: Server,
    handovers: Callable[[], Mapping[str, int]] = dict,
    make: Maker | None = None,
) -> Metrics | None:
    """
    Make the metrics, if an option asks for them, and their page: ``options["metricsPage"]``.

    :param handovers: see :class:`~txrealtime.monitor.metrics.Metrics`.
    :param make: in a worker, gets the page from the supervisor.
    :raises StartupError: if prometheus_client is not installed.
    """
    if options["metrics"] is None and options["metricsListen"] is None:
        return None
    with _explained():
        from txrealtime.monitor.metrics import Metrics, MetricsPage
    metrics = Metrics(server, handovers)
    options["metricsPage"] = MetricsPage(metrics, make=make)
    return metrics


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise StartupError(f"--metrics: {error}; pip install txrealtime[metrics]") from None


def pageOf(make: Maker) -> IResource:
    """
    Make the page of the metrics of all workers, in the supervisor.

    :raises StartupError: if prometheus_client is not installed.
    """
    with _explained():
        from txrealtime.monitor.metrics import MetricsPage
    return MetricsPage(None, make=make)


def listenerOf(
    options: Options, reactor: Any, page: IResource, health: IResource, ready: IResource
) -> Listener | None:
    """
    Make the listener of ``--metrics-listen``, for the page and the health checks.

    :param page: the page of the metrics.
    :param health: the page of ``--health``, served if the option is given.
    :param ready: the page ``/readyz`` of ``--probes``, likewise.
    :raises StartupError: if the string makes no endpoint.
    """
    if options["metricsListen"] is None:
        return None
    path = options["metrics"] or "/metrics"
    root: IResource = Resource()
    if options["probes"]:
        for place, probe in zip(PROBES, (Live(), ready), strict=True):
            root = Beside(place, probe, root)
    if options["health"] is not None:
        root = Beside(options["health"], health, root)
    site = Site(Beside(path, page, root), reactor=reactor)
    site.noisy = False
    # Every 15 seconds, the line of a scrape would say nothing.
    site.log = lambda request: None  # type: ignore[method-assign]
    return Listener(
        reactor, options["metricsListen"], site, path, serves="metrics", option="--metrics-listen"
    )
