"""One engine built in a process of its own, under conditions that do not vary.

What this gives:

- The same bytes for the same file, options, versions and machine, whatever the user's shell looks
  like; see :mod:`samrt.engines.addresses`. The child sees the environment that
  :func:`fixed_environment` makes, a constant command line, and the model's folder as its working
  directory, so that the runtime's parser is given a file's name and finds external weights.
- A fault of native code ends the child and is an error here.
- An interruption ends the child at once; it leaves no file.

It is for runtimes that build without a GPU (TensorRT-RTX). TensorRT 10 and 11 measure kernels on
the GPU and take the fastest, so their engines differ for another reason, which a timing cache
takes away and a process does not; they build in the process of the caller.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

import samrt
from samrt import errors
from samrt.closing import end_process
from samrt.engines.addresses import MALLOC
from samrt.engines.api import Api
from samrt.engines.builder import BuiltEngine, build_engine, check_options
from samrt.engines.messages import Progress
from samrt.engines.options import BuildOptions, shape_ranges
from samrt.errors import BackendError, SamrtError
from samrt.manifest import TensorSpec

__all__ = ["build", "build_apart", "can_build_apart", "converse", "fixed_environment"]

_SCRIPT = Path(__file__).with_name("apart_child.py")
_EVERY_SECONDS = 0.2
_MOST_SECONDS_TO_END = 10.0
_LONGEST_LINE = 4 * 2**20
_LAST_WORDS_BYTES, _LAST_WORDS = 4096, 200
_KEPT = ("HOME", "LD_LIBRARY_PATH", "TMPDIR")
_KEPT_PREFIXES = ("CUDA", "NVIDIA")
_FIXED = {
    "GLIBC_TUNABLES": MALLOC,
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


def build(
    api: Api,
    model: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    options: BuildOptions,
    *,
    progress: Progress | None = None,
    timing_cache: bytes | None = None,
) -> BuiltEngine:
    """Build where the runtime allows it in a process of its own, else in this one.

    Arguments and errors are those of :func:`samrt.engines.builder.build_engine`.
    """
    if can_build_apart(api):
        return build_apart(api, model, inputs, outputs, options, progress=progress)
    return build_engine(
        api, model, inputs, outputs, options, progress=progress, timing_cache=timing_cache
    )


def can_build_apart(api: Api) -> bool:
    """Whether another process can build for this runtime.

    It can if building needs no GPU, the runtime's module is one that is imported by its name, and
    there is a Python to start (a program with Python inside may have none).
    """
    module = api.module
    imported = isinstance(module, ModuleType) and sys.modules.get(module.__name__) is module
    python = bool(sys.executable) and not getattr(sys, "frozen", False)
    return imported and python and api.capabilities.builds_without_gpu


def build_apart(
    api: Api,
    model: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    options: BuildOptions,
    *,
    progress: Progress | None = None,
) -> BuiltEngine:
    """Compile an ONNX file in a process of its own.

    Args:
        api: the runtime, which builds without a GPU.
        model: the ONNX file; data files lie where it expects them.
        inputs: what the manifest says of its inputs; free sizes are ``N`` and ``P``.
        outputs: likewise of its outputs.
        options: what to build for.
        progress: called with the name of a phase and its fraction done.

    Returns:
        The engine; its ``varying`` says whether the same build gives the same bytes again.

    Raises:
        OptionError: the runtime does not offer what ``options`` ask for.
        BackendError: the runtime does not accept the file (the message names the node), or the
            process that builds has ended before its time.
        KeyboardInterrupt: the user interrupted the build.
    """
    check_options(api, options)
    ranges = shape_ranges(inputs, options)
    if not model.is_file():
        raise BackendError(f"{model} is missing: the bundle is damaged")
    job = {
        "runtime": api.runtime,
        "path": _module_path(api),
        "file": model.name,
        "inputs": _tensors(inputs),
        "outputs": _tensors(outputs),
        "options": {**asdict(options), "timing_cache": None},
    }
    what = f"{api.title} building {model.name}"
    command = [sys.executable, "-S", "-s", "-X", "utf8", str(_SCRIPT)]
    answer, content = converse(command, job, model.resolve().parent, what, progress)
    if answer["version"] != api.version:
        raise BackendError(
            f"{what}: its process has found version {answer['version']}: remove the other one"
        )
    return BuiltEngine(
        content=content,
        seconds=answer["seconds"],
        layers=answer["layers"],
        ranges=ranges,
        warnings=tuple(answer["warnings"]),
        varying=answer["varying"],
    )


def fixed_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a build.

    Kept are ``HOME``, ``TMPDIR``, ``LD_LIBRARY_PATH`` (its absolute folders: the others would
    mean the model's folder) and what begins with ``CUDA`` or ``NVIDIA``. Set are the language
    (``C.UTF-8``), one thread for numpy, Python's seed of hashes and the memory of the C library.
    On Windows all of ``environ`` is kept, because programs do not start without much of it.
    """
    if sys.platform == "win32":
        return {**environ, **_FIXED}
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    folders = [part for part in kept.pop("LD_LIBRARY_PATH", "").split(":") if part[:1] == "/"]
    if folders:
        kept["LD_LIBRARY_PATH"] = ":".join(folders)
    return {**kept, **_FIXED}


def converse(
    command: Sequence[str],
    job: Mapping[str, Any],
    folder: Path,
    what: str,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Give a process its job and wait for its answer.

    Args:
        command: the process; it speaks as :mod:`samrt.engines.apart_child` does.
        job: what it is told, ready for JSON.
        folder: its working directory.
        what: what it does, for messages, such as ``TensorRT-RTX 1.7 building decoder.onnx``.
        progress: called with its phases, at most each 0.2 s; may raise, which ends the process.

    Returns:
        What it says about the engine, and the engine's bytes.

    Raises:
        SamrtError: the error that it reports, as the same class with the same text.
        BackendError: it has ended without an answer, or cannot be started.
        RuntimeError: it reports a fault of samrt's own, with the traceback.
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=folder,
                env=fixed_environment(os.environ),
                start_new_session=True,  # Ctrl-C is for this process, and so is its share of time
            )
        except OSError as exc:
            raise BackendError(f"{what}: no process can be started ({exc.strerror})") from exc
        try:
            found = _listen(process, job, progress)
            code = _code_of(process) if found is None else 0
        finally:
            end_process(process)
        if found is None:
            raise BackendError(_death(what, code, _last_words(said)))
    answer, content = found
    if "error" in answer:
        _raise(answer["error"], what)
    return answer["built"], content


def _listen(
    process: subprocess.Popen[bytes], job: Mapping[str, Any], progress: Progress | None
) -> tuple[dict[str, Any], bytes] | None:
    """The last answer and what follows it; ``None`` if the process ended before."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process that builds has no pipes")
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.close()
    except OSError:  # it is dead; that is found out below
        pass
    last = 0.0
    while True:
        line = process.stdout.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        if "progress" not in answer:
            break
        now = time.monotonic()
        if progress is not None and now - last >= _EVERY_SECONDS:
            last = now
            phase, fraction = answer["progress"]
            progress(phase, fraction)
    size = answer["built"]["bytes"] if "built" in answer else 0
    content = process.stdout.read(size)
    return (answer, content) if len(content) == size else None


def _code_of(process: subprocess.Popen[bytes]) -> int:
    """How a process that has stopped talking ended; one that does not end is ended: code 0."""
    try:
        return process.wait(_MOST_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        return 0


def _death(what: str, code: int, words: str) -> str:
    said = f"; its last words: {words}" if words else ""
    if code >= 0:
        return (
            f"{what}: its process ended with code {code} and no engine{said}; "
            "install the runtime again, or another version of it"
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name in ("SIGKILL", "SIGTERM"):
        return (
            f"{what}: its process was ended from outside ({name}){said}; mostly the memory did "
            "not suffice: close other programs, or build on a machine with more of it"
        )
    return (
        f"{what}: the runtime's own code crashed ({name}){said}; "
        "export the model again, or use another version of the runtime"
    )


def _last_words(said: IO[bytes]) -> str:
    """The last line on standard error, shortened."""
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _LAST_WORDS_BYTES))
    lines = [line.strip() for line in said.read().decode("utf-8", "replace").splitlines()]
    return next((" ".join(line.split())[:_LAST_WORDS] for line in reversed(lines) if line), "")


def _raise(error: Mapping[str, str], what: str) -> NoReturn:
    kind = getattr(errors, error["kind"], None)
    if isinstance(kind, type) and issubclass(kind, SamrtError):
        raise kind(error["text"])
    if error["kind"] == "MemoryError":
        raise BackendError(
            f"{what}: the memory did not suffice; close other programs, or build on a machine "
            "with more of it"
        )
    raise RuntimeError(f"{what} failed; please report it:\n{error['text']}")


def _module_path(api: Api) -> list[str]:
    """Where the child finds samrt, the runtime's module and what they import."""
    own = Path(samrt.__file__).parent.parent
    theirs = [Path(api.module.__file__).parent.parent] if api.module.__file__ else []
    rest = (Path(entry) for entry in sys.path if entry)
    return list(dict.fromkeys(str(p.absolute()) for p in (own, *theirs, *rest)))


def _tensors(specs: Sequence[TensorSpec]) -> list[list[Any]]:
    return [[spec.name, spec.dtype, list(spec.shape)] for spec in specs]
