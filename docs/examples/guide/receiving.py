"""
Receiving: the handlers of events, registered by a decorator or by on_event().

    python docs/examples/guide/receiving.py
"""

from flask import Flask

from txrealtime.flask import SocketIO

app = Flask(__name__)
socketio = SocketIO(app)
received = []


# What clients send without a name of their own: text, by socket.send(), ...


@socketio.on("message")
def handle_message(message):
    received.append(["message", message])


# ... and JSON, by clients that know this old name for it.
@socketio.on("json")
def handle_json(json):
    received.append(["json", json])


# Events with a name: text, bytes, numbers, or what JSON has, as Python has it.
@socketio.on("my event")
def handle_my_event(data):
    received.append(["my event", data])


# Several arguments.
@socketio.on("my arguments")
def handle_my_arguments(first, second, third):
    received.append(["my arguments", first, second, third])


# The name of the function as that of the event.
@socketio.event
def my_named_event(data):
    received.append(["my_named_event", data])


# Without a decorator, for functions from elsewhere.
def my_function_handler(data):
    received.append(["my other event", data])


socketio.on_event("my other event", my_function_handler)


@socketio.on("report")
def report():
    """Return the events so far."""
    return [[str(value) if isinstance(value, bytes) else value for value in entry] for entry in received]


if __name__ == "__main__":
    socketio.run(app, port=5000)
