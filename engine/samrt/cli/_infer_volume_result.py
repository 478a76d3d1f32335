"""What ``samrt infer`` has found in a volume, as a JSON document and as text."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt._version import __version__
from samrt.cli import _infer_scanner
from samrt.cli._infer_result import model_record
from samrt.cli._report import print_table, say

if TYPE_CHECKING:
    from samrt.imaging.volumes.volume import Plane, Volume
    from samrt.model import ModelInfo
    from samrt.propagation import SliceMask, VolumeMask

__all__ = ["Task", "mean_score", "print_volume", "volume_document"]

_ROWS = 12


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of a volume, in slices and pixels of the plane."""

    start: int
    first: int
    last: int
    box: tuple[float, ...]
    bounds: tuple[float, ...] | None


def mean_score(found: VolumeMask) -> float:
    """Mean predicted IoU of an object's slices."""
    return float(np.mean([item.score for item in found.slices]))


def _slice_record(item: SliceMask, plane: Plane) -> dict[str, Any]:
    return {
        "index": item.index,
        "score": round(item.score, 6),
        "stability": round(item.stability, 6),
        "overlap": None if item.overlap is None else round(item.overlap, 6),
        "area_px": item.area_px,
        "area_mm2": round(item.area_px * plane.spacing[1] * plane.spacing[2], 4),
        "box": list(item.box),
        "prompt_box": [round(v, 3) for v in item.prompt_box],
    }


def _answer(
    number: int,
    task: Task,
    found: VolumeMask,
    mask: NDArray[np.bool_],
    volume: Volume,
    plane: Plane,
) -> dict[str, Any]:
    """One prompt and what came of it."""
    voxels = int(np.count_nonzero(mask))
    box3d = None
    if task.bounds is not None:
        (x0, y0, x1, y1), z0, z1 = task.bounds, task.first, task.last + 1
        box3d = [x0, y0, z0, x1, y1, z1]
    return {
        "index": number,
        "prompt": {
            "box": None if box3d else list(task.box),
            "box3d": box3d,
            "frame": task.start,
            "points": None,
            "mask_input": None,
        },
        "volume": {
            "score": round(mean_score(found), 6),
            "voxels": voxels,
            "volume_ml": round(voxels * volume.voxel_ml, 6),
            "slices": [_slice_record(item, plane) for item in found.slices],
            "stopped": found.stopped,
        },
        "warnings": [],
    }


def volume_document(
    args: argparse.Namespace,
    volume: Volume,
    plane: Plane,
    tasks: list[Task],
    found: list[VolumeMask],
    masks: NDArray[np.bool_],
    model: ModelInfo,
    targets: dict[str, Path],
    times: dict[str, float | None],
    warnings: tuple[str, ...],
) -> dict[str, Any]:
    """The result as one JSON document."""
    from samrt.imaging.volumes.segment import stretch_of

    details, stretch = dict(volume.details), stretch_of(plane)
    if args.with_uids and volume.sources is not None:
        details["uids"] = _infer_scanner.volume_uids(volume.sources)
    return {
        "samrt": __version__,
        "model": model_record(model),
        "image": {
            "file": None if args.image == "-" else volume.name,
            "sha256": volume.sha256,
            "width": plane.shape[2],
            "height": plane.shape[1],
            "slices": plane.shape[0],
            "format": volume.format,
            "mode": volume.mode,
            "bit_depth": volume.bit_depth,
            "window": None if volume.window is None else list(volume.window),
            "spacing_mm": [plane.spacing[1], plane.spacing[2]],
            "slice_spacing_mm": plane.spacing[0],
            "affine_lps": volume.affine.tolist(),
            "plane": plane.name,
            "model_stretch": [stretch.rows, stretch.columns],
            "scanner": details,
        },
        "prompts": [
            _answer(number, task, one, mask, volume, plane)
            for number, (task, one, mask) in enumerate(zip(tasks, found, masks, strict=True))
        ],
        "files": {kind: str(path) for kind, path in targets.items()},
        "timings_ms": {k: None if v is None else round(v, 3) for k, v in times.items()},
        "warnings": list(warnings),
    }


def print_volume(
    volume: Volume,
    plane: Plane,
    found: list[VolumeMask],
    masks: NDArray[np.bool_],
    model: ModelInfo,
    targets: dict[str, Path],
    times: dict[str, float | None],
) -> None:
    """Print the result for people."""
    count, height, width = plane.shape
    say(
        f"{volume.name}: {width} x {height} pixels, {count} {plane.name} slices, model "
        f"{model.name} ({model.precision_effective}, {model.backend_effective}, "
        f"{model.threads} threads)"
    )
    for number, (one, mask) in enumerate(zip(found, masks, strict=True)):
        name = "object" if len(found) == 1 else f"object {number}"
        _print_object(name, one, int(np.count_nonzero(mask)), volume)
    print_table([kind, str(path)] for kind, path in targets.items())
    parts = [
        f"{name} {times[name] or 0.0:.0f}"
        for name in ("decode_image", "encode", "decode_prompt", "propagate", "total")
    ]
    say(f"time in ms: {', '.join(parts)}; encode and decode_prompt overlap")


def _print_object(name: str, found: VolumeMask, voxels: int, volume: Volume) -> None:
    from samrt.imaging.volumes.sheet import pick_slices

    first, last = found.slices[0].index, found.slices[-1].index
    say(f"{name} on slices {first} to {last}, {voxels} voxels, {voxels * volume.voxel_ml:.3f} ml")
    print_table(
        [
            f"slice {item.index}",
            f"score {item.score:.3f}",
            "" if item.overlap is None else f"overlap {item.overlap:.3f}",
            f"area {item.area_px} px",
        ]
        for item in pick_slices(found.slices, found.start, _ROWS)
    )
    print_table([f"stopped {way}", why] for way, why in found.stopped.items())
