"""
The servers that the official suites expect, each on a port of its own: `twistd -ny tac/conformance.tac`.

==================  =====  ====================================================================
variable            port   suite
==================  =====  ====================================================================
PORT                3000   the protocol suites: Engine.IO 4 at /engine.io/, Socket.IO 5 at /socket.io/
EIO3_PORT           3001   that of Engine.IO 3 at /engine.io/: clients of both versions are served
ECHO_PORT           9001   Autobahn's, of WebSocket itself
CLIENT_PORT         3210   socket.io-client's own, without connection state recovery
ENGINE_CLIENT_PORT  3212   engine.io-client's own
==================  =====  ====================================================================

For Autobahn's, SHORT_WAYS=no leaves all reading to Autobahn, and CERTIFICATE=pair.pem, a file with a key and
its certificate, is for wss. `make conformance` starts this file by itself.
"""

import os
import sys
from pathlib import Path

from twisted.application.service import Application

# The servers are part of the tests, which are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.conformance.servers import conformance

application = Application("conformance")
conformance(os.environ).setServiceParent(application)
