"""
A page from 2018, with the client 1.3.6 of that time, served today.

Run it, and open http://localhost:8000::

    twistd -ny docs/examples/old-client/app.py

The handlers are those of a guide to Flask-SocketIO, in its two styles.
"""

from pathlib import Path

from twisted.application import service, strports
from twisted.web.resource import Resource
from twisted.web.static import File

from txrealtime import Server

# Clients of version 1 and 2 speak Engine.IO 3, which allowEIO3 turns on.
realtime = Server(allowEIO3=True)


# By a decorator.
@realtime.on("my event")
def handleMyCustomEvent(socket, json):
    print(f"Received json: {json}")
    socket.emit("my response", json)


# Or by a call, for an existing function; in a namespace.
def myFunctionHandler(socket, data):
    return data


realtime.namespace("/test").on("my event")(myFunctionHandler)


root = Resource()
root.putChild(b"", File(str(Path(__file__).with_name("page.html"))))
application = service.Application("old client")
realtime.setServiceParent(application)
strports.service("tcp:8000:interface=127.0.0.1", realtime.site(root)).setServiceParent(application)
