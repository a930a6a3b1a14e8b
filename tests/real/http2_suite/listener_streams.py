"""Starting, framing and streams: RFC 9113 §3.4 to §5.5, under the numbers that RFC 7540 gave them."""

from . import expect
from .case import GET, MORE, NO_WINDOW, OPEN, OPEN_UNFINISHED, POST, UNFINISHED, Case, raw_headers, request
from .expect import (
    ANSWER, CLOSE, CLOSED_CONNECTION, CLOSED_STREAM, COMPRESSION, FRAME_SIZE, GOAWAY_SENT, PONG, PROTOCOL,
    SETTINGS_FIRST, stream_error,
)
from .wire import (
    INITIAL_WINDOW, MAX_FRAME, MAX_STREAMS, PING, PREFACE, Code, block, continuation, data, dependency, frame,
    ping, priority, rst, settings, window_update,
)

_ENDED = expect.frame("the end of the answer", lambda f: f.ends)
_UNKNOWN = frame(0x16, payload=bytes(8))
_BAD_PING = frame(PING, stream=3, payload=bytes(8))
_CLOSED_OR_PROTOCOL = expect.stream_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)
_CLOSED_OR_PROTOCOL_ALL = expect.connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


async def _largest_data(link):
    await link.send(request(POST, flags=OPEN), data(1, bytes(min(link.settings.get(MAX_FRAME, 16384), 65535))))


async def _larger_data(link):
    await link.send(request(POST, flags=OPEN), data(1, bytes(link.settings.get(MAX_FRAME, 16384) + 1)))


async def _larger_headers(link):
    size, fields = link.settings.get(MAX_FRAME, 16384), block(GET)
    while len(fields) <= size:
        fields += block([("x-dummy", "0" * 4096)])
    await link.send(raw_headers(fields))


async def _streams_beyond_limit(link):
    limit = link.settings.get(MAX_STREAMS)
    if limit is None:
        raise AssertionError("the peer sets no SETTINGS_MAX_CONCURRENT_STREAMS")
    await link.send(NO_WINDOW, *(request(stream=2 * n + 1) for n in range(limit + 1)))


CASES = [
    Case("3.5", "a client's preface", [PREFACE, settings((INITIAL_WINDOW, 65535))], SETTINGS_FIRST, shakes_hands=False),
    Case("3.5", "no preface", [b"INVALID CONNECTION PREFACE\r\n\r\n"], CLOSE, shakes_hands=False),
    Case("4.1", "a frame of unknown type", [_UNKNOWN, ping()], PONG),
    Case("4.1", "an undefined flag", [ping(flags=0x16)], PONG),
    Case("4.1", "the reserved bit", [ping(stream=1 << 31)], PONG),
    Case("4.2", "DATA of 2^14 octets", [_largest_data], ANSWER),
    Case("4.2", "DATA longer than SETTINGS_MAX_FRAME_SIZE", [_larger_data], stream_error(Code.FRAME_SIZE_ERROR)),
    Case("4.2", "HEADERS longer than SETTINGS_MAX_FRAME_SIZE", [_larger_headers], FRAME_SIZE),
    Case("4.3", "an invalid field block", [raw_headers(b"\x40")], COMPRESSION),
    Case("4.3", "PRIORITY within a field block", [request(flags=OPEN_UNFINISHED), priority(1), continuation(1, MORE)], PROTOCOL),
    Case("4.3", "HEADERS of another stream within a field block",
         [request(flags=OPEN_UNFINISHED), request(stream=3), continuation(1, MORE)], PROTOCOL),
    Case("5.1", "idle: DATA", [data(1, b"test")], PROTOCOL),
    Case("5.1", "idle: RST_STREAM", [rst(1)], PROTOCOL),
    Case("5.1", "idle: WINDOW_UPDATE", [window_update(1, 100)], PROTOCOL),
    Case("5.1", "idle: CONTINUATION", [continuation(1, GET)], PROTOCOL),
    Case("5.1", "half-closed: DATA", [request(), data(1, b"test")], CLOSED_STREAM),
    Case("5.1", "half-closed: HEADERS", [request(), request()], CLOSED_STREAM),
    Case("5.1", "half-closed: CONTINUATION", [request(), continuation(1, GET)], _CLOSED_OR_PROTOCOL),
    Case("5.1", "reset by us: DATA", [request(flags=OPEN), rst(1), data(1, b"test")], CLOSED_STREAM),
    Case("5.1", "reset by us: HEADERS", [request(flags=OPEN), rst(1), request()], CLOSED_STREAM),
    Case("5.1", "reset by us: CONTINUATION", [request(flags=OPEN), rst(1), continuation(1, MORE)], _CLOSED_OR_PROTOCOL),
    Case("5.1", "closed: DATA", [request(), _ENDED, data(1, b"test")], CLOSED_STREAM),
    Case("5.1", "closed: HEADERS", [request(), _ENDED, request()], CLOSED_CONNECTION),
    Case("5.1", "closed: CONTINUATION", [request(), _ENDED, continuation(1, MORE)], _CLOSED_OR_PROTOCOL_ALL),
    Case("5.1.1", "an even stream", [request(stream=2)], PROTOCOL),
    Case("5.1.1", "a lower stream than before", [request(stream=5), request(stream=3)], PROTOCOL),
    Case("5.1.1", "HEADERS on a half-closed stream", [request(stream=5), request(stream=5)], CLOSED_STREAM),
    Case("5.1.2", "a stream more than SETTINGS_MAX_CONCURRENT_STREAMS", [_streams_beyond_limit],
         stream_error(Code.PROTOCOL_ERROR, Code.REFUSED_STREAM)),
    Case("5.3.1", "HEADERS of a stream that depends on itself", [request(priority=dependency(on=1))], expect.MALFORMED),
    Case("5.3.1", "PRIORITY of a stream that depends on itself", [priority(2, on=2)], expect.MALFORMED),
    Case("5.4.1", "an invalid PING: the connection is closed", [_BAD_PING], CLOSE),
    Case("5.4.1", "an invalid PING: GOAWAY comes first", [_BAD_PING], GOAWAY_SENT),
    Case("5.5", "an unknown frame", [_UNKNOWN, ping()], PONG),
    Case("5.5", "an unknown frame within a field block", [request(flags=UNFINISHED), _UNKNOWN], PROTOCOL),
]
