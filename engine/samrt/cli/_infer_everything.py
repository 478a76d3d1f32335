"""``samrt infer --everything``: all masks of an image, without a prompt."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from samrt._version import __version__
from samrt.cli import _infer_scanner, _numbers
from samrt.cli._infer_result import InferResult, result_document
from samrt.cli._progress import ProgressBar
from samrt.cli._report import print_json, print_table, say, warn
from samrt.cli._stderr import captured_stderr

if TYPE_CHECKING:
    from samrt.everything.findings import Findings
    from samrt.everything.generator import AutomaticMaskGenerator
    from samrt.imaging.read import LoadedImage
    from samrt.model import ModelInfo

__all__ = ["add_options", "check_usage", "run"]

_DEFAULT_KINDS = ("overlay", "label", "coco")
_ROWS = 20

_WHOLE: dict[str, tuple[int, str]] = {
    "points-per-side": (1, "points along each side of the grid (32)"),
    "points-per-batch": (1, "points per decoder call; bounds memory (what fits the backend)"),
    "crop-n-layers": (0, "search crops as well: 4 in layer 1, 16 in layer 2 ... (0)"),
    "crop-n-points-downscale-factor": (1, "fewer points per side in each further layer (1)"),
    "min-mask-region-area": (0, "fill holes and remove islands of fewer pixels (0)"),
}
_SHARES = {
    "pred-iou-thresh": "least predicted IoU of a mask (what fits the model; SAM 0.88)",
    "stability-score-thresh": "least stability of a mask (what fits the model; SAM 0.95)",
    "stability-score-offset": "how far the threshold is moved to test stability (1.0)",
    "box-nms-thresh": "of masks whose boxes have a higher IoU one stays (0.7)",
    "crop-nms-thresh": "the same between crops (0.7)",
    "crop-overlap-ratio": "overlap of the crops as a share of the shorter side (0.341)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, in the names of segment-anything's generator."""
    group = parser.add_argument_group(
        "everything mode",
        "Asks about every point of a grid. Writes overlay, label and coco unless --outputs says "
        "otherwise; mask gives STEM.m0.mask.png and so on.",
    )
    group.add_argument("--everything", action="store_true", help="find all masks; takes no prompts")
    for name, (least, text) in _WHOLE.items():
        group.add_argument(f"--{name}", type=_numbers.at_least(least), metavar="N", help=text)
    for name, text in _SHARES.items():
        group.add_argument(f"--{name}", type=float, metavar="X", help=text)


def check_usage(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, as wrong usage."""
    given = [name for name in (*_WHOLE, *_SHARES) if _value(args, name) is not None]
    if not args.everything:
        if given:
            args.parser.error(f"--{given[0]} needs --everything")
        return
    if args.box or args.point or args.mask_input or args.multimask:
        args.parser.error("--everything takes no prompts: leave out --box, --point, --mask-input "
                          "and --multimask")  # fmt: skip


def _value(args: argparse.Namespace, name: str) -> Any:
    return getattr(args, name.replace("-", "_"))


def run(args: argparse.Namespace, limits: Any, *, default_kinds: tuple[str, ...]) -> int:
    """Check everything, compute everything, then write everything.

    Args:
        args: the options.
        limits: of the image file.
        default_kinds: ``args.outputs`` is this very object where ``--outputs`` was not given.
    """
    from samrt import AutomaticMaskGenerator, load
    from samrt.everything.render import render, targets
    from samrt.imaging.outputs import OutputNames
    from samrt.imaging.write import check_targets, write_files

    kinds = _DEFAULT_KINDS if args.outputs is default_kinds else args.outputs
    _check_kinds(args, kinds)
    clock = [perf_counter()]

    def lap() -> float:
        clock.append(perf_counter())
        return (clock[-1] - clock[-2]) * 1000.0

    with captured_stderr() as said:
        image = _infer_scanner.read_input(args, limits)
    remarks = [f"{image.name} may be damaged, its decoder said: {said.text}"] if said.text else []
    times: dict[str, float | None] = {"decode_image": lap()}
    stem = "stdin" if args.image == "-" else Path(args.image).stem
    inputs = [Path(args.image)] if args.image != "-" else []
    single = [path for kind in kinds if kind != "mask"
              for path in targets(args.output_dir, stem, kind, 1)]  # fmt: skip
    check_targets(single, force=args.force, inputs=inputs)
    with load(
        args.model, backend=args.backend, precision=args.precision, threads=args.threads,
        allow_refused=args.allow_refused, self_test=False if args.no_self_test else None,
    ) as engine:  # fmt: skip
        times["load_model"] = lap()
        options = {name.replace("-", "_"): _value(args, name) for name in (*_WHOLE, *_SHARES)}
        given = {name: value for name, value in options.items() if value is not None}
        generator = AutomaticMaskGenerator(engine, **given)
        bar = ProgressBar()
        try:
            found = generator.find(
                image,
                progress=lambda done, total: bar("points", done, total),
                **({} if args.max_pixels is None else {"max_pixels": args.max_pixels}),
            )
        finally:
            bar.end()
        model = engine.info
    times.update(found.timings_ms)
    lap()
    facts = {"samrt": __version__, "model": model.model_id, "image_sha256": image.sha256}
    files = render(
        found, image.array, args.output_dir, stem, kinds,
        file_name=Path(image.name).name, facts=facts,
    )  # fmt: skip
    check_targets(files, force=args.force, inputs=inputs)
    write_files(files, force=args.force)
    times["write"] = lap()
    times["total"] = (clock[-1] - clock[0]) * 1000.0
    if not len(found):
        remarks.append(
            f"no mask passed: predicted IoU above {generator.options.pred_iou_thresh:g}, stability "
            f"of {generator.options.stability_score_thresh:g}; lower --pred-iou-thresh or "
            "--stability-score-thresh"
        )
    warnings = tuple(dict.fromkeys([*remarks, *image.warnings, *found.warnings]))
    names = OutputNames(args.output_dir, stem, 1, max(2, len(found)))
    result = InferResult(image, model, names, kinds, [], None, times, warnings, args.with_uids)
    if args.json:
        print_json(_document(result, found, generator, files))
    else:
        _print(image, model, found, files, times)
        warn(warnings)
    return 0


def _check_kinds(args: argparse.Namespace, kinds: tuple[str, ...]) -> None:
    from samrt.everything.render import EVERYTHING_KINDS

    other = [kind for kind in kinds if kind not in EVERYTHING_KINDS]
    if other:
        args.parser.error(
            f"--everything does not write {other[0]}, only {', '.join(EVERYTHING_KINDS)}"
        )


def _figures(
    found: Findings, index: int, spacing_mm: tuple[float, float] | None = None
) -> dict[str, Any]:
    """One mask; the far edges of its box lie behind the last pixel, as everywhere in samrt."""
    masks, area = found.masks, found.area(index)
    x0, y0, x1, y1 = (int(v) for v in masks.boxes[index])
    x, y = (float(v) for v in masks.points[index])
    return {
        "index": index,
        "score": round(float(masks.scores[index]), 6),
        "stability": round(float(masks.stability[index]), 6),
        "area_px": area,
        "area_mm2": None if spacing_mm is None else round(area * spacing_mm[0] * spacing_mm[1], 4),
        "box": [x0, y0, x1 + 1, y1 + 1] if area else [0, 0, 0, 0],
        "point": [x, y],
        "crop_box": [int(v) for v in masks.crops[index]],
    }


def _document(
    result: InferResult,
    found: Findings,
    generator: AutomaticMaskGenerator,
    files: dict[Path, bytes],
) -> dict[str, Any]:
    document = result_document(result)
    del document["prompts"]
    masks = [_figures(found, index, result.image.spacing_mm) for index in range(len(found))]
    singles = [str(path) for path in files if path.name.endswith(".mask.png")]
    for record, path in zip(masks, singles, strict=False):
        record["file"] = path
    options = generator.options
    return {
        **document,
        "everything": {
            "prompts": found.prompts,
            **{name.replace("-", "_"): _plain(getattr(options, name.replace("-", "_")))
               for name in (*_WHOLE, *_SHARES)},
        },
        "masks": masks,
    }  # fmt: skip


def _plain(value: Any) -> float | int | None:
    return None if value is None else (int(value) if float(value).is_integer() else float(value))


def _print(
    image: LoadedImage,
    model: ModelInfo,
    found: Findings,
    files: dict[Path, bytes],
    times: dict[str, float | None],
) -> None:
    height, width = image.size
    say(
        f"{image.name}: {width} x {height}, model {model.name} "
        f"({model.precision_effective}, {model.backend_effective}, {model.threads} threads)"
    )
    say(f"{len(found)} masks from {found.prompts} points")
    order = found.by_area()
    rows = []
    for index in order[:_ROWS]:
        record = _figures(found, index)
        box = ",".join(str(v) for v in record["box"])
        rows.append(
            [
                f"mask {index}",
                f"score {record['score']:.3f}",
                f"stability {record['stability']:.3f}",
                f"area {record['area_px']} px",
                f"box {box}",
            ]
        )
    print_table(rows)
    if len(order) > _ROWS:
        say(f"and {len(order) - _ROWS} smaller ones; --json lists all")
    singles = [path for path in files if path.name.endswith(".mask.png")]
    print_table([[str(path)] for path in files if path not in singles])
    if singles:
        say(f"{singles[0]} to {singles[-1]}")
    shown = ("encode", "decode", "masks", "filter", "total")
    parts = [f"{name} {times[name] or 0.0:.1f}" for name in shown]
    say(f"time in ms: {', '.join(parts)}")
