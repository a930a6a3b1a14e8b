"""What goes through unchanged: messages, metadata, errors, compression, and the services that come with gRPC."""

import os
import subprocess

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_trial import SERVICE, Client
from relay import Relay
from stage import happens

MIB = 1 << 20
EVERY_BYTE = bytes(range(256))
# A percent sign, what percent-encoding must not break, more than one alphabet, and line breaks.
TEXT = "100 % of Δελφοί,\tлинии\r\nand 漢字 \U0001f6f6 fell \"over\" %20"


def kinds(check, client, way):
    """The four kinds of call."""
    check.equal(client.call("Echo", b"hello").messages, [b"hello"], f"{way}: a unary call")
    end = client.call("Down", b"piece", [("x-count", "1000")])
    check.equal((end.code, end.messages), ("OK", [b"piece"] * 1000), f"{way}: a stream from the server")
    end = client.call("Up", (b"x" * i for i in range(1000)))
    check.equal((end.code, end.messages), ("OK", [b"1000 499500"]), f"{way}: a stream to the server")
    check.that(ping_pong(client, 200), f"{way}: a stream each way, in turns")
    check.equal(client.call("Echo", b"").messages, [b""], f"{way}: an empty message")
    check.equal(client.call("Down", b"", [("x-count", "0")]).messages, [], f"{way}: a stream of nothing")


def ping_pong(client, turns):
    """Whether each message came back before the next was sent."""
    heard, turn = [], []

    def questions():
        for i in range(turns):
            # grpcio asks for the next message only once this one is away; the answer is awaited here.
            if i and not happens(lambda: len(heard) == i):
                return
            turn.append(i)
            yield str(i).encode()

    for answer in client.start("Both", questions()):
        heard.append(answer)
    return heard == [str(i).encode() for i in range(turns)] and len(turn) == turns


def metadata(check, client, server):
    sent = [
        ("x-echo-plain", "a value, with; punctuation=\"yes\""),
        ("x-echo-many", "first"),
        ("x-echo-many", "second"),
        ("x-echo-all-bin", EVERY_BYTE),
        ("x-echo-empty-bin", b""),
        ("x-echo-long", "v" * 16000),
        *((f"x-echo-{i}", "w" * 200) for i in range(60)),
    ]
    end = client.call("Echo", b"", sent)
    seen = server.last("Echo")
    told = [pair for pair in seen.metadata if pair[0].startswith("x-echo")] if seen else []
    check.equal((end.code, sorted(told, key=str)), ("OK", sorted(sent, key=str)), "metadata reaches the server, all of it")
    for name, prefix, got in ("the head", "x-echo", end.initial), ("the trailers", "x-trail", end.trailing):
        wanted = [(k.replace("x-echo", prefix), v) for k, v in sent]
        got = [pair for pair in got if pair[0].startswith(prefix)]
        check.equal(sorted(got, key=str), sorted(wanted, key=str), f"metadata comes back in {name}")
    order = [v for k, v in told if k == "x-echo-many"]
    check.equal(order, ["first", "second"], "two values of one key keep their order")
    added = sorted({k for k, _ in seen.metadata} - {k for k, _ in sent} - {"user-agent"})
    # Whatever is added is ours to explain; hop-by-hop and HTTP/1 things have no place there.
    bad = {"connection", "transfer-encoding", "keep-alive", "host", "proxy-connection", "upgrade"} & set(added)
    check.that(not bad, f"nothing that HTTP/2 forbids is added (added: {', '.join(added) or 'nothing'})", bad)


def errors(check, client):
    got = {}
    for code in grpc.StatusCode:
        number, name = code.value[0], code.name
        if number:
            end = client.call("Fail", TEXT.encode(), [("x-code", str(number)), ("x-details-bin", EVERY_BYTE * 8)])
            right = (end.code, end.text, end.metadata("grpc-status-details-bin"), end.proxy_status)
            if right != (name, TEXT, [EVERY_BYTE * 8], ""):
                got[name] = right
    check.that(not got, "16 codes in trailers-only answers, each with its text and details", got)
    end = client.call("Break", b"one", [("x-code", "9"), ("x-details-bin", b"\0details")])
    right = end.code, end.text, end.messages, end.metadata("grpc-status-details-bin")
    wanted = "FAILED_PRECONDITION", "after one message", [b"one"], [b"\0details"]
    check.equal(right, wanted, "a code, its text and details in the trailers after a message")
    end = client.call("NoSuchMethod")
    check.equal((end.code, end.proxy_status), ("UNIMPLEMENTED", ""), "the server's own UNIMPLEMENTED is left as it is")


def sizes(check, client):
    big = os.urandom(4 * MIB)
    end = client.call("Echo", big)
    check.that(end.messages == [big], "a message of 4 MiB both ways", (end.code, end.text))
    end = client.call("Both", (big for _ in range(8)))
    check.that(end.messages == [big] * 8, "eight of them in a stream each way", (end.code, end.text, len(end.messages)))


def compression(check, stage, server, sidecar):
    """Compressed messages stay as they are: what the endpoint gets and gives is counted on the wire."""
    with Relay(server.port) as relay:
        out = sidecar(f"packed: {{ static: [{relay.address}] }}", "packed")
        with Client(out.http, "packed", compression=grpc.Compression.Gzip) as client:
            end = client.call("Echo", bytes(4 * MIB))
            check.that(end.messages == [bytes(4 * MIB)], "a message in gzip", (end.code, end.text))
        check.that(0 < relay.up < MIB // 8, "it reaches the server as small as it was sent", f"{relay.up} bytes")


def companions(check, port, authority, server, grpcurl):
    with Client(port, authority) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        serving, not_serving = (health_pb2.HealthCheckResponse.ServingStatus.Value(w) for w in ("SERVING", "NOT_SERVING"))
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        check.equal(stub.Check(asked, timeout=10).status, serving, "health checking: asked once")
        watch = stub.Watch(asked, timeout=60)
        first = next(watch).status
        server.health.set(SERVICE, not_serving)
        check.equal((first, next(watch).status), (serving, not_serving), "health checking: a change is told at once")
        watch.cancel()
        server.health.set(SERVICE, serving)
    argv = [grpcurl, "-plaintext", "-max-time", "10", "-authority", authority, f"127.0.0.1:{port}"]
    listed = run([*argv, "list"]).split()
    wanted = {SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME}
    check.that(set(listed) >= wanted, "reflection: grpcurl lists the services", listed)
    said = run([*argv, "grpc.health.v1.Health/Check"])
    check.that('"SERVING"' in said, "reflection: grpcurl makes a call by it", said)


def run(argv):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=30)
    return p.stdout + p.stderr
