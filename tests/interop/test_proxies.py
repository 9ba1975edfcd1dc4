"""
Real proxies as docs/howto/proxies.rst shows them, before a server started by `twistd -n realtime`.

Each test plays js/proxied.cjs and py/proxied.py, by polling, WebSocket and an upgrade: the server must see
the right client, accept the page of its own origin, and refuse a foreign page.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.interop import proxies
from tests.interop.clients import (
    RealtimeServer,
    javaScript,
    python,
    requireJavaScriptClient,
    requirePythonClient,
)
from tests.support import startProgram

CLIENT = "127.0.3.7"
"""The clients' address: proxies have 127.0.0.1."""

TCP = "tcp:PORT:interface=127.0.0.1"

OPTIONS = ["--app", "tests.interop.app:server", "--cookie", "io"]

COOKIE = "io=SID; Path=/; HttpOnly; SameSite=Lax"


class ProxyTests(TestCase):
    timeout = 300

    def setUp(self) -> None:
        requireJavaScriptClient("socket.io-client-4")
        requirePythonClient("socketio", "aiohttp")

    async def server(self, *options: str) -> RealtimeServer:
        """Start a server; of the endpoint in `options` the port is `PORT`."""
        listen, endpoint, *others = options
        self.assertEqual(listen, "--listen")
        server = RealtimeServer(self, *OPTIONS, *others, endpoint=endpoint)
        await server.start()
        return server

    async def passed(self, proxy: proxies.Proxy) -> None:
        """Have clients come through a proxy to a server with the options that the example names."""
        server = await self.server(*proxy.serverOptions())
        await proxy.start(server.port)
        await self.visited(proxy, server)

    async def report(self, command: list[str], certificate: str = "") -> Any:
        """Run a client's script, and return its report."""
        client = startProgram(self, command, environment={"NODE_EXTRA_CA_CERTS": certificate})
        await client.whenEnded(120)
        self.assertEqual(client.exitCode, 0, client.output)
        return json.loads(client.output.splitlines()[-1])

    async def visited(self, proxy: proxies.Proxy, server: RealtimeServer, address: str = CLIENT) -> None:
        """
        Have both clients come through a proxy, then stop the server.

        :param address: the address of which the server must know.
        """
        commands = [
            javaScript("proxied.cjs", proxy.url, CLIENT, proxy.url),
            python("proxied.py", proxy.url, CLIENT),
        ]
        js, py = await gatherResults(
            [Deferred.fromCoroutine(self.report(command, str(proxy.certificate))) for command in commands],
            consumeErrors=True,
        )
        secure = proxy.url.startswith("https")
        seen = {"address": address, "secure": secure, "host": f"127.0.0.1:{proxy.port}"}
        for report in (js, py):
            for transport in ("polling", "websocket", "upgrade"):
                self.assertEqual(report[transport], seen, transport)
        self.assertEqual(js["foreign"], {"polling": 403, "websocket": 403})
        self.assertEqual(py["foreign"], {"polling": "refused", "websocket": "refused"})
        self.assertEqual(js["cookie"], [COOKIE + ("; Secure" if secure else "")])
        # Such as the proxy's health checks.
        self.assertNotIn("dropped", server.program.output)
        await server.stop()


class HeaderTests(ProxyTests):
    """Proxies that report by X-Forwarded-For, -Proto and -Host, and are trusted."""

    async def test_nginx(self) -> None:
        await self.passed(proxies.Nginx(self))

    async def test_nginxTLS(self) -> None:
        tls = "ssl; ssl_certificate cert.pem; ssl_certificate_key cert.pem;"
        await self.passed(
            proxies.Nginx(self, True, {"listen 127.0.0.1:8080;": f"listen 127.0.0.1:8443 {tls}"})
        )

    async def test_haproxy(self) -> None:
        await self.passed(proxies.HAProxy(self))

    async def test_haproxyTLS(self) -> None:
        await self.passed(proxies.HAProxy(self, True))

    async def test_apache(self) -> None:
        await self.passed(proxies.Apache(self))

    async def test_apacheTLS(self) -> None:
        """And with mod_proxy_wstunnel, as before 2.4.47."""
        proxy = proxies.Apache(self, True)
        proxy.edits["ProxyPass / http://127.0.0.1:8000/ upgrade=websocket"] = f"""
            LoadModule ssl_module modules/mod_ssl.so
            LoadModule rewrite_module modules/mod_rewrite.so
            LoadModule proxy_wstunnel_module modules/mod_proxy_wstunnel.so
            SSLEngine on
            SSLCertificateFile {proxy.certificate}
            RewriteEngine on
            RewriteCond %{{HTTP:Upgrade}} =websocket [NC]
            RewriteRule /(.*) ws://127.0.0.1:8000/$1 [P,L]
            ProxyPass / http://127.0.0.1:8000/
        """
        proxy.edits["Listen 127.0.0.1:8080"] = "Listen 127.0.0.1:8443"
        await self.passed(proxy)

    async def test_caddy(self) -> None:
        await self.passed(proxies.Caddy(self))

    async def test_caddyTLS(self) -> None:
        await self.passed(proxies.Caddy(self, True))

    async def test_varnish(self) -> None:
        await self.passed(proxies.Varnish(self))

    async def test_varnishTLS(self) -> None:
        """TLS ends at hitch before Varnish."""
        varnish = proxies.Varnish(self, hitch=True)
        server = await self.server(*varnish.serverOptions())
        await varnish.start(server.port)
        hitch = proxies.Hitch(self, True)
        await hitch.start(varnish.port)
        await self.visited(hitch, server)

    async def test_traefik(self) -> None:
        """Its headers, of which X-Forwarded-Proto is wss for a WebSocket."""
        server = await self.server("--listen", TCP, "--trusted-proxy", "127.0.0.1")
        host = "example.org"
        common = {
            "Host": host,
            "X-Forwarded-For": CLIENT,
            "X-Forwarded-Host": host,
            "X-Forwarded-Port": "443",
            "X-Forwarded-Server": "traefik",
            "X-Real-Ip": CLIENT,
        }
        headers = {
            name: {**common, "X-Forwarded-Proto": proto}
            for name, proto in (("polling", "https"), ("websocket", "wss"))
        }
        origin = f"https://{host}"
        report = await self.report(
            javaScript("proxied.cjs", server.url, "127.0.0.1", origin, json.dumps(headers))
        )
        seen = {"address": CLIENT, "secure": True, "host": host}
        self.assertEqual((report["polling"], report["websocket"]), (seen, seen))
        self.assertEqual(report["foreign"], {"polling": 403, "websocket": 403})
        self.assertEqual(report["cookie"], [f"{COOKIE}; Secure"])
        await server.stop()


class TLSTests(ProxyTests):
    """Proxies that end TLS below HTTP; with the PROXY protocol the server knows the client's address."""

    async def test_haproxy2(self) -> None:
        await self.passed(proxies.HAProxyOfTCP(self, True))

    async def test_haproxy1(self) -> None:
        await self.passed(proxies.HAProxyOfTCP(self, True, {"send-proxy-v2": "send-proxy"}))

    async def test_passedOn(self) -> None:
        """TLS goes through HAProxy, and ends at the server: the header comes before TLS."""
        proxy = proxies.HAProxyOfTCP(self, True, {"ssl crt cert.pem": ""})
        endpoint = f"haproxy:ssl:PORT:interface=127.0.0.1:privateKey={proxy.certificate}"
        server = await self.server("--listen", endpoint)
        await proxy.start(server.port)
        await self.visited(proxy, server)

    async def test_encryptedAnew(self) -> None:
        """TLS ends at HAProxy, which speaks TLS to the server."""
        proxy = proxies.HAProxyOfTCP(self, True, {"send-proxy-v2": "send-proxy-v2 ssl verify none"})
        endpoint = f"haproxy:ssl:PORT:interface=127.0.0.1:privateKey={proxy.certificate}"
        server = await self.server("--listen", endpoint)
        await proxy.start(server.port)
        await self.visited(proxy, server)

    async def test_stunnel(self) -> None:
        await self.passed(proxies.Stunnel(self, True))

    async def test_stunnelAlone(self) -> None:
        """Without the PROXY protocol clients have the address of stunnel."""
        proxy = proxies.Stunnel(self, True, {"protocol = proxy": ""})
        server = await self.server("--listen", TCP, "--public-url", proxy.url)
        await proxy.start(server.port)
        await self.visited(proxy, server, "127.0.0.1")

    async def test_hitch2(self) -> None:
        await self.passed(proxies.Hitch(self, True))

    async def test_hitch1(self) -> None:
        await self.passed(proxies.Hitch(self, True, {"write-proxy-v2": "write-proxy-v1"}))

    async def test_unknown(self) -> None:
        """HAProxy does not know the address of a client of a UNIX socket: ``UNKNOWN``, or no family."""
        for version in ("send-proxy", "send-proxy-v2"):
            proxy = proxies.HAProxyOfTCP(self, True, {"send-proxy-v2": version})
            # The path of such a socket must be short.
            proxy.edits["    bind "] = "    bind unix@socket\n    bind "
            place = Path(os.path.relpath(proxy.folder / "socket"))
            server = await self.server(*proxy.serverOptions())
            await proxy.start(server.port)
            answer = await deferToThread(self.asked, place, proxy.url)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK"), answer)
            await server.stop()

    def asked(self, place: Path, origin: str) -> bytes:
        """Open a session by a UNIX socket, and return the response."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(place))
            request = (
                f"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n"
            )
            client.sendall(request.encode())
            return client.recv(1000)
