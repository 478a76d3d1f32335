"""TensorRT 10.3 to 11.x and TensorRT-RTX behind one door.

Both have nearly the same Python API. What differs is asked from the module itself (does the
attribute exist?), because version numbers of the two runtimes mean different things.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from samrt.errors import BackendError, BackendUnavailableError, OptionError

__all__ = ["RUNTIMES", "Api", "Capabilities", "dtype_name", "load_api", "make_api", "version_tuple"]

RUNTIMES = ("tensorrt", "tensorrt-rtx")

_MODULES = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_INSTALL = {
    "tensorrt": "pip install 'samrt[tensorrt]' (on a Jetson: apt install python3-libnvinfer)",
    "tensorrt-rtx": "pip install tensorrt_rtx_cu13_libs tensorrt_rtx_cu13_bindings",
}
_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 0)}
_FIRST_UNKNOWN = {"tensorrt": (12,), "tensorrt-rtx": (2,)}
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
_NEEDED = (
    "Builder", "Runtime", "OnnxParser", "ILogger", "BuilderFlag", "MemoryPoolType",
    "TensorIOMode", "DataType", "IExecutionContext", "IBuilderConfig",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runtime's module offers, read from its attributes.

    Attributes:
        network_flags: flags for ``create_network`` that make a strongly typed network.
        compute_capabilities: GPU generations that an engine can be built for without that GPU,
            such as ``sm86``; empty where engines are built for the GPU at hand.
        timing_cache: measured kernel times can be kept between builds.
        progress_monitor: a build reports its progress.
        engine_validity: an engine's bytes can be checked before they are loaded.
        runtime_config: the execution context takes a runtime configuration (CUDA graphs and
            kernel specialisation are then the runtime's business).
    """

    network_flags: int
    compute_capabilities: tuple[str, ...]
    timing_cache: bool
    progress_monitor: bool
    engine_validity: bool
    runtime_config: bool

    @property
    def builds_without_gpu(self) -> bool:
        """Whether an engine can be built on a machine without a GPU."""
        return bool(self.compute_capabilities)


@dataclass(frozen=True, slots=True)
class Api:
    """A loaded runtime.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        module: its Python module.
        version: its version as the module states it.
        capabilities: what it offers.
    """

    runtime: str
    module: Any
    version: str
    capabilities: Capabilities

    @property
    def title(self) -> str:
        """Name and version for messages."""
        return f"{_TITLES[self.runtime]} {self.version}"


def load_api(runtime: str, importer: Callable[[str], Any] = import_module) -> Api:
    """Import a runtime and look at what it offers.

    Args:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        importer: takes the name of a module and returns it or raises ``ImportError``.

    Raises:
        OptionError: unknown runtime.
        BackendUnavailableError: not installed, or its libraries cannot be loaded.
        BackendError: a version that this code was not written for.
    """
    if runtime not in RUNTIMES:
        raise OptionError(f"unknown runtime {runtime!r}: choose one of {', '.join(RUNTIMES)}")
    reasons = []
    for name in _MODULES[runtime]:
        try:
            module = importer(name)
        except (ImportError, OSError) as exc:  # OSError: a shared library is missing
            reasons.append(f"{name}: {' '.join(str(exc).split())}")
            continue
        return make_api(runtime, module)
    raise BackendUnavailableError(
        f"{_TITLES[runtime]} cannot be imported ({'; '.join(reasons)}): {_INSTALL[runtime]}"
    )


def make_api(runtime: str, module: Any) -> Api:
    """Check a runtime's module and describe it; see :func:`load_api`."""
    version = str(getattr(module, "__version__", "unknown"))
    title = f"{_TITLES[runtime]} {version}"
    number = version_tuple(version)
    oldest, unknown = _OLDEST[runtime], _FIRST_UNKNOWN[runtime]
    if number < oldest or number >= unknown:
        raise BackendError(
            f"{title} is not supported: samrt works with {_TITLES[runtime]} "
            f"{_dotted(oldest)} and newer, below {_dotted(unknown)}"
        )
    lacking = [name for name in _NEEDED if not hasattr(module, name)]
    if lacking:
        raise BackendError(
            f"{title} lacks {', '.join(lacking)}: install it again, or another version"
        )
    return Api(runtime, module, version, _capabilities(runtime, module, title))


def _capabilities(runtime: str, module: Any, title: str) -> Capabilities:
    config = module.IBuilderConfig
    compute: tuple[str, ...] = ()
    if hasattr(config, "set_compute_capability"):
        members = member_names(getattr(module, "ComputeCapability", None))
        compute = tuple(name.lower() for name in members if re.fullmatch(r"SM\d+", name))
    with warnings.catch_warnings():  # looking at an attribute is not using it
        warnings.simplefilter("ignore", DeprecationWarning)
        # TensorRT-RTX keeps the functions for old code, but they do nothing (since 1.2).
        cache = runtime == "tensorrt" and hasattr(config, "create_timing_cache")
    return Capabilities(
        network_flags=_strongly_typed(module, title),
        compute_capabilities=compute,
        timing_cache=cache,
        progress_monitor=hasattr(module, "IProgressMonitor")
        and hasattr(config, "progress_monitor"),
        engine_validity=hasattr(module.Runtime, "get_engine_validity"),
        runtime_config=hasattr(getattr(module, "ICudaEngine", None), "create_runtime_config"),
    )


def _strongly_typed(module: Any, title: str) -> int:
    """Flags of a strongly typed network; 0 where every network is one (no flag, no FP16 mode)."""
    creation = getattr(module, "NetworkDefinitionCreationFlag", None)
    if "STRONGLY_TYPED" in member_names(creation):
        return 1 << int(creation.STRONGLY_TYPED)  # type: ignore[union-attr]
    if "FP16" not in member_names(module.BuilderFlag):
        return 0
    raise BackendError(
        f"{title} has no strongly typed networks: it would choose precisions by itself; "
        "install TensorRT 10.3 or newer"
    )


def member_names(enum: Any) -> tuple[str, ...]:
    """Names of the members of a runtime's enumeration, in its order; empty for ``None``."""
    return tuple(getattr(enum, "__members__", ()))


def dtype_name(api: Api, dtype: Any) -> str:
    """NumPy name of a runtime's tensor type, such as ``float16``; else the runtime's name."""
    for name in member_names(api.module.DataType):
        if getattr(api.module.DataType, name) == dtype:
            return _DTYPES.get(name, name.lower())
    return str(dtype)


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.3.0.30"`` -> ``(10, 3, 0, 30)``; empty where it does not start with a number."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(str(number) for number in numbers)
