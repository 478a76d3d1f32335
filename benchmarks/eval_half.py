"""Accuracy of float16 graphs with every float16 tensor rounded, as a device would have them.

    samrt export tiny -o out/tiny16.samrt --precision fp16
    python benchmarks/eval_half.py out/tiny16.samrt ../shared/data -o out/eval_half \
        --json benchmarks/results/eval_half_against_fp32.json

ONNX Runtime on a CPU computes float16 graphs in float32, so they are emulated here. That the
emulated graphs are those in the bundle is checked, byte by byte, before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from eval_tiny import keep_comparison, trained_patterns
from samrt import Predictor, load
from samrt._version import __version__
from samrt.bundle import Bundle
from samrt.cli._progress import ProgressBar
from samrt.environment import environment
from samrt.evaluation.dataset import Dataset, Target, choose
from samrt.evaluation.files import write_comparison, write_report
from samrt.evaluation.formats import open_dataset
from samrt.evaluation.journal import JOURNAL_NAME, Journal
from samrt.evaluation.runner import Plan, config_of, evaluate
from samrt_export.precision.trial import ROLES, Trial

THREADS = 2


def half_engine(bundle: Bundle) -> Predictor:
    """The float16 graphs of a bundle, emulated."""
    with load(bundle.path, precision="fp16", threads=THREADS) as engine:
        trial = Trial(bundle, engine.info, THREADS)
    record = (bundle.manifest.calibration or {})["fp16"]["roles"]
    sessions = {}
    for role in ROLES:
        islands = {str(node) for kind in record[role]["islands"] for node in kind["nodes"]}
        half = trial.convert(role, islands)
        artifact = bundle.artifact(role, "fp16")
        with tempfile.TemporaryDirectory() as folder:
            path, *_ = half.builder.write(Path(folder) / artifact.file, __version__)
            if path.read_bytes() != bundle.file_of(artifact).read_bytes():
                raise SystemExit(f"{artifact.file} is not what its record says: export it again")
        sessions[role] = trial.emulated(role, half)
    return trial.predictor(sessions)


def measure(
    engine: Predictor, data: Dataset, targets: list[Target], plan: Plan, folder: Path, name: str
) -> None:
    config = config_of(engine, data, targets, plan)
    bar = ProgressBar()
    with engine, Journal(folder / JOURNAL_NAME, config) as journal:
        evaluate(engine, data, targets, plan, journal, progress=bar)
    bar.end()
    write_report(folder, data, targets, data={"path": name}, environment=environment())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="folder with index.json")
    parser.add_argument("--limit", type=int, default=60, help="most targets a set")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("out/eval_half"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    data = open_dataset(args.data)
    targets = choose(data, exclude=trained_patterns(args.data), limit=args.limit)
    plan = Plan(("S2", "S5"))
    folders = {name: args.output_dir / name for name in ("fp32", "half")}
    plain = load(bundle.path, precision="fp32", threads=THREADS)
    measure(plain, data, targets, plan, folders["fp32"], str(args.data))
    measure(half_engine(bundle), data, targets, plan, folders["half"], str(args.data))
    written = write_comparison(args.output_dir / "compare", *folders.values(), data)
    found = written.document["strategies"]["S5"]["mean of sets"]
    print(json.dumps(found))
    if args.json:
        keep_comparison(args.output_dir / "compare" / "compare.json", args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
