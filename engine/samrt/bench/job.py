"""What one measuring process is told, as a value that travels as JSON, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from samrt.errors import SamrtError
from samrt.predictor import Predictor, load
from samrt.types import Prompt

__all__ = [
    "SCENARIOS",
    "Job",
    "job_from",
    "open_engine",
    "prompt_document",
    "prompt_from",
    "report",
]

SCENARIOS = ("single-stream", "interactive", "offline", "cold-start")


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario with one engine.

    Attributes:
        model: name of a model or path of its folder.
        backend: as for :func:`samrt.load`.
        precision: as for :func:`samrt.load`.
        threads: as for :func:`samrt.load`.
        scenario: one of :data:`SCENARIOS`.
        image: path of the picture.
        prompts: as :func:`prompt_document` writes them; empty for models that take none.
        answers: file of the masks that the engine has been proven to give.
        deadline_ms: time after which an answer is late.
        warmup: runs before the first that counts.
        runs: number of runs; ``None`` goes by ``least_runs`` and ``seconds``.
        least_runs: runs that a measurement has at least, unless that takes too long.
        seconds: time that a measurement takes at least.
        most_seconds: time after which no further run is begun; three runs there are always.
        workers: threads that send pictures at once (``offline``).
        prompts_per_image: prompts about each picture in one call.
        interval_ms: pause between two prompts (``interactive``).
        affinity: CPUs to run on; empty leaves them as they are.
        allow_refused: as for :func:`samrt.load`.
        form: as for :func:`samrt.load`.
    """

    model: str
    backend: str
    precision: str
    threads: int | None
    scenario: str
    image: str
    prompts: tuple[Mapping[str, Any], ...]
    answers: str = ""
    deadline_ms: float | None = None
    warmup: int = 5
    runs: int | None = None
    least_runs: int = 64
    seconds: float = 5.0
    most_seconds: float = 60.0
    workers: int = 1
    prompts_per_image: int = 1
    interval_ms: float = 0.0
    affinity: tuple[int, ...] = ()
    allow_refused: bool = False
    form: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a plain, JSON-ready dictionary."""
        return asdict(self)


def job_from(document: Mapping[str, Any]) -> Job:
    """The job that :meth:`Job.as_dict` has written down."""
    known = {field.name for field in fields(Job)}
    values = {name: value for name, value in document.items() if name in known}
    values["prompts"] = tuple(values["prompts"])
    values["affinity"] = tuple(values.get("affinity", ()))
    return Job(**values)


def open_engine(job: Job) -> Predictor:
    """Load what a job asks for."""
    return load(
        job.model,
        backend=job.backend,
        precision=job.precision,
        threads=job.threads,
        allow_refused=job.allow_refused,
        form=job.form,
    )


def report(work: Callable[[], dict[str, Any]]) -> int:
    """Do something and print what it gives as JSON; an error of ours is printed as well.

    Returns:
        The exit status of the process, 0: whoever started it reads what was printed.
    """
    try:
        document: dict[str, Any] = {"result": work()}
    except SamrtError as exc:
        document = {"error": {"kind": type(exc).__name__, "text": str(exc)}}
    print(json.dumps(document))
    return 0


def prompt_document(prompt: Prompt) -> dict[str, Any]:
    """A prompt without a mask as JSON: ``box``, and ``points`` of x, y, label."""
    points: Iterable[Any] = ()
    if prompt.point_coords is not None and prompt.point_labels is not None:
        points = zip(prompt.point_coords, prompt.point_labels, strict=True)
    return {
        "box": None if prompt.box is None else list(prompt.box),
        "points": [[float(x), float(y), int(label)] for (x, y), label in points],
    }


def prompt_from(document: Mapping[str, Any]) -> Prompt:
    """The prompt that :func:`prompt_document` has written down."""
    points = document["points"]
    return Prompt(
        box=document["box"],
        point_coords=[row[:2] for row in points] or None,
        point_labels=[row[2] for row in points] or None,
    )
