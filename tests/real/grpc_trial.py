"""A gRPC server whose methods do what a test needs, and a client that tells everything about a call's end.

Messages are bytes, passed as they are: no generated code. The server runs in the test's own process, so that a test
can look at what arrived (`Server.calls`), or, to be killed, as a program: `grpc_trial.py PORT`. The server's side of
a call that waits ends with the call: by its deadline, by a cancellation, or because the server stops.
"""

import concurrent.futures
import dataclasses
import sys
import threading

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVICE = "trial.Trial"
THREADS = 260
# Metadata of tens of kilobytes is more than either side of grpcio takes unless told to.
SIZES = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 128 << 10),
    ("grpc.absolute_max_metadata_size", 256 << 10),
]
# Nothing of this process is shared or proxied, and a failed call is shown, not repeated.
CLIENT = [
    *SIZES,
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class Seen:
    """A call as the server sees it."""

    def __init__(self, method, context):
        self.method, self.context = method, context
        self.metadata = [(k, v) for k, v in context.invocation_metadata()]
        self.remaining = context.time_remaining()
        self.over, self.release = threading.Event(), threading.Event()
        # Set at a call's every end; at an early one the handler may still be waiting.
        if not context.add_callback(self._end):
            self._end()

    def _end(self):
        self.over.set()
        self.release.set()

    def wait(self):
        """Returns when the test releases the call, or when it is over."""
        self.release.wait(60)

    def __getitem__(self, key):
        """The first value of a key of the metadata, or None."""
        return next((v for k, v in self.metadata if k == key), None)


class Server(grpc.GenericRpcHandler):
    """The trial service with health checking and reflection, on a free port of 127.0.0.1."""

    def __init__(self, port=0, **options):
        self.calls, self.status = [], {}
        pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        listed = [("grpc.so_reuseport", 0), *SIZES, *((f"grpc.{k}", v) for k, v in options.items())]
        self.grpc = grpc.server(pool, handlers=[self], options=listed)
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.grpc)
        self.health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], self.grpc)
        self.port = self.grpc.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self.grpc.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.grpc.stop(0).wait(10)

    def last(self, method):
        """The latest call of a method, or None."""
        return next((c for c in reversed(self.calls) if c.method == method), None)

    def waiting(self, method):
        """The calls of a method that are not over."""
        return [c for c in self.calls if c.method == method and not c.over.is_set()]

    def service(self, details):
        name = details.method.removeprefix(f"/{SERVICE}/")
        make, behaviour = {
            "Echo": (grpc.unary_unary_rpc_method_handler, self.echo),
            "Fail": (grpc.unary_unary_rpc_method_handler, self.fail),
            "Hang": (grpc.unary_unary_rpc_method_handler, self.hang),
            "Down": (grpc.unary_stream_rpc_method_handler, self.down),
            "Break": (grpc.unary_stream_rpc_method_handler, self.break_off),
            "Stay": (grpc.unary_stream_rpc_method_handler, self.stay),
            "Up": (grpc.stream_unary_rpc_method_handler, self.up),
            "Both": (grpc.stream_stream_rpc_method_handler, self.both),
        }.get(name, (None, None))

        def noted(request, context):
            seen = Seen(name, context)
            self.calls.append(seen)
            return behaviour(request, context, seen)

        return make and make(noted)

    def echo(self, request, context, seen):
        """The message back; `x-echo…` metadata as head and as trailers."""
        echoed = [(k, v) for k, v in seen.metadata if k.startswith("x-echo")]
        context.send_initial_metadata(echoed)
        context.set_trailing_metadata([(k.replace("x-echo", "x-trail"), v) for k, v in echoed])
        return request

    def fail(self, request, context, seen):
        """No answer at all: the code of `x-code`, with the message as its text and `x-details-bin` as its details."""
        self._give_up(context, seen, request.decode())

    def hang(self, request, context, seen):
        """No answer until it is released."""
        print("hanging", flush=True)
        seen.wait()
        return request

    def down(self, request, context, seen):
        """As many messages as `x-count` says, of this message."""
        for _ in range(int(seen["x-count"])):
            yield request

    def break_off(self, request, context, seen):
        """One message, and then an error."""
        yield request
        self._give_up(context, seen, "after one message")

    def stay(self, request, context, seen):
        """One message, and the end when it is released."""
        yield request
        print("staying", flush=True)
        seen.wait()

    def up(self, requests, context, seen):
        """How many messages there were, and of how many bytes."""
        sizes = [len(r) for r in requests]
        return f"{len(sizes)} {sum(sizes)}".encode()

    def both(self, requests, context, seen):
        """Each message back, as it comes."""
        context.send_initial_metadata([])
        yield from requests

    @staticmethod
    def _give_up(context, seen, text):
        details = seen["x-details-bin"]
        context.set_trailing_metadata([("grpc-status-details-bin", details)] if details else [])
        codes = {code.value[0]: code for code in grpc.StatusCode}
        context.abort(codes[int(seen["x-code"])], text)


@dataclasses.dataclass
class End:
    """How a call ended."""

    code: str
    text: str
    messages: list
    initial: list
    trailing: list

    def metadata(self, key):
        """The values of a key, of head and trailers together: where a trailers-only answer has it, clients differ."""
        return [v for k, v in self.initial + self.trailing if k == key]

    @property
    def proxy_status(self):
        return ", ".join(self.metadata("proxy-status"))


class Client:
    """A channel to a service: by a port of its own, on the shared port by its name, or through that port as a proxy."""

    def __init__(self, port, authority=None, proxied=None, **how):
        options = [*CLIENT, ("grpc.default_authority", authority)] if authority else CLIENT
        target = f"127.0.0.1:{port}"
        if proxied:
            # The library sends CONNECT, and speaks HTTP/2 inside.
            others = [option for option in CLIENT if option[0] != "grpc.enable_http_proxy"]
            options, target = [*others, ("grpc.http_proxy", f"http://{target}")], f"{proxied}:443"
        self.channel = grpc.insecure_channel(target, options, **how)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def start(self, method, request=b"", metadata=(), seconds=30, service=SERVICE):
        """A call under way, to be iterated or cancelled; `request` is bytes, or an iterator of them."""
        many_up = not isinstance(request, bytes)
        make = self.channel.stream_stream if many_up else self.channel.unary_stream
        return make(f"/{service}/{method}")(request, timeout=seconds, metadata=list(metadata))

    def call(self, method, request=b"", metadata=(), seconds=30, service=SERVICE):
        """A whole call. A `seconds` of None sets no deadline."""
        return self.end(self.start(method, request, metadata, seconds, service))

    @staticmethod
    def end(under_way):
        """Reads the rest of a call, whatever its end."""
        messages = []
        try:
            messages.extend(under_way)
        except grpc.RpcError:
            pass
        initial, trailing = ([(k, v) for k, v in part or ()] for part in (under_way.initial_metadata(), under_way.trailing_metadata()))
        return End(under_way.code().name, under_way.details() or "", messages, initial, trailing)


if __name__ == "__main__":
    with Server(int(sys.argv[1])) as server:
        server.grpc.wait_for_termination()
