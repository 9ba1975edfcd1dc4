"""
Socket.IO in an existing twisted.web site, by the last two lines.

Run it, and open http://localhost:8000 in two browsers::

    twistd -ny docs/examples/embed.py
"""

from pathlib import Path

from twisted.application import service, strports
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import File

from txrealtime import Server

realtime = Server()


@realtime.on("say")
def say(socket, text):
    realtime.emit("said", text)
    return "delivered"


# The site as it was.
root = Resource()
root.putChild(b"", File(str(Path(__file__).with_name("page.html"))))
application = service.Application("site")
strports.service("tcp:8000:interface=127.0.0.1", Site(root)).setServiceParent(application)

# Socket.IO in it.
root.putChild(b"socket.io", realtime.resource())
realtime.setServiceParent(application)
