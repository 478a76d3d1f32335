"""``samrt bench``: how long does a model take on this machine, and how sure is that?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers

if TYPE_CHECKING:
    from samrt.bench.run import Request
    from samrt.types import Prompt

__all__ = ["add_subparser", "run"]

_FAILED = 3
_COMPARE = "compare"
_SCENARIOS = ("single-stream", "interactive", "offline", "cold-start")

_DESCRIPTION = """\
Measure a model on this machine. Each run is a process of its own, after another one has compared
the engine's masks with those of the FP32 model in ONNX Runtime: what answers wrongly is not timed.

scenarios:
  single-stream  picture file to mask, one after the other
  interactive    click to mask, the picture being encoded
  offline        picture files to masks, from --workers threads at once
  cold-start     start of a process to its first mask (the system's file cache is warm)

samrt bench compare A.json B.json compares two results of --output."""

_EPILOG = """\
Warm-up: at least --warmup runs and half a second; no warm-up run begins after 20 s. A measurement
ends when it has --least-runs runs and --seconds seconds, or after --most-seconds and three runs.
A percentile is given only where MLPerf's rule for early stopping has enough samples for it (99 %
confidence): p50 11, p90 64, p95 130, p99 662, p99.9 6636.

examples:
  samrt bench
  samrt bench tiny --backend onnxruntime,openvino --scenario single-stream,interactive -o tiny.json
  samrt bench tiny --scenario interactive --deadline-ms 30 --runs 700 --plot tiny.svg
  samrt bench compare before.json after.json --fail-above 1.1"""


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bench",
        help="measure a model on this machine, or compare two measurements",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "words", nargs="*", metavar="BUNDLE", help="name of a model or path of its folder (tiny)"
    )
    _add_what(parser)
    _add_how_long(parser)
    _add_output(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what").add_argument
    add(
        "--scenario", type=_listed(_SCENARIOS), default=("single-stream",), metavar="NAME,NAME",
        help=f"{', '.join(_SCENARIOS)} or all (single-stream)",
    )  # fmt: skip
    add(
        "--backend", type=_listed(), default=("auto",), metavar="NAME,NAME",
        help="backends to measure, see samrt info (auto)",
    )  # fmt: skip
    add(
        "--precision", type=_listed(), default=("auto",), metavar="NAME,NAME",
        help="fp32, fp16, int8 (the bundle's)",
    )  # fmt: skip
    add("--form", metavar="NAME", help="form of the graphs: auto, canonical, cpu (auto)")
    add("--threads", type=_numbers.at_least(1), metavar="N", help="threads (all, at most 8)")
    add("--cpus", type=_cpus, default=(), metavar="0,2-3", help="run on these CPUs only (Linux)")
    add("--image", metavar="FILE", help="picture to use (a built-in one, 512 x 512)")
    add(
        "--box", type=_numbers.box, action="append", default=[], metavar="X0,Y0,X1,Y1",
        help="prompt about --image; may be repeated",
    )  # fmt: skip
    add(
        "--point", type=_numbers.point, action="append", default=[], metavar="X,Y[,LABEL]",
        help="the same, each point a prompt of its own",
    )  # fmt: skip
    add(
        "--prompts", type=_numbers.at_least(1), default=1, metavar="N",
        help="prompts about each picture in one call (1)",
    )  # fmt: skip
    add(
        "--workers", type=_numbers.at_least(1), default=1, metavar="N",
        help="offline: threads that send pictures at once (1)",
    )  # fmt: skip
    add(
        "--interval-ms", type=_not_negative, default=0.0, metavar="MS",
        help="interactive: pause before each prompt (0)",
    )  # fmt: skip
    add("--deadline-ms", type=_positive, metavar="MS", help="count the answers after this time")
    add("--allow-refused", action="store_true", help="measure what its verification has refused")


def _add_how_long(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how long").add_argument
    add("--warmup", type=_numbers.at_least(0), default=5, metavar="N", help="runs before (5)")
    add("--runs", type=_numbers.at_least(1), metavar="N", help="exactly so many runs")
    add(
        "--least-runs", type=_numbers.at_least(3), default=64, metavar="N",
        help="runs at least (64)",
    )  # fmt: skip
    add("--seconds", type=_positive, default=5.0, metavar="S", help="time at least (5)")
    add("--most-seconds", type=_positive, default=60.0, metavar="S", help="time at most (60)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", type=Path, metavar="FILE", help="write all samples as JSON here")
    add("--markdown", type=Path, metavar="FILE", help="write the tables here")
    add("--plot", type=Path, metavar="FILE", help="write histograms and stage bars here (SVG)")
    add("--force", action="store_true", help="replace existing files")
    add("--json", action="store_true", help="print one JSON document in place of the tables")
    add(
        "--choose", action="store_true",
        help="let backend 'auto' take the fastest of the backends from now on (this model, "
        "precision, threads and machine)",
    )  # fmt: skip
    add(
        "--fail-above", type=_positive, metavar="RATIO",
        help="compare: exit code 3 if the end-to-end median is worse than this ratio",
    )  # fmt: skip


def _listed(known: tuple[str, ...] = ()) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if known and names == ("all",):
            return known
        wrong = [name for name in names if not name or (known and name not in known)]
        if wrong:
            expected = f": expected {', '.join(known)} or all" if known else ""
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is no name{expected}")
        return names

    return parse


def _cpus(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of CPUs such as 0,2-3")
        stop = int(last or first)
        if stop < int(first) or stop > 65535:
            raise argparse.ArgumentTypeError(f"{part!r} is no range of CPUs")
        found.update(range(int(first), stop + 1))
    return tuple(sorted(found))


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return value


def _positive(text: str) -> float:
    value = _not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    words: list[str] = args.words
    if words[:1] == [_COMPARE]:
        if len(words) != 3:
            args.parser.error("compare takes two files: samrt bench compare A.json B.json")
        return _compare(args, Path(words[1]), Path(words[2]))
    if len(words) > 1:
        args.parser.error(f"one bundle at a time, got {' '.join(words)}")
    if args.fail_above is not None:
        args.parser.error("--fail-above is of use with compare only")
    return _measure(args, words[0] if words else "tiny")


def _measure(args: argparse.Namespace, model: str) -> int:
    from samrt.bench.plot import svg
    from samrt.bench.report import markdown
    from samrt.bench.run import bench
    from samrt.cli._report import print_json, say
    from samrt.errors import OptionError
    from samrt.imaging.write import check_targets, write_files

    if args.choose and len(args.backend) < 2:
        raise OptionError("--choose needs several backends: --backend onnxruntime,openvino")
    if args.choose and args.form:
        raise OptionError("--choose measures what is run without options: leave --form out")
    wanted = {path for path in (args.output, args.markdown, args.plot) if path is not None}
    inputs = [Path(args.image)] if args.image else []
    check_targets(wanted, force=args.force, inputs=inputs)
    document = bench(_request(args, model), _progress)
    table = markdown(document)
    files = {
        args.output: json.dumps(document, indent=1, allow_nan=False) + "\n",
        args.markdown: table,
        args.plot: svg(document) if args.plot else "",
    }
    write_files(
        {path: text.encode() for path, text in files.items() if path is not None}, force=args.force
    )
    if args.json:
        print_json(document)
    else:
        say(table.rstrip("\n"))
    if args.choose:
        _choose(document)
    return 0


def _request(args: argparse.Namespace, model: str) -> Request:
    from samrt.bench.job import Job
    from samrt.bench.run import Request
    from samrt.errors import OptionError

    if (args.box or args.point) and not args.image:
        raise OptionError("--box and --point are about --image: add it")
    job = Job(
        model=model,
        backend="auto",
        precision="auto",
        threads=args.threads,
        scenario=args.scenario[0],
        image=args.image or "",
        prompts=(),
        deadline_ms=args.deadline_ms,
        warmup=args.warmup,
        runs=args.runs,
        least_runs=args.least_runs,
        seconds=args.seconds,
        most_seconds=args.most_seconds,
        workers=args.workers if "offline" in args.scenario else 1,
        prompts_per_image=args.prompts,
        interval_ms=args.interval_ms,
        affinity=args.cpus,
        allow_refused=args.allow_refused,
        form=args.form,
    )
    return Request(job, args.scenario, args.backend, args.precision, _prompts(args))


def _prompts(args: argparse.Namespace) -> tuple[Prompt, ...]:
    from samrt.types import Prompt

    boxes = [Prompt(box=box) for box in args.box]
    points = [Prompt(point_coords=[(x, y)], point_labels=[n]) for x, y, n in args.point]
    return (*boxes, *points)


def _progress(text: str) -> None:
    print(f"samrt: {text}", file=sys.stderr, flush=True)


def _choose(document: dict[str, Any]) -> None:
    """Keep the medians of the first scenario for ``backend="auto"``."""
    from samrt.backends.choice import choose_backend, remember_times
    from samrt.bench.scenarios import END_TO_END
    from samrt.bundle import Bundle

    groups: dict[str, dict[str, float]] = {}
    first = document["runs"][0]
    for run_ in document["runs"]:
        if run_["scenario"] == first["scenario"]:
            engine = run_["engine"]
            times = groups.setdefault(engine["precision_effective"], {})
            times[engine["backend_effective"]] = run_["stages"][END_TO_END]["median"]
    bundle = Bundle.open(first["engine"]["path"])
    threads = first["engine"]["threads"]
    for precision, times in groups.items():
        remember_times(bundle, precision, threads, times)
        choice = choose_backend(bundle, precision, threads)
        _progress(
            f"auto now takes {choice.backend} for {bundle.manifest.name} in {precision} on "
            f"{threads} threads ({choice.reason})"
        )


def _compare(args: argparse.Namespace, first: Path, second: Path) -> int:
    from samrt.bench.compare import (
        compare,
        comparison_document,
        comparison_table,
        read_document,
    )
    from samrt.bench.scenarios import END_TO_END
    from samrt.cli._report import print_json, say, warn

    results, doubts = compare(read_document(first), read_document(second))
    if args.json:
        print_json(comparison_document(results, doubts))
    else:
        say(f"A: {first}, B: {second}\n")
        say(comparison_table(results))
    warn(doubts)
    if args.fail_above is None:
        return 0
    worse = [r for r in results if r.stage == END_TO_END and r.ratio > args.fail_above]
    for item in worse:
        print(
            f"samrt: {item.run}: {item.ratio:.3f} times as long, at most {args.fail_above:g} "
            "was wanted",
            file=sys.stderr,
        )
    return _FAILED if worse else 0
