"""The six ways of prompting of COSMOS 1050K (Huang et al. 2024, sections 3.3 and 4.1).

S1 everything mode; S2 one positive point; S3 five positive; S4 five positive and five negative;
S5 one box; S6 one box and one positive point.

Points: the centre of mass comes first if it lies inside the mask; the others, or all of them, are
sampled uniformly from the row-major list of mask pixels. "Uniformly" leaves the phase open: here
the list is cut into equal parts and the middle of each is taken, so that no point lies on the
first or last pixel. Negative points come by the same rule from the pixels outside the mask in the
tight box enlarged twice about its centre. The box is tight with inclusive maxima.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.evaluation.dataset import tight_box
from samrt.manifest import PromptSpec
from samrt.types import Prompt

__all__ = [
    "STRATEGIES",
    "Jitter",
    "build_prompt",
    "check_strategies",
    "jitter_box",
    "negative_points",
    "parse_jitter",
    "positive_points",
    "usable_strategies",
]

STRATEGIES = {
    "S1": "everything",
    "S2": "1 point",
    "S3": "5 points",
    "S4": "5 + 5 points",
    "S5": "box",
    "S6": "box + point",
}
_COUNTS = {"S2": (1, 0), "S3": (5, 0), "S4": (5, 5), "S5": (0, 0), "S6": (1, 0)}
_BOXED = ("S5", "S6")
_ENLARGED = 2.0
Box = tuple[float, float, float, float]


def _sample(flat: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The middle entries of ``count`` equal parts; all entries if there are fewer."""
    if count < 1 or len(flat) <= count:
        return flat[: max(count, 0)]
    middle: NDArray[np.int64] = ((np.arange(count) + 0.5) * (len(flat) / count)).astype(np.int64)
    return flat[middle]


def _points(flat: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    return np.stack([flat % width, flat // width], axis=1).astype(np.float64)


def positive_points(mask: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """``(count, 2)`` points ``(x, y)`` inside a non-empty ``(H, W)`` mask, always the same ones."""
    ys, xs = np.nonzero(mask)
    x, y = int(np.floor(xs.mean() + 0.5)), int(np.floor(ys.mean() + 0.5))
    first = np.array([[x, y]], np.float64) if mask[y, x] else np.zeros((0, 2))
    rest = _sample(np.flatnonzero(mask), count - len(first))
    return np.concatenate([first, _points(rest, mask.shape[1])])[:count]


def negative_points(mask: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Up to ``count`` points ``(x, y)`` near the mask and outside it; none if it fills all."""
    x0, y0, x1, y1 = tight_box(mask)
    height, width = mask.shape
    more_x = (_ENLARGED - 1.0) * (x1 - x0 + 1) / 2.0
    more_y = (_ENLARGED - 1.0) * (y1 - y0 + 1) / 2.0
    left, right = max(0, int(np.floor(x0 - more_x))), min(width, int(np.ceil(x1 + more_x)) + 1)
    top, bottom = max(0, int(np.floor(y0 - more_y))), min(height, int(np.ceil(y1 + more_y)) + 1)
    outside = np.zeros(mask.shape, np.bool_)
    outside[top:bottom, left:right] = ~mask[top:bottom, left:right]
    return _points(_sample(np.flatnonzero(outside), count), width)


def _widened(box: Box, size: tuple[int, int]) -> Box:
    """A box of one row or column covers the whole pixel, since an engine wants some area."""
    x0, y0, x1, y1 = box
    x1 = x1 if x1 > x0 else min(x0 + 1.0, float(size[1]))
    y1 = y1 if y1 > y0 else min(y0 + 1.0, float(size[0]))
    return x0, y0, x1, y1


def build_prompt(strategy: str, mask: NDArray[np.bool_], box: Sequence[float]) -> Prompt:
    """The prompt of one strategy other than S1.

    Args:
        strategy: ``S2`` to ``S6``.
        mask: ``(H, W)`` bool, the target, not empty.
        box: XYXY, the tight box with inclusive maxima, or the one that came with the data.
    """
    positive, negative = _COUNTS[strategy]
    size = (mask.shape[0], mask.shape[1])
    coords, labels = None, None
    if positive:
        inside = positive_points(mask, positive)
        outside = negative_points(mask, negative) if negative else np.zeros((0, 2))
        coords = np.concatenate([inside, outside])
        labels = np.array([1] * len(inside) + [0] * len(outside))
    given = None
    if strategy in _BOXED:
        given = _widened((float(box[0]), float(box[1]), float(box[2]), float(box[3])), size)
    return Prompt(box=given, point_coords=coords, point_labels=labels)


def _lacks(strategy: str, spec: PromptSpec) -> str | None:
    """What a model would have to take for a strategy, if it does not."""
    if strategy != "S5" and not spec.points:
        return "points"
    if strategy == "S4" and not spec.negative_points:
        return "negative points"
    if strategy in _BOXED and not spec.box:
        return "boxes"
    if strategy == "S6" and not spec.box_and_points:
        return "a box together with points"
    return None


def usable_strategies(spec: PromptSpec) -> tuple[str, ...]:
    """S2 to S6 as far as the model takes their prompts. S1 is left to be asked for: it is slow."""
    return tuple(s for s in STRATEGIES if s != "S1" and _lacks(s, spec) is None)


def check_strategies(names: Sequence[str], spec: PromptSpec) -> tuple[str, ...]:
    """The strategies, each once, in the order of the protocol.

    Raises:
        OptionError: an unknown one, none, or one whose prompts the model does not take.
    """
    for name in names:
        if name not in STRATEGIES:
            raise OptionError(f"unknown strategy {name!r}: expected {', '.join(STRATEGIES)}")
        lacking = _lacks(name, spec)
        if lacking:
            can = ", ".join(usable_strategies(spec)) or "none of them"
            raise OptionError(
                f"{name} ({STRATEGIES[name]}) needs a model that takes {lacking}: "
                f"this one can do {can}"
            )
    chosen = tuple(s for s in STRATEGIES if s in names)
    if not chosen:
        raise OptionError("no strategy is left: the model takes neither boxes nor points")
    return chosen


@dataclass(frozen=True, slots=True)
class Jitter:
    """How far the edges of a box are moved: ``low`` to ``high`` pixels of the image."""

    low: float
    high: float

    @property
    def name(self) -> str:
        """``10-20``, or ``20`` where both ends are the same."""
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"


def parse_jitter(text: str) -> tuple[Jitter, ...]:
    """``0-10,10-20,20-30`` or ``5,10,20``; ``none`` for no jitter.

    Raises:
        OptionError: not that.
    """
    if text == "none":
        return ()
    levels = []
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        try:
            level = Jitter(float(low), float(high or low))
        except ValueError:
            raise OptionError(f"jitter {part!r} is not LOW-HIGH or a number of pixels") from None
        if not 0 <= level.low <= level.high <= 10000:
            raise OptionError(f"jitter {part!r} must have 0 <= LOW <= HIGH <= 10000 pixels")
        levels.append(level)
    if len({level.name for level in levels}) != len(levels):
        raise OptionError(f"jitter {text!r} names a level twice")
    return tuple(levels)


def jitter_box(
    rng: np.random.Generator, box: Sequence[float], jitter: Jitter, size: tuple[int, int]
) -> Box:
    """Move each edge of a box by itself, inwards or outwards (section 4.10, table 8).

    The box stays on the image and keeps its order; edges that would meet stay a pixel apart.

    Args:
        rng: source of the distances, uniform in the level, and of the signs.
        box: XYXY.
        jitter: the level.
        size: ``(H, W)`` of the image.
    """
    moves = rng.uniform(jitter.low, jitter.high, 4) * rng.choice((-1.0, 1.0), 4)
    x0, y0, x1, y1 = (float(v) + float(m) for v, m in zip(box, moves, strict=True))
    x0, x1 = _ordered(x0, x1, size[1])
    y0, y1 = _ordered(y0, y1, size[0])
    return x0, y0, x1, y1


def _ordered(low: float, high: float, length: int) -> tuple[float, float]:
    low, high = sorted((min(max(low, 0.0), length - 1.0), min(max(high, 0.0), length - 1.0)))
    if high - low < 1.0:
        high = min(low + 1.0, float(length))
        low = high - 1.0
    return low, high
