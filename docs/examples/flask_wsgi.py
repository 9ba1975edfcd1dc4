"""
A Flask application and Socket.IO in one process: Flask answers at /, in threads, Socket.IO beside it.

Run it in this folder, and open http://localhost:8000 in two browsers::

    twistd -n realtime --listen tcp:8000:interface=127.0.0.1 --app flask_wsgi:realtime --wsgi flask_wsgi:app

A page of Flask emits to everybody, too::

    curl -d "Dinner is ready" http://localhost:8000/announce
"""

from pathlib import Path

from flask import Flask, request, send_file

from txrealtime import Server

app = Flask(__name__)
realtime = Server()


@app.get("/")
def page():
    return send_file(Path(__file__).with_name("page.html"))


@app.post("/announce")
def announce():
    # Flask's views run in threads, and the server in the reactor's.
    realtime.callFromThread(realtime.emit, "said", request.get_data(as_text=True))
    return "announced\n"


@realtime.on("say")
def say(socket, text):
    realtime.emit("said", text)
    return "delivered"
