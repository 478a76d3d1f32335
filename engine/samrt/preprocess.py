"""From a file or an array to the encoder's input tensor.

Eight-bit pictures go to the model as they are. Grey pictures of more bits (uint16, int16,
float32) are mapped by their window to 0..255, and then it depends on the model's resize rule:

=====================  ===========  ==========================================================
interpolation          rounding     pictures of more than eight bits
=====================  ===========  ==========================================================
any                    none         straight to the tensor: divided, resized and normalised as
                                    float32, as the model's own float pictures are
bilinear_antialias     nearest      straight to the tensor: Pillow's rule in float32 without
                                    the rounding to 256 steps
all others             nearest,     by way of eight bits: ``floor(share * 255 + 0.5)`` with the
                       truncate     share of the window, then as an eight-bit picture
=====================  ===========  ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt import _kernels
from samrt.errors import ImageError, OptionError
from samrt.geometry import Placement
from samrt.imaging.array import Window, as_uint8
from samrt.imaging.read import LoadedImage, read_image
from samrt.imaging.sniff import ImageLimits
from samrt.manifest import InputSpec
from samrt.types import Size, Timings

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "ImageSource",
    "ModelImage",
    "Window",
    "cut",
    "load_image",
    "preprocess",
]

DEFAULT_MAX_PIXELS = 100_000_000

ImageSource = str | PathLike[str] | LoadedImage | NDArray[Any]
_DEEP_DTYPES = (np.uint16, np.int16, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ModelImage:
    """A picture that is ready for :func:`preprocess`.

    Attributes:
        array: ``(H, W)`` or ``(H, W, 3)`` uint8.
        bgr: whether a colour array is in the order blue, green, red.
        deep: the same picture ``(H, W)`` as uint16, int16 or float32, if it had more bits.
        window: intensities of ``deep`` that mean black and white; ``None`` without ``deep``.
        warnings: remarks about the picture.
        timings: ``decode_image_ms`` for files.
    """

    array: NDArray[np.uint8]
    bgr: bool = False
    deep: NDArray[Any] | None = None
    window: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)

    @property
    def size(self) -> Size:
        """``(H, W)`` in pixels."""
        return (self.array.shape[0], self.array.shape[1])


def load_image(
    image: ImageSource,
    *,
    window: Window | None = None,
    image_format: str = "RGB",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    threads: int = 1,
) -> ModelImage:
    """Read or check a picture; see :meth:`samrt.Predictor.encode` for what is accepted.

    Raises:
        ImageError: missing, damaged, empty or too large; wrong shape or dtype; NaN.
        OptionError: ``image_format`` is neither RGB nor BGR, or ``max_pixels`` is below 1.
    """
    if image_format not in ("RGB", "BGR"):
        raise OptionError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}")
    if max_pixels < 1:
        raise OptionError(f"max_pixels must be at least 1, got {max_pixels}")
    if isinstance(image, (str, PathLike)):
        start = perf_counter()
        loaded = read_image(fspath(image), window=window, limits=ImageLimits(max_pixels=max_pixels))
        elapsed = (perf_counter() - start) * 1000.0
        return _from_file(loaded, Timings(decode_image_ms=elapsed))
    if isinstance(image, LoadedImage):
        if window is not None:
            raise ImageError("this image was read with a window already: give the window once")
        _check_pixels(image.size, max_pixels)
        return _from_file(image, Timings())
    if type(image).__module__.split(".")[0] == "PIL":
        raise ImageError(
            "got a Pillow picture, whose values may be palette numbers: "
            "pass its path, or numpy.asarray(picture.convert('RGB'))"
        )
    shape = np.shape(image)
    if len(shape) >= 2:
        _check_pixels((shape[0], shape[1]), max_pixels)
    eight = as_uint8(image, window=window, threads=threads)
    deep = _deep(np.asarray(image), eight.array, eight.window)
    return ModelImage(
        eight.array,
        bgr=image_format == "BGR" and eight.array.ndim == 3,
        deep=deep,
        window=None if deep is None else eight.window,
        warnings=eight.warnings,
    )


def cut(source: ModelImage, box: tuple[int, int, int, int]) -> ModelImage:
    """The part ``(x0, y0, x1, y1)`` of a picture, far edges exclusive, with the same window.

    The part must have pixels and lie inside; its arrays are copies.
    """
    x0, y0, x1, y1 = box
    deep = source.deep
    return replace(
        source,
        array=np.ascontiguousarray(source.array[y0:y1, x0:x1]),
        deep=None if deep is None else np.ascontiguousarray(deep[y0:y1, x0:x1]),
        timings=Timings(),
    )


def _from_file(loaded: LoadedImage, timings: Timings) -> ModelImage:
    deep = _deep(loaded.source, loaded.array, loaded.window)
    return ModelImage(
        loaded.array,
        deep=deep,
        window=None if deep is None else loaded.window,
        warnings=loaded.warnings,
        timings=timings,
    )


def _check_pixels(size: Size, max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise ImageError(
            f"the image has {width} x {height} = {height * width} pixels, the limit is "
            f"{max_pixels}: crop or shrink it, or raise max_pixels"
        )


def _deep(
    source: NDArray[Any], eight: NDArray[np.uint8], window: tuple[float, float] | None
) -> NDArray[Any] | None:
    """The values behind an eight-bit grey picture, where the kernel can take them directly."""
    if window is None or eight.ndim != 2 or not window[0] < window[1]:
        return None
    native = source.dtype.newbyteorder("=")
    if native not in _DEEP_DTYPES:
        return None
    return np.ascontiguousarray(source.reshape(eight.shape), native)


def preprocess(
    source: ModelImage, placement: Placement, spec: InputSpec, *, threads: int
) -> NDArray[Any]:
    """Resize, normalise, pad and lay out a picture for the encoder in one pass.

    Args:
        source: the picture.
        placement: where it lies in the model frame.
        spec: the model's input rules.
        threads: threads the kernel may use, at least 1.

    Returns:
        ``(1, 3, S_h, S_w)`` in ``spec.dtype``, contiguous; the caller's alone.
    """
    mean_std = spec.normalize_kind == "mean_std"
    rules: dict[str, Any] = {
        "out_size": spec.size,
        "resized": placement.input_size,
        "interpolation": spec.interpolation,
        "rounding": spec.rounding,
        "via": spec.via,
        "divisor": spec.divisor,
        "mean": spec.mean if mean_std else None,
        "std": spec.std if mean_std else None,
        "scale": spec.scale,
        "min_max": not mean_std,
        "pad_value": spec.pad_value,
        "pad_before": spec.pad_before_normalize,
        "out_dtype": spec.dtype,
        "threads": threads,
    }
    if source.deep is not None and source.window and _takes_deep(spec):
        return _kernels.preprocess_window(source.deep, window=source.window, **rules)
    reverse = ("BGR" if source.bgr else "RGB") != spec.channel_order
    return _kernels.preprocess(np.ascontiguousarray(source.array), bgr=reverse, **rules)


def _takes_deep(spec: InputSpec) -> bool:
    """Whether pictures of more than eight bits go straight to the tensor: see the table above."""
    pillow = spec.interpolation == "bilinear_antialias" and spec.rounding == "nearest"
    return pillow or spec.rounding == "none"
