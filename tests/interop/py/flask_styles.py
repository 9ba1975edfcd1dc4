"""
`python flask_styles.py MODULE PORT [WORLD]`: how published applications use Flask-SocketIO.

WORLD is eventlet (with its patches, but those of threads), gevent (with all patches) or gevent-unpatched.

Each namespace is one application's way: what it calls, where it calls it, and with what around it.
"""

from __future__ import annotations

import sys

MODULE, PORT, *PATCHED = sys.argv[1:]
if PATCHED == ["eventlet"]:
    import eventlet

    eventlet.monkey_patch(all=True, thread=False, os=False)
elif PATCHED:
    import gevent
    import gevent.monkey

    if PATCHED == ["gevent"]:
        gevent.monkey.patch_all()

import functools  # noqa: E402
import importlib  # noqa: E402
import logging  # noqa: E402
import queue  # noqa: E402
import threading  # noqa: E402
import warnings  # noqa: E402

import flask  # noqa: E402
from werkzeug.middleware.proxy_fix import ProxyFix  # noqa: E402

warnings.simplefilter("ignore")
library = importlib.import_module(MODULE)
app = flask.Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_prefix=1)
app.config.update(SECRET_KEY="only for tests", TEMPLATES_AUTO_RELOAD=True)
mode = {} if MODULE != "flask_socketio" else {"async_mode": "threading"}
socketio = library.SocketIO(cors_allowed_origins="*", max_http_buffer_size=5e7)
unknown = {"async_method": "eventlet", "engineio_options": {}, "binary": True, "debug": False}
socketio.init_app(app, **unknown, **mode)


def later(seconds, function, *args):
    """Call a function after some time, in the way of each world."""
    if PATCHED == ["eventlet"]:
        eventlet.spawn_after(seconds, function, *args)
    elif PATCHED:
        gevent.spawn_later(seconds, function, *args)
    else:
        threading.Timer(seconds, function, args).start()


# -- counters in the session, a callback that disconnects, a catch-all handler ---------------------------


def counted(**more):
    flask.session["count"] = flask.session.get("count", 0) + 1
    return {"count": flask.session["count"], **more}


@socketio.on("join", namespace="/counted")
def joined(message):
    library.join_room(message["room"])
    names = sorted("SID" if room == flask.request.sid else room for room in library.rooms())
    library.emit("told", counted(rooms=names))


@socketio.on("close", namespace="/counted")
def closed(message):
    library.emit("told", counted(closing=message["room"]), to=message["room"])
    library.close_room(message["room"])


@socketio.on("*", namespace="/counted")
def anything(event, *args):
    library.emit("told", counted(event=event, args=args))


@socketio.on("end", namespace="/counted")
def end():
    @flask.copy_current_request_context
    def acked(*args):
        library.disconnect()

    library.emit("told", counted(last=True), callback=acked)


# -- a user who is put out by a timer ----------------------------------------------------------------------

members = {}


@socketio.on("connect", namespace="/members")
def came(auth=None):
    name = flask.request.args.get("name")
    if not name:
        return False
    members[flask.request.sid] = name
    library.join_room(f"user:{name}", namespace="/members")
    socketio.emit("presence", sorted(members.values()), namespace="/members")
    library.emit("online", {"name": name}, broadcast=True)
    return True


@socketio.on("disconnect", namespace="/members")
def left(reason=None):
    name = members.pop(flask.request.sid, None)
    library.emit("offline", {"name": name}, broadcast=True)
    socketio.emit("presence", sorted(members.values()), namespace="/members")
    return True


@socketio.on("to", namespace="/members")
def private(name, text):
    library.emit("message", text, room=f"user:{name}", namespace="/members")
    library.emit("message", text, room=f"user:{members[flask.request.sid]}")


def putOut(sid):
    with app.app_context():
        socketio.emit("put out", {"why": "expired"}, namespace="/members", room=sid)
        socketio.sleep(0.2)
        library.disconnect(sid, namespace="/members")
        socketio.close_room(sid, namespace="/members")


@socketio.on("expire", namespace="/members")
def expire():
    later(0.1, putOut, flask.request.sid)


# -- threads that handlers start, and answers to the sender alone ------------------------------------------


class Worker:
    def search(self, sid, words):
        for word in words:
            socketio.emit("found", word.upper(), namespace="/worker", to=sid)
            socketio.sleep(0.01)

    def preview(self, word):
        try:
            raise LookupError(word)
        except LookupError as error:
            answer = f"nothing: {error}"
        finally:
            socketio.emit("preview", answer, namespace="/worker", room=flask.request.sid)


worker = Worker()


@socketio.on("search", namespace="/worker")
def search(words):
    if PATCHED == ["eventlet"]:
        eventlet.spawn(worker.search, flask.request.sid, words)
        return "search"
    thread = threading.Thread(target=worker.search, args=(flask.request.sid, words), name="search")
    thread.daemon = True
    thread.start()
    return thread.name


@socketio.on("preview", namespace="/worker")
def preview(word):
    worker.preview(word)


# -- a log on the page -------------------------------------------------------------------------------------


class Page(logging.Handler):
    def emit(self, record):
        if "socket.io" not in record.msg:
            socketio.emit("log", {"level": record.levelname, "text": record.msg}, namespace="/log")


pageLog = logging.getLogger("page")
pageLog.setLevel(logging.INFO)
pageLog.addHandler(Page())


@socketio.on("here", namespace="/log")
def here(arg):
    pageLog.info("a client is here")
    socketio.emit("event", {}, namespace="/log")


# -- wrappers of handlers and of emit, and a connect handler that goes on later ----------------------------


def logged(handler):
    @functools.wraps(handler)
    def wrapper(*args, **options):
        try:
            return handler(*args, **options)
        except Exception as error:
            library.emit("failed", repr(error))

    return wrapper


@socketio.on("connect", namespace="/wrapped")
@logged
def connected(auth):
    @logged
    @flask.copy_current_request_context
    def goOn():
        library.emit("first data", {"auth": auth, "sid": bool(flask.request.sid)})

    later(0.05, goOn)


@socketio.on("fail", namespace="/wrapped")
@logged
def fail(value):
    raise ValueError(value)


on = socketio.on


def otherOn(*args, **options):
    decorate = on(*args, **options)

    def decorator(handler):
        @functools.wraps(handler)
        def wrapper(*args, **options):
            return handler(*args, **options)

        return decorate(wrapper)

    return decorator


socketio.on = otherOn
relayed = queue.Queue()


def emit(event, data, **options):
    """Emit from handlers, views and threads."""
    if not flask.has_request_context():
        relayed.put((event, data, options))
        return
    try:
        library.emit(event, data, **options)
    except AttributeError:
        socketio.emit(event, data, **options)


@socketio.on("everywhere", namespace="/wrapped")
def everywhere():
    emit("from the handler", 1)
    socketio.start_background_task(emit, "from a task", 2, namespace="/wrapped").join()
    event, data, options = relayed.get()
    socketio.emit(event, data, **options)


@app.get("/view")
def view():
    emit("from a view", 3, namespace="/wrapped")
    return "viewed"


# -- a blueprint's namespace as a class, and the end --------------------------------------------------------


class Office(library.Namespace):  # type: ignore[name-defined]
    def on_connect(self):
        self.emit("hello", {"sid": True}, room=flask.request.sid)

    def on_connect_error(self, *args):
        raise AssertionError("never called")

    def on_say(self, text):
        self.send({"text": text})
        return len(text), text

    def on_disconnect(self, reason=None):
        socketio.emit("gone", 1, namespace="/office")

    def on_trigger_error(self):
        raise RuntimeError("told to nobody")


socketio.on_namespace(Office("/office"))


@socketio.on_error_default
def failed(error):
    library.emit("error", repr(error))


@app.get("/stop")
def stop():
    later(0.1, socketio.stop)
    return "stopping"


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        socketio.run(app, host="127.0.0.1", port=int(PORT), allow_unsafe_werkzeug=True, debug=False)
    except TypeError:
        socketio.run(app, host="127.0.0.1", port=int(PORT))
    print("run has returned", flush=True)
