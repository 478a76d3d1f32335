"""The process that builds one engine; run as a script by :mod:`samrt.engines.apart`.

One line of JSON comes in on standard input (what to build, and where the modules lie). Lines of
JSON go out on standard output: ``{"progress": [phase, fraction]}`` any number of times, then
``{"error": ...}`` or ``{"built": ...}``, the latter followed by the engine's bytes. What native
code prints goes to standard error. The folder with the model is the working directory.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from samrt.engines.builder import BuiltEngine

_STACK_BYTES = 8 * 2**20  # samrt.engines.addresses.STACK_BYTES, which cannot be imported yet
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
_PARENT_IS_GONE = 3


def main() -> None:
    """Read the job, build, answer."""
    if __name__ == "__main__" and sys.path:
        del sys.path[0]  # this folder, whose modules are not to be found by their short names
    _limit_stack()
    _end_with_parent()
    answers = _private_output()
    import json

    job = json.loads(sys.stdin.buffer.readline())
    sys.path[:0] = job["path"]
    content = b""
    try:
        built, version = _build(job, answers)
        content = built.content
        answer = {"built": _facts(built, version)}
    except Exception as exc:
        answer = {"error": _error(exc)}
    try:
        _tell(answers, answer)
        answers.write(content)
        answers.flush()
    except OSError:
        os._exit(_PARENT_IS_GONE)
    os._exit(0)  # the runtime's destructors have nothing to save


def _limit_stack() -> None:
    """Start again with the usual limit on the stack: it decides where Linux maps memory."""
    if sys.platform != "linux":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == _STACK_BYTES or (hard != resource.RLIM_INFINITY and hard < _STACK_BYTES):
        return
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, hard))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _end_with_parent() -> None:
    """No build goes on for nobody, whatever ends the parent."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def _private_output() -> BinaryIO:
    """Standard output for answers alone; what others print there goes to standard error."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(own, "wb")


def _tell(answers: BinaryIO, answer: dict[str, Any]) -> None:
    import json

    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _build(job: dict[str, Any], answers: BinaryIO) -> tuple[BuiltEngine, str]:
    """The engine and the version of the runtime that built it."""
    from dataclasses import replace
    from pathlib import Path

    from samrt.engines.addresses import run_fixed
    from samrt.engines.api import load_api
    from samrt.engines.builder import build_engine
    from samrt.engines.options import BuildOptions
    from samrt.manifest import TensorSpec

    def progress(phase: str, fraction: float) -> None:
        try:
            _tell(answers, {"progress": [phase, fraction]})
        except OSError:
            os._exit(_PARENT_IS_GONE)

    given = job["options"]
    options = BuildOptions(**{**given, "targets": tuple(given["targets"])})
    inputs, outputs = (
        [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in job[side]]
        for side in ("inputs", "outputs")
    )
    model = Path(job["file"])

    def build() -> tuple[BuiltEngine, str]:
        api = load_api(job["runtime"])
        # Every step is told: how many are told must not depend on the time.
        built = build_engine(
            api, model, inputs, outputs, options, progress=progress, every_seconds=0.0
        )
        return built, api.version

    (built, version), varying = run_fixed(build)
    return replace(built, varying=varying), version


def _facts(built: BuiltEngine, version: str) -> dict[str, Any]:
    return {
        "version": version,
        "bytes": len(built.content),
        "seconds": built.seconds,
        "layers": built.layers,
        "warnings": list(built.warnings),
        "varying": built.varying,
    }


def _error(exc: Exception) -> dict[str, str]:
    """Errors of ours by name; anything else is a fault, with its traceback."""
    import traceback

    from samrt.errors import SamrtError

    if isinstance(exc, SamrtError):
        return {"kind": type(exc).__name__, "text": str(exc)}
    if isinstance(exc, MemoryError):
        return {"kind": "MemoryError", "text": str(exc)}
    return {"kind": "", "text": traceback.format_exc()}


if __name__ == "__main__":
    main()
