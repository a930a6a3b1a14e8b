"""Which reactions are accepted. An expectation looks at what comes, one thing after the other, until it can tell.

The tolerance is that of the suites that people compare servers with: where a connection or stream error is called
for, a closed connection will do, since a peer need not send GOAWAY before it (RFC 9113 §5.4.1); and it may make more
of a stream error than it has to (§5.4.2).
"""

import asyncio
from dataclasses import dataclass
from typing import Callable

from .wire import DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, Closed, Code

CLOSED = None  # what stands for the end of the connection


@dataclass(frozen=True)
class Expect:
    """`tell` is given each frame, and CLOSED at the end: True and False decide, None waits for more."""

    what: str
    tell: Callable

    async def on(self, link, seconds):
        """"" if it came to pass on this connection within `seconds`, else what happened instead."""
        begun = len(link.seen)
        try:
            async with asyncio.timeout(seconds):
                while (verdict := self.tell(await link.receive())) is None:
                    pass
            ended = "then"
        except Closed:
            verdict, ended = self.tell(CLOSED), "closed"
        except TimeoutError:
            verdict, ended = False, f"nothing more in {seconds:g} s"
        if verdict:
            return ""
        came = ", ".join(map(str, link.seen[begun:])) or "no frame"
        return f"wanted {self.what}; came {came}; {ended}"


def _named(codes):
    return " or ".join(c.name for c in codes)


def _error(what, kinds, codes):
    def tell(frame):
        if frame is CLOSED:
            return True
        return True if frame.kind in kinds and frame.code in codes else None

    return Expect(f"{what} {_named(codes)}", tell)


def connection_error(*codes):
    """GOAWAY with one of these codes, or the end of the connection."""
    return _error("connection error", (GOAWAY,), codes)


def stream_error(*codes):
    """RST_STREAM or GOAWAY with one of these codes, or the end of the connection."""
    return _error("stream error", (GOAWAY, RST_STREAM), codes)


def frame(what, holds):
    """A frame for which `holds`, before the connection ends."""
    return Expect(what, lambda f: False if f is CLOSED else (True if holds(f) else None))


def first(what, kind, holds):
    """The first frame of a kind is to be one for which `holds`."""
    return Expect(what, lambda f: False if f is CLOSED else (holds(f) if f.kind == kind else None))


def reset(stream, code):
    """RST_STREAM with this very code on this stream."""
    return frame(f"RST_STREAM({code.name}) on {stream}", lambda f: f.kind == RST_STREAM and f.stream == stream and f.code == code)


def gone(code):
    """GOAWAY with this very code: a close alone is not enough."""
    return frame(f"GOAWAY({code.name})", lambda f: f.kind == GOAWAY and f.code == code)


def answer(stream=1):
    return frame(f"an answer on stream {stream}", lambda f: f.kind == HEADERS and f.stream == stream)


ANYTHING = Expect("anything", lambda _: True)
ANSWER = answer()
SETTINGS_FIRST = Expect("SETTINGS before anything else", lambda f: f is not CLOSED and f.kind == SETTINGS and not f.acks)
CLOSE = Expect("the connection closed", lambda f: True if f is CLOSED else None)
GOAWAY_SENT = frame("GOAWAY", lambda f: f.kind == GOAWAY)
PONG = frame("an acknowledged PING", lambda f: f.kind == PING and f.acks)
PONG_OR_CLOSE = Expect("an acknowledged PING, or a close", lambda f: f is CLOSED or (f.kind == PING and f.acks) or None)
SETTINGS_ACKED = first("SETTINGS acknowledged", SETTINGS, lambda f: f.acks)
SOME_DATA = frame("DATA", lambda f: f.kind == DATA)
ONE_OCTET = first("DATA of one octet", DATA, lambda f: len(f.payload) == 1)

PROTOCOL = connection_error(Code.PROTOCOL_ERROR)
FRAME_SIZE = connection_error(Code.FRAME_SIZE_ERROR)
FLOW_CONTROL = connection_error(Code.FLOW_CONTROL_ERROR)
COMPRESSION = connection_error(Code.COMPRESSION_ERROR)
CLOSED_CONNECTION = connection_error(Code.STREAM_CLOSED)
MALFORMED = stream_error(Code.PROTOCOL_ERROR)
CLOSED_STREAM = stream_error(Code.STREAM_CLOSED)
