"""The ONNX Runtime backend: CPU execution provider, one process-wide quiet logger."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from samrt.backends.base import (
    Arrays,
    Backend,
    FormChoice,
    Session,
    SessionOptions,
    TensorSpec,
    quoted,
)
from samrt.backends.operators import VARIABLE, choose_form, library_path
from samrt.backends.placement import Crew, hire
from samrt.environment import cpu_info
from samrt.errors import BackendError

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.manifest import Artifact

__all__ = ["OnnxRuntimeBackend", "registration_problem"]

_PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS_ONLY = 3
_NO_INTEGERS = "session.disable_quant_qdq"  # without integer kernels constants are folded
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}


def registration_problem(library: str) -> str | None:
    """Why ONNX Runtime does not load a library of operators, in words; ``None`` if it does."""
    try:
        ort.SessionOptions().register_custom_ops_library(library)
    except Exception as exc:
        name = Path(library).name
        return f"ONNX Runtime {ort.__version__} does not load the library {name}: {quoted(exc)}"
    return None


class OnnxRuntimeBackend(Backend):
    """Runs ONNX files on the CPU with ONNX Runtime."""

    name = "onnxruntime"

    def create(self, model: Path | bytes, options: SessionOptions) -> Session:
        """Open an ONNX model; see :meth:`samrt.backends.base.Backend.create`.

        Operators run one after the other, each on up to ``options.threads`` threads.
        """
        return self._open(model, options, {})

    def _open(
        self,
        model: Path | bytes,
        options: SessionOptions,
        extra: Mapping[str, str],
        operators: Path | None = None,
    ) -> Session:
        label = model.name if isinstance(model, Path) else "from memory"
        native = _native_options(options)
        for key, value in extra.items():
            native.add_session_config_entry(key, value)
        source = str(model) if isinstance(model, Path) else model
        try:
            crew = hire(native)
            if operators is not None and crew is None:
                native.register_custom_ops_library(str(operators))
            session = ort.InferenceSession(source, sess_options=native, providers=[_PROVIDER])
        except Exception as exc:
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot open model {label}: {quoted(exc)}"
            ) from exc
        if session.get_providers() != [_PROVIDER]:
            raise BackendError(
                f"model {label}: ONNX Runtime chose {session.get_providers()} "
                f"although {_PROVIDER} was asked for"
            )
        if crew is not None:
            crew.serves(session)
        return _OrtSession(label, session, crew)

    def open_artifact(self, bundle: Bundle, artifact: Artifact, options: SessionOptions) -> Session:
        """Open a model of a bundle; int8 weights for float32 arithmetic are expanded once here."""
        extra = {_NO_INTEGERS: "1"} if artifact.precision == "int8-weights" else {}
        library = None if artifact.operators is None else library_path()
        try:
            return self._open(bundle.file_of(artifact), options, extra, library)
        except BackendError as exc:
            if artifact.operators is None:
                raise
            raise BackendError(
                f"{exc}; {VARIABLE}=canonical runs the graph that needs no operators"
            ) from exc

    def choose_form(
        self, bundle: Bundle, chosen: Mapping[str, Artifact], options: SessionOptions
    ) -> FormChoice:
        """The CPU form where it can be run; see :func:`samrt.backends.operators.choose_form`."""
        return choose_form(bundle, chosen, options.form)

    def version(self) -> str:
        """Version of the installed ONNX Runtime."""
        return str(ort.__version__)


class _OrtSession(Session):
    def __init__(self, label: str, session: ort.InferenceSession, crew: Crew | None) -> None:
        super().__init__(
            label,
            [_spec(item) for item in session.get_inputs()],
            [_spec(item) for item in session.get_outputs()],
        )
        self._names = [spec.name for spec in self.outputs]
        self._session: ort.InferenceSession | None = session
        self._crew = crew

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        session = self._session
        if session is None:
            raise BackendError(f"model {self.name} is closed: load it again")
        if self._crew is not None:
            self._crew.step_aside()
        try:
            results = session.run(self._names, dict(feeds))
        except Exception as exc:
            raise BackendError(f"model {self.name} failed while running: {quoted(exc)}") from exc
        return {n: np.asarray(a) for n, a in zip(self._names, results, strict=True)}

    def close(self) -> None:
        super().close()
        self._session = None


def _native_options(options: SessionOptions) -> ort.SessionOptions:
    native = ort.SessionOptions()
    native.intra_op_num_threads = options.effective_threads
    native.inter_op_num_threads = 1
    native.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    native.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    native.enable_cpu_mem_arena = bool(options.arena)
    native.enable_mem_pattern = bool(options.arena)
    native.log_severity_level = _LOG_ERRORS_ONLY
    spin = "1" if options.spinning else "0"
    native.add_session_config_entry("session.intra_op.allow_spinning", spin)
    native.add_session_config_entry("session.inter_op.allow_spinning", spin)
    native.add_session_config_entry("session.force_spinning_stop", "1")
    if not _sums_eight_bit_products_exactly():
        native.add_session_config_entry("session.x64quantprecision", "1")
    return native


def _sums_eight_bit_products_exactly() -> bool:
    """Whether products of unsigned and signed bytes cannot saturate on this processor.

    x86 without VNNI adds pairs of them in 16 bits (VPMADDUBSW), which 255 times 127 twice exceeds.
    ONNX Runtime then has to make the weights of int8 models unsigned too, which is slower.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return True
    return bool({"avx512_vnni", "avx_vnni"} & set(cpu_info()["flags"]))


def _spec(item: Any) -> TensorSpec:
    shape = tuple(
        size if isinstance(size, int) else str(size or f"free{axis}_{item.name}")
        for axis, size in enumerate(item.shape)
    )
    return TensorSpec(item.name, _DTYPES.get(item.type, item.type), shape)
