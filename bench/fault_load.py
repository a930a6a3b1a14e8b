"""An open-loop caller: so many calls a second, whatever becomes of those before; each timed from its intended start."""

import asyncio

REQUEST = b"GET /item HTTP/1.1\r\nhost: orders\r\n\r\n"
# Longer than any peer should let a caller wait.
PATIENCE = 10.0


class Call(asyncio.Protocol):
    """One connection of the caller's; it carries a call at a time."""

    def __init__(self, pool):
        self.pool, self.waiting, self.buffer, self.transport = pool, None, b"", None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, _error):
        if self in self.pool:
            self.pool.remove(self)
        self._done(0)

    def _done(self, status):
        waiting, self.waiting = self.waiting, None
        if waiting and not waiting.done():
            waiting.set_result(status)

    def data_received(self, data):
        self.buffer += data
        head, sep, body = self.buffer.partition(b"\r\n\r\n")
        if not sep:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        status = int(head.split(b" ", 2)[1])
        self.buffer = b""
        if b"connection: close" in lower:
            self.transport.close()
        else:
            self.pool.append(self)
        self._done(status)


class Load:
    """Calls at a port; of each a record: intended start, latency from that, status, and time from when it was sent."""

    def __init__(self, port, rate):
        self.port, self.rate, self.pool, self.records = port, rate, [], []
        self.outstanding, self.tasks = 0, set()

    async def _call(self, intended):
        loop = asyncio.get_running_loop()
        self.outstanding += 1
        status, sent = 0, intended
        connection = None
        try:
            async with asyncio.timeout(PATIENCE):
                if self.pool:
                    connection = self.pool.pop()
                else:
                    _, connection = await loop.create_connection(lambda: Call(self.pool), "127.0.0.1", self.port)
                connection.waiting = loop.create_future()
                sent = loop.time()
                connection.transport.write(REQUEST)
                status = await connection.waiting
        except (TimeoutError, OSError):
            if connection:
                connection.transport.abort()
        finally:
            self.outstanding -= 1
            now = loop.time()
            self.records.append((intended, now - intended, status, now - sent))

    async def run(self, seconds, until=None):
        """Calls for so long, or until `until` says that it is enough; the most that waited at once."""
        loop = asyncio.get_running_loop()
        begun, n, most = loop.time(), 0, 0
        while loop.time() - begun < seconds and not (until and until()):
            intended = begun + n / self.rate
            if (pause := intended - loop.time()) > 0:
                await asyncio.sleep(pause)
            task = loop.create_task(self._call(intended))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            n += 1
            most = max(most, self.outstanding)
        return begun, most

    async def finish(self):
        await asyncio.gather(*self.tasks)
        for connection in list(self.pool):
            connection.transport.abort()
