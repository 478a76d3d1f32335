"""Every family in every precision on every runtime: built here? ran here? how exact, large, fast?

    python benchmarks/engines.py [--family NAME ...] [--precision NAME ...] [--runtime NAME ...]
        [--images DIR] [--runs 5] [--threads 2] [--twice] [--unmeasured] [--work DIR] [--json FILE]
    python benchmarks/engines.py --table [--json FILE]

`tiny` is the shipped model, other families are exported from seeded checkpoints in their published
shape (masks of random weights lie close to the threshold nearly everywhere, so their IoU is lower
than that of trained weights at the same error).  Float16 comes from `samrt export`, int8 from
`samrt quantize`, calibrated on --images or on drawn pictures.  Every step runs in a process of its
own.  Parity is that of masks against the FP32 graphs in ONNX Runtime, on the
built-in pictures; of the FP32 graphs themselves against PyTorch, from the export; of float16 in
ONNX Runtime on a CPU, which computes it in float32, the emulation that rounds every tensor.
Graphs run in the form that `samrt infer` takes; sizes and parity are those of that form.
Engines of TensorRT-RTX are built on any machine; where there is a GPU that takes them they are run
as well, and so are those of TensorRT.  Results are merged into FILE row by row; with --table they
are printed as Markdown and nothing is run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import samrt
from machine import commit, difference
from samrt.environment import environment

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "engines.json"
PRECISIONS = ("fp32", "fp16", "int8")
RUNTIMES = ("onnxruntime", "openvino", "tensorrt-rtx", "tensorrt")
ROLES = ("encoder", "decoder")
PROOF_SECONDS = 60.0  # no further picture is compared after it
HEAD = (
    "| family | precision | runtime | built here | ran here | mask IoU mean, worst "
    "| MB encoder / decoder | encode ms | decode ms | remarks |\n"
    "|---|---|---|---|---|---|---|--:|--:|---|"
)
Row = dict[str, Any]
_FORMS: dict[Any, str] = {"cpu": "samrt's operators"}


# -- steps, each in a process of its own -----------------------------------------------------------


def do_make(family: str, precision: str, bundle: Path, images: Path, verify: bool) -> Row:
    """Put a precision into the bundle of a family; the bundle is made if it is not there."""
    start = time.perf_counter()
    if precision == "fp32":
        return {**_make_float(family, bundle, verify), "seconds": time.perf_counter() - start}
    if precision == "fp16":
        from samrt_export.precision import add_precision

        add_precision(bundle, "fp16", progress=tell)
    else:
        from samrt_export.quantize import quantize

        quantize(bundle, images, progress=tell)
    return {"seconds": time.perf_counter() - start}


def tell(text: str) -> None:
    """Progress of long steps."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _make_float(family: str, bundle: Path, verify: bool) -> Row:
    if bundle.exists():
        return {}
    if family == "tiny":
        import shutil

        from samrt.bundle import find_model

        shutil.copytree(find_model("tiny"), bundle)
        return {}
    from samrt_export import export
    from samrt_export.seeded import seeded_state

    export(seeded_state(family), bundle, family=family, verify=verify, progress=tell)
    return {}


def do_run(bundle: Path, precision: str, backend: str, runs: int, threads: int) -> Row:
    """Parity and latency of what a runtime makes of a bundle."""
    from samrt.admission import prove
    from samrt.gate import judge_record, parity_record
    from samrt.phantoms import phantom_case
    from samrt.selfcheck import quick_check

    found: Row = {}
    with samrt.load(
        bundle, backend=backend, precision=precision, threads=threads, allow_refused=True,
        self_test=False,
    ) as engine:  # fmt: skip
        manifest, form = engine.manifest, engine.info.form_effective
        found["form"] = form
        record: Any = None
        if backend == "onnxruntime" and precision in ("fp32", "fp16"):
            record = parity_record(manifest, precision, form)
            found["parity_of"] = "export" if precision == "fp32" else "emulation"
        if record is None:
            record = prove(engine, seconds=PROOF_SECONDS, progress=tell)
            found["parity_of"] = "here"
        verdict, masks = judge_record(record, precision), record.get("masks", {})
        found["parity"] = {
            "state": verdict.state, "mean": verdict.mask_iou_mean, "worst": verdict.mask_iou_worst,
            "against": record.get("against"), "images": record.get("images"),
            "dice_mean": masks.get("dice_mean"), "hd95_worst_px": masks.get("hd95_worst_px"),
        }  # fmt: skip
        tests = []
        for _ in range(3):
            start = time.perf_counter()
            check = quick_check(engine)
            tests.append((time.perf_counter() - start) * 1e3)
        if not check.passed:
            raise SystemExit(f"self-test: {check.detail}")
        found["self_test_ms"] = min(tests)
        case = phantom_case("ct_abdomen")
        embeddings = [engine.encode(case.image) for _ in range(runs + 1)][1:]
        answers = [engine.decode(embeddings[0], case.prompts[:1])[0] for _ in range(13)][3:]
        if not all(np.isfinite(answer.logits).all() for answer in answers):
            raise SystemExit("logits that are not finite")
        encode = [float(e.timings["encode_ms"] or 0.0) for e in embeddings]
        decode = [float(a.timings["decode_prompt_ms"] or 0.0) for a in answers]
        found |= {
            "encode_median_ms": median(encode), "encode_min_ms": min(encode),
            "decode_median_ms": median(decode), "decode_min_ms": min(decode),
            "version": engine.info.backend_version, "load_average": os.getloadavg()[0],
        }  # fmt: skip
        size = {role: _bytes_of(engine, role) for role in ROLES}
    return found | {"bytes": size, "ran": True, "built": True}


def _bytes_of(engine: samrt.Predictor, role: str) -> int:
    """Bytes of the model in use, with its data files."""
    wanted = engine.info.files[role]
    parts = engine.model.bundle.manifest.artifacts
    return next(part.total_bytes for part in parts if part.sha256 == wanted and part.role == role)


def do_build(bundle: Path, precision: str, runtime: str, twice: bool, unmeasured: bool) -> Row:
    """Build the engines; without a GPU that is all that can be done."""
    from samrt.bundle import Bundle
    from samrt.engines.apart import build
    from samrt.engines.api import load_api
    from samrt.engines.options import BuildOptions

    api, opened = load_api(runtime), Bundle.open(bundle)
    found: Row = {"version": api.version, "bytes": {}, "build_s": {}, "twice": {}}
    folder = tempfile.TemporaryDirectory()
    for role in ROLES:
        if unmeasured:
            artifact = opened.artifact(role, "fp32")
            file = unmeasured_graph(
                opened.file_of(artifact), role, precision, Path(folder.name) / f"{role}.onnx"
            )
            unfit = "; graph without measured islands or scales"
            found["remark"] = "no GPU" + ("" if precision == "fp32" else unfit)
        else:
            artifact = opened.artifact(role, precision)
            file = opened.file_of(artifact)
        contents = []
        for _ in range(2 if twice else 1):
            built = build(api, file, artifact.inputs, artifact.outputs, BuildOptions())
            contents.append(built.content)
            if built.varying is not None:
                found["varying"] = built.varying
        found["bytes"][role] = len(contents[0])
        found["build_s"][role] = built.seconds
        if twice:
            found["twice"][role] = difference(*contents)
    return found | {"built": True}


def unmeasured_graph(plain: Path, role: str, precision: str, target: Path) -> Path:
    """A graph of the right form and size whose answers mean nothing: for builders only."""
    from samrt_export.precision.floatgraph import FloatGraph
    from samrt_export.precision.half import settle, statistics_of, to_half
    from samrt_export.quantize import Choice, find_layers, to_int8

    graph = FloatGraph(plain)
    if precision == "fp16":
        half = to_half(graph, settle(graph, statistics_of(graph)))
        return half.builder.write(target, samrt.__version__)[0]
    if precision == "fp32" or role == "decoder":
        return plain
    choices = []
    for layer in find_layers(graph)[0]:
        zeros = np.zeros(graph.weights.shape_of(layer.weight)[layer.channel_axis], np.float32)
        out = 4.0 if layer.quantise_output else None
        choices.append(Choice(layer, "max", 4.0, 0.0, None, zeros, out, None, 0.0, 0.0))
    return to_int8(graph, choices).write(target, samrt.__version__)[0]


def table(results: dict[str, Any]) -> Iterator[str]:
    """The rows as Markdown."""
    yield HEAD
    order = [*PRECISIONS, *RUNTIMES]
    names = (name.split("/") for name in results["rows"])
    for parts in sorted(names, key=lambda parts: [parts[0], *map(order.index, parts[1:])]):
        (family, precision, runtime), row = parts, results["rows"]["/".join(parts)]
        size, parity = row.get("bytes") or {}, row.get("parity")
        sizes = " / ".join(f"{size[r] / 1e6:.1f}" for r in ROLES if r in size) or "–"
        iou = "–"
        if parity and parity["mean"] is not None:
            mark = {"export": " (PyTorch)", "emulation": " (emulated)"}.get(row["parity_of"], "")
            iou = f"{parity['mean']:.5f}, {parity['worst']:.5f}{mark}"
            iou += " **refused**" if parity["state"] == "refused" else ""
        cells = [
            family, precision, runtime, "yes" if row.get("built") else "no",
            "yes" if row.get("ran") else "no", iou, sizes,
            *(f"{row[key]:.1f}" if key in row else "–"
              for key in ("encode_median_ms", "decode_median_ms")),
            "; ".join(filter(None, (_FORMS.get(row.get("form")), row.get("remark"), again(row)))),
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def again(row: Row) -> str:
    """Whether two builds gave the same bytes; empty where that was not tried."""
    found = {f"{r}: {text}" for r, text in row.get("twice", {}).items() if text != "identical"}
    same = "same bytes twice" if row.get("twice") else ""
    return ", ".join(sorted(found)) or same


def remark_of(text: str) -> str:
    """The last line of what a failed step has said, short enough for a table."""
    lines = [line for line in text.splitlines() if line.strip()] or ["failed"]
    return lines[-1].split("Error: ", 1)[-1].replace("|", "/")[:160]


class StepError(Exception):
    """A step that did not work; its last line says why."""


def child(*words: str) -> Row:
    """Run this script for one step in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StepError(remark_of(done.stderr))
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(bundle: Path, precision: str, runtime: str, args: argparse.Namespace) -> Row:
    """One row: build, then run where that is possible."""
    step = [str(bundle), precision, runtime]
    numbers = ["--runs", str(args.runs), "--threads", str(args.threads)]
    if runtime in ("onnxruntime", "openvino"):
        try:
            return child("--step", "run", *step, *numbers)
        except StepError as exc:
            return {"built": False, "remark": str(exc)}
    row: Row = {}
    if runtime == "tensorrt-rtx":
        try:
            more = [f"--{name}" for name in ("twice", "unmeasured") if getattr(args, name)]
            row = child("--step", "build", *step, *more)
        except StepError as exc:
            return {"built": False, "remark": str(exc)}
    if args.unmeasured:
        return row
    try:
        command = ["build", str(bundle), "--runtime", runtime, "--precision", precision]
        if not has_gpu():
            raise StepError("no GPU")
        subprocess.run(
            [sys.executable, "-m", "samrt", *command, "--allow-refused"], check=True,
            capture_output=True,
        )  # fmt: skip
        return row | child("--step", "run", *step, *numbers)
    except (StepError, subprocess.CalledProcessError) as exc:
        return {**row, "remark": str(exc)}


def has_gpu() -> bool:
    """Whether the GPU's memory can be opened."""
    from samrt.engines.memory import open_memory

    try:
        open_memory()
    except samrt.SamrtError:
        return False
    return True


def drawn_pictures(folder: Path) -> Path:
    """The built-in pictures and their mirror images, as files to calibrate on."""
    from PIL import Image

    from samrt.phantoms import phantom_cases

    folder.mkdir(parents=True, exist_ok=True)
    for case in phantom_cases():
        for turn, image in enumerate((case.image, case.image[:, ::-1])):
            Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{case.name}-{turn}.png")
    return folder


def measure(args: argparse.Namespace, work: Path) -> None:
    """All rows asked for."""
    from samrt.bundle import Bundle

    images = args.images or drawn_pictures(work / "pictures")
    quick = ["--unmeasured"] if args.unmeasured else []
    for family in args.family:
        bundle = work / f"{family}.samrt"
        made: dict[str, str | None] = {}
        wanted = () if args.unmeasured else tuple(p for p in args.precision if p != "fp32")
        for precision in ("fp32", *wanted):
            try:
                there = bundle.exists() and precision in Bundle.open(bundle).precisions()
                if not there:
                    child("--step", "make", family, precision, str(bundle), str(images), *quick)
                made[precision] = None
            except StepError as exc:
                made[precision] = str(exc)
        for precision in args.precision:
            for runtime in args.runtime:
                problem = made.get(precision)
                row = {"built": False, "remark": problem} if problem else row_of(
                    bundle, precision, runtime, args)  # fmt: skip
                keep(args.json, f"{family}/{precision}/{runtime}", row)


def keep(path: Path, name: str, row: Row) -> None:
    """Merge one row into the results."""
    results: dict[str, Any] = {"rows": {}}
    if path.exists():
        results = json.loads(path.read_text("utf-8"))
    row["commit"] = commit()
    results["environment"] = environment()
    results.setdefault("rows", {})[name] = row
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(list(table({"rows": {name: row}}))[-1], flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("--family", nargs="+", default=["tiny", "mobile_sam"], help="sam is ViT-B")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add("--runtime", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    add("--images", type=Path, help="calibrate int8 on these pictures")
    add("--runs", type=int, default=5)
    add("--threads", type=int, default=2)
    add("--twice", action="store_true", help="build engines twice and compare their bytes")
    add(
        "--unmeasured",
        action="store_true",
        help="build graphs without calibration, for models that take long; with tensorrt-rtx",
    )
    add("--work", type=Path, help="keep bundles here and use those that are there")
    add("--json", type=Path, default=RESULTS)
    add("--table", action="store_true", help="print the results that are there")
    add("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.unmeasured and args.runtime != ["tensorrt-rtx"] and not args.step:
        parser.error("--unmeasured is for --runtime tensorrt-rtx alone")
    if args.step:
        kind, *words = args.step
        if kind == "make":
            found = do_make(words[0], words[1], Path(words[2]), Path(words[3]), not args.unmeasured)
        elif kind == "build":
            found = do_build(Path(words[0]), words[1], words[2], args.twice, args.unmeasured)
        else:
            found = do_run(Path(words[0]), words[1], words[2], args.runs, args.threads)
        print(json.dumps(found))
        return 0
    if args.table:
        print("\n".join(table(json.loads(args.json.read_text("utf-8")))))
        return 0
    print(HEAD, flush=True)
    if args.work:
        measure(args, args.work)
        return 0
    with tempfile.TemporaryDirectory(prefix="samrt-engines-") as folder:
        measure(args, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
