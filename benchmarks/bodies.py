"""
Large bodies beside many clients: the cost of an upload and a download of 300 MB for the echoes of others.

Run as ``python -m benchmarks.bodies``.  A server has a WSGI application and 200 clients of Socket.IO, each of
which asks for an echo five times a second; meanwhile another process sends a file as a form, and fetches one.
The slowest echo and the server's memory are what counts.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from benchmarks.frames import masked

CLIENTS = 200
MEGABYTES = 300
INTERVAL = 0.2

SERVER = """
from txrealtime import Server

server = Server()
server.on("echo")(lambda socket, data: data)

def pages(environ, respond):
    if environ["PATH_INFO"] == "/upload":
        size = 0
        while data := environ["wsgi.input"].read(65536):
            size += len(data)
        respond("200 OK", [])
        return [b"%d" % size]
    respond("200 OK", [])
    return (b"x" * 100_000 for _ in range(MEGABYTES * 10))
""".replace("MEGABYTES", str(MEGABYTES))

UPLOAD = """
import socket, sys
head = b'--B\\r\\nContent-Disposition: form-data; name="f"; filename="x"\\r\\n\\r\\n'
piece, count = b"\\n" * 1_000_000, int(sys.argv[2])
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"POST /upload HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
              b"Content-Type: multipart/form-data; boundary=B\\r\\nContent-Length: %d\\r\\n\\r\\n"
              % (len(head) + len(piece) * count + 9) + head)
    for _ in range(count): s.sendall(piece)
    s.sendall(b"\\r\\n--B--\\r\\n")
    while data := s.recv(65536): last = data
print(last[-9:].decode())
"""

DOWNLOAD = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"GET /download HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    size = 0
    while data := s.recv(65536): size += len(data)
print(size)
"""


class Echo:
    """One client of Socket.IO, which asks for echoes and keeps how long each took, in seconds."""

    async def open(self, port: int) -> None:
        self.took: list[float] = []
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % port
        )
        await self._reader.readuntil(b"\r\n\r\n")
        await self._message()
        self._writer.write(masked(b"40"))
        await self._message()

    async def _message(self) -> bytes:
        """The next text message; heartbeats are answered."""
        while True:
            _, size = await self._reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2), "big")
            data = await self._reader.readexactly(size)
            if data != b"2":
                return data
            self._writer.write(masked(b"3"))

    async def ask(self, stopped: asyncio.Event, wait: float) -> None:
        await asyncio.sleep(wait)
        while not stopped.is_set():
            begun = time.perf_counter()
            self._writer.write(masked(b'420["echo",1]'))
            answer = await self._message()
            assert answer == b"430[1]", answer
            self.took.append(time.perf_counter() - begun)
            await asyncio.sleep(INTERVAL)


def memory(pid: int) -> float:
    """Return the megabytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure(name: str, port: int, pid: int, meanwhile: Callable[[], Awaitable[str]]) -> None:
    """Have clients ask while something goes on, and print their times."""
    clients = [Echo() for _ in range(CLIENTS)]
    for client in clients:
        await client.open(port)
    stopped, peak, before = asyncio.Event(), [0.0], memory(pid)

    async def watch() -> None:
        while not stopped.is_set():
            peak[0] = max(peak[0], memory(pid))
            await asyncio.sleep(0.02)

    random = Random(1)
    tasks = [asyncio.create_task(client.ask(stopped, random.random() * INTERVAL)) for client in clients]
    tasks.append(asyncio.create_task(watch()))
    await asyncio.sleep(1)
    for client in clients:
        client.took.clear()
    begun = time.perf_counter()
    said = await meanwhile()
    seconds = time.perf_counter() - begun
    stopped.set()
    await asyncio.gather(*tasks)
    took = sorted(value * 1000 for client in clients for value in client.took)
    print(
        f"{name:10} {seconds:6.1f} s, {len(took)} echoes: half below {took[len(took) // 2]:.1f} ms, "
        f"99 % below {took[len(took) * 99 // 100]:.1f} ms, the slowest {took[-1]:.1f} ms; "
        f"memory {before:.0f} MB, at most {peak[0]:.0f} MB ({said.strip()})"
    )


async def run(code: str, *arguments: str) -> str:
    """Run a program in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said.decode()


async def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bodies_app.py").write_text(SERVER)
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "realtime"]
        command += ["--app", "bodies_app:server", "--wsgi", "bodies_app:pages", "--listen", f"tcp:{port}"]
        path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        log = Path(folder, "log")
        with log.open("wb") as output:
            server = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=output, stderr=output
            )
        try:
            while not re.search("serving Socket.IO", log.read_text()):
                await asyncio.sleep(0.05)
            await measure("nothing", port, server.pid, lambda: run("import time; time.sleep(5)"))
            await measure("upload", port, server.pid, lambda: run(UPLOAD, str(port), str(MEGABYTES)))
            await measure("download", port, server.pid, lambda: run(DOWNLOAD, str(port)))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)


if __name__ == "__main__":
    asyncio.run(main())
