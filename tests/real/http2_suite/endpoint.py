"""Plays the endpoint that breaks the rules, and asks three things: what the proxy told it, what the app saw, and
whether the next call is served as if nothing had happened.

Each case is played to an app that speaks HTTP/1.1 and to one that speaks HTTP/2, each time behind a service and a
port of its own. A case breaks the rules once, at its first request (or on its first connection); all requests
otherwise are answered as they should be.
"""

import asyncio
import socket
from dataclasses import dataclass, field

from . import calls
from .expect import ANYTHING, Expect
from .wire import GOAWAY, HEADERS, PREFACE, SETTINGS, Closed, Link, data, headers, ping, settings

APPS = ("http1", "http2")
# A step that waits until the proxy has read all before it: it answers a PING.
_WORD = b"barrier."
BARRIER = ping(_WORD)
PATIENCE = 5.0
AT_ONCE = 12
HEAD = [(":status", "200"), ("content-type", "text/plain")]


def ok(stream):
    """The answer that every app hopes for."""
    return headers(stream, HEAD, 0x4) + data(stream, calls.BODY)


@dataclass(frozen=True)
class Case:
    """`steps` are bytes, functions of the request's stream (or streams) that make bytes, coroutine functions of the
    link and the streams, BARRIER, and None, which closes the connection. `told` is what the proxy has to say to that; None if
    the endpoint is within its rights, and must not be told off. `sees` are the outcomes that an app may see."""

    section: str
    what: str
    steps: list
    told: Expect | None
    sees: tuple
    opening: bytes = settings()
    calls: int = 1  # at the same time; the steps begin when all of them are there
    upload: bool = False
    reads: bool = True  # whether the app reads the answer's body
    deaf: bool = False  # whether the endpoint never reads
    limit: int = 0  # of open streams on a connection; each answer then waits until the proxy has read what was before
    leaves: bool = False  # whether the app goes away once the endpoint has its call; it sees nothing then
    apps: tuple = APPS

    @property
    def name(self):
        return f"{self.section} {self.what}"


@dataclass
class Watch:
    """What the proxy said on one connection, for an expectation to read later."""

    seen: list = field(default_factory=list)
    queue: asyncio.Queue = field(default_factory=asyncio.Queue)

    async def receive(self):
        frame = await self.queue.get()
        if frame is None:
            self.queue.put_nowait(None)
            raise Closed
        self.seen.append(frame)
        return frame


class Endpoint:
    """One case's endpoint, for one app."""

    def __init__(self, case, app, number):
        self.case, self.app, self.service = case, app, f"case{number}"
        self.waiting, self.played, self.links, self.watch = [], False, [], None
        self.tasks, self.pongs, self.asked, self.most_open = [], {}, asyncio.Event(), 0

    async def __aenter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.tasks.append(asyncio.create_task(self._accept()))
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.listener.close()
        for link in self.links:
            link.close()

    async def _accept(self):
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            self.tasks.append(asyncio.create_task(self._serve(Link(sock))))

    async def _serve(self, link):
        watch, first = Watch(), not self.links
        self.links.append(link)
        self.watch = self.watch or watch
        await link.send(self.case.opening if first or self.case.limit else settings())
        if first and self.case.deaf:
            return
        try:
            if await link.exactly(len(PREFACE)) != PREFACE:
                raise Closed("this is not HTTP/2")
            while True:
                frame = await link.receive()
                watch.queue.put_nowait(frame)
                if frame.acks and (pong := self.pongs.get((link, frame.payload))):
                    pong.set()
                if frame.kind == HEADERS:
                    await self._request(link, watch, frame.stream)
        except Closed:
            watch.queue.put_nowait(None)
            link.close()

    async def _request(self, link, watch, stream):
        if self.case.limit:
            return self.tasks.append(asyncio.create_task(self._one_of_few(link, stream)))
        # Of several calls, one before them makes the connection that they share.
        before = self.case.calls > 1 and stream == 1
        if self.played or before or link is not self.links[0]:
            return await link.send(ok(stream))
        self.waiting.append(stream)
        self.asked.set()
        if len(self.waiting) == self.case.calls:
            self.played, self.watch = True, watch
            self.tasks.append(asyncio.create_task(self._play(link)))

    async def _round(self, link, word):
        """Sends a PING and waits for its answer."""
        pong = self.pongs[link, word] = asyncio.Event()
        await link.send(ping(word))
        await pong.wait()

    async def _one_of_few(self, link, stream):
        # What a proxy sends before it knows of the limit is no fault of its own.
        knows = any(f.kind == SETTINGS and f.acks for f in link.seen)
        self.waiting += [(link, stream)] * knows
        self.most_open = max(self.most_open, sum(other is link for other, _ in self.waiting))
        await self._round(link, stream.to_bytes(8, "big"))
        if knows:
            self.waiting.remove((link, stream))
        await link.send(ok(stream))

    async def _play(self, link):
        for step in self.case.steps:
            if step is None:
                link.hang_up()
            elif step is BARRIER:
                await self._round(link, _WORD)
            elif isinstance(step, bytes):
                await link.send(step)
            elif asyncio.iscoroutinefunction(step):
                await step(link, *self.waiting)
            else:
                await link.send(step(*self.waiting))


async def run(endpoints, target):
    """Plays these to the end; yields (endpoint, "" or what was wrong) in their order."""
    room = asyncio.Semaphore(AT_ONCE)

    async def play(endpoint):
        async with room:
            return await _check(endpoint, target)

    for endpoint, playing in [(e, asyncio.create_task(play(e))) for e in endpoints]:
        yield endpoint, await playing


async def _check(e, target):
    case, wrong = e.case, []
    if case.calls > 1 and (outcome := await calls.call(e.app, target.port, e.service)) != "ok":
        wrong.append(f"the call before: {outcome}")
    how = {"upload": case.upload, "reads": case.reads}
    playing = [asyncio.create_task(calls.call(e.app, target.port, e.service, **how)) for _ in range(case.calls)]
    if case.leaves:
        await asyncio.wait([asyncio.create_task(e.asked.wait())], timeout=PATIENCE)
        playing[0].cancel()
    saw = await asyncio.gather(*playing, return_exceptions=case.leaves)
    if not case.leaves and not _as_wanted(saw, case, target):
        wrong.append(f"the app saw {', '.join(saw)} instead of {' or '.join(case.sees) if case.calls == 1 else ', '.join(case.sees)}")
    if case.limit and e.most_open > case.limit:
        wrong.append(f"{e.most_open} streams at once where {case.limit} are allowed")
    if not e.links:
        return "; ".join(["the endpoint was not even tried", *wrong])
    if case.told and case.told is not ANYTHING:
        if told := await case.told.on(e.watch, PATIENCE):
            wrong.append(f"the endpoint {told}")
    # A dead connection may have to be found out first.
    for _ in range(4 if case.deaf else 1):
        if (outcome := await calls.call(e.app, target.port, e.service)) == "ok":
            break
    else:
        wrong.append(f"the next call: {outcome}")
    if not case.told and (angry := [str(f) for f in _frames(e.watch) if f.kind == GOAWAY and f.code]):
        wrong.append(f"the endpoint did nothing wrong, and was told {', '.join(angry)}")
    return "; ".join(wrong)


def _as_wanted(saw, case, target):
    """One call sees one of the outcomes; several see them all, in whatever order."""
    def one(outcome, wanted):
        if outcome == wanted:
            return True
        # Other proxies have other words for their local replies, or none but RST_STREAM.
        return not target.ours and wanted in calls.STATUS and (outcome.startswith("status 5") or outcome == "none")

    if case.calls == 1:
        return any(one(saw[0], wanted) for wanted in case.sees)
    left = list(case.sees)
    for outcome in sorted(saw):
        match = next((w for w in left if one(outcome, w)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _frames(watch):
    while not watch.queue.empty():
        if (frame := watch.queue.get_nowait()) is not None:
            watch.seen.append(frame)
    return watch.seen
