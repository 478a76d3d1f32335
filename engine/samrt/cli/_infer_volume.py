"""``samrt infer`` on volumes: ``--box3d``, or a box on one slice with ``--propagate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt._version import __version__
from samrt.cli import _infer_scanner
from samrt.cli._infer_volume_result import Task, mean_score, print_volume, volume_document
from samrt.cli._progress import ProgressBar
from samrt.cli._report import print_json, warn

if TYPE_CHECKING:
    from samrt.imaging.volumes.volume import Plane, Volume
    from samrt.model import ModelInfo
    from samrt.predictor import Predictor
    from samrt.propagation import VolumeMask

__all__ = ["VOLUME_KINDS", "run", "wanted"]

VOLUME_KINDS = ("nifti", "seg", "rtstruct", "overlay", "coco", "polygons")
_SUFFIXES = {
    "nifti": "mask.nii.gz",
    "seg": "seg.dcm",
    "rtstruct": "rtstruct.dcm",
    "overlay": "overlay.png",
    "coco": "coco.json",
    "polygons": "polygons.geojson",
}


def wanted(args: argparse.Namespace) -> bool:
    """Whether the options ask for a volume."""
    return bool(args.box3d or args.propagate)


def run(args: argparse.Namespace, limits: Any, *, default_kinds: tuple[str, ...]) -> int:
    """Check everything, compute everything, then write everything.

    Args:
        args: the options.
        limits: of the files.
        default_kinds: ``args.outputs`` is this very object where ``--outputs`` was not given.
    """
    from samrt import load
    from samrt.imaging.volumes.volume import plane_of
    from samrt.imaging.write import check_targets, write_files

    _check_usage(args)
    clock = [perf_counter()]

    def lap() -> float:
        clock.append(perf_counter())
        return (clock[-1] - clock[-2]) * 1000.0

    derived = _infer_scanner.derived_options(args)
    bar = ProgressBar()
    try:
        volume = _infer_scanner.read_volume(args, limits, bar)
        bar.end()
        times: dict[str, float | None] = {"decode_image": lap()}
        plane = plane_of(volume, args.plane)
        tasks = _tasks(args, plane, volume)
        kinds = args.outputs
        if kinds is default_kinds:
            kinds = ("seg", "overlay") if volume.format == "DICOM" else ("nifti", "overlay")
        targets = _targets(args, kinds)
        inputs = [Path(args.image)] if Path(args.image).is_file() else []
        check_targets(targets.values(), force=args.force, inputs=inputs)
        lap()
        with load(
            args.model, backend=args.backend, precision=args.precision, threads=args.threads,
            allow_refused=args.allow_refused, self_test=False if args.no_self_test else None,
        ) as engine:  # fmt: skip
            times["load_model"] = lap()
            found = [_propagate(engine, volume, plane, task, bar) for task in tasks]
            model = engine.info
    finally:
        bar.end()
    times |= {
        "propagate": lap(),
        "encode": sum(one.encode_ms for one in found),
        "decode_prompt": sum(one.decode_ms for one in found),
    }
    masks = np.zeros((len(found), *volume.values.shape), bool)
    for one, mask in zip(found, masks, strict=True):
        one.fill(plane.view(mask))
    files = {
        targets[kind]: _render(kind, volume, plane, found, masks, model, derived) for kind in kinds
    }
    write_files(files, force=args.force)
    times |= {"write": lap(), "total": (clock[-1] - clock[0]) * 1000.0}
    warnings = _warnings(volume, plane, found)
    if args.json:
        print_json(
            volume_document(
                args, volume, plane, tasks, found, masks, model, targets, times, warnings
            )
        )
    else:
        print_volume(volume, plane, found, masks, model, targets, times)
        warn(warnings)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = args.parser
    if args.box3d and (args.box or args.propagate or args.frame is not None):
        parser.error("--box3d says it all: leave out --box, --frame and --propagate")
    if not args.box3d and (not args.box or args.frame is None):
        parser.error("--propagate needs a --box and the slice that it is on: --frame K")
    for name in ("point", "mask_input", "multimask", "everything"):
        if getattr(args, name):
            parser.error(f"a volume takes boxes only: leave out --{name.replace('_', '-')}")


def _tasks(args: argparse.Namespace, plane: Plane, volume: Volume) -> list[Task]:
    """The prompts, all checked against the volume before anything is computed.

    Raises:
        PromptError: outside the volume, inverted or no whole slices.
    """
    from samrt.errors import PromptError
    from samrt.prompts import check_prompt
    from samrt.types import Prompt

    count = plane.shape[0]
    if not args.box3d and args.frame >= count:
        raise PromptError(
            f"{volume.name} has {count} {plane.name} slices, there is no slice {args.frame}"
        )
    tasks = [Task(args.frame, 0, count - 1, box, None) for box in args.box]
    tasks = [_task3d(box, plane, volume) for box in args.box3d] or tasks
    for task in tasks:
        check_prompt(Prompt(box=task.box), plane.shape[1:])
    return tasks


def _task3d(box3d: tuple[float, ...], plane: Plane, volume: Volume) -> Task:
    from samrt.errors import PromptError

    count, height, width = plane.shape
    x0, y0, z0, x1, y1, z1 = box3d
    fits = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height and 0 <= z0 < z1 <= count
    if not fits or z0 != int(z0) or z1 != int(z1):
        raise PromptError(
            f"box3d {','.join(f'{v:g}' for v in box3d)} does not fit {volume.name} with "
            f"{width} x {height} pixels and {count} {plane.name} slices: expected x0,y0,z0,x1,y1,"
            "z1 with whole z0 < z1, z1 beyond the last slice"
        )
    first, last = int(z0), int(z1) - 1
    box = (x0, y0, x1, y1)
    return Task((first + last) // 2, first, last, box, box)


def _targets(args: argparse.Namespace, kinds: tuple[str, ...]) -> dict[str, Path]:
    other = [kind for kind in kinds if kind not in VOLUME_KINDS]
    if other:
        args.parser.error(f"a volume has no {other[0]}, only {', '.join(VOLUME_KINDS)}")
    stem = "stdin" if args.image == "-" else Path(args.image).resolve().name
    for ending in (".gz", ".nii", ".dcm"):
        stem = stem.removesuffix(ending)
    return {kind: args.output_dir / f"{stem}.{_SUFFIXES[kind]}" for kind in kinds}


def _propagate(
    engine: Predictor, volume: Volume, plane: Plane, task: Task, bar: ProgressBar
) -> VolumeMask:
    from samrt.imaging.volumes.segment import segment_plane

    return segment_plane(
        engine,
        volume,
        plane,
        start=task.start,
        box=task.box,
        first=task.first,
        last=task.last,
        bounds=task.bounds,
        progress=bar,
    )


def _render(
    kind: str,
    volume: Volume,
    plane: Plane,
    found: list[VolumeMask],
    masks: NDArray[np.bool_],
    model: ModelInfo,
    derived: Any,
) -> bytes:
    from samrt.errors import OutputError

    if kind == "nifti":
        from samrt.imaging.volumes.nifti import write_nifti

        about = f"samrt {__version__} {model.name}, not for clinical use"
        return write_nifti(_labels(found, masks), volume, description=about)
    if kind == "overlay":
        from samrt.imaging.volumes.sheet import contact_sheet

        return contact_sheet(volume, plane, found)
    if kind in ("coco", "polygons"):
        from samrt.imaging.volumes.annotations import coco_document, polygons_document

        meta = {"samrt": __version__, "model": model.model_id, "image_sha256": volume.sha256}
        if kind == "polygons":
            return polygons_document(found, plane, meta)
        return coco_document(found, plane, Path(volume.name).name, meta)
    if volume.sources is None:
        raise OutputError(f"output {kind} needs DICOM images: {volume.name} is none")
    from samrt.imaging.derived.segments import Algorithm, Segments

    sources = volume.sources
    segments = Segments(
        masks=masks,
        sources=sources.datasets,
        frames=sources.frames,
        algorithm=Algorithm(model.name, model.model_id),
        terms=derived.terms,
        scores=tuple(mean_score(one) for one in found),
    )
    if kind == "seg":
        from samrt.imaging.derived.dicom_seg import write_seg

        return write_seg(segments, labelmap=derived.labelmap)
    from samrt.imaging.derived.rtstruct import write_rtstruct

    return write_rtstruct(segments, sources.geometries)


def _labels(found: list[VolumeMask], masks: NDArray[np.bool_]) -> NDArray[Any]:
    """Object number + 1 per voxel; where objects overlap the higher mean score wins."""
    labels = np.zeros(masks.shape[1:], np.uint8 if len(masks) < 256 else np.uint16)
    for number in sorted(range(len(masks)), key=lambda k: (mean_score(found[k]), -k)):
        labels[masks[number]] = number + 1
    return labels


def _warnings(volume: Volume, plane: Plane, found: list[VolumeMask]) -> tuple[str, ...]:
    from samrt.imaging.volumes.slices import plane_notes

    notes = [*volume.warnings, *plane_notes(volume, plane, stretched=True)]
    notes += [text for one in found for text in one.warnings]
    return tuple(dict.fromkeys(notes))
