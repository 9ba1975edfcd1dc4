"""
Socket.IO in a Klein application.

Run it, and open http://localhost:8000 in two browsers::

    python docs/examples/klein_app.py
"""

from pathlib import Path

from klein import Klein

from txrealtime import Server

app = Klein()
realtime = Server()


@app.route("/")
def page(request):
    return Path(__file__).with_name("page.html").read_text()


@app.route("/socket.io/", branch=True)
def socketIO(request):
    return realtime.resource()


@realtime.on("say")
def say(socket, text):
    realtime.emit("said", text)
    return "delivered"


if __name__ == "__main__":
    app.run("127.0.0.1", 8000)
