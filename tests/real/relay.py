"""A TCP relay between a client and a server that counts connections and bytes, and can cut what goes through it."""

import contextlib
import socket
import threading


class Relay:
    """Relays connections to 127.0.0.1:`port`. A context manager; `address` is where it listens."""

    def __init__(self, port):
        self.port = port
        self.accepted = self.up = self.down = 0
        self._open, self._lock = set(), threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self):
        """Ends each connection, both halves at once."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as server:
            server.settimeout(None)
            for one in client, server:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            back = threading.Thread(target=self._copy, args=(server, client, "down"), daemon=True)
            back.start()
            self._copy(client, server, "up")
            back.join()
            with self._lock:
                self._open -= {client, server}

    def _copy(self, source, to, way):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                with self._lock:
                    setattr(self, way, getattr(self, way) + len(piece))
                to.sendall(piece)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)
