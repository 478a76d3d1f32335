"""Does TensorRT-RTX give the same bytes twice? Each option that might decide it, tried alone.

    python benchmarks/rtx_repeat.py [--role decoder] [--model tiny] [OPTION ...]

The FP32 graph of a bundle is built twice in one process with each option, and with all of them;
needs no GPU.  Prints how many bytes differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import difference
from samrt.bundle import Bundle, find_model

Setting = Callable[[Any, Any, Any], None]


def flag(name: str) -> Setting:
    """A flag of the builder's configuration."""

    def use(trt: Any, builder: Any, config: Any) -> None:
        config.set_flag(getattr(trt.BuilderFlag, name))

    return use


def attribute(name: str, value: int) -> Setting:
    """An attribute of the configuration."""

    def use(trt: Any, builder: Any, config: Any) -> None:
        setattr(config, name, value)

    return use


def one_thread(trt: Any, builder: Any, config: Any) -> None:
    """The builder's own threads."""
    builder.max_threads = 1


def plain(trt: Any, builder: Any, config: Any) -> None:
    """Nothing."""


def no_words(trt: Any, builder: Any, config: Any) -> None:
    """No names of layers in the engine."""
    config.profiling_verbosity = trt.ProfilingVerbosity.NONE


def timing_cache(trt: Any, builder: Any, config: Any) -> None:
    """An empty cache of kernels' times."""
    config.set_timing_cache(config.create_timing_cache(b""), True)


OPTIONS: dict[str, Setting] = {
    "none": plain,
    "max_threads=1": one_thread,
    "profiling_verbosity=NONE": no_words,
    "timing cache": timing_cache,
    "max_aux_streams=0": attribute("max_aux_streams", 0),
    "max_num_tactics=1": attribute("max_num_tactics", 1),
    "builder_optimization_level=0": attribute("builder_optimization_level", 0),
    "DISABLE_TIMING_CACHE": flag("DISABLE_TIMING_CACHE"),
    "DISABLE_COMPILATION_CACHE": flag("DISABLE_COMPILATION_CACHE"),
    "DISTRIBUTIVE_INDEPENDENCE": flag("DISTRIBUTIVE_INDEPENDENCE"),
}


def built(path: Path, settings: list[Setting], most: int) -> bytes:
    """An engine for 1 to `most` prompts of 1 to `most` rows."""
    import tensorrt_rtx_bindings as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise SystemExit(f"{path.name}: {parser.get_error(0).desc()}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        sizes = [[d if d >= 0 else free for d in tensor.shape] for free in (1, 1, most)]
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)
    for use in settings:
        use(trt, builder, config)
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise SystemExit(f"{path.name}: the builder refuses this option")
    return bytes(content)


def main() -> int:
    """Build and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("options", nargs="*", metavar="OPTION", help=", ".join(OPTIONS))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--role", default="decoder", choices=("encoder", "decoder"))
    parser.add_argument("--most", type=int, default=16, help="prompts, and rows of a prompt (16)")
    args = parser.parse_args()
    unknown = [name for name in args.options if name not in OPTIONS]
    if unknown:
        parser.error(f"no option {unknown[0]!r}: choose of {', '.join(OPTIONS)}")
    bundle = Bundle.open(find_model(args.model))
    path = bundle.file_of(bundle.artifact(args.role, "fp32"))
    jobs = {name: [OPTIONS[name]] for name in args.options or OPTIONS}
    if not args.options:
        jobs["all of them"] = list(OPTIONS.values())
    for name, settings in jobs.items():
        first, second = (built(path, settings, args.most) for _ in range(2))
        print(f"{name}: {difference(first, second)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
