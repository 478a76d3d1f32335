"""What every benchmark says of the machine: commit, memory, other programs' work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MUCH = 0.1


def commit() -> str | None:
    """Short hash of the checkout, with a plus if tracked files were changed; None outside of one.

    It is asked of this folder: the samrt that is measured may be installed elsewhere.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def where() -> dict[str, Any]:
    """What every results file says of its run: machine and versions, commit, load average.

    The load average is that of before the run, if this is asked first.
    """
    from samrt.environment import environment

    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {"environment": environment(), "commit": commit(), "load_average": load}


def peak_mb() -> float:
    """Peak resident memory of this process in MB of 2 ** 20 bytes."""
    from samrt.bench.host import peak_rss_bytes

    peak = peak_rss_bytes()
    if peak is None:
        raise SystemExit("this system does not say how much memory a process has had")
    return peak / 2**20


class Others:
    """How much of the processors other programs took since this was made.

    Linux counts the time of each processor; what this process did not use itself was others'. The
    load average would count the benchmark's own processes, too.
    """

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy_s(), time.process_time()

    def share(self) -> float | None:
        """0 to 1 of the processors that may be used; None where the system does not say."""
        now = _busy_s()
        seconds = time.perf_counter() - self._start
        if now is None or self._busy is None or seconds <= 0.0:
            return None
        others = now - self._busy - (time.process_time() - self._own)
        return min(1.0, max(0.0, others / seconds / len(os.sched_getaffinity(0))))


def _busy_s() -> float | None:
    """Seconds that the processors of this process's affinity have worked, or been taken away."""
    if sys.platform != "linux":
        return None
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *fields = line.split()
        if name in usable:
            user, nice, system, _idle, _wait, irq, soft, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + soft + steal
    return float(ticks / os.sysconf("SC_CLK_TCK"))


def difference(first: bytes, second: bytes) -> str:
    """What sets two files' contents apart, in words."""
    if first == second:
        return "identical"
    if len(first) != len(second):
        return f"sizes differ by {abs(len(first) - len(second))} bytes"
    a, b = (np.frombuffer(content, np.uint8) for content in (first, second))
    return f"{np.count_nonzero(a != b)} of {a.size} bytes differ"
