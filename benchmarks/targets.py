"""What was wanted of the speed on a CPU, and what the recorded results say.

    python benchmarks/targets.py [--results DIR]

Runs nothing: `peers.json`, `int8.json`, `tiny.json` and `everything.json` are read, which
`make bench` writes, and one table is printed, with machine, versions, commit and load average of
each file below it.  A row whose figures come from another commit or another machine than most is
marked, and so is one during which other programs took more than a tenth of the processors.  Times
of peers and of int8 are minima, those of `tiny` and of everything mode medians.  Memory is in
10 ** 6 and 10 ** 9 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import readings as read
from machine import MUCH
from readings import Reading, Record, Source

RESULTS = Path(__file__).resolve().parent / "results"
NOTES = "benchmarks/NOTES.md"
HEAD = "| what | wanted | measured | | tried |\n|---|---|---|---|---|"
Origin = tuple[str, str]


@dataclass(frozen=True)
class Target:
    """A row.

    Attributes:
        what: is measured.
        wanted: the target in words.
        limit: the target; the largest value that meets it, or the smallest.
        file: in the folder of results.
        part: the target of the Makefile that writes the file.
        find: its figures; all have to meet the target.
        tried: what was done about it, in a few words.
        section: the heading in the notes that says more.
        smallest: the limit is the smallest value.
    """

    what: str
    wanted: str
    limit: float
    file: str
    part: str
    find: Callable[[Record], list[Reading]]
    tried: str
    section: str
    smallest: bool = False

    def short_by(self, value: float) -> float:
        """Share of the limit that is missing; 0 or less: met."""
        return (self.limit - value if self.smallest else value - self.limit) / self.limit


# -- the rows --------------------------------------------------------------------------------------

PEERS, INT8 = ("peers.json", "bench-peers"), ("int8.json", "bench-int8")
TINY, EVERYTHING = ("tiny.json", "bench-tiny"), ("everything.json", "bench-everything")
_PASS = "One pass over the image per block"
_PRODUCTS = "Products, instruction by instruction"
TARGETS = (
    Target(
        "MobileSAM, encode 1024²", "≤ 0.65 × best peer", 0.65, *PEERS,
        read.against_best("mobile_sam"), "fused operators, minimal filtering, products at the "
        "machine's rate", _PRODUCTS,
    ),
    Target(
        "the same, of the machine's sgemm rate", "≥ 80 %", 0.80, *PEERS, read.of_sgemm,
        "fused operators, channels last", _PRODUCTS, smallest=True,
    ),
    Target(
        "SAM ViT-B, encode 1024²", "≤ 0.7 × best peer", 0.70, *PEERS, read.against_best("sam"),
        "fused attention, MLP and norms; products at the machine's rate", _PRODUCTS,
    ),
    Target(
        "the same, peak memory", "≤ 1.3 GB", 1.3, *PEERS, read.encoder_memory,
        "attention without a bias of heads × tokens × tokens",
        "Tiles for runtimes without fused attention",
    ),
    Target(
        "SAM decoder, one box", "≤ 0.40 × official ONNX", 0.40, *PEERS,
        read.against_peer("decode 1 box", read.OFFICIAL), "image side in one pass per block", _PASS,
    ),
    Target(
        "SAM decoder, 16 boxes in one call", "≤ 0.5 × 16 calls", 0.5, *PEERS, read.sixteen_boxes,
        "what no prompt changes is in the encoder", _PASS,
    ),
    Target(
        "box to mask of 1024²", "≤ 0.35 × segment-anything's `predict`", 0.35, *PEERS,
        read.against_peer("box to mask", read.TORCH), "image side in one pass per block", _PASS,
    ),
    Target(
        "INT8 encoder, SAM ViT-B", "≤ 0.6 × our FP32, gate passed", 0.6, *INT8,
        read.int8("sam:vit_b"), "integer products in our own operators", "Eight bits",
    ),
    Target(
        "INT8 encoder, MobileSAM", "≤ 0.6 × our FP32, gate passed", 0.6, *INT8,
        read.int8("mobile_sam"), "integer products in our own operators", "Eight bits",
    ),
    Target(
        "`tiny`, image file to mask, 512²", "≤ 45 ms", 45.0, *TINY, read.tiny_warm,
        "operators of our own for encoder and decoder", "The shipped model",
    ),
    Target(
        "`samrt infer` with `tiny`, cold", "≤ 0.5 s", 0.5, *TINY, read.tiny_cold,
        "weights stored as float16, byte code kept", "The shipped model",
    ),
    Target(
        "the same, peak memory", "≤ 200 MB", 200.0, *TINY, read.tiny_memory,
        "weights stored as float16", "The shipped model",
    ),
    Target(
        "everything mode, embedding ready", "≤ 0.4 × segment-anything's generator", 0.4,
        *EVERYTHING, read.everything, "filters before enlarging, one pass per mask",
        "Everything mode and zoom",
    ),
)  # fmt: skip


# -- the table -------------------------------------------------------------------------------------


@dataclass
class Row:
    """A target with what was found: readings, or the reason why there are none."""

    target: Target
    readings: list[Reading]
    problem: str = ""
    refused: bool = False
    origins: frozenset[Origin] = frozenset()

    @property
    def short_by(self) -> float | None:
        """Of the worst reading; ``None`` without one."""
        return max((self.target.short_by(r.value) for r in self.readings), default=None)

    @property
    def met(self) -> bool:
        return self.short_by is not None and self.short_by <= 0.0

    def line(self, usual: frozenset[Origin]) -> str:
        """The row in Markdown; marked where its figures have other origins."""
        short, target = self.short_by, self.target
        tried = f'{target.tried}: "{target.section}" in `{NOTES}`'
        measured = "; ".join(reading.words for reading in self.readings) or self.problem
        if self.refused:
            verdict = "**fell short**: no answer that may be used"
        elif short is None:
            measured, verdict, tried = f"not measured: {self.problem}", "", ""
        elif self.met:
            verdict, tried = "met", ""
        else:
            verdict = f"**fell short by {short:.1%}**"
        marks = " †" * (bool(self.origins) and self.origins != usual)
        marks += " \\*" * any(reading.others > MUCH for reading in self.readings)
        measured = measured.replace("|", "/")
        return f"| {target.what}{marks} | {target.wanted} | {measured} | {verdict} | {tried} |"


def load(folder: Path) -> dict[str, Source]:
    """The files that are there."""
    found = {}
    for name in dict.fromkeys(target.file for target in TARGETS):
        path = folder / name
        if path.exists():
            found[name] = Source(name, json.loads(path.read_text("utf-8")))
    return found


def rows(sources: dict[str, Source], targets: Iterable[Target] = TARGETS) -> list[Row]:
    """All rows."""
    return [row_of(target, sources.get(target.file)) for target in targets]


def row_of(target: Target, source: Source | None) -> Row:
    run = f"run `make {target.part}`"
    if source is None:
        return Row(target, [], f"{run} (no `{target.file}`)")
    try:
        readings = target.find(source.record)
    except read.RefusedError as exc:
        return Row(target, [], str(exc), refused=True)
    except read.UnmeasuredError as exc:
        return Row(target, [], f"{exc}; {run}")
    except KeyError as exc:
        return Row(target, [], f"{run} (no {exc} in `{target.file}`)")
    commits = {str(commit) for reading in readings for commit in reading.commits}
    origins = frozenset((source.machine, commit) for commit in commits)
    return Row(target, readings, origins=origins)


def table(sources: dict[str, Source]) -> str:
    """Markdown: the rows, what the marks mean, and where the figures come from."""
    found = rows(sources)
    counts = Counter(row.origins for row in found if len(row.origins) == 1)
    usual = counts.most_common(1)[0][0] if counts else frozenset()
    lines = [HEAD, *(row.line(usual) for row in found), ""]
    if any(row.origins and row.origins != usual for row in found):
        lines += ["† from another commit or machine than most rows, or from more than one.", ""]
    if any(reading.others > MUCH for row in found for reading in row.readings):
        lines += [f"\\* other programs took more than {MUCH:.0%} of the processors meanwhile.", ""]
    return "\n".join([*lines, *read.about(sources.values())]).strip()


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    print(table(load(parser.parse_args(argv).results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
