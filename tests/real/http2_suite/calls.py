"""What an app sees of one call, by HTTP/1.1 and by HTTP/2, to the byte: complete, cut short, or nothing.

A call's outcome is one word, so that tables can name it: `ok`, the reason of a local reply, `cut` (a head came, and
its body did not end as it should), `none` (the connection or stream ended without a head), `refused` (there was no
connection), `hang`, or `status N`.
"""

import asyncio
import re
import sys
from dataclasses import dataclass, field

from stage import venv

from .wire import (
    DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW, PREFACE, RST_STREAM, Closed, Link, data,
    headers, settings, window_update,
)

BODY = b"hello"
# Longer than any time-out of the cases: a call that takes it hangs.
PATIENCE = 6.0
# What an upload sends; more than fits in a window that nobody opens.
UPLOAD = bytes(200_000)
# The HTTP status of each reason that a case may call for.
STATUS = {
    "bad_response": 502, "upstream_reset": 502, "request_timeout": 504, "connect_timeout": 504, "connect_refused": 502,
    "no_endpoints": 503, "bulkhead_full": 503,
}


@dataclass
class Answer:
    """An answer as far as it came."""

    status: int = 0
    fields: dict = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    @property
    def outcome(self):
        if not self.status:
            return "none"
        if not self.complete:
            return "cut"
        told = self.fields.get("proxy-status", "")
        if found := re.search(r'^outrigger;.* details="(\w+)"', told):
            right = STATUS.get(found[1]) == self.status and b'"reason"' in self.body
            return found[1] if right else f"{found[1]} as {self.status}"
        return "ok" if self.status == 200 and self.body == BODY else f"status {self.status}"


def decoder():
    """A decoder of field blocks with its state; hpack is fetched once."""
    if not any("venv-http2" in p for p in sys.path):
        sys.path += map(str, venv("http2", ["hpack==4.1.0"]).glob("lib/python*/site-packages"))
    import hpack

    return hpack.Decoder()


async def call(app, port, service, upload=False, reads=True):
    """One call through `port`; its outcome. With `reads` off, an HTTP/2 app opens no window for the answer."""
    answer = Answer()
    try:
        async with asyncio.timeout(PATIENCE):
            if app == "http1":
                await _http1(answer, port, service, upload)
            else:
                await _http2(answer, port, service, upload, reads)
    except TimeoutError:
        return "hang"
    except ConnectionRefusedError:
        return "refused"
    return answer.outcome


async def _http1(answer, port, service, upload):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{'POST' if upload else 'GET'} / HTTP/1.1\r\nHost: {service}\r\n"
        writer.write((head + f"Content-Length: {len(UPLOAD)}\r\n\r\n" * upload + "\r\n" * (not upload)).encode())
        if upload:
            writer.write(UPLOAD)
        while answer.status < 200:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            answer.status = int(lines[0].split()[1])
        answer.fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        if "chunked" in answer.fields.get("transfer-encoding", ""):
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                answer.body += (await reader.readexactly(size + 2))[:-2]
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif "content-length" in answer.fields:
            answer.body = await reader.readexactly(int(answer.fields["content-length"]))
        else:
            answer.body = await reader.read()
        answer.complete = True
    except (asyncio.IncompleteReadError, ConnectionError):
        if answer.status < 200:
            answer.status = 0
    finally:
        writer.close()


async def _http2(answer, port, service, upload, reads):
    fields = [(":method", "POST" if upload else "GET"), (":scheme", "http"), (":path", "/"), (":authority", service)]
    unpack = decoder()
    async with await Link.open(port) as link:
        await link.send(PREFACE, settings((ENABLE_PUSH, 0), (INITIAL_WINDOW, 1 << 20 if reads else 0)))
        await link.send(headers(1, fields, END_HEADERS | END_STREAM * (not upload)))
        sending = asyncio.create_task(_upload(link)) if upload else None
        try:
            while not answer.complete:
                f = await link.receive()
                if f.kind == GOAWAY and f.code:
                    break
                if f.stream != 1:
                    continue
                if f.kind == RST_STREAM:
                    break
                if f.kind == HEADERS and answer.status < 200:
                    answer.fields = dict(unpack.decode(f.payload))
                    answer.status = int(answer.fields.get(":status", 0))
                if f.kind == DATA:
                    answer.body += f.payload
                    await link.send(window_update(0, len(f.payload) or 1))
                answer.complete = f.ends
        except Closed:
            pass
        finally:
            if sending:
                sending.cancel()
    if answer.status < 200:
        answer.status = 0


async def _upload(link):
    """Sends what the first windows allow; the test needs no more of it."""
    for at in range(0, 65535 - 16383, 16383):
        await link.send(data(1, UPLOAD[at : at + 16383], 0))
