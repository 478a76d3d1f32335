"""What ``samrt infer --square-pixels`` gains on pictures whose pixels are not square.

    python benchmarks/square_pixels.py ../shared/data --json benchmarks/results/square_pixels.json

Pictures with square pixels are made flat or narrow by averaging rows or columns, as thick slices
are; the tight box of the flat mask is asked, once of the picture as it is stored and once of the
stretched one. Dice is that of the model's choice on the stored pixels. CT cases that the model was
trained on are left out. Targets are taken in a random order until ``--seconds`` have passed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import samrt
from eval_tiny import trained_patterns
from samrt.evaluation.dataset import choose, tight_box
from samrt.evaluation.formats import open_dataset
from samrt.evaluation.metrics import dice
from samrt.evaluation.statistics import estimate, mean_of
from samrt.evaluation.summary import dump
from samrt.predictor import Predictor
from samrt.square import predict_square
from samrt.types import Prompt

LEAST_AREA = 50


def flattened(values: NDArray[Any], ratio: float, axis: int) -> NDArray[Any]:
    """Rows (axis 0) or columns averaged so that there are ``ratio`` times fewer of them."""
    height, width = values.shape[:2]
    size = (width, round(height / ratio)) if axis == 0 else (round(width / ratio), height)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))


def ask(engine: Predictor, image: NDArray[Any], mask: NDArray[np.bool_], ratio: float, axis: int
        ) -> tuple[float, float]:  # fmt: skip
    """Dice of the picture as it is stored, and of the stretched one."""
    x0, y0, x1, y1 = tight_box(mask)
    prompt = Prompt(box=(float(x0), float(y0), float(x1 + 1), float(y1 + 1)))
    plain = engine.decode(engine.encode(image), prompt, multimask_output=False)[0]
    spacing = (ratio, 1.0) if axis == 0 else (1.0, ratio)
    square = predict_square(engine, image, prompt, spacing=spacing)[0]
    return dice(plain.masks[0], mask), dice(square.masks[0], mask)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    dataset = open_dataset(args.data)
    targets = choose(dataset, exclude=trained_patterns(args.data), limit=args.limit, seed=0)
    order = np.random.default_rng(0).permutation(len(targets))
    found: dict[float, dict[str, list[tuple[float, float]]]] = {
        ratio: defaultdict(list) for ratio in args.ratios
    }
    begin, done = time.monotonic(), 0
    with samrt.load(args.model, threads=args.threads) as engine:
        for number, index in enumerate(order):
            if args.seconds and time.monotonic() - begin > args.seconds:
                break
            target, done = targets[index], done + 1
            image, mask = dataset.read_image(target), dataset.read_mask(target)
            for ratio in args.ratios:
                small = flattened(image, ratio, number % 2)
                held = flattened(mask.astype(np.float32), ratio, number % 2) >= 0.5
                if np.count_nonzero(held) > LEAST_AREA:
                    found[ratio][target.set].append(ask(engine, small, held, ratio, number % 2))
    rows = {f"{ratio:g}": row(sets) for ratio, sets in found.items()}
    return {"model": args.model, "samrt": samrt.__version__, "targets": done, "ratios": rows}


def row(sets: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Means of sets as stored, square and their difference, with 95 % intervals over targets."""
    names = ("stored", "square", "gain")
    parts: dict[str, dict[str, Any]] = {name: {} for name in names}
    for set_name, pairs in sets.items():
        stored, square = np.array(pairs, np.float64).T
        for name, values in zip(names, (stored, square, square - stored), strict=True):
            parts[name][set_name] = estimate(values, np.arange(len(values)))
    return {
        "sets": len(sets),
        **{name: mean_of(part).as_list() for name, part in parts.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with index.json")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--limit", type=int, default=4, help="most targets a set")
    parser.add_argument("--ratios", type=float, nargs="+", default=[1.5, 2.0, 3.0, 4.0])
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    document = measure(args)
    print(f"{document['targets']} targets; Dice [95 % interval]")
    for ratio, found in document["ratios"].items():
        cells = [
            f"{name} {v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]"
            for name, v in ((n, found[n]) for n in ("stored", "square", "gain"))
            if v[1] is not None
        ]
        print(f"pixels {ratio} : 1, {found['stored'][3]} targets: {', '.join(cells)}")
    if args.json:
        args.json.write_text(dump(json.loads(json.dumps(document))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
