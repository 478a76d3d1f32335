"""One ONNX file becomes one engine; every answer of the runtime is looked at.

The graph carries its precision (FP16 casts, Q/DQ), so the network is strongly typed and no
precision flag is ever set: the same file builds with TensorRT 10, 11 and TensorRT-RTX.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from samrt.engines.api import Api, dtype_name, member_names
from samrt.engines.messages import BuildLog, Cancelled, Progress, make_logger, make_monitor
from samrt.engines.options import BuildOptions, ShapeRange, shape_ranges
from samrt.errors import BackendError, OptionError
from samrt.manifest import TensorSpec

__all__ = ["BuiltEngine", "build_engine", "check_options"]

_MOST_ERRORS = 5


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine in memory and what is worth knowing about its build.

    Attributes:
        content: the engine's bytes.
        seconds: time of parsing and building.
        layers: layers of the parsed network.
        ranges: name of each input with free sizes -> sizes the engine takes.
        warnings: what the runtime warned of, each text once.
        timing_cache: content of the timing cache after the build; ``None`` without one.
        varying: why the same build may give other bytes next time; ``None`` where everything
            known to change them was fixed, see :mod:`samrt.engines.addresses`.
    """

    content: bytes
    seconds: float
    layers: int
    ranges: Mapping[str, ShapeRange]
    warnings: tuple[str, ...] = ()
    timing_cache: bytes | None = field(default=None, repr=False)
    varying: str | None = "built in samrt's own process, whose memory is laid out anew each time"


def check_options(api: Api, options: BuildOptions) -> None:
    """Refuse, before any work, what the runtime does not offer.

    Raises:
        OptionError: targets or a timing cache for a runtime without them, an unknown target.
    """
    offered = api.capabilities.compute_capabilities
    unknown = [name for name in options.targets if name not in offered]
    if unknown and not offered:
        raise OptionError(
            f"{api.title} builds for the GPU of this machine only: leave --target out, or build "
            "on the target machine"
        )
    if unknown:
        raise OptionError(
            f"{api.title} cannot build for {', '.join(unknown)}: choose from {', '.join(offered)}"
        )
    if options.timing_cache is not None and not api.capabilities.timing_cache:
        raise OptionError(f"{api.title} has no timing cache: leave --timing-cache out")


def build_engine(
    api: Api,
    model: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    options: BuildOptions,
    *,
    progress: Progress | None = None,
    timing_cache: bytes | None = None,
    every_seconds: float | None = None,
) -> BuiltEngine:
    """Compile an ONNX file in this process.

    Args:
        api: the runtime.
        model: the ONNX file; data files lie where it expects them.
        inputs: what the manifest says of its inputs; free sizes are ``N`` and ``P``.
        outputs: likewise of its outputs.
        options: what to build for.
        progress: called with the name of a phase and its fraction done.
        timing_cache: content of an earlier timing cache; needed only with
            ``options.timing_cache``.
        every_seconds: how often ``progress`` is called at most; ``None``: each 0.2 s.

    Raises:
        OptionError: the runtime does not offer what ``options`` ask for.
        BackendError: the runtime does not accept the file; the message names the node.
        KeyboardInterrupt: the user interrupted a build with ``progress``.
    """
    check_options(api, options)
    start = perf_counter()
    job = _Job(api, model)
    network = job.parse()
    job.check_tensors(network, inputs, outputs)
    config = job.configure(options)
    ranges = shape_ranges(inputs, options)
    if ranges:
        job.add_profile(config, ranges)
    cache = job.attach_timing_cache(config, options, timing_cache or b"")
    content = job.build(network, config, progress, every_seconds)
    return BuiltEngine(
        content=content,
        seconds=perf_counter() - start,
        layers=int(network.num_layers),
        ranges=ranges,
        warnings=tuple(dict.fromkeys(job.log.warnings)),
        timing_cache=None if cache is None else bytes(cache.serialize()),
    )


class _Job:
    """One build: the runtime's objects and its log. Keeps alive what native code points to."""

    def __init__(self, api: Api, model: Path) -> None:
        self.api = api
        self.model = model
        self.log = BuildLog()
        self._trt = api.module
        self._logger = make_logger(api, self.log)
        self._builder = self._trt.Builder(self._logger)
        self._kept: list[Any] = []

    def fail(self, what: str) -> BackendError:
        """An error with the runtime's own reasons."""
        return BackendError(f"{self.api.title} {what} {self.model.name}: {self.log.reason()}")

    def parse(self) -> Any:
        """Read the file into a strongly typed network."""
        if not self.model.is_file():
            raise BackendError(f"{self.model} is missing: the bundle is damaged")
        network = self._builder.create_network(self.api.capabilities.network_flags)
        if network is None:
            raise self.fail("cannot create a network for")
        parser = self._trt.OnnxParser(network, self._logger)
        self._kept += [network, parser]
        # From a path, so that the parser finds external weights beside the file.
        parsed = parser.parse_from_file(str(self.model))
        found = [_node_error(parser.get_error(i)) for i in range(parser.num_errors)]
        if not parsed or found:
            shown = "; ".join(dict.fromkeys(found[:_MOST_ERRORS])) or self.log.reason()
            more = f" and {len(found) - _MOST_ERRORS} more" if len(found) > _MOST_ERRORS else ""
            raise BackendError(
                f"{self.api.title} cannot read {self.model.name}: {shown}{more}; "
                "export the model again, or use another runtime"
            )
        return network

    def check_tensors(
        self, network: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        """Refuse a network whose inputs and outputs are not those of the manifest."""
        found = []
        for side, wanted, count, get in (
            ("input", inputs, network.num_inputs, network.get_input),
            ("output", outputs, network.num_outputs, network.get_output),
        ):
            real = {str(t.name): t for t in (get(i) for i in range(count))}
            named = {spec.name for spec in wanted}
            found += [
                f"{side} {name!r} is not in the manifest" for name in real if name not in named
            ]
            for spec in wanted:
                if spec.name not in real:
                    found.append(f"{side} {spec.name!r} is not in the file")
                    continue
                tensor = real[spec.name]
                dtype, shape = dtype_name(self.api, tensor.dtype), tuple(tensor.shape)
                loose = side == "output"
                if dtype != spec.dtype or not _same_sizes(shape, spec.shape, loose=loose):
                    found.append(f"{side} {spec} is {dtype}{list(shape)} in the file")
        if found:
            raise BackendError(
                f"{self.model.name} differs from its manifest: {'; '.join(found)}; export it again"
            )

    def configure(self, options: BuildOptions) -> Any:
        """The builder's configuration; what was set is read back."""
        trt, config = self._trt, self._builder.create_builder_config()
        if config is None:
            raise self.fail("cannot create a configuration for")
        self._kept.append(config)
        if "TF32" in member_names(trt.BuilderFlag):
            (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
        if options.workspace_bytes is not None:
            pool = trt.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, options.workspace_bytes)
            got = int(config.get_memory_pool_limit(pool))
            if got != options.workspace_bytes:
                raise self.fail(
                    f"set the workspace to {got} bytes instead of {options.workspace_bytes} for"
                )
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.targets:
            config.num_compute_capabilities = len(options.targets)
            for index, name in enumerate(options.targets):
                value = getattr(trt.ComputeCapability, name.upper())
                if not config.set_compute_capability(value, index):
                    raise self.fail(f"did not take the target {name} for")
        return config

    def add_profile(self, config: Any, ranges: Mapping[str, ShapeRange]) -> None:
        """One optimisation profile with all free sizes."""
        profile = self._builder.create_optimization_profile()
        if profile is None:
            raise self.fail("cannot create an optimisation profile for")
        self._kept.append(profile)
        for name, sizes in ranges.items():
            try:
                profile.set_shape(name, sizes.smallest, sizes.best, sizes.largest)
            except (ValueError, RuntimeError) as exc:
                raise self.fail(f"did not take sizes of {name!r} ({exc}) in") from exc
        if config.add_optimization_profile(profile) < 0:
            sizes_text = ", ".join(
                f"{name} {list(s.smallest)} to {list(s.largest)}" for name, s in ranges.items()
            )
            raise self.fail(f"did not take the sizes {sizes_text} for")

    def attach_timing_cache(self, config: Any, options: BuildOptions, content: bytes) -> Any:
        """The timing cache in use, or ``None`` where none was asked for."""
        if options.timing_cache is None:
            return None
        trt = self._trt
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            cache = config.create_timing_cache(content)
            attached = cache is not None and config.set_timing_cache(cache, False)
        if not attached:
            raise self.fail(
                f"refused the timing cache {options.timing_cache} (it belongs to another GPU or "
                "version; remove it) for"
            )
        self._kept.append(cache)
        if options.repeatable:
            name = "ERROR_ON_TIMING_CACHE_MISS"
            if name not in member_names(trt.BuilderFlag):
                raise OptionError(
                    f"{self.api.title} has no repeatable builds: leave the option out"
                )
            config.set_flag(getattr(trt.BuilderFlag, name))
        return cache

    def build(
        self, network: Any, config: Any, progress: Progress | None, every_seconds: float | None
    ) -> bytes:
        """Compile; an interruption of the user ends it between two steps."""
        cancelled = Cancelled()
        if progress is not None and self.api.capabilities.progress_monitor:
            monitor = make_monitor(self.api, progress, cancelled, every_seconds)
            self._kept.append(monitor)
            config.progress_monitor = monitor
        built = self._builder.build_serialized_network(network, config)
        if cancelled.asked:
            raise KeyboardInterrupt
        if built is None:
            raise self.fail("cannot build an engine from")
        content = bytes(built)
        if not content:
            raise self.fail("built an empty engine from")
        return content


def _node_error(error: Any) -> str:
    """A parser's error with the node it is about."""
    text = " ".join(str(error.desc()).split())
    name = str(_asked(error, "node_name"))
    operator = str(_asked(error, "node_operator"))
    where = f"node {name!r}" if name else ""
    where += f" ({operator})" if operator else ""
    return f"{where.strip()}: {text}" if where else text


def _asked(error: Any, method: str) -> Any:
    return getattr(error, method)() if hasattr(error, method) else ""


def _same_sizes(real: Sequence[int], wanted: Sequence[int | str], *, loose: bool) -> bool:
    """Fixed sizes agree; free ones are free (-1), or with ``loose`` worked out by the runtime."""
    return len(real) == len(wanted) and all(
        have == want if isinstance(want, int) else loose or have == -1
        for have, want in zip(real, wanted, strict=True)
    )
