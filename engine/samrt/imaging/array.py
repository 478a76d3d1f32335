"""Numpy images of any number type to uint8, by one stated rule.

Eight-bit images pass through. Everything else needs a *window*: the two intensities that become
0 and 255, with all values between them mapped linearly and values outside clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.errors import ImageError
from samrt.imaging.windows import parse_limits

__all__ = ["Window", "WindowedImage", "as_uint8", "check_window", "drop_alpha"]

Window: TypeAlias = tuple[float, float] | str
"""``(lo, hi)`` intensities that become 0 and 255; or ``"minmax"`` or ``"percentile"``, which pick
them from the image; or ``"centre/width"``, ``"lo:hi"`` or a name, see :mod:`samrt.imaging.windows`.
Scanners' files know more, see :func:`samrt.imaging.dicom.voi.choose_voi`."""

PERCENTILES = (0.5, 99.5)
_RULES = ("minmax", "percentile")
_KERNEL_DTYPES = (np.uint16, np.int16, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class WindowedImage:
    """An image ready for a model.

    Attributes:
        array: ``(H, W)`` or ``(H, W, 3)`` uint8; it may share memory with what was passed in.
        window: intensities that became 0 and 255, in units of the source; ``None`` if eight-bit
            values were taken as they are.
        warnings: what a careful user should know about the conversion.
    """

    array: NDArray[np.uint8]
    window: tuple[float, float] | None
    warnings: tuple[str, ...]


def as_uint8(
    image: ArrayLike, *, window: Window | None = None, name: str = "image", threads: int = 1
) -> WindowedImage:
    """Bring an array to ``(H, W)`` or ``(H, W, 3)`` uint8.

    Args:
        image: ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` (RGB order, alpha last).
            uint8 needs no window; every other integer or float type does.
        window: ``(lo, hi)`` in units of the image; ``"minmax"``: its lowest and highest value;
            ``"percentile"``: its 0.5th and 99.5th percentile. All channels share it.
        name: how messages call the image.
        threads: most threads that the conversion may use.

    Returns:
        The picture, the window that was used and warnings. An image of one single value becomes
        all zero, with a warning. An RGBA image that is not opaque is laid over black, with a
        warning.

    Raises:
        ImageError: wrong rank, channels, dtype or size; NaN or infinite values; no window where
            one is needed; ``lo >= hi``.
    """
    array = _checked(image, name)
    if window is not None:
        window = check_window(window)
    elif array.dtype != np.uint8:
        raise ImageError(
            f"{name} has dtype {array.dtype}, which has no fixed range: pass window=(lo, hi), "
            'window="minmax" or window="percentile", or convert it to uint8'
        )
    notes: list[str] = []
    if array.ndim == 3 and array.shape[2] == 4:
        alpha = array[:, :, 3]
        if array.dtype != np.uint8:
            raise ImageError(
                f"{name} is RGBA with dtype {array.dtype}, expected uint8: drop the alpha channel"
            )
        array = drop_alpha(array[:, :, :3], alpha, notes)
    if window is None:
        return WindowedImage(array, None, tuple(notes))
    limits = _resolve(array, window, name, notes)
    return WindowedImage(_apply(array, limits, threads), limits, tuple(notes))


def check_window(window: object) -> Window:
    """Return a window with float limits.

    Raises:
        ImageError: it is neither a rule's name nor two finite numbers with ``lo < hi``.
    """
    expected = '(lo, hi) with lo < hi, "minmax" or "percentile"'
    if isinstance(window, str):
        if window in _RULES:
            return window
        limits = parse_limits(window)
        if limits is None:
            raise ImageError(f"unknown window {window!r}: expected {expected}")
        window = limits
    try:
        lo, hi = (float(v) for v in window)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ImageError(f"window is {window!r}: expected {expected}") from None
    if not (np.isfinite(lo) and np.isfinite(hi) and np.isfinite(hi - lo)):
        raise ImageError(f"window ({lo:g}, {hi:g}) is not finite: expected {expected}")
    if lo >= hi:
        raise ImageError(f"window ({lo:g}, {hi:g}) is empty: expected {expected}")
    return lo, hi


def drop_alpha(
    colour: NDArray[np.uint8], alpha: NDArray[np.uint8], notes: list[str]
) -> NDArray[np.uint8]:
    """Lay a picture over black: ``(H, W)`` or ``(H, W, 3)`` with its ``(H, W)`` alpha, uint8.

    An opaque picture comes back as it is; otherwise a remark is added to ``notes``.
    """
    if int(alpha.min()) == 255:
        return np.ascontiguousarray(colour)
    notes.append("the image has transparent pixels: it was laid over black")
    weight = alpha.astype(np.uint16)
    if colour.ndim == 3:
        weight = weight[:, :, None]
    # (c * a + 127) // 255 rounds to nearest; the product of two bytes fits into 16 bits.
    over: NDArray[np.uint16] = (colour * weight + np.uint16(127)) // np.uint16(255)
    return over.astype(np.uint8)


def _checked(image: ArrayLike, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError) as exc:
        raise ImageError(f"{name} is not a regular array: {' '.join(str(exc).split())}") from None
    if array.dtype == np.bool_:
        raise ImageError(
            f"{name} is boolean, expected intensities: a mask is no image "
            "(mask.astype(numpy.uint8) * 255 makes one)"
        )
    if array.dtype.kind not in "uif":
        raise ImageError(
            f"{name} has dtype {array.dtype}, expected uint8, another integer type or float"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    _check_shape(array, name)
    if array.dtype.kind == "f":
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise ImageError(
                f"{name} has {bad} NaN or infinite values among {array.size}: "
                "replace them first, for instance with numpy.nan_to_num"
            )
    return array


def _check_shape(array: NDArray[Any], name: str) -> None:
    expected = "expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    shape = array.shape
    if array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4)):
        if array.size == 0:
            raise ImageError(f"{name} is empty, shape {shape}: expected at least one pixel")
        return
    hint = ""
    if array.ndim == 3 and shape[0] in (1, 3, 4):
        hint = ": channels come last, use image.transpose(1, 2, 0)"
    elif array.ndim == 3 and shape[2] == 2:
        hint = ": for grey with alpha pass image[:, :, 0]"
    elif array.ndim == 3:
        hint = ": for a stack of slices pass one slice"
    elif array.ndim == 4:
        hint = ": pass one image at a time"
    raise ImageError(f"{name} has shape {shape}, {expected}{hint}")


def _resolve(
    array: NDArray[Any], window: Window, name: str, notes: list[str]
) -> tuple[float, float]:
    """Turn a window rule into two numbers."""
    if isinstance(window, tuple):
        return window
    lowest, highest = float(array.min()), float(array.max())
    if lowest == highest:
        notes.append(f"{name} has the single value {lowest:g}: it becomes all black")
        return lowest, highest
    if not np.isfinite(highest - lowest):
        raise ImageError(
            f"{name} spans {lowest:g} to {highest:g}, too far for min-max: pass window=(lo, hi)"
        )
    if window == "percentile":
        lo, hi = (float(v) for v in np.percentile(array, PERCENTILES))
        if lo < hi:
            return lo, hi
        notes.append(f"the percentiles of {name} are both {lo:g}: its minimum and maximum are used")
    return lowest, highest


def _apply(array: NDArray[Any], limits: tuple[float, float], threads: int) -> NDArray[np.uint8]:
    """Map ``lo..hi`` to 0..255, rounding half up; ``lo == hi`` gives all zero."""
    lo, hi = limits
    if lo == hi:
        return np.zeros(array.shape, np.uint8)
    if array.dtype == np.uint8:
        steps = (np.arange(256, dtype=np.float64) - lo) / (hi - lo)
        table = np.floor(np.clip(steps, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        mapped: NDArray[np.uint8] = table[array]
        return mapped
    from samrt import _kernels

    plane = array.reshape(array.shape[0], -1)
    native = array.dtype.newbyteorder("=")
    if native in _KERNEL_DTYPES:
        plane = np.ascontiguousarray(plane, native)
    elif native == np.float16:
        plane = np.ascontiguousarray(plane, np.float32)
    else:  # wider numbers lose nothing when they are taken relative to the window first
        plane = np.ascontiguousarray((plane.astype(np.float64) - lo) / (hi - lo))
        plane, lo, hi = np.clip(plane, -1.0, 2.0).astype(np.float32), 0.0, 1.0
    bytes_ = _kernels.window_to_uint8(plane, lo, hi, threads=threads)
    return bytes_.reshape(array.shape)
