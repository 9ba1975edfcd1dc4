"""
Sending: send() and emit(), other namespaces, several arguments, and acks both ways.

    python docs/examples/guide/sending.py
"""

from flask import Flask, request

from txrealtime.flask import SocketIO, call, emit, send

app = Flask(__name__)
socketio = SocketIO(app)
acked = []


# An echo of what comes without a name, as text and as JSON, and of a named event.


@socketio.on("message")
def handle_message(message):
    send(message)


@socketio.on("json")
def handle_json(json):
    send(json, json=True)


@socketio.on("my event")
def handle_my_event(json):
    emit("my response", json)


# To the same client, elsewhere: its sid there is another one, so this goes to everybody in /chat.
@socketio.on("to the chat")
def to_the_chat(text):
    send(text, namespace="/chat", broadcast=True)
    emit("my response", text, namespace="/chat", broadcast=True)


@socketio.on("connect", namespace="/chat")
def enter_the_chat():
    pass


# Several arguments are a tuple; a list is one argument.
@socketio.on("my arguments")
def handle_my_arguments(json):
    emit("my response", ("foo", "bar", json))
    emit("my response", ["foo", "bar", json])


# What a handler returns is what the client's callback gets: here two arguments, and none below.
@socketio.on("acknowledge")
def acknowledge(json):
    return "one", 2


@socketio.on("acknowledge without a value")
def acknowledge_without_a_value():
    pass


# The other way: a callback of the server gets what the client returns.
@socketio.on("ask me")
def ask_me(question):
    def answered(*answer):
        # Still in the contexts of the handler that asked.
        acked.append([request.sid, *answer])
        emit("thanks", len(answer))

    emit("question", question, callback=answered)


# Or the handler waits for it. It has a thread of its own, so nobody else waits.
@socketio.on("ask me and wait")
def ask_me_and_wait(question):
    try:
        return call("question", question, timeout=10)
    except TimeoutError:
        return "no answer"


if __name__ == "__main__":
    socketio.run(app, port=5000)
