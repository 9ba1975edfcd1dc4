"""
The chat on one of several servers: start a redis-server, and then, in two terminals,

    twistd -n --pidfile= -y tac/cluster.tac
    LISTEN=tcp:8001 twistd -n --pidfile= -y tac/cluster.tac

and open http://localhost:8000 and http://localhost:8001: whoever is on the one talks to those on the other.

BUS in the environment is another broker, such as amqp://localhost; /health tells whether a server hears the others.
"""

import os

from twisted.application import strports
from twisted.application.service import Application

from txrealtime import chat
from txrealtime.engineio.http.site import Beside
from txrealtime.monitor.health import Health

application = Application("chat")

server = chat.makeServer(bus=os.environ.get("BUS", "redis://localhost"))
server.setServiceParent(application)

site = server.site(Beside("/health", Health(server), chat.page()))
strports.service(os.environ.get("LISTEN", "tcp:8000"), site).setServiceParent(application)
