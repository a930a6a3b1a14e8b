"""Deadlines, cancelling and long streams: who ends a call, and who hears of it."""

import socket
import subprocess
import threading

import grpc
from grpc_trial import Client
from relay import Relay
from stage import happens


def deadlines(check, sidecar, out, server):
    with Client(out.http, "trial") as client:
        client.call("Echo", seconds=40)
        remaining = server.last("Echo").remaining
        check.that(30 < remaining <= 40, "what remains of the client's deadline reaches the server", remaining)
        client.call("Echo", seconds=None)
        remaining = server.last("Echo").remaining
        check.that(remaining is None or remaining > 1e6, "and no deadline is made up where there was none", remaining)
        end = client.call("Hang", seconds=0.5)
        check.equal(end.code, "DEADLINE_EXCEEDED", "a deadline passes")
        check.eventually(server.last("Hang").over.is_set, "and the server hears of it")
    # gRPC's own clients and servers give up by themselves; where neither does, the sidecar shows that it does.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf_out = sidecar(f"deaf: {{ static: [127.0.0.1:{deaf.getsockname()[1]}] }}", "deaf")
        for timeout in "300m", "99999999n", "299999u":
            said = by_hand(deaf_out.http, "deaf", "Hang", timeout)
            what = f"a deadline is kept where neither side does ({timeout})"
            check.that("grpc-status: 4" in said and "timeout" in said, what, said)
    said = by_hand(out.http, "trial", "Hang", "300m")
    check.that("grpc-status: 4" in said, "a client's deadline is kept for a client that ignores it", said)
    check.eventually(server.last("Hang").over.is_set, "and the server is told")
    said = by_hand(out.http, "trial", "Stay", "300m")
    check.that(server.last("Stay") and happens(server.last("Stay").over.is_set), "it ends a stream that has begun, too", said)
    with Client(out.http, "hasty") as client:
        end = client.call("Hang", seconds=30)
        what = "a service's shorter time-out gives DEADLINE_EXCEEDED"
        check.equal((end.code, "request_timeout" in end.proxy_status), ("DEADLINE_EXCEEDED", True), f"{what}: {end.text}")
        check.that("http_response_timeout" in end.proxy_status, "and Proxy-Status says which", end)
        check.eventually(server.last("Hang").over.is_set, "and the server is told at once")


def by_hand(port, authority, method, timeout):
    """One call with an empty message by curl, which takes grpc-timeout for any other header: what it shows."""
    argv = ["curl", "-sS", "-i", "-m", "10", "--http2-prior-knowledge", "-X", "POST", "--data-binary", "@-", "-o", "-"]
    for header in f"host: {authority}", "content-type: application/grpc", "te: trailers", f"grpc-timeout: {timeout}":
        argv += ["-H", header]
    argv += [f"http://127.0.0.1:{port}/trial.Trial/{method}"]
    p = subprocess.run(argv, input=bytes(5), capture_output=True, timeout=20)
    return (p.stdout + p.stderr).decode(errors="replace")


def cancelling(check, out, server):
    cancelled = lambda: out.metric("outrigger_calls_total", service="trial", outcome="cancelled")  # noqa: E731
    before = cancelled()
    with Client(out.http, "trial") as client:
        for method, begun in ("Hang", False), ("Stay", True):
            arrived = len(server.calls)
            under_way = client.start(method)
            if begun:
                next(under_way)
            else:
                happens(lambda: len(server.calls) > arrived)
            under_way.cancel()
            word = "a stream that has begun" if begun else "a call without an answer yet"
            check.eventually(server.last(method).over.is_set, f"cancelling {word} reaches the server")
        arrived = len(server.calls)
        more = threading.Event()
        under_way = client.start("Up", one_and_wait(more))
        happens(lambda: len(server.calls) > arrived)
        under_way.cancel()
        check.eventually(server.last("Up").over.is_set, "cancelling a stream to the server reaches it")
        more.set()
        check.eventually(lambda: cancelled() == before + 3, "the three are counted as cancelled")

        gone = client.start("Stay")
        next(gone)
    # The channel is closed: the app's connection goes, with a call on it.
    check.eventually(server.last("Stay").over.is_set, "an app that goes away cancels its calls")
    check.eventually(lambda: cancelled() == before + 4, "and is counted so")
    with Client(out.http, "trial") as client:
        under_way = client.start("Break", b"one", [("x-code", "10")])
        got = Client.end(under_way)
        check.equal((got.messages, got.code), ([b"one"], "ABORTED"), "a server that gives up in mid-stream is heard")


def one_and_wait(more):
    yield b"one"
    more.wait(60)


def long_streams(check, out, server):
    """The request time-out ends at the head; from then on only silence ends a stream."""
    pause = threading.Event()
    with Client(out.http, "hasty") as client:
        sent = []

        def slowly():
            # Two seconds, in pauses shorter than the idle limit: both limits of this service pass by several times.
            for i in range(10):
                sent.append(str(i).encode())
                yield sent[-1]
                pause.wait(0.2)

        end = client.call("Both", slowly(), seconds=60)
        check.equal((end.code, end.messages), ("OK", sent), "a stream each way outlives the request time-out while it moves")
        end = client.call("Stay", b"one", seconds=60)
        check.that(end.code != "OK" and end.messages == [b"one"], f"silence ends a stream ({end.code}: {end.text})", end)
        check.eventually(server.last("Stay").over.is_set, "and the server is told")
        timed_out = lambda: out.metric("outrigger_calls_total", service="hasty", outcome="request_timeout")  # noqa: E731
        check.that(happens(lambda: timed_out() >= 2), "both count as time-outs", timed_out())


def broken(check, out, server, relay: Relay):
    """A connection to the endpoint that ends under a call: UNAVAILABLE, as without a sidecar."""
    with Client(out.http, "cut") as client:
        arrived = len(server.calls)
        under_way = client.start("Hang")
        happens(lambda: len(server.calls) > arrived)
        relay.cut()
        end = Client.end(under_way)
        check.equal(end.code, "UNAVAILABLE", f"a connection that is cut before the answer: {end.text}")
        check.that("connection_terminated" in end.proxy_status, "Proxy-Status says why", end)
        under_way = client.start("Stay", b"one")
        first = next(under_way)
        relay.cut()
        end = Client.end(under_way)
        check.equal((first, end.code), (b"one", "UNAVAILABLE"), f"a connection that is cut in mid-stream: {end.text}")
        check.equal(client.call("Echo", b"again").messages, [b"again"], "the next call finds a new connection")
    with Client(relay.port) as direct:
        check.equal(direct.call("Echo", b"x").code, grpc.StatusCode.OK.name, "the server itself is well")
