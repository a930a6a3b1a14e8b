"""An endpoint whose frames are wrong in themselves, or on the wrong stream: RFC 9113 §4, §5.1, §6, RFC 7541.

`_instead` sends them where the answer should have been, `_then` an answer with them after it.
"""

from .endpoint import HEAD, Case, ok
from .expect import ANYTHING, COMPRESSION, FLOW_CONTROL, FRAME_SIZE, MALFORMED, PROTOCOL, connection_error, stream_error
from .wire import (
    CONTINUATION, DATA, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW, MAX_FRAME, PADDED, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, Code, block, continuation, data, frame, goaway, headers, ping, priority, push_promise, rst,
    settings, window_update,
)

OK, BAD = ("ok",), ("bad_response",)
_TOP = (1 << 31) - 1
_HEAD = block(HEAD)
_CLOSED = stream_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)
_CALM = connection_error(Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, Code.COMPRESSION_ERROR, Code.INTERNAL_ERROR)


def _instead(section, what, step, told, sees=BAD, **how):
    return Case(section, what, [step], told, sees, **how)


def _then(section, what, step, told=None, sees=OK, **how):
    return Case(section, what, [lambda s: ok(s) + step(s)], told, sees, **how)


def _first(section, what, step):
    """Frames before the answer that are no reason to complain."""
    return Case(section, what, [lambda s: step(s) + ok(s)], None, OK)


def _hpack(section, what, tail, head=b""):
    return _instead(section, what, lambda s: headers(s, head + _HEAD + tail), COMPRESSION)


async def _larger_data(link, stream):
    await link.send(headers(stream, HEAD, 0x4), data(stream, bytes(link.settings.get(MAX_FRAME, 16384) + 1)))


async def _larger_headers(link, stream):
    size = link.settings.get(MAX_FRAME, 16384) + 1 - len(_HEAD)
    await link.send(headers(stream, _HEAD + block([("x-long", "0" * size)])))


async def _larger_table(link, stream):
    await link.send(headers(stream, b"\x3f\xff\xff\xff\x0f" + _HEAD))


CASES = [
    _first("4.1", "a frame of unknown type", lambda s: frame(0x16, 0xFF, s, b"what")),
    _first("4.1", "a frame of unknown type on a stream of nobody's", lambda s: frame(0x16, 0, s + 10, b"what")),
    _instead("4.2", "DATA longer than our SETTINGS_MAX_FRAME_SIZE", _larger_data, stream_error(Code.FRAME_SIZE_ERROR), ("cut", *BAD)),
    _instead("4.2", "HEADERS longer than our SETTINGS_MAX_FRAME_SIZE", _larger_headers, FRAME_SIZE),
    _instead("4.3", "an invalid field block", lambda s: headers(s, b"\x40"), COMPRESSION),
    _instead("4.3", "DATA within a field block", lambda s: headers(s, HEAD, 0) + data(s, b"x"), PROTOCOL),
    _instead("4.3", "PING within a field block", lambda s: headers(s, HEAD, 0) + ping() + continuation(s, b""), PROTOCOL),
    _instead("4.3", "an unknown frame within a field block", lambda s: headers(s, HEAD, 0) + frame(0x16), PROTOCOL),
    _instead("4.3", "another stream's CONTINUATION within a field block", lambda s: headers(s, HEAD, 0) + continuation(s + 2, b""), PROTOCOL),
    _instead("5.1", "DATA on an idle stream", lambda s: data(s + 2, b"x"), PROTOCOL),
    _instead("5.1", "HEADERS on an idle stream", lambda s: headers(s + 2, HEAD), PROTOCOL),
    _instead("5.1", "RST_STREAM on an idle stream", lambda s: rst(s + 2), PROTOCOL),
    _instead("5.1", "WINDOW_UPDATE on an idle stream", lambda s: window_update(s + 2, 1), PROTOCOL),
    _first("5.1", "PRIORITY on an idle stream", lambda s: priority(s + 2)),
    _instead("5.1", "DATA on a stream of the endpoint's", lambda s: data(2, b"x"), PROTOCOL),
    _instead("5.1", "HEADERS on a stream of the endpoint's", lambda s: headers(2, HEAD), PROTOCOL),
    _instead("5.1", "RST_STREAM on a stream of the endpoint's", lambda s: rst(2), PROTOCOL),
    _then("5.1", "DATA after END_STREAM", lambda s: data(s, b"more"), _CLOSED),
    _then("5.1", "HEADERS after END_STREAM", lambda s: headers(s, HEAD), _CLOSED),
    _then("5.1", "WINDOW_UPDATE after END_STREAM", lambda s: window_update(s, 1)),
    _then("5.1", "RST_STREAM after END_STREAM", lambda s: rst(s, Code.NO_ERROR)),
    _then("5.1", "PRIORITY after END_STREAM", lambda s: priority(s)),
    _instead("5.1", "HEADERS after RST_STREAM", lambda s: rst(s) + headers(s, HEAD), ANYTHING, ("upstream_reset",)),
    _instead("6.1", "DATA on stream 0", lambda s: data(0, b"x"), PROTOCOL),
    _instead("6.1", "DATA with more padding than payload",
             lambda s: headers(s, HEAD, 0x4) + frame(DATA, END_STREAM | PADDED, s, b"\x06Test"), PROTOCOL, ("cut", *BAD)),
    _first("6.2", "HEADERS with padding", lambda s: headers(s, [(":status", "103")], 0x4, pad=9)),
    _instead("6.2", "HEADERS on stream 0", lambda s: headers(0, HEAD), PROTOCOL),
    _instead("6.2", "HEADERS with more padding than payload", lambda s: frame(HEADERS, 0xD, s, b"\xff" + _HEAD), MALFORMED),
    _instead("6.3", "PRIORITY on stream 0", lambda s: priority(0), PROTOCOL),
    _instead("6.3", "PRIORITY of 4 octets", lambda s: frame(PRIORITY, 0, s, bytes(4)), stream_error(Code.FRAME_SIZE_ERROR)),
    _instead("6.4", "RST_STREAM on stream 0", lambda s: rst(0), PROTOCOL),
    _instead("6.4", "RST_STREAM of 3 octets", lambda s: frame(RST_STREAM, 0, s, bytes(3)), FRAME_SIZE),
    _instead("6.5", "SETTINGS on the call's stream", lambda s: settings(stream=s), PROTOCOL),
    _instead("6.5", "SETTINGS of 5 octets", lambda s: frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
    _instead("6.6", "PUSH_PROMISE, which we forbade", lambda s: push_promise(s, 2, HEAD), PROTOCOL),
    _instead("6.6", "PUSH_PROMISE of a stream of ours", lambda s: push_promise(s, s + 2, HEAD), PROTOCOL),
    _instead("6.7", "PING on a stream", lambda s: ping(stream=s), PROTOCOL),
    _instead("6.7", "PING of 6 octets", lambda s: frame(PING, 0, 0, bytes(6)), FRAME_SIZE),
    _first("6.7", "PING with ACK that answers none", lambda s: ping(b"unasked.", 1)),
    _instead("6.8", "GOAWAY on a stream", lambda s: goaway(stream=s), PROTOCOL),
    _instead("6.8", "GOAWAY of 4 octets", lambda s: frame(GOAWAY, 0, 0, bytes(4)), FRAME_SIZE),
    _instead("6.9", "WINDOW_UPDATE of 0 on the connection", lambda s: window_update(0, 0), PROTOCOL),
    _instead("6.9", "WINDOW_UPDATE of 0 on the call's stream", lambda s: window_update(s, 0), MALFORMED, upload=True),
    _instead("6.9", "WINDOW_UPDATE of 3 octets", lambda s: frame(WINDOW_UPDATE, 0, s, bytes(3)), FRAME_SIZE),
    _instead("6.9.1", "the connection's window above 2^31-1", lambda s: window_update(0, _TOP) * 2, FLOW_CONTROL),
    _instead("6.9.1", "a stream's window above 2^31-1", lambda s: window_update(s, _TOP) * 2, stream_error(Code.FLOW_CONTROL_ERROR), upload=True),
    _instead("6.9.2", "INITIAL_WINDOW_SIZE that makes a window too large",
             lambda s: window_update(s, _TOP - 65535) + settings((INITIAL_WINDOW, _TOP)), FLOW_CONTROL, upload=True),
    _instead("6.10", "CONTINUATION of nothing", lambda s: continuation(s, HEAD), PROTOCOL),
    _instead("6.10", "CONTINUATION on stream 0", lambda s: headers(s, HEAD, 0) + continuation(0, b""), PROTOCOL),
    _instead("6.10", "CONTINUATION after complete HEADERS", lambda s: headers(s, HEAD, 0x4) + continuation(s, b""), PROTOCOL, ("cut", *BAD)),
    _instead("6.10", "CONTINUATIONs without an end", lambda s: headers(s, HEAD, 0) + frame(CONTINUATION, 0, s) * 10_000, _CALM),
    _instead("6.10", "CONTINUATIONs of 32 MiB", lambda s: headers(s, HEAD, 0) + continuation(s, block([("x-long", "0" * 16000)]), 0) * 2000, _CALM),
    _hpack("hpack/2.3.3", "an indexed field that is in no table", b"\xfe"),
    _hpack("hpack/4.2", "a table size update at the end of a block", b"\x21"),
    _hpack("hpack/5.2", "Huffman code with EOS in it", b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\xff\xff\xff\xfd\x25\x42\x7f"),
    _hpack("hpack/6.1", "an indexed field with index 0", b"\x80"),
    _instead("hpack/6.3", "a table larger than we allow", _larger_table, COMPRESSION),
]
