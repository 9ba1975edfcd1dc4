"""
The Unix sockets of a hub and a supervisor.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from txrealtime.workers.socketfile import PrivateSocket


class PrivateSocketTests(SynchronousTestCase):
    def test_listens(self) -> None:
        """Only the user may connect, and all 256 workers at once."""
        path = Path(self.mktemp()).resolve()
        reactor, factory = MemoryReactor(), Factory()
        self.successResultOf(PrivateSocket(reactor, str(path)).listen(factory))
        [(where, listening, backlog, mode, _)] = reactor.unixServers
        self.assertEqual((where, listening, mode), (str(path), factory, 0o600))
        self.assertGreater(backlog, 2 * 256)
