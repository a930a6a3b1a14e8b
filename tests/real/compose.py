#!/usr/bin/env python3
"""The compose example on a real Docker engine: found, balanced, and bounded while containers come and go.

What `cargo test` cannot have is Docker itself: its DNS with a record a container, its network namespaces,
its signals. So this takes deploy/docker-compose.yml as a user would, scales it, kills containers while a
caller runs in the app's place, and reads what the caller saw, second by second.

    tests/real/compose.py                        builds the static binary first (some minutes)
    OUTRIGGER_BINARY=PATH tests/real/compose.py  takes this static binary
    OUTRIGGER_REQUIRE_DOCKER=1                   without an engine: exit 1 instead of a skip

Needs docker and docker-compose (or `docker compose`); starts an engine of its own, in a temporary folder,
when it is root and none answers. Every wait is a poll with a deadline. Standard library only.
"""

import atexit
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import clients

ROOT = Path(__file__).resolve().parents[2]
PROJECT = f"outrigger-test-{os.getpid()}"
IMAGE = f"{PROJECT}:latest"
CLIENTS = f"{PROJECT}-clients:latest"
# Docker's answers live for 5 s in the sidecar at most, then an endpoint that the balancer thinks slow has to get
# a call again; the rest is for a slow machine.
SETTLES_IN = 30.0
CALLER_RATE = 50


class Failed(Exception):
    """A check did not hold."""


def main():
    compose = engine_or_skip()
    image()
    clients_image()
    hold(Stand(compose), CHECKS, "the compose example")


def image():
    """Builds the sidecar's image."""
    binary = static_binary()
    with tempfile.TemporaryDirectory(prefix="outrigger-image-") as context:
        shutil.copy(binary, Path(context, "outrigger"))
        Path(context, "run").mkdir()
        build = ["docker", "build", "-q", "-f", str(ROOT / "deploy/Dockerfile.prebuilt"), "-t", IMAGE, context]
        run(build, env={"DOCKER_BUILDKIT": "0"})


def hold(stand, checks, what):
    """Brings a stand up and holds all of these checks against it, in order."""
    try:
        stand.up()
        for check in checks:
            began = time.monotonic()
            found = check(stand)
            print(f"ok   {check.__name__.replace('_', ' ')}: {found} ({time.monotonic() - began:.1f} s)", flush=True)
    except (Failed, subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        stand.print_logs()
        if output := getattr(failure, "stderr", None):
            print(output, file=sys.stderr)
        sys.exit(f"FAILED: {failure}")
    finally:
        stand.down()
    print(f"all {len(checks)} checks of {what} hold")


# ---- checks, in order: each leaves the stand as the next one wants it -------------------------------


def the_sidecar_is_healthy_before_the_app_starts(stand):
    healthy = wait("a healthy sidecar", 60, lambda: stand.inspect(stand.one("sidecar"))["State"]["Health"]["Status"] == "healthy")
    sidecar, app = (stand.inspect(stand.one(name))["State"]["StartedAt"] for name in ("sidecar", "app"))
    require(sidecar < app, f"the app started at {app}, the sidecar at {sidecar}")
    return f"healthy {healthy:.1f} s after compose returned"


def every_container_is_reached(stand):
    for service, containers in (("orders", 3), ("payments", 2)):
        expected = stand.hostnames(service)
        require(len(expected) == containers, f"{service} has {expected}")
        with Caller(stand, service) as caller:
            caller.until(f"an answer of each of {sorted(expected)}", lambda seconds: instances(seconds) == expected)
            since = caller.since(0)
        require(all(map(good, since)), f"{service}: not all calls succeeded: {since}")
    return "3 of orders and 2 of payments, no call failed"


def three_services_answer_by_bare_name_with_nothing_configured(stand):
    app = stand.inspect(stand.one("app"))
    names = [variable for variable in app["Config"]["Env"] or [] if "proxy" in variable.lower()]
    host = app["HostConfig"]
    require(not names and not host["ExtraHosts"] and not host["Dns"], f"the app is told something: {names} {host}")
    totals = stand.call("orders,payments,catalog", seconds=3)
    for service, total in totals.items():
        # catalog fails by turns; what answers for it then is the sidecar.
        answered = total["calls"] > 0 and total["no_answer"] == 0
        require(answered and (service == "catalog" or total["ok"] == total["calls"]), f"{service}: {total}")
    # And programs that we did not write: they ask the system's resolver, and connect to port 80.
    for name in ("orders", "payments", "orders.vip.internal"):
        for client, body in stand.clients(f"http://{name}/").items():
            require(name.split(".")[0] in body, f"{client} gets {body!r} of http://{name}/")
    return ", ".join(f"{service} {total['ok']} of {total['calls']}" for service, total in totals.items())


def the_sidecar_explains_itself(stand):
    sidecar = stand.one("sidecar")
    run(["docker", "exec", sidecar, "/outrigger", "health"])
    explained = run(["docker", "exec", sidecar, "/outrigger", "explain", "orders"])
    for address in stand.addresses("orders"):
        require(address in explained, f"explain does not name {address}:\n{explained}")
    require("orders:8080" in explained, f"explain does not say where endpoints come from:\n{explained}")
    return "health, and explain with every endpoint"


def metrics_can_be_scraped_from_outside(stand):
    port = run(["docker", "port", stand.one("sidecar"), "8471/tcp"]).split()[0].rsplit(":", 1)[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    lines = [line for line in metrics.splitlines() if line.startswith("outrigger_calls_total{") and 'outcome="ok"' in line]
    counted = sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'service="orders"' in line)
    require(counted > 0, f"no call of orders is counted in\n{metrics[:2000]}")
    return f"{counted:.0f} calls of orders counted"


def a_killed_container_costs_calls_for_a_while_only(stand):
    victim = stand.containers("orders")[0]
    return while_calling(stand, 2, lambda: run(["docker", "kill", victim]))


def it_is_back_when_it_starts_again(stand):
    everything = stand.containers("orders", everything=True)
    stopped = next(container for container in everything if not stand.inspect(container)["State"]["Running"])
    return while_calling(stand, 3, lambda: run(["docker", "start", stopped]))


def new_containers_are_picked_up_after_scaling_up(stand):
    return while_calling(stand, 5, lambda: stand.scale("orders", 5))


def old_ones_are_dropped_after_scaling_down(stand):
    return while_calling(stand, 2, lambda: stand.scale("orders", 2))


def while_calling(stand, containers, change):
    """Changes something while a caller of orders runs, and waits until exactly the containers that then run
    answer, for three seconds without a failure.

    Some calls may meet a container in the moment in which it comes or goes: Docker's DNS tells its address before its
    process listens. They are tried elsewhere, so that the caller sees next to none of that.
    """
    with Caller(stand, "orders") as caller:
        mark = caller.mark()
        change()
        expected = stand.hostnames("orders")
        require(len(expected) == containers, f"{expected} run, not {containers}")
        # p2c sends an endpoint that was slow once fewer calls for a while: not each answers in each second.
        settled = caller.until(
            f"three seconds of none but {sorted(expected)} without a failure, and an answer of each",
            lambda seconds: len(seconds) >= 3
            and all(map(good, seconds[-3:]))
            and instances(seconds[-3:]) <= expected <= instances(seconds),
        )
        since = caller.since(mark)
    failed, calls = sum(second["calls"] - second["ok"] for second in since), sum(second["calls"] for second in since)
    require(failed <= calls / 20, f"{failed} of {calls} calls failed while most endpoints were well: {since}")
    return f"settled after {settled:.0f} s (of which 3 s without a failure), {failed} of {calls} calls failed meanwhile"


def the_app_can_restart(stand):
    run(["docker", "restart", "-t", "5", stand.one("app")])
    totals = stand.call("orders", seconds=2)
    require(totals["orders"]["ok"] == totals["orders"]["calls"] > 0, f"after the app's restart: {totals}")
    return "its new process calls as before"


def after_a_restart_of_the_sidecar_the_app_needs_one_too(stand):
    run(["docker", "restart", "-t", "40", stand.one("sidecar")])
    wait("a healthy sidecar", 30, lambda: stand.inspect(stand.one("sidecar"))["State"]["Health"]["Status"] == "healthy")
    # deploy/README.md says so; if Docker should learn better, the page can be shorter.
    totals = stand.call("orders", seconds=2)
    require(totals["orders"]["no_answer"] == totals["orders"]["calls"], f"the app's namespace lives after all: {totals}")
    run(["docker", "restart", "-t", "5", stand.one("app")])
    totals = stand.call("orders", seconds=2)
    require(totals["orders"]["ok"] == totals["orders"]["calls"] > 0, f"after both have restarted: {totals}")
    return "as deploy/README.md says; then calls flow again"


def everything_stops_when_it_is_told_to(stand):
    for container in (stand.containers("payments")[0], stand.one("app")):
        run(["docker", "stop", "-t", "20", container])
        state = stand.inspect(container)["State"]
        require(state["ExitCode"] == 0, f"exit code {state['ExitCode']}: killed rather than stopped?")
    run(["docker", "stop", "-t", "40", stand.one("sidecar")])
    code = stand.inspect(stand.containers("sidecar", everything=True)[0])["State"]["ExitCode"]
    require(code == 0, f"the sidecar's exit code is {code}")
    return "upstream, app and sidecar exit with 0 on SIGTERM"


CHECKS = [
    the_sidecar_is_healthy_before_the_app_starts,
    every_container_is_reached,
    three_services_answer_by_bare_name_with_nothing_configured,
    the_sidecar_explains_itself,
    metrics_can_be_scraped_from_outside,
    a_killed_container_costs_calls_for_a_while_only,
    it_is_back_when_it_starts_again,
    new_containers_are_picked_up_after_scaling_up,
    old_ones_are_dropped_after_scaling_down,
    the_app_can_restart,
    after_a_restart_of_the_sidecar_the_app_needs_one_too,
    everything_stops_when_it_is_told_to,
]


# ---- the stand: the compose project -----------------------------------------------------------------


class Stand:
    """The project of deploy/docker-compose.yml, under a name of its own."""

    def __init__(self, compose):
        self.compose = [*compose, "-p", PROJECT, "-f", str(ROOT / "deploy/docker-compose.yml")]
        # Port 0: the engine finds a free one, so that nothing on this machine is in the way.
        self.env = {"OUTRIGGER_IMAGE": IMAGE, "OUTRIGGER_OBSERVE_PORT": "0"}

    def up(self):
        run([*self.compose, "up", "-d", "--scale", "orders=3", "--scale", "payments=2"], env=self.env, timeout=120)

    def scale(self, service, count):
        up = ["up", "-d", "--no-deps", "--no-recreate", "--scale", f"{service}={count}", service]
        run([*self.compose, *up], env=self.env, timeout=120)

    def down(self):
        subprocess.run([*self.compose, "down", "-v", "--remove-orphans", "-t", "2"], env=environment(self.env), capture_output=True)
        subprocess.run(["docker", "rmi", "-f", IMAGE, CLIENTS], capture_output=True)

    def print_logs(self):
        subprocess.run([*self.compose, "logs", "--tail", "30", "--no-color"], env=environment(self.env), stdout=sys.stderr)

    def containers(self, service, everything=False):
        labels = [f"label=com.docker.compose.project={PROJECT}", f"label=com.docker.compose.service={service}"]
        filters = [word for label in labels for word in ("--filter", label)]
        return run(["docker", "ps", "-q", "--no-trunc", *(["-a"] if everything else []), *filters]).split()

    def one(self, service):
        found = self.containers(service)
        require(len(found) == 1, f"{len(found)} containers of {service} run")
        return found[0]

    def inspect(self, container):
        return json.loads(run(["docker", "inspect", container]))[0]

    def hostname(self, container):
        return self.inspect(container)["Config"]["Hostname"]

    def hostnames(self, service):
        return {self.hostname(container) for container in self.containers(service)}

    def addresses(self, service):
        networks = [self.inspect(container)["NetworkSettings"]["Networks"] for container in self.containers(service)]
        return [network["IPAddress"] for found in networks for network in found.values()]

    def clients(self, url):
        """Gets a URL by each of other people's clients, in the app's network with its hosts file and resolv.conf."""
        inside = ["docker", "run", "--rm", "--network", f"container:{self.one('sidecar')}", CLIENTS]
        return {client: run([*inside, *command]) for client, command in clients.commands(url).items()}

    def caller(self, services):
        # By bare name: http://orders/, as the app does.
        whom = ["--services", services, "--rate", str(CALLER_RATE), "--json"]
        return ["docker", "exec", self.one("app"), "/outrigger", "demo", "caller", *whom]

    def call(self, services, seconds):
        """Calls from within the app's container for so long; what was seen in all, by service."""
        lines = run([*self.caller(services), "--for", f"{seconds}s"], timeout=seconds + 30).splitlines()
        total = json.loads(lines[-1])
        require(total["total"], f"the caller's last line is no total: {lines[-1]}")
        return total["services"]


class Caller:
    """A caller of one service in the app's container that goes on while containers come and go."""

    def __init__(self, stand, service):
        self.service = service
        # It ends by itself when nobody is left to end it: a signal to `docker exec` does not reach it.
        self.command = [*stand.caller(service), "--for", "90s"]
        self.seconds = []
        self.changed = threading.Condition()

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.until("its first calls", lambda seconds: seconds[-1]["calls"] > 0)
        return self

    def __exit__(self, *_):
        # With nobody to read its lines the caller ends at its next one.
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def _read(self):
        for line in self.process.stdout:
            second = json.loads(line)
            with self.changed:
                if not second["total"]:
                    self.seconds.append(second["services"][self.service])
                self.changed.notify_all()

    def mark(self):
        with self.changed:
            return len(self.seconds)

    def since(self, mark):
        with self.changed:
            return self.seconds[mark:]

    def until(self, what, holds):
        """Waits until `holds` of the seconds that come from now on; says how long that took."""
        began, mark = time.monotonic(), self.mark()
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.seconds) > mark and holds(self.seconds[mark:]), SETTLES_IN):
                last = "\n  ".join(map(json.dumps, self.seconds[-20:]))
                raise Failed(f"waited {SETTLES_IN:.0f} s for: {what}; the last seconds were\n  {last}")
        return time.monotonic() - began


def instances(seconds):
    """Everybody who answered in these seconds."""
    return {name for second in seconds for name in second["instances"]}


def good(second):
    """A second with calls, all of which succeeded."""
    return second["calls"] > 0 and second["ok"] == second["calls"]


# ---- the engine and the binary ----------------------------------------------------------------------


def engine_or_skip():
    """Makes sure that an engine answers; the words that run compose."""
    if not shutil.which("docker"):
        skip("there is no docker command")
    compose = next((words for words in (["docker-compose"], ["docker", "compose"]) if works([*words, "version"])), None)
    if compose is None:
        skip("there is neither docker-compose nor docker compose")
    if works(["docker", "info"]):
        return compose
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        skip("no Docker engine answers, and this user cannot start one")
    start_engine()
    return compose


def start_engine():
    """An engine with folders of its own, stopped when this process ends."""
    home = tempfile.mkdtemp(prefix="outrigger-docker-")
    socket, log = f"unix://{home}/docker.sock", open(f"{home}/log", "wb")
    folders = [f"--data-root={home}/data", f"--exec-root={home}/exec", f"--pidfile={home}/pid"]
    engine = subprocess.Popen(["dockerd", "-H", socket, *folders], stdout=log, stderr=log)

    def stop():
        engine.terminate()
        try:
            engine.wait(30)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(stop)
    os.environ["DOCKER_HOST"] = socket
    try:
        wait("the engine", 30, lambda: works(["docker", "info"]) or engine.poll() is not None)
    except Failed:
        pass
    if not works(["docker", "info"]):
        tail = Path(home, "log").read_text(errors="replace").splitlines()[-5:]
        skip("dockerd does not start here:\n  " + "\n  ".join(tail))


def static_binary():
    if given := os.environ.get("OUTRIGGER_BINARY"):
        return given
    target = f"{platform.machine()}-unknown-linux-gnu"
    flags = {"RUSTFLAGS": "-C target-feature=+crt-static"}
    run(["cargo", "build", "--release", "--locked", "--target", target], env=flags, timeout=1800, quiet=False)
    return ROOT / "target" / target / "release/outrigger"


def clients_image():
    with tempfile.TemporaryDirectory(prefix="outrigger-clients-") as context:
        clients.folder(context)
        run(["docker", "build", "-q", "-t", CLIENTS, context], env={"DOCKER_BUILDKIT": "0"}, timeout=300)


def skip(reason):
    print(f"SKIPPED: the compose example was not tested: {reason}", flush=True)
    sys.exit(1 if os.environ.get("OUTRIGGER_REQUIRE_DOCKER") else 0)


# ---- small things -----------------------------------------------------------------------------------


def environment(more):
    return {**os.environ, **(more or {})}


def run(command, env=None, timeout=60, quiet=True):
    """Runs a command in the repository; its output, or CalledProcessError."""
    stderr = subprocess.PIPE if quiet else None
    done = subprocess.run(
        command, env=environment(env), cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=timeout, check=True
    )
    return done.stdout


def works(command):
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wait(what, limit, holds):
    """Polls until it holds; says how long that took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit:
            raise Failed(f"waited {limit} s for {what}")
        time.sleep(0.1)
    return time.monotonic() - began


def require(holds, why):
    if not holds:
        raise Failed(why)


if __name__ == "__main__":
    main()
