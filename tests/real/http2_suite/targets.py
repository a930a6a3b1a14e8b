"""What the cases are tried on: the sidecar, or another proxy that shows whether a table asks for too much.

    $HTTP2_TARGET = outrigger (the default), haproxy or nghttpx

Each of them listens on one port for HTTP/1.1 and HTTP/2 without TLS, and leads every service, by its name in Host or
:authority, to one endpoint.
"""

import os
import shutil
import socket
from dataclasses import dataclass

from stage import Outrigger, Program, free_port

# Of a call to its answer's head, and of a pause within the answer: short, so that no case takes long.
REQUEST, IDLE = 1.5, 1.0

PATIENT = f"timeout: {{ request: {REQUEST:g}s, idle: {IDLE:g}s, connect: 1s }}, breaker: off, ejection: off, retry: off"


@dataclass
class Service:
    """A service with one endpoint on `port`, spoken to by `protocol` (http1 or http2)."""

    name: str
    port: int
    protocol: str = "http2"


@dataclass
class Target:
    name: str
    port: int
    program: Program
    ours: Outrigger | None = None


def chosen():
    return os.environ.get("HTTP2_TARGET", "outrigger")


def start(stage, services, extra="workers: 1"):
    """The chosen proxy before these services."""
    return {"outrigger": _outrigger, "haproxy": _haproxy, "nghttpx": _nghttpx}[chosen()](stage, services, extra)


def _outrigger(stage, services, extra):
    lines = [
        f"{s.name}: {{ static: [127.0.0.1:{s.port}], protocol: {s.protocol}, {PATIENT} }}"
        for s in services
    ]
    out = stage.outrigger("\n".join(lines), extra)
    out.wait_ready()
    return Target("outrigger", out.http, out.program, out)


HAPROXY = """
global
    log stderr format raw local0
defaults
    mode http
    timeout connect 1s
    timeout client 20s
    timeout http-request 10s
    timeout server {milliseconds}ms
    retries 0
    option http-no-delay
    option http-keep-alive
frontend apps
    bind 127.0.0.1:{port}
    use_backend %[req.hdr(host)]
"""


def _haproxy(stage, services, _):
    port = free_port()
    text = HAPROXY.format(port=port, milliseconds=int(REQUEST * 1000))
    for s in services:
        proto = " proto h2" if s.protocol == "http2" else ""
        text += f"backend {s.name}\n    http-reuse always\n    server e 127.0.0.1:{s.port}{proto}\n"
    binary = _find("haproxy", "haproxy")
    config = stage.write("haproxy.cfg", text)
    return Target("haproxy", port, stage.start_until("haproxy", [binary, "-f", config], lambda: _listens(port)))


def _nghttpx(stage, services, _):
    port = free_port()
    argv = [_find("nghttpx", "nghttp2-proxy"), "--conf=/dev/null", f"-f127.0.0.1,{port};no-tls", "--workers=1", "--errorlog-file=/dev/stderr"]
    argv.append(f"--backend-read-timeout={int(REQUEST * 1000)}ms")
    # The first service is also that of names that nobody bears; there has to be one.
    for pattern, s in [("", services[0]), *((s.name, s) for s in services)]:
        argv.append(f"-b127.0.0.1,{s.port};{pattern}/;proto={'h2' if s.protocol == 'http2' else 'http/1.1'}")
    return Target("nghttpx", port, stage.start_until("nghttpx", argv, lambda: _listens(port)))


def _find(program, package):
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not found:
        raise FileNotFoundError(f"{program} is not installed (Debian: apt-get install {package})")
    return found


def _listens(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True
