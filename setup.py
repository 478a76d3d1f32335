"""Build of the C++ extension ``samrt._native``; everything else is in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup

ROOT = Path(__file__).parent
CPP = Path("cpp_ext")


def files(pattern: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / CPP).glob(pattern))


# Portable code only (no -march): vector versions are compiled per function and chosen at run
# time. Without contraction a*b+c rounds the same way on every machine.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-pthread"]

ParallelCompile(default=2).install()
setup(
    ext_modules=[
        Pybind11Extension(
            "samrt._native",
            sources=[*files("bindings*.cpp"), *files("src/*.cpp")],
            depends=[*files("*.hpp"), *files("include/samrt/*.hpp"), *files("src/*.hpp")],
            include_dirs=[(CPP / "include").as_posix()],
            extra_compile_args=[*FLAGS, "-Wall", "-Wextra"],
            extra_link_args=["-pthread"],
            cxx_std=17,
        ),
        # Operators for ONNX Runtime: a library without a Python module in it. Products may be
        # fused with additions here: nothing promises the same bits on every machine.
        Extension(
            "samrt._ops",
            sources=files("ops/*.cpp"),
            depends=[*files("ops/*.hpp"), *files("include/samrt/placement.hpp")],
            include_dirs=[(CPP / "ops").as_posix(), (CPP / "include").as_posix()],
            extra_compile_args=[
                *(flag for flag in FLAGS if "contract" not in flag),
                *(
                    "-ffp-contract=fast",
                    "-std=c++17",
                    "-fvisibility=hidden",
                    "-Wall",
                    "-Wextra",
                    "-g0",
                ),
            ],
            extra_link_args=["-pthread"],
            language="c++",
        ),
    ]
)
