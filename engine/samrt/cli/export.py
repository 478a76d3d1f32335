"""``samrt export``: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

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
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .pth, .pt or .safetensors file")
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
        "--no-verify", action="store_true", help="leave out the comparison with the checkpoint"
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
        overwrite=args.force,
        verify=not args.no_verify,
        threads=args.threads,
        progress=lambda text: print(f"samrt: {text}", file=sys.stderr, flush=True),
    )
    manifest = bundle.manifest
    parity: dict[str, Any] = dict(manifest.parity or {})
    facts = {
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "family": manifest.family,
        "variant": manifest.variant,
        "input_size": list(manifest.input.size),
        "bytes": sum(part.bytes for part in manifest.artifacts),
        "parity": parity or None,
        "remarks": list(manifest.source.get("remarks", [])),
    }
    if args.json:
        print_json(facts)
    else:
        say(f"{bundle.path}: {manifest.family} {manifest.variant}, {bundle.model_id}")
        if parity:
            say(
                f"equal to the checkpoint on {parity['images']} images: mask IoU mean "
                f"{parity['mask_iou_mean']:.6f}, worst {parity['mask_iou_worst']:.6f}"
            )
    return 0
