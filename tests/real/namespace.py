"""Network namespaces of a test's own: hosts with addresses and ports that nobody else has, on a wire between them.

A `Wire` is a context manager; what it made is gone when it is left. It needs root and iproute2. Sockets that are made
within `with namespace.inside():` belong to that host for good, whoever uses them from where.
"""

import contextlib
import ctypes
import os
import pathlib
import subprocess

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


class Namespace:
    """A host; its name is of this process alone."""

    def __init__(self, name):
        self.name = f"outrigger-{os.getpid()}-{name}"
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def remove(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)

    def ip(self, *words):
        ip("-n", self.name, *words)

    def argv(self, *words, user=None):
        """The command line that runs this one here; as a user without any capability, if one is given."""
        bare = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", *bare] if user is not None else []
        return [str(w) for w in ("ip", "netns", "exec", self.name, *drop, *words)]

    def run(self, *words, user=None, text=None, seconds=20):
        """Runs a command here: (exit code, what it said)."""
        p = subprocess.run(self.argv(*words, user=user), input=text, capture_output=True, text=True, timeout=seconds)
        return p.returncode, p.stdout + p.stderr

    @contextlib.contextmanager
    def inside(self):
        """Has this thread's new sockets belong here."""
        with open("/proc/thread-self/ns/net") as before, open(pathlib.Path("/run/netns", self.name)) as here:
            enter(here)
            try:
                yield
            finally:
                enter(before)


class Wire:
    """Two hosts, each with these addresses of one network of 24 bits."""

    def __init__(self, **hosts):
        self.hosts = hosts

    def __enter__(self):
        self.made = {}
        try:
            ends = [f"v{os.getpid()}{letter}" for letter in "ab"]
            for name in self.hosts:
                self.made[name] = Namespace(name)
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for end, (name, addresses) in zip(ends, self.hosts.items()):
                host = self.made[name]
                ip("link", "set", end, "netns", host.name)
                for address in addresses:
                    host.ip("address", "add", f"{address}/24", "dev", end)
                host.ip("link", "set", end, "up")
        except Exception:
            self.__exit__()
            raise
        return [self.made[name] for name in self.hosts]

    def __exit__(self, *_):
        for host in self.made.values():
            host.remove()


def ip(*words):
    p = subprocess.run(["ip", *words], capture_output=True, text=True)
    if p.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {p.stderr.strip()}")


def enter(namespace):
    if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
