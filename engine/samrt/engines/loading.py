"""From an engine's bytes to an execution context, checked against its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.engines.api import Api, dtype_name
from samrt.engines.jit import JitCache, attach_jit_cache
from samrt.engines.messages import BuildLog, make_logger
from samrt.engines.record import EngineRecord
from samrt.errors import BackendError

__all__ = ["LoadedEngine", "load_engine"]


@dataclass(slots=True)
class LoadedEngine:
    """A runtime's objects for one engine; they live and die together.

    Attributes:
        label: name for messages.
        api: the runtime.
        context: the execution context.
        log: what the runtime complains about.
        handles_graphs: the runtime makes CUDA graphs by itself.
        jit: kernels that the runtime compiles by itself, if it does.
        kept: what the context depends on, in the order of creation.
    """

    label: str
    api: Api
    context: Any
    log: BuildLog
    handles_graphs: bool
    jit: JitCache | None
    kept: tuple[Any, ...]


def load_engine(
    api: Api,
    path: Path,
    record: EngineRecord,
    label: str,
    *,
    cuda_graph: bool = False,
    jit_file: Path | None = None,
) -> LoadedEngine:
    """Load an engine that :class:`samrt.engines.cache.EngineCache` has checked.

    Args:
        api: the runtime.
        path: the engine file.
        record: its manifest.
        label: name for messages.
        cuda_graph: let a runtime that makes CUDA graphs by itself do so.
        jit_file: where to keep kernels that the runtime compiles by itself.

    Raises:
        BackendError: the runtime refuses it, or its tensors are not those of its manifest.
    """
    trt, log = api.module, BuildLog()
    logger = make_logger(api, log)
    runtime = trt.Runtime(logger)
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = False  # engines are data for the GPU, nothing more
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise BackendError(f"engine {path} cannot be read: {exc.strerror or exc}") from exc
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise BackendError(
            f"{api.title} refuses the engine of {label}{_diagnosis(api, runtime, content)}: "
            f"{log.reason()}; build it again with samrt build --force"
        )
    _check_tensors(api, engine, record, label)
    context, handles, jit = _context(api, engine, cuda_graph, jit_file)
    if context is None:
        raise BackendError(
            f"{api.title} cannot make a context for the engine of {label}: {log.reason()}"
        )
    return LoadedEngine(label, api, context, log, handles, jit, (logger, runtime, engine))


def _diagnosis(api: Api, runtime: Any, content: bytes) -> str:
    if not api.capabilities.engine_validity:
        return ""
    validity, reasons = runtime.get_engine_validity(content)
    return f" (validity {getattr(validity, 'name', validity)}, diagnostics {int(reasons)})"


def _context(
    api: Api, engine: Any, cuda_graph: bool, jit_file: Path | None
) -> tuple[Any, bool, JitCache | None]:
    """An execution context, whether the runtime makes CUDA graphs by itself, and its kernels.

    TensorRT-RTX compiles kernels for new shapes when it meets them. They are compiled at once and
    not in the background, so that a run's time does not change later.
    """
    if not api.capabilities.runtime_config:
        return engine.create_execution_context(), False, None
    trt, config = api.module, engine.create_runtime_config()
    specialization = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if specialization is not None:
        config.dynamic_shapes_kernel_specialization_strategy = specialization.EAGER
    strategy = getattr(trt, "CudaGraphStrategy", None)
    if cuda_graph and strategy is not None:
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
    jit = None if jit_file is None else attach_jit_cache(config, jit_file)
    return engine.create_execution_context(config), strategy is not None, jit


def _check_tensors(api: Api, engine: Any, record: EngineRecord, label: str) -> None:
    mode = api.module.TensorIOMode
    real = {}
    for index in range(engine.num_io_tensors):
        name = str(engine.get_tensor_name(index))
        side = "input" if engine.get_tensor_mode(name) == mode.INPUT else "output"
        dtype = dtype_name(api, engine.get_tensor_dtype(name))
        real[name] = (side, dtype, tuple(int(n) for n in engine.get_tensor_shape(name)))
    found = []
    for side, specs in (("input", record.inputs), ("output", record.outputs)):
        for spec in specs:
            have = real.pop(spec.name, None)
            if have is None:
                found.append(f"{side} {spec.name!r} is missing")
            elif (have[0], have[1]) != (side, spec.dtype) or not _fits(have[2], spec.shape):
                found.append(f"{side} {spec} is an {have[0]} {have[1]}{list(have[2])}")
    found += [f"{have[0]} {name!r} is not in its manifest" for name, have in real.items()]
    if found:
        raise BackendError(
            f"the engine of {label} differs from its manifest: {'; '.join(found)}; build it again "
            "with samrt build --force"
        )


def _fits(real: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(real) == len(wanted) and all(
        isinstance(want, str) or have in (want, -1) for have, want in zip(real, wanted, strict=True)
    )
