"""Plays the app that breaks the rules: each case on a connection of its own, many at a time."""

import asyncio

from . import listener_frames, listener_generic, listener_messages, listener_streams
from .expect import Expect
from .wire import Closed, Link

CASES = [
    case
    for module in (listener_generic, listener_streams, listener_frames, listener_messages)
    for case in module.CASES
]
# As long as the suites that people know wait for a reaction is 2 s; a busy machine gets more.
PATIENCE = 5.0
AT_ONCE = 16


async def run(port, cases=CASES):
    """Plays every case against `port`; yields (case, "" or what was wrong) in the order of the table."""
    room = asyncio.Semaphore(AT_ONCE)

    async def play(case):
        async with room:
            return await _play(case, port)

    for case, playing in [(case, asyncio.create_task(play(case))) for case in cases]:
        yield case, await playing


async def _play(case, port):
    async with await Link.open(port) as link:
        try:
            if case.shakes_hands:
                async with asyncio.timeout(PATIENCE):
                    await link.handshake()
        except (Closed, TimeoutError) as e:
            return f"no handshake: {type(e).__name__} after {', '.join(map(str, link.seen)) or 'nothing'}"
        for step in case.steps:
            if isinstance(step, bytes):
                await link.send(step)
            elif isinstance(step, Expect):
                if wrong := await step.on(link, PATIENCE):
                    return wrong
            else:
                try:
                    await step(link)
                except AssertionError as e:
                    return str(e)
        return await case.expect.on(link, PATIENCE)
