"""
The choices at the start of twistd realtime: the reactor, and the line about the build of Python.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import txrealtime.service.service
from txrealtime.service import Options, makeService
from txrealtime.service.build import isOptimized, tellBuild


class BuildTests(SynchronousTestCase):
    def told(self, events: list[LogEvent]) -> list[str]:
        return [line for event in events if "optimizations" in (line := formatEvent(event))]

    def test_isOptimized(self) -> None:
        for arguments, prefix, isDebug, expected in (
            (
                "'--enable-shared' '--prefix=/opt/python3.11'",
                "/opt/python3.11",
                False,
                False,
            ),
            ("'--enable-optimizations' '--with-lto'", "/usr/local", False, True),
            ("'--enable-shared' '--prefix=/usr' 'CC=gcc'", "/usr", False, True),
            ("'--enable-optimizations' '--with-pydebug'", "/usr", True, False),
            ("", "/opt/python", False, False),
            (None, "C:\\Python311", False, True),
        ):
            self.assertIs(isOptimized(arguments, prefix, isDebug), expected, arguments)

    def test_line(self) -> None:
        """One line, if the interpreter is slow, and none otherwise."""
        for arguments, count in (("'--prefix=/opt'", 1), ("'--enable-optimizations'", 0)):
            given = {"CONFIG_ARGS": arguments, "Py_DEBUG": 0}
            self.patch(sysconfig, "get_config_var", given.get)
            self.patch(sys, "base_prefix", "/opt")
            with capturedLogs() as events:
                tellBuild()
            self.assertEqual(len(self.told(events)), count)

    def test_atTheStart(self) -> None:
        """``twistd realtime`` logs the line, with workers and without."""
        calls: list[bool] = []
        self.patch(txrealtime.service.service, "tellBuild", lambda: calls.append(True))
        for arguments in [], ["--workers", "2"]:
            options = Options()
            options.parseOptions(arguments)
            makeService(options, Clock())
        self.assertEqual(calls, [True, True])


class ReactorTests(SynchronousTestCase):
    """The reactor is made quick unless twistd's ``--reactor`` has chosen it."""

    def setUp(self) -> None:
        self.quick: list[Any] = []
        self.patch(txrealtime.service.service, "quicken", self.quick.append)
        self.options = Options()
        self.options.parseOptions([])

    def test_notChosen(self) -> None:
        clock = Clock()
        for parent in None, {}:
            self.options.parent = parent
            makeService(self.options, clock)
        self.assertEqual(self.quick, [clock, clock])

    def test_chosen(self) -> None:
        self.options.parent = {"reactor": "epoll"}
        makeService(self.options, Clock())
        self.assertEqual(self.quick, [])
