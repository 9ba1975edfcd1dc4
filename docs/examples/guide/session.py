"""
A site of twisted.web with a login, and Socket.IO that knows who is logged in.
"""

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from txrealtime import ConnectionRejected, Server

PASSWORDS = {b"ada": b"lovelace"}  # of your database, hashed

realtime = Server()


class Login(Resource):
    def render_POST(self, request):
        name, password = request.args[b"name"][0], request.args[b"password"][0]
        if PASSWORDS.get(name) != password:
            request.setResponseCode(403)
            return b"wrong password"
        request.getSession().user = name.decode()
        return b"welcome"


class Logout(Resource):
    def render_POST(self, request):
        request.getSession().expire()
        return b"bye"


def sessionOf(handshake):
    """Find the session of the site whose cookie came with the opening request."""
    name = "TWISTED_SECURE_SESSION" if handshake.secure else "TWISTED_SESSION"
    try:
        return site.getSession(handshake.cookies.get(name, "").encode())
    except KeyError:
        return None


@realtime.onConnect
def admit(socket):
    session = sessionOf(socket.handshake)
    if session is None or not hasattr(session, "user"):
        raise ConnectionRejected("log in first")
    socket.data["user"] = session.user
    # The session may end, by time or by a logout, while the socket stays.
    session.notifyOnExpire(socket.disconnect)


@realtime.on("who am I")
def whoAmI(socket):
    sessionOf(socket.handshake).touch()
    return socket.data["user"]


root = Resource()
root.putChild(b"login", Login())
root.putChild(b"logout", Logout())
root.putChild(b"socket.io", realtime.resource())
site = Site(root)

if __name__ == "__main__":
    realtime.startService()
    reactor.addSystemEventTrigger("before", "shutdown", realtime.stopService)
    reactor.listenTCP(5000, site, interface="127.0.0.1")
    reactor.run()
