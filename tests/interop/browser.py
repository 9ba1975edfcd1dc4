"""
Means of the tests of the chat page: a server to start and stop, a person with a browser, a picture.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import ROOT, TWISTD, freePort

try:
    from selenium import webdriver
    from selenium.common.exceptions import (
        ElementClickInterceptedException,
        ElementNotInteractableException,
        JavascriptException,
        NoSuchElementException,
        SessionNotCreatedException,
        StaleElementReferenceException,
    )
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    HALF_THERE: tuple[type[Exception], ...] = (
        *(ElementClickInterceptedException, ElementNotInteractableException, JavascriptException),
        *(NoSuchElementException, StaleElementReferenceException),
        *(IndexError, KeyError, TypeError, ValueError),
    )
    "Errors of a look at a page that is being drawn."
except ImportError:
    webdriver = None

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")

ALONE = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"Chromium without a screen, and without anything that it would do on its own account."

DESKTOP = (1280, 860)
PHONE = (390, 844)

WITHIN = 60.0
"Seconds in which the page has to show what is expected of it."


def png(width: int, height: int, colour: Callable[[int, int], tuple[int, int, int]]) -> bytes:
    """
    A PNG file, its colours by column and row.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(c for x in range(width) for c in colour(x, y)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def dusk(x: int, y: int) -> tuple[int, int, int]:
    """
    A lake in the evening, 600 by 400.
    """
    shore = 270
    far = shore - 75 * abs(math.sin(x / 120 + 0.7)) - 22 * math.sin(x / 37)
    near = shore - 34 * abs(math.sin(x / 85 + 2))
    mirrored = y if y < shore else 2 * shore - y  # the water shows what is above it, darker
    shade = 1.0 if y < shore else 0.62 + 0.08 * math.sin(y * 1.3 + 3 * math.sin(x / 31))
    if mirrored > near:
        colour = (30, 32, 62)
    elif mirrored > far:
        colour = (72, 60, 108)
    elif math.hypot(x - 420, mirrored - 150) < 30:
        colour = (255, 228, 186)
    else:
        part = max(0.0, mirrored / shore)
        colour = (int(38 + 214 * part), int(42 + 112 * part), int(100 + 14 * part))
    return int(colour[0] * shade), int(colour[1] * shade), int(colour[2] * shade)


class ChatServer:
    """
    `twistd -n realtime` on a port of its own, which it keeps when it is started again.

    :param log: the file for what it prints.
    :param arguments: its options, but `--listen`.
    :cvar folder: where it runs.
    """

    folder = ROOT

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self.arguments = arguments
        self.port = freePort()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """
        Start it, and come back when it accepts connections.
        """
        command = self.command()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        until = time.monotonic() + WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"{command} does not listen:\n{self.stop()}") from None
                time.sleep(0.05)

    def command(self) -> list[str]:
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        return [TWISTD, "-n", "--pidfile=", "realtime", "--listen", listen, *self.arguments]

    def signal(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def stop(self) -> str:
        """
        Stop it if it runs, and return all that it ever printed.
        """
        if self.process is not None:
            process, self.process = self.process, None
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return self.log.read_text("utf-8", "replace")


class Window:
    """
    One person at the chat: a Chromium with a new profile, and what can be done and seen in its page.

    :param flags: further options of Chromium.
    """

    def __init__(self, url: str, folder: str, size: tuple[int, int], *flags: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            *ALONE,
            *flags,
            f"--user-data-dir={folder}/profile",
            f"--window-size={size[0]},{size[1] + 100}",
        ):
            options.add_argument(flag)
        self.url = url
        self.downloads = Path(folder, "downloads")
        self.driver = self._start(options)
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=2 if size == PHONE else 1,
            mobile=size == PHONE,
        )
        self.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.driver.set_script_timeout(120)

    def _start(self, options: Any) -> Any:
        """Start Chromium; on a busy machine it may need longer than chromedriver waits: then once more."""
        try:
            return webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
        except SessionNotCreatedException as error:
            print(f"Chromium did not start, and is started again: {error.msg}")
            return webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))

    def devtools(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)

    def __getitem__(self, selector: str) -> Any:
        """
        The first element of a CSS selector.
        """
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """
        The text of each element of a CSS selector, in the order of the page; seen or scrolled away.
        """
        found = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
        texts: list[str] = self.driver.execute_script(found, selector)
        return texts

    def waitFor(self, what: str, happened: Callable[[], Any]) -> None:
        """
        Wait until something has happened; AssertionError, with the text of the page, when it does not.

        A page that is being drawn lacks elements, or replaces one between two looks at it: a look that fails
        over that is no.
        """
        until = time.monotonic() + WITHIN
        failed: Exception | None = None
        while True:
            try:
                if happened():
                    return
            except HALF_THERE as error:
                failed = error
            if time.monotonic() > until:
                raise AssertionError(
                    f"not seen: {what}; the page says:\n{self['body'].text}\n{self.complaints()}"
                ) from failed
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """
        Click the first element of a CSS selector, once it is there and can be clicked.
        """

        def clicked() -> bool:
            self[selector].click()
            return True

        self.waitFor(f"{selector} to click", clicked)

    def sees(self, selector: str, *texts: str) -> None:
        """
        Wait until the elements of a CSS selector have these texts.
        """
        self.waitFor(f"{texts} at {selector}", lambda: self.texts(selector) == list(texts))

    def seesTyping(self, other: Window, text: str) -> None:
        """
        Wait until the page says that another person types; that one goes on, as the events are volatile.
        """

        def seen() -> bool:
            if self.texts(".typing.on #typing-text") == [text]:
                return True
            other["#text"].send_keys(" \ue003")  # backspace, as WebDriver writes it
            time.sleep(0.2)
            return False

        self.waitFor(text, seen)

    def seesAmong(self, selector: str, text: str) -> None:
        """
        Wait until an element of a CSS selector has this text.
        """
        self.waitFor(f"{text!r} among {selector}", lambda: text in self.texts(selector))

    def complaints(self) -> list[str]:
        """
        The errors in the page's console since the last call.
        """
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def enter(self, nick: str, room: str = "lobby") -> None:
        """
        Open the page and come in, through the form.
        """
        self.driver.get(self.url)
        self["#nick"].send_keys(nick)
        self["#entry-room"].clear()
        self["#entry-room"].send_keys(room)
        self["#enter"].click()
        self.sees("#room-name", room)

    def say(self, text: str) -> None:
        """
        Write a message and press Enter.
        """
        self["#text"].send_keys(text, Keys.ENTER)

    def pick(self, file: Path) -> None:
        """
        Choose a file in the picture dialog.
        """
        self["#picture"].send_keys(str(file))

    def give(self, way: str, content: bytes) -> None:
        """
        Paste or drop a PNG file: the event that the browser would make of it.
        """
        script = """
            const [way, bytes] = arguments;
            const given = new DataTransfer();
            given.items.add(new File([Uint8Array.from(bytes)], "given.png", { type: "image/png" }));
            const event = way === "drop"
              ? new DragEvent(way, { dataTransfer: given, bubbles: true, cancelable: true })
              : new ClipboardEvent(way, { clipboardData: given, bubbles: true, cancelable: true });
            document.body.dispatchEvent(event);
        """
        self.driver.execute_script(script, way, list(content))

    def save(self) -> bytes:
        """
        Open the only picture in the log and save it, and return what is in the file.
        """
        self.waitFor("the picture", lambda: self.texts(".shown") == [""])
        self.click(".shown")
        self.click("#viewer-save")
        self.waitFor("the saved file", lambda: self.saved())
        self.click("#viewer .icon:not(a)")
        [file] = self.saved()
        content = file.read_bytes()
        file.unlink()
        return content

    def saved(self) -> list[Path]:
        """The saved files; none while Chromium writes one, under a name of its own."""
        files = list(self.downloads.glob("*"))
        whole = not any(file.suffix == ".crdownload" or file.name.startswith(".") for file in files)
        return files if whole else []

    def offline(self, offline: bool) -> None:
        """
        Take the network away from this browser, or give it back.
        """
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.devtools("Network.enable")
        self.devtools("Network.emulateNetworkConditions", offline=offline, **speed)

    def photograph(self, name: str) -> None:
        """
        Keep a picture of the page in docs/images, if asked to.
        """
        if os.environ.get("TXREALTIME_SCREENSHOTS"):
            folder = ROOT / "docs" / "images"
            folder.mkdir(exist_ok=True)
            self.driver.save_screenshot(str(folder / f"{name}.png"))
