"""
The address on which ``socketio.run(app)`` listens, and its TLS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate

__all__ = ["ListeningAddress", "takeTLS"]

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_OTHERS: Final = ("cert_reqs", "ca_certs", "ssl_version", "ciphers")
"""Options for TLS that only other servers have."""


@dataclass(frozen=True)
class ListeningAddress:
    """
    An address to listen on, with or without TLS.

    :param tls: a context factory; ``None`` for plain TCP.
    """

    host: str
    port: int
    tls: Any = None

    def __str__(self) -> str:
        """Return the address as an endpoint string, for the log."""
        host = self.host.replace(":", "\\:")
        return f"{'ssl' if self.tls else 'tcp'}:{self.port}:interface={host}"

    def endpoint(self, reactor: Any) -> IStreamServerEndpoint:
        """Return the endpoint that listens on the address."""
        if self.tls is None:
            return TCP4ServerEndpoint(reactor, self.port, interface=self.host)
        return SSL4ServerEndpoint(reactor, self.port, self.tls, interface=self.host)


def takeTLS(options: dict[str, Any]) -> Any:
    """
    Remove the options for TLS from those of ``run()`` and return the context factory that they describe.

    :return: a context factory; ``None`` for no TLS.
    :raises ValueError: if an option has no equivalent here.  Plain text in place of TLS would be worse.
    """
    others = [name for name in _OTHERS if options.pop(name, None) is not None]
    certificate, key = options.pop("certfile", None), options.pop("keyfile", None)
    match options.pop("ssl_context", None):
        case None:
            pass
        case (certificate, key):
            pass
        case _:
            others.append("ssl_context")
    if others:
        raise ValueError(
            "run() takes certfile and keyfile for TLS, or ssl_context=(certfile, keyfile), and not "
            f"{', '.join(others)} as given: for more, leave TLS to a proxy, or let an endpoint of yours "
            "listen for socketio.realtime.site(socketio.root(reactor))"
        )
    if not certificate:
        if key:
            raise ValueError("run() was given a keyfile, and no certfile")
        return None
    return contextOf(Path(certificate), Path(key or certificate))


def contextOf(certificate: Path, key: Path) -> Any:
    """
    Make a context factory with the first certificate of a file as the server's and the others as its chain.

    :raises OSError: if a file cannot be read.
    :raises ValueError: if a file has no certificate or no key, or the two do not fit.
    """
    found, keyPEM = _CERTIFICATE.findall(certificate.read_bytes()), key.read_bytes()
    try:
        first, *chain = found
        own = PrivateCertificate.loadPEM(first + b"\n" + keyPEM)
        context = CertificateOptions(
            privateKey=own.privateKey.original,
            certificate=own.original,
            extraCertChain=[Certificate.loadPEM(each).original for each in chain],
        )
        context.getContext()  # a key that does not fit fails here, once, and not for each client
    except Exception as error:
        raise ValueError(f"{certificate} and {key}: expected a certificate and its key, as PEM") from error
    return context
