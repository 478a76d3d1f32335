"""The user's own pictures as verification cases, with boxes and points found by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError
from samrt.imaging.read import LoadedImage, read_image
from samrt.quoting import one_line
from samrt.types import Prompt

__all__ = ["ImageCase", "automatic_prompts", "image_cases", "image_files"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_SMALLEST_SHARE, _LARGEST_SHARE = 0.002, 0.6
_DIGITS = 12


@dataclass(frozen=True, slots=True, eq=False)
class ImageCase:
    """A picture of the user's with prompts.

    Attributes:
        name: ``image-`` and 12 digits of the file's sha256; file names may name patients, so they
            stay out of records.
        image: the picture.
        prompts: see :func:`automatic_prompts`.
        path: the file.
    """

    name: str
    image: LoadedImage
    prompts: tuple[Prompt, ...]
    path: Path


def image_files(folder: str | PathLike[str]) -> list[Path]:
    """All picture files directly inside a folder, by name.

    Raises:
        ImageError: no such folder, or it holds no picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"{root} is not a folder: give one that holds pictures")
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in _SUFFIXES]
    files = [path for path in found if path.is_file()]
    if not files:
        raise ImageError(f"{root} holds no picture: expected {', '.join(_SUFFIXES)}")
    return files


def image_cases(
    folder: str | PathLike[str], *, on_skip: Callable[[Path, str], None] | None = None
) -> Iterator[ImageCase]:
    """Read the pictures of a folder one by one.

    Args:
        folder: holds the pictures.
        on_skip: told of a file that cannot be read and why; without it such a file is an error.

    Raises:
        ImageError: see :func:`image_files`; a damaged file; or no file could be read.
    """
    files = image_files(folder)
    read = 0
    for path in files:
        try:
            image = read_image(str(path))
        except ImageError as exc:
            if on_skip is None:
                raise
            on_skip(path, one_line(exc))
            continue
        read += 1
        name = f"image-{image.sha256[:_DIGITS]}"
        yield ImageCase(name, image, automatic_prompts(image.array), path)
    if not read:
        raise ImageError(f"none of the {len(files)} pictures in {folder} could be read")


def automatic_prompts(image: NDArray[np.uint8]) -> tuple[Prompt, ...]:
    """Prompts for a picture ``(H, W)`` or ``(H, W, 3)`` uint8 of which nothing is known.

    The box of the largest bright region and of the largest dark one (Otsu's threshold of the
    grey values, regions of 0.2 to 60 percent of the picture), a point inside each, the central
    box of half the size, and a point at the centre.
    """
    height, width = image.shape[:2]
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    boxes: list[Prompt] = []
    points: list[Prompt] = []
    for kind in (cv2.THRESH_BINARY, cv2.THRESH_BINARY_INV):
        _, binary = cv2.threshold(np.ascontiguousarray(grey), 0, 255, kind | cv2.THRESH_OTSU)
        region = _largest_region(binary)
        if region is not None:
            box, (x, y) = region
            boxes.append(Prompt(box=box))
            points.append(Prompt(point_coords=[(x, y)], point_labels=[1]))
    if height > 1 and width > 1:
        central = (width // 4, height // 4, width - width // 4, height - height // 4)
        boxes.append(Prompt(box=central))
    points.append(Prompt(point_coords=[(width // 2, height // 2)], point_labels=[1]))
    return (*boxes, *points)


def _largest_region(
    binary: NDArray[np.uint8],
) -> tuple[tuple[int, int, int, int], tuple[int, int]] | None:
    """Box and an inner point ``(x, y)`` of the largest region of a fitting size."""
    total = binary.size
    _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=4)
    best, best_area = 0, 0
    for label in range(1, len(stats)):
        area = int(stats[label, cv2.CC_STAT_AREA])
        if _SMALLEST_SHARE * total <= area <= _LARGEST_SHARE * total and area > best_area:
            best, best_area = label, area
    if not best:
        return None
    x, y, w, h = (int(value) for value in stats[best, :4])
    depth = cv2.distanceTransform(
        np.pad((labels[y : y + h, x : x + w] == best).astype(np.uint8), 1), cv2.DIST_L2, 3
    )
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return (x, y, x + w, y + h), (x + int(column) - 1, y + int(row) - 1)
