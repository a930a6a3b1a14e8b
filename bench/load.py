"""The load: wrk, on its own core, and what it says it saw.

wrk keeps each connection busy with one call at a time, so requests per second and latency are two views of one
thing (a closed loop). CPU per call is what compares proxies; the others say what it is worth here.
"""

import dataclasses
import re
import shutil
import subprocess

import accounts
from peer import LOAD_CORE, SERVICE


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of load."""

    title: str
    connections: int
    path: str = "/small"
    close: bool = False  # each call on a connection of its own


CASES = [
    Case("Keep-alive, 1 connection", 1),
    Case("Keep-alive, 64 connections", 64),
    Case("A new connection per call, 8 at a time", 8, close=True),
    Case("1 MiB bodies, 8 connections", 8, path="/mib"),
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


def run(peer, case, seconds):
    """Loads `peer` for so many whole seconds."""
    argv = ["taskset", "-c", str(LOAD_CORE), wrk(), "-t1", f"-c{case.connections}", f"-d{seconds}s", "--latency"]
    argv += ["--timeout", "5s", "-H", f"Host: {SERVICE}"] + (["-H", "Connection: close"] if case.close else [])
    before = accounts.cpu_ns(peer.program.pid) if peer.program else 0
    p = subprocess.run(
        argv + [f"http://127.0.0.1:{peer.port}{case.path}"], capture_output=True, text=True, timeout=seconds + 30
    )
    used = accounts.cpu_ns(peer.program.pid) - before if peer.program else 0
    if p.returncode != 0:
        raise RuntimeError(f"wrk against {peer.name}: {p.stdout}{p.stderr}")
    return parse(p.stdout, used if peer.program else None)


def parse(text, cpu_ns):
    """Reads what wrk prints."""
    calls, elapsed = re.search(r"(\d+) requests in ([\d.]+\w+)", text).groups()
    calls, seconds = int(calls), _us(elapsed) / 1e6
    errors = [int(n) for n in re.findall(r"(?:connect|read|write|timeout|Non-2xx or 3xx responses:?) ?(\d+)", text)]
    if calls == 0:
        raise RuntimeError(f"wrk got no answer at all:\n{text}")
    return Sample(
        calls=calls,
        errors=sum(errors),
        per_second=calls / seconds,
        p50_us=_us(re.search(r"50%\s+([\d.]+\w+)", text)[1]),
        p99_us=_us(re.search(r"99%\s+([\d.]+\w+)", text)[1]),
        cpu_us=None if cpu_ns is None else cpu_ns / 1e3 / calls,
        busy=None if cpu_ns is None else cpu_ns / 1e9 / seconds,
    )


def _us(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]


def wrk():
    path = shutil.which("wrk")
    if not path:
        raise FileNotFoundError("wrk is not installed (Debian: apt-get install wrk)")
    return path
