"""The one gate to samrt's C++ kernels.

Arrays must be C-contiguous and of the stated dtype: nothing is copied or converted behind the
caller's back, a wrong dtype raises TypeError and a wrong shape or value ValueError. Every
function lets go of the interpreter lock, starts at most ``threads`` threads (1: none) and
returns new arrays. Results do not depend on ``threads`` or on the processor.

:mod:`samrt.reference` has the same functions in plain NumPy and Pillow.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import KernelError

if TYPE_CHECKING:
    from samrt import _native

__all__ = [
    "connected_components",
    "instruction_set",
    "load",
    "mask_polygons",
    "mask_stats",
    "masks_from_logits",
    "preprocess",
    "preprocess_window",
    "release_memory",
    "remove_small_regions",
    "resize",
    "rle_decode",
    "rle_encode",
    "rle_from_string",
    "rle_to_string",
    "stability",
    "upscale_logits",
    "window_to_uint8",
]

Size = tuple[int, int]
Window = tuple[float, float]
Floats = NDArray[np.float32] | NDArray[np.float16]

_NAME = "samrt._native"


def load() -> ModuleType:
    """The extension module. Raises KernelError if it is missing or cannot be loaded."""
    try:
        return import_module(_NAME)
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        raise KernelError(
            "samrt's C++ extension is not built: module 'samrt._native' was not found; "
            "run `pip install .` in the source folder with a C++17 compiler installed"
        ) from error
    except ImportError as error:
        raise KernelError(
            f"samrt's C++ extension cannot be loaded: {' '.join(str(error).split())}; "
            "it is damaged or was built for another Python or system, install samrt again"
        ) from error


if not TYPE_CHECKING:

    class _Lazy:
        """Stands for the extension until it is first used."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(load(), name)
            setattr(self, name, value)
            return value

    _native = _Lazy()


def instruction_set() -> str:
    """Name of the inner loops in use: ``"avx2"``, ``"neon"`` or ``"baseline"``."""
    return _native.instruction_set()


def resize(
    image: NDArray[np.uint8],
    size: Size,
    interpolation: str,
    threads: int = 1,
    *,
    rounding: str = "nearest",
) -> NDArray[np.uint8]:
    """Resize ``image`` (H, W) or (H, W, 3) uint8 to ``size`` (h, w); same rank and channel order.

    ``bilinear_antialias`` and ``bicubic`` give the bytes of Pillow's BILINEAR and BICUBIC,
    ``nearest`` and ``area`` those of OpenCV's INTER_NEAREST and INTER_AREA, ``bilinear`` those of
    its INTER_LINEAR to within 1. ``bspline_antialias`` is scikit-image's
    ``resize(order=3, anti_aliasing=True, preserve_range=True)`` and ``bspline_corners`` SciPy's
    ``ndimage.zoom(order=3)`` of each channel, both bit for bit before they are rounded; they
    compute in float64 and need 8 bytes of memory for every sample of the image.

    ``rounding``: ``"nearest"``, or with a spline ``"truncate"``, which drops the fractions.

    Raises ValueError for an empty image, a size below 1, or an unknown name.
    """
    return _native.resize(image, size, interpolation, rounding, threads)


def preprocess(
    image: NDArray[np.uint8],
    *,
    out_size: Size,
    resized: Size,
    interpolation: str,
    rounding: str = "nearest",
    via: Sequence[Size] = (),
    divisor: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1.0,
    min_max: bool = False,
    pad_value: float = 0.0,
    pad_before: bool = False,
    bgr: bool = False,
    out_dtype: str = "float32",
    threads: int = 1,
) -> Floats:
    """Resize, normalise and pad an image into the tensor that an encoder takes, in one pass.

    ``image`` (H, W) or (H, W, 3) uint8 RGB is resized to ``resized`` (h, w), which must fit into
    ``out_size`` (S_h, S_w), and divided by ``divisor`` in float32. With the roundings of
    :func:`resize` it is first resized as there; with ``"none"`` it is first divided and then
    resized as float32: ``bilinear`` and ``bilinear_antialias`` then with the arithmetic of
    PyTorch's ``interpolate(align_corners=False)`` without and with antialias, the splines by way
    of the sizes ``via``, the others by their rule for 8 bits without its rounding.

    Grey gives three equal channels; ``bspline_antialias`` takes it for a colour image, whose
    channels may then differ in their last bit. Each value becomes ``(x * scale - mean) / std`` in
    float32, or with ``min_max`` ``(x - low) / max(high - low, 1e-8)`` with the range over all
    channels of the resized image. ``mean`` and ``std`` are in the order of the output's planes;
    ``bgr`` reverses the planes.

    The rest of the frame, right and below, is ``pad_value``. With ``pad_before`` that is an image
    value and is divided and normalised (and counts for the range) like one.

    Returns (1, 3, S_h, S_w) of ``out_dtype``: ``"float32"``, or ``"float16"`` rounded to nearest
    even. Its memory is the caller's until the array and all its views are gone; then up to two
    such blocks and 64 MiB are kept for the next calls, see :func:`release_memory`. Raises
    ValueError for values that do not fit together, TypeError for a wrong dtype.
    """
    return _native.preprocess(
        image,
        out_size=out_size,
        resized=resized,
        interpolation=interpolation,
        rounding=rounding,
        via=list(via),
        divisor=divisor,
        mean=_triple(mean),
        std=_triple(std),
        scale=scale,
        min_max=min_max,
        pad_value=pad_value,
        pad_before=pad_before,
        bgr=bgr,
        out_dtype=out_dtype,
        threads=threads,
    )


def preprocess_window(
    image: NDArray[np.uint16] | NDArray[np.int16] | NDArray[np.float32],
    *,
    window: Window,
    out_size: Size,
    resized: Size,
    interpolation: str,
    rounding: str = "nearest",
    via: Sequence[Size] = (),
    divisor: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1.0,
    min_max: bool = False,
    pad_value: float = 0.0,
    pad_before: bool = False,
    out_dtype: str = "float32",
    threads: int = 1,
) -> Floats:
    """Like :func:`preprocess` for one-channel images of more than 8 bits, without rounding to 8.

    ``image`` (H, W) uint16, int16 or float32 is mapped linearly so that ``window`` (low, high)
    becomes 0 to 255, clipped, divided by ``divisor``, resized in float32, normalised and padded.
    NaN counts as low. Nothing is rounded whatever ``rounding`` says: ``"none"`` asks for
    PyTorch's arithmetic where :func:`preprocess` has it, the others for the rules for 8 bits.
    """
    return _native.preprocess_window(
        image,
        window=window,
        out_size=out_size,
        resized=resized,
        interpolation=interpolation,
        rounding=rounding,
        via=list(via),
        divisor=divisor,
        mean=_triple(mean),
        std=_triple(std),
        scale=scale,
        min_max=min_max,
        pad_value=pad_value,
        pad_before=pad_before,
        out_dtype=out_dtype,
        threads=threads,
    )


def window_to_uint8(
    image: NDArray[np.uint16] | NDArray[np.int16] | NDArray[np.float32],
    lo: float,
    hi: float,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """``floor(clip((x - lo) / (hi - lo), 0, 1) * 255 + 0.5)`` in float64; (H, W) uint8.

    NaN counts as ``lo``. Raises ValueError unless ``lo < hi`` and both are finite.
    """
    return _native.window_to_uint8(image, lo, hi, threads)


def upscale_logits(
    logits: NDArray[np.float32],
    *,
    frame: Size,
    crop: Size,
    out: Size,
    interpolation: str = "bilinear",
    threads: int = 1,
) -> NDArray[np.float32]:
    """Low-resolution logits at the size of the original image, as Segment Anything resizes them.

    ``logits`` (M, h, w) float32 are resized to ``frame`` (S_h, S_w), cropped to their top left
    ``crop`` (h_in, w_in) and resized to ``out`` (H, W), both times with half-pixel centres and
    without antialiasing (PyTorch's ``align_corners=False``). ``interpolation``: ``"bilinear"``,
    ``"nearest"``, or ``"bicubic"`` (a = -0.75), which wants ``frame`` to be (h, w).
    Returns (M, H, W).
    """
    return _native.upscale_logits(
        logits, frame=frame, crop=crop, out=out, interpolation=interpolation, threads=threads
    )


def masks_from_logits(
    logits: NDArray[np.float32],
    *,
    frame: Size,
    crop: Size,
    out: Size,
    interpolation: str = "bilinear",
    threshold: float = 0.0,
    probability: bool = False,
    threads: int = 1,
) -> NDArray[np.bool_]:
    """Where :func:`upscale_logits` is above ``threshold``; (M, H, W) bool, no floats in between.

    With ``probability`` the logistic function is applied to the low-resolution logits before they
    are resized, and ``threshold`` is a probability. NaN is never above.
    """
    return _native.masks_from_logits(
        logits,
        frame=frame,
        crop=crop,
        out=out,
        interpolation=interpolation,
        threshold=threshold,
        probability=probability,
        threads=threads,
    )


def stability(
    logits: NDArray[np.float32], threshold: float = 0.0, offset: float = 1.0
) -> NDArray[np.float32]:
    """Stability score of each mask of ``logits`` (M, h, w): (M,) float32 in [0, 1].

    Samples above ``threshold + offset`` over samples above ``threshold - offset`` (Segment
    Anything's stability score); 0 where there are none.
    """
    return _native.stability(logits, threshold, offset)


def mask_stats(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Areas (M,) int64 in pixels and tight boxes (M, 4) int64 of ``mask`` (M, H, W) bool.

    A box is x0, y0, x1, y1 with x1 and y1 exclusive; all zeros for an empty mask.
    """
    return _native.mask_stats(mask)


def rle_encode(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """COCO run lengths of ``mask`` (H, W) bool: column by column, the first run outside."""
    return _native.rle_encode(mask)


def rle_decode(counts: NDArray[np.uint32], size: Size) -> NDArray[np.bool_]:
    """Mask (H, W) bool of ``size`` from run lengths (N,) uint32 that sum to H * W."""
    return _native.rle_decode(counts, size)


def rle_to_string(counts: NDArray[np.uint32]) -> bytes:
    """Run lengths in COCO's compressed form, ASCII."""
    return _native.rle_to_string(counts)


def rle_from_string(text: bytes) -> NDArray[np.uint32]:
    """Run lengths (N,) uint32 from COCO's compressed form; ValueError if it is damaged."""
    return _native.rle_from_string(text)


def connected_components(
    mask: NDArray[np.bool_], connectivity: int = 8
) -> tuple[NDArray[np.int32], int]:
    """Labels (H, W) int32 of the regions of ``mask`` (H, W) bool, and their number.

    0 is outside; regions count from 1 in the order in which a row by row scan meets them.
    ``connectivity`` is 4 (edges) or 8 (edges and corners).
    """
    return _native.connected_components(mask, connectivity)


def remove_small_regions(
    mask: NDArray[np.bool_], min_area: float, mode: str
) -> tuple[NDArray[np.bool_], bool]:
    """Segment Anything's clean-up of ``mask`` (H, W) bool with 8-connected regions.

    ``"holes"`` fills regions of the outside that have fewer than ``min_area`` pixels,
    ``"islands"`` removes such regions of the inside but keeps the largest if all are that small.
    Returns the mask and whether any region was that small.
    """
    return _native.remove_small_regions(mask, min_area, mode)


def mask_polygons(mask: NDArray[np.bool_]) -> list[list[NDArray[np.float64]]]:
    """Outlines of ``mask`` (H, W) bool: for each 4-connected region its rings, outline first.

    A ring is (K, 2) float64 x, y on pixel corners (pixel (x, y) covers [x, x+1] x [y, y+1]), only
    where the direction changes, the first vertex not repeated. Outlines run clockwise as seen on
    the screen, holes anticlockwise. Filling by the even-odd rule gives the mask back exactly.
    """
    return _native.mask_polygons(mask)


def release_memory() -> None:
    """Free the memory of past tensors that is kept for the next ones; see :func:`preprocess`."""
    if _NAME in sys.modules:
        _native.release_memory()


def _triple(values: Sequence[float] | None) -> tuple[float, float, float] | None:
    if values is None:
        return None
    if len(values) != 3:
        raise ValueError(f"mean and std must be 3 numbers, got {len(values)}")
    return float(values[0]), float(values[1]), float(values[2])
