"""
Uploads in slices, which go on after a reconnection: twistd -n realtime --app upload:server --static .
"""

import re
from pathlib import Path

from twisted.internet.threads import deferToThread

from txrealtime import Server

FOLDER = Path("uploads")
LARGEST = 100_000_000

server = Server()


def place(id):
    """Return the path of an upload.  The client chose the id, so it may be anything."""
    if not isinstance(id, str) or not re.fullmatch("[0-9a-f-]{36}", id):
        raise ValueError("no id of an upload")
    return FOLDER / id


def write(path, start, data):
    FOLDER.mkdir(exist_ok=True)
    # Two connections may send the same slice: it goes to the same place.
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(start)
        file.write(data)


@server.on("upload size")
def size(socket, id):
    """Tell how much of an upload is here."""
    path = place(id)
    return path.stat().st_size if path.exists() else 0


@server.on("upload slice")
async def slice(socket, id, start, data):
    path = place(id)
    if not isinstance(start, int) or not isinstance(data, bytes):
        return {"error": "expected a number and bytes"}
    if not 0 <= start <= size(socket, id) or start + len(data) > LARGEST:
        return {"error": "not the next slice, or too large"}
    await deferToThread(write, path, start, data)
    return {"size": start + len(data)}


@server.onError(ValueError)
def invalid(socket, error):
    return {"error": str(error)}
