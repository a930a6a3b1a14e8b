"""What `bench/faults` found: lines for the terminal, a page, a picture, and the targets that outrigger has set itself."""

OURS, SAVED = "outrigger", "outrigger with fallback"
# Milliseconds, as all times here.
ATTEMPT, OPEN_FOR, BULKHEAD = 300.0, 5.0, 100


def line(fault, name, f):
    refusal = "–" if f["refusal"] is None else f"{f['refusal']:.1f}"
    back = "not" if f["recovered"] is None else f"{f['recovered']:.2f} s"
    return (
        f"{fault:26} {name:24} {f['ok']:7.2%} ok  {f['amplification']:5.2f} upstream  p50 {f['p50']:7.1f}  "
        f"p99 {f['p99']:7.1f} ms  most {f['most']:4}  refusal {refusal:>6} ms  back after {back}"
    )


def targets(results, kinds):
    """Each target: whether it is met, and in which words."""
    found = []
    for fault, kind in kinds.items():
        f = results.get(fault, {}).get(OURS)
        if f and kind in ("one", "rolling"):
            most = 1.5 * f["healthy_p99"] + ATTEMPT
            found.append((f["ok"] >= 0.999, f"{fault}: {f['ok']:.2%} succeed (99.9 %)"))
            found.append((f["amplification"] <= 1.1, f"{fault}: {f['amplification']:.2f} upstream calls a call (1.1)"))
            found.append((f["p99"] <= most, f"{fault}: p99 {f['p99']:.0f} ms ({most:.0f})"))
        if f and kind == "share":
            found.append((f["ok"] >= 0.99, f"{fault}: {f['ok']:.2%} succeed (99 %)"))
            found.append((f["amplification"] <= 1.25, f"{fault}: {f['amplification']:.2f} upstream calls a call (1.25)"))
        if f and kind == "all":
            refusal = f["refusal"] if f["refusal"] is not None else float("inf")
            found.append((refusal < 1.0, f"{fault}: the median refusal takes {refusal:.2f} ms (1)"))
            found.append((f["late"] < 0.05, f"{fault}: the upstream gets {f['late']:.1%} of the calls (5 %)"))
            found.append((f["most"] <= BULKHEAD, f"{fault}: at most {f['most']} callers wait ({BULKHEAD})"))
            back = f["recovered"] if f["recovered"] is not None else float("inf")
            found.append((back <= OPEN_FOR + 1, f"{fault}: well again after {back:.2f} s ({OPEN_FOR + 1:.0f})"))
        if saved := results.get(fault, {}).get(SAVED):
            found.append((saved["ok"] == 1.0, f"{fault}: with a fallback {saved['ok']:.2%} are answered (100 %)"))
    return found


def page(results, verdicts, times, rate):
    healthy, lasts, _ = times
    text = f"""# When a dependency fails

What callers live through, measured by `bench/faults` on one machine, all peers of a fault in one run: three endpoints, {rate} calls a second in an
open loop, {healthy:g} s of health, {lasts:g} s of the fault, and then health again. Every peer bears the same limits on time (300 ms an
attempt, 1 s a call where it has such a limit); their files are in [`bench/peers/faults`](../bench/peers/faults), to be read and contested.
outrigger's own is at its defaults otherwise.

![Share of calls answered 200 while a fault lasts](faults.svg)

"""
    for fault, by_peer in results.items():
        text += f"## {fault[0].upper()}{fault[1:]}\n\n"
        text += "| | answered 200 | upstream calls a call, after 1 s | and at last | p50 ms | p99 ms | most waiting | median refusal ms | well again after |\n"
        text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        for name, f in by_peer.items():
            refusal = "–" if f["refusal"] is None else f"{f['refusal']:.1f}"
            back = "not in time" if f["recovered"] is None else f"{f['recovered']:.2f} s"
            text += f"| {name} | {f['ok']:.2%} | {f['amplification']:.2f} | {f['late']:.2f} | {f['p50']:.1f} | {f['p99']:.0f} | {f['most']} | {refusal} | {back} |\n"
        text += "\n"
    text += "## Targets\n\nWhat outrigger wants to be held to, in brackets, and what this run has shown:\n\n| | |\n|---|---|\n"
    for met, words in verdicts:
        text += f"| {'met' if met else '**missed**'} | {words} |\n"
    text += """
Latencies count from when a call should have gone out, and include the caller, which is a Python program; refusals count from when
they were asked for. A body that was cut short after its first byte had gone to the caller cannot be tried again by anybody: what counts
there is how soon the endpoint is left out.
"""
    return text


COLOURS = {OURS: "#0a7d5a", SAVED: "#6fbf9f", "haproxy": "#3568b8", "nginx": "#b8862f", "envoy": "#a3477f"}


def picture(results):
    """A bar a peer and fault; drawn so that it reads on light and dark pages."""
    width, left, bar, gap = 860, 200, 11, 16
    rows, y = [], 46
    names = [name for name in COLOURS if any(name in by_peer for by_peer in results.values())]
    for n, name in enumerate(names):
        x = left + n * 130
        rows.append(f'<rect x="{x}" y="12" width="11" height="11" fill="{COLOURS[name]}"/>')
        rows.append(f'<text x="{x + 16}" y="22">{name.replace("outrigger with fallback", "… with fallback")}</text>')
    for fault, by_peer in results.items():
        rows.append(f'<text x="{left - 10}" y="{y + 11 + bar * (len(by_peer) - 1) / 2:.0f}" text-anchor="end">{fault}</text>')
        for name in (name for name in names if name in by_peer):
            share = by_peer[name]["ok"]
            long = max(1.0, share * (width - left - 70))
            rows.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="{bar - 2}" fill="{COLOURS[name]}"/>')
            rows.append(f'<text x="{left + long + 6:.1f}" y="{y + 9}" class="n">{share:.1%}</text>')
            y += bar
        y += gap
    style = "text{font:13px system-ui,sans-serif;fill:#777}.n{font-size:10px}"
    body = "\n".join(rows)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" role="img" aria-label="Share of calls answered 200 while a fault lasts"><style>{style}</style>\n{body}\n</svg>\n'
