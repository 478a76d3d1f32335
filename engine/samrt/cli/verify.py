"""``samrt verify``: is a bundle intact, does it run, does it compute what its checkpoint does?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.manifest import Manifest
    from samrt.model import Model
    from samrt.predictor import Predictor

__all__ = ["add_subparser", "run"]

_FAILED = 3
_EXTRA = ("torch", "onnx", "cv2", "scipy", "safetensors", "samrt_export")


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "verify",
        help="check that a model bundle is intact, runs, and equals its checkpoint",
        description="Check a model bundle: the manifest against its schema, presence, size and "
        "sha256 of every file; then run it on built-in pictures: finite numbers, the same result "
        "twice, and the figures of its last verification where the manifest holds them. With "
        "--against also compare every output with the checkpoint in PyTorch (needs pip install "
        "'samrt[export]'). Exit code 3 if anything fails.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="name of a model or path of its folder")
    add("--files-only", action="store_true", help="check the files and run nothing")
    add("--against", metavar="CHECKPOINT", help="compare with this checkpoint")
    add("--base", metavar="CHECKPOINT", help="the checkpoint that a LoRA adapter was trained on")
    add("--family", metavar="NAME", help="family of the checkpoint (the bundle's)")
    add("--images", metavar="DIR", help="compare on the pictures in this folder too")
    add("--record", action="store_true", help="write the comparison into the manifest")
    add("--backend", default="auto", metavar="NAME", help="see samrt info (auto)")
    add("--precision", default="auto", metavar="NAME", help="fp32, fp16 or int8 (auto)")
    add("--threads", type=_numbers.at_least(1), metavar="N", help="threads (all, at most 8)")
    add("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


@dataclass(slots=True)
class _Report:
    """What has been found so far."""

    bundle: str
    model_id: str | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    engine: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    image_files: dict[str, str] = field(default_factory=dict)
    skipped_files: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """All that failed, in words."""
        found = [f"{c['name']}: {c['detail']}" for c in self.checks if not c["passed"]]
        return found + list(self.comparison["failures"] if self.comparison else [])


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.bundle import find_model
    from samrt.errors import OptionError

    for option in ("images", "record", "base", "family"):
        if getattr(args, option) and not args.against:
            raise OptionError(f"--{option} is of use only with --against CHECKPOINT: add it")
    if args.files_only and args.against:
        raise OptionError("--files-only runs nothing, so there is no comparison: leave one out")
    path = find_model(args.bundle)
    report = _Report(str(path))
    bundle = _check_files(path, report)
    if bundle is not None and not args.files_only:
        _run_model(args, bundle, report)
    if args.json:
        _print_json(report)
    else:
        _print(report)
    if report.problems:
        print(f"samrt: verification failed: {'; '.join(report.problems)}", file=sys.stderr)
        return _FAILED
    return 0


def _check_files(path: Path, report: _Report) -> Bundle | None:
    from samrt.bundle import Bundle
    from samrt.errors import BundleError

    try:
        bundle = Bundle.open(path, verify="full")
    except BundleError as exc:
        detail = " ".join(str(exc).split())
        report.checks.append({"name": "intact", "passed": False, "detail": detail})
        return None
    report.model_id = bundle.model_id
    report.checks.append({"name": "schema", "passed": True, "detail": ""})
    report.checks += [
        {
            "name": f"sha256 of {item.file}",
            "passed": True,
            "detail": "",
            "sha256": item.sha256,
            "bytes": item.bytes,
        }
        for artifact in bundle.manifest.artifacts
        for item in artifact.all_files
    ]
    return bundle


def _run_model(args: argparse.Namespace, bundle: Bundle, report: _Report) -> None:
    """Load the bundle, run it, and compare it with the checkpoint if one is given."""
    from samrt.phantoms import PHANTOM_NAMES, phantom_case, phantom_cases
    from samrt.predictor import load
    from samrt.selfcheck import check_model

    say = _progress()
    reference: Model | None = None
    if args.against:
        say("reading the checkpoint")
        reference = load_reference(args.against, bundle.manifest, args)
    with load(
        bundle.path, backend=args.backend, precision=args.precision, threads=args.threads
    ) as engine:
        report.engine = {
            "backend": engine.info.backend_effective,
            "backend_version": engine.info.backend_version,
            "precision": engine.info.precision_effective,
            "decoder_precision": engine.info.decoder_precision,
            "threads": engine.info.threads,
        }
        # A comparison runs every picture anyway, so one is enough before it.
        cases = phantom_cases() if reference is None else [phantom_case(PHANTOM_NAMES[0])]
        report.checks += [asdict(check) for check in check_model(engine, cases, progress=say)]
        if reference is not None:
            _compare(args, engine, reference, report, say)


def load_reference(checkpoint: str, manifest: Manifest, args: argparse.Namespace) -> Model:
    """The checkpoint in PyTorch, fitted to the same frame as the bundle.

    Raises:
        BackendUnavailableError: the export extra is not installed.
    """
    from samrt.errors import BackendUnavailableError

    try:
        from samrt_export.exporter import load_reference as load_torch
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise BackendUnavailableError(
            f"comparing with a checkpoint needs {exc.name}, which is not installed: "
            "pip install 'samrt[export]'"
        ) from exc
    frame: Any = manifest.source.get("frame")
    mode = frame.get("mode") if isinstance(frame, dict) else None
    model: Model = load_torch(
        checkpoint,
        family=args.family or manifest.family,
        base=args.base,
        image_size=manifest.input.size if mode == "interpolate" else None,
        crop_padding=manifest.input.size if mode == "crop" else None,
        threads=args.threads,
    )
    return model


def _compare(
    args: argparse.Namespace,
    engine: Predictor,
    reference: Model,
    report: _Report,
    say: Callable[[str], None],
) -> None:
    from samrt.phantoms import phantom_cases
    from samrt.predictor import Predictor
    from samrt_export.verify import compare, image_cases, store_record

    def cases() -> Any:
        yield from phantom_cases()
        if args.images:
            for case in image_cases(args.images, on_skip=skip):
                report.image_files[case.name] = str(case.path)
                yield case

    def skip(path: Path, why: str) -> None:
        report.skipped_files[str(path)] = why

    with Predictor(reference) as truth:
        record = compare(truth, engine, cases(), progress=say)
    report.comparison = record.as_dict()
    if args.record:
        store_record(report.bundle, record)


def _progress() -> Callable[[str], None]:
    """Say what is being done, to a person who waits at a terminal."""

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"samrt: {text}", file=sys.stderr, flush=True)

    return say


def _print_json(report: _Report) -> None:
    from samrt.cli._report import print_json

    print_json(
        {
            "bundle": report.bundle,
            "model_id": report.model_id,
            "passed": not report.problems,
            "problems": report.problems,
            "checks": report.checks,
            "engine": report.engine,
            "comparison": report.comparison,
            "image_files": report.image_files,
            "skipped_files": report.skipped_files,
        }
    )


def _print(report: _Report) -> None:
    from samrt.cli._comparison import print_comparison
    from samrt.cli._report import print_table, say, warn

    print_table(
        ["ok" if check["passed"] else "FAILED", check["name"], check["detail"]]
        for check in report.checks
    )
    warn(f"{path} was left out: {why}" for path, why in report.skipped_files.items())
    if report.comparison is not None:
        print_comparison(report.comparison, report.image_files)
    if not report.problems:
        did = "is intact" if report.engine is None else "is intact and runs"
        did = did if report.comparison is None else "is intact, runs and equals its checkpoint"
        say(f"{report.bundle} {did}: {report.model_id}")
