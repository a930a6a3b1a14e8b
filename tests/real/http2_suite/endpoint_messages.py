"""An endpoint whose answers are no HTTP, or end before they are whole: RFC 9113 §6.4, §6.8, §7, §8."""

from .endpoint import BARRIER, HEAD, Case, ok
from .expect import ANYTHING, MALFORMED, PROTOCOL, Expect, stream_error
from .wire import RST_STREAM, Code, data, goaway, headers, ping, rst, settings

OK, BAD, RESET, CUT = ("ok",), ("bad_response",), ("upstream_reset",), ("cut",)
LATE = ("request_timeout",)
# A head that was passed on before the rest proved wrong cannot be taken back.
BAD_OR_CUT = ("bad_response", "cut")
OPEN = 0x4
_CANCELLED = Expect("RST_STREAM, or a close", lambda f: f is None or f.kind == RST_STREAM or None)
_STATUS = (":status", "200")


def _malformed(section, what, fields, **how):
    return Case(section, what, [lambda s: headers(s, fields, OPEN) + data(s, b"hello")], MALFORMED, BAD, **how)


def _body(section, what, fields, *frames, sees=BAD_OR_CUT):
    """A head with these fields more, then (payload, ends) each as DATA, or trailers."""
    def step(s):
        return headers(s, [*HEAD, *fields], OPEN) + b"".join(f(s) for f in frames)

    return Case(section, what, [step], MALFORMED, sees)


def _head(s):
    return headers(s, HEAD, OPEN)


def _part(s):
    """A head, and some of its body."""
    return _head(s) + data(s, b"hel", 0)


def _resets():
    for code in [*Code, 0xFF]:
        name = code.name if isinstance(code, Code) else "an unknown code"
        # A refused stream was not looked at (8.7): it is sent again, and no retry of the service's policy.
        sees = OK if code == Code.REFUSED_STREAM else RESET
        yield Case("7", f"RST_STREAM({name}) before the head", [lambda s, c=code: rst(s, c)], None, sees)
        yield Case("7", f"RST_STREAM({name}) within the body",
                   [_part, BARRIER, lambda s, c=code: rst(s, c)], None, CUT)


CASES = [
    _malformed("8.1.1", "no :status", HEAD[1:]),
    _malformed("8.1.1", ":status twice", [_STATUS, *HEAD]),
    _malformed("8.1.1", ":status that is no number", [(":status", "abc")]),
    _malformed("8.1.1", ":status of two digits", [(":status", "20")]),
    _malformed("8.1.1", "an empty :status", [(":status", "")]),
    _malformed("8.1.1", ":status 099", [(":status", "099")]),
    _malformed("8.3", "an unknown pseudo-header", [_STATUS, (":test", "ok")]),
    # To be malformed by the RFC. A proxy that passes over them, and passes none of them on, does no harm.
    Case("8.3", "a request's pseudo-header", [lambda s: headers(s, [*HEAD, (":path", "/")], OPEN) + data(s, b"hello")], ANYTHING, BAD + OK),
    _malformed("8.3", "a pseudo-header after a field", [("x-test", "ok"), _STATUS]),
    _malformed("8.2", "an upper-case field name", [*HEAD, ("X-Test", "ok")]),
    _malformed("8.2.1", "an empty field name", [*HEAD, ("", "ok")]),
    _malformed("8.2.1", "a field name with a space", [*HEAD, ("x test", "ok")]),
    _malformed("8.2.1", "a field name with a colon", [*HEAD, ("x:test", "ok")]),
    _malformed("8.2.1", "a line break in a value", [*HEAD, ("x-test", "ok\r\nx-smuggled: yes")]),
    _malformed("8.2.1", "a NUL in a value", [*HEAD, ("x-test", "o\0k")]),
    _malformed("8.2.2", "connection", [*HEAD, ("connection", "close")]),
    _malformed("8.2.2", "transfer-encoding", [*HEAD, ("transfer-encoding", "chunked")]),
    _malformed("8.2.2", "keep-alive", [*HEAD, ("keep-alive", "timeout=1")]),
    _malformed("8.2.2", "upgrade", [*HEAD, ("upgrade", "h2c")]),
    _malformed("8.6", "101", [(":status", "101")]),
    Case("8.1", "DATA before HEADERS", [lambda s: data(s, b"hello", 0) + ok(s)], PROTOCOL, BAD),
    Case("8.1", "103, then the answer", [lambda s: headers(s, [(":status", "103")], OPEN) + ok(s)], None, OK),
    # The stream is closed then: nothing is left to reset.
    Case("8.1", "103 that ends the stream", [lambda s: headers(s, [(":status", "103")])], ANYTHING, BAD),
    Case("8.1", "DATA after 103", [lambda s: headers(s, [(":status", "103")], OPEN) + data(s, b"hello")], PROTOCOL, BAD),
    Case("8.1", "5000 times 103", [lambda s: headers(s, [(":status", "103")], OPEN) * 5000 + ok(s)], ANYTHING, (*OK, *BAD, *RESET)),
    _body("8.1", "HEADERS after DATA without END_STREAM", [], lambda s: data(s, b"hello", 0) + headers(s, [("x-test", "ok")], OPEN)),
    Case("8.1", "a pseudo-header in trailers",
         [lambda s: _head(s) + data(s, b"hello", 0) + headers(s, [_STATUS])], ANYTHING, BAD_OR_CUT + OK),
    _body("8.1", "an upper-case name in trailers", [], lambda s: data(s, b"hello", 0) + headers(s, [("X-Test", "ok")])),
    Case("8.1", "trailers", [lambda s: _head(s) + data(s, b"hello", 0) + headers(s, [("x-test", "ok")])], None, OK),
    _body("8.1.1", "content-length of more than the DATA", [("content-length", "10")], lambda s: data(s, b"hello")),
    _body("8.1.1", "content-length of less than the DATA", [("content-length", "3")], lambda s: data(s, b"hello")),
    _body("8.1.1", "content-length of less than all DATA", [("content-length", "3")], lambda s: data(s, b"hel", 0) + data(s, b"lo"),
          sees=(*BAD_OR_CUT, "status 200")),
    _body("8.1.1", "content-length and no DATA", [("content-length", "5")], lambda s: data(s)),
    _malformed("8.1.1", "two content-lengths that differ", [*HEAD, ("content-length", "5"), ("content-length", "6")]),
    _malformed("8.1.1", "a content-length that is no number", [*HEAD, ("content-length", "five")]),
    _malformed("8.1.1", "a content-length with a sign", [*HEAD, ("content-length", "+5")]),
    Case("8.1", "an answer before the upload is there", [lambda s: ok(s) + rst(s, Code.NO_ERROR)], None, OK, upload=True),
    *_resets(),
    Case("6.4", "RST_STREAM twice", [lambda s: rst(s) * 2], None, RESET),
    Case("7", "RST_STREAM of one call leaves the other alone", [lambda a, b: rst(a) + ok(b)], None, RESET + OK, calls=2),
    Case("8.1.1", "a malformed answer leaves the other call alone",
         [lambda a, b: headers(a, HEAD[1:], OPEN) + ok(b)], MALFORMED, BAD + OK, calls=2),
    Case("7", "RST_STREAM of fifty calls at once", [lambda *all: b"".join(map(rst, all))], None, RESET * 50, calls=50),
    Case("8.1.1", "fifty malformed answers at once", [lambda *all: b"".join(headers(s, HEAD[1:], OPEN) for s in all)], MALFORMED, BAD * 50, calls=50),
    Case("6.8", "GOAWAY above the call, then the answer", [lambda s: goaway(s) + ok(s)], None, OK),
    Case("6.8", "GOAWAY within the body, then the rest",
         [_part, goaway, BARRIER, lambda s: data(s, b"lo")], None, OK),
    Case("6.8", "GOAWAY twice, then the answer", [lambda s: goaway((1 << 31) - 1) + ping() + goaway(s) + ok(s), None], None, OK),
    Case("6.8", "GOAWAY below the call", [lambda s: goaway(s - 1)], None, OK),
    Case("6.8", "GOAWAY below the call, then a close", [lambda s: goaway(s - 1), None], None, OK),
    # What was sent of it may be gone by then.
    Case("6.8", "GOAWAY below an upload", [lambda s: goaway(s - 1)], None, OK + RESET, upload=True),
    Case("6.8", "GOAWAY between two calls", [lambda a, b: goaway(min(a, b)) + ok(min(a, b))], None, OK * 2, calls=2),
    Case("6.8", "GOAWAY with an error, then a close", [lambda s: goaway(s, Code.INTERNAL_ERROR), None], None, RESET),
    Case("6.8", "GOAWAY with an error within the body, then a close",
         [_part, BARRIER, lambda s: goaway(s, Code.INTERNAL_ERROR), None], None, CUT),
    Case("5.4", "a close before the head", [None], None, RESET),
    Case("5.4", "a close after the head", [_head, BARRIER, None], None, CUT),
    Case("5.4", "a close within the body", [_part, BARRIER, None], None, CUT),
    Case("5.4", "a close within a frame", [_part, BARRIER, lambda s: data(s, bytes(100))[:50], None], None, CUT),
    Case("5.4", "a close within a field block", [lambda s: headers(s, HEAD, 0), None], None, RESET),
    Case("5.4", "an app that takes no part of the body", [lambda s: _head(s) + data(s, bytes(16000))], None, CUT, reads=False, apps=("http2",)),
    Case("5.4", "an app that goes away before the head", [], _CANCELLED, (), leaves=True),
    Case("5.4", "an app that goes away within an upload", [], _CANCELLED, (), leaves=True, upload=True),
    Case("5.4", "no answer", [], _CANCELLED, LATE),
    Case("5.4", "no end of the body", [_part], _CANCELLED, CUT),
    Case("6.7", "5000 PINGs, then the answer", [lambda s: ping() * 5000 + ok(s)], ANYTHING, (*OK, *BAD, *RESET)),
    Case("6.5", "5000 SETTINGS, then the answer", [lambda s: settings((3, 100)) * 5000 + ok(s)], ANYTHING, (*OK, *BAD, *RESET)),
    Case("6.1", "5000 empty DATA, then the end", [lambda s: _head(s) + data(s, b"", 0) * 5000 + data(s, b"hello")], ANYTHING, (*OK, *BAD_OR_CUT)),
]


async def _more_than_the_window(link, stream):
    for _ in range(2000):
        await link.send(data(stream, bytes(16384), 0))


CASES.append(
    Case("6.9", "32 MiB of DATA into a window that nobody opens", [_head, BARRIER, _more_than_the_window],
         stream_error(Code.FLOW_CONTROL_ERROR), CUT, reads=False, apps=("http2",))
)
