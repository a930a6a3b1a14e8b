"""gRPC-Web byte by byte (grpc/grpc `doc/PROTOCOL-WEB.md`): frames, base64, and what a browser would be told."""

import base64
import http.client
import re
import socket
import struct
import subprocess
import urllib.parse

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
TRAILERS = 0x80


def message(text):
    """A frame with a google.protobuf.StringValue of less than 128 bytes."""
    body = b"\x0a" + bytes([len(text)]) + text if text else b""
    return struct.pack(">BI", 0, len(body)) + body


def frames(body):
    """[(flags, payload)]; ValueError if the last one is cut short."""
    found = []
    while body:
        if len(body) < 5 or len(body) < 5 + struct.unpack(">I", body[1:5])[0]:
            raise ValueError(f"{len(body)} bytes are no frame")
        flags, size = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def unpack(text):
    """Base64 whose pieces may each be padded."""
    if not re.fullmatch(rb"(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)*", text):
        raise ValueError(f"no base64: {text[-40:]!r}")
    return b"".join(base64.b64decode(piece) for piece in re.findall(rb"[^=]+=*", text))


class Answer:
    """An answer taken apart: status, headers, messages, and the trailers from the last frame or from the head."""

    def __init__(self, status, headers, body):
        self.status, self.headers = status, {k.lower(): v for k, v in headers}
        self.kind = self.headers.get("content-type", "")
        raw = unpack(body) if self.kind.startswith("application/grpc-web-text") else body
        all_frames = frames(raw)
        self.messages = [payload for flags, payload in all_frames if not flags & TRAILERS]
        lines = [payload for flags, payload in all_frames if flags & TRAILERS]
        self.framed = len(lines) == 1 and bool(all_frames[-1][0] & TRAILERS)
        pairs = [line.split(":", 1) for block in lines for line in block.decode().split("\r\n") if line]
        self.trailers = {k: v.strip() for k, v in pairs}

    def trailer(self, key):
        return self.trailers.get(key, self.headers.get(key))

    def __repr__(self):
        return f"{self.status} {self.headers} {self.messages} {self.trailers}"


def call(port, method, body, kind=BINARY, connection=None, **headers):
    """One call over HTTP/1.1."""
    sent = {"content-type": kind, "x-grpc-web": "1", **{k.replace("_", "-"): v for k, v in headers.items()}}
    c = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    c.request("POST", f"/trial.Trial/{method}", body, sent)
    r = c.getresponse()
    answer = Answer(r.status, r.getheaders(), r.read())
    if not connection:
        c.close()
    return answer


def text(data):
    return base64.b64encode(data)


def checks(check, out, port):
    one = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    hello = message(b"hello")
    for word, kind, body in ("binary", BINARY, hello), ("text", TEXT, text(hello)):
        a = call(port, "Echo", body, kind, one, x_echo_plain="a value")
        right = a.status, a.kind.split(";")[0], a.messages, a.framed, a.trailers.get("grpc-status")
        check.equal(right, (200, kind, [hello[5:]], True, "0"), f"raw, {word}: message, then a frame of trailers")
        told = a.headers.get("x-head-plain"), a.trailers.get("x-trail-plain")
        check.equal(told, ("a value", "a value"), f"raw, {word}: metadata in the head and in the trailers")
        a = call(port, "Down", body, kind, one, x_count="100")
        wanted = [message(b"hello %d" % i)[5:] for i in range(100)]
        check.equal((a.messages, a.trailer("grpc-status")), (wanted, "0"), f"raw, {word}: a stream of 100 messages")
        a = call(port, "Break", body, kind, one, x_code="9")
        right = a.messages, a.trailers.get("grpc-status"), a.trailers.get("grpc-message")
        check.equal(right, ([b"\x0a\x03one"], "9", "hello"), f"raw, {word}: an error after a message")
        a = call(port, "Fail", body, kind, one, x_code="5")
        check.equal((a.status, a.trailer("grpc-status"), a.messages), (200, "5", []), f"raw, {word}: an error alone")
    a = call(port, "Echo", hello, BINARY, one, accept=TEXT)
    check.equal((a.kind.split(";")[0], a.messages), (TEXT, [hello[5:]]), "raw: binary asked, text wanted, text answered")
    one.close()

    for cut in 1, 5, 6, 7:
        pieces = text(hello[:cut]) + text(hello[cut:])
        a = call(port, "Echo", pieces, TEXT)
        check.equal((a.messages, a.trailer("grpc-status")), ([hello[5:]], "0"), f"raw: base64 of two pieces, cut after {cut}")
    said = in_small_chunks(port, text(hello))
    check.that(b"grpc-web-text" in said and text(b"\0\0\0\0\x07\x0a\x05hello")[:12] in said, "raw: base64 in chunks of one byte", said)
    for word, bad in ("no base64", b"%%%%"), ("half a base64 group", text(hello)[:-3]):
        a = call(port, "Echo", bad, TEXT)
        right = a.status, a.trailer("grpc-status"), "bad_request" in a.headers.get("proxy-status", "")
        check.equal(right, (200, "13", True), f"raw: {word} is refused, in gRPC's words")
    over_http2(check, port, hello)
    local_replies(check, out, hello)


def in_small_chunks(port, body):
    """A call whose body comes in chunks of a byte each: the raw answer."""
    head = f"POST /trial.Trial/Echo HTTP/1.1\r\nhost: web\r\ncontent-type: {TEXT}\r\ntransfer-encoding: chunked\r\n"
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(head.encode() + b"connection: close\r\n\r\n")
        for byte in body:
            s.sendall(b"1\r\n%c\r\n" % byte)
        s.sendall(b"0\r\n\r\n")
        return b"".join(iter(lambda: s.recv(65536), b""))


def over_http2(check, port, body):
    argv = ["curl", "-sS", "-m", "10", "--http2-prior-knowledge", "--data-binary", "@-", "-H", f"content-type: {BINARY}"]
    p = subprocess.run([*argv, f"http://127.0.0.1:{port}/trial.Trial/Echo"], input=body, capture_output=True, timeout=20)
    try:
        got = [flags for flags, _ in frames(p.stdout)], frames(p.stdout)[0][1]
    except (ValueError, IndexError):
        got = p.stdout, p.stderr
    check.equal(got, ([0, TRAILERS], body[5:]), "raw: gRPC-Web over HTTP/2 stays gRPC-Web")


def local_replies(check, out, hello):
    for word, kind, body in ("binary", BINARY, hello), ("text", TEXT, text(hello)):
        a = call(out.http, "Echo", body, kind, host="stranger")
        right = a.status, a.kind.split(";")[0].removesuffix("+proto"), a.trailer("grpc-status"), a.messages
        wanted = 200, kind.removesuffix("+proto"), "12", []
        check.equal(right, wanted, f"raw, {word}: an unknown service is UNIMPLEMENTED in gRPC-Web's words")
        check.that("unknown_service" in a.headers.get("proxy-status", ""), f"raw, {word}: and Proxy-Status says why", a)
        words = urllib.parse.unquote(a.trailer("grpc-message") or "")
        check.that(words, f"raw, {word}: and the message says so to a person ({words})", a)
