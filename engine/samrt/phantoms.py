"""Built-in pictures with prompts, drawn by rule: what models are verified and tested on.

They look like an abdominal CT slice, an ultrasound sector, stained cells, a small portrait and a
large overview, and cover what trips engines up: square and oblong, grey and colour, smaller and
larger than a model's frame. Everything is whole-number arithmetic, so every machine draws the
same bytes; a test pins their sha256. They stand for no patient and no device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.types import Prompt

__all__ = ["PHANTOM_NAMES", "PhantomCase", "phantom_case", "phantom_cases"]

Grid = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class PhantomCase:
    """A picture and prompts about it.

    Attributes:
        name: short name.
        image: ``(H, W)`` or ``(H, W, 3)`` RGB, uint8, 0..255, read-only.
        prompts: boxes, points, and both together; each lies on the picture.
    """

    name: str
    image: NDArray[np.uint8]
    prompts: tuple[Prompt, ...]


def _hash(height: int, width: int, seed: int) -> NDArray[np.uint32]:
    """Independent 32-bit numbers ``(height, width)``: an integer hash of the pixel's index."""
    x = np.arange(height * width, dtype=np.uint32) + np.uint32(seed * 0x9E3779B1 & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    numbers: NDArray[np.uint32] = x.reshape(height, width)
    return numbers


def _noise(height: int, width: int, seed: int, amplitude: int, blur: int = 0) -> Grid:
    """Whole numbers around 0, at most ``amplitude`` away; a tile of 256 is repeated.

    ``blur`` averages over ``2 ** blur`` pixels along each axis and widens the range again, which
    gives speckle in place of grain.
    """
    tile = (_hash(256, 256, seed) >> np.uint32(24)).astype(np.int32) - 128
    for axis in (0, 1):
        for step in range(blur):
            tile = (tile + np.roll(tile, 1 << step, axis)) >> 1
    tile = np.clip(tile << blur, -128, 128) * amplitude >> 7
    repeats = (-(-height // 256), -(-width // 256))
    return np.tile(tile, repeats)[:height, :width]


def _ellipse(canvas: Grid, centre: tuple[int, int], radii: tuple[int, int], value: int) -> None:
    """Fill an ellipse; ``centre`` is ``(x, y)``, ``radii`` ``(rx, ry)`` in pixels."""
    (cx, cy), (rx, ry) = centre, radii
    y0, y1 = max(cy - ry, 0), min(cy + ry + 1, canvas.shape[0])
    x0, x1 = max(cx - rx, 0), min(cx + rx + 1, canvas.shape[1])
    dy = np.arange(y0, y1, dtype=np.int64)[:, None] - cy
    dx = np.arange(x0, x1, dtype=np.int64)[None, :] - cx
    inside = dx * dx * (ry * ry) + dy * dy * (rx * rx) <= rx * rx * ry * ry
    canvas[y0:y1, x0:x1][inside] = value


def _soften(canvas: Grid) -> Grid:
    """One pass of the weights 1 2 1 along each axis: edges as an imaging system leaves them."""
    for axis in (0, 1):
        canvas = (2 * canvas + np.roll(canvas, 1, axis) + np.roll(canvas, -1, axis) + 2) >> 2
    return canvas


def _bytes(canvas: Grid) -> NDArray[np.uint8]:
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _box(*corners: int) -> Prompt:
    return Prompt(box=corners)


def _points(*rows: tuple[int, int, int], box: tuple[int, int, int, int] | None = None) -> Prompt:
    """Points ``(x, y, label)``, with a box or without."""
    coords = [(x, y) for x, y, _ in rows]
    return Prompt(point_coords=coords, point_labels=[label for *_, label in rows], box=box)


def _ct_abdomen() -> tuple[NDArray[np.uint8], tuple[Prompt, ...]]:
    canvas = np.zeros((512, 512), np.int32)
    _ellipse(canvas, (256, 262), (224, 168), 70)  # fat under the skin
    _ellipse(canvas, (256, 262), (206, 150), 118)  # muscle and gut
    _ellipse(canvas, (168, 232), (98, 94), 150)  # liver
    _ellipse(canvas, (206, 262), (24, 18), 96)  # gall bladder
    _ellipse(canvas, (392, 240), (48, 40), 158)  # spleen
    _ellipse(canvas, (300, 206), (58, 36), 34)  # stomach, air and fluid
    _ellipse(canvas, (300, 222), (52, 20), 124)
    _ellipse(canvas, (172, 332), (34, 30), 182)  # kidneys
    _ellipse(canvas, (172, 336), (14, 12), 140)
    _ellipse(canvas, (346, 332), (34, 30), 182)
    _ellipse(canvas, (346, 336), (14, 12), 140)
    _ellipse(canvas, (262, 358), (36, 30), 226)  # vertebra with its canal
    _ellipse(canvas, (262, 384), (12, 10), 104)
    _ellipse(canvas, (250, 306), (16, 16), 196)  # aorta
    image = _bytes(_soften(canvas) + _noise(512, 512, 1, 18, blur=1))
    prompts = (
        _box(70, 138, 266, 326),
        _box(138, 302, 206, 362),
        _points((392, 240, 1)),
        _points((150, 220, 1), (120, 250, 1), (206, 262, 0)),
        _points((262, 346, 1), box=(226, 328, 298, 388)),
    )
    return image, prompts


def _ultrasound() -> tuple[NDArray[np.uint8], tuple[Prompt, ...]]:
    height, width = 600, 800
    canvas = np.full((height, width), 92, np.int32)
    canvas += np.arange(height, dtype=np.int32)[:, None] * -60 // height
    _ellipse(canvas, (400, 330), (170, 96), 26)  # a dark cavity in bright tissue
    _ellipse(canvas, (470, 352), (40, 30), 120)
    _ellipse(canvas, (214, 250), (60, 44), 150)
    _ellipse(canvas, (600, 240), (44, 54), 14)
    canvas[420:560, 340:460] += 28  # brighter behind the cavity
    speckle = _noise(height, width, 2, 72, blur=2)
    canvas = canvas + (canvas * speckle >> 6)
    dy = np.arange(height, dtype=np.int64)[:, None] + 90
    dx = np.arange(width, dtype=np.int64)[None, :] - 400
    radius = dx * dx + dy * dy
    sector = (radius >= 150 * 150) & (radius <= 660 * 660) & (abs(dx) * 10 <= dy * 8)
    image = _bytes(np.where(sector, _soften(canvas), 0))
    prompts = (
        _box(228, 232, 572, 428),
        _box(152, 204, 276, 296),
        _points((340, 330, 1)),
        _points((600, 240, 1), (600, 205, 1), (520, 300, 0)),
        _points((470, 352, 1), box=(428, 320, 512, 384)),
    )
    return image, prompts


_CELLS = (
    (96, 90, 46, 40), (240, 70, 38, 44), (390, 110, 52, 42), (560, 84, 44, 48),
    (150, 232, 54, 46), (318, 250, 44, 52), (486, 244, 50, 44), (70, 380, 44, 50),
    (232, 392, 52, 44), (392, 398, 46, 46), (560, 378, 54, 52),
)  # fmt: skip


def _microscopy() -> tuple[NDArray[np.uint8], tuple[Prompt, ...]]:
    height, width = 480, 640
    planes = []
    for channel, (ground, plasma, nucleus) in enumerate(
        ((226, 204, 96), (206, 148, 62), (222, 190, 138))
    ):
        canvas = np.full((height, width), ground, np.int32)
        for x, y, rx, ry in _CELLS:
            _ellipse(canvas, (x, y), (rx, ry), plasma)
            _ellipse(canvas, (x + rx // 5, y - ry // 6), (rx // 2, ry * 3 // 7), nucleus)
        planes.append(_bytes(_soften(canvas) + _noise(height, width, 3 + channel, 12, blur=1)))
    prompts = (
        _box(96, 186, 204, 278),
        _box(506, 326, 614, 430),
        _points((400, 104, 1)),
        _points((318, 210, 1), (300, 285, 1), (240, 240, 0)),
        _points((242, 386, 1), box=(206, 366, 268, 408)),
    )
    return np.ascontiguousarray(np.stack(planes, -1)), prompts


def _portrait() -> tuple[NDArray[np.uint8], tuple[Prompt, ...]]:
    height, width = 130, 96
    canvas = np.full((height, width), 40, np.int32)
    canvas += np.arange(height, dtype=np.int32)[:, None] // 4
    _ellipse(canvas, (30, 58), (18, 38), 12)  # two lungs and a heart
    _ellipse(canvas, (68, 58), (16, 36), 12)
    _ellipse(canvas, (54, 82), (20, 18), 170)
    _ellipse(canvas, (30, 40), (5, 5), 140)
    image = _bytes(_soften(canvas) + _noise(height, width, 7, 10))
    prompts = (
        _box(12, 20, 48, 96),
        _box(34, 64, 74, 100),
        _points((70, 50, 1)),
        _points((54, 84, 1), (46, 80, 1), (30, 50, 0)),
        _points((30, 40, 1), box=(24, 34, 36, 46)),
    )
    return image, prompts


def _overview() -> tuple[NDArray[np.uint8], tuple[Prompt, ...]]:
    height, width = 1080, 1440
    canvas = np.full((height, width), 24, np.int32)
    _ellipse(canvas, (720, 540), (560, 500), 96)  # a disc of tissue with bright and dark parts
    _ellipse(canvas, (470, 420), (190, 150), 168)
    _ellipse(canvas, (980, 380), (140, 170), 58)
    _ellipse(canvas, (860, 760), (230, 120), 200)
    _ellipse(canvas, (470, 420), (60, 50), 110)
    canvas[520:536, 180:1260] += 40  # a vessel, thin as they are
    canvas[200:880, 712:722] += 40
    image = _bytes(_soften(canvas) + _noise(height, width, 8, 14))
    prompts = (
        _box(280, 270, 660, 570),
        _box(630, 640, 1090, 880),
        _points((980, 300, 1)),
        _points((350, 420, 1), (600, 430, 1), (470, 420, 0)),
        _points((860, 760, 1), box=(630, 640, 1090, 880)),
    )
    return image, prompts


_MAKERS: dict[str, Callable[[], tuple[NDArray[np.uint8], tuple[Prompt, ...]]]] = {
    "ct_abdomen": _ct_abdomen,
    "ultrasound": _ultrasound,
    "microscopy": _microscopy,
    "portrait": _portrait,
    "overview": _overview,
}
PHANTOM_NAMES = tuple(_MAKERS)


def phantom_case(name: str) -> PhantomCase:
    """Draw one of :data:`PHANTOM_NAMES`.

    Raises:
        OptionError: there is no phantom of that name.
    """
    if name not in _MAKERS:
        raise OptionError(f"no phantom named {name!r}: choose one of {', '.join(PHANTOM_NAMES)}")
    image, prompts = _MAKERS[name]()
    image.flags.writeable = False
    return PhantomCase(name, image, prompts)


def phantom_cases() -> list[PhantomCase]:
    """Draw all phantoms: 512 x 512, 600 x 800, 480 x 640 x 3, 130 x 96 and 1080 x 1440 pixels."""
    return [phantom_case(name) for name in PHANTOM_NAMES]
