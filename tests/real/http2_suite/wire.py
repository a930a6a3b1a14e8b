"""Frames as bytes (RFC 9113 §4 and §6), and a connection that sends them as they are.

Nothing here refuses to build what the RFC forbids: that is the point. Header blocks are written without state
(literals, no table, no Huffman code), so that they are constants; what a peer sends is decoded by `hpack`.
"""

import asyncio
import enum
import socket
import struct
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
KINDS = "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
# Settings (§6.5.2).
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADER_LIST = range(1, 7)


class Code(enum.IntEnum):
    """Error codes (§7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """Any frame; `length` overrides the true one."""
    size = struct.pack(">I", len(payload) if length is None else length)[1:]
    return size + struct.pack(">BBI", kind, flags, stream) + payload


def data(stream, payload=b"", flags=END_STREAM, pad=None):
    if pad is not None:
        flags, payload = flags | PADDED, bytes([pad]) + payload + bytes(pad)
    return frame(DATA, flags, stream, payload)


def headers(stream, fields, flags=END_HEADERS | END_STREAM, pad=None, priority=None):
    """HEADERS with these fields, a list of pairs, or with a block of bytes as it is."""
    payload = fields if isinstance(fields, bytes) else block(fields)
    if priority is not None:
        flags, payload = flags | PRIORITIZED, priority + payload
    if pad is not None:
        flags, payload = flags | PADDED, bytes([pad]) + payload + bytes(pad)
    return frame(HEADERS, flags, stream, payload)


def continuation(stream, fields, flags=END_HEADERS):
    return frame(CONTINUATION, flags, stream, fields if isinstance(fields, bytes) else block(fields))


def dependency(on=0, weight=255, exclusive=False):
    """The five octets of a PRIORITY (RFC 7540 §6.3)."""
    return struct.pack(">IB", on | (exclusive << 31), weight)


def priority(stream, on=0, weight=255, exclusive=False):
    return frame(PRIORITY, 0, stream, dependency(on, weight, exclusive))


def rst(stream, code=Code.CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(*pairs, flags=0, stream=0):
    return frame(SETTINGS, flags, stream, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


SETTINGS_ACK = frame(SETTINGS, ACK)


def push_promise(stream, promised, fields, flags=END_HEADERS):
    return frame(PUSH_PROMISE, flags, stream, struct.pack(">I", promised) + block(fields))


def ping(payload=bytes(8), flags=0, stream=0):
    return frame(PING, flags, stream, payload)


def goaway(last=0, code=Code.NO_ERROR, debug=b"", stream=0):
    return frame(GOAWAY, 0, stream, struct.pack(">II", last, code) + debug)


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def integer(value, prefix, first=0):
    """An integer behind a prefix of so many bits (RFC 7541 §5.1)."""
    top = (1 << prefix) - 1
    if value < top:
        return bytes([first | value])
    out, value = bytearray([first | top]), value - top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def literal(name, value, kind=0x00):
    """A literal field with a new name (RFC 7541 §6.2): not indexed, or 0x40 indexed, 0x10 never indexed."""
    name, value = (s if isinstance(s, bytes) else s.encode("latin-1") for s in (name, value))
    return bytes([kind]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


class Frame(NamedTuple):
    """A frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self):
        """The error code of a RST_STREAM or GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")

    @property
    def ends(self):
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def acks(self):
        return self.kind in (SETTINGS, PING) and bool(self.flags & ACK)

    def pairs(self):
        """What a SETTINGS frame sets."""
        return dict(struct.iter_unpack(">HI", self.payload[: len(self.payload) // 6 * 6]))

    def __str__(self):
        name = KINDS[self.kind] if self.kind < len(KINDS) else f"type {self.kind}"
        if self.kind in (RST_STREAM, GOAWAY):
            code = Code(self.code).name if self.code in iter(Code) else hex(self.code)
            return f"{name}({code}" + (f" on {self.stream})" if self.stream else ")")
        told = [str(self.stream)] * bool(self.stream) + [f"{len(self.payload)} B"] + ["ACK"] * self.acks + ["END"] * self.ends
        return f"{name}({', '.join(told)})"


class Closed(ConnectionError):
    """The peer closed the connection, or reset it."""


class Link:
    """One end of a connection. SETTINGS are acknowledged as they come, PINGs too; all else is the test's.

    It stands on a bare socket, because a stream of asyncio forgets what was said before a reset, and that is what a
    test wants to know of somebody who hangs up.
    """

    def __init__(self, sock):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.turn, self.buffer = sock, asyncio.Lock(), bytearray()
        self.seen = []  # each frame that came, in order
        self.settings = {}  # what the peer has set
        self.answering = True  # whether SETTINGS and PING are acknowledged
        self.taken = True  # whether the peer still takes what is sent

    @classmethod
    async def open(cls, port):
        link = cls(socket.socket())
        await asyncio.get_running_loop().sock_connect(link.sock, ("127.0.0.1", port))
        return link

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()

    def close(self):
        self.taken = False
        self.sock.close()

    def hang_up(self):
        """Closes the connection while somebody may be reading from it."""
        self.taken = False
        self.sock.shutdown(socket.SHUT_RDWR)

    async def send(self, *frames):
        """Writes these bytes. A peer that has closed already is no error here: what it said is still to be read."""
        async with self.turn:
            try:
                if self.taken:
                    await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(frames))
            except OSError:
                self.taken = False

    async def exactly(self, count):
        """So many bytes; Closed where the connection ends before."""
        await self._fill(count)
        out = bytes(self.buffer[:count])
        del self.buffer[:count]
        return out

    async def _fill(self, count):
        while len(self.buffer) < count:
            try:
                came = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
            except OSError as e:
                raise Closed from e
            if not came:
                raise Closed
            self.buffer += came

    async def receive(self):
        """The next frame; Closed where there is none. Nothing is lost when it is cancelled."""
        await self._fill(9)
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        await self._fill(end)
        kind, flags, stream = struct.unpack_from(">BBI", self.buffer, 3)
        frame = Frame(kind, flags, stream & 0x7FFFFFFF, bytes(self.buffer[9:end]))
        del self.buffer[:end]
        self.seen.append(frame)
        if frame.kind == SETTINGS and not frame.acks:
            self.settings.update(frame.pairs())
        if self.answering and frame.kind == SETTINGS and not frame.acks:
            await self.send(SETTINGS_ACK)
        if self.answering and frame.kind == PING and not frame.acks:
            await self.send(ping(frame.payload, ACK))
        return frame

    async def until(self, holds):
        """Reads on to the first frame for which `holds`; Closed where none comes."""
        while not holds(frame := await self.receive()):
            pass
        return frame

    async def handshake(self, *pairs):
        """The app's side of §3.4; returns when the peer has sent its SETTINGS and acknowledged these."""
        await self.send(PREFACE, settings(*(pairs or ((INITIAL_WINDOW, 65535),))))
        waiting = {False, True}
        while waiting:
            frame = await self.until(lambda f: f.kind == SETTINGS)
            waiting.discard(frame.acks)
