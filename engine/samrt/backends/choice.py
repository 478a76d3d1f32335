"""What ``backend="auto"`` takes.

The rule: the first backend of the registry whose requirements are met. Where ``samrt bench
--choose`` has measured several backends with a model on this machine, the fastest of them takes
its place, if it is at least 5 % faster. The measurement is one small file in samrt's cache folder;
it counts only for the same model, precision, number of threads, processor and versions, and loading
a model never measures anything by itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.backends import available_backends, backend_version, first_available
from samrt.bundle import Bundle
from samrt.errors import OptionError
from samrt.imaging.write import write_files

__all__ = ["Choice", "choose_backend", "remember_times"]

_VERSION = 1
_MARGIN = 0.95
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and why it was taken; ``reason`` is a phrase for people."""

    backend: str
    reason: str


def choose_backend(bundle: Bundle, precision: str, threads: int) -> Choice:
    """The backend that ``"auto"`` stands for.

    Args:
        bundle: the model.
        precision: precision of the encoder in use.
        threads: threads in use.

    Raises:
        BackendUnavailableError: no backend can be used here.
    """
    usual = first_available()
    times = _remembered(bundle, precision, threads)
    if usual not in times or len(times) < 2:
        return Choice(usual, "the first one that is installed")
    ranked = sorted(times.items(), key=lambda item: item[1])
    figures = ", ".join(f"{name} {time:.3g} ms" for name, time in ranked)
    fastest = ranked[0][0]
    if fastest != usual and times[fastest] > _MARGIN * times[usual]:
        return Choice(usual, f"measured here: {figures}; less than 5 % apart")
    return Choice(fastest, f"measured here: {figures}")


def remember_times(
    bundle: Bundle, precision: str, threads: int, times_ms: Mapping[str, float]
) -> Path:
    """Keep a measurement for :func:`choose_backend`.

    Args:
        bundle: the model.
        precision: precision of the encoder.
        threads: threads of every backend.
        times_ms: backend -> median time of the same work, at least two backends.

    Raises:
        OptionError: fewer than two backends, or times that are not positive.
        OutputError: the cache folder does not take it.
    """
    if len(times_ms) < 2 or not all(0.0 < t < math.inf for t in times_ms.values()):
        raise OptionError(
            f"a choice takes positive times of at least two backends, got {dict(times_ms)!r}"
        )
    key = _key(bundle, precision, threads)
    path = _folder() / f"{_digest(key)}.json"
    document = {"choice_version": _VERSION, "key": key, "times_ms": dict(times_ms)}
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    write_files({path: text.encode()}, force=True)
    return path


def _folder() -> Path:
    from samrt.folders import cache_folder

    return cache_folder() / "choices"


def _key(bundle: Bundle, precision: str, threads: int) -> dict[str, Any]:
    from samrt.environment import cpu_info, usable_cpus

    runtimes = ("SAMRT_OPENVINO_", "SAMRT_ONNXRUNTIME_")
    settings = {n: v for n, v in os.environ.items() if n.startswith(runtimes)}
    return {
        "model": bundle.sha256,
        "precision": precision,
        "threads": threads,
        "cpu": cpu_info(),
        "cpus": usable_cpus(),
        "backends": {info.name: backend_version(info.name) for info in available_backends()},
        "settings": settings,
    }


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _remembered(bundle: Bundle, precision: str, threads: int) -> dict[str, float]:
    """Backend -> time of those that can be used now; empty where nothing fits or is readable."""
    try:
        folder = _folder()
        if not folder.is_dir():
            return {}
        key = _key(bundle, precision, threads)
        path = folder / f"{_digest(key)}.json"
        if path.stat().st_size > _MOST_BYTES:
            return {}
        document = json.loads(path.read_text("utf-8"))
        if document["choice_version"] != _VERSION or document["key"] != key:
            return {}
        usable = {info.name for info in available_backends() if info.available}
        times = {str(name): float(time) for name, time in document["times_ms"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # a measurement is a hint: without it the rule holds
    return {n: t for n, t in times.items() if n in usable and 0.0 < t < math.inf}
