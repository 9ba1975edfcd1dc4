"""
An HTTP/2 client of a server under test, for test_resources: it runs where h2 is installed, which the server's
environment need not be.  It prints what it got as JSON.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from typing import Any

import h2.connection
import h2.events


class Client:
    """One connection, one request at a time."""

    def __init__(self, port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._socket = context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost"
        )
        self.agreed = self._socket.selected_alpn_protocol()
        self._port = port
        self._h2 = h2.connection.H2Connection()
        self._h2.initiate_connection()
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[Any, str]:
        """The status and the body of the answer; or what became of the stream."""
        stream = self._h2.get_next_available_stream_id()
        fields = {
            ":method": method,
            ":path": path,
            ":scheme": "https",
            ":authority": f"127.0.0.1:{self._port}",
            **(headers or {}),
        }
        self._h2.send_headers(stream, list(fields.items()), end_stream=not body)
        self._flush()
        status: Any = None
        answer = b""
        while True:
            while body:
                size = min(len(body), self._h2.local_flow_control_window(stream), 16384)
                if not size:
                    break
                self._h2.send_data(stream, body[:size], end_stream=size == len(body))
                body = body[size:]
                self._flush()
            data = self._socket.recv(65536)
            if not data:
                return "connection closed", ""
            for event in self._h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    answer += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    self._flush()
                    return status, answer.decode()
                elif isinstance(event, h2.events.StreamReset):
                    return "stream reset", ""
                elif isinstance(event, h2.events.ConnectionTerminated):
                    return "connection terminated", ""
            self._flush()


def main(port: int) -> None:
    client = Client(port)
    base = "/socket.io/?EIO=4&transport=polling"
    found: dict[str, Any] = {"agreed": client.agreed}
    found["open"] = client.request("GET", base)
    session = f"{base}&sid={json.loads(found['open'][1][1:])['sid']}"
    found["join"] = client.request("POST", session, b"40")
    found["joined"] = client.request("GET", session)
    found["ask"] = client.request("POST", session, b'421["echo","over HTTP/2"]')
    found["answer"] = client.request("GET", session)
    found["too large"] = client.request("POST", session, b"4" + b"x" * 1_500_000)
    found["far too large"] = client.request("POST", session, b"4" + b"x" * 3_000_000)
    found["after that"] = client.request("GET", base)
    found["WebSocket"] = client.request("GET", "/socket.io/?EIO=4&transport=websocket")
    found["page"] = client.request("GET", "/nothing")
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
