#!/usr/bin/env python3
"""The compose example of interception on a real Docker engine: an app that knows of no sidecar has one.

The app is busybox's wget; its names come from Docker's DNS, whose own redirect rules stand beside ours in the same
network. Needs what compose.py needs, and a static busybox.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import compose
from compose import IMAGE, ROOT, require, run, wait

APP = f"{IMAGE.split(':')[0]}-app:latest"
DOCKERFILE = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY busybox /bin/wget\nCOPY busybox /bin/sleep\n"


class Stand(compose.Stand):
    """The project of deploy/docker-compose.intercept.yml."""

    def __init__(self, words):
        self.compose = [*words, "-p", compose.PROJECT, "-f", str(ROOT / "deploy/docker-compose.intercept.yml")]
        self.env = {"OUTRIGGER_IMAGE": IMAGE, "APP_IMAGE": APP, "OUTRIGGER_OBSERVE_PORT": "0"}

    def up(self):
        run([*self.compose, "up", "-d", "--scale", "orders=2"], env=self.env, timeout=120)

    def down(self):
        super().down()
        subprocess.run(["docker", "rmi", "-f", APP], capture_output=True)

    def in_app(self, *words):
        return run(["docker", "exec", self.one("app"), *words])

    def get(self, url):
        return self.in_app("wget", "-q", "-O", "-", url)

    def metrics(self):
        return self.get("http://127.0.0.1:8471/metrics")

    def ways(self):
        found = re.findall(r'outrigger_intercepted_total\{way="(\w+)"\} (\d+)', self.metrics())
        return {way: int(count) for way, count in found}

    def gateway(self):
        networks = self.inspect(self.one("sidecar"))["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["Gateway"]

    def state(self, service):
        return self.inspect(self.containers(service, everything=True)[0])["State"]


def main():
    words = compose.engine_or_skip()
    if not (busybox := shutil.which("busybox")):
        sys.exit("FAILED: busybox is not installed (Debian: apt-get install busybox-static)")
    compose.image()
    with tempfile.TemporaryDirectory(prefix="outrigger-image-") as context:
        shutil.copy(busybox, Path(context, "busybox"))
        Path(context, "Dockerfile").write_text(DOCKERFILE)
        run(["docker", "build", "-q", "-t", APP, context], env={"DOCKER_BUILDKIT": "0"})
    compose.hold(Stand(words), CHECKS, "the example of interception")


# ---- checks, in order -------------------------------------------------------------------------------


def the_step_has_ended_well_before_the_app_started(stand):
    state = stand.state("redirect")
    require((state["Status"], state["ExitCode"]) == ("exited", 0), f"the step: {state}")
    require(state["FinishedAt"] < stand.state("app")["StartedAt"], "the app was first")
    require("go to 127.0.0.1:8472" in (said := run(["docker", "logs", stand.containers("redirect", everything=True)[0]])), said)
    return said.strip()


def the_sidecar_has_no_capability(stand):
    status = Path(f"/proc/{stand.state('sidecar')['Pid']}/status").read_text()
    sets = dict(re.findall(r"^(Cap\w+):\t(\w+)$", status, re.MULTILINE))
    # The bounding set too: not even a setuid program could gain one.
    require({sets[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}, f"it has {sets}")
    return "nor could it come by one"


def the_app_calls_by_name_and_is_served(stand):
    before = stand.ways()
    said = {json.loads(stand.get("http://orders:8080/"))["instance"] for _ in range(20)}
    require(said == stand.hostnames("orders"), f"{said} answered")
    require('"payments"' in (answer := stand.get("http://payments:8080/")), answer)
    wait("both to be counted", 10, lambda: calls(stand, "orders") >= 20 and calls(stand, "payments") >= 1)
    grown = stand.ways()["host"] - before["host"]
    require(grown >= 21, f"{grown} connections were known by their Host")
    return f"{grown} connections known by Host"


def by_an_instance_s_address_too(stand):
    before = stand.ways()
    for address in stand.addresses("orders"):
        stand.get(f"http://{address}:8080/")
    grown = stand.ways()["address"] - before["address"]
    require(grown == 2, f"{grown} connections were known by their address")
    return "each of two"


def what_is_no_service_passes(stand):
    """The engine's own host is another host to the app, and no service."""
    before, address = stand.ways(), stand.gateway()
    failed = subprocess.run(
        ["docker", "exec", stand.one("app"), "wget", "-O", "-", f"http://{address}:8080/"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    require(failed.returncode != 0 and "reset" in failed.stderr, f"the host's port 8080: {failed}")
    require(stand.ways()["passed"] == before["passed"] + 1, f"{before} became {stand.ways()}")
    return "and meets a reset where nobody listens"


def a_killed_instance_is_not_noticed(stand):
    run(["docker", "kill", stand.containers("orders")[0]])
    for _ in range(20):
        stand.get("http://orders:8080/")
    return "20 calls, no failure"


def without_the_sidecar_redirected_ports_are_refused_and_others_are_not(stand):
    run(["docker", "kill", stand.one("sidecar")])
    failed = subprocess.run(["docker", "exec", stand.one("app"), "wget", "-q", "-O", "-", "http://orders:8080/"], capture_output=True)
    require(failed.returncode != 0, "a redirected port still answers")
    return "as the page says"


def calls(stand, service):
    found = re.search(rf'outrigger_calls_total\{{outcome="ok",service="{service}"\}} (\d+)', stand.metrics())
    return int(found[1]) if found else 0

CHECKS = [
    the_step_has_ended_well_before_the_app_started,
    the_sidecar_has_no_capability,
    the_app_calls_by_name_and_is_served,
    by_an_instance_s_address_too,
    what_is_no_service_passes,
    a_killed_instance_is_not_noticed,
    without_the_sidecar_redirected_ports_are_refused_and_others_are_not,
]

if __name__ == "__main__":
    main()
