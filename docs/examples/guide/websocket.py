"""
A WebSocket protocol beside Socket.IO: factories of Autobahn and a Socket.IO server, as services of one tree.

Run it, and open http://localhost:8000, a page that shows each thing a browser can do::

    twistd -ny docs/examples/guide/websocket.py

The same echo is at ws://localhost:8000/echo, in the site, and at ws://localhost:9000, on a port of its own;
Socket.IO is in the site, and at ws://localhost:9001 for clients that use WebSocket only.
"""

import json
from pathlib import Path

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionDeny
from twisted.application import service, strports
from twisted.web.resource import Resource
from twisted.web.static import File

from txrealtime import Server

MOST = 2_000_000  # bytes of a message

# Of the pages that may connect, as the browser sends them.
ORIGINS = ["http://localhost:8000", "http://127.0.0.1:8000"]


class Echo(WebSocketServerProtocol):
    """An echo; in echo-v2, a text message describes each binary one."""

    SPOKEN = ("echo-v2", "echo-v1")  # the preferred one comes first

    def onConnect(self, request):
        for name in self.SPOKEN:
            if name in request.protocols:
                return name
        if request.protocols:
            raise ConnectionDeny(400, f"subprotocols spoken here: {', '.join(self.SPOKEN)}")
        return None

    def onMessage(self, payload, isBinary):
        if isBinary and self.websocket_protocol_in_use == "echo-v2":
            self.sendMessage(json.dumps({"bytes": len(payload)}).encode())
        self.sendMessage(payload, isBinary)


def acceptDeflate(offers):
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            # The limit is for what comes out: 2 MB of zeros arrive as 2 kB.
            return PerMessageDeflateOfferAccept(offer, max_message_size=MOST)


def makeEcho():
    factory = WebSocketServerFactory()
    factory.protocol = Echo
    factory.setProtocolOptions(
        # By default Autobahn takes messages of any size, from the pages of any origin.
        maxMessagePayloadSize=MOST,
        maxFramePayloadSize=MOST,
        allowedOrigins=ORIGINS,
        perMessageCompressionAccept=acceptDeflate,
        versions=[13],
        failByDrop=False,
        autoPingInterval=25,
        autoPingTimeout=20,
    )
    return factory


# Its own origin is allowed anyway; at port 9001, that is another one.
realtime = Server(maxPayload=MOST, perMessageDeflate=True, origins=ORIGINS)


@realtime.on("echo")
def echo(socket, *args):
    return args


echoes = makeEcho()
root = Resource()
root.putChild(b"", File(str(Path(__file__).with_name("websocket.html"))))
root.putChild(b"echo", WebSocketResource(echoes))

application = service.Application("websocket")
for where, factory in (
    ("tcp:8000:interface=127.0.0.1", realtime.site(root)),
    ("tcp:9000:interface=127.0.0.1", echoes),
    ("tcp:9001:interface=127.0.0.1", realtime.webSocketFactory()),
):
    strports.service(where, factory).setServiceParent(application)
realtime.setServiceParent(application)
