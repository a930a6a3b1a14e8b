"""What a part reports: one line per check, so that a person can read it and `tests/real/run` can count it.

    ok   dns: an added endpoint gets calls
    FAIL dns: a removed endpoint gets none: 3 calls after 2 s
    skip smuggling: no smugglex here: cargo could not fetch it
"""

import sys
import traceback

from stage import Stage, happens


class Check:
    """Collects the verdicts of one part."""

    def __init__(self, part):
        self.part, self.failed = part, 0

    def that(self, holds, what, detail=""):
        """One verdict; `detail` is printed where it does not hold. Returns whether it holds."""
        if holds:
            self._line("ok  ", what)
        else:
            self.failed += 1
            self._line("FAIL", what, detail)
        return bool(holds)

    def equal(self, got, wanted, what):
        return self.that(got == wanted, what, f"got {got!r}, wanted {wanted!r}")

    def eventually(self, probe, what, seconds=10.0):
        return self.that(happens(probe, seconds), what, f"not within {seconds:g} s")

    def skip(self, what, why):
        self._line("skip", what, why)

    def _line(self, word, what, detail=""):
        detail = " ".join(str(detail).split())
        print(f"{word} {self.part}: {what}" + (f": {detail[:1500]}" if detail else ""), flush=True)


def part(name, body):
    """Runs a part on a stage of its own and ends the process: 0 if every check held, else 1."""
    check = Check(name)
    try:
        with Stage() as stage:
            try:
                body(check, stage)
            except FileNotFoundError:
                raise
            except Exception:
                # What the programs said is the best clue, and it is gone once the stage is left.
                logs = "\n".join(f"--- {p.name}\n{p.tail()}" for p in stage.programs)
                print(f"{traceback.format_exc()}{logs}", file=sys.stderr)
                raise
    except FileNotFoundError as e:
        # A tool or the sidecar is not there; nothing was shown to be wrong, and nothing to be right.
        check.that(False, "could run", e)
    except Exception as e:
        check.that(False, "ran to its end", f"{type(e).__name__}: {e}")
    sys.exit(1 if check.failed else 0)
