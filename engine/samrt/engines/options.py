"""What an engine is built for: sizes of prompts, GPU generations, memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samrt.errors import OptionError
from samrt.manifest import TensorSpec

__all__ = ["MAX_POINTS", "MAX_PROMPTS", "BuildOptions", "ShapeRange", "parse_bytes", "shape_ranges"]

MAX_PROMPTS = 4096
MAX_POINTS = 1024

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Sizes that one input may have: smallest, the one to optimise for, largest."""

    smallest: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]

    def contains(self, shape: Sequence[int]) -> bool:
        """Whether ``shape`` lies between the smallest and the largest."""
        return len(shape) == len(self.largest) and all(
            low <= size <= high
            for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        targets: GPU generations such as ``("sm86", "sm89")``, for runtimes that build without a
            GPU; empty: whatever the runtime builds by default.
        max_prompts: most prompts in one decoder call, 1 to 4096.
        max_points: most rows of a prompt (a point is one, a box two, padding counts), 1 to 1024.
        min_points: fewest rows of a prompt; models that pad to a fixed number have it here.
        workspace_bytes: most GPU memory for intermediate results; ``None``: the runtime's limit.
        timing_cache: file of measured kernel times, read if it is there and written back.
        repeatable: fail where a kernel time is not in the timing cache instead of measuring it,
            so that the same kernels are chosen again.
        tf32: allow the GPU to round the inputs of FP32 matrix products to 10 bits of mantissa.
        optimization_level: 0 (fast build) to 5; ``None``: the runtime's.

    Raises:
        OptionError: a value out of range, or ``repeatable`` without a timing cache.
    """

    targets: tuple[str, ...] = ()
    max_prompts: int = 16
    max_points: int = 16
    min_points: int = 1
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    repeatable: bool = False
    tf32: bool = False
    optimization_level: int | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("max_prompts", self.max_prompts, MAX_PROMPTS),
            ("max_points", self.max_points, MAX_POINTS),
        ):
            if not 1 <= value <= most:
                raise OptionError(f"{name} must be 1 to {most}, got {value}")
        if not 1 <= self.min_points <= self.max_points:
            raise OptionError(
                f"this model's prompts have at least {self.min_points} rows, "
                f"max_points is {self.max_points}: raise it"
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 2**20:
            raise OptionError(
                f"workspace is {self.workspace_bytes} bytes, expected at least 1 MiB (write 512M)"
            )
        if self.repeatable and self.timing_cache is None:
            raise OptionError("a repeatable build needs a timing cache: add --timing-cache FILE")
        level = self.optimization_level
        if level is not None and not 0 <= level <= 5:
            raise OptionError(f"optimization_level must be 0 to 5, got {level}")
        odd = [name for name in self.targets if not re.fullmatch(r"sm\d{2,3}", name)]
        if odd or len(set(self.targets)) != len(self.targets):
            raise OptionError(
                f"targets {','.join(self.targets)} are not a list of different GPU generations: "
                "write sm86,sm89"
            )

    def flags(self) -> dict[str, str | int | bool | None]:
        """What of the options changes the engine, ready for JSON."""
        return {
            "max_prompts": self.max_prompts,
            "max_points": self.max_points,
            "min_points": self.min_points,
            "workspace_bytes": self.workspace_bytes,
            "repeatable": self.repeatable,
            "tf32": self.tf32,
            "optimization_level": self.optimization_level,
        }


def shape_ranges(inputs: Sequence[TensorSpec], options: BuildOptions) -> Mapping[str, ShapeRange]:
    """Sizes of every input with a free size: ``N`` prompts of ``P`` rows.

    The engine is optimised for one prompt of two rows (a box), the usual click.

    Raises:
        OptionError: an input has a free size other than ``N`` and ``P``.
    """
    points = min(max(2, options.min_points), options.max_points)
    ranges = {
        "N": (1, 1, options.max_prompts),
        "P": (options.min_points, points, options.max_points),
    }
    found = {}
    for spec in inputs:
        free = {size for size in spec.shape if isinstance(size, str)}
        if free - ranges.keys():
            raise OptionError(
                f"input {spec} has the free size {min(free - ranges.keys())}: "
                "only N (prompts) and P (points) are known; export the model again"
            )
        if free:
            low, best, high = (
                tuple(size if isinstance(size, int) else ranges[size][i] for size in spec.shape)
                for i in range(3)
            )
            found[spec.name] = ShapeRange(low, best, high)
    return found


def parse_bytes(text: str) -> int:
    """``"4G"``, ``"512M"``, ``"64k"`` or a plain number -> bytes (units of 1024).

    Raises:
        OptionError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise OptionError(f"{text!r} is not a size in bytes: write 512M or 4G")
    return int(float(match[1]) * _UNITS[match[2]])
