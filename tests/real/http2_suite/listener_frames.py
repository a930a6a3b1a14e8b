"""Each frame's own rules: RFC 9113 §6."""

from . import expect
from .case import GET, MORE, NO_WINDOW, OPEN, OPEN_UNFINISHED, POST, UNFINISHED, Case, request
from .expect import (
    ANSWER, CLOSED_STREAM, FLOW_CONTROL, FRAME_SIZE, MALFORMED, ONE_OCTET, PONG, PROTOCOL, SETTINGS_ACKED,
    SOME_DATA, gone, reset,
)
from .wire import (
    ACK, DATA, ENABLE_PUSH, END_STREAM, HEADERS, INITIAL_WINDOW, MAX_FRAME, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, Code, block, continuation, data, dependency, frame, goaway, ping, priority, rst,
    settings, window_update,
)

_BLOCK = block(GET)
_TOP = (1 << 31) - 1
_PINGED = bytes(range(8))


def _window(size):
    return settings((INITIAL_WINDOW, size))


CASES = [
    Case("6.1", "DATA on stream 0", [data(0, b"test")], PROTOCOL),
    Case("6.1", "DATA on a stream that is not open", [request(POST), data(1, b"test")], CLOSED_STREAM),
    Case("6.1", "DATA with more padding than payload",
         [request([*POST, ("content-length", "4")], flags=OPEN), frame(DATA, END_STREAM | PADDED, 1, b"\x06Test")], PROTOCOL),
    Case("6.2", "HEADERS, then PRIORITY instead of CONTINUATION",
         [request(flags=OPEN_UNFINISHED), priority(1), continuation(1, MORE)], PROTOCOL),
    Case("6.2", "HEADERS, then another stream's instead of CONTINUATION",
         [request(flags=OPEN_UNFINISHED), request(stream=3), continuation(1, MORE)], PROTOCOL),
    Case("6.2", "HEADERS on stream 0", [request(stream=0)], PROTOCOL),
    Case("6.2", "HEADERS with more padding than payload",
         [frame(HEADERS, 0xD, 1, bytes([len(_BLOCK) + 2]) + _BLOCK)], MALFORMED),
    Case("6.3", "PRIORITY on stream 0", [priority(0)], PROTOCOL),
    Case("6.3", "PRIORITY that is too short", [frame(PRIORITY, 0, 1, dependency()[:4])], expect.stream_error(Code.FRAME_SIZE_ERROR)),
    Case("6.4", "RST_STREAM on stream 0", [rst(0)], PROTOCOL),
    Case("6.4", "RST_STREAM on an idle stream", [rst(1)], PROTOCOL),
    Case("6.4", "RST_STREAM that is too short", [request(flags=OPEN), frame(RST_STREAM, 0, 1, bytes(3))], FRAME_SIZE),
    Case("6.5", "an acknowledgement with a payload", [frame(SETTINGS, ACK, 0, bytes(1))], FRAME_SIZE),
    Case("6.5", "SETTINGS on a stream", [settings((3, 100), stream=1)], PROTOCOL),
    Case("6.5", "SETTINGS of no multiple of 6 octets", [frame(SETTINGS, 0, 0, bytes(3))], FRAME_SIZE),
    Case("6.5.2", "ENABLE_PUSH of 2", [settings((ENABLE_PUSH, 2))], PROTOCOL),
    Case("6.5.2", "INITIAL_WINDOW_SIZE above 2^31-1", [_window(1 << 31)], FLOW_CONTROL),
    Case("6.5.2", "MAX_FRAME_SIZE below 2^14", [settings((MAX_FRAME, 16383))], PROTOCOL),
    Case("6.5.2", "MAX_FRAME_SIZE above 2^24-1", [settings((MAX_FRAME, 1 << 24))], PROTOCOL),
    Case("6.5.2", "an unknown setting", [settings((0xFF, 1)), ping()], PONG),
    Case("6.5.3", "INITIAL_WINDOW_SIZE twice",
         [settings((INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)), SETTINGS_ACKED, request()], ONE_OCTET),
    Case("6.5.3", "SETTINGS are acknowledged", [settings((ENABLE_PUSH, 0))], SETTINGS_ACKED),
    Case("6.7", "PING", [ping(_PINGED)], expect.frame("the payload back", lambda f: f.acks and f.payload == _PINGED)),
    # The PING after it is the first to be answered.
    Case("6.7", "PING with ACK", [ping(b"answered", ACK), ping(_PINGED)],
         expect.first("only the other PING's payload", PING, lambda f: f.acks and f.payload == _PINGED)),
    Case("6.7", "PING on a stream", [ping(stream=1)], PROTOCOL),
    Case("6.7", "PING of 6 octets", [frame(PING, 0, 0, bytes(6))], FRAME_SIZE),
    Case("6.8", "GOAWAY on a stream", [goaway(stream=1)], PROTOCOL),
    Case("6.9", "WINDOW_UPDATE of 0 on the connection", [window_update(0, 0)], PROTOCOL),
    Case("6.9", "WINDOW_UPDATE of 0 on a stream", [request(flags=OPEN), window_update(1, 0)], MALFORMED),
    Case("6.9", "WINDOW_UPDATE of 3 octets", [frame(WINDOW_UPDATE, 0, 0, bytes(3))], FRAME_SIZE),
    Case("6.9.1", "no more DATA than a window of 1", [_window(1), SETTINGS_ACKED, request()], ONE_OCTET),
    Case("6.9.1", "the connection's window above 2^31-1", [window_update(0, _TOP), window_update(0, _TOP)],
         gone(Code.FLOW_CONTROL_ERROR)),
    Case("6.9.1", "a stream's window above 2^31-1", [request(flags=OPEN), window_update(1, _TOP), window_update(1, _TOP)],
         reset(1, Code.FLOW_CONTROL_ERROR)),
    Case("6.9.2", "INITIAL_WINDOW_SIZE changes a stream's window",
         [NO_WINDOW, SETTINGS_ACKED, request(), _window(1), SETTINGS_ACKED], ONE_OCTET),
    Case("6.9.2", "a window may become negative",
         [_window(3), SETTINGS_ACKED, request(), SOME_DATA, _window(2), SETTINGS_ACKED, window_update(1, 2)], ONE_OCTET),
    Case("6.9.2", "INITIAL_WINDOW_SIZE of 2^31", [_window(1 << 31)], FLOW_CONTROL),
    Case("6.10", "CONTINUATIONs after HEADERS", [request(flags=UNFINISHED), continuation(1, MORE, 0), continuation(1, MORE)], ANSWER),
    Case("6.10", "CONTINUATION, then something else",
         [request(POST, flags=OPEN_UNFINISHED), continuation(1, MORE, 0), data(1, b"test")], PROTOCOL),
    Case("6.10", "CONTINUATION on stream 0", [request(flags=UNFINISHED), continuation(0, MORE)], PROTOCOL),
    Case("6.10", "CONTINUATION after complete HEADERS", [request(), continuation(1, MORE)], PROTOCOL),
    Case("6.10", "CONTINUATION after the last CONTINUATION",
         [request(flags=UNFINISHED), continuation(1, MORE), continuation(1, MORE)], PROTOCOL),
    Case("6.10", "CONTINUATION after DATA",
         [request(POST, flags=OPEN_UNFINISHED), data(1, b"test"), continuation(1, MORE, 0), continuation(0, MORE)], PROTOCOL),
]
