"""How ``samrt build`` ends: are the engines as good as the FP32 model?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from samrt.cli._cases import Pictures
from samrt.quoting import one_line

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.engines.api import Api
    from samrt.engines.bundles import Outcome
    from samrt.engines.cache import EngineCache
    from samrt.engines.memory import DeviceMemory
    from samrt.gate import Verdict

__all__ = ["EngineProofReport", "check_graphs", "print_proof", "prove_engines"]


@dataclass(slots=True)
class EngineProofReport:
    """What is known of the engines at the end.

    Attributes:
        verdict: about them.
        engines: the engines, with the record where there is one.
        record: the comparison; ``None`` without one.
        pictures: what they were compared on.
    """

    verdict: Verdict
    engines: list[Outcome]
    record: Mapping[str, Any] | None = None
    pictures: Pictures = field(default_factory=lambda: Pictures(None))

    def as_dict(self) -> dict[str, Any]:
        """The verdict and the figures; the pictures' expected numbers stay with the engines."""
        from dataclasses import asdict

        shown = {k: v for k, v in (self.record or {}).items() if k != "expected"}
        return {
            **asdict(self.verdict),
            "comparison": shown or None,
            "image_files": self.pictures.image_files,
            "skipped_files": self.pictures.skipped_files,
        }


def check_graphs(bundle: Bundle, precision: str, *, allow_refused: bool) -> None:
    """Build nothing from graphs that are refused.

    Raises:
        VerificationError: they are, and ``allow_refused`` is false.
    """
    from samrt.engines.bundles import ROLES
    from samrt.gate import admit, graph_verdict

    chosen = {role: bundle.artifact(role, precision) for role in ROLES}
    admit(
        graph_verdict(bundle.manifest, chosen),
        f"{bundle.manifest.name} in {chosen['encoder'].precision}",
        allow_refused=allow_refused,
        advice="use another precision, export or quantize it again",
    )


def prove_engines(
    args: argparse.Namespace, bundle: Bundle, api: Api, engines: list[Outcome], cache: EngineCache
) -> EngineProofReport:
    """Compare the engines with the FP32 model if they can be run here.

    A record of the same engines, GPU and driver is taken as it is, unless ``--images`` asks for
    more.
    """
    from samrt.engines.channel import ExecutionOptions
    from samrt.engines.memory import open_memory
    from samrt.engines.verifying import known_record, reasons_not_to_run, verify_engines
    from samrt.errors import BackendError, BackendUnavailableError
    from samrt.gate import Verdict, judge_record

    if args.no_verify:
        return EngineProofReport(Verdict("unverified", "--no-verify was given"), engines)
    precision = next(o.precision for o in engines if o.role == "encoder")
    try:
        memory: DeviceMemory = open_memory(ExecutionOptions.from_environment().memory)
        reasons = reasons_not_to_run(api, engines, memory)
    except (BackendError, BackendUnavailableError) as exc:
        reasons = [one_line(exc)]
    if reasons:
        why = f"the engines cannot be run here ({'; '.join(reasons)})"
        return EngineProofReport(Verdict("unverified", why), engines)
    record = None if args.images else known_record(api, engines, memory, cache)
    pictures = Pictures(args.images)
    report = EngineProofReport(judge_record(record, precision), engines, record, pictures)
    if record is not None:
        return report
    report.engines, report.record = verify_engines(
        bundle, api, engines, memory=memory, cache=cache,
        cases=pictures.cases(), progress=_say,
    )  # fmt: skip
    report.verdict = judge_record(report.record, precision)
    return report


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"samrt: {text}", file=sys.stderr, flush=True)


def print_proof(report: EngineProofReport) -> None:
    """Figures and verdict for people."""
    from samrt.cli._comparison import print_comparison
    from samrt.cli._report import say, warn

    warn(f"{path} was left out: {why}" for path, why in report.pictures.skipped_files.items())
    if report.record is not None:
        print_comparison(report.record, report.pictures.image_files)
    verdict = report.verdict
    if verdict.state == "passed":
        say("Passed: the engines compute what the FP32 model does, within the limits.")
    elif verdict.state == "unverified":
        say(
            f"Not verified: {verdict.detail}. Loading them for the first time on the machine "
            "with the GPU compares them with the FP32 model before they are used."
        )
