"""What an inference backend is: it opens a model file and runs it on named arrays.

The public :meth:`Session.run` checks names, dtypes and shapes and makes sure that the results
belong to the caller; a backend overrides ``_run`` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.closing import Closing
from samrt.errors import BackendError, OptionError
from samrt.manifest import TensorSpec
from samrt.quoting import one_line

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.manifest import Artifact

__all__ = [
    "FORMS",
    "MAX_THREADS",
    "Backend",
    "FormChoice",
    "Proof",
    "Session",
    "SessionOptions",
    "TensorSpec",
    "default_threads",
    "quoted",
]

MAX_THREADS = 256
FORMS = ("auto", "canonical", "cpu")
_LONGEST_QUOTATION = 300
_DEFAULT_THREADS_AT_MOST = 8

Arrays = Mapping[str, NDArray[Any]]


def default_threads() -> int:
    """Threads used when none are asked for.

    The smaller of the CPUs this process may run on and the physical cores of the machine, at
    most 8: hyper-threads slow matrix products down, and an edge box has other work to do.
    """
    from samrt.environment import physical_cores, usable_cpus

    return max(1, min(usable_cpus(), physical_cores() or usable_cpus(), _DEFAULT_THREADS_AT_MOST))


def quoted(exc: Exception) -> str:
    """What a runtime says, in one line of at most 300 characters."""
    return one_line(exc, _LONGEST_QUOTATION)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Options every backend understands, with defaults for a box that does other work too.

    Attributes:
        threads: 1 to 256 worker threads; ``None`` takes :func:`default_threads`.
        arena: let the runtime keep its memory between runs. Off, memory goes back to the system
            after each run. ``None``: on for the decoder, which is small and runs for every prompt,
            off for the encoder, which is large and runs once an image.
        spinning: let worker threads spin instead of sleeping while a run is in progress; between
            runs they always sleep. ``None``: on for the decoder, whose many short steps gain from
            it, off for the encoder.
        allow_refused: also open compiled engines that their verification has refused, see
            :mod:`samrt.gate`.
        form: which form of the graphs: ``canonical``, ``cpu`` (ONNX Runtime with samrt's
            own operators), or ``auto``: the fastest that runs here. ``None``: as
            ``SAMRT_ONNXRUNTIME_FORM`` says, else ``auto``.

    Raises:
        OptionError: ``threads`` is not a whole number in that range, or there is no such form.
    """

    threads: int | None = None
    arena: bool | None = None
    spinning: bool | None = None
    allow_refused: bool = False
    form: str | None = None

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in FORMS:
            raise OptionError(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")
        count = self.threads
        if count is None:
            return
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            raise OptionError(f"threads must be a whole number or None, got {count!r}")
        if not 1 <= count <= MAX_THREADS:
            raise OptionError(f"threads must be 1 to {MAX_THREADS}, got {count}")

    @property
    def effective_threads(self) -> int:
        """The number of threads that will be used."""
        return default_threads() if self.threads is None else int(self.threads)


class Session(Closing):
    """One opened model. ``run`` may be called from several threads at once.

    Attributes:
        name: name of the model, used in messages.
        inputs: what ``run`` wants.
        outputs: what ``run`` returns.
    """

    def __init__(
        self, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._closed = False

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run the model once.

        Args:
            feeds: one array per input, with exactly its name, dtype and shape. Sizes that carry
                the same letter must agree.

        Returns:
            One writeable C-contiguous array per output, owned by the caller.

        Raises:
            BackendError: the feeds do not match the model, the runtime failed, the session is
                closed, or a float output holds NaN or infinity.
        """
        if self._closed:
            raise BackendError(f"model {self.name} is closed: load it again")
        found = _feed_problems(feeds, self.inputs)
        if found:
            raise BackendError(f"model {self.name} got wrong inputs: {'; '.join(found)}")
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        results = self._run(contiguous)
        return {spec.name: self._checked(spec, results) for spec in self.outputs}

    def _checked(self, spec: TensorSpec, results: Arrays) -> NDArray[Any]:
        array = results.get(spec.name)
        if array is None:
            raise BackendError(f"model {self.name} returned no {spec.name!r}")
        fixed = [size for size in spec.shape if isinstance(size, int)]
        got = [n for n, s in zip(array.shape, spec.shape, strict=False) if isinstance(s, int)]
        if array.dtype != np.dtype(spec.dtype) or array.ndim != len(spec.shape) or got != fixed:
            raise BackendError(
                f"model {self.name} returned {spec.name!r} as {array.dtype}{list(array.shape)}, "
                f"expected {spec}"
            )
        if array.dtype.kind == "f" and not _finite(array):
            raise BackendError(
                f"model {self.name} computed NaN or infinity in {spec.name!r}: the result is "
                "unusable; check the model with `samrt verify`, or use a higher precision"
            )
        owned = array.flags.owndata and array.flags.writeable and array.flags.c_contiguous
        return array if owned else np.array(array, order="C", copy=True)

    def retain(self, results: Arrays) -> None:
        """Hear that arrays of the last :meth:`run` are read-only now and will be used as inputs.

        A runtime with memory of its own may leave them there for the next session.
        """

    def close(self) -> None:
        """Free the model; closing twice is fine."""
        self._closed = True

    @abstractmethod
    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run the model on checked, contiguous arrays."""


def _finite(array: NDArray[Any]) -> bool:
    """No NaN, no infinity. A finite sum proves it; an infinite one may be mere overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):
            return True
    return bool(np.isfinite(array).all())


class Proof(ABC):
    """What is known of the accuracy of sessions that were compiled for one machine.

    The graphs they were compiled from have a record in the bundle's manifest; a compiler, a
    driver and a GPU can still spoil them, so compiled sessions have a record of their own.
    """

    @abstractmethod
    def record(self) -> Mapping[str, Any] | None:
        """The record of exactly these sessions on this machine; ``None`` if there is none."""

    @abstractmethod
    def store(self, record: Mapping[str, Any]) -> None:
        """Keep a record.

        Raises:
            OutputError: it cannot be written.
        """

    @abstractmethod
    def advice(self) -> str:
        """What to do where the sessions are wrong, in words."""


@dataclass(frozen=True, slots=True)
class FormChoice:
    """The forms of the graphs that are run.

    Attributes:
        artifacts: role -> the artifact in its form.
        requested: ``auto``, ``canonical`` or ``cpu``.
        reason: why these were taken.
    """

    artifacts: Mapping[str, Artifact]
    requested: str
    reason: str

    @property
    def form(self) -> str:
        """``cpu`` if a graph runs in its CPU form, else ``canonical``."""
        forms = {artifact.form for artifact in self.artifacts.values()}
        return "cpu" if "cpu" in forms else "canonical"


class Backend(ABC):
    """A way of running models; stateless, it only opens sessions."""

    name: str

    @abstractmethod
    def create(self, model: Path | bytes, options: SessionOptions) -> Session:
        """Open a model.

        Args:
            model: path of a model file or its content.
            options: threads and memory behaviour.

        Raises:
            BackendError: the runtime does not accept the model.
        """

    def open_artifact(self, bundle: Bundle, artifact: Artifact, options: SessionOptions) -> Session:
        """Open a model of a bundle; by default its model file with :meth:`create`.

        Raises:
            BackendError: the runtime does not accept the model.
        """
        return self.create(bundle.file_of(artifact), options)

    def choose_form(
        self, bundle: Bundle, chosen: Mapping[str, Artifact], options: SessionOptions
    ) -> FormChoice:
        """The forms of the graphs that this backend runs; by default the canonical ones.

        Args:
            bundle: the model.
            chosen: ``encoder`` and ``decoder`` -> the canonical artifact.
            options: ``form`` is what was asked for.

        Raises:
            OptionError: a form was asked for that this backend has not.
        """
        if options.form == "cpu":
            raise OptionError(
                f"the form 'cpu' is for the backend onnxruntime, {self.name} runs 'canonical'"
            )
        return FormChoice(chosen, options.form or "auto", f"{self.name} runs the canonical graphs")

    def proof(self, sessions: Mapping[str, Session]) -> Proof | None:
        """Where the record of these sessions of one model is kept (role -> session).

        ``None``: nothing was compiled ahead, the record of the graphs stands for them.
        """
        return None

    def device(self) -> str:
        """Where the sessions opened so far compute, in the runtime's own words."""
        return "CPU"

    @abstractmethod
    def version(self) -> str:
        """Version of the runtime behind this backend."""


def _feed_problems(feeds: Mapping[str, object], inputs: Sequence[TensorSpec]) -> list[str]:
    wanted = {spec.name: spec for spec in inputs}
    found = [f"{name!r} is missing" for name in wanted if name not in feeds]
    found += [f"{name!r} is not an input" for name in feeds if name not in wanted]
    sizes: dict[str, tuple[int, str]] = {}
    for name, spec in wanted.items():
        if name not in feeds:
            continue
        array = feeds[name]
        if not isinstance(array, np.ndarray):
            found.append(f"{name!r} is {type(array).__name__}, expected an array {spec}")
            continue
        got = f"{array.dtype}{list(array.shape)}"
        if array.dtype != np.dtype(spec.dtype) or array.ndim != len(spec.shape):
            found.append(f"{name!r} is {got}, expected {spec}")
            continue
        for have, want in zip(array.shape, spec.shape, strict=True):
            if isinstance(want, int) and have != want:
                found.append(f"{name!r} is {got}, expected {spec}")
                break
            if isinstance(want, str):
                first, owner = sizes.setdefault(want, (have, name))
                if first != have:
                    found.append(f"size {want} is {first} in {owner!r} and {have} in {name!r}")
                    break
    return found
