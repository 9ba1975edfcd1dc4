"""
An application and its Socket.IO, both ways: SocketIO(app), or later by init_app().

Run it, and open http://localhost:5000::

    python docs/examples/guide/initialization.py
"""

from pathlib import Path

from flask import Flask, send_file

from txrealtime.flask import SocketIO, emit

# Without an application yet: handlers may be registered, in modules that know no application.
socketio = SocketIO()


@socketio.on("my event")
def greet(data):
    emit("my response", {"heard": data})


def create_app():
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "secret!"

    @app.route("/")
    def page():
        return send_file(Path(__file__).with_name("page.html"))

    socketio.init_app(app)
    return app


# With one application in the same module, two lines:
#
#     app = Flask(__name__)
#     socketio = SocketIO(app)

app = create_app()

if __name__ == "__main__":
    # In the place of app.run(): this server, also in production.
    socketio.run(app, host="127.0.0.1", port=5000)
