"""``samrt export``: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt.bundle import Bundle

__all__ = ["add_subparser", "run"]


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export",
        help="make a bundle from a checkpoint",
        description="Read a checkpoint of the Segment Anything family, tell from its keys what it "
        "is, write it as ONNX graphs, and prove on built-in images that the bundle computes what "
        "the checkpoint does. Needs the extra 'export' (pip install 'samrt[export]').",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a .pth, .pt or .safetensors file; with --precision fp16 also a bundle",
    )
    parser.add_argument("-o", "--output", metavar="NAME.samrt", required=True, help="the bundle")
    parser.add_argument(
        "--family", help="what it is, where several families have the same keys (medsam)"
    )
    parser.add_argument(
        "--base", metavar="CHECKPOINT", help="the checkpoint that a LoRA adapter was trained on"
    )
    parser.add_argument(
        "--lora-alpha", type=float, help="lora_alpha of a PEFT adapter (adapter_config.json)"
    )
    parser.add_argument("--name", help="the model's name; by default that of the bundle")
    parser.add_argument(
        "--image-size",
        metavar="S|HxW",
        type=_size,
        help="another input size; position tables are interpolated",
    )
    parser.add_argument(
        "--crop-padding",
        metavar="HxW",
        type=_size,
        help="encode only this part of the frame, for images of that shape (768x1024 for 4:3); "
        "faster, but not exactly the original's answer",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="fp16 adds float16 graphs to the float32 ones, with float32 islands found by "
        "measurement (fp32)",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="measure and prove float16 on the pictures in this folder too",
    )
    parser.add_argument(
        "--half-io",
        action="store_true",
        help="float16 inputs and outputs of the float16 graphs; points stay float32",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="leave out the comparison with the checkpoint"
    )
    parser.add_argument(
        "--keep-refused",
        action="store_true",
        help="write also what the comparison refuses, marked so (exit code 3); it is loaded only "
        "with --allow-refused, which every result then says",
    )
    parser.add_argument(
        "--no-cpu-form",
        action="store_true",
        help="leave out the encoder's second form, in samrt's own operators for ONNX Runtime",
    )
    parser.add_argument("--threads", type=int, help="threads of the comparison")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,4})(?:[x,](\d{2,4}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 512 or 768x1024 (HxW)")
    height = int(found[1])
    return height, int(found[2] or height)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.cli._report import print_json, say
    from samrt.errors import BackendUnavailableError

    if _is_bundle(args.checkpoint):
        return _convert(args)
    try:
        from samrt_export.exporter import export
    except ModuleNotFoundError as exc:
        raise BackendUnavailableError(
            f"exporting needs {exc.name}, which is not installed: pip install 'samrt[export]'"
        ) from exc
    bundle = export(
        args.checkpoint,
        args.output,
        family=args.family,
        base=args.base,
        lora_alpha=args.lora_alpha,
        name=args.name,
        image_size=args.image_size,
        crop_padding=args.crop_padding,
        precision=args.precision,
        calibration_images=args.images,
        half_io=args.half_io,
        overwrite=args.force,
        verify=not args.no_verify,
        keep_refused=args.keep_refused,
        cpu_form=False if args.no_cpu_form else None,
        threads=args.threads,
        progress=_progress,
    )
    return _report(args, bundle, print_json, say)


def _is_bundle(source: str) -> bool:
    """Whether the source is a bundle, or the name of one, and no checkpoint."""
    from samrt.bundle import MANIFEST_NAME, available_models

    known = source in available_models() and not Path(source).exists()
    return known or (Path(source) / MANIFEST_NAME).is_file()


def _progress(text: str) -> None:
    print(f"samrt: {text}", file=sys.stderr, flush=True)


def _convert(args: argparse.Namespace) -> int:
    """A bundle with float16 graphs from one without."""
    from samrt.bundle import find_model
    from samrt.cli._report import print_json, say
    from samrt.errors import BackendUnavailableError, OptionError

    if args.precision != "fp16":
        raise OptionError(f"{args.checkpoint} is a bundle already: give --precision fp16")
    given = ("family", "base", "lora_alpha", "name", "image_size", "crop_padding", "no_verify")
    for option in (*given, "no_cpu_form"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise OptionError(f"--{name} is of use for checkpoints only: leave it out")
    try:
        from samrt_export.precision import add_precision
    except ModuleNotFoundError as exc:
        raise BackendUnavailableError(
            f"converting needs {exc.name}, which is not installed: pip install 'samrt[export]'"
        ) from exc
    bundle = add_precision(
        find_model(args.checkpoint),
        args.precision,
        out=args.output,
        images=args.images,
        half_io=args.half_io,
        overwrite=args.force,
        keep_refused=args.keep_refused,
        threads=args.threads,
        progress=_progress,
    )
    return _report(args, bundle, print_json, say)


def _report(
    args: argparse.Namespace,
    bundle: Bundle,
    print_json: Callable[[Any], None],
    say: Callable[[str], None],
) -> int:
    """Print what was made; the exit code."""
    from samrt.cli._refused import report_refused, verdict_of

    manifest = bundle.manifest
    refused = {p for p in bundle.precisions() if verdict_of(bundle, p).state == "refused"}
    parity: dict[str, Any] = dict(manifest.parity or {})
    facts = {
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "family": manifest.family,
        "variant": manifest.variant,
        "input_size": list(manifest.input.size),
        "bytes": sum(item.bytes for item in bundle.files().values()),
        "precisions": list(bundle.precisions()),
        "parity": parity or None,
        "calibration": dict(manifest.calibration or {}) or None,
        "remarks": list(manifest.source.get("remarks", [])),
    }
    if args.json:
        print_json(facts)
    else:
        say(f"{bundle.path}: {manifest.family} {manifest.variant}, {bundle.model_id}")
        half = parity.get("other_precisions", {}).get("fp16")
        if half and "fp16" not in refused:
            say(
                f"fp16 against {half['against'].split(',')[0]} on {half['images']} images: mask "
                f"IoU mean {half['mask_iou_mean']:.6f}, worst {half['mask_iou_worst']:.6f}"
            )
        if parity.get("precision") == "fp32" and "fp32" not in refused:
            say(
                f"equal to the checkpoint on {parity['images']} images: mask IoU mean "
                f"{parity['mask_iou_mean']:.6f}, worst {parity['mask_iou_worst']:.6f}"
            )
    made = ("fp32", "fp16") if args.precision == "fp16" else ("fp32",)
    return report_refused(bundle, (p for p in made if p in bundle.precisions()))
