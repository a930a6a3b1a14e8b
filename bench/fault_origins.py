"""Three endpoints that do what they are told: each a listening socket on the caller's own event loop."""

import asyncio
import random
import socket

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ERROR = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"


class Endpoint:
    """One endpoint; `mode` is how it behaves from now on."""

    def __init__(self, loop, seed):
        self.loop, self.random = loop, random.Random(seed)
        self.mode, self.asked, self.open, self.stuffing = "ok", 0, set(), []
        self.listener = None
        self.port = 0
        self._listen()

    def _listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        self.listener.listen(4)
        self.listener.setblocking(False)
        self.loop.add_reader(self.listener, self._accept)

    def _accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                self.loop.create_task(self.loop.connect_accepted_socket(lambda: Connection(self), connection))
        except (BlockingIOError, ConnectionAbortedError):
            pass

    def become(self, mode):
        """`ok`, `hang`, `503`, `30%`, `20%`, `reset`, `cut`, `3s`, `200ms`, `down` (refuses), `gone` (swallows packets)."""
        before, self.mode = self.mode, mode
        if before in ("down", "gone") and mode != before:
            self._revive(before)
        if mode == "down":
            self.loop.remove_reader(self.listener)
            self.listener.close()
            for connection in list(self.open):
                connection.transport.abort()
        if mode == "gone":
            # Nobody accepts, and the backlog is full: the kernel drops what else comes, as a dead host would.
            self.loop.remove_reader(self.listener)
            for _ in range(8):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", self.port))
                self.stuffing.append(s)

    def _revive(self, before):
        for s in self.stuffing:
            s.close()
        self.stuffing.clear()
        if before == "gone":
            self.loop.remove_reader(self.listener)
            self.listener.close()
        self._listen()

    def close(self):
        self.become("ok")
        self.loop.remove_reader(self.listener)
        self.listener.close()
        for connection in list(self.open):
            connection.transport.abort()


class Connection(asyncio.Protocol):
    """One connection to an endpoint; requests have no bodies."""

    def __init__(self, endpoint):
        self.endpoint, self.buffer = endpoint, b""

    def connection_made(self, transport):
        self.transport = transport
        self.endpoint.open.add(self)

    def connection_lost(self, _error):
        self.endpoint.open.discard(self)

    def data_received(self, data):
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            # HAProxy's own checks are no calls; they meet the same fault.
            self.endpoint.asked += b" /health " not in head.split(b"\r\n", 1)[0]
            self._answer()

    def _answer(self):
        e, t = self.endpoint, self.transport
        share = {"30%": 0.3, "20%": 0.2, "503": 1.0}.get(e.mode, 0.0)
        if e.mode in ("hang", "gone"):
            return
        if e.mode == "reset":
            t.abort()
        elif e.mode == "cut":
            t.write(CUT)
            t.close()
        elif e.mode in ("3s", "200ms"):
            e.loop.call_later(3.0 if e.mode == "3s" else 0.2, lambda: t.is_closing() or t.write(ANSWER))
        else:
            t.write(ERROR if share and e.random.random() < share else ANSWER)
