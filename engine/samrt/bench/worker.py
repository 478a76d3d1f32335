"""A process that does one thing and reports it: ``python -m samrt.bench.worker`` with a job on
standard input, a JSON document on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from samrt.bench.answers import check_again, prove
from samrt.bench.host import affinity, peak_rss_bytes, state
from samrt.bench.job import Job, job_from, open_engine, report
from samrt.bench.nvml import process_memory
from samrt.bench.scenarios import measure
from samrt.errors import OptionError

__all__ = ["main", "time_engine"]


def time_engine(job: Job) -> dict[str, Any]:
    """Load, check, warm up, measure, check again.

    Returns:
        What is running, all times, memory, the state of the machine before and after.
    """
    before = state()
    start = time.perf_counter()
    with open_engine(job) as engine:
        load_ms = (time.perf_counter() - start) * 1000.0
        loaded_rss = peak_rss_bytes()
        iou_before = check_again(engine, job)
        samples = measure(engine, job)
        peak, gpu = peak_rss_bytes(), process_memory()
        after = state()
        iou_after = check_again(engine, job)
        info = engine.info
    return {
        "engine": info.as_dict(),
        "affinity": affinity(),
        "load_ms": load_ms,
        "runs": samples.runs,
        "seconds": samples.seconds,
        "warmup": samples.warmup,
        "times_ms": samples.times_ms,
        "memory": {
            "peak_rss_bytes": peak,
            "rss_after_load_bytes": loaded_rss,
            "gpu_bytes": gpu,
        },
        "same_masks_as_proven": min(iou_before, iou_after),
        "state": {"before": before, "after": after},
    }


def _work(document: Mapping[str, Any]) -> dict[str, Any]:
    job = job_from(document["job"])
    if job.affinity:
        _pin(job.affinity)
    return prove(job) if document["kind"] == "prove" else time_engine(job)


def _pin(cpus: tuple[int, ...]) -> None:
    if sys.platform != "linux":
        raise OptionError("--cpus works on Linux only: leave it out")
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError) as exc:
        raise OptionError(f"cannot run on CPUs {list(cpus)}: {exc}") from exc


def main() -> int:
    """Do what standard input says. An error of ours goes to standard output as well."""
    return report(lambda: _work(json.load(sys.stdin)))


if __name__ == "__main__":
    sys.exit(main())
