"""``samrt quantize``: a bundle gets int8 graphs, calibrated on the user's own pictures."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers

if TYPE_CHECKING:
    from samrt.bundle import Bundle

__all__ = ["add_subparser", "run"]


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "quantize",
        help="add int8 graphs to a bundle, calibrated on pictures",
        description="Measure the encoder of a bundle on pictures, write its linear layers and "
        "convolutions in int8, and prove on pictures that the masks stay what they were; what "
        "is too sensitive stays float32. Nothing is written if the proof fails (exit code 3), "
        "but with --keep-refused. "
        "An interrupted run goes on where it was. Needs the extra 'export'.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="name of a model or path of its folder")
    add(
        "--images", metavar="DIR",
        help="32 to 128 pictures or DICOM files of the kind that will be segmented",
    )  # fmt: skip
    add(
        "--window", type=_numbers.window, metavar="LO,HI",
        help="intensities shown black and white, as for samrt infer",
    )  # fmt: skip
    add("-o", "--output", metavar="NAME.samrt", help="write a new bundle, leave this one as it is")
    add(
        "--weights-only", action="store_true",
        help="int8 weights and float32 arithmetic, as precision int8-weights: small, not faster",
    )  # fmt: skip
    add(
        "--alone", action="store_true",
        help="leave the float32 graphs out that the new ones replace; with --output",
    )  # fmt: skip
    add(
        "--convs", choices=("auto", "all", "none"), default="auto",
        help="which convolutions: auto leaves those beside a GELU, which ONNX Runtime would slow "
        "down; all suits OpenVINO and TensorRT (auto)",
    )  # fmt: skip
    add(
        "--exclude", action="append", default=[], metavar="REGEX",
        help="leave layers alone whose name matches; may be repeated",
    )  # fmt: skip
    add(
        "--method", choices=("auto", "max", "percentile", "mse", "entropy"), default="auto",
        help="how the range of a layer's input is found; auto tries all (auto)",
    )  # fmt: skip
    add("--no-smoothing", action="store_true", help="no migration of large channels into weights")
    add("--no-bias-correction", action="store_true", help="leave biases as they are")
    add(
        "--limit", type=_numbers.at_least(1), default=128, metavar="N",
        help="use at most so many of the pictures, evenly chosen (128)",
    )  # fmt: skip
    add(
        "--backends", type=_names, metavar="NAME,NAME",
        help="runtimes in which int8 must be good enough: onnxruntime, or onnxruntime,openvino, "
        "which multiplies in its own way (onnxruntime, and openvino if it is installed)",
    )  # fmt: skip
    add("--no-resume", action="store_true", help="forget what an interrupted run has measured")
    add("--threads", type=_numbers.at_least(1), metavar="N", help="threads to use")
    add(
        "--keep-refused", action="store_true",
        help="write also what the proof refuses, marked so (exit code 3); it is loaded only with "
        "--allow-refused, which every result then says",
    )  # fmt: skip
    add("--force", action="store_true", help="replace int8 graphs, or a bundle, that are there")
    add("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.bundle import find_model
    from samrt.cli._refused import report_refused
    from samrt.errors import BackendUnavailableError, OptionError

    if args.images is None and not args.weights_only:
        raise OptionError("int8 needs pictures to calibrate on: add --images DIR")
    try:
        from samrt_export.quantize import QuantizeOptions, quantize
    except ModuleNotFoundError as exc:
        raise BackendUnavailableError(
            f"quantizing needs {exc.name}, which is not installed: pip install 'samrt[export]'"
        ) from exc
    options = QuantizeOptions(
        precision="int8-weights" if args.weights_only else "int8",
        window=args.window,
        convs=args.convs,
        exclude=tuple(args.exclude),
        method=args.method,
        smoothing=not args.no_smoothing,
        bias_correction=not args.no_bias_correction,
        most_pictures=args.limit,
        alone=args.alone,
        threads=args.threads,
        backends=args.backends,
    )
    bundle = quantize(
        find_model(args.bundle),
        args.images,
        out=args.output,
        options=options,
        overwrite=args.force,
        keep_refused=args.keep_refused,
        resume=not args.no_resume,
        progress=_progress,
    )
    _report(args, bundle, options.precision)
    return report_refused(bundle, (options.precision,))


def _progress(text: str) -> None:
    print(f"samrt: {text}", file=sys.stderr, flush=True)


def _report(args: argparse.Namespace, bundle: Bundle, precision: str) -> None:
    """Print what was made."""
    from samrt.cli._report import print_json, say, size_text
    from samrt.gate import parity_record

    manifest = bundle.manifest
    record: dict[str, Any] = dict(parity_record(manifest, precision) or {})
    entry: dict[str, Any] = dict((manifest.calibration or {}).get(precision, {}))
    sizes = {name: bundle.artifact("encoder", name).total_bytes for name in bundle.precisions()}
    if args.json:
        print_json(
            {
                "bundle": str(bundle.path),
                "model_id": bundle.model_id,
                "precision": precision,
                "precisions": list(bundle.precisions()),
                "encoder_bytes": sizes,
                "parity": record or None,
                "calibration": entry or None,
            }
        )
        return
    say(f"{bundle.path}: {precision}, {bundle.model_id}")
    say(", ".join(f"encoder {name} {size_text(size)}" for name, size in sizes.items()))
    if "layers" in entry:
        say(f"{len(entry['layers'])} layers in int8, {entry['returned']} returned to float32")
    say(
        f"against {record['against'].split(',')[0]} on {record['images']} images: mask IoU mean "
        f"{record['mask_iou_mean']:.6f}, worst {record['mask_iou_worst']:.6f}"
    )
    for name, figures in list(entry.get("runtimes", {}).items())[1:]:
        say(f"in {name}: {figures}")
