"""What every server has to take: the frames as they are meant, and each representation of HPACK."""

from . import expect
from .case import GET, HEAD, NO_WINDOW, OPEN, POST, TRAILERS, UNFINISHED, Case, request
from .expect import ANSWER, CLOSE, PONG, PONG_OR_CLOSE, SETTINGS_ACKED, SETTINGS_FIRST, SOME_DATA
from .wire import PREFACE, block, continuation, data, dependency, goaway, ping, priority, rst, settings, window_update

_MORE = [("x-dummy0", "0" * 1000)]
_ENDED = expect.frame("the end of the answer", lambda f: f.ends)

# What follows a request's block: user-agent or x-test as each representation of RFC 7541 §6 writes it, its strings
# plain or by Huffman code (§5.2, appendix B).
_AGENT, _AGENT_CODED = b"\x0auser-agent", b"\x87\xb5\x05\xb1\x61\xcc\x5a\x93"
_AGENT_INDEX = {0x40: b"\x7a", 0x00: b"\x0f\x2b", 0x10: b"\x1f\x2b"}  # 58 in a prefix of 6 and of 4 bits
_NAME, _NAME_CODED = b"\x06x-test", b"\x85\xf2\xb2\x4a\x84\xff"
_VALUE, _VALUE_CODED = b"\x04test", b"\x83\x49\x50\x9f"


def _hpack(what, tail=b"", head=b""):
    return Case("generic/5", what, [request(head + block(GET) + tail)], ANSWER)


def _literals():
    for first, kind in ((0x40, "with incremental indexing"), (0x00, "without indexing"), (0x10, "never indexed")):
        index, new = _AGENT_INDEX[first], bytes([first])
        yield _hpack(f"a literal {kind}, indexed name", index + _VALUE)
        yield _hpack(f"a literal {kind}, indexed name, Huffman code", index + _VALUE_CODED)
        yield _hpack(f"a literal {kind}, new name", new + _NAME + _VALUE)
        yield _hpack(f"a literal {kind}, new name, Huffman code", new + _NAME_CODED + _VALUE_CODED)


CASES = [
    Case("generic/1", "a connection preface", [PREFACE, settings()], SETTINGS_FIRST, shakes_hands=False),
    Case("generic/2", "PRIORITY on an idle stream", [priority(1), ping()], PONG),
    Case("generic/2", "WINDOW_UPDATE on a half-closed stream", [NO_WINDOW, request(), window_update(1, 1)], SOME_DATA),
    Case("generic/2", "PRIORITY on a half-closed stream", [NO_WINDOW, request(), priority(1), window_update(1, 1)], SOME_DATA),
    Case("generic/2", "RST_STREAM on a half-closed stream", [request(), rst(1), ping()], PONG_OR_CLOSE),
    Case("generic/2", "PRIORITY on a closed stream", [request(), _ENDED, priority(1), ping()], PONG),
    Case("generic/3.1", "a DATA frame", [request(POST, flags=OPEN), data(1, b"test")], ANSWER),
    Case("generic/3.1", "DATA frames", [request(POST, flags=OPEN), data(1, b"test", 0), data(1, b"test")], ANSWER),
    Case("generic/3.1", "DATA with padding", [request(POST, flags=OPEN), data(1, b"test", pad=6)], ANSWER),
    Case("generic/3.2", "a HEADERS frame", [request()], ANSWER),
    Case("generic/3.2", "HEADERS with padding", [request(pad=6)], ANSWER),
    Case("generic/3.2", "HEADERS with priority", [request(priority=dependency())], ANSWER),
    Case("generic/3.3", "PRIORITY with weight 1", [priority(1, weight=0), request()], ANSWER),
    Case("generic/3.3", "PRIORITY with weight 256", [priority(1, weight=255), request()], ANSWER),
    Case("generic/3.3", "PRIORITY with a dependency", [priority(3, on=1, weight=0), request()], ANSWER),
    Case("generic/3.3", "PRIORITY, exclusive", [priority(1, weight=0, exclusive=True), request()], ANSWER),
    Case("generic/3.3", "PRIORITY of an idle stream, then HEADERS of a lower one", [priority(3), request()], ANSWER),
    Case("generic/3.4", "RST_STREAM", [request(flags=OPEN), rst(1), ping()], PONG_OR_CLOSE),
    Case("generic/3.5", "SETTINGS", [settings((3, 100))], SETTINGS_ACKED),
    Case("generic/3.7", "PING", [ping(b"pingpong")], expect.frame("the PING's payload back", lambda f: f.acks and f.payload == b"pingpong")),
    Case("generic/3.8", "GOAWAY", [goaway(0, 0, b"bye")], CLOSE),
    Case("generic/3.9", "WINDOW_UPDATE of the connection", [NO_WINDOW, window_update(0, 1), request(), window_update(1, 1)], SOME_DATA),
    Case("generic/3.9", "WINDOW_UPDATE of a stream", [NO_WINDOW, request(), window_update(1, 1)], SOME_DATA),
    Case("generic/3.10", "a CONTINUATION", [request(flags=UNFINISHED), continuation(1, _MORE)], ANSWER),
    Case("generic/3.10", "CONTINUATIONs", [request(flags=UNFINISHED), continuation(1, _MORE, 0), continuation(1, _MORE)], ANSWER),
    Case("generic/4", "GET", [request(GET)], ANSWER),
    Case("generic/4", "HEAD", [request(HEAD)], ANSWER),
    Case("generic/4", "POST", [request(POST, flags=OPEN), data(1, b"test")], ANSWER),
    Case("generic/4", "POST with trailers", [request(POST, flags=OPEN), data(1, b"test", 0), request(TRAILERS)], ANSWER),
    _hpack("an indexed field", b"\xba"),
    *_literals(),
    _hpack("a table size update", head=b"\x20"),
    _hpack("table size updates", head=b"\x20\x3f\xe1\x1f"),
]
