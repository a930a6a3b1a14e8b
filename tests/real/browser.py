"""A real browser (Debian's chromium, headless) and the pages that it opens, each of an origin of its own."""

import contextlib
import http.server
import json
import queue
import shutil
import threading

# The page does what it was made for, and tells its own server what came of it.
PAGE = """<!doctype html><meta charset="utf-8"><script>
(async () => { @SCRIPT@ })()
  .catch((problem) => ({ problem: String(problem) }))
  .then((result) => fetch("/result", { method: "POST", body: JSON.stringify(result) }));
</script>"""


class Page:
    """A page on a server of its own, and so of an origin of its own: `http://127.0.0.1:PORT`.

    `script` is the body of an asynchronous function; what it returns is the page's result, or `problem` if it threw.
    """

    def __init__(self, script=""):
        self.script, self._results = script, queue.Queue()
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/":
                    self._answer(200, PAGE.replace("@SCRIPT@", page.script).encode(), "text/html")
                else:
                    self._answer(404, b"", "text/plain")

            def do_POST(self):
                page._results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self._answer(204, b"", "text/plain")

            def _answer(self, status, body, kind):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def open(self, stage, seconds=40):
        """Opens the page in a fresh browser: its result, or `problem` if it came to none."""
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if not program:
            raise FileNotFoundError("no browser here (Debian: apt-get install chromium)")
        profile = stage.folder / f"browser-{self.origin.rpartition(':')[2]}"
        quiet = "no-sandbox disable-gpu disable-dev-shm-usage disable-background-networking disable-component-update"
        quiet += " disable-sync disable-extensions no-first-run no-proxy-server headless=new"
        argv = [program, *(f"--{option}" for option in quiet.split()), f"--user-data-dir={profile}", f"{self.origin}/"]
        running = stage.start("browser", argv)
        try:
            with contextlib.suppress(queue.Empty):
                return self._results.get(timeout=seconds)
            return {"problem": f"no result within {seconds} s", "log": running.tail()}
        finally:
            running.stop()
