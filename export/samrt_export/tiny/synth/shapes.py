"""Random shapes as polygons and masks.

Polygons are float32 (N, 2) arrays of pixel coordinates (x, y); masks are uint8 (size, size)
with values 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .fields import F32, U8, Rng, chance, f32, logu, u8, uni

_FIX = 16.0


def _fixed(poly: F32) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.round(np.clip(poly, -4e3, 8e3) * _FIX).astype(np.int32)


def paint(lab: U8, polys: Sequence[F32], value: int) -> None:
    """Fill polygons (even-odd between them) into `lab` in place with `value`."""
    cv2.fillPoly(lab, [_fixed(p) for p in polys], (int(value),), shift=4)


def fill(size: int, *polys: F32) -> U8:
    """Mask of the union of the polygons."""
    m = np.zeros((size, size), dtype=np.uint8)
    for p in polys:
        paint(m, [p], 1)
    return m


def blob(
    rng: Rng,
    cx: float,
    cy: float,
    r: float,
    *,
    aspect: float = 1.0,
    angle: float | None = None,
    rough: float = 0.12,
    lobes: int = 6,
) -> F32:
    """Star-convex outline: an ellipse whose radius has Fourier noise of strength `rough`."""
    n = int(np.clip(r * 1.2, 20, 96))
    th = np.linspace(0, 2 * math.pi, n, endpoint=False)
    k = np.arange(2, lobes + 2)[:, None]
    amp = rng.normal(0, 1, (lobes, 1)) * rough / k**0.8
    rad = 1 + (amp * np.cos(k * th[None] + rng.uniform(0, 2 * math.pi, (lobes, 1)))).sum(0)
    rad = np.maximum(rad, 0.25)
    a = uni(rng, 0, 2 * math.pi) if angle is None else angle
    s = math.sqrt(max(aspect, 1e-3))
    x, y = rad * np.cos(th) * r * s, rad * np.sin(th) * r / s
    c, d = math.cos(a), math.sin(a)
    return f32(np.stack([cx + c * x - d * y, cy + d * x + c * y], axis=1))


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> F32:
    """Plain ellipse outline."""
    th = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    x, y = np.cos(th) * rx, np.sin(th) * ry
    c, d = math.cos(angle), math.sin(angle)
    return f32(np.stack([cx + c * x - d * y, cy + d * x + c * y], axis=1))


def box(cx: float, cy: float, w: float, h: float, angle: float = 0.0, power: float = 4.0) -> F32:
    """Superellipse: a rounded rectangle of half sizes (w, h); power 2 is an ellipse."""
    th = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    c, s = np.cos(th), np.sin(th)
    x = np.sign(c) * np.abs(c) ** (2 / power) * w
    y = np.sign(s) * np.abs(s) ** (2 / power) * h
    ca, sa = math.cos(angle), math.sin(angle)
    return f32(np.stack([cx + ca * x - sa * y, cy + sa * x + ca * y], axis=1))


def curve(
    rng: Rng, p0: tuple[float, float], angle: float, length: float, bend: float, n: int = 40
) -> F32:
    """Smooth random path of n points; `bend` is the total turning in radians (std)."""
    t = np.linspace(0, 1, n)
    turn = rng.normal(0, bend) * t + rng.normal(0, bend) * 0.5 * np.sin(
        2 * math.pi * t * uni(rng, 0.4, 1.3) + uni(rng, 0, 6.28)
    )
    a = angle + turn - turn[0]
    step = length / (n - 1)
    x = p0[0] + np.concatenate([[0], np.cumsum(np.cos(a[:-1]))]) * step
    y = p0[1] + np.concatenate([[0], np.cumsum(np.sin(a[:-1]))]) * step
    return f32(np.stack([x, y], axis=1))


def band(path: F32, half: F32) -> F32:
    """Outline of a stroke along `path` (N, 2) with half widths `half` (N,)."""
    d = np.gradient(path.astype(np.float64), axis=0)
    d /= np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-6)
    nrm = np.stack([-d[:, 1], d[:, 0]], axis=1) * half[:, None]
    return f32(np.concatenate([path + nrm, (path - nrm)[::-1]]))


def stroke(lab: U8, path: F32, half: F32, value: int) -> None:
    """Paint a stroke of varying half width into `lab` in place, with round joins."""
    for i in range(len(path) - 1):
        w = max(1, round(float(half[i]) * 2))
        p, q = _fixed(path[i]), _fixed(path[i + 1])
        cv2.line(
            lab, (int(p[0]), int(p[1])), (int(q[0]), int(q[1])), (int(value),), w, cv2.LINE_8, 4
        )


def tube_mask(rng: Rng, size: int, cx: float, cy: float, r: float) -> U8:
    """An elongated bent organ of overall radius about r."""
    a = uni(rng, 0, 2 * math.pi)
    ln = r * uni(rng, 1.8, 3.2)
    p = curve(
        rng, (cx - math.cos(a) * ln / 2, cy - math.sin(a) * ln / 2), a, ln, uni(rng, 0.3, 1.8), 28
    )
    t = np.linspace(0, 1, len(p))
    prof = 0.55 + 0.45 * np.sin(math.pi * t) + 0.15 * np.sin(t * uni(rng, 4, 16) + uni(rng, 0, 6))
    m = np.zeros((size, size), dtype=np.uint8)
    stroke(m, p, f32(prof * r * uni(rng, 0.12, 0.4)), 1)
    return m


def star(rng: Rng, cx: float, cy: float, r: float) -> F32:
    """A random straight-edged polygon or spiky star."""
    n = int(rng.integers(3, 9))
    if chance(rng, 0.5):
        th = np.sort(rng.uniform(0, 2 * math.pi, n))
        rad = rng.uniform(0.6, 1.0, n)
    else:
        th = np.linspace(0, 2 * math.pi, 2 * n, endpoint=False) + uni(rng, 0, 6)
        rad = np.where(np.arange(2 * n) % 2 == 0, 1.0, uni(rng, 0.35, 0.8))
    return f32(np.stack([cx + np.cos(th) * rad * r, cy + np.sin(th) * rad * r], axis=1))


def bean_mask(rng: Rng, size: int, cx: float, cy: float, r: float) -> U8:
    """Kidney, crescent or horseshoe: a blob with a blob bitten out of its side."""
    a = uni(rng, 0, 2 * math.pi)
    asp = uni(rng, 1.2, 2.0)
    m = fill(size, blob(rng, cx, cy, r, aspect=asp, angle=a, rough=0.08))
    off = r * uni(rng, 0.5, 1.0)
    s = 1 if chance(rng, 0.5) else -1
    bx, by = cx - math.sin(a) * off * s, cy + math.cos(a) * off * s
    paint(
        m,
        [blob(rng, bx, by, r * uni(rng, 0.3, 0.7), aspect=uni(rng, 1, 1.8), angle=a, rough=0.08)],
        0,
    )
    return m


def organ(rng: Rng, size: int, cx: float, cy: float, r: float) -> U8:
    """A random organ-like mask of radius about r pixels."""
    k = float(rng.random())
    if k < 0.45:
        return fill(
            size, blob(rng, cx, cy, r, aspect=logu(rng, 0.5, 2.0), rough=uni(rng, 0.02, 0.3))
        )
    if k < 0.60:
        a, d = uni(rng, 0, 6.28), r * uni(rng, 0.3, 0.6)
        return fill(
            size,
            *(
                blob(
                    rng,
                    cx + s * math.cos(a) * d,
                    cy + s * math.sin(a) * d,
                    r * uni(rng, 0.45, 0.8),
                    aspect=logu(rng, 0.6, 1.6),
                )
                for s in (-1, 1)
            ),
        )
    if k < 0.78:
        return bean_mask(rng, size, cx, cy, r)
    if k < 0.95:
        return tube_mask(rng, size, cx, cy, r)
    return fill(size, blob(rng, cx, cy, r, rough=uni(rng, 0.3, 0.5), lobes=10))


def shape(rng: Rng, size: int, cx: float, cy: float, r: float) -> U8:
    """Any shape at all: organ, polygon, star, rounded box, ring, glyph."""
    k = float(rng.random())
    if k < 0.4:
        return organ(rng, size, cx, cy, r)
    if k < 0.58:
        return fill(size, star(rng, cx, cy, r))
    if k < 0.75:
        return fill(
            size, box(cx, cy, r, r * logu(rng, 0.2, 1.0), uni(rng, 0, 3.14), logu(rng, 2.0, 12))
        )
    if k < 0.9:
        a, asp = uni(rng, 0, 3.14), uni(rng, 1, 1.8)
        m = fill(size, blob(rng, cx, cy, r, aspect=asp, angle=a, rough=0.06))
        q = uni(rng, 0.35, 0.85)
        paint(m, [blob(rng, cx, cy, r * q, aspect=asp, angle=a, rough=0.06)], 0)
        return m
    m = np.zeros((size, size), dtype=np.uint8)
    ch = "ABCEHKSTXYZ03568&?@"[int(rng.integers(0, 19))]
    sc = r / 11.0
    cv2.putText(
        m,
        ch,
        (int(cx - 10 * sc), int(cy + 10 * sc)),
        cv2.FONT_HERSHEY_DUPLEX,
        sc,
        (1,),
        max(2, int(r * uni(rng, 0.15, 0.4))),
    )
    return u8(m > 0)


@dataclass(frozen=True)
class Branch:
    """One vessel branch: path float32 (N, 2), half widths float32 (N,), depth from the root."""

    path: F32
    half: F32
    depth: int


def tree(
    rng: Rng,
    p0: tuple[float, float],
    angle: float,
    length: float,
    half: float,
    *,
    depth: int = 4,
    bend: float = 0.5,
    limit: int = 60,
) -> list[Branch]:
    """A branching tree with tapering widths grown from p0."""
    out: list[Branch] = []
    todo = [(p0, angle, length, half, 0)]
    while todo and len(out) < limit:
        p, a, ln, w, d = todo.pop(0)
        n = max(6, int(ln / 7))
        path = curve(rng, p, a, ln * uni(rng, 0.7, 1.3), bend, n)
        w1 = max(w * uni(rng, 0.6, 0.9), 0.5)
        out.append(Branch(path, f32(np.linspace(w, w1, n)), d))
        if d + 1 >= depth or w1 < 0.55:
            continue
        end = path[-1]
        dirn = math.atan2(float(end[1] - path[-2, 1]), float(end[0] - path[-2, 0]))
        spread = uni(rng, 0.25, 0.8)
        for s in (-1.0, 1.0):
            todo.append(
                (
                    (float(end[0]), float(end[1])),
                    dirn + s * spread * uni(rng, 0.5, 1.3),
                    ln * uni(rng, 0.6, 0.95),
                    w1 * uni(rng, 0.6, 0.9),
                    d + 1,
                )
            )
        for _ in range(int(rng.integers(0, 3))):
            i = int(rng.integers(n // 3, n - 1))
            loc = math.atan2(float(path[i, 1] - path[i - 1, 1]), float(path[i, 0] - path[i - 1, 0]))
            s = 1.0 if chance(rng, 0.5) else -1.0
            todo.append(
                (
                    (float(path[i, 0]), float(path[i, 1])),
                    loc + s * uni(rng, 0.5, 1.3),
                    ln * uni(rng, 0.3, 0.7),
                    max(0.5, w * uni(rng, 0.25, 0.6)),
                    d + 1,
                )
            )
    return out
