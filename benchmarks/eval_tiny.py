"""Accuracy of the embedded model on real data, by ``samrt eval``; see ``samrt eval --help``.

    python benchmarks/eval_tiny.py ../shared/data --json benchmarks/results/eval.json

CT cases that the model was trained on are left out. Stopped runs go on when started again. With
several --model folders (fp16 and int8 bundles of the same model) each is compared with the first;
with --most-drop the exit code is 3 if one loses more than that, as a mean of sets.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from samrt.cli import main as samrt
from samrt.evaluation.summary import dump

TRAINED_SET = "btcv_imis"


def trained_patterns(root: Path) -> list[str]:
    """Image patterns of the training cases: of the sorted cases every third is held out."""
    rows = json.loads((root / "index.json").read_text(encoding="utf-8"))
    images = {str(r["image"]) for r in rows if r["set"] == TRAINED_SET}
    cases = sorted({re.sub(r"_\d+\.png$", "", image) for image in images})
    held_out = set(cases[::3])
    return [f"{case}_*" for case in cases if case not in held_out]


KEPT = re.compile(
    r"S\d\.deployable\.(dice|iou|nsd|hd|hd95|asd)|S\d\.oracle\.(dice|nsd)|ellipse\..*|jitter .*"
    r"|click \d+\.dice|(NoC|reached)@.*"
)


def keep(source: Path, target: Path) -> None:
    """Copy a report without the figures that no table of ours shows."""
    document = json.loads(source.read_text(encoding="utf-8"))
    for groups in document["groups"].values():
        for group in groups.values():
            figures = group["figures"].items()
            group["figures"] = {name: v for name, v in figures if KEPT.fullmatch(name)}
    target.write_text(dump(document), encoding="utf-8")


def keep_comparison(source: Path, target: Path) -> None:
    """Copy a comparison without the folders of this machine."""
    document = json.loads(source.read_text(encoding="utf-8"))
    for run_ in document["runs"]:
        run_["path"] = Path(run_["path"]).name
    target.write_text(dump(document), encoding="utf-8")


def judge(document: dict[str, Any], most: float) -> bool:
    """Print by how much the second run of a comparison is worse, and whether that is allowed."""
    strategy = document["main_strategy"]
    found = document["strategies"][strategy]["mean of sets"]["dice_difference"]
    drop = 0.0 - float(found[0])
    met = drop <= most
    print(
        f"{document['runs'][1]['config']['model']['precision']}: {strategy} loses "
        f"{100 * drop:.2f} Dice points, at most {100 * most:g} allowed: "
        f"{'met' if met else 'MISSED'}"
    )
    return met


def run(args: argparse.Namespace) -> int:
    folders: list[Path] = []
    for entry in args.model:
        label, _, source = entry.rpartition("=")
        model, _, precision = source.partition("@")
        folder = args.output_dir / (label or re.sub(r"\W+", "_", Path(model).stem))
        words = ["eval", str(args.data), "--model", model, "--limit", str(args.limit)]
        words += ["--strategies", args.strategies, "--seed", "0", "-o", str(folder)]
        words += ["--precision", precision] if precision else []
        words += ["--sets", args.sets] if args.sets else []
        words += ["--jitter", "none", "--clicks", "0"] if args.short else []
        for pattern in trained_patterns(args.data):
            words += ["--exclude", pattern]
        code = samrt(words)
        if code:
            return code
        folders.append(folder)
        if args.json:
            keep(folder / "eval.json", args.json.with_stem(args.json.stem + "_" + folder.name))
    met = True
    for folder in folders[1:]:
        place = args.output_dir / f"{folder.name}_against_{folders[0].name}"
        code = samrt(["eval", "compare", str(folders[0]), str(folder), "-o", str(place)])
        if code:
            return code
        if args.json:
            name = f"{args.json.stem}_{folder.name}_against_{folders[0].name}.json"
            keep_comparison(place / "compare.json", args.json.with_name(name))
        if args.most_drop is not None:
            document = json.loads((place / "compare.json").read_text(encoding="utf-8"))
            met = judge(document, args.most_drop) and met
    return 0 if met else 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with index.json")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[LABEL=]MODEL[@PRECISION]",
        help="may be repeated",
    )
    parser.add_argument("--limit", type=int, default=60, help="most targets a set")
    parser.add_argument("--sets", help="only these sets")
    parser.add_argument("--strategies", default="S2,S3,S4,S5,S6")
    parser.add_argument("--short", action="store_true", help="neither clicks nor jitter")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("out/eval"))
    parser.add_argument(
        "--most-drop", type=float, metavar="DICE", help="most that later models may lose, as 0.005"
    )
    parser.add_argument("--json", type=Path, help="copy the figures beside this name")
    args = parser.parse_args()
    args.model = args.model or ["tiny"]
    return run(args)


if __name__ == "__main__":
    raise SystemExit(main())
