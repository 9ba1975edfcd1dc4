# Varnish in front of one txrealtime server. Run both in the project's folder:
#
#     twistd -n realtime --listen tcp:8000:interface=127.0.0.1 --trusted-proxy 127.0.0.1
#     varnishd -F -f "$PWD/docs/examples/varnish.vcl" -a 127.0.0.1:8080 -n "$(mktemp -d)"
#
# Varnish speaks no TLS. With hitch before it, add `-a 127.0.0.1:6086,PROXY` for hitch's backend.

vcl 4.1;

import proxy;

backend realtime {
    .host = "127.0.0.1";
    .port = "8000";

    # Longer than --ping-interval and --ping-timeout together (25 + 20 seconds): a poll waits for so long.
    .first_byte_timeout = 60s;
}

sub vcl_recv {
    # Varnish adds the client to X-Forwarded-For by itself; a client may have set the other headers.
    set req.http.X-Forwarded-Host = req.http.Host;
    set req.http.X-Forwarded-Proto = "http";
    if (proxy.is_ssl()) {
        set req.http.X-Forwarded-Proto = "https";
    }
    if (req.http.Upgrade ~ "(?i)websocket") {
        return (pipe);
    }
    return (pass);
}

sub vcl_pipe {
    # Both headers belong to one connection, so Varnish leaves them out.
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = req.http.Connection;
}
