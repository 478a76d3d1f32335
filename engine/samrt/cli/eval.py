"""``samrt eval``: how good is a model on images with known masks?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.cli import _eval_options, _eval_volumes
from samrt.cli._progress import ProgressBar

if TYPE_CHECKING:
    from samrt.evaluation.dataset import Dataset, Target
    from samrt.evaluation.files import Written
    from samrt.evaluation.runner import Plan
    from samrt.predictor import Predictor

__all__ = ["add_subparser", "run"]

_COMPARE = "compare"
_JITTER = "0-10,10-20,20-30"
_CLICKS = 10
_ALL_BUT_S1 = 5


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "eval",
        help="measure a model on images with known masks, or compare two such runs",
        description=_eval_options.DESCRIPTION,
        epilog=_eval_options.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _eval_options.add_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    parser: argparse.ArgumentParser = args.parser
    if args.words[0] == _COMPARE:
        if len(args.words) != 3:
            parser.error("compare takes two runs: samrt eval compare A B")
        return _run_comparison(args)
    if len(args.words) != 1:
        parser.error(f"one data set at a time, got {len(args.words)}: {' '.join(args.words)}")
    if args.dataset:
        parser.error("--dataset is for compare: here the data set is the first word")
    return _run_evaluation(args)


# -- measuring ------------------------------------------------------------------------------------


def _run_evaluation(args: argparse.Namespace) -> int:
    from samrt.cli._report import print_json
    from samrt.evaluation.files import write_comparison
    from samrt.evaluation.strategies import parse_jitter
    from samrt.evaluation.surfaces import need_scipy

    need_scipy()
    parse_jitter(args.jitter or _JITTER)  # a mistake shows before the data are read
    folder = args.output_dir or Path("samrt-eval")
    dataset, targets = _data(args)
    several = len(args.precision) > 1
    found: list[Written] = []
    for precision in args.precision:
        place = folder / precision if several else folder
        found.append(_one(args, precision, place, dataset, targets))
        if not args.json:
            _print(found[-1])
    compared: list[Written] = []
    for precision in args.precision[1:]:
        runs = (folder / args.precision[0], folder / precision)
        place = folder / f"{precision}-against-{args.precision[0]}"
        compared.append(write_comparison(place, *runs, dataset))
        if not args.json:
            _print_comparison(compared[-1])
    if args.json:
        documents = [w.document for w in found]
        if several:
            print_json({"runs": documents, "comparisons": [w.document for w in compared]})
        else:
            print_json(documents[0])
    return 0


def _data(args: argparse.Namespace) -> tuple[Dataset, list[Target]]:
    """The data set and the targets that were chosen."""
    from samrt.evaluation.dataset import choose
    from samrt.evaluation.formats import ReadOptions, open_dataset

    bar = ProgressBar()
    try:
        dataset = open_dataset(
            args.words[0],
            kind=args.format,
            options=ReadOptions(args.window, args.plane, args.modality),
            progress=bar,
        )
    finally:
        bar.end()
    _check_options(args, dataset)
    chosen = choose(dataset, sets=args.sets, exclude=args.exclude, limit=args.limit, seed=args.seed)
    return dataset, chosen


def _check_options(args: argparse.Namespace, dataset: Dataset) -> None:
    """Refuse options that this kind of data has no use for."""
    from samrt.errors import OptionError

    for option, idle, kinds in (
        ("window", None, ("nifti", "folders")),
        ("plane", "auto", ("nifti",)),
        ("modality", "unknown", ("nifti", "folders", "npz")),
        ("segs", False, ("npz",)),
    ):
        if getattr(args, option) != idle and dataset.kind not in kinds:
            raise OptionError(
                f"--{option} is for data of the kind {' or '.join(kinds)}, {dataset.path} is of "
                f"the kind {dataset.kind}: leave it out"
            )


def _one(
    args: argparse.Namespace,
    precision: str,
    folder: Path,
    dataset: Dataset,
    targets: list[Target],
) -> Written:
    """One run from its first to its last target, and its reports."""
    from samrt import load
    from samrt.environment import environment
    from samrt.evaluation.files import check_folder, write_report
    from samrt.evaluation.journal import JOURNAL_NAME, Journal
    from samrt.evaluation.runner import config_of, evaluate
    from samrt.evaluation.segs import write_segs

    bar = ProgressBar()
    with load(
        args.model, backend=args.backend, precision=precision, threads=args.threads
    ) as engine:
        plan, remarks = _plan(args, engine)
        ways, notes = _eval_volumes.asked_ways(args, dataset, engine)
        more = {"window": args.window, "plane": args.plane} if _takes_window(dataset) else {}
        config = config_of(engine, dataset, targets, plan, **_listed(more))
        check_folder(folder, force=args.force)
        with Journal(folder / JOURNAL_NAME, config, force=args.force) as journal:
            _say_resumed(journal.resumed, len(journal.done), len(targets))
            try:
                evaluate(engine, dataset, targets, plan, journal, progress=bar)
            except KeyboardInterrupt:
                bar.end()
                _remark(
                    f"{len(journal.done)} of {len(targets)} targets are kept in {journal.path}; "
                    "the same command goes on from there"
                )
                raise
            finally:
                bar.end()
        if ways:
            _eval_volumes.run_volumes(
                args, engine, dataset, plan, folder, bar,
                asked=ways, more=_listed(more), resumed=_say_resumed,
            )  # fmt: skip
    if args.segs:
        write_segs(dataset, targets, folder / JOURNAL_NAME, folder / "segs")
    remarks += [*notes, *dataset.remarks]
    if dataset.dropped:
        remarks.append(f"{dataset.dropped} targets of 50 pixels or fewer were dropped")
    return write_report(
        folder,
        dataset,
        targets,
        volumes=bool(ways),
        data={"path": args.words[0], "sets": list(args.sets), "exclude": args.exclude},
        environment=environment(),
        remarks=remarks,
    )


def _plan(args: argparse.Namespace, engine: Predictor) -> tuple[Plan, list[str]]:
    """What is asked, and remarks about what this model cannot be asked.

    What was named must be possible; what was left open is all that the model takes.
    """
    from samrt.decoding import check_refine_steps
    from samrt.errors import OptionError
    from samrt.evaluation.runner import Plan, check_plan
    from samrt.evaluation.strategies import check_strategies, parse_jitter, usable_strategies

    spec = engine.manifest.prompts
    asked, remarks = usable_strategies(spec), []
    if args.strategies:
        asked = tuple(part.strip() for part in args.strategies.split(","))
    elif len(asked) < _ALL_BUT_S1:
        remarks.append(f"of S2 to S6 this model takes only {', '.join(asked)}")
    jitter = parse_jitter(args.jitter or _JITTER)
    if jitter and not spec.box:
        if args.jitter is not None:
            raise OptionError("this model takes no boxes: leave --jitter out")
        jitter = ()
        remarks.append("no box jitter: this model takes no boxes")
    clicks = _CLICKS if args.clicks is None else args.clicks
    if clicks and not (spec.points and spec.negative_points):
        if args.clicks is not None:
            raise OptionError(
                "this model takes no positive and negative points: leave --clicks out"
            )
        clicks = 0
        remarks.append("no corrective clicks: this model takes no positive and negative points")
    plan = Plan(
        strategies=check_strategies(asked, spec),
        jitter=jitter,
        clicks=clicks,
        tolerance=args.nsd_tolerance,
        seed=args.seed,
        skip_bad=args.skip_bad,
        refine_steps=args.refine,
    )
    check_plan(plan)
    check_refine_steps(plan.refine_steps, engine.manifest)
    return plan, remarks


def _takes_window(dataset: Dataset) -> bool:
    return dataset.kind in ("nifti", "folders")


def _listed(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON keeps them: lists for tuples."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


# -- comparing ------------------------------------------------------------------------------------


def _run_comparison(args: argparse.Namespace) -> int:
    from samrt.cli._report import print_json, warn
    from samrt.evaluation.files import check_folder, write_comparison

    first, second = Path(args.words[1]), Path(args.words[2])
    folder = args.output_dir or Path("samrt-eval-compare")
    check_folder(folder, force=args.force, comparison=True)
    dataset = _dataset_of(args, first)
    if dataset is None:
        warn(["worst cases are not drawn: give the data with --dataset DIR"])
    written = write_comparison(folder, first, second, dataset)
    if args.json:
        print_json(written.document)
    else:
        _print_comparison(written)
    return 0


def _dataset_of(args: argparse.Namespace, run_path: Path) -> Dataset | None:
    """The data that a run was about; ``None`` if nobody knows where they are."""
    from samrt.errors import DatasetError
    from samrt.evaluation.compare import journal_of
    from samrt.evaluation.formats import ReadOptions, open_dataset
    from samrt.evaluation.journal import read_header
    from samrt.evaluation.summary import load_document

    journal = journal_of(run_path)
    config = read_header(journal)["config"]
    place = args.dataset
    report = journal.parent / "eval.json"
    if place is None and report.is_file():
        place = load_document(report).get("data", {}).get("path")
        place = place if place and Path(place).exists() else None
    if place is None:
        return None
    window = config.get("window")
    options = ReadOptions(
        tuple(window) if isinstance(window, list) else window, config.get("plane", "auto")
    )
    dataset = open_dataset(place, kind=config["dataset"]["format"], options=options)
    if dataset.digest != config["dataset"]["digest"]:
        raise DatasetError(
            f"{place} is not the data set of {run_path}: give the right one with --dataset"
        )
    return dataset


# -- printing -------------------------------------------------------------------------------------


def _remark(text: str) -> None:
    print(f"samrt: {text}", file=sys.stderr, flush=True)


def _say_resumed(resumed: bool, done: int, total: int, what: str = "targets") -> None:
    if resumed and done:
        _remark(f"{done} of {total} {what} are there from before")


def _print(written: Written) -> None:
    from samrt.cli._report import print_table, say
    from samrt.evaluation.report import words

    document = written.document
    say(f"{words.title(document)}: {document['counts']['targets']} targets, Dice [95 % interval]")
    strategies = document["config"]["strategies"]
    rows = [["", "n", *(words.strategy_name(s) for s in strategies)]]
    groups = {**document["groups"]["set"], **document["groups"]["all"]}
    for name, group in groups.items():
        cells = [words.figure(group, f"{s}.deployable.dice") for s in strategies]
        rows.append([name, str(group["targets"]), *cells])
    mean = document["groups"]["all"]["mean of sets"]
    cells = [words.figure(mean, f"{s}.oracle.dice") for s in strategies]
    rows.append(["mean of sets, oracle", str(mean["targets"]), *cells])
    print_table(rows)
    if "volumes" in document:
        _eval_volumes.print_volumes(document["volumes"])
    if document["skipped"]:
        say(f"{len(document['skipped'])} targets were skipped, see eval.md")
    say(f"written: {', '.join(str(path) for path in written.files)}")


def _print_comparison(written: Written) -> None:
    from samrt.cli._report import print_table, say
    from samrt.evaluation.report import words

    document = written.document
    first, second = (words.title(run) for run in document["runs"])
    say(f"{second} against {first}, {document['counts']['targets']} targets, mean of sets")
    rows = [["", "Dice, first", "Dice, second", "difference", "IoU of the masks"]]
    for name, found in document["strategies"].items():
        group = {"figures": found["mean of sets"]}
        names = ("dice_first", "dice_second", "dice_difference", "mask_iou")
        rows.append([words.strategy_name(name), *(words.figure(group, c, 4) for c in names)])
    print_table(rows)
    say(f"written: {', '.join(str(path) for path in written.files if path.suffix != '.png')}")
