"""What the sidecar answers in a server's stead, what its breaker makes of codes in trailers, and servers that limit
streams, recycle connections or die."""

import os
import threading

from grpc_trial import Client, Server
from relay import Relay
from stage import free_port, happens


def names(check, stage, out, server):
    """Nobody there, in three ways; the code, the reason in Proxy-Status, and a message for a person."""
    arrived = len(server.calls)
    # One that has never had an endpoint is not ready, so it has a sidecar of its own.
    vacant = stage.outrigger(f"empty: {{ file: {stage.write('empty.yaml', '[]')} }}", name="vacant")
    happens(lambda: "the list is empty" in vacant.program.tail())
    for at, service, code, reason, error in (
        (out, "stranger", "UNIMPLEMENTED", "unknown_service", "destination_not_found"),
        (vacant, "empty", "UNAVAILABLE", "no_endpoints", "destination_unavailable"),
        (out, "closed", "UNAVAILABLE", "connect_refused", "connection_refused"),
    ):
        with Client(at.http, service) as client:
            for method, request in ("Echo", b"x"), ("Both", iter([b"x", b"y"])):
                refused(check, client.call(method, request), code, reason, error, f"{service}, {method}")
    check.equal(len(server.calls), arrived, "none of them reached a server")


def refused(check, end, code, reason, error, what):
    right = end.code == code and f"error={error}" in end.proxy_status and reason in end.proxy_status
    check.that(right and end.text and not end.messages, f"{what}: {code}, {reason} ({end.text})", end)


def bulkhead(check, out, server):
    with Client(out.http, "narrow") as client:
        held = [client.start("Hang", b"held") for _ in range(2)]
        full = happens(lambda: len(server.waiting("Hang")) == 2)
        check.that(full, "two calls fill a bulkhead of two")
        refused(check, client.call("Echo"), "RESOURCE_EXHAUSTED", "bulkhead_full", "connection_limit_reached", "a third")
        for seen in server.waiting("Hang"):
            seen.release.set()
        check.equal([Client.end(h).code for h in held], ["OK", "OK"], "the two end well")
        again = lambda: client.call("Echo", b"x").code == "OK"  # noqa: E731
        check.eventually(again, "and then there is room")


def breaker(check, out, server):
    state = lambda service: out.metric("outrigger_breaker_state", service=service)  # noqa: E731
    ended = lambda service, outcome: out.metric("outrigger_calls_total", service=service, outcome=outcome)  # noqa: E731
    with Client(out.http, "calm") as client:
        # Codes that speak of the request, not of the server.
        for code in 1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 16:
            client.call("Break", b"", [("x-code", str(code))])
        check.equal(client.call("Echo", b"x").code, "OK", "codes that are the caller's affair open no breaker")
        check.equal(state("calm"), 0.0, "it is closed")
    with Client(out.http, "fragile") as client:
        ends = [client.call("Break", b"one", [("x-code", code)]) for code in ("14", "13", "2", "4", "15")]
        codes = ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "DATA_LOSS"]
        check.equal([e.code for e in ends], codes, "five failing codes in trailers pass through")
        check.that(happens(lambda: state("fragile") == 2.0), "and open the breaker", state("fragile"))
        check.equal(ended("fragile", "upstream_error"), 5.0, "they count as the upstream's errors")
        arrived = len(server.calls)
        refused(check, client.call("Echo"), "UNAVAILABLE", "breaker_open", "destination_unavailable", "then a call")
        check.equal(len(server.calls), arrived, "does not reach the server")
        check.that(happens(lambda: ended("fragile", "breaker_open") == 1.0), "and counts as refused by the breaker")


def killed(check, stage, sidecar, python, venv):
    """A server that is killed, with a call that has no answer yet and with one in mid-stream."""
    port = free_port()
    paths = os.pathsep.join(str(p) for p in venv.glob("lib/python*/site-packages"))
    argv = [python, os.path.join(os.path.dirname(__file__), "grpc_trial.py"), port]

    def start():
        env = {**os.environ, "PYTHONPATH": paths}
        return stage.start_until("trial", argv, lambda: answers(port), env=env)

    first = start()
    out = sidecar(f"mortal: {{ static: [127.0.0.1:{port}] }}", "mortal")
    with Client(out.http, "mortal") as client:
        for method, sign, word in ("Hang", "hanging", "before its answer"), ("Stay", "staying", "in mid-stream"):
            server = first or start()
            first = None
            happens(lambda: client.call("Echo", b"x").code == "OK")
            under_way = client.start(method, b"one")
            there = happens(lambda: sign in server.tail())
            if method == "Stay":
                next(under_way)
            server.popen.kill()
            end = Client.end(under_way)
            check.that(there and end.code == "UNAVAILABLE", f"a server killed {word}: UNAVAILABLE ({end.text})", end)
        end = client.call("Echo", b"x")
        check.equal(end.code, "UNAVAILABLE", f"and then nobody is there: {end.text}")
        start()
        check.eventually(lambda: client.call("Echo", b"x").code == "OK", "until it is back")


def answers(port):
    with Client(port) as client:
        return client.call("Echo", b"x", seconds=2).code == "OK"


def recycling(check, sidecar):
    """A server that closes each connection after a while, politely (GOAWAY): no call may be lost to it."""
    # Of the whole connection's age, the last part is left for calls in flight.
    with Server(max_connection_age_ms=200, max_connection_age_grace_ms=20000) as server, Relay(server.port) as relay:
        out = sidecar(f"aging: {{ static: [{relay.address}] }}", "aging")
        ends, enough = [], threading.Event()

        def calls():
            with Client(out.http, "aging") as client:
                while not enough.is_set():
                    ends.append(client.call("Echo", b"x"))
                    ends.append(client.call("Down", b"x", [("x-count", "20")]))

        load = [threading.Thread(target=calls) for _ in range(8)]
        for thread in load:
            thread.start()
        recycled = happens(lambda: relay.accepted >= 12, 20)
        enough.set()
        for thread in load:
            thread.join()
        check.that(recycled, f"{relay.accepted} connections were used in turn", relay.accepted)
        lost = [(e.code, e.text) for e in ends if e.code != "OK"]
        check.that(len(ends) > 100 and not lost, f"none of {len(ends)} calls is lost to it", lost[:5] or len(ends))


def stream_limit(check, sidecar):
    """A server that takes ten calls a connection, and 200 calls that only end together."""
    with Server(max_concurrent_streams=10) as server, Relay(server.port) as relay:
        out = sidecar(f"few: {{ static: [{relay.address}], bulkhead: 300 }}", "few")
        with Client(out.http, "few") as client:
            held = [client.start("Hang", str(i).encode(), seconds=40) for i in range(200)]
            reached = happens(lambda: len(server.waiting("Hang")) == 200, 20)
            check.that(reached, "200 calls at once, ten a connection", f"{len(server.waiting('Hang'))} of them")
            check.that(20 <= relay.accepted <= 40, f"{relay.accepted} connections carry them", relay.accepted)
            for seen in server.waiting("Hang"):
                seen.release.set()
            ends = [Client.end(h) for h in held]
        wrong = [(e.code, e.text) for i, e in enumerate(ends) if e.messages != [str(i).encode()]]
        check.that(not wrong, "all of them succeed, each with its own answer", wrong[:5])
