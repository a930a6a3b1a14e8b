"""h2load, on the core for load: HTTP/2 by prior knowledge, so many calls, as fast as they go.

A number of calls and not a time: then each one must be answered before the run ends, and a call that hangs shows (as
a run that never ends) instead of passing for one that the clock cut off. An answer counts when its status is 2xx and
its body is as long as it should be. That catches what a status cannot: gRPC's failures are answers with status 200
and no body.
"""

import re
import subprocess

from peer import LOAD_CORE, find
from seen import Seen, us


def run(name, port, case, seconds, folder):
    """Loads whoever listens on `port`; `name` is theirs, for errors."""
    calls, log = case.pace * seconds, folder / "h2load.log"
    log.unlink(missing_ok=True)
    argv = ["taskset", "-c", str(LOAD_CORE), tool(), f"-n{calls}"]
    argv += [f"-c{case.connections}", f"-m{case.streams}", f"--log-file={log}", f"--connect-to=127.0.0.1:{port}"]
    argv += [*_message(case, folder), f"http://{case.service}{case.path}"]
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=20 * seconds + 30)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"h2load against {name}: some of {calls} calls have no answer: {case.title}") from None
    if p.returncode != 0:
        raise RuntimeError(f"h2load against {name}: {p.stdout}{p.stderr}")
    took = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    return parse(p.stdout, len(case.answer), took)


def parse(text, length, took):
    """Reads what h2load prints; `length` of each body, and how long each call `took` in microseconds, sorted."""
    calls, right = map(int, re.search(r"requests: (\d+) total, .* (\d+) succeeded", text).groups())
    if right == 0:
        raise RuntimeError(f"h2load got no good answer at all:\n{text}")
    data = int(re.search(r"\((\d+)\) data", text)[1])
    short = -(-abs(right * length - data) // length)
    return Seen(
        calls=calls,
        errors=calls - right + short,
        seconds=us(re.search(r"finished in ([\d.]+\w+)", text)[1]) / 1e6,
        p50_us=took[len(took) // 2],
        p99_us=took[len(took) * 99 // 100],
    )


def check(port, case, folder):
    """What is wrong with the answer to one call, or nothing."""
    argv = [looker(), "-nv", "-t5", "-H", f":authority: {case.service}"]
    argv += [*_message(case, folder), f"http://127.0.0.1:{port}{case.path}"]
    p = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    wanted = [":status: 200"] + (["grpc-status: 0"] if case.message else [])
    for line in wanted:
        if not re.search(rf"recv \(stream_id=\d+\) {line}$", p.stdout, re.MULTILINE):
            return f"no {line!r} in the answer:\n{p.stdout[-2000:]}{p.stderr}"
    length = sum(map(int, re.findall(r"recv DATA frame <length=(\d+)", p.stdout)))
    if length != len(case.answer):
        return f"a body of {length} bytes:\n{p.stdout[-2000:]}"
    return None


def tool():
    return find("h2load", package="nghttp2-client")


def looker():
    return find("nghttp", package="nghttp2-client")


def _message(case, folder):
    """What makes a gRPC call of it; both tools take the same options."""
    if not case.message:
        return []
    path = folder / "message"
    path.write_bytes(case.message)
    return ["-d", str(path), "-H", "content-type: application/grpc", "-H", "te: trailers"]
