"""What a load tool says it saw, whichever it was."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Seen:
    """One run of the tool."""

    calls: int
    errors: int
    seconds: float
    p50_us: float
    p99_us: float


def us(text):
    """Microseconds of `12.3ms`, as wrk and h2load write durations."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]
