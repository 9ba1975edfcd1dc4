"""
Rooms: groups of clients that can be addressed together, and the room that each client has for itself.

    python docs/examples/guide/rooms.py
"""

from flask import Flask, request

from txrealtime.flask import SocketIO, close_room, emit, join_room, leave_room, rooms, send

app = Flask(__name__)
socketio = SocketIO(app)


@socketio.on("join")
def on_join(data):
    join_room(data["room"])
    send(f"{data['username']} has entered the room.", to=data["room"])


@socketio.on("leave")
def on_leave(data):
    leave_room(data["room"])
    send(f"{data['username']} has left the room.", to=data["room"])


@socketio.on("tell")
def on_tell(room, text):
    send(text, to=room, include_self=False)


@socketio.on("whisper")
def on_whisper(sid, text):
    """Send to one client, whose sid names a room of its own."""
    emit("whispered", (request.sid, text), to=sid)


@socketio.on("rooms")
def on_rooms():
    return sorted(room for room in rooms() if room != request.sid)


@socketio.on("close")
def on_close(room):
    send("This room closes.", to=room)
    close_room(room)


# A client leaves its rooms when it goes, so that needs no handler.
@app.post("/rooms/<room>")
def tell(room):
    socketio.send("from outside", to=room)
    return "sent\n"


if __name__ == "__main__":
    socketio.run(app, port=5000)
