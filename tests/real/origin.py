"""Scripted HTTP/1.1 origins: real listeners in the test's own process, each of which says who it is.

The path tells what the answer is to be: /echo describes the request as JSON, /status/N answers N, /slow/MS takes its
time, /hold waits until the test releases it, /bytes/N is that long, /trailers sends some, /cut promises more than it sends, /reset closes without an answer, /garbage is no HTTP. Any
other path gets a small answer with `x-endpoint: ADDRESS`.
"""

import http.server
import json
import os
import shutil
import socket
import struct
import threading
import time

from stage import ROOT, fetch, free_port


class Origin:
    """An origin on `host:port`; a context manager, and it also ends with the process."""

    def __init__(self, host="127.0.0.1", port=0):
        self.seen = []  # (method, path) of each request, in order of arrival
        self.release = threading.Event()
        self.server = _Server((host, port), _handler(self))
        self.host, self.port = self.server.server_address
        self.address = f"{self.host}:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Stops listening, and closes what is open."""
        self.server.shutdown()
        self.server.server_close()
        self.server.close_connections()


def start_nginx(stage, cpu=None):
    """nginx with one worker as a fast origin: /small and /mib; its port."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not binary:
        raise FileNotFoundError("nginx is not installed (Debian: apt-get install nginx-light)")
    port = free_port()
    (stage.folder / "mib").write_bytes(os.urandom(1 << 20))
    conf = stage.fill(ROOT / "bench/peers/origin.conf", ORIGIN=port)
    argv = [binary, "-p", stage.folder, "-c", conf]
    stage.start_until("origin", argv, lambda: fetch(port, "/small")[0] == 200, cpu=cpu)
    return port


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, *args):
        self.open, self.lock = set(), threading.Lock()
        super().__init__(*args)

    def process_request(self, request, client_address):
        with self.lock:
            self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        with self.lock:
            self.open.discard(request)
        super().shutdown_request(request)

    def close_connections(self):
        with self.lock:
            for s in self.open:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # gone already

    def handle_error(self, request, client_address):
        pass  # callers that go away are part of the play


def _handler(origin):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def do_GET(self):
            origin.seen.append((self.command, self.path))
            # Asked for before the body is read: an uploader that says Expect: 100-continue is waiting.
            first, _, rest = self.path.partition("?")[0].strip("/").partition("/")
            body = self.read_body()
            getattr(self, f"say_{first}", self.say_default)(rest, body)

        do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_GET

        def read_body(self):
            if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
                return self.read_chunked()
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def read_chunked(self):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.trailers = []
            while line := self.rfile.readline().strip():
                self.trailers.append(line.decode("latin-1"))
            return body

        def answer(self, status, body, kind="text/plain", headers=()):
            self.send_response(status)
            self.send_header("x-endpoint", origin.address)
            for k, v in headers:
                self.send_header(k, v)
            if status >= 200 and status not in (204, 304):
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(body)

        def say_default(self, rest, body):
            self.answer(200, f"{origin.address}\n".encode())

        def say_echo(self, rest, body):
            told = {
                "method": self.command,
                "path": self.path,
                "version": self.request_version,
                "headers": [[k.lower(), v] for k, v in self.headers.items()],
                "length": len(body),
                "sum": sum(body) % 65521,
                "trailers": getattr(self, "trailers", []),
            }
            self.answer(200, json.dumps(told).encode(), "application/json")

        def say_status(self, rest, body):
            self.answer(int(rest), b"as asked\n")

        def say_slow(self, rest, body):
            time.sleep(int(rest) / 1000)
            self.answer(200, b"at last\n")

        def say_hold(self, rest, body):
            origin.release.wait(30)
            self.answer(200, b"released\n")

        def say_bytes(self, rest, body):
            self.answer(200, bytes(int(rest)))

        def say_trailers(self, rest, body):
            self.send_response(200)
            self.send_header("x-endpoint", origin.address)
            self.send_header("Trailer", "x-sum")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")

        def say_cut(self, rest, body):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"not a thousand bytes\n")
            self.close_connection = True

        def say_reset(self, rest, body):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def say_garbage(self, rest, body):
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            self.close_connection = True

    return Handler
