"""samrt beside its peers: same weights, same picture, same threads, one process per figure.

    python benchmarks/peers.py [--model mobile_sam,sam] [--peer NAME ...] [--threads 2]
        [--runs 30] [--heavy-runs 3] [--work DIR] [--before 'nice -n 5'] [--json OUT]
    python benchmarks/peers.py --table [--json FILE]

Rows: encode a picture of 1024 x 1024; decode one box; decode 16 boxes; a box to a binary mask of
1024 x 1024.  The weights are random (time does not depend on them), the same for all.  Before
anything is timed in a process, its answer must be that of `segment_anything` in torch: embedding
and logits to 1e-3 of their spread, masks with an IoU of 0.999.  A peer that answers otherwise, or
that is not installed, is listed with the reason and no time.  The machine's sgemm rate is measured
before the first and after the last row of a run; "of sgemm" is the original's number of operations
over the time and the better of the two.  Processor time is that of all threads: where a machine has
other work to do, it says more than wall time.  Rows during which other programs took more than a
tenth of the processors are marked.
`samexporter` and `osam` are used if they can be imported (`make bench` installs them); osam's
weights are downloads, so its code runs the traced graphs.  Both choose their threads themselves:
on a machine with more cores than `--threads`, keep all to as many with `--before 'taskset -c 0,2'`.
With --table the recorded figures are printed and nothing is run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import peer_engines as engines
import peer_models as models
from machine import MUCH, Others, commit, peak_mb

ROOT = models.ROOT
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
ROWS = ("encode", "decode 1 box", "decode 16 boxes", "box to mask")
TOLERANCE, IOU, WARM_UP = 1e-3, 0.999, 3
HEAVY = {("sam", "encode")}


class WrongAnswerError(Exception):
    """The answer is not the reference's."""


def close(found: Any, wanted: Any) -> float:
    """Relative error; raises beyond the tolerance."""
    error = float(np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std())
    if not error <= TOLERANCE:
        raise WrongAnswerError(f"differs from the original by {error:.1e}")
    return error


def same_mask(found: Any, wanted: Any) -> float:
    """1 - IoU; raises below the IoU that is needed."""
    iou = float((found & wanted).sum() / max(1, (found | wanted).sum()))
    if iou < IOU:
        raise WrongAnswerError(f"mask differs from the original's, IoU {iou:.4f}")
    return 1.0 - iou


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One figure, in this process."""
    folder, row = Path(job["folder"]), job["row"]
    if job["kind"] == "prepare":
        models.prepare(job["model"], folder)
        return {"flops": models.flops(job["model"], folder)}
    if job["kind"] == "sgemm":
        return models.sgemm_rate(job["threads"])
    engine = engines.PEERS[job["peer"]](job["model"], folder, job["threads"])
    picture, boxes = models.picture(), models.boxes()
    reference = folder / "answers.npz"
    if job["kind"] == "answers":
        state = engine.encode(picture)
        engine.keep(state, folder / "0.state.npz")
        np.savez(
            reference, embedding=engine.embedding(state), logits=engine.decode(state, boxes),
            mask=engine.mask(state, boxes[0]),
        )  # fmt: skip
        return {}
    wanted = np.load(reference)
    calls = {
        "decode 1 box": lambda: engine.decode(state, boxes[:1]),
        "decode 16 boxes": lambda: engine.decode(state, boxes),
        "box to mask": lambda: engine.mask(state, boxes[0]),
        "encode": lambda: engine.encode(picture),
    }
    if row.startswith("decode") and not hasattr(engine, "decode"):
        raise WrongAnswerError("has no such call of its own")
    kept = folder / f"{list(engines.PEERS).index(job['peer'])}.state.npz"
    if row == "encode" or not kept.exists():
        state = engine.encode(picture)
        engine.keep(state, kept)
    else:
        state = engine.resume(kept)
    error = close(engine.embedding(state), wanted["embedding"])
    if row.startswith("decode"):
        found = calls[row]()
        error = max(close(a, b) for a, b in zip(found, wanted["logits"], strict=False))
    elif row == "box to mask":
        error = same_mask(calls[row](), wanted["mask"])
    times, busy, others = [], [], Others()
    # A heavy call has been made once already, to get its answer.
    warm_up = 0 if (job["model"], row) in HEAVY else WARM_UP
    for turn in range(job["runs"] + warm_up):
        start, used = time.perf_counter(), time.process_time()
        calls[row]()
        if turn >= warm_up:
            times.append((time.perf_counter() - start) * 1e3)
            busy.append((time.process_time() - used) * 1e3)
    return {
        "times_ms": [round(t, 3) for t in times],
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "processor_min_ms": min(busy),
        "others": others.share(),
        "error": error,
        "peak_mb": peak_mb(),
        "about": getattr(engine, "about", None),
    }


def ask(job: dict[str, Any], before: list[str]) -> dict[str, Any]:
    """Run `work` in a new process."""
    done = subprocess.run(
        [*before, sys.executable, __file__, "--worker", json.dumps(job)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(job["threads"])},
    )  # fmt: skip
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    lines = done.stderr.strip().splitlines() or ["no message"]
    return {"reason": lines[-1][:300]}


def worker(text: str) -> int:
    """The process that `ask` starts."""
    try:
        print(json.dumps(work(json.loads(text))))
    except (WrongAnswerError, ImportError) as exc:
        print(f"{type(exc).__name__}: {exc}" if isinstance(exc, ImportError) else exc,
              file=sys.stderr)  # fmt: skip
        return 1
    return 0


def share(model: dict[str, Any], row: str, found: dict[str, Any], rate: float) -> float | None:
    """Operations of the original per second of the fastest run, over the sgemm rate."""
    counts = {"encode": ("encoder", 1), "decode 1 box": ("decoder", 1),
              "decode 16 boxes": ("decoder", 16)}  # fmt: skip
    if row not in counts or "min_ms" not in found:
        return None
    part, times = counts[row]
    return float(times * model["flops"][part] / (found["min_ms"] / 1e3) / rate)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The rows that were asked for; what is there is written after each figure."""
    from samrt.bench.host import host, state

    before = shlex.split(args.before)
    base = {"threads": args.threads, "row": "", "kind": "time", "folder": str(folder)}
    rates = [ask({**base, "kind": "sgemm"}, before)]
    now = commit()
    about = {"threads": args.threads, "state": state(), "sgemm": rates}
    record: dict[str, Any] = {"host": {**host(), "commit": now}, "models": {}}
    if args.json and args.json.exists():
        record["models"] = json.loads(args.json.read_text("utf-8"))["models"]
    for name in args.model.split(","):
        job = {**base, "model": name, "folder": str(folder / name)}
        say(f"{name}: writing the graphs")
        facts = ask({**job, "kind": "prepare"}, before)
        if "reason" in facts:
            raise SystemExit(f"{name} cannot be prepared: {facts['reason']}")
        if not (folder / name / "answers.npz").exists():
            answers = ask({**job, "kind": "answers", "peer": engines.REFERENCE}, before)
            if "reason" in answers:
                raise SystemExit(f"the original does not run: {answers['reason']}")
        model = record["models"].setdefault(name, {"rows": {}})
        model.update(facts)
        for row in args.rows:
            entry = model["rows"].setdefault(row, {"peers": {}})
            entry.update(about)
            for peer in args.peer:
                say(f"{name}: {row}: {peer}")
                runs = args.heavy_runs if (name, row) in HEAVY else args.runs
                found = ask({**job, "row": row, "peer": peer, "runs": runs}, before)
                entry["peers"][peer] = {**found, "commit": now}
                _rate(model, row, entry)
                save(args, record)
    rates.append(ask({**base, "kind": "sgemm"}, before))
    for model in record["models"].values():
        for row, entry in model["rows"].items():
            _rate(model, row, entry)
    save(args, record)
    return record


def _rate(model: dict[str, Any], row: str, entry: dict[str, Any]) -> None:
    """Fill in the sgemm rate of a row's run and the share of it that each peer reaches."""
    rate = max(max(each.values()) for each in entry["sgemm"])
    entry["sgemm_gflops"] = rate / 1e9
    for found in entry["peers"].values():
        found["of_sgemm"] = share(model, row, found, rate)


def save(args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Write what has been measured so far, if a file was named."""
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(record: dict[str, Any]) -> str:
    """Markdown: fastest and median time, share of the sgemm rate, ratio to the best peer."""
    lines = [str(record["host"]["cpu"]["model"])]
    for name, model in record["models"].items():
        for row, entry in model["rows"].items():
            peers = entry["peers"]
            theirs = [f for p, f in peers.items() if p not in engines.OURS and "min_ms" in f]
            best = {
                key: min((f[key] for f in theirs), default=None)
                for key in ("min_ms", "processor_min_ms")
            }
            load = (entry["state"]["load_average"] or [0.0])[0]
            commits = dict.fromkeys(f.get("commit") or entry.get("commit") for f in peers.values())
            lines += [
                "",
                f"**{models.TITLES[name]}: {row}** ({entry['threads']} threads, sgemm "
                f"{entry['sgemm_gflops']:.0f} GFLOP/s, commit "
                f"{' and '.join(map(str, commits))}, load average before {load:.1f})",
                "",
                "| engine | min ms | median ms | / best peer | processor ms | / best peer "
                "| of sgemm | peak MB | error |",
                "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            ]
            lines += [_line(peer, found, best) for peer, found in peers.items()]
            lines += disturbed(peers)
    return "\n".join(lines)


def disturbed(peers: dict[str, Any]) -> list[str]:
    """A remark on the rows, marked with an asterisk, that other programs have slowed down."""
    shares = [f["others"] for f in peers.values() if is_disturbed(f)]
    if not shares:
        return []
    return ["", f"\\* other programs took up to {max(shares):.0%} of the processors meanwhile"]


def is_disturbed(found: dict[str, Any]) -> bool:
    return (found.get("others") or 0.0) > MUCH


def _line(peer: str, found: dict[str, Any], best: dict[str, float | None]) -> str:
    if "reason" in found:
        return f"| {peer} | not timed: {found['reason']} |{' |' * 7}"

    def ratio(key: str) -> str:
        lowest = best[key]
        return f"{found[key] / lowest:.2f}" if lowest else "-"

    part = found["of_sgemm"]
    title = f"{peer} ({found['about']})" if found.get("about") else peer
    cells = [
        title + " \\*" * is_disturbed(found),
        f"{found['min_ms']:.1f}",
        f"{found['median_ms']:.1f}",
        ratio("min_ms"),
        f"{found['processor_min_ms']:.0f}",
        ratio("processor_min_ms"),
        "-" if part is None else f"{part:.0%}",
        f"{found['peak_mb']:.0f}",
        f"{found['error']:.0e}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mobile_sam,sam")
    parser.add_argument("--peer", action="append", choices=list(engines.PEERS))
    parser.add_argument("--row", action="append", choices=ROWS, dest="rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--heavy-runs", type=int, default=3, help="of the encoder of SAM ViT-B")
    parser.add_argument("--work", type=Path, help="keep the models here")
    parser.add_argument("--before", default="", help="words before each process")
    parser.add_argument(
        "--json", type=Path, help="write here after each figure; others in it are kept"
    )
    parser.add_argument("--table", action="store_true", help="print what is recorded")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    if args.table:
        print(table(json.loads((args.json or RESULTS).read_text("utf-8"))))
        return 0
    args.peer = args.peer or list(engines.PEERS)
    args.rows = args.rows or list(ROWS)
    with tempfile.TemporaryDirectory() as name:
        record = measure(args, args.work or Path(name))
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
