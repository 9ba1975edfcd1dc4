"""
Namespaces: several conversations of one client on one connection, by decorators and by a class.

    python docs/examples/guide/namespaces.py
"""

from flask import Flask, request

from txrealtime.flask import Namespace, SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app)


@socketio.on("who")
def who():
    return f"the default namespace, {request.namespace}"


@socketio.on("who", namespace="/test")
def who_in_test():
    return f"by a decorator, {request.namespace}"


class MyNamespace(Namespace):
    """A namespace whose methods on_<event> handle events; others are ignored."""

    def on_connect(self, auth):
        # To everybody in this namespace; namespace= and room= choose others.
        self.emit("news", "somebody came", room=request.sid)

    def on_disconnect(self, reason):
        pass

    def on_my_event(self, data):
        emit("my response", data)

    def on_who(self):
        return f"by a class, {request.namespace}"

    def on_both(self):
        return "by the class"


socketio.on_namespace(MyNamespace("/class"))


# When both handle an event, the decorated function does.
@socketio.on("both", namespace="/class")
def both():
    return "by the decorator"


if __name__ == "__main__":
    socketio.run(app, port=5000)
