"""One object through a volume: a box on one slice, then from slice to slice, up and down.

The mask found on a slice, widened by a margin, is the box for the next slice. Of the model's
candidate masks the one counts that it scores highest and that overlaps most with the mask before.
A SAM answers every box with something, also where the object has ended, so each step is judged by
rules, and the reason for stopping is told. The next slices are encoded while the present one is
decoded; at most a few embeddings exist at any time, and masks are kept as bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError, PromptError
from samrt.types import Box, ImageEmbedding, Prompt

if TYPE_CHECKING:
    from samrt.predictor import Predictor

__all__ = ["PropagationRules", "SliceMask", "VolumeMask", "propagate"]

_EDGE = 1.5


@dataclass(frozen=True, slots=True)
class PropagationRules:
    """When to go on to the next slice, and with which box.

    Attributes:
        margin: share of the mask's width and height that its box is widened by on each side.
        margin_px: least widening in pixels.
        refine: ask a second time with the box of the first answer, because a wide box lowers the
            scores of models that were trained with tight ones.
        min_score: predicted IoU below which a slice is not believed.
        min_overlap: least IoU of the masks of neighbouring slices.
        max_growth: largest ratio of their areas, either way.
        min_contrast: least share of the first slice's contrast. Contrast is the mean grey level
            inside the mask minus that of the rest of its widened box; where the first slice has
            less than one grey level of it, this rule is off.

    Raises:
        OptionError: a number outside its range.
    """

    margin: float = 0.1
    margin_px: float = 2.0
    refine: bool = True
    min_score: float = 0.5
    min_overlap: float = 0.3
    max_growth: float = 3.0
    min_contrast: float = 0.35

    def __post_init__(self) -> None:
        """Refuse rules that mean nothing."""
        shares = ("min_score", "min_overlap", "min_contrast")
        for name in ("margin", "margin_px", *shares):
            value = getattr(self, name)
            if not 0 <= value <= (1 if name in shares else 1e6):
                raise OptionError(f"{name} is {value}, expected 0 to 1, or above 0 for margins")
        if not self.max_growth >= 1:
            raise OptionError(f"max_growth is {self.max_growth}, expected at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class SliceMask:
    """The object on one slice.

    Attributes:
        index: slice number.
        score: predicted IoU.
        stability: see :class:`samrt.Prediction`.
        overlap: IoU with the mask of the neighbour it came from; ``None`` on the first slice.
        area_px: pixels.
        box: ``(x0, y0, x1, y1)`` around the mask, far edges beyond the last pixel.
        prompt_box: the box that was asked.
        bits: the mask, packed by rows.
        size: ``(H, W)``.
    """

    index: int
    score: float
    stability: float
    overlap: float | None
    area_px: int
    box: Box
    prompt_box: Box
    bits: NDArray[np.uint8]
    size: tuple[int, int]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``(H, W)`` bool, new every time."""
        height, width = self.size
        return np.unpackbits(self.bits, count=height * width).reshape(height, width).astype(bool)


@dataclass(frozen=True, slots=True, eq=False)
class VolumeMask:
    """An object in a stack of slices.

    Attributes:
        slices: by ascending slice number, without gaps.
        start: slice that was prompted.
        stopped: ``"up"`` and ``"down"`` -> why propagation ended there.
        encode_ms: time in the encoder, all slices; it overlaps with that of the decoder.
        decode_ms: time in the decoder and after it.
        encoded: slices that went through the encoder.
        warnings: remarks of the predictor, each once.
    """

    slices: tuple[SliceMask, ...]
    start: int
    stopped: dict[str, str]
    encode_ms: float
    decode_ms: float
    encoded: int
    warnings: tuple[str, ...]

    def fill(self, target: NDArray[np.bool_]) -> None:
        """Write the masks into a ``(slices, H, W)`` bool array, which may be a view."""
        for item in self.slices:
            target[item.index] = item.mask


def propagate(
    engine: Predictor,
    planes: Callable[[int], NDArray[Any]],
    *,
    count: int,
    start: int,
    box: Sequence[float],
    window: tuple[float, float] | None = None,
    first: int = 0,
    last: int | None = None,
    bounds: Sequence[float] | None = None,
    rules: PropagationRules | None = None,
    ahead: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> VolumeMask:
    """Segment an object on one slice and follow it up and down.

    Args:
        engine: a model that takes boxes.
        planes: slice number -> ``(H, W)`` values; called from another thread, in order.
        count: number of slices.
        start: slice that the box is on.
        box: ``(x0, y0, x1, y1)`` in pixels of that slice.
        window: values shown black and white; ``None`` for uint8 grey levels.
        first: lowest slice to go to.
        last: highest slice to go to, the last one if ``None``.
        bounds: ``(x0, y0, x1, y1)`` that no box may leave.
        rules: when to stop.
        ahead: slices that are encoded before their turn, while the present one is decoded; 0 to
            16. Each way, as many encodings are in vain when propagation stops.
        progress: told about each slice.

    Raises:
        OptionError: slices that do not exist, or a model that takes no boxes.
        PromptError: the box does not fit the slice, or nothing is found in it.
        ImageError: a slice cannot be used.
        BackendError: the runtime failed.
    """
    last = count - 1 if last is None else last
    if not 0 <= first <= start <= last < count:
        raise OptionError(
            f"slices {first} to {last} with the start {start} do not fit a volume of {count} "
            "slices: expected 0 <= first <= start <= last"
        )
    if not engine.manifest.prompts.box:
        raise OptionError("this model takes no boxes: a volume needs one that does")
    if not 0 <= ahead <= 16:
        raise OptionError(f"ahead is {ahead}, expected 0 to 16")
    job = _Job(engine, planes, window, rules or PropagationRules(), bounds, ahead, progress)
    job.total = last - first + 1
    with job:
        return job.run(start, first, last, Prompt(box=list(box)))


class _Job:
    """What one propagation holds while it runs."""

    def __init__(
        self,
        engine: Predictor,
        planes: Callable[[int], NDArray[Any]],
        window: tuple[float, float] | None,
        rules: PropagationRules,
        bounds: Sequence[float] | None,
        ahead: int,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._engine, self._planes, self._window = engine, planes, window
        self._rules, self._bounds, self._ahead = rules, bounds, ahead
        self._progress, self.total, self._visited = progress, 1, set[int]()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="samrt-encode")
        self._encode_ms = self._decode_ms = 0.0
        self._encoded = 0
        self._remarks: dict[str, None] = {}
        self._contrast = 0.0

    def __enter__(self) -> _Job:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, start: int, first: int, last: int, prompt: Prompt) -> VolumeMask:
        """The prompted slice, then both ways."""
        embedding, grey = self._encode(start)
        found = self._ask(embedding, prompt, start, None)
        if found.area_px == 0:
            raise PromptError(f"nothing is found in the box on slice {start}: choose another box")
        self._contrast = self._contrast_of(grey, found)
        slices, stopped = [found], {}
        ways = {"up": range(start + 1, last + 1), "down": range(start - 1, first - 1, -1)}
        for name, path in ways.items():
            items, stopped[name] = self._follow(found, path)
            slices += items
        return VolumeMask(
            slices=tuple(sorted(slices, key=lambda item: item.index)),
            start=start,
            stopped=stopped,
            encode_ms=self._encode_ms,
            decode_ms=self._decode_ms,
            encoded=self._encoded,
            warnings=tuple(self._remarks),
        )

    def _follow(self, seed: SliceMask, path: range) -> tuple[list[SliceMask], str]:
        """Masks along a path of slices, and why it ended."""
        items: list[SliceMask] = []
        before = seed
        for index, (embedding, grey) in self._encoded_along(path):
            box = self._box_around(before, self._rules.margin, self._rules.margin_px)
            prompt = Prompt(box=box)
            found = self._ask(embedding, prompt, index, before.mask)
            if self._rules.refine and found.area_px:
                again = Prompt(box=self._box_around(found, 0.0, 1.0))
                found = self._ask(embedding, again, index, before.mask)
            reason = self._judge(found, before, grey)
            if reason:
                return items, f"slice {index}: {reason}"
            items.append(found)
            before = found
        return items, "end of the range"

    def _encoded_along(
        self, path: range
    ) -> Iterator[tuple[int, tuple[ImageEmbedding, NDArray[Any]]]]:
        """Slices with their embeddings, a few of them encoded ahead of their turn."""
        waiting: deque[tuple[int, Future[tuple[ImageEmbedding, NDArray[Any]]]]] = deque()
        coming = iter(path)
        try:
            for index in coming:
                waiting.append((index, self._pool.submit(self._encode, index)))
                if len(waiting) > self._ahead:
                    ready, future = waiting.popleft()
                    yield ready, future.result()
            while waiting:
                ready, future = waiting.popleft()
                yield ready, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def _encode(self, index: int) -> tuple[ImageEmbedding, NDArray[Any]]:
        plane = np.ascontiguousarray(self._planes(index))
        begin = perf_counter()
        embedding = self._engine.encode(plane, window=self._window)
        self._encode_ms += (perf_counter() - begin) * 1000.0
        self._encoded += 1
        return embedding, plane

    def _ask(
        self,
        embedding: ImageEmbedding,
        prompt: Prompt,
        index: int,
        before: NDArray[np.bool_] | None,
    ) -> SliceMask:
        begin = perf_counter()
        answer = self._engine.decode(embedding, prompt)[0]
        overlaps = [None if before is None else _iou(mask, before) for mask in answer.masks]
        worth = [float(s) + (o or 0.0) for s, o in zip(answer.scores, overlaps, strict=True)]
        best = answer.best if before is None else int(np.argmax(worth))
        self._remarks.update(dict.fromkeys((*embedding.warnings, *answer.warnings)))
        self._decode_ms += (perf_counter() - begin) * 1000.0
        self._visited.add(index)
        if self._progress is not None:
            self._progress("slices", min(len(self._visited), self.total), self.total)
        x0, y0, x1, y1 = (float(v) for v in answer.boxes[best])
        height, width = answer.masks.shape[1:]
        return SliceMask(
            index=index,
            score=float(answer.scores[best]),
            stability=float(answer.stability[best]),
            overlap=overlaps[best],
            area_px=int(answer.areas_px[best]),
            box=(x0, y0, x1, y1),
            prompt_box=prompt.box or (0.0, 0.0, float(width), float(height)),
            bits=np.packbits(answer.masks[best]),
            size=(int(height), int(width)),
        )

    def _box_around(self, before: SliceMask, share: float, least: float) -> Box:
        """The mask's box, widened, inside the slice and the bounds."""
        x0, y0, x1, y1 = _widened(before.box, share, least)
        height, width = before.size
        limits = self._bounds or (0.0, 0.0, float(width), float(height))
        box = (max(x0, limits[0]), max(y0, limits[1]), min(x1, limits[2]), min(y1, limits[3]))
        return box if box[0] < box[2] and box[1] < box[3] else before.prompt_box

    def _judge(self, found: SliceMask, before: SliceMask, grey: NDArray[Any]) -> str | None:
        """Why a slice does not belong to the object any more, or ``None``."""
        rules = self._rules
        if found.area_px == 0:
            return "nothing found"
        if found.score < rules.min_score:
            return f"predicted IoU {found.score:.2f} is below {rules.min_score:g}"
        if (found.overlap or 0.0) < rules.min_overlap:
            return f"overlap {found.overlap or 0.0:.2f} with its neighbour is below " + (
                f"{rules.min_overlap:g}"
            )
        ratio = found.area_px / before.area_px
        if not 1 / rules.max_growth <= ratio <= rules.max_growth:
            return f"area changes {ratio:.2f} times"
        if abs(self._contrast) >= 1.0:
            share = self._contrast_of(grey, found) / self._contrast
            if share < rules.min_contrast:
                return f"contrast falls to {share:.2f} of the first slice's"
        return None

    def _contrast_of(self, grey: NDArray[Any], found: SliceMask) -> float:
        """Mean grey level (0..255) in the mask minus that around it in the widened box."""
        x0, y0, x1, y1 = _widened(found.box, self._rules.margin, self._rules.margin_px)
        height, width = found.size
        rows = slice(max(0, int(y0)), min(height, int(y1 + _EDGE)))
        columns = slice(max(0, int(x0)), min(width, int(x1 + _EDGE)))
        mask = found.mask[rows, columns]
        low, high = self._window or (0.0, 255.0)
        part = np.clip((grey[rows, columns].astype(np.float64) - low) / (high - low), 0, 1) * 255
        if mask.all() or not mask.any():
            return 0.0
        return float(part[mask].mean() - part[~mask].mean())


def _widened(box: Box, share: float, least: float) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = max(share * (x1 - x0), least), max(share * (y1 - y0), least)
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 0.0
