"""
Authentication: a login by Flask-Login over HTTP, and current_user in the handlers of Socket.IO.

    pip install flask-login
    python docs/examples/guide/authentication.py
"""

import functools

from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from txrealtime.flask import SocketIO, disconnect, emit

app = Flask(__name__)
app.config["SECRET_KEY"] = "secret!"
logins = LoginManager(app)
socketio = SocketIO(app)

PASSWORDS = {"ada": "engine"}  # a real application keeps none, but what is made of them


class User(UserMixin):
    def __init__(self, name):
        self.id = self.name = name


@logins.user_loader
def load(name):
    return User(name) if name in PASSWORDS else None


@app.post("/login")
def login():
    name = request.form["name"]
    if PASSWORDS.get(name) != request.form["password"]:
        return "wrong name or password\n", 401
    login_user(User(name))
    return "welcome\n"


@app.post("/logout")
def logout():
    logout_user()
    return "goodbye\n"


@socketio.on("connect")
def connect():
    if not current_user.is_authenticated:
        return False
    emit("my response", {"message": f"{current_user.name} has joined"}, broadcast=True)


# Flask-Login's login_required answers with a redirection, and here is no response. This disconnects instead.
# Where anybody may connect, it guards single events.


def authenticated_only(handler):
    @functools.wraps(handler)
    def wrapped(*args, **kwargs):
        if not current_user.is_authenticated:
            disconnect()
        else:
            return handler(*args, **kwargs)

    return wrapped


@socketio.on("connect", namespace="/public")
def connect_to_the_public():
    pass


@socketio.on("my event", namespace="/public")
@authenticated_only
def handle_my_event(data):
    emit("my response", {"message": f"{current_user.name} says {data}"}, broadcast=True)


if __name__ == "__main__":
    socketio.run(app, port=5000)
