"""
Applications for Flask-SocketIO that are published as sources only, and visits that tell what they do.

SOURCES names a folder with a copy of each repository, as OWNER+NAME.  Nothing of them is kept here.
"""

from __future__ import annotations

import re
import time
from typing import Any

from tests.interop.applications import Published, until
from tests.interop.clients import FOLDER
from tests.interop.visitors import Visitor, requests

LAUNCH = str(FOLDER / "py" / "launch.py")

ENVIRONMENT = (
    "flask-socketio==5.7.0",
    *(
        "flask-login",
        "flask-session",
        "flask-wtf",
        "flask-sqlalchemy",
        "gevent",
        "requests",
        "websocket-client",
    ),
    *("spotipy", "musicbrainzngs", "thefuzz", "Unidecode", "pylast"),  # Lidify
    *("Pillow", "PyJWT", "resend"),  # flask-chat
    *("semver", "python-dateutil", "numpy", "pytz", "lxml", "pyserial", "cusfpredict"),  # of the balloons
    *("SQLAlchemy==2.0.*", "packaging"),  # RotorHazard
)
"""The packages of all of them, in one environment."""


def together(*visitors: Visitor) -> list[tuple[Any, ...]]:
    """Return the next event of each."""
    return [visitor.next() for visitor in visitors]


def counted(url: str, path: str, ends: str) -> dict[str, Any]:
    """Visit Flask-SocketIO's example: counters in sessions, rooms, and the end that a client asks for."""
    said: dict[str, Any] = {"page": requests.get(url, timeout=30).status_code}
    one = Visitor().connect(url, path, transport="polling")
    two = Visitor().connect(url, path, transport="websocket")
    told = [one.next(path), two.next(path)]
    sids = {one.sid(path): "ONE", two.sid(path): "TWO"}

    def both(event: str, *args: Any) -> None:
        one.emit(event, *args, namespace=path)
        told.extend([one.next(path), two.next(path)])

    def alone(visitor: Visitor, event: str, *args: Any) -> None:
        visitor.emit(event, *args, namespace=path)
        told.append(visitor.next(path))

    alone(one, "my_event", {"data": "echo"})
    both("my_broadcast_event", {"data": "for everybody"})
    for visitor in (one, two):
        alone(visitor, "join", {"room": "red"})
    both("my_room_event", {"room": "red", "data": "in the room"})
    alone(two, "leave", {"room": "red"})
    alone(one, "my_room_event", {"room": "red", "data": "to one"})
    alone(one, "close_room", {"room": "red"})
    alone(one, "my_ping")
    one.emit("my_room_event", {"room": "red", "data": "to nobody"}, namespace=path)
    if ends == "functions":
        alone(two, "nothing by this name", {"data": [1, None]})
    alone(two, "disconnect_request")
    said["ended"] = ended(two)
    one.emit("my_ping", namespace=path)
    told.append(one.next(path))
    one.close()

    def known(event: tuple[Any, ...]) -> tuple[Any, ...]:
        text = repr(event)
        if "In rooms" in text:
            rooms = sorted(sids.get(name, name) for name in event[1]["data"].split(": ")[1].split(", "))
            return (event[0], rooms, event[1]["count"])
        return event

    return {**said, "told": [known(event) for event in told]}


def ended(visitor: Visitor, within: float = 10.0) -> bool:
    """Tell if the server ends a client's connection."""
    deadline = time.monotonic() + within
    while visitor.client.connected and time.monotonic() < deadline:
        time.sleep(0.01)
    return not visitor.client.connected


def sessions(url: str) -> dict[str, Any]:
    """Visit Flask-SocketIO's example of sessions that HTTP and Socket.IO share."""
    http = requests.Session()
    told: list[Any] = []

    def ask() -> None:
        told.append(http.get(f"{url}/session", timeout=30).json())
        visitor.emit("get-session")
        told.append(visitor.next())

    def setThere(visitor: Visitor, **values: Any) -> None:
        visitor.emit("set-session", values)
        # The event has no answer: one that comes behind it has.
        time.sleep(0.3)

    http.post(f"{url}/session", json={"session": "first"}, timeout=30)
    visitor = Visitor(http=http).connect(url, transport="polling")
    ask()
    http.post(f"{url}/session", json={"user": "ann"}, timeout=30)
    ask()
    setThere(visitor, session="second")
    ask()
    setThere(visitor, user="bob")
    ask()
    http.post(f"{url}/session", json={"user": None}, timeout=30)
    ask()
    visitor.close()
    visitor = Visitor(http=http).connect(url, transport="websocket")
    ask()
    setThere(visitor, user="eve")
    ask()
    visitor.close()
    return {"told": told}


def blueprint(url: str) -> dict[str, Any]:
    """Visit Flask-SocketIO-Chat: two users with a form's session, in one room of a namespace."""

    def enter(name: str) -> tuple[Any, Visitor]:
        http = requests.Session()
        page = http.get(url, timeout=30).text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert token is not None, page
        form = {"csrf_token": token[1], "name": name, "room": "red", "submit": "Enter Chatroom"}
        answer = http.post(url, data=form, timeout=30)
        return (answer.status_code, answer.url.rpartition("/")[2]), Visitor(http=http)

    path = "/chat"
    entered, ann = enter("ann")
    alsoEntered, bob = enter("bob")
    told = [entered, alsoEntered]
    ann.connect(url, path, transport="polling")
    bob.connect(url, path, transport="websocket")
    ann.emit("joined", {}, namespace=path)
    told.append(ann.next(path))
    bob.emit("joined", {}, namespace=path)
    told += [ann.next(path), bob.next(path)]
    ann.emit("text", {"msg": "hellö"}, namespace=path)
    told += [ann.next(path), bob.next(path)]
    bob.emit("left", {}, namespace=path)
    told.append(ann.next(path))
    ann.close()
    bob.close()
    return {"told": told}


def chatEvents(url: str) -> dict[str, Any]:
    """Visit an example of flask-chat-events: a client that joins a room is told five events."""
    visitor = Visitor().connect(url)
    told = [visitor.next()]
    visitor.emit("join", {"room": "red", "user_id": "7"})
    told += [visitor.next() for _ in range(5)]
    visitor.close()
    volatile = ("id", "timestamp", "ts", "message_id", "created_at")
    return {
        "told": [
            (name, *({k: v for k, v in each.items() if k not in volatile} for each in args))
            for name, *args in told
        ]
    }


def sonde(url: str) -> dict[str, Any]:
    """Visit radiosonde_auto_rx's page: log lines and positions from its threads."""
    path = "/update_status"
    said: dict[str, Any] = {"page": requests.get(url, timeout=30).status_code}
    for transport in ("polling", "websocket"):
        visitor = Visitor().connect(url, path, transport=transport)
        visitor.emit("client_connected", {"data": "here"}, namespace=path)
        wanted = {"scan_event", "task_event", "telemetry_event"}
        seen: dict[str, Any] = {}

        def found(event: tuple[Any, ...], seen: dict[str, Any] = seen, wanted: set[str] = wanted) -> bool:
            name, *args = event
            if name in wanted:
                seen[name] = [
                    {key: each[key] for key in ("id", "type", "lat", "freq")} for each in args if each
                ]
            elif name == "log_event" and "New Web Client" in args[0]["msg"]:
                seen[name] = args[0]["msg"]
            return len(seen) == len(wanted) + 1

        until(visitor, path, found)
        said[transport] = seen
        visitor.close()
    return said


def chase(url: str) -> dict[str, Any]:
    """Visit chasemapper: settings that one client changes for all, and logs on the page."""
    path = "/chasemapper"
    pages = [requests.get(f"{url}{page}", timeout=30).status_code for page in ("/", "/bearing", "/oclock")]
    settings = requests.get(f"{url}/get_config", timeout=30).json()
    one = Visitor().connect(url, path, transport="polling")
    two = Visitor().connect(url, path, transport="websocket")
    settings["unitselection"] = "imperial"

    def changed(event: tuple[Any, ...]) -> Any:
        return event[0] == "server_settings_update" and event[1]

    one.emit("client_settings_update", settings, namespace=path)
    told = [until(visitor, path, changed) for visitor in (one, two)]
    two.emit("payload_data_clear", {"data": "clear"}, namespace=path)

    def cleared(event: tuple[Any, ...]) -> Any:
        return event[0] == "log_event" and "be cleared" in event[1]["msg"] and event[1]["msg"]

    logged = until(one, path, cleared)
    two.emit("profile_change", settings["selected_profile"], namespace=path)
    told.append(until(one, path, changed))
    one.close()
    two.close()
    return {"pages": pages, "told": told, "logged": logged}


def members(url: str) -> dict[str, Any]:
    """Visit Davidasx/flask-chat: presence, public and private messages, and an end from a timer."""
    told: list[Any] = []
    browsers: dict[str, Any] = {}

    def enter(name: str) -> Visitor:
        http = browsers[name] = requests.Session()
        form = {"username": name, "password": "secret word"}
        told.append(http.post(f"{url}/register", data=form, timeout=30).status_code)
        told.append(http.post(f"{url}/login", json=form, timeout=30).status_code)
        return Visitor(http=http)

    def named(visitor: Visitor, *names: str) -> dict[str, Any]:
        """Return the next events of these names, without what changes from run to run."""
        seen: dict[str, Any] = {}

        def found(event: tuple[Any, ...]) -> bool:
            if event[0] in names:
                kept = (
                    "username",
                    "message",
                    "forced",
                    "conversationType",
                    "conversation_type",
                    "online_count",
                )
                seen.setdefault(event[0], {key: value for key, value in event[1].items() if key in kept})
            return len(seen) == len(names)

        until(visitor, "/", found)
        return seen

    try:
        stranger = Visitor().connect(url)
        told.append("let in")
        stranger.close()
    except Exception as error:
        told.append(type(error).__name__)
    ann, bob = enter("ann"), enter("bob")
    ann.connect(url, transport="polling")
    told.append(named(ann, "online_presence", "user_online"))
    bob.connect(url, transport="websocket")
    told += [named(ann, "online_presence", "user_online"), named(bob, "online_presence", "user_online")]
    ann.emit("send_message", {"message": "hello", "conversationType": "public"})
    told += [named(ann, "message"), named(bob, "message")]
    bob.emit("send_message", {"message": "psst", "conversationType": "private", "peerUsername": "ann"})
    told += [named(ann, "message"), named(bob, "message")]
    bob.emit("check_messages", {"conversationType": "public"})
    # Whoever has an ended session is let in, and disconnected by a timer.
    old = requests.Session()
    old.cookies.update(browsers["bob"].cookies)
    passwords = {"old_password": "secret word", "new_password": "another word"}
    told.append(browsers["bob"].post(f"{url}/change-password", data=passwords, timeout=30).json()["redirect"])
    told += [named(bob, "user_offline", "force_disconnect"), ended(bob), named(ann, "user_offline")]
    ghost = Visitor(http=old).connect(url, transport="polling")
    told += [named(ghost, "user_offline", "force_disconnect"), ended(ghost), named(ann, "user_offline")]
    ann.close()
    return {"told": told}


def artists(url: str) -> dict[str, Any]:
    """Visit Lidify: its settings, which the server sends to everybody."""
    said: dict[str, Any] = {"page": requests.get(url, timeout=30).status_code}
    one = Visitor().connect(url, transport="polling")
    two = Visitor().connect(url, transport="websocket")
    told: list[Any] = []
    one.emit("load_settings")
    told += together(one, two)
    changed = {**told[0][1], "lidarr_api_key": "key", "root_folder_path": "/music/ü"}
    two.emit("update_settings", changed)
    two.emit("load_settings")
    told += together(one, two)
    one.emit("side_bar_opened")
    two.emit("start_req", ["nobody"])
    one.emit("stop_req")
    two.close()
    one.emit("load_settings")
    told.append(one.next())
    one.close()
    return {**said, "told": told}


def race(url: str) -> dict[str, Any]:
    """Visit RotorHazard: what its pages load by polling and by WebSocket, and changes that all see."""
    said: dict[str, Any] = {"page": requests.get(url, timeout=60).status_code}
    kinds = ("pilot_data", "heat_data", "class_data", "format_data", "node_tuning", "race_status", "language")
    for transport in ("polling", "websocket"):
        visitor = Visitor().connect(url, transport=transport)
        visitor.emit("load_data", {"load_types": list(kinds)})
        seen: dict[str, Any] = {}

        def loaded(event: tuple[Any, ...], seen: dict[str, Any] = seen) -> bool:
            if event[0] in kinds:
                seen[event[0]] = [sorted(each) if isinstance(each, dict) else each for each in event[1:]]
            return len(seen) == len(kinds)

        until(visitor, "/", loaded, 2000)
        said[transport] = seen
        other = Visitor().connect(url, transport="websocket")
        other.emit("add_pilot")

        def added(event: tuple[Any, ...]) -> Any:
            return event[0] == "pilot_data" and len(event[1]["pilots"])

        said[f"{transport}, added"] = until(other, "/", added, 2000)
        other.close()
        visitor.close()
    return said


def source(
    name: str, repository: str, below: str, command: tuple[str, ...], visit: Any, **options: Any
) -> Published:
    """Return an application whose sources lie in SOURCES."""
    return Published(
        name,
        ENVIRONMENT,
        command,
        visit,
        source=repository,
        below=below,
        environmentName="sources",
        **options,
    )


def launched(program: str, *arguments: str) -> tuple[str, ...]:
    return (LAUNCH, "{port}", program, *arguments)


EXAMPLES = ("miguelgrinberg/Flask-SocketIO", "example")

FROM_SOURCE = [
    source("exampleFunctions", *EXAMPLES, launched("app.py"), lambda url: counted(url, "/", "functions")),
    source("exampleClass", *EXAMPLES, launched("app_namespace.py"), lambda url: counted(url, "/", "class")),
    source("exampleSessions", *EXAMPLES, launched("sessions.py"), sessions),
    source("flaskSocketIOChat", "miguelgrinberg/Flask-SocketIO-Chat", ".", launched("chat.py"), blueprint),
    source("chatEvents", "phcodesage/flask-chat-events", ".", launched("examples/app.py"), chatEvents),
    source(
        "autoRx",
        "projecthorus/radiosonde_auto_rx",
        "auto_rx",
        ("serve.py",),
        sonde,
        files=(
            (
                "auto_rx/serve.py",
                """\
import datetime, logging, time
from autorx import web

logging.basicConfig(level=logging.INFO)
logging.getLogger().addHandler(web.WebHandler())
web.start_flask(host="127.0.0.1", port={port})
exporter = web.WebExporter()
try:
    while web.flask_app_thread.is_alive():
        now = datetime.datetime.now(datetime.timezone.utc)
        position = dict(lat=-34.9, lon=138.6, alt=100.0, temp=1.0, type="RS41", freq="401.5 MHz")
        times = dict(frame=1, datetime=now.isoformat(), datetime_dt=now)
        exporter.add(dict(id="S1", freq_float=401.5, **position, **times))
        time.sleep(0.2)
except KeyboardInterrupt:
    pass
finally:
    exporter.close()
""",
            ),
        ),
    ),
    source(
        "chasemapper",
        "projecthorus/chasemapper",
        ".",
        launched("horusmapper.py", "-c", "horusmapper.cfg.example", "--nolog"),
        chase,
    ),
    source("flaskChat", "Davidasx/flask-chat", ".", launched("app.py"), members),
    source("lidify", "TheWicklowWolf/Lidify", "src", launched("Lidify.py"), artists),
    source(
        "rotorHazard",
        "RotorHazard/RotorHazard",
        "src/server",
        ("server.py", "--data", "{folder}/data"),
        race,
        files=(("data/config.json", '{{"GENERAL": {{"HTTP_PORT": {port}}}}}'),),
        environment=(("RH_NODES", "8"),),
    ),
]
