"""``samrt verify``: is a bundle intact, does it run, does it compute what its checkpoint does?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers
from samrt.cli._cases import Pictures
from samrt.quoting import one_line

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.gate import Verdict
    from samrt.manifest import Manifest
    from samrt.model import Model
    from samrt.predictor import Predictor

__all__ = ["add_subparser", "run"]

_FAILED = 3
_OWN = "fp32"
_EXTRA = ("torch", "onnx", "cv2", "scipy", "safetensors", "samrt_export")


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "verify",
        help="check that a model bundle is intact, runs, and equals its checkpoint",
        description="Check a model bundle: the manifest against its schema, presence, size and "
        "sha256 of every file; then run it on built-in pictures: finite numbers, the same result "
        "twice, and the figures of its last verification where the manifest holds them. With "
        "--against CHECKPOINT also compare every output with the checkpoint in PyTorch (needs pip "
        "install 'samrt[export]'); with --against fp32 compare another precision or backend, such "
        "as engines of TensorRT, with the bundle's own FP32 graphs in ONNX Runtime. Exit code 3 if "
        "anything fails.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="name of a model or path of its folder")
    add("--files-only", action="store_true", help="check the files and run nothing")
    add(
        "--against",
        metavar="CHECKPOINT|fp32",
        help="compare with this checkpoint, or with the bundle's FP32 graphs",
    )
    add("--base", metavar="CHECKPOINT", help="the checkpoint that a LoRA adapter was trained on")
    add("--family", metavar="NAME", help="family of the checkpoint (the bundle's)")
    add("--images", metavar="DIR", help="compare on the pictures in this folder too")
    add(
        "--record",
        action="store_true",
        help="write the comparison into the manifest of the bundle, or of the engines",
    )
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
    where: str | None = None
    pictures: Pictures = field(default_factory=lambda: Pictures(None))

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
    if args.against == _OWN and (args.base or args.family):
        raise OptionError("--base and --family describe a checkpoint: leave them out with fp32")
    if args.files_only and args.against:
        raise OptionError("--files-only runs nothing, so there is no comparison: leave one out")
    path = find_model(args.bundle)
    report = _Report(str(path), pictures=Pictures(args.images))
    report.pictures.check()
    bundle = _check_files(path, report)
    if bundle is not None and not args.files_only:
        _run_model(args, bundle, report)
    if args.json:
        _print_json(report)
    else:
        _print(report, against_own=args.against == _OWN)
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
        detail = one_line(exc)
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
        for item in bundle.files().values()
    ]
    return bundle


def _run_model(args: argparse.Namespace, bundle: Bundle, report: _Report) -> None:
    """Load the bundle, run it, and compare it with the checkpoint if one is given."""
    from samrt.phantoms import PHANTOM_NAMES, phantom_case, phantom_cases
    from samrt.predictor import load
    from samrt.selfcheck import check_model

    say = _progress()
    reference: Model | None = None
    if args.against and args.against != _OWN:
        say("reading the checkpoint")
        reference = load_reference(args.against, bundle.manifest, args)
    with load(
        bundle.path,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        allow_refused=True,  # to look at it is what this verb is for
        self_test=False,
    ) as engine:
        report.engine = {
            "backend": engine.info.backend_effective,
            "backend_version": engine.info.backend_version,
            "precision": engine.info.precision_effective,
            "decoder_precision": engine.info.decoder_precision,
            "form": engine.info.form_effective,
            "form_reason": engine.info.form_reason,
            "threads": engine.info.threads,
        }
        if not args.against:
            report.checks.append(_gate(engine.info.verification))
        # A comparison runs every picture anyway, so one is enough before it.
        cases = [phantom_case(PHANTOM_NAMES[0])] if args.against else phantom_cases()
        report.checks += [asdict(check) for check in check_model(engine, cases, progress=say)]
        if reference is not None:
            _compare(args, engine, reference, report, say)
        elif args.against:
            _compare_with_own(args, engine, bundle, report, say)


def _gate(verdict: Verdict) -> dict[str, Any]:
    """What an earlier verification says."""
    passed = verdict.state != "refused"
    return {"name": "gate", "passed": passed, "detail": f"{verdict.state}: {verdict.detail}"}


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
    from samrt.predictor import Predictor
    from samrt.verification import compare

    with Predictor(reference) as truth:
        record = compare(truth, engine, report.pictures.cases(), progress=say)
    report.comparison = record.as_dict()
    if args.record:
        from samrt_export.verify import store_record

        store_record(report.bundle, record)


def _compare_with_own(
    args: argparse.Namespace,
    engine: Predictor,
    bundle: Bundle,
    report: _Report,
    say: Callable[[str], None],
) -> None:
    """Compare with the bundle's FP32 graphs; keep the figures of engines if that is asked for."""
    from samrt.admission import prove
    from samrt.errors import OptionError

    proof = engine.model.proof
    if args.record and proof is None:
        raise OptionError(
            "--record with --against fp32 is for engines: graphs get their record when they are "
            "exported or quantized, leave it out"
        )
    report.comparison = prove(engine, cases=report.pictures.cases(), progress=say)
    if args.record and proof is not None:
        proof.store(report.comparison)
    if report.comparison["passed"]:
        return
    report.where = report.comparison["first_wrong"]
    precision = engine.info.precision_effective
    if proof is None and precision != "fp32":
        say("looking for the node where the error explodes")
        report.where = _where(bundle, precision, args.threads) or report.where


def _where(bundle: Bundle, precision: str, threads: int | None) -> str | None:
    """The first node of the graphs where the error explodes, where that can be found out."""
    from samrt.errors import BackendError

    try:
        from samrt_export.verify.growth import explosion

        return explosion(bundle, precision, threads=threads)
    except (ModuleNotFoundError, BackendError):
        return None


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
            "where": report.where,
            "image_files": report.pictures.image_files,
            "skipped_files": report.pictures.skipped_files,
        }
    )


def _print(report: _Report, *, against_own: bool) -> None:
    from samrt.cli._comparison import print_comparison
    from samrt.cli._report import print_table, say, warn

    print_table(
        ["ok" if check["passed"] else "FAILED", check["name"], check["detail"]]
        for check in report.checks
    )
    warn(f"{path} was left out: {why}" for path, why in report.pictures.skipped_files.items())
    if report.comparison is not None:
        print_comparison(report.comparison, report.pictures.image_files)
    if report.where is not None:
        say(report.where)
    if not report.problems:
        did = "is intact" if report.engine is None else "is intact and runs"
        if report.comparison is not None:
            equals = "its FP32 graphs" if against_own else "its checkpoint"
            did = f"is intact, runs and equals {equals}"
        say(f"{report.bundle} {did}: {report.model_id}")
