"""Int8 encoders beside their own float32, both as `samrt infer` runs them.

    python benchmarks/int8_encoder.py [--model mobile_sam sam:vit_b ...] [--threads 2] [--runs 20]
        [--heavy-runs 5] [--images DIR] [--work DIR] [--json OUT]
    python benchmarks/int8_encoder.py --table [--json FILE]

Each model is exported with seeded weights, compared with PyTorch, and quantised as `samrt quantize`
does it, calibrated on the built-in pictures and their mirror images (or on --images).  An int8
encoder that the gate refuses is listed with the reason and no time.  Then float32 and int8 are
loaded in a process of their own each, in the form that the default backend takes; each must answer
as the record of its comparison says before it is timed, and both encode the same picture in turns,
the one waiting asleep while the other works.  Kept are every wall and processor time, the share of
the processors that other programs took, the peak memory of each process (its decoder is loaded,
too), and the mask IoU of the gate.  Time does not depend on the weights' values.

`tiny` is the shipped model.  With --work the bundles stay in DIR, and those that are there are used
again; the commit that made them is recorded beside that of the measurement.  With --table the
recorded figures are printed and nothing is run.
Quantising MobileSAM takes a minute or two, SAM ViT-B some ten minutes and 5 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import samrt
from machine import MUCH, Others, commit, peak_mb, where

PRECISIONS = {"fp32": "fp32", "int8": "int8"}
TITLES = {"mobile_sam": "MobileSAM", "sam:vit_b": "SAM ViT-B"}
RESULTS = Path(__file__).resolve().parent / "results" / "int8.json"
HEAVY_MS = 2000.0
HEAD = (
    "| model | float32 ms, min (median) | int8 ms, min (median) | of minima | processor time "
    "| peak MB | form | mask IoU mean, worst (gate) |\n"
    "|---|--:|--:|--:|--:|--:|---|--:|"
)
Row = dict[str, Any]


class StepError(Exception):
    """A process that did not do what it was started for; its words."""


def tell(text: str) -> None:
    """Progress, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)


# -- in processes of their own ---------------------------------------------------------------------


def make(model: str, bundle: Path, images: Path) -> Row:
    """Export and quantise a model; what the gate has refused, if it has."""
    from samrt.bundle import find_model
    from samrt.errors import VerificationError
    from samrt_export.quantize import quantize

    start = time.perf_counter()
    if model == "tiny":
        shutil.copytree(find_model("tiny"), bundle)
    else:
        from samrt_export import export
        from samrt_export.seeded import seeded_state

        family, _, variant = model.partition(":")
        export(seeded_state(family, variant or None), bundle, progress=tell)
    exported = time.perf_counter()
    facts: Row = {"commit": commit(), "export_s": exported - start}
    try:
        quantize(bundle, images, progress=tell)
    except VerificationError as exc:
        facts["refused"] = str(exc)
    return facts | {"quantize_s": time.perf_counter() - exported}


def serve(bundle: Path, precision: str, threads: int) -> None:
    """Load and check an engine and say what it is; then encode once for each line that comes in."""
    from samrt.geometry import place
    from samrt.phantoms import phantom_case
    from samrt.preprocess import load_image, preprocess
    from samrt.selfcheck import quick_check

    with samrt.load(bundle, precision=precision, threads=threads) as engine:
        info = engine.info
        check = quick_check(engine)
        if not check.passed:
            raise StepError(f"{precision} does not answer as it was proven to: {check.detail}")
        said = info.verification
        say({
            "form": info.form_effective, "backend": info.backend_effective,
            "backend_version": info.backend_version, "model_id": info.model_id,
            "verification": said.state, "mask_iou_mean": said.mask_iou_mean,
            "mask_iou_worst": said.mask_iou_worst, "check": check.detail,
        })  # fmt: skip
        spec, source = engine.manifest.input, load_image(phantom_case("ct_abdomen").image)
        placement = place(source.size, spec.size, spec.resize_kind)
        tensor = preprocess(source, placement, spec, threads=threads)
        for _ in sys.stdin:
            others, used, start = Others(), time.process_time(), time.perf_counter()
            engine.model.run_encoder(tensor)
            wall, busy = time.perf_counter() - start, time.process_time() - used
            say({"wall_ms": wall * 1e3, "processor_ms": busy * 1e3, "others": others.share()})
        say({"peak_mb": peak_mb()})


def say(document: Row) -> None:
    print(json.dumps(document), flush=True)


# -- the process that starts them ------------------------------------------------------------------


class Engine:
    """A process that runs `serve`."""

    def __init__(self, bundle: Path, precision: str, threads: int) -> None:
        command = [sys.executable, __file__, "--step", "serve", str(bundle), precision]
        self.process: Any = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self.facts = self._answer()
        except StepError:
            self.close()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def encode(self) -> Row:
        """Times of one run, in ms, and the share of other programs."""
        self.process.stdin.write("encode\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> Row:
        """Stop; the peak memory."""
        self.process.stdin.close()
        return self._answer()

    def _answer(self) -> Row:
        line = self.process.stdout.readline()
        if not line:
            raise StepError(f"the measuring process ended with {self.process.wait()} and no answer")
        found: Row = json.loads(line)
        if "error" in found:
            raise StepError(found["error"])
        return found


def in_turns(
    bundle: Path, threads: int, runs: int, heavy_runs: int,
    precisions: Mapping[str, str] = PRECISIONS,
) -> Row:  # fmt: skip
    """Both encoders, once each per turn, after a turn that does not count.

    Raises:
        StepError: one cannot be loaded, is not proven, or answers wrongly.
    """
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(Engine(bundle, precision, threads))
            for name, precision in precisions.items()
        }
        for name, engine in engines.items():
            if engine.facts["verification"] != "passed":
                raise StepError(f"{name} is {engine.facts['verification']}, not passed")
        slowest = max(engine.encode()["wall_ms"] for engine in engines.values())
        samples: dict[str, list[Row]] = {name: [] for name in engines}
        for turn in range(heavy_runs if slowest > HEAVY_MS else runs):
            for name in engines if turn % 2 else reversed(engines):
                samples[name].append(engines[name].encode())
        ended = {name: engine.end() for name, engine in engines.items()}
    return {
        name: {**engines[name].facts, **summary(found), **ended[name]}
        for name, found in samples.items()
    }


def summary(samples: list[Row]) -> Row:
    """Minimum and median of wall and processor time; every sample; others' share of it all."""
    found: Row = {}
    for kind in ("wall", "processor"):
        times = [sample[f"{kind}_ms"] for sample in samples]
        found |= {
            f"{kind}_min_ms": min(times), f"{kind}_median_ms": statistics.median(times),
            f"{kind}_ms": [round(value, 3) for value in times],
        }  # fmt: skip
    shares = [sample["others"] for sample in samples]
    whole = sum(found["wall_ms"])
    known = None not in shares and whole > 0.0
    weighted = zip(shares, found["wall_ms"], strict=True)
    found["others"] = sum(s * t for s, t in weighted) / whole if known else None
    return found


def made(model: str, folder: Path, images: Path | None) -> tuple[Path, Row]:
    """The model's bundle in a folder, made in a process of its own unless it is there."""
    name = model.replace(":", "_")
    bundle, note = folder / f"{name}.samrt", folder / f"{name}.json"
    if not note.exists():
        tell(f"{model}: exporting and quantising")
        shutil.rmtree(bundle, ignore_errors=True)
        pictures = images or drawn(folder / "pictures")
        command = [sys.executable, __file__, "--step", "make", model, str(bundle), str(pictures)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{model} cannot be made: see above")
        note.write_text(done.stdout.splitlines()[-1] + "\n", "utf-8")
    facts: Row = json.loads(note.read_text("utf-8"))
    return bundle, facts


def drawn(folder: Path) -> Path:
    from engines import drawn_pictures

    return drawn_pictures(folder)


def measure(model: str, args: argparse.Namespace, folder: Path) -> Row:
    """One model: made, proven, timed."""
    bundle, facts = made(model, folder, args.images)
    row: Row = {**where(), "threads": args.threads, "bundle": facts}
    if "refused" in facts:
        return row | {"refused": facts["refused"]}
    row["cpu_form_nodes"] = nodes(bundle)
    tell(f"{model}: measuring")
    try:
        row |= in_turns(bundle, args.threads, args.runs, args.heavy_runs)
    except StepError as exc:
        return row | {"reason": str(exc)}
    for kind in ("wall", "processor"):
        row[f"{kind}_ratio"] = row["int8"][f"{kind}_min_ms"] / row["fp32"][f"{kind}_min_ms"]
    return row


def nodes(bundle: Path) -> dict[str, int]:
    """How many nodes of the int8 encoder's CPU form are integer, and how many might have been."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    form = manifest["calibration"]["int8"].get("cpu_form") or {}
    return {key: len(form.get(key, ())) for key in ("nodes", "excluded")}


def line(model: str, row: Row) -> str:
    """A row of the table."""
    title = TITLES.get(model, model)
    if "int8" not in row:
        why = f"refused: {row['refused']}" if "refused" in row else f"not timed: {row['reason']}"
        return f"| {title} | {why} |{' |' * 6}"
    parts = [row[name] for name in PRECISIONS]
    times = [f"{p['wall_min_ms']:.0f} ({p['wall_median_ms']:.0f})" for p in parts]
    mark = " \\*" * any((part["others"] or 0.0) > MUCH for part in parts)
    cells = [
        title + mark, *times, f"{row['wall_ratio']:.2f}", f"{row['processor_ratio']:.2f}",
        " / ".join(f"{part['peak_mb']:.0f}" for part in parts),
        " / ".join(dict.fromkeys(part["form"] for part in parts)),
        f"{row['int8']['mask_iou_mean']:.4f}, {row['int8']['mask_iou_worst']:.4f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(rows: dict[str, Row]) -> str:
    """All rows."""
    if not rows:
        return "Not measured: run `make bench-int8`."
    return "\n".join([HEAD, *(line(model, row) for model, row in rows.items())])


def step(words: list[str], threads: int) -> int:
    """What a process of this script's own does; errors of samrt's go to standard output."""
    kind, first, second, *rest = words
    try:
        if kind == "make":
            say(make(first, Path(second), Path(rest[0])))
        else:
            serve(Path(first), second, threads)
    except (samrt.SamrtError, StepError) as exc:
        say({"error": str(exc)})
        return 1
    return 0


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write what was found after each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", nargs="+", default=list(TITLES), help="FAMILY[:VARIANT], tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--heavy-runs", type=int, default=5, help="where a run takes over 2 s")
    parser.add_argument("--images", type=Path, help="calibrate on these pictures")
    parser.add_argument("--work", type=Path, help="keep the bundles here, use those that are there")
    parser.add_argument("--json", type=Path, help="write here; rows of other models in it stay")
    parser.add_argument("--table", action="store_true", help="print what is recorded")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        return step(args.step, args.threads)
    path = args.json or RESULTS
    rows: dict[str, Row] = {}
    if (args.json or args.table) and path.exists():
        rows = json.loads(path.read_text("utf-8"))["models"]
    if args.table:
        print(table(rows))
        return 0
    with tempfile.TemporaryDirectory(prefix="samrt-int8-") as name:
        folder = args.work or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        print(HEAD, flush=True)
        for model in args.model:
            rows[model] = measure(model, args, folder)
            print(line(model, rows[model]), flush=True)
            if args.json:
                args.json.write_text(json.dumps({"models": rows}, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
