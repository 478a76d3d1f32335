"""``samrt build``: engines for TensorRT and TensorRT-RTX, or a repository for Triton."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers
from samrt.cli._build_proof import EngineProofReport, check_graphs, print_proof, prove_engines
from samrt.cli._cases import Pictures

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.engines.api import Api
    from samrt.engines.bundles import Outcome
    from samrt.engines.memory import DeviceInfo
    from samrt.engines.options import BuildOptions

__all__ = ["add_subparser", "run"]

_RUNTIMES = ("tensorrt", "tensorrt-rtx")
_EVERY_SECONDS = 10.0
_FAILED = 3


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "build",
        help="compile a bundle for TensorRT or TensorRT-RTX, or lay it out for Triton",
        description="Compile the encoder and the decoder of a bundle into engines and keep them in "
        "the cache folder (SAMRT_CACHE), where samrt.load(..., backend='tensorrt') finds them. "
        "TensorRT builds for the GPU of this machine; TensorRT-RTX needs no GPU to build. "
        "Where the engines can be run they are compared with the FP32 model at the end, and "
        "refused if they are not as good (exit code 3); elsewhere loading them for the first time "
        "does that. "
        "With --triton DIR write a model repository for Triton Inference Server: of the ONNX "
        "files, or with --runtime tensorrt of the engines.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="name of a model or path of its folder")
    add("--runtime", choices=_RUNTIMES, help="what the engines are for")
    add("--precision", default="auto", metavar="NAME", help="fp32, fp16 or int8 (the bundle's)")
    add(
        "--target",
        type=_targets,
        default=(),
        metavar="sm86,sm89,...",
        help="GPU generations, for TensorRT-RTX (its own choice: Ampere and newer)",
    )
    add(
        "--max-prompts",
        type=_numbers.at_least(1),
        default=16,
        metavar="N",
        help="most prompts in one decoder call (16)",
    )
    add(
        "--max-points",
        type=_numbers.at_least(1),
        default=16,
        metavar="P",
        help="most rows of a prompt: a point is one, a box two, padding counts (16)",
    )
    add("--workspace", metavar="SIZE", help="GPU memory for intermediate results, such as 2G")
    add("--timing-cache", type=Path, metavar="FILE", help="keep kernel times here (TensorRT)")
    add(
        "--repeatable",
        action="store_true",
        help="measure nothing: take every kernel time from --timing-cache or fail",
    )
    add("--tf32", action="store_true", help="let FP32 products round to TF32 (faster, coarser)")
    add(
        "--optimization-level",
        type=int,
        choices=range(6),
        metavar="0..5",
        help="effort of the build (the runtime's own)",
    )
    add("--images", metavar="DIR", help="compare on the pictures in this folder too")
    add("--no-verify", action="store_true", help="leave the comparison to the first load")
    add(
        "--allow-refused",
        action="store_true",
        help="build graphs that their verification has refused; exit code 0 for such engines",
    )
    add("--triton", type=Path, metavar="DIR", help="write a model repository here")
    add("--force", action="store_true", help="build again and replace files that exist")
    add("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def _targets(text: str) -> tuple[str, ...]:
    """``sm86,sm89``, ``86,89`` or ``8.6,8.9``; sorted, so that the order changes nothing."""
    found = set()
    for part in text.lower().split(","):
        digits = part.strip().removeprefix("sm").removeprefix("_").replace(".", "")
        if not digits.isdecimal() or not 2 <= len(digits) <= 3:
            raise argparse.ArgumentTypeError(f"{part!r} is not a GPU generation such as sm86")
        found.add(int(digits))
    return tuple(f"sm{number}" for number in sorted(found))


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.bundle import Bundle, find_model
    from samrt.engines.triton import write_repository
    from samrt.errors import OptionError

    if args.runtime is None and args.triton is None:
        raise OptionError("nothing to build: add --runtime tensorrt, tensorrt-rtx or --triton DIR")
    if args.runtime == "tensorrt-rtx" and args.triton is not None:
        raise OptionError(
            "Triton does not serve engines of tensorrt-rtx: leave --runtime out for the ONNX "
            "files, or use --runtime tensorrt"
        )
    if args.images and (args.runtime is None or args.no_verify):
        raise OptionError("--images is for the comparison of engines, which is not asked for")
    bundle = Bundle.open(find_model(args.bundle))
    Pictures(args.images).check()
    check_graphs(bundle, args.precision, allow_refused=args.allow_refused)
    engines: list[Outcome] = []
    proof: EngineProofReport | None = None
    if args.runtime is not None:
        proof = _build(args, bundle)
        engines = proof.engines
    refused = proof is not None and proof.verdict.state == "refused" and not args.allow_refused
    files: list[Path] = []
    if args.triton is not None and not refused:
        bundle.verify()
        files = write_repository(
            args.triton, bundle, precision=args.precision, engines=engines, force=args.force
        )
    if args.json:
        from samrt.cli._report import print_json

        print_json(_document(bundle, engines, files, proof))
    else:
        _print(bundle, engines, files)
        if proof is not None:
            print_proof(proof)
    if refused and proof is not None:
        print(f"samrt: the engines are refused: {proof.verdict.detail}", file=sys.stderr)
        return _FAILED
    return 0


def _build(args: argparse.Namespace, bundle: Bundle) -> EngineProofReport:
    from samrt.engines.api import load_api
    from samrt.engines.builder import check_options
    from samrt.engines.bundles import build_bundle
    from samrt.engines.cache import EngineCache

    api, options = load_api(args.runtime), _options(args)
    check_options(api, options)
    progress, cache = _Progress(), EngineCache()
    try:
        engines = build_bundle(
            bundle,
            api,
            options,
            precision=args.precision,
            device=_device(api),
            cache=cache,
            force=args.force,
            progress=progress,
        )
    finally:
        progress.end()
    return prove_engines(args, bundle, api, engines, cache)


def _options(args: argparse.Namespace) -> BuildOptions:
    from samrt.engines.options import BuildOptions, parse_bytes

    return BuildOptions(
        targets=args.target,
        max_prompts=args.max_prompts,
        max_points=args.max_points,
        workspace_bytes=None if args.workspace is None else parse_bytes(args.workspace),
        timing_cache=args.timing_cache,
        repeatable=args.repeatable,
        tf32=args.tf32,
        optimization_level=args.optimization_level,
    )


def _device(api: Api) -> DeviceInfo | None:
    """The GPU, where the engine is made for it."""
    if api.capabilities.builds_without_gpu:
        return None
    from samrt.engines.channel import ExecutionOptions
    from samrt.engines.memory import open_memory

    return open_memory(ExecutionOptions.from_environment().memory).device()


class _Progress:
    """On a terminal one changing line, elsewhere a line now and then; all on standard error."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._role = ""

    def __call__(self, role: str, phase: str, fraction: float) -> None:
        """Say where the build is."""
        now = time.monotonic()
        if role != self._role:
            self._role, self._start = role, now
        text = f"samrt: {role}: {phase} {fraction:.0%}, {now - self._start:.0f} s"
        if sys.stderr.isatty():
            print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
        elif now - self._last >= _EVERY_SECONDS:
            print(text, file=sys.stderr, flush=True)
        else:
            return
        self._last = now

    def end(self) -> None:
        """Leave the line, if there is one."""
        if self._role and sys.stderr.isatty():
            print(file=sys.stderr)


def _document(
    bundle: Bundle, engines: list[Outcome], files: list[Path], proof: EngineProofReport | None
) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "engines": [outcome.as_dict() for outcome in engines],
        "verification": None if proof is None else proof.as_dict(),
        "triton_files": [str(path) for path in files],
    }


def _print(bundle: Bundle, engines: list[Outcome], files: list[Path]) -> None:
    from samrt.cli._report import print_table, say, size_text, warn

    rows = []
    for outcome in engines:
        record = outcome.record
        seconds = f"{record.build.get('seconds', 0):.1f} s" if outcome.built else "in the cache"
        size = size_text(record.bytes)
        rows.append([outcome.role, outcome.precision, size, seconds, str(outcome.path)])
    print_table(rows)
    for outcome in engines:
        warn(f"{outcome.role}: {text}" for text in outcome.record.build.get("warnings", ()))
        varying = outcome.record.build.get("varying")
        if outcome.built and varying and outcome.record.key.device == "any":
            say(f"{outcome.role}: built again it may differ in some bytes: {varying}")
    for path in files:
        say(str(path))
    if engines:
        key = engines[0].record.key
        where = ",".join(key.targets) or (
            "the runtime's own targets" if key.device == "any" else key.device
        )
        say(f"{bundle.model_id}: engines for {key.runtime} {key.version}, {where}")
