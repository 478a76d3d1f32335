"""Simulated users: boxes, clicks, corrections in error regions, previous masks.

Coordinates are pixels of the model frame, (x, y), on pixel centres (a box is inclusive), as
SamPredictor takes them.  Rows are padded with label -1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
XY = tuple[float, float]


@dataclass
class Draft:
    """One growing prompt."""

    box: tuple[float, float, float, float] | None = None
    points: list[XY] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, point: XY, label: int) -> None:
        """Append a click."""
        self.points.append(point)
        self.labels.append(label)


def tight_box(mask: U8) -> tuple[float, float, float, float]:
    """Inclusive (x0, y0, x1, y1) of a non-empty mask (h, w)."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(xs[0]), float(ys[0]), float(xs[-1]), float(ys[-1])


def jitter_box(
    rng: np.random.Generator, box: tuple[float, float, float, float], share: float, size: int
) -> tuple[float, float, float, float]:
    """Move every edge by up to +-`share` of the side (at least one pixel), inside the frame."""
    x0, y0, x1, y1 = box
    dx, dy = max(1.0, (x1 - x0) * share), max(1.0, (y1 - y0) * share)
    mx, my = rng.uniform(-dx, dx, 2), rng.uniform(-dy, dy, 2)
    nx0, nx1 = np.clip([x0 + mx[0], x1 + mx[1]], 0, size - 1)
    ny0, ny1 = np.clip([y0 + my[0], y1 + my[1]], 0, size - 1)
    if nx1 - nx0 < 2 or ny1 - ny0 < 2:
        return box
    return float(nx0), float(ny0), float(nx1), float(ny1)


def centre_point(mask: U8) -> XY:
    """Centre of mass if it is inside, else the pixel deepest inside."""
    ys, xs = np.nonzero(mask)
    cx, cy = float(xs.mean()), float(ys.mean())
    if mask[round(cy), round(cx)]:
        return cx, cy
    return deepest(mask)


def deepest(mask: U8) -> XY:
    """The pixel farthest from the border of the mask and of the frame."""
    depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)


def random_point(rng: np.random.Generator, mask: U8) -> XY:
    """Uniform over the pixels of the mask."""
    flat = np.flatnonzero(mask)
    y, x = divmod(int(flat[int(rng.integers(len(flat)))]), mask.shape[1])
    return float(x), float(y)


def first_prompt(rng: np.random.Generator, mask: U8, box_share: float = 0.6) -> Draft:
    """A box, clicks, or a box with clicks for a non-empty mask (S, S)."""
    size = mask.shape[0]
    draft = Draft()
    kind = rng.random()
    if kind < box_share:
        box = tight_box(mask)
        how = rng.random()
        draft.box = jitter_box(rng, box, 0.0 if how < 0.55 else (0.1 if how < 0.85 else 0.2), size)
        if rng.random() < 0.85:
            return draft
    positives = 1 if draft.box or rng.random() < 0.65 else int(rng.integers(2, 6))
    for i in range(positives):
        central = i == 0 and rng.random() < 0.5
        draft.add(centre_point(mask) if central else random_point(rng, mask), 1)
    if rng.random() < (0.3 if positives > 1 or draft.box else 0.08):
        ring = _surroundings(mask)
        for _ in range(int(rng.integers(1, 4))):
            if ring.any():
                draft.add(random_point(rng, ring), 0)
    return draft


def _surroundings(mask: U8) -> U8:
    x0, y0, x1, y1 = (int(v) for v in tight_box(mask))
    w, h = x1 - x0 + 1, y1 - y0 + 1
    near = np.zeros_like(mask)
    near[max(0, y0 - h // 2) : y1 + h // 2 + 1, max(0, x0 - w // 2) : x1 + w // 2 + 1] = 1
    grown: U8 = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    return near & (1 - grown)


def correct(rng: np.random.Generator, draft: Draft, truth: U8, guess: U8, deep: bool) -> bool:
    """Add one click where `guess` is wrong (the larger of missed and extra); False if nothing is.

    truth and guess are (s, s) uint8 on a grid of half the frame's size.  `deep` clicks at the pixel
    farthest from the error's border, otherwise at random in it.
    """
    missed, extra = truth & (1 - guess), guess & (1 - truth)
    n_missed, n_extra = int(missed.sum()), int(extra.sum())
    if n_missed + n_extra == 0:
        return False
    region, label = (missed, 1) if n_missed >= n_extra else (extra, 0)
    x, y = deepest(region) if deep else random_point(rng, region)
    draft.add((2 * x + 0.5, 2 * y + 0.5), label)
    return True


def pack(drafts: list[Draft]) -> tuple[F32, F32]:
    """Coordinates (N, P, 2) and labels (N, P): clicks, then box corners or one padding point."""
    rows: list[tuple[list[XY], list[int]]] = []
    for d in drafts:
        points, labels = list(d.points), list(d.labels)
        if d.box is not None:
            points += [d.box[:2], d.box[2:]]
            labels += [2, 3]
        else:
            points, labels = [*points, (0.0, 0.0)], [*labels, -1]
        rows.append((points, labels))
    width = max(len(r[1]) for r in rows)
    coords = np.zeros((len(rows), width, 2), np.float32)
    labels_out = np.full((len(rows), width), -1, np.float32)
    for i, (points, labels) in enumerate(rows):
        coords[i, : len(labels)] = points
        labels_out[i, : len(labels)] = labels
    return coords, labels_out
