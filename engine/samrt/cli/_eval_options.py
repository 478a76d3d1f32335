"""The options of ``samrt eval``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samrt.cli import _eval_volumes, _numbers

__all__ = ["add_options"]

DESCRIPTION = """\
Measure a model on images with known masks, by the protocol of COSMOS 1050K: six ways of
prompting, two ways of choosing a mask, overlap and surface distances with confidence intervals,
a curve of corrective clicks, a curve of box jitter, time per stage.

  samrt eval DATASET             measure
  samrt eval compare A B         set two runs on the same prompts side by side (folders or
                                 their eval.json)"""

EPILOG = """\
strategies: S1 everything mode (slow, ask for it), S2 one point, S3 five points, S4 five positive
and five negative points, S5 a box, S6 a box and a point.

data sets, told apart by themselves (see --format):
  index    a folder with index.json: records of set, image, mask, label_value, target, modality,
           box_xyxy, area_px, width, height
  folders  images/NAME.png with masks/NAME.png: label maps, binary masks, or a folder of binary
           masks per image; dataset.json may hold name, modality, labels, spacing
  nifti    images/ or imagesTr/ with labels/ or labelsTr/, or X.nii.gz with X_seg.nii.gz
  npz      files of the CVPR challenge "on laptop": imgs, gts, and boxes

files, in the output folder: targets.jsonl (one line per target; a run that was interrupted goes
on from it when the same command is given again), volumes.jsonl (the same for whole volumes),
eval.json, eval.md, eval.html.

examples:
  samrt eval shared/data --limit 60 -o out/eval
  samrt eval volumes --strategies S5 --jitter none --clicks 0 --precision fp32,int8
  samrt eval compare out/fp32 out/int8 -o out/compared"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options."""
    parser.add_argument(
        "words", nargs="+", metavar="DATASET | compare A B",
        help="folder or file of a data set; or compare and two runs",
    )  # fmt: skip
    _add_protocol(parser)
    _add_data(parser)
    _add_model(parser)
    _add_output(parser)


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("protocol").add_argument
    add("--strategies", metavar="S2,S5", help="ways of prompting (S2 to S6 as the model allows)")
    add(
        "--jitter", metavar="LOW-HIGH,...",
        help="levels of the box jitter curve in pixels, or none (0-10,10-20,20-30)",
    )  # fmt: skip
    add(
        "--clicks", type=_numbers.at_least(0), metavar="N",
        help="clicks of the interactive curve, 0 for none (10)",
    )  # fmt: skip
    add(
        "--refine", type=_numbers.at_least(0), default=0, metavar="N",
        help="every answer refined N times, as by samrt infer --refine; not everything mode and "
        "following (0)",
    )  # fmt: skip
    add(
        "--nsd-tolerance", type=float, default=2.0, metavar="X",
        help="of the surface Dice, mm where the spacing is known, else pixels (2)",
    )  # fmt: skip
    add(
        "--volumes", type=_eval_volumes.ways, default=None, metavar="WAY,...",
        help="3-D figures of whole volumes: slices (a box on every slice), propagate (one box on "
        "the middle slice, followed up and down; encodes a volume once more per object), or none "
        "(slices where the data are volumes)",
    )  # fmt: skip
    add("--seed", type=_numbers.at_least(0), default=0, metavar="N", help="seed (0)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("data").add_argument
    add(
        "--format", default="auto", choices=("auto", "index", "folders", "nifti", "npz"),
        help="how the data set is stored (auto)",
    )  # fmt: skip
    add("--limit", type=_numbers.at_least(1), metavar="N", help="most targets a set, by lot (all)")
    add("--sets", type=_words, default=(), metavar="A,B", help="only these sets")
    add(
        "--exclude", action="append", default=[], metavar="PATTERN",
        help="leave out images that match, such as 'train/*'; may be repeated",
    )  # fmt: skip
    add("--modality", default="unknown", help="what to call it where the data do not say")
    add(
        "--window", type=_numbers.window, metavar="LO,HI",
        help="intensities shown black and white, minmax or percentile, for images of more than "
        "8 bits (percentile, of the whole volume)",
    )  # fmt: skip
    add(
        "--plane", default="auto", choices=("auto", "axial", "coronal", "sagittal"),
        help="slices of volumes (auto: across the coarsest spacing)",
    )  # fmt: skip
    add("--skip-bad", action="store_true", help="note images that cannot be read and go on")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", default="tiny", metavar="NAME", help="installed model or bundle folder (tiny)")
    add("--backend", default="auto", metavar="NAME", help="see samrt info (auto)")
    add(
        "--precision", type=_words, default=("auto",), metavar="NAME[,NAME]",
        help="fp32, fp16 or int8; several are run one after the other and compared (auto)",
    )  # fmt: skip
    add("--threads", type=_numbers.at_least(1), metavar="N", help="threads (all, at most 8)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add(
        "-o", "--output-dir", type=Path, metavar="DIR",
        help="folder for the files (samrt-eval, or samrt-eval-compare)",
    )  # fmt: skip
    add("--dataset", metavar="DIR", help="for compare: where the data are, to draw worst cases")
    add(
        "--segs", action="store_true",
        help="also write the answers of S5 to npz data as segs/FILE.npz, as the challenge wants",
    )  # fmt: skip
    add("--force", action="store_true", help="begin anew where the folder holds another run")
    add("--json", action="store_true", help="print one JSON document")


def _words(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not words:
        raise argparse.ArgumentTypeError("names nothing")
    return words
