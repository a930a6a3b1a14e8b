"""What stands behind every peer, on the core for load: one origin a protocol, each the cheapest that does it right.

HTTP/1.1 is nginx. HTTP/2 and gRPC are nghttpd: half of nginx's cost, and it answers a message when it has the whole
of it, as a gRPC server does. TLS is nginx again: it verifies the caller's certificate, which nghttpd only asks for.
"""

import subprocess

import load
from origin import start_nginx  # beside the stage, which `peer` has put on the path
from peer import LOAD_CORE, TEMPLATES, find, real


class Origins:
    """The running origins: a port for each protocol, and certificates for those who call with TLS."""

    def __init__(self, stage):
        certificates(stage.folder)
        self.http1 = start_nginx(stage, cpu=LOAD_CORE)
        documents = stage.folder / "documents"
        for path, body in {"small": load.SMALL, **{c.path[1:]: c.message for c in load.CASES if c.message}}.items():
            (documents / path).parent.mkdir(parents=True, exist_ok=True)
            (documents / path).write_bytes(body)
        self.http2 = _nghttpd(stage, "origin-http2", documents)
        self.grpc = _nghttpd(stage, "origin-grpc", documents, "--trailer=grpc-status: 0", "--no-content-length")
        self.secure = _secure(stage)

    def port(self, case):
        """The one that answers this case."""
        if case.secure:
            return self.secure
        return self.grpc if case.message else self.http2 if case.http2 else self.http1

    def values(self):
        """What the peers' templates are filled in with."""
        return {"ORIGIN": self.http1, "STREAMS": self.http2, "GRPC": self.grpc, "SECURE": self.secure}


def _nghttpd(stage, name, documents, *options):
    port = real.free_port()
    # As many streams on a connection as a peer has calls, so that it may, and need not, open more than one.
    argv = [find("nghttpd", package="nghttp2-server"), "--no-tls", "-a127.0.0.1", "-m256", f"-d{documents}"]
    stage.start_until(name, [*argv, *options, port], lambda: _listens(port), cpu=LOAD_CORE)
    return port


def _secure(stage):
    port, binary = real.free_port(), find("nginx", package="nginx-light")
    conf = stage.fill(TEMPLATES / "origin-tls.conf", SECURE=port)
    stage.start_until("origin-tls", [binary, "-p", stage.folder, "-c", conf], lambda: _listens(port), cpu=LOAD_CORE)
    return port


def _listens(port):
    with real.socket.create_connection(("127.0.0.1", port), 1):
        return True


def certificates(folder):
    """A root in `ca.pem`; signed by it `origin.pem` for payments.internal and `caller.pem` for the peers, with keys.

    All are P-256, as a private authority makes them today. `caller-with-key.pem` is both in one, for HAProxy.
    """
    openssl = find("openssl", package="openssl")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def make(name, *options):
        argv = [openssl, "req", "-x509", "-days", "2", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        p = subprocess.run([*argv, *options], cwd=folder, capture_output=True, text=True, timeout=20)
        if p.returncode != 0:
            raise RuntimeError(f"openssl: {p.stderr}")

    make("ca", "-subj", "/CN=bench")
    for name, alternative in (("origin", "DNS:payments.internal"), ("caller", "URI:spiffe://bench/caller")):
        leaf = ["-addext", f"subjectAltName={alternative}", "-addext", "basicConstraints=critical,CA:FALSE"]
        make(name, "-subj", f"/CN={name}", "-CA", "ca.pem", "-CAkey", "ca.key", *leaf)
    both = (folder / "caller.pem").read_text() + (folder / "caller.key").read_text()
    (folder / "caller-with-key.pem").write_text(both)
