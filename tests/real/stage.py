"""Where real programs meet: free ports, a temporary folder, and processes that never outlive the test.

A `Stage` is a context manager. Whatever was started on it is stopped when it is left, on every path: a failed
check, an exception, an interrupt, a SIGTERM from the runner. Programs lead sessions of their own, so that their
children go with them. Nothing here knows what is tested; `bench/` stands on the same stage.

The sidecar under test is `$OUTRIGGER_BIN`, else `target/release/outrigger` of this checkout.
"""

import contextlib
import http.client
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

_given = set()


def free_port():
    """A port on 127.0.0.1 that nobody has, by TCP or UDP, and that this process has not handed out before.

    It lies below the range that the kernel picks from for outgoing connections, so that no client of a busy test
    can take it between now and the moment when its owner binds it; and it is drawn at random, so that tests that
    run at the same time do not choose the same.
    """
    for _ in range(1000):
        port = random.randrange(10000, _first_ephemeral())
        if port in _given:
            continue
        with socket.socket(type=socket.SOCK_STREAM) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            # As servers do: a port in TIME_WAIT is free.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port left")


def _first_ephemeral():
    try:
        return int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32768


def wait_until(what, probe, seconds=10.0):
    """Asks `probe` until it returns something true, and returns that; an error names `what` after `seconds`."""
    end = time.monotonic() + seconds
    last = None
    while True:
        try:
            if answer := probe():
                return answer
        except (OSError, http.client.HTTPException) as e:
            last = e
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}" + (f" ({last})" if last else ""))
        time.sleep(0.02)


def happens(probe, seconds=10.0):
    """Whether `probe` comes to return something true within `seconds`."""
    try:
        return bool(wait_until("", probe, seconds))
    except TimeoutError:
        return False


def fetch(port, path="/", host=None, method="GET", body=None, headers=None, timeout=10.0):
    """One call on a connection of its own: (status, headers by lower-case name, body)."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request(method, path, body=body, headers={"Host": host or f"127.0.0.1:{port}", **(headers or {})})
        r = c.getresponse()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
    finally:
        c.close()


class Program:
    """A running program, its log beside it."""

    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, seconds):
        """The exit code; TimeoutExpired after `seconds`."""
        return self.popen.wait(seconds)

    def tail(self, lines=20):
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def stop(self, seconds=3.0):
        """Asks, then insists; takes the whole session along."""
        if self.alive():
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()


class Stage:
    """A temporary folder and the programs that were started in it."""

    def __init__(self):
        self.programs = []

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="outrigger-"))
        self.folder.chmod(0o755)
        # A plain SIGTERM would skip the clean-up.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _: sys.exit(128 + n))
        return self

    def __exit__(self, *_):
        for p in reversed(self.programs):
            p.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name, text):
        """A file in the stage's folder; replaced whole, never seen half-written."""
        path, fresh = self.folder / name, self.folder / (name + ".new")
        fresh.write_text(text)
        fresh.rename(path)
        return path

    def fill(self, template, **values):
        """Writes a template's copy with each @NAME@ filled in (@FOLDER@ is the stage's own); its path."""
        text = template.read_text()
        for key, value in {"FOLDER": self.folder, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        if left := re.search(r"@[A-Z]+@", text):
            raise ValueError(f"{template}: nothing to fill {left[0]} with")
        return self.write(template.name, text)

    def start(self, name, argv, cpu=None, **popen):
        """Starts a program in the stage's folder, pinned to core `cpu` if one is given."""
        argv = [str(a) for a in argv]
        if cpu is not None:
            argv = ["taskset", "-c", str(cpu), *argv]
        log = self.folder / f"{name}-{len(self.programs)}.log"
        with open(log, "wb") as out:
            how = {"cwd": self.folder, "stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT, **popen}
            p = subprocess.Popen(argv, start_new_session=True, **how)
        program = Program(name, p, log)
        self.programs.append(program)
        return program

    def start_until(self, name, argv, probe, seconds=10.0, **popen):
        """Starts a program and returns when `probe` is true; its log is in the error if it never is."""
        program = self.start(name, argv, **popen)

        def ready():
            if not program.alive():
                raise RuntimeError(f"{name} ended with {program.popen.returncode}:\n{program.tail()}")
            return probe()

        try:
            wait_until(f"{name} is ready", ready, seconds)
        except TimeoutError as e:
            raise TimeoutError(f"{e}\n{program.tail()}") from None
        return program

    def outrigger(self, services, extra="", cpu=None, name="outrigger"):
        """Starts the sidecar with these `services:` (YAML, unindented) and waits until it listens."""
        return Outrigger(self, services, extra, cpu, name)


class Outrigger:
    """The sidecar under test. It listens when this exists; whether it is *ready* is the test's to ask."""

    def __init__(self, stage, services, extra, cpu, name):
        self.stage, self.extra, self.name = stage, extra, name
        self.http, self.observe = free_port(), free_port()
        self.admin = stage.folder / f"{name}.sock"
        self.config = stage.folder / f"{name}.yaml"
        self.configure(services)
        self.program = stage.start_until(
            name, [binary(), "run", "-c", self.config], lambda: fetch(self.observe, "/health/live")[0] == 200, cpu=cpu
        )

    def configure(self, services):
        """Writes the config file; a running sidecar sees it at its next reload."""
        indented = "\n".join("  " + line for line in services.strip("\n").splitlines())
        listen = f"listen: {{http: 127.0.0.1:{self.http}, observe: 127.0.0.1:{self.observe}, admin: {self.admin}}}"
        self.stage.write(f"{self.name}.yaml", f"{listen}\n{self.extra.strip()}\nservices:\n{indented}\n")

    def wait_ready(self, seconds=10.0):
        wait_until("the sidecar is ready", lambda: fetch(self.observe, "/health/ready")[0] == 200, seconds)
        return self

    def fetch(self, service, path="/", **how):
        return fetch(self.http, path, host=service, **how)

    def command(self, *argv, seconds=10):
        """Runs one of the sidecar's other commands against it: (exit code, output)."""
        argv = [str(a) for a in (binary(), argv[0], "-c", self.config, *argv[1:])]
        p = subprocess.run(argv, capture_output=True, text=True, timeout=seconds)
        return p.returncode, p.stdout + p.stderr

    def metric(self, name, **labels):
        """The sum of a metric's samples that bear these labels; 0.0 when there is none."""
        total = 0.0
        for line in fetch(self.observe, "/metrics")[2].decode().splitlines():
            bare, _, rest = line.partition("{" if "{" in line else " ")
            if bare == name and all(f'{k}="{v}"' in rest for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total


def binary():
    """The sidecar under test."""
    path = pathlib.Path(os.environ.get("OUTRIGGER_BIN") or ROOT / "target/release/outrigger")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"no sidecar at {path}: run `cargo build --release`, or set OUTRIGGER_BIN")
    return path.resolve()


def cache():
    """Where what was fetched is kept between runs: `$OUTRIGGER_TEST_CACHE`, else a folder in the user's cache."""
    default = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "outrigger-tests"
    folder = pathlib.Path(os.environ.get("OUTRIGGER_TEST_CACHE") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def venv(name, packages):
    """A virtual environment with these packages, kept in the cache; FileNotFoundError where it cannot be made."""
    folder = cache() / f"venv-{name}"
    stamp = folder / "complete"
    if stamp.exists() and stamp.read_text() == repr(packages):
        return folder
    for argv in ([sys.executable, "-m", "venv", "--clear", folder], [folder / "bin/pip", "install", "-q", *packages]):
        p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=300)
        if p.returncode != 0:
            raise FileNotFoundError(f"cannot install {', '.join(packages)}: {(p.stdout + p.stderr).strip()[-400:]}")
    stamp.write_text(repr(packages))
    return folder
