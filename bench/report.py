"""From samples to one page of Markdown: medians over the rounds, and each peer's ratio to HAProxy."""

import datetime
import pathlib
import platform
import statistics

REFERENCE = "haproxy"


def page(command, peers, missing, samples, memory, rounds, seconds):
    """The whole page. `samples[case][peer name]` is a list, one per round; `memory[peer name]` three numbers."""
    out = [
        "# Benchmarks",
        "",
        "One run of `bench/run`: the peers side by side, each pinned to one core with one thread for traffic; the load"
        " (wrk) and the origin (nginx) on another core. The configurations are in `bench/peers/`; access logs are off,"
        " connections to the origin are kept, three services are configured.",
        "",
        f"    {command}",
        "",
        f"- {datetime.date.today().isoformat()}, {machine()}",
        "- " + ", ".join(f"{p.name} {p.version}" for p in peers if p.program),
        f"- {rounds} rounds of {seconds} s per case and peer, the peers taking turns; medians",
    ]
    out += [f"- {name} is missing: {why}" for name, why in missing.items()]
    for case, by_peer in samples.items():
        out += ["", f"## {case.title}", ""]
        out += table(
            ["", "CPU µs per call", "to HAProxy", "calls/s", "p50 µs", "p99 µs", "its core busy", "errors"],
            [_row(p.name, by_peer[p.name], by_peer.get(REFERENCE)) for p in peers],
        )
    out += ["", "## Memory, MiB", ""]
    out += table(
        ["", "idle, resident", "idle, proportional", "peak, resident"],
        [[name, *(f"{n:.1f}" for n in numbers)] for name, numbers in memory.items()],
    )
    out += ["", *NOTES]
    return "\n".join(out) + "\n"


NOTES = [
    "CPU is the process's own, children and kernel work on its behalf included, from the kernel's accounting. It is the",
    "number to compare. Calls per second and latency come from a closed loop whose load and origin share a core, so they",
    "are theirs as much as the peer's: where a peer's core is not busy, the other one was the limit. Idle memory is taken",
    "when a peer is ready and has carried a single call; peak memory at the end of the run.",
]


def _row(name, samples, reference):
    def median(of):
        return statistics.median(of(s) for s in samples)

    cpu = ratio = busy = "–"
    if samples[0].cpu_us is not None:
        cost = median(lambda s: s.cpu_us)
        cpu, busy = f"{cost:.1f}", f"{median(lambda s: s.busy):.0%}"
        if reference:
            ratio = f"{cost / statistics.median(s.cpu_us for s in reference):.2f}"
    errors = sum(s.errors for s in samples)
    return [
        name,
        cpu,
        ratio,
        f"{median(lambda s: s.per_second):,.0f}",
        f"{median(lambda s: s.p50_us):,.0f}",
        f"{median(lambda s: s.p99_us):,.0f}",
        busy,
        str(errors),
    ]


def table(head, rows):
    """A Markdown table whose columns also line up as plain text; numbers to the right."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]

    def line(cells):
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(cells) + " |"

    rule = [("-" * w) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(head), "|" + "|".join(f" {r} " for r in rule) + "|", *map(line, rows)]


def machine():
    """The machine in a line."""
    info = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    cores = sum(line.startswith("processor") for line in info)
    return f"{models[0] if models else platform.machine()}, {cores} cores, Linux {platform.release()}"
