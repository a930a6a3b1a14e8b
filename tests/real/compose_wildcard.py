#!/usr/bin/env python3
"""The compose example without a list of services, on a real Docker engine: names, and containers that come and go.

Docker's own DNS asks the sidecar's responder for what it does not know, and the sidecar asks Docker's DNS for what it
does not know: neither may go round in circles, whatever the order in which things restart. Needs what compose.py needs.
"""

import json
import subprocess
import time
from pathlib import Path

import clients
import compose
from compose import CLIENTS, Caller, IMAGE, PROJECT, ROOT, good, instances, require, run, wait

# A quarter of a second would do; the machine may be busy.
AT_ONCE = 3.0


class Stand(compose.Stand):
    """The project of deploy/docker-compose.wildcard.yml."""

    def __init__(self, words):
        self.compose = [*words, "-p", PROJECT, "-f", str(ROOT / "deploy/docker-compose.wildcard.yml")]
        self.env = {"OUTRIGGER_IMAGE": IMAGE}

    def up(self):
        run([*self.compose, "up", "-d", "--scale", "orders=3"], env=self.env, timeout=120)

    def composed(self, *words):
        return run([*self.compose, *words], env=self.env, timeout=120)

    def client(self, which, url):
        """Gets a URL by one of other people's clients; its exit code, what it says, and how long that took."""
        inside = ["docker", "run", "--rm", "--network", f"container:{self.one('sidecar')}", CLIENTS]
        began = time.monotonic()
        done = subprocess.run([*inside, *clients.commands(url)[which]], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr, time.monotonic() - began

    def explain(self, name):
        command = ["docker", "exec", self.one("sidecar"), "/outrigger", "explain", name]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)


def main():
    words = compose.engine_or_skip()
    compose.image()
    compose.clients_image()
    compose.hold(Stand(words), CHECKS, "the example without a list")


# ---- checks, in order: each leaves the stand as the next one wants it -------------------------------


def nobody_has_listed_a_service(stand):
    text = (ROOT / "deploy/outrigger.wildcard.yaml").read_text()
    require("orders" not in text and "payments" not in text, text)
    totals = stand.call("orders.vip.internal,payments.vip.internal", seconds=3)
    for service, total in totals.items():
        require(total["ok"] == total["calls"] > 0, f"{service}: {total}")
    return ", ".join(f"{service} {total['ok']}" for service, total in totals.items())


def every_client_finds_them_by_name(stand):
    for which in ("curl", "Python", "Node", "musl"):
        for service in ("orders", "payments"):
            code, said, _ = stand.client(which, f"http://{service}.vip.internal/")
            require(code == 0 and service in said, f"{which}: exit code {code}: {said}")
    return "curl, Python, Node, and a program with musl"


def a_name_that_nobody_bears_fails_at_once(stand):
    took = []
    # A name of ours is denied. Any other is refused, as nobody is there to ask: of that musl thinks nothing, and waits.
    for which, name in (("curl", "nobody.vip.internal"), ("musl", "nobody.vip.internal"), ("curl", "nobody"), ("curl", "www.example.com")):
        code, said, seconds = stand.client(which, f"http://{name}/")
        require(code != 0, f"{which} found {name}: {said}")
        # Both ask again after 5 s where nobody answers: silence would show.
        require(seconds < AT_ONCE, f"{which} needed {seconds:.1f} s to learn that there is no {name}")
        took.append(seconds)
    return f"within {max(took):.1f} s, a container's start included"


def an_alias_in_the_network_is_a_name(stand):
    network = f"{PROJECT}_default"
    name = f"{PROJECT}-shop"
    upstream = ["demo", "upstream", "--listen", "0.0.0.0:8080", "--name", "shop"]
    run(["docker", "run", "-d", "--rm", "--name", name, "--no-healthcheck", "--network", network, "--network-alias", "boutique", IMAGE, *upstream])
    try:
        wait("the alias to be served", 20, lambda: stand.client("curl", "http://boutique.vip.internal/")[0] == 0)
        code, said, _ = stand.client("curl", "http://boutique.vip.internal/")
        require(code == 0 and "shop" in said, said)
    finally:
        run(["docker", "rm", "-f", name])
    return "boutique.vip.internal is a container that compose does not know"


def containers_come_and_go(stand):
    found = []
    for count in (5, 2):
        with Caller(stand, "orders.vip.internal") as caller:
            mark = caller.mark()
            stand.scale("orders", count)
            expected = stand.hostnames("orders")
            settled = caller.until(f"none but {sorted(expected)}", lambda seconds: settles(seconds, expected))
            since = caller.since(mark)
        failed, calls = failures(since)
        require(failed <= calls / 20, f"{failed} of {calls} calls failed: {since}")
        found.append(f"{count} after {settled:.0f} s, {failed} of {calls} failed")
    return "; ".join(found)


def containers_that_are_made_anew_have_other_addresses(stand):
    before, squatter = set(stand.addresses("payments")), f"{PROJECT}-squatter"
    stand.composed("rm", "-f", "-s", "payments")
    # Whoever joins now gets the address that is free, and answers there: as somebody else.
    upstream = ["demo", "upstream", "--listen", "0.0.0.0:8080", "--name", "squatter"]
    run(["docker", "run", "-d", "--rm", "--name", squatter, "--no-healthcheck", "--network", f"{PROJECT}_default", IMAGE, *upstream])
    try:
        stand.composed("up", "-d", "--no-deps", "payments")
        after = set(stand.addresses("payments"))
        require(not before & after, f"payments is at {after} again")
        took = wait("payments to be served again", 40, lambda: answer(stand, "payments").get("service") == "payments")
    finally:
        subprocess.run(["docker", "rm", "-f", squatter], capture_output=True)
    return f"{sorted(before)} became {sorted(after)}, and is somebody else's; right again after {took:.1f} s"


def answer(stand, service):
    try:
        return json.loads(stand.client("curl", f"http://{service}.vip.internal/")[1])
    except json.JSONDecodeError:
        return {}


def a_service_that_is_gone_is_told_and_found_again(stand):
    stand.composed("stop", "-t", "1", "orders")
    # Docker now asks us for the name: we must not become our own endpoint.
    explained = stand.explain("orders").stdout
    require("127.84." not in "".join(line for line in explained.splitlines() if ":8080 " in line), explained)
    code, said, seconds = stand.client("curl", "http://orders.vip.internal/")
    require("problem+json" in said or '"reason"' in said or code != 0, said)
    require(seconds < 15, f"it took {seconds:.1f} s")
    stand.composed("start", "orders")
    took = wait("orders to be served again", 45, lambda: '"instance"' in stand.client("curl", "http://orders.vip.internal/")[1])
    return f"found again after {took:.1f} s"


def the_app_and_the_sidecar_can_restart(stand):
    run(["docker", "restart", "-t", "5", stand.one("app")])
    totals = stand.call("orders.vip.internal", seconds=2)
    require(totals["orders.vip.internal"]["ok"] > 0, f"after the app's restart: {totals}")
    run(["docker", "restart", "-t", "45", stand.one("sidecar")])
    wait("a healthy sidecar", 40, lambda: stand.inspect(stand.one("sidecar"))["State"]["Health"]["Status"] == "healthy")
    run(["docker", "restart", "-t", "5", stand.one("app")])
    wait("calls to flow again", 30, lambda: good(stand.call("orders.vip.internal", seconds=1)["orders.vip.internal"]))
    return "the app; then the sidecar, and the app behind it"


def everything_may_restart_in_any_order(stand):
    order = ["payments", "sidecar", "orders", "app"]
    for service in order:
        for container in stand.containers(service):
            run(["docker", "kill", container])
    for service in reversed([name for name in order if name != "app"]):
        for container in stand.containers(service, everything=True):
            run(["docker", "start", container])
    for container in stand.containers("app", everything=True):
        run(["docker", "start", container])
    wait("a healthy sidecar", 40, lambda: stand.inspect(stand.one("sidecar"))["State"]["Health"]["Status"] == "healthy")
    names = "orders.vip.internal,payments.vip.internal"
    took = wait("all calls to succeed", 60, lambda: all(map(good, stand.call(names, seconds=1).values())))
    return f"all killed, started in another order; well {took:.0f} s after"


CHECKS = [
    nobody_has_listed_a_service,
    every_client_finds_them_by_name,
    a_name_that_nobody_bears_fails_at_once,
    an_alias_in_the_network_is_a_name,
    containers_come_and_go,
    containers_that_are_made_anew_have_other_addresses,
    a_service_that_is_gone_is_told_and_found_again,
    the_app_and_the_sidecar_can_restart,
    everything_may_restart_in_any_order,
]


def settles(seconds, expected):
    last = seconds[-3:]
    return len(seconds) >= 3 and all(map(good, last)) and instances(last) <= expected <= instances(seconds)


def failures(seconds):
    return sum(second["calls"] - second["ok"] for second in seconds), sum(second["calls"] for second in seconds)


if __name__ == "__main__":
    main()
