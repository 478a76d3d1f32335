"""``samrt bench`` without its command line: prove, measure, sum up."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from samrt import errors
from samrt._version import __version__
from samrt.bench.host import busy, host, state
from samrt.bench.job import Job, prompt_document
from samrt.bench.scenarios import END_TO_END
from samrt.bench.stats import summary
from samrt.bundle import Bundle, find_model
from samrt.errors import BackendError, OptionError, SamrtError
from samrt.imaging.read import read_image
from samrt.phantoms import phantom_case
from samrt.selfcheck import supported_prompts
from samrt.types import Prompt

__all__ = ["BENCH_VERSION", "Request", "bench"]

BENCH_VERSION = 1
_COLD_RUNS = 12
_DRIFT = 0.15
_PHANTOM = "ct_abdomen"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure: every scenario with every backend in every precision.

    Attributes:
        job: all that the runs have in common; its model, and its image where there is one.
        scenarios: see :data:`samrt.bench.job.SCENARIOS`.
        backends: names of backends.
        precisions: names of precisions.
        prompts: about the image; the built-in picture's, or some in its middle, where empty.
    """

    job: Job
    scenarios: tuple[str, ...] = ("single-stream",)
    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("auto",)
    prompts: tuple[Prompt, ...] = ()


def bench(request: Request, progress: Progress = lambda text: None) -> dict[str, Any]:
    """Measure, each run in processes of its own.

    Args:
        request: what.
        progress: is told what is being done.

    Returns:
        A JSON-ready document: the machine, and per run the engine, its proof, the settings,
        every time in ms, their summary, memory, the machine's state before and after.

    Raises:
        VerificationError: an engine's answers are wrong.
        SamrtError: whatever loading or running the model raises.
    """
    bundle = Bundle.open(find_model(request.job.model))
    with tempfile.TemporaryDirectory(prefix="samrt-bench-") as name:
        folder = Path(name)
        job, picture = _with_picture(request, bundle, folder)
        runs = []
        for backend, precision in itertools.product(request.backends, request.precisions):
            one = replace(job, backend=backend, precision=precision)
            one = replace(one, answers=str(folder / f"{backend}-{precision}.npz"))
            progress(f"checking the answers of {backend} in {precision}")
            proof = _child("samrt.bench.worker", {"kind": "prove", "job": one.as_dict()})
            for scenario in request.scenarios:
                progress(f"measuring {scenario} with {backend} in {precision}")
                runs.append(_run(replace(one, scenario=scenario), proof, picture))
    return {
        "bench_version": BENCH_VERSION,
        "samrt": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": host(),
        "runs": runs,
    }


def _with_picture(request: Request, bundle: Bundle, folder: Path) -> tuple[Job, dict[str, Any]]:
    """The job with picture and prompts, and what is said of the picture."""
    job, path, name = request.job, Path(request.job.image), request.job.image
    prompts: Sequence[Prompt] = request.prompts
    spec = bundle.manifest.prompts
    if not request.job.image:
        from PIL import Image

        case = phantom_case(_PHANTOM)
        path, name = folder / f"{_PHANTOM}.png", f"built-in {_PHANTOM}"
        Image.fromarray(case.image).save(path)
        prompts = prompts or case.prompts
    loaded = read_image(str(path))
    height, width = loaded.size
    if not prompts:
        box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
        centre = [(width * 0.5, height * 0.5)]
        prompts = (Prompt(box=box), Prompt(point_coords=centre, point_labels=[1]))
    taken = supported_prompts(prompts, loaded.size, spec) if spec.takes_prompts else []
    if spec.takes_prompts and not taken:
        raise OptionError(
            f"{bundle.manifest.name} takes none of the prompts on a picture of {width} x {height} "
            "pixels: give others with --box or --point"
        )
    documents = tuple(prompt_document(prompt) for prompt in taken)
    picture = {
        "name": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "width": width,
        "height": height,
    }
    return replace(job, image=str(path), prompts=documents), picture


def _run(job: Job, proof: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
    found = _cold(job) if job.scenario == "cold-start" else _warm(job)
    times = found.pop("times_ms")
    stages = {
        name: summary(values, job.deadline_ms if name == END_TO_END else None)
        for name, values in times.items()
    }
    settings = job.as_dict()
    for name in ("image", "answers", "scenario"):
        del settings[name]
    found["answer"] = {**proof, "same_masks_as_proven": found.pop("same_masks_as_proven", None)}
    images = len(times[END_TO_END]) / found["seconds"]
    return {
        "scenario": job.scenario,
        **found,
        "settings": settings,
        "picture": picture,
        "stages": stages,
        "throughput_per_s": images if job.scenario == "offline" else None,
        "remarks": _remarks(job, found, stages),
        "times_ms": {name: [round(v, 4) for v in values] for name, values in times.items()},
    }


def _warm(job: Job) -> dict[str, Any]:
    return _child("samrt.bench.worker", {"kind": "measure", "job": job.as_dict()})


def _cold(job: Job) -> dict[str, Any]:
    """Start processes one after the other; one start comes before the first that counts."""
    before = state()
    times: dict[str, list[float]] = {}
    found: dict[str, Any] = {}
    peak, begun = 0, 0.0
    wanted = job.runs or _COLD_RUNS
    for number in range(-1, wanted):
        started = time.perf_counter()
        begun = started if number <= 0 else begun
        if number >= 3 and job.runs is None and started - begun > job.most_seconds:
            break
        found = _child("samrt.bench.cold", job.as_dict(), repr(started))
        if found["empty"]:
            raise BackendError(f"{job.model} gave an empty mask at a cold start: see samrt verify")
        if number >= 0:
            for name, value in found["times_ms"].items():
                times.setdefault(name, []).append(value)
            peak = max(peak, found["peak_rss_bytes"] or 0)
    return {
        "engine": found["engine"],
        "affinity": found["affinity"],
        "load_ms": times["load"][-1],
        "runs": len(times[END_TO_END]),
        "seconds": time.perf_counter() - begun,
        "warmup": {"runs": 1, "seconds": None},
        "times_ms": times,
        "memory": {"peak_rss_bytes": peak or None, "rss_after_load_bytes": None, "gpu_bytes": None},
        "state": {"before": before, "after": state()},
    }


def _remarks(job: Job, found: dict[str, Any], stages: dict[str, Any]) -> list[str]:
    """What a reader of the figures has to know."""
    said = []
    drift = stages[END_TO_END]["drift"]
    if drift is not None and abs(drift - 1.0) > _DRIFT:
        said.append(
            f"the second half of the runs took {drift:.2f} times as long as the first: the machine "
            "was not steady"
        )
    cpus = len(found["affinity"]) if found["affinity"] else None
    others = busy(found["state"]["before"], cpus)
    if others:
        said.append(others)
    threads = found["engine"]["threads"]
    if cpus and threads > cpus:
        said.append(f"{threads} threads share {cpus} CPUs")
    if found["state"]["before"]["on_battery"]:
        said.append("the machine ran on its battery")
    short = [n for n, p in stages[END_TO_END]["percentiles"].items() if p["value"] is None]
    if short:
        needs = stages[END_TO_END]["percentiles"]
        texts = ", ".join(f"{name} ({needs[name]['needs']})" for name in short)
        said.append(f"too few samples ({stages[END_TO_END]['count']}) for {texts}")
    if found["answer"].get("verification") == "unverified":
        said.append("this model has no verification record: samrt verify --against makes one")
    said += found["engine"]["warnings"]
    return said


def _child(module: str, document: dict[str, Any], *words: str) -> dict[str, Any]:
    """Run one of our modules in a process of its own; its errors become ours."""
    import samrt

    paths = [str(Path(samrt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        input=json.dumps(document), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = " ".join(done.stderr.split())[-300:]
        raise BackendError(
            f"the measuring process ended with {done.returncode} and no result: {last or 'killed?'}"
        ) from None
    if "error" in answer:
        kind = getattr(errors, answer["error"]["kind"], SamrtError)
        raise kind(answer["error"]["text"])
    result: dict[str, Any] = answer["result"]
    return result
