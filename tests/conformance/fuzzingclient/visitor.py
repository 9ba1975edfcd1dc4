"""
An echo on the client's WebSocket, which Autobahn's suite plays cases against in its mode `fuzzingserver`.

Usage: ``python -m tests.conformance.fuzzingclient.visitor URL`` visits the server that `fuzzer` serves;
``--help`` tells the options.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.task import react

from txrealtime.client.address import Address
from txrealtime.client.cookies import Cookies
from txrealtime.client.frames import nextMask
from txrealtime.client.websocket import WebSocket
from txrealtime.engineio.websocket.plain import maskedFrame

LARGEST = 1 << 25
"The largest messages of the suite have 16 MiB."

AGENT = "txrealtime"


class Talk(WebSocket):
    """
    One WebSocket of the client, which keeps the messages and speaks no Engine.IO.

    :param path: the path of the URL.
    :param fields: the query of the URL.
    :ivar messages: the messages that came.
    :ivar gone: fires when the WebSocket has ended.
    """

    def __init__(self, visit: Visit, path: str, fields: dict[str, str]) -> None:
        address = Address(visit.url, path, fields)
        endpoint = address.endpoint(visit.reactor, None, None, visit.tls)
        super().__init__(self, address, endpoint, Cookies(), visit.reactor, {}, LARGEST, visit.deflate)
        self.messages: list[str | bytes] = []
        self.gone: Deferred[None] = Deferred()

    def textReceived(self, text: str) -> None:
        self.messages.append(text)

    def bytesReceived(self, data: bytes) -> None:
        self.messages.append(data)

    # As the owner of itself.

    def transportOpened(self, transport: object) -> None:
        pass

    def transportWritable(self, transport: object) -> None:
        pass

    def transportLost(self, transport: object, error: Exception | None) -> None:
        self.gone.callback(None)


class Echo(Talk):
    """Sends back each message."""

    def textReceived(self, text: str) -> None:
        self.echo(text.encode(), False)

    def bytesReceived(self, data: bytes) -> None:
        self.echo(data, True)

    def echo(self, payload: bytes, isBinary: bool) -> None:
        """Send a message, as `send` does the wire form of a packet."""
        protocol: Any = self._protocol
        if protocol is None:
            return
        if protocol.compresses:
            protocol.sendCompressed(payload, isBinary)
        else:
            protocol.write(maskedFrame(payload, isBinary, nextMask()))


class Visit:
    """
    All cases of one server.

    :param deflate: offer compression.
    :param echo: makes the echo of one case.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        deflate: bool = False,
        tls: IOpenSSLClientConnectionCreator | None = None,
        echo: type[Echo] = Echo,
    ) -> None:
        self.reactor = reactor
        self.url = url
        self.deflate = deflate
        self.tls = tls
        self._echo = echo

    async def play(self, atOnce: int = 1) -> None:
        """
        Play all cases, and tell the server that these were all.

        :param atOnce: how many cases are played at a time: most of them wait.
        """
        (count,) = await self._talk(Talk, "/getCaseCount")
        cases = iter(range(1, json.loads(count) + 1))
        await gatherResults([Deferred.fromCoroutine(self._playSome(cases)) for _ in range(atOnce)])
        await self._talk(Talk, "/updateReports", agent=AGENT)

    async def _playSome(self, cases: Iterator[int]) -> None:
        for case in cases:
            await self._talk(self._echo, "/runCase", case=str(case), agent=AGENT)
            # The response comes once the server has a verdict, which it has after the end of the connection.
            await self._talk(Talk, "/getCaseStatus", case=str(case), agent=AGENT)

    async def _talk(self, kind: type[Talk], path: str, **fields: str) -> list[Any]:
        """Open a WebSocket, and return the messages that came by its end."""
        talk = kind(self, path, fields)
        talk.open(None)
        await talk.gone
        return talk.messages


def trusting(certificate: str) -> IOpenSSLClientConnectionCreator:
    """Return options of TLS for a server whose certificate is its own authority."""
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

    trusted = trustRootFromCertificates([Certificate.loadPEM(Path(certificate).read_bytes())])
    return optionsForClientTLS("127.0.0.1", trusted)


def main() -> None:
    """Visit a server."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.fuzzingclient.visitor")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--deflate", action="store_true", help="offer compression")
    parser.add_argument("--certificate", metavar="PEM", help="that of the server, for wss")
    parser.add_argument("--at-once", metavar="N", type=int, default=1, help="how many cases at a time")
    given = parser.parse_args()
    tls = trusting(given.certificate) if given.certificate else None

    def visit(reactor: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(Visit(reactor, given.url, given.deflate, tls).play(given.at_once))

    react(visit)


if __name__ == "__main__":
    main()
