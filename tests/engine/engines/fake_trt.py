"""A module with TensorRT's API that runs ONNX files of the test bundle with ONNX Runtime.

Loaded by path from ``conftest.py``: it "compiles" a file into a few bytes of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort


class _Dtype(IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BF16 = 4


_NAMES = {"float32": _Dtype.FLOAT, "float16": _Dtype.HALF, "int32": _Dtype.INT32}


@dataclass
class Script:
    """What the fake runtime does wrong, and what was asked of it."""

    files: dict[str, tuple[list[Any], list[Any], Path]] = field(default_factory=dict)
    parse_errors: list[tuple[str, str, str]] = field(default_factory=list)
    complaints: list[tuple[int, str]] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    steps: int = 2
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    ranges: dict[str, Any] = field(default_factory=dict)
    spoil: dict[str, Callable[[Any], Any]] = field(default_factory=dict)  # output -> what it does
    memory: Any = None

    def asked(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


class _RuntimeConfig:
    """RTX's configuration of a context, with its cache of compiled kernels."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def create_runtime_cache(self) -> Any:
        return None if "no jit" in self.script.refuse else _Kernels(self.script)

    def set_runtime_cache(self, cache: Any) -> bool:
        return "jit" not in self.script.refuse


class _Kernels:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.content = b"compiled"

    def deserialize(self, content: bytes) -> bool:
        self.script.calls.append(("kernels", content))
        return "kernels" not in self.script.refuse

    def serialize(self) -> bytes:
        return self.content


def make_module(script: Script, *, kind: str) -> Any:
    """A module with the API of TensorRT 10.3 (``"10"``), 11 (``"11"``) or RTX (``"rtx"``)."""
    trt = SimpleNamespace(
        DataType=_Dtype, TensorIOMode=IntEnum("TensorIOMode", "NONE INPUT OUTPUT")
    )
    trt.__version__ = {"10": "10.3.0.30", "11": "11.4.1.3", "rtx": "1.7.1.116"}[kind]
    flags = "TF32 ERROR_ON_TIMING_CACHE_MISS" + (" FP16 INT8" if kind == "10" else "")
    trt.BuilderFlag = IntEnum("BuilderFlag", flags)
    trt.MemoryPoolType = IntEnum("MemoryPoolType", "WORKSPACE")
    if kind != "11":
        trt.NetworkDefinitionCreationFlag = IntEnum("Creation", {"STRONGLY_TYPED": 1})
    call = script.calls.append

    class ILogger:
        def __init__(self) -> None:
            self.ready = True

    class IProgressMonitor:
        def __init__(self) -> None:
            self.ready = True

    class Network:
        num_layers = 3

        def __init__(self) -> None:
            self.inputs: list[Any] = []
            self.outputs: list[Any] = []
            self.file = ""

        num_inputs = property(lambda self: len(self.inputs))
        num_outputs = property(lambda self: len(self.outputs))

        def get_input(self, index: int) -> Any:
            return self.inputs[index]

        def get_output(self, index: int) -> Any:
            return self.outputs[index]

    def tensor(spec: Any) -> Any:
        shape = tuple(size if isinstance(size, int) else -1 for size in spec.shape)
        return SimpleNamespace(name=spec.name, dtype=_NAMES[spec.dtype], shape=shape)

    class Profile:
        def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
            if "set_shape" in script.refuse:
                raise ValueError("shapes are inconsistent")
            script.ranges[name] = (tuple(low), tuple(best), tuple(high))

    class IBuilderConfig:
        progress_monitor: Any = None
        builder_optimization_level = 3
        num_compute_capabilities = 0

        def __init__(self) -> None:
            self.limit = 1 << 40
            self.cache: Any = None

        def set_flag(self, flag: Any) -> None:
            call(("set_flag", flag.name))

        def clear_flag(self, flag: Any) -> None:
            call(("clear_flag", flag.name))

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self.limit = size if "workspace" not in script.refuse else 17

        def get_memory_pool_limit(self, pool: Any) -> int:
            return self.limit

        def add_optimization_profile(self, profile: Any) -> int:
            return -1 if "profile" in script.refuse else 0

        def create_timing_cache(self, content: bytes) -> Any:
            call(("create_timing_cache", content))
            return SimpleNamespace(serialize=lambda: b"times:" + content)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            return "timing_cache" not in script.refuse

    if kind == "rtx":
        trt.ComputeCapability = IntEnum("ComputeCapability", "NONE CURRENT SM86 SM89")

        def set_compute_capability(self: Any, value: Any, index: int) -> bool:
            assert index < self.num_compute_capabilities
            call(("target", value.name, index))
            return "target" not in script.refuse

        IBuilderConfig.set_compute_capability = set_compute_capability  # type: ignore[attr-defined]

    class Builder:
        def __init__(self, logger: Any) -> None:
            assert logger.ready
            self.logger = logger

        def create_network(self, flags: int) -> Any:
            call(("create_network", flags))
            return None if "network" in script.refuse else Network()

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return Profile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            for rank, text in script.complaints:
                self.logger.log(rank, text)
            if config.progress_monitor is not None:
                config.progress_monitor.phase_start("Building", None, script.steps)
                for step in range(script.steps):
                    if not config.progress_monitor.step_complete("Building", step):
                        return None
                config.progress_monitor.phase_finish("Building")
            call(("level", config.builder_optimization_level))
            if "build" in script.refuse:
                return None
            return b"" if "empty" in script.refuse else json.dumps({"file": network.file}).encode()

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self.network = network

        num_errors = property(lambda self: len(script.parse_errors))

        def parse_from_file(self, path: str) -> bool:
            if script.parse_errors:
                return False
            inputs, outputs, _ = script.files[Path(path).name]
            self.network.inputs = [tensor(spec) for spec in inputs]
            self.network.outputs = [tensor(spec) for spec in outputs]
            self.network.file = Path(path).name
            return True

        def get_error(self, index: int) -> Any:
            text, node, operator = script.parse_errors[index]
            return SimpleNamespace(
                desc=lambda: text, node_name=lambda: node, node_operator=lambda: operator
            )

    class IExecutionContext:
        def __init__(self, inputs: list[Any], outputs: list[Any], path: Path) -> None:
            self.specs = {spec.name: spec for spec in (*inputs, *outputs)}
            self.outputs = [spec.name for spec in outputs]
            self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self.shapes[name] = tuple(shape)
            return f"shape {name}" not in script.refuse

        def infer_shapes(self) -> list[str]:
            return ["mask_input"] if "infer" in script.refuse else []

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            sizes: dict[Any, int] = {}
            for given, shape in self.shapes.items():
                sizes.update(zip(self.specs[given].shape, shape, strict=True))
            return tuple(
                s if isinstance(s, int) else sizes.get(s, -1) for s in self.specs[name].shape
            )

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert isinstance(address, int)
            self.addresses[name] = address
            return f"address {name}" not in script.refuse

        def execute_async_v3(self, stream_handle: int) -> bool:
            memory = script.memory
            assert memory is not None
            assert stream_handle in memory.streams
            if "execute" in script.refuse:
                return False
            at, shapes = dict(self.addresses), dict(self.shapes)

            def work() -> None:
                feeds = {}
                for name, shape in shapes.items():
                    dtype = np.dtype(self.specs[name].dtype)
                    raw = memory.blocks[at[name]][: int(np.prod(shape)) * dtype.itemsize]
                    feeds[name] = raw.view(dtype).reshape(shape).copy()
                results = self.session.run(self.outputs, feeds)
                for name, value in zip(self.outputs, results, strict=True):
                    value = script.spoil.get(name, lambda value: value)(value)
                    raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
                    memory.blocks[at[name]][: raw.size] = raw

            memory.enqueue(work)
            return True

    class ICudaEngine:
        def __init__(self, file: str) -> None:
            self.inputs, self.outputs, self.path = script.files[file]
            self.all = [*self.inputs, *self.outputs]

        num_io_tensors = property(lambda self: len(self.all))

        def get_tensor_name(self, index: int) -> str:
            return str(self.all[index].name)

        def _spec(self, name: str) -> Any:
            return next(spec for spec in self.all if spec.name == name)

        def get_tensor_mode(self, name: str) -> Any:
            known = self._spec(name) in self.inputs
            return trt.TensorIOMode.INPUT if known else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return _NAMES[self._spec(name).dtype]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            shape: tuple[int, ...] = tensor(self._spec(name)).shape
            return shape

        def create_execution_context(self, config: Any = None) -> Any:
            call(("context", config))
            if "context" in script.refuse:
                return None
            return IExecutionContext(self.inputs, self.outputs, self.path)

    class Runtime:
        engine_host_code_allowed = True

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            assert self.engine_host_code_allowed is False
            if "deserialize" in script.refuse:
                self.logger.log(1, "Serialization assertion failed")
                return None
            return ICudaEngine(json.loads(content)["file"])

    if kind == "rtx":
        trt.CudaGraphStrategy = IntEnum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
        trt.DynamicShapesKernelSpecializationStrategy = IntEnum("Kernels", "LAZY EAGER NONE")
        ICudaEngine.create_runtime_config = lambda self: _RuntimeConfig(script)  # type: ignore[attr-defined]
        Runtime.get_engine_validity = lambda self, content: (2, 32)  # type: ignore[attr-defined]
    for item in (
        ILogger, IProgressMonitor, IBuilderConfig, Builder, OnnxParser, IExecutionContext,
        ICudaEngine, Runtime,
    ):  # fmt: skip
        setattr(trt, item.__name__, item)
    return trt
