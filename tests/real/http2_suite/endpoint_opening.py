"""An endpoint that goes wrong before it says anything about a call: RFC 9113 §3.4, §5.1.2, §6.5, §6.8."""

from .endpoint import Case, ok
from .expect import ANYTHING, FLOW_CONTROL, FRAME_SIZE, PROTOCOL, connection_error
from .wire import (
    ACK, ENABLE_PUSH, INITIAL_WINDOW, MAX_FRAME, MAX_STREAMS, SETTINGS, Code, data, frame, goaway, ping, settings,
)

OK, BAD, RESET = ("ok",), ("bad_response",), ("upstream_reset",)
NEVER = ("request_timeout", "connect_timeout")
_NO_HTTP2 = connection_error(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)


def _opens(section, what, opening, told, sees):
    return Case(section, what, [], told, sees, opening=opening)


def _sets(section, what, setting, told):
    return _opens(section, what, settings(setting), told, BAD)


CASES = [
    _opens("3.4", "HTTP/1.1 in answer to the preface", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", _NO_HTTP2, BAD),
    _opens("3.4", "no HTTP at all", b"SSH-2.0-OpenSSH_9.2\r\n", connection_error(*Code), BAD),
    # A proxy that takes it does no harm; the RFC would have it complain.
    Case("3.4", "PING before SETTINGS", [ok], ANYTHING, BAD + OK, opening=ping() + settings()),
    _opens("3.4", "DATA before SETTINGS", data(1, b"x") + settings(), PROTOCOL, BAD),
    _opens("3.4", "no SETTINGS, and no answer", b"", ANYTHING, NEVER),
    Case("3.4", "an endpoint that never reads", [], None, NEVER, opening=b"", deaf=True),
    Case("3.4", "an endpoint that never reads an upload", [], None, NEVER, deaf=True, upload=True),
    Case("3.4", "no SETTINGS, and an answer", [ok], ANYTHING, BAD + NEVER, opening=b""),
    Case("5.1.2", "MAX_CONCURRENT_STREAMS of 0", [], None, (*NEVER, "upstream_reset", "no_endpoints", "bulkhead_full", "ok"),
         opening=settings((MAX_STREAMS, 0))),
    Case("5.1.2", "MAX_CONCURRENT_STREAMS of 1, eight calls", [], None, OK * 8, opening=settings((MAX_STREAMS, 1)), calls=8, limit=1),
    Case("5.1.2", "MAX_CONCURRENT_STREAMS of 3, eight calls", [], None, OK * 8, opening=settings((MAX_STREAMS, 3)), calls=8, limit=3),
    _opens("6.5", "an acknowledgement with a payload", settings() + frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE, BAD),
    _opens("6.5", "SETTINGS on a stream", settings(stream=1), PROTOCOL, BAD),
    _opens("6.5", "SETTINGS of no multiple of 6 octets", frame(SETTINGS, 0, 0, bytes(3)), FRAME_SIZE, BAD),
    # Only a server is forbidden to say so, and only since RFC 9113; whoever takes it does no harm.
    Case("6.5.2", "ENABLE_PUSH of 1", [ok], ANYTHING, BAD + OK, opening=settings((ENABLE_PUSH, 1))),
    _sets("6.5.2", "ENABLE_PUSH of 2", (ENABLE_PUSH, 2), PROTOCOL),
    _sets("6.5.2", "INITIAL_WINDOW_SIZE above 2^31-1", (INITIAL_WINDOW, 1 << 31), FLOW_CONTROL),
    _sets("6.5.2", "MAX_FRAME_SIZE below 2^14", (MAX_FRAME, 16383), PROTOCOL),
    _sets("6.5.2", "MAX_FRAME_SIZE above 2^24-1", (MAX_FRAME, 1 << 24), PROTOCOL),
    Case("6.5.2", "an unknown setting", [ok], None, OK, opening=settings((0xFF, 1))),
    Case("6.5.2", "a header table of 0", [ok], None, OK, opening=settings((1, 0))),
    Case("6.5.2", "a header table of 2^32-1", [ok], None, OK, opening=settings((1, 0xFFFFFFFF))),
    # No new stream may be opened after GOAWAY (6.8); a connection that was left at once may count as a failed connect.
    Case("6.8", "GOAWAY that lets everything through", [ok], None, OK + RESET + ("connect_refused",),
         opening=settings() + goaway((1 << 31) - 1)),
    Case("6.8", "GOAWAY before the first call", [], None, OK + RESET + ("connect_refused",), opening=settings() + goaway(0)),
    Case("6.8", "GOAWAY before the first call, and a close", [None], None, OK + RESET + ("connect_refused",),
         opening=settings() + goaway(0)),
]
