"""
Errors: exceptions of handlers go to the error handler of the namespace, or to the default one.

    python docs/examples/guide/errors.py
"""

from flask import Flask, request

from txrealtime.flask import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app)


def told(handler, error):
    """Tell the client; request.event has the name of the event and its arguments."""
    event = request.event
    emit("failed", (handler, type(error).__name__, event["message"], list(event["args"])))


@socketio.on_error()
def error_handler(error):
    told("of /", error)


@socketio.on_error("/chat")
def error_handler_of_the_chat(error):
    told("of /chat", error)
    return "sorry"  # the client's ack, in the place of what the handler would have returned


@socketio.on_error_default
def default_error_handler(error):
    told("default", error)


def divide(dividend, divisor):
    return dividend / divisor


for namespace in ("/", "/chat", "/other"):
    socketio.on_event("divide", divide, namespace=namespace)


if __name__ == "__main__":
    socketio.run(app, port=5000)
