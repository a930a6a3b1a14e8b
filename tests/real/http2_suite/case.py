"""What a case of the app's side is made of, and the requests that all of them are variations of."""

from dataclasses import dataclass

from .expect import Expect
from .wire import END_HEADERS, END_STREAM, INITIAL_WINDOW, frame, headers, settings

SERVICE = "orders"
GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", SERVICE)]
HEAD, POST = ([(":method", method), *GET[1:]] for method in ("HEAD", "POST"))
TRAILERS = [("x-test", "ok")]
# A field more in a CONTINUATION; it is never the first of its block.
MORE = [("x-dummy0", "0")]

# Flags of a HEADERS frame by what it leaves open.
WHOLE = END_HEADERS | END_STREAM
OPEN = END_HEADERS
UNFINISHED = END_STREAM
OPEN_UNFINISHED = 0

# Keeps the peer from finishing an answer, so that its stream stays half-closed.
NO_WINDOW = settings((INITIAL_WINDOW, 0))


@dataclass(frozen=True)
class Case:
    """`steps` are bytes to send, reactions to wait for, and functions of the connection that do either."""

    section: str
    what: str
    steps: list
    expect: Expect
    shakes_hands: bool = True

    @property
    def name(self):
        return f"{self.section} {self.what}"


def request(fields=GET, stream=1, flags=WHOLE, **how):
    return headers(stream, fields, flags, **how)


def less(fields, *names):
    return [f for f in fields if f[0] not in names]


def raw_headers(payload, flags=WHOLE, stream=1):
    """HEADERS with a payload that may be anything."""
    return frame(1, flags, stream, payload)
