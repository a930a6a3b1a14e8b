"""From samples to one page of Markdown: medians over the rounds, each peer's ratio to HAProxy and Envoy, and whether
outrigger is where it is meant to be."""

import datetime
import pathlib
import platform
import statistics

US, REFERENCES = "outrigger", {"haproxy": "HAProxy", "envoy": "Envoy"}


def page(command, peers, missing, samples, memory, rounds, seconds):
    """The whole page. `samples[case][peer name]` is a list, one per round; `memory[peer name]` three numbers."""
    out = [
        "# Benchmarks",
        "",
        "One run of `bench/run`: the peers side by side, each pinned to one core with one thread for traffic; the load"
        " (wrk, h2load for HTTP/2) and the origin (nginx, nghttpd for HTTP/2) on another core. The configurations are in"
        " `bench/peers/`; access logs are off, connections to the origin are kept, five services are configured.",
        "",
        f"    {command}",
        "",
        f"- {datetime.date.today().isoformat()}, {machine()}",
        "- " + ", ".join(f"{p.name} {p.version}" for p in peers if p.program),
        f"- {rounds} round{'s' if rounds > 1 else ''} of {seconds} s per case and peer, the peers taking turns; medians",
    ]
    out += [f"- {name} is missing: {why}" for name, why in missing.items()]
    for case, by_peer in samples.items():
        out += ["", f"## {case.title}", ""]
        out += table(
            ["", "CPU µs per call", *_TO.values(), "calls/s", "p50 µs", "p99 µs", "its core busy", "errors"],
            [_row(p.name, by_peer) for p in peers if p.name in by_peer],
        )
        out += _targets(case, by_peer)
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


_TO = {name: f"to {title}" for name, title in REFERENCES.items()}


def _cost(samples):
    """CPU per call; None without a proxy, and without samples."""
    if not samples or samples[0].cpu_us is None:
        return None
    return statistics.median(s.cpu_us for s in samples)


def _ratio(by_peer, name, reference):
    one, other = _cost(by_peer.get(name)), _cost(by_peer.get(reference))
    return one / other if one and other else None


def _row(name, by_peer):
    samples = by_peer[name]

    def median(of):
        return statistics.median(of(s) for s in samples)

    cost = _cost(samples)
    ratios = [_ratio(by_peer, name, reference) for reference in REFERENCES]
    return [
        name,
        "–" if cost is None else f"{cost:.1f}",
        *("–" if r is None else f"{r:.2f}" for r in ratios),
        f"{median(lambda s: s.per_second):,.0f}",
        f"{median(lambda s: s.p50_us):,.0f}",
        f"{median(lambda s: s.p99_us):,.0f}",
        "–" if cost is None else f"{median(lambda s: s.busy):.0%}",
        str(sum(s.errors for s in samples)),
    ]


def _targets(case, by_peer):
    """What the case is meant to show, and whether it did; nothing where it cannot tell."""
    told = []
    for reference, most in case.targets:
        if (ratio := _ratio(by_peer, US, reference)) is not None:
            met = "met" if ratio <= most else "missed"
            told.append(f"at most {most:.2f} of {REFERENCES[reference]}'s CPU per call, is {ratio:.2f}: {met}")
    return ["", f"Target: {'; '.join(told)}."] if told else []


# What follows this line on a page is bench/many's, and stays when bench/run writes the rest anew.
_MANY = "<!-- bench/many -->\n"


def write(path, page):
    """Replaces what bench/run has written on a page."""
    _, mark, many = _parts(path)
    path.write_text(page + (f"\n{mark}{many}" if mark else ""))


def append(path, section):
    """Replaces what bench/many has written on a page."""
    page, _, _ = _parts(path)
    path.write_text(f"{page.rstrip()}\n\n{_MANY}\n{section.rstrip()}\n")


def _parts(path):
    return (path.read_text() if path.exists() else "").partition(_MANY)


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
