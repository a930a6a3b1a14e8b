"""wrk, on the core for load: HTTP/1.1, so long, as fast as it goes."""

import re
import subprocess

from peer import LOAD_CORE, find, real
from seen import Seen, us


def run(name, port, case, seconds, _folder):
    """Loads whoever listens on `port`; `name` is theirs, for errors."""
    argv = ["taskset", "-c", str(LOAD_CORE), tool(), "-t1", f"-c{case.connections}", f"-d{seconds}s", "--latency"]
    argv += ["--timeout", "5s", "-H", f"Host: {case.service}"] + (["-H", "Connection: close"] if case.close else [])
    p = subprocess.run(
        argv + [f"http://127.0.0.1:{port}{case.path}"], capture_output=True, text=True, timeout=seconds + 30
    )
    if p.returncode != 0:
        raise RuntimeError(f"wrk against {name}: {p.stdout}{p.stderr}")
    return parse(p.stdout)


def parse(text):
    """Reads what wrk prints."""
    calls, elapsed = re.search(r"(\d+) requests in ([\d.]+\w+)", text).groups()
    errors = [int(n) for n in re.findall(r"(?:connect|read|write|timeout|Non-2xx or 3xx responses:?) ?(\d+)", text)]
    if int(calls) == 0:
        raise RuntimeError(f"wrk got no answer at all:\n{text}")
    return Seen(
        calls=int(calls),
        errors=sum(errors),
        seconds=us(elapsed) / 1e6,
        p50_us=us(re.search(r"50%\s+([\d.]+\w+)", text)[1]),
        p99_us=us(re.search(r"99%\s+([\d.]+\w+)", text)[1]),
    )


def check(port, case, _folder):
    """What is wrong with the answer to one call, or nothing."""
    status, _, body = real.fetch(port, case.path, host=case.service)
    return f"status {status}: {body[:200]!r}" if status != 200 else None


def tool():
    return find("wrk", package="wrk")
