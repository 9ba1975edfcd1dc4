"""
The order of the modules and who may import what, read from the sources. docs/design.rst says why.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT

LAYERS = ["_version", "speedups", "errors", "logs", "foreign", "clock", "threads", "pool", "files"]
LAYERS += ["coroutines", "engineio", "socketio", "clientfiles", "cluster", "server"]
LAYERS += ["reactor", "", "monitor", "client", "testing", "chat", "workers", "service", "flask", "gunicorn"]
LAYERS += ["__main__"]
"Each imports only itself and what stands before it; the empty one is the package itself, the public names."

LIBRARIES = {
    "autobahn": "txrealtime.engineio.websocket txrealtime.client.autobahn",
    "orjson": "txrealtime.socketio.jsontext",
    "msgpack": "txrealtime.socketio.msgpack",
    "txredisapi": "txrealtime.cluster.bus.redisconnection",
    "hiredis": "txrealtime.cluster.bus.redisconnection",
    "pika": "txrealtime.cluster.bus.amqp txrealtime.cluster.bus.amqpblocking",
    "redis": "txrealtime.cluster.bus.redisblocking",
    "matplotlib": "txrealtime.client.chart",
    "flask": "txrealtime.flask",
    "werkzeug": "txrealtime.flask",
    "click": "txrealtime.flask",
    "eventlet": "txrealtime.flask.greenlets",
    "gunicorn": "txrealtime.gunicorn",
    "prometheus_client": "txrealtime.monitor.metrics",
    "rich": "txrealtime.monitor.top",
    "shtab": "txrealtime.service.completion",
    "watchfiles": "txrealtime.service.serve",
}
"""
Each third-party library has one module, or one package, that knows it; Twisted and zope.interface are free.
Pika has two, as the adapter for Twisted installs the default reactor.
"""

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "txrealtime").rglob("*.py"))
}


def imports(name: str, node: ast.AST, functions: bool = True) -> Iterator[str]:
    """
    Yield the full names that a piece of the module `name` imports at run time; in its functions too if asked.
    """
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            source = ".".join([*above, *([child.module] if child.module else [])])
            yield from (f"{source}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from imports(name, ast.Module(child.orelse, []), functions)
        elif functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(name, child, functions)


def modules(name: str, functions: bool = True) -> set[str]:
    """
    The modules that a module of this package imports; of other packages only the first name.
    """
    found = set()
    for full in imports(name, ast.parse(SOURCES[name].read_bytes()), functions):
        own = full if full in SOURCES else full.rpartition(".")[0]
        found.add(own if own in SOURCES else full.partition(".")[0])
    return found


def layer(name: str) -> int:
    """
    The place of a module's layer.
    """
    return LAYERS.index(f"{name}..".split(".")[1])


class LayerTests(SynchronousTestCase):
    def test_importsRunDownTheLayers(self) -> None:
        for name in SOURCES:
            for imported in modules(name) & SOURCES.keys():
                self.assertGreaterEqual(layer(name), layer(imported), f"{name} imports {imported}")

    def test_noImportsInCircles(self) -> None:
        graph = {name: modules(name) & SOURCES.keys() for name in SOURCES}
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle

    def test_noTypesInCirclesInTheCluster(self) -> None:
        """Imports for type checking count too: no module of the cluster needs one that needs it."""
        graph = {}
        for name in SOURCES:
            if name.startswith("txrealtime.cluster"):
                nodes = ast.walk(ast.parse(SOURCES[name].read_bytes()))
                graph[name] = {
                    node.module for node in nodes if isinstance(node, ast.ImportFrom)
                } & SOURCES.keys()
        TopologicalSorter(graph).prepare()

    def test_oneModuleKnowsALibrary(self) -> None:
        for name in SOURCES:
            for library in modules(name) - SOURCES.keys() - sys.stdlib_module_names - {"twisted", "zope"}:
                places = tuple(f"{place}." for place in LIBRARIES.get(library, "").split())
                self.assertTrue(f"{name}.".startswith(places), f"{name} imports {library}")

    def test_noReactorAtImportTime(self) -> None:
        for name in SOURCES:
            found = set(imports(name, ast.parse(SOURCES[name].read_bytes()), functions=False))
            self.assertNotIn("twisted.internet.reactor", found, f"{name} imports the reactor")
