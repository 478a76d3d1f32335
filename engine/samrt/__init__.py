"""samrt: Segment Anything on medical images, at the edge.

>>> import samrt
>>> engine = samrt.load("tiny")                             # doctest: +SKIP
>>> engine.set_image("image.png")                           # doctest: +SKIP
>>> prediction = engine.predict(box=(60, 40, 220, 180))     # doctest: +SKIP

``import samrt`` loads numpy and nothing heavier; the inference runtime, the image reader and
the C++ kernels are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from samrt._version import __version__

if TYPE_CHECKING:
    from samrt.backends import available_backends
    from samrt.bundle import available_models
    from samrt.errors import (
        BackendError,
        BackendUnavailableError,
        BundleError,
        DatasetError,
        DownloadError,
        ExtraUnavailableError,
        ImageError,
        KernelError,
        ModelNotFoundError,
        OptionError,
        OutputError,
        PromptError,
        SamrtError,
        VerificationError,
    )
    from samrt.everything.generator import AutomaticMaskGenerator
    from samrt.predictor import ModelInfo, Predictor, load
    from samrt.types import ImageEmbedding, Prediction, Prompt, Timings
    from samrt.zoom import ZoomRule, predict_zoomed

__all__ = [
    "AutomaticMaskGenerator",
    "BackendError",
    "BackendUnavailableError",
    "BundleError",
    "DatasetError",
    "DownloadError",
    "ExtraUnavailableError",
    "ImageEmbedding",
    "ImageError",
    "KernelError",
    "ModelInfo",
    "ModelNotFoundError",
    "OptionError",
    "OutputError",
    "Prediction",
    "Predictor",
    "Prompt",
    "PromptError",
    "SamrtError",
    "Timings",
    "VerificationError",
    "ZoomRule",
    "__version__",
    "available_backends",
    "available_models",
    "load",
    "predict_zoomed",
]

_HOME = {
    **dict.fromkeys(("available_backends",), "samrt.backends"),
    **dict.fromkeys(("available_models",), "samrt.bundle"),
    "AutomaticMaskGenerator": "samrt.everything.generator",
    **dict.fromkeys(("ZoomRule", "predict_zoomed"), "samrt.zoom"),
    **dict.fromkeys(("ModelInfo", "Predictor", "load"), "samrt.predictor"),
    **dict.fromkeys(("ImageEmbedding", "Prediction", "Prompt", "Timings"), "samrt.types"),
    **dict.fromkeys([name for name in __all__ if name.endswith("Error")], "samrt.errors"),
}


if not TYPE_CHECKING:  # type checkers see the imports above, and mistyped names

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'samrt' has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
