"""`samrt-export tiny pool | train | export | eval`."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the `tiny` verb."""
    tiny = verbs.add_parser("tiny", help="train, export and evaluate the embedded default model")
    steps = tiny.add_subparsers(dest="step", required=True, metavar="STEP")

    pool = steps.add_parser("pool", help="write procedural training images")
    pool.add_argument("folder", type=Path)
    pool.add_argument("--count", type=int, default=10000)
    pool.add_argument("--start", type=int, default=0, help="first number (several processes)")
    pool.add_argument("--seed", type=int, default=1)
    pool.add_argument("--kinds", default="", help="scenes to draw in turn, comma-separated")
    pool.set_defaults(run=_pool)

    train = steps.add_parser("train", help="train, or go on after an interruption")
    train.add_argument("out", type=Path, help="folder for checkpoints")
    train.add_argument("--pool", type=Path, required=True)
    train.add_argument("--focus", type=Path, help="a second pool with a share of its own")
    train.add_argument("--focus-share", type=float, default=0.45)
    train.add_argument("--real-share", type=float, default=0.12)
    train.add_argument("--real", type=Path, help="folder with index.json; only train-ok is read")
    train.add_argument("--recipe", choices=sorted(RECIPES), default="full")
    train.add_argument("--start-from", type=Path, help="checkpoint whose weights to begin with")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--device", default="cpu")
    train.set_defaults(run=_train)

    small = steps.add_parser("slim", help="averaged weights only, to keep or to train on from")
    small.add_argument("checkpoints", type=Path, nargs="+", help="of several, their mean")
    small.add_argument("-o", "--output", type=Path, required=True)
    small.set_defaults(run=_slim)

    export = steps.add_parser("export", help="write the bundle")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("-o", "--output", type=Path, required=True)
    export.add_argument("--force", action="store_true", help="replace an existing bundle")
    export.set_defaults(run=_export)

    score = steps.add_parser("eval", help="accuracy on a folder of images with masks")
    score.add_argument("data", type=Path, help="folder with index.json")
    score.add_argument("--model", default="tiny", help="bundle name or path")
    score.add_argument("--precision", default="auto", help="of the bundle: fp32, fp16 or int8")
    score.add_argument("--checkpoint", type=Path, help="evaluate a training checkpoint instead")
    score.add_argument("--refine", type=int, default=0, help="refining steps of every answer")
    score.add_argument("--per-set", type=int, default=150)
    score.add_argument("--seed", type=int, default=0)
    score.add_argument("--clicks", type=int, default=5)
    score.add_argument("--multimask", action="store_true", help="choose among the candidates only")
    score.add_argument("--json", type=Path, help="also write the figures here")
    score.set_defaults(run=_eval)


RECIPES: dict[str, tuple[tuple[int, int, int, int, float, float], ...]] = {
    "full": ((256, 8, 4, 4200, 1.2e-3, 2e-4), (512, 4, 4, 850, 4e-4, 1e-5)),
    "again": ((256, 8, 4, 1500, 6e-4, 2.5e-4), (512, 4, 4, 1500, 3e-4, 1e-5)),
    "refine": ((512, 4, 4, 2400, 3e-4, 3e-6),),
    "smoke": ((128, 2, 2, 4, 1e-3, 1e-4),),
}
"""Phases: frame size, images, targets an image, steps, first and last learning rate.

`full` starts from nothing; `again` goes on from trained weights with harder images; `refine`
teaches the decoder alone to make use of its own masks.
"""

SPECIAL: dict[str, dict[str, Any]] = {
    "refine": {"rounds": 3, "refine": 0.55, "frozen_encoder": True},
}
"""Further options of `TrainOptions` that belong to a recipe."""


def _pool(args: argparse.Namespace) -> int:
    from samrt_export.tiny.data import build_pool

    kinds = tuple(k for k in args.kinds.split(",") if k)
    build_pool(args.folder, args.count, args.seed, start=args.start, kinds=kinds)
    return 0


def _train(args: argparse.Namespace) -> int:
    from samrt_export.tiny.train import Phase, TrainOptions, train

    train(
        TrainOptions(
            out=args.out,
            pool=args.pool,
            focus=args.focus,
            focus_share=args.focus_share,
            real=args.real,
            real_share=args.real_share,
            phases=tuple(Phase(*p) for p in RECIPES[args.recipe]),
            seed=args.seed,
            threads=args.threads,
            device=args.device,
            start_from=args.start_from,
            **SPECIAL.get(args.recipe, {}),
        )
    )
    return 0


def _slim(args: argparse.Namespace) -> int:
    from samrt_export.tiny.train import slim

    slim(args.checkpoints, args.output)
    return 0


def _export(args: argparse.Namespace) -> int:
    from samrt_export.tiny.export import export_tiny

    bundle = export_tiny(args.checkpoint, args.output, overwrite=args.force)
    print(f"{bundle.path}: {json.dumps(dict(bundle.manifest.parity or {}), indent=1)}")
    return 0


def _eval(args: argparse.Namespace) -> int:
    import samrt
    from samrt_export.tiny.bundle_segmenter import BundleSegmenter
    from samrt_export.tiny.evaluate import Segmenter, evaluate, format_table
    from samrt_export.tiny.torch_segmenter import TorchSegmenter, load_checkpoint

    segmenter: Segmenter
    if args.checkpoint:
        choose = (1, 2, 3) if args.multimask else (0, 1, 2, 3)
        segmenter = TorchSegmenter(
            load_checkpoint(args.checkpoint), choose=choose, refine_steps=args.refine
        )
        name = str(args.checkpoint)
    else:
        predictor = samrt.load(args.model, precision=args.precision)
        segmenter = BundleSegmenter(predictor, multimask=args.multimask, refine_steps=args.refine)
        name = f"{predictor.info.model_id} in {predictor.info.precision_effective}"
    table = evaluate(segmenter, args.data, args.per_set, args.seed, args.clicks)
    print(f"{name}, at most {args.per_set} targets a set, seed {args.seed}\n")
    print(format_table(table))
    if args.json:
        record = {
            "model": name,
            "samrt": samrt.__version__,
            "commit": _commit(),
            "machine": f"{platform.machine()} {platform.system()}",
            "per_set": args.per_set,
            "seed": args.seed,
            "refine_steps": args.refine,
            "mask": f"highest predicted IoU of {3 if args.multimask else 4}",
            "table": table,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
