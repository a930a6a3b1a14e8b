"""What a process takes: memory, its peak, and CPU time, as /proc tells."""

import os
import pathlib


class Footprint:
    """A process as it was; `peak` and `cpu` tell what came since."""

    def __init__(self, pid):
        self.folder = pathlib.Path(f"/proc/{pid}")
        # Puts the peak back to what is in use now (proc(5), clear_refs).
        (self.folder / "clear_refs").write_text("5")
        self.begun, self.cpu_begun = self._status("VmRSS"), self._cpu()

    def peak(self):
        """MiB of memory at the worst moment, above what was there."""
        return (self._status("VmHWM") - self.begun) / 1024

    def cpu(self):
        """Seconds of CPU."""
        return self._cpu() - self.cpu_begun

    def _status(self, key):
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise OSError(f"no {key} in {self.folder}/status")

    def _cpu(self):
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
