"""What a process has used, by the kernel's own books in /proc: CPU time and memory, its children included.

CPU comes from `schedstat` (nanoseconds on a core, per thread) where the kernel keeps it, else from `stat` (clock
ticks). Both count the kernel's work on the process's behalf, which for a proxy is most of it.
"""

import os
import pathlib

_TICK = 1e9 / os.sysconf("SC_CLK_TCK")


def family(pid):
    """The process and all that descend from it, as they are now."""
    pids, found = [pid], []
    while pids:
        p = pids.pop()
        found.append(p)
        for children in pathlib.Path(f"/proc/{p}/task").glob("*/children"):
            try:
                pids += map(int, children.read_text().split())
            except OSError:
                continue  # the thread has ended since
    return found


def cpu_ns(pid):
    """CPU time used so far by the family, in nanoseconds."""
    return sum(_threads_ns(p) for p in family(pid))


def _threads_ns(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * _TICK
    return total


def memory_mib(pid):
    """Memory of the family now, in MiB: (resident, proportional share)."""
    rss = pss = 0
    for p in family(pid):
        rollup = dict(_kib(f"/proc/{p}/smaps_rollup"))
        rss, pss = rss + rollup["Rss"], pss + rollup["Pss"]
    return rss / 1024, pss / 1024


def peak_mib(pid):
    """The most that the family has ever had resident, in MiB (each process's own peak, added)."""
    return sum(dict(_kib(f"/proc/{p}/status"))["VmHWM"] for p in family(pid)) / 1024


def _kib(path):
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            yield key, int(words[0])
