"""The loops that are timed. Times are wall-clock milliseconds of a monotonic clock.

The next query is sent when the last one is answered (``single-stream``, ``interactive``), or by
several threads at once (``offline``). A backend returns results in the processor's memory, so a
time always contains all of its work, transfers included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from samrt.bench.answers import prompts_of
from samrt.bench.job import Job
from samrt.predictor import Predictor
from samrt.types import Prediction

__all__ = ["END_TO_END", "STAGES", "Samples", "measure"]

STAGES = ("decode_image", "preprocess", "encode", "decode_prompt", "postprocess")
END_TO_END = "end_to_end"
_WARMUP_SECONDS = 0.5
_MOST_WARMUP_SECONDS = 20.0
_LEAST_RUNS = 3

Query = Callable[[int], dict[str, float]]


@dataclass(slots=True)
class Samples:
    """What was measured.

    Attributes:
        times_ms: stage -> times in the order in which the runs ended.
        warmup: runs and seconds before the first run that counts.
        seconds: from the first run's start to the last one's end.
    """

    times_ms: dict[str, list[float]] = field(default_factory=dict)
    warmup: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def runs(self) -> int:
        """Number of runs that count."""
        return len(self.times_ms.get(END_TO_END, ()))

    def add(self, times: Mapping[str, float]) -> None:
        """Take up one run."""
        for name, value in times.items():
            self.times_ms.setdefault(name, []).append(value)


def measure(engine: Predictor, job: Job) -> Samples:
    """Warm an engine up and measure a job's scenario."""
    query = _interactive(engine, job) if job.scenario == "interactive" else _whole(engine, job)
    samples = Samples()
    _warm_up(query, job, samples)
    start = time.perf_counter()
    if job.workers > 1:
        _together(query, job, samples, start)
    else:
        for number in count():
            if _enough(job, samples.runs, time.perf_counter() - start):
                break
            samples.add(query(number))
    samples.seconds = time.perf_counter() - start
    return samples


def _warm_up(query: Query, job: Job, samples: Samples) -> None:
    """At least ``job.warmup`` runs and half a second; no run is begun after 20 s."""
    start, done = time.perf_counter(), 0
    while job.warmup:
        spent = time.perf_counter() - start
        if done and (spent >= _MOST_WARMUP_SECONDS):
            break
        if done >= job.warmup and spent >= _WARMUP_SECONDS:
            break
        query(done)
        done += 1
    samples.warmup = {"runs": done, "seconds": time.perf_counter() - start}


def _enough(job: Job, runs: int, seconds: float) -> bool:
    if job.runs is not None:
        return runs >= job.runs
    if runs < _LEAST_RUNS:
        return False
    return seconds >= job.most_seconds or (runs >= job.least_runs and seconds >= job.seconds)


def _together(query: Query, job: Job, samples: Samples, start: float) -> None:
    """Several threads that share one engine; the first error ends all of them."""
    lock, begun = threading.Lock(), 0
    failures: list[BaseException] = []

    def work() -> None:
        nonlocal begun
        while True:
            with lock:
                if failures or _enough(job, begun, time.perf_counter() - start):
                    return
                number, begun = begun, begun + 1
            try:
                times = query(number)
            except BaseException as exc:
                with lock:
                    failures.append(exc)
                return
            with lock:
                samples.add(times)

    threads = [threading.Thread(target=work) for _ in range(job.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _some(job: Job, number: int, prompts: list[Any]) -> list[Any]:
    """The prompts of one query: in turn, so that no cache of anybody's makes them faster."""
    wide = job.prompts_per_image
    return [prompts[(number * wide + k) % len(prompts)] for k in range(wide)]


def _whole(engine: Predictor, job: Job) -> Query:
    """From the picture's file to the masks."""
    prompts, several = prompts_of(job), engine.manifest.output.kind == "classes"

    def query(number: int) -> dict[str, float]:
        start = time.perf_counter()
        embedding = engine.encode(job.image)
        found = engine.decode(embedding, _some(job, number, prompts), multimask_output=several)
        end = time.perf_counter()
        return {**_stages(found, STAGES), END_TO_END: (end - start) * 1000.0}

    return query


def _interactive(engine: Predictor, job: Job) -> Query:
    """From the click to the mask, the picture being encoded."""
    prompts, several = prompts_of(job), engine.manifest.output.kind == "classes"
    embedding = engine.encode(job.image)

    def query(number: int) -> dict[str, float]:
        if job.interval_ms:
            time.sleep(job.interval_ms / 1000.0)
        start = time.perf_counter()
        found = engine.decode(embedding, _some(job, number, prompts), multimask_output=several)
        end = time.perf_counter()
        return {**_stages(found, STAGES[3:]), END_TO_END: (end - start) * 1000.0}

    return query


def _stages(found: list[Prediction], names: tuple[str, ...]) -> dict[str, float]:
    """Times of the stages of one query; those of several prompts are added up."""
    first = found[0].timings.as_dict()
    times = {}
    for name in names:
        if name in STAGES[3:]:
            times[name] = sum(float(p.timings[f"{name}_ms"] or 0.0) for p in found)
        else:
            times[name] = float(first[f"{name}_ms"] or 0.0)
    return times
