"""
The chat as a .tac file: ``twistd -ny tac/chat.tac``, then open http://localhost:8000.

To start an application of your own from, put your server in the place of the chat's, and your resource in
the place of its page. LISTEN in the environment is another endpoint to listen on.
"""

import os

from twisted.application import strports
from twisted.application.service import Application

from txrealtime import chat

application = Application("chat")

server = chat.makeServer()
server.setServiceParent(application)

site = server.site(chat.page())
strports.service(os.environ.get("LISTEN", "tcp:8000"), site).setServiceParent(application)
