"""A caller that never stops: one keep-alive connection, a steady rate, every answer written down.

A test changes the world under it and then asks what it saw: no failure, or only failures of a stated kind.
"""

import collections
import http.client
import threading
import time


class Caller:
    """Calls `service` through `port` at `rate` a second until stopped; a context manager."""

    def __init__(self, port, service, path="/", rate=100):
        self.port, self.service, self.path, self.pause = port, service, path, 1 / rate
        self.seen = []  # "200 127.0.1.1:80", "503", "ConnectionResetError", one per call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def mark(self):
        """The number of calls so far, to ask `since` with."""
        return len(self.seen)

    def since(self, mark=0):
        """How often each thing was seen after `mark`."""
        return collections.Counter(self.seen[mark:])

    def failures(self, mark=0):
        """What was seen after `mark` that is no 200."""
        return {what: n for what, n in self.since(mark).items() if not what.startswith("200")}

    def endpoints(self, mark=0):
        """Who answered after `mark`."""
        return {what.split()[1] for what in self.since(mark) if what.startswith("200 ")}

    def more(self, calls, seconds=30):
        """Waits until so many more calls were made; the mark from which they count."""
        mark = self.mark()
        end = time.monotonic() + seconds
        while self.mark() < mark + calls:
            if time.monotonic() > end:
                raise TimeoutError(f"the caller made {self.mark() - mark} of {calls} calls in {seconds} s")
            time.sleep(0.01)
        return mark

    def _run(self):
        connection = None
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
                connection.request("GET", self.path, headers={"Host": self.service})
                answer = connection.getresponse()
                answer.read()
                self.seen.append(f"{answer.status} {answer.getheader('x-endpoint', '')}".strip())
            except (OSError, http.client.HTTPException) as e:
                self.seen.append(type(e).__name__)
                connection.close()
                connection = None
            due = max(due + self.pause, time.monotonic() - 0.5)
            self._stop.wait(max(0.0, due - time.monotonic()))
        if connection:
            connection.close()
