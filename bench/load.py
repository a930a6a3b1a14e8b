"""What is measured: the cases, and one run of one of them against one peer.

Each case keeps every connection, or every stream of it, busy with one call at a time, so requests per second and
latency are two views of one thing (a closed loop). CPU per call is what compares proxies; the others say what it is
worth here. `wrk` makes the load of HTTP/1.1, `h2load` that of HTTP/2.
"""

import dataclasses

import accounts
import h2load
import wrk

# What every origin says at /small; nginx has it in its configuration.
SMALL = b"a small answer, as most are\n"


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of load."""

    title: str
    connections: int
    service: str = "orders"
    path: str = "/small"
    http2: bool = False
    streams: int = 1  # calls at a time on each connection
    pace: int = 0  # calls per second of measuring, where a run is so many calls and not so long
    close: bool = False  # each call on a connection of its own
    message: bytes = b""  # a gRPC message, framed, that is sent and comes back
    secure: bool = False  # from the peer on, TLS that shows certificates both ways
    targets: tuple = ()  # ((another peer, the most that outrigger may cost in shares of its CPU per call), …)

    @property
    def answer(self):
        """The body that comes back, in cases of HTTP/2."""
        return self.message or SMALL

    def includes(self, name):
        """Whether that peer can do this: nginx has no HTTP/2 to the origin, and without a proxy nobody adds TLS."""
        return not (self.http2 and name == "nginx" or self.secure and name == "no proxy")


def _framed(message):
    """Length-prefixed, not compressed (gRPC over HTTP/2, "Length-Prefixed-Message")."""
    return b"\0" + len(message).to_bytes(4, "big") + message


_TEXT = b"a small message, as most are"
# Field 1, a string, as a protocol compiler writes it.
GREETING = _framed(b"\x0a" + bytes([len(_TEXT)]) + _TEXT)

ON_HTTP2 = (("haproxy", 1.10), ("envoy", 0.70))
ON_GRPC = (("envoy", 0.70),)
ON_TLS = (("envoy", 1.00),)

CASES = [
    Case("Keep-alive, 1 connection", 1),
    Case("Keep-alive, 64 connections", 64),
    Case("A new connection per call, 8 at a time", 8, close=True),
    Case("1 MiB bodies, 8 connections", 8, path="/mib"),
    Case("HTTP/2, 1 connection, 1 stream", 1, "users", http2=True, pace=3000, targets=ON_HTTP2),
    Case("HTTP/2, 8 connections, 16 streams each", 8, "users", http2=True, streams=16, pace=25000, targets=ON_HTTP2),
    Case(
        "Unary gRPC, 8 connections, 16 streams each",
        8,
        "greeter",
        path="/outrigger.bench.Greeter/Greet",
        http2=True,
        streams=16,
        pace=20000,
        message=GREETING,
        targets=ON_GRPC,
    ),
    Case("HTTP/1.1 to the peer, mTLS on, 64 connections", 64, "payments", secure=True, targets=ON_TLS),
    Case(
        "HTTP/2 to the peer, mTLS on, 8 connections, 16 streams each",
        8,
        "ledger",
        http2=True,
        streams=16,
        pace=20000,
        secure=True,
        targets=ON_TLS,
    ),
    Case("A whole mTLS handshake per call, 8 at a time", 8, "payments", path="/close", secure=True, targets=ON_TLS),
]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run of one case against one peer."""

    calls: int
    errors: int
    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float | None  # per call; None where there is no proxy
    busy: float | None  # share of its core that the proxy used


def tools():
    """An error where one of the programs that make the load is not there."""
    wrk.tool(), h2load.tool(), h2load.looker()


def run(peer, case, seconds, folder):
    """Loads `peer` for about so many whole seconds; `folder` is for what the load has to write."""
    program = peer.program
    before = accounts.cpu_ns(program.pid) if program else 0
    tool = h2load if case.http2 else wrk
    seen = tool.run(peer.name, peer.port(case), case, seconds, folder)
    used = accounts.cpu_ns(program.pid) - before if program else 0
    return Sample(
        calls=seen.calls,
        errors=seen.errors,
        per_second=seen.calls / seen.seconds,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        cpu_us=used / 1e3 / seen.calls if program else None,
        busy=used / 1e9 / seen.seconds if program else None,
    )


def check(peer, case, folder):
    """One call, looked at closely; an error says what is wrong with the answer.

    The load counts statuses and bytes; that an answer has its trailer is seen here.
    """
    tool = h2load if case.http2 else wrk
    if wrong := tool.check(peer.port(case), case, folder):
        raise RuntimeError(f"{peer.name}: {case.title}: {wrong}")
