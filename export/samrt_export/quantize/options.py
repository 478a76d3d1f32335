"""What can be asked of `quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from samrt.backends import available_backends, get_backend
from samrt.errors import OptionError
from samrt_export.quantize.choose import METHODS
from samrt_export.quantize.layers import CONVS, ConvChoice

__all__ = ["BACKENDS", "PRECISIONS", "QuantizeOptions"]

PRECISIONS = ("int8", "int8-weights")
BACKENDS = ("onnxruntime", "openvino")
"""Runtimes that multiply integers on a CPU; the first is always asked."""


@dataclass(frozen=True)
class QuantizeOptions:
    """What is quantised, and how its scales are found.

    Attributes:
        precision: ``int8``, or ``int8-weights``: weights only, of encoder and decoder.
        window: intensities shown black and white, for pictures of more than 8 bits and DICOM.
        convs: see `samrt_export.quantize.layers.find_layers`.
        exclude: regular expressions for names of layers that stay float32.
        method: how clips are found; ``auto`` takes the one with the smallest error.
        smoothing: let large channels behind a norm migrate into the weights.
        bias_correction: correct the mean error of each output.
        most_pictures: of more pictures in the folder an even selection is used.
        alone: leave all other precisions out, for a small download; needs another place.
        threads: of all runs.
        backends: runtimes in which int8 must be good enough, ONNX Runtime among them. ``None``:
            ONNX Runtime, and OpenVINO where it is installed.

    Raises:
        OptionError: a value that does not exist.
        BackendUnavailableError: a runtime that is not installed.
    """

    precision: str = "int8"
    window: Any = None
    convs: ConvChoice = "auto"
    exclude: Sequence[str] = ()
    method: str = "auto"
    smoothing: bool = True
    bias_correction: bool = True
    most_pictures: int = 128
    alone: bool = False
    threads: int | None = None
    backends: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in self.backends or ():
            if name not in BACKENDS:
                raise OptionError(f"int8 is judged in {' and '.join(BACKENDS)}, got {name!r}")
            get_backend(name)
        if self.backends is not None and BACKENDS[0] not in self.backends:
            raise OptionError(f"int8 is always judged in {BACKENDS[0]}: name it among backends")
        for name, known in (("precision", PRECISIONS), ("convs", CONVS), ("method", METHODS)):
            if getattr(self, name) not in known:
                raise OptionError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.most_pictures < 1:
            raise OptionError(f"most_pictures must be at least 1, got {self.most_pictures}")

    def judged_in(self) -> tuple[str, ...]:
        """Names of the runtimes in which int8 is judged, ONNX Runtime first."""
        here = {info.name for info in available_backends() if info.available}
        wanted = here if self.backends is None else self.backends
        return tuple(name for name in BACKENDS if name in wanted)
