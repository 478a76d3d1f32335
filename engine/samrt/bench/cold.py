"""One cold start: ``python -m samrt.bench.cold STARTED`` with a job on standard input.

``STARTED`` is the reading of the monotonic clock just before the process was started; the clock
is the system's, so the two processes read the same one.
"""

from time import perf_counter

_BEGUN = perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

__all__ = ["main"]


def _run(started: float, document: dict[str, Any]) -> dict[str, Any]:
    clock = [started, _BEGUN]

    def lap() -> float:
        clock.append(perf_counter())
        return (clock[-1] - clock[-2]) * 1000.0

    from samrt.bench.job import job_from, open_engine, prompt_from

    job = job_from(document)
    imported = lap()
    with open_engine(job) as engine:
        loaded = lap()
        embedding = engine.encode(job.image)
        prompts = [prompt_from(job.prompts[0])] if job.prompts else []
        if prompts:
            several = engine.manifest.output.kind == "classes"
            found = engine.decode(embedding, prompts, multimask_output=several)
        else:
            from samrt import Prompt

            found = engine.decode(embedding, Prompt.empty())
        first = lap()
        stages = found[0].timings.as_dict()
        empty = not found[0].masks.any()
        info = engine.info.as_dict()
    from samrt.bench.host import affinity, peak_rss_bytes

    times = {"interpreter": (clock[1] - started) * 1000.0, "import": imported, "load": loaded}
    times |= {name.removesuffix("_ms"): float(value or 0.0) for name, value in stages.items()}
    return {
        "times_ms": {**times, "end_to_end": (clock[4] - started) * 1000.0},
        "first_answer_ms": first,
        "empty": bool(empty),
        "engine": info,
        "affinity": affinity(),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def main() -> int:
    """Start, answer one prompt, say how long it took."""
    from samrt.bench.job import report

    return report(lambda: _run(float(sys.argv[1]), json.load(sys.stdin)))


if __name__ == "__main__":
    sys.exit(main())
