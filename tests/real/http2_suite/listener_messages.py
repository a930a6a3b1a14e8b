"""Requests as HTTP sees them, and how HPACK can be broken: RFC 9113 §7 and §8, RFC 7541."""

from .case import GET, OPEN, POST, TRAILERS, Case, less, request
from .expect import CLOSE, COMPRESSION, MALFORMED, PONG, PROTOCOL
from .wire import TABLE_SIZE, block, data, goaway, integer, ping, push_promise, rst

_POSTING = [request(POST, flags=OPEN), data(1, b"test", 0)]
_SHORT = request([*POST, ("content-length", "1")], flags=OPEN)


def _malformed(section, what, fields):
    return Case(section, what, [request(fields)], MALFORMED)


def _hpack(section, what, tail):
    return Case(section, what, [request(block(GET) + tail)], COMPRESSION)


async def _larger_table(link):
    await link.send(request(integer(link.settings.get(TABLE_SIZE, 4096) + 1, 5, 0x20) + block(GET)))


def _empty_path(fields):
    return [(name, "" if name == ":path" else value) for name, value in fields]


CASES = [
    Case("7", "GOAWAY with an unknown code", [goaway(0, 0xFF)], CLOSE),
    Case("7", "RST_STREAM with an unknown code", [request(POST, flags=OPEN), rst(1, 0xFF), ping()], PONG),
    Case("8.1", "HEADERS after DATA without END_STREAM", [*_POSTING, request(TRAILERS, flags=OPEN)], MALFORMED),
    _malformed("8.1.2", "an upper-case field name", [*GET, ("X-TEST", "ok")]),
    _malformed("8.1.2.1", "an unknown pseudo-header", [*GET, (":test", "ok")]),
    _malformed("8.1.2.1", "an answer's pseudo-header", [*GET, (":status", "200")]),
    Case("8.1.2.1", "a pseudo-header in trailers", [*_POSTING, request([(":method", "POST")], flags=OPEN)], MALFORMED),
    _malformed("8.1.2.1", "a pseudo-header after a field", [("x-test", "ok"), *GET]),
    _malformed("8.1.2.2", "a connection-specific field", [*GET, ("connection", "keep-alive")]),
    _malformed("8.1.2.2", "TE of more than trailers", [*GET, ("trailers", "test"), ("te", "trailers, deflate")]),
    _malformed("8.1.2.3", "an empty :path", _empty_path(GET)),
    _malformed("8.1.2.3", "no :method", less(GET, ":method")),
    _malformed("8.1.2.3", "no :scheme", less(GET, ":scheme")),
    _malformed("8.1.2.3", "no :path", less(GET, ":path")),
    _malformed("8.1.2.3", ":method twice", [*GET, GET[0]]),
    _malformed("8.1.2.3", ":scheme twice", [*GET, GET[1]]),
    _malformed("8.1.2.3", ":path twice", [*GET, GET[2]]),
    Case("8.1.2.6", "content-length of other than the DATA", [_SHORT, data(1, b"test")], MALFORMED),
    Case("8.1.2.6", "content-length of other than all DATA", [_SHORT, data(1, b"test", 0), data(1, b"test")], MALFORMED),
    Case("8.2", "PUSH_PROMISE", [push_promise(1, 2, GET)], PROTOCOL),
    _hpack("hpack/2.3.3", "an indexed field that is in no table", b"\xfe"),
    _hpack("hpack/2.3.3", "a literal whose name is in no table", b"\x7e\x04test"),
    _hpack("hpack/4.2", "a table size update at the end of a block", b"\x21"),
    _hpack("hpack/5.2", "Huffman code with more than 7 bits of padding", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
    _hpack("hpack/5.2", "Huffman code padded with zeros", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
    _hpack("hpack/5.2", "Huffman code with EOS in it", b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\xff\xff\xff\xfd\x25\x42\x7f"),
    _hpack("hpack/6.1", "an indexed field with index 0", b"\x80"),
    Case("hpack/6.3", "a table size above SETTINGS_HEADER_TABLE_SIZE", [_larger_table], COMPRESSION),
]
