"""Does TensorRT-RTX give the same bytes twice? What has to be the same for that.

    python benchmarks/rtx_repeat.py [--model tiny] [--role decoder] [--precision fp32] [--times 3]

One graph of a bundle is built several times in each of four ways; needs no GPU:

- one process: samrt's own process, one build after the other;
- new processes: a new one for each build, all started in the same way;
- not randomised: the same without address-space randomisation (`setarch -R`);
- as samrt builds: new processes in which memory is given out at the same addresses
  (`samrt.engines.addresses`), each started in another way: other environment, other folder.

Prints how the engines differ from the first one, and the median of the seconds of a build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from machine import difference
from samrt.bundle import Bundle, find_model
from samrt.engines.apart import build_apart
from samrt.engines.api import load_api
from samrt.engines.builder import BuiltEngine, build_engine
from samrt.engines.options import BuildOptions

Way = Callable[[Path, int], bytes]


def built(
    bundle: Bundle, role: str, precision: str, builder: Callable[..., BuiltEngine]
) -> BuiltEngine:
    """One engine of the model for 1 to 16 prompts of 1 to 16 rows."""
    artifact = bundle.artifact(role, precision)
    path, api = bundle.file_of(artifact), load_api("tensorrt-rtx")
    return builder(api, path, artifact.inputs, artifact.outputs, BuildOptions())


def ways(args: argparse.Namespace) -> dict[str, Way]:
    """What is tried: name -> what takes a folder and the number of the build, and builds."""
    bundle = Bundle.open(find_model(args.model))

    def here(folder: Path, number: int) -> bytes:
        return built(bundle, args.role, args.precision, build_engine).content

    def process(folder: Path, number: int, *before: str) -> bytes:
        target = folder / "engine"
        words = ["--model", args.model, "--role", args.role, "--precision", args.precision]
        command = [*before, sys.executable, __file__, *words, "--once", str(target)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        return target.read_bytes()

    def fixed(folder: Path, number: int) -> bytes:
        os.environ["SAMRT_REPEAT"] = "x" * 3000 * number
        copy = folder / ("x" * 50 * (number + 1))
        shutil.copytree(bundle.path, copy)
        found = built(Bundle.open(copy), args.role, args.precision, build_apart)
        if found.varying is not None:
            print(f"  not fixed: {found.varying}", flush=True)
        return found.content

    found: dict[str, Way] = {"one process": here, "new processes": process}
    if shutil.which("setarch"):
        found["not randomised"] = lambda folder, number: process(folder, number, "setarch", "-R")
    return {**found, "as samrt builds": fixed}


def main() -> int:
    """Build and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--role", default="decoder", choices=("encoder", "decoder"))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--times", type=int, default=3, help="builds in each way (3)")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        bundle = Bundle.open(find_model(args.model))
        args.once.write_bytes(built(bundle, args.role, args.precision, build_engine).content)
        return 0
    for name, way in ways(args).items():
        contents, seconds = [], []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(args.times):
                start = time.perf_counter()
                contents.append(way(Path(folder), number))
                seconds.append(time.perf_counter() - start)
        found = "; ".join(difference(contents[0], other) for other in contents[1:])
        print(f"{name}: {found} ({median(seconds):.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
