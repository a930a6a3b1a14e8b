"""A server of bytes that are no HTTP, and how to speak with it."""

import hashlib
import socket
import struct
import threading


class Raw:
    """A server that greets if it is told to, keeps what it hears to the end, and answers with its sum."""

    def __init__(self, ip, port, greeting=b""):
        self.greeting, self.heard, self.errors = greeting, [], []
        self.socket = socket.create_server((ip, port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            threading.Thread(target=self.talk, args=[self.socket.accept()[0]], daemon=True).start()

    def talk(self, s):
        with s:
            try:
                s.sendall(self.greeting)
                heard = b""
                while piece := s.recv(1 << 16):
                    heard += piece
                    if heard == b"reset me":
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if heard == b"end first":
                        s.shutdown(socket.SHUT_WR)
                self.heard.append(heard)
                if not heard.endswith(b"end first"):
                    s.sendall(hashlib.sha256(heard).digest() + heard)
            except OSError as e:
                self.errors.append(e)


def to_the_end(s):
    said = b""
    while piece := s.recv(1 << 16):
        said += piece
    return said


def exchange(s, sent):
    """Says this, and nothing more; all that is answered."""
    with s:
        threading.Thread(target=ended, args=[lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR))], daemon=True).start()
        return to_the_end(s)


def ended(act):
    """How an act on a socket ends: an error's name, or what came of it."""
    try:
        return act()
    except OSError as e:
        return type(e).__name__
