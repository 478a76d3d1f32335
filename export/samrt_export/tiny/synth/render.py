"""From label maps to float images, and helpers that compose images.

Images are float32 (H, W) or (H, W, 3), nominally in [0, 1]; they may leave that range a
little before degradation clips them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .fields import F32, U8, Rng, blur, chance, f32, logu, smooth, texture, u8, uni


@dataclass(frozen=True)
class Scene:
    """What a scene function returns.

    image: float32 (S, S) or (S, S, 3), about [0, 1]; layers: uint8 label maps (S, S).
    strength scales noise and blur, marks is the chance of text and calipers, warp allows a
    global smooth warp of image and layers together.
    """

    image: F32
    layers: list[U8]
    strength: float = 1.0
    marks: float = 0.1
    warp: bool = True


def lut(table: F32, lab: U8) -> F32:
    """table[lab] for table float32 (K,) or (K, 3)."""
    return f32(np.take(table, lab, axis=0, mode="clip"))


def palette(rng: Rng, n: int, colour: bool) -> F32:
    """Random intensities: float32 (n,) or (n, 3) in [0, 1], of random overall contrast."""
    shape = (n, 3) if colour else (n,)
    kind = float(rng.random())
    if kind < 0.5:
        v = rng.uniform(0, 1, shape)
    elif kind < 0.8:
        centre = rng.uniform(0.2, 0.8, shape[1:] if colour else None)
        v = centre + rng.normal(0, uni(rng, 0.06, 0.2), shape)
    else:
        c = rng.uniform(0.05, 0.95, (int(rng.integers(2, 5)), *shape[1:]))
        v = c[rng.integers(0, len(c), n)] + rng.normal(0, 0.05, shape)
    if colour and chance(rng, 0.6):
        g = v.mean(axis=1, keepdims=True)
        tint = rng.uniform(0.5, 1.2, (1, 3))
        v = g * tint + (v - g) * uni(rng, 0.1, 0.6)
    return f32(np.clip(v, 0, 1))


def times(field: F32, img: F32) -> F32:
    """Field (H, W) shaped so that it broadcasts against img (H, W) or (H, W, 3)."""
    return field if img.ndim == 2 else f32(field[:, :, None])


def rims(lab: U8, width: float) -> F32:
    """exp(-d / width), d the distance to the nearest label border: float32 in [0, 1]."""
    k = np.ones((3, 3), dtype=np.uint8)
    edge = u8(cv2.dilate(lab, k)) != u8(cv2.erode(lab, k))
    d = f32(cv2.distanceTransform(u8(~edge), cv2.DIST_L2, 3))
    return f32(np.exp(d * f32(-1.0 / max(width, 0.3))))


def paint_labels(
    rng: Rng,
    lab: U8,
    n: int,
    colour: bool,
    *,
    means: F32 | None = None,
    tex: float = 1.0,
    soft: float | None = None,
    rim: float = 0.25,
) -> F32:
    """Render a label map with labels 0..n-1.

    means: float32 (n,) or (n, 3); random when None. tex: strength of per-label texture.
    soft: partial-volume blur in pixels; random when None. rim: chance of outlined borders.
    """
    size = lab.shape[0]
    mu = palette(rng, n, colour) if means is None else means
    colour = mu.ndim == 2
    img = lut(mu, lab)
    img = blur(img, uni(rng, 0.3, 1.3) if soft is None else soft)
    strength = logu(rng, 0.01, 0.14) * tex
    for _ in range(int(rng.integers(1, 3))):
        amp = f32(np.abs(rng.normal(0, 1, n)) * strength)
        field = texture(rng, size) * lut(amp, lab)
        img += times(f32(field), img) * f32(rng.uniform(0.5, 1.2, 3) if colour else 1.0)
    if chance(rng, 0.5):
        amp = f32(rng.normal(0, 0.06, n))
        img += times(f32(smooth(rng, size, 200) * lut(amp, lab)), img)
    if chance(rng, rim):
        e = rims(lab, logu(rng, 0.8, 8.0))
        amp = (
            f32(rng.normal(0, 0.25, n)) if chance(rng, 0.5) else f32(np.full(n, rng.normal(0, 0.3)))
        )
        img += times(f32(e * lut(amp, lab)), img)
    return img


def over(img: F32, mask: U8, value: F32 | float, *, soft: float = 0.7, alpha: float = 1.0) -> F32:
    """Blend `value` (scalar, (3,), (H, W) or (H, W, 3)) over img where mask, border blurred."""
    if img.ndim == 3:
        v = f32(value)
        if v.ndim == 2:
            v = f32(v[:, :, None])
    else:
        v = f32(value)
    a = blur(f32(mask), soft)
    a = times(f32(a * f32(alpha)) if alpha != 1.0 else a, img)
    return f32(img + (v - img) * a)


def tint(
    rng: Rng,
    grey: F32,
    lo: Sequence[float],
    mid: Sequence[float],
    hi: Sequence[float],
    jitter: float = 0.1,
) -> F32:
    """Grey (H, W) to colour (H, W, 3) through three jittered anchor colours at 0, 0.5, 1."""
    pts = np.array([lo, mid, hi], dtype=np.float64) + rng.normal(0, jitter, (3, 3))
    xs = np.linspace(0, 1, 256)
    table = np.stack([np.interp(xs, [0, 0.5, 1], np.clip(pts[:, c], 0, 1)) for c in range(3)], 1)
    idx = u8(np.clip(grey * f32(255), 0, 255))
    return lut(f32(table), idx)


def random_map(rng: Rng, grey: F32) -> F32:
    """Grey (H, W) to colour (H, W, 3) with a random smooth colour map."""
    n = int(rng.integers(2, 6))
    cols = rng.uniform(0, 1, (n, 3))
    if chance(rng, 0.6):
        order = np.argsort(cols.sum(1))
        cols = cols[order]
        cols[0] *= uni(rng, 0, 1)
    xs = np.linspace(0, 1, 256)
    table = np.stack([np.interp(xs, np.linspace(0, 1, n), cols[:, c]) for c in range(3)], 1)
    return lut(f32(table), u8(np.clip(grey * f32(255), 0, 255)))


def shading(rng: Rng, mask: U8, width: float) -> F32:
    """Bump shading of a mask: float32 (H, W) about [-1, 1], lit from a random side."""
    h = blur(f32(mask), width)
    a = uni(rng, 0, 6.283)
    gx = f32(cv2.Sobel(h, cv2.CV_32F, 1, 0, ksize=3))
    gy = f32(cv2.Sobel(h, cv2.CV_32F, 0, 1, ksize=3))
    s = f32(gx * f32(np.cos(a)) + gy * f32(np.sin(a)))
    peak = max(float(np.abs(s).max()), 1e-6)
    return f32(s / f32(peak))


def pack(masks: Sequence[U8], max_layers: int = 8) -> list[U8]:
    """Place masks (uint8 0/1) into as few non-overlapping label layers as greedy finds."""
    layers: list[U8] = []
    counts: list[int] = []
    for m in masks:
        b = m > 0
        for i, lay in enumerate(layers):
            if counts[i] < 255 and not bool((lay[b] > 0).any()):
                counts[i] += 1
                lay[b] = counts[i]
                break
        else:
            if len(layers) < max_layers:
                layers.append(u8(b))
                counts.append(1)
    return layers


def components(mask: U8, min_area: int, start: int = 0) -> tuple[U8, int]:
    """Connected components of at least min_area pixels as labels start+1.. (at most 255)."""
    n, lab, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4, ltype=cv2.CV_16U)
    table = np.zeros(n, dtype=np.uint8)
    k = start
    for i in range(1, n):
        if int(stats[i, cv2.CC_STAT_AREA]) >= min_area and k < 255:
            k += 1
            table[i] = k
    return u8(table[lab]), k


def overlaps(mask: U8, others: Sequence[U8]) -> bool:
    """True if mask is empty or meets any of the other masks."""
    b = mask > 0
    return not bool(b.any()) or any(bool(o[b].any()) for o in others)


def drop_slivers(lab: U8, core: float = 0.3) -> U8:
    """Clear labels of which less than a `core` share of pixels has a uniform 3 x 3 surround."""
    k = np.ones((3, 3), dtype=np.uint8)
    same = u8(cv2.erode(lab, k)) == u8(cv2.dilate(lab, k))
    n = np.bincount(lab.ravel(), minlength=256)
    inner = np.bincount(lab[same], minlength=256)
    keep = np.where(inner >= core * n, np.arange(256), 0).astype(np.uint8)
    return u8(cv2.LUT(lab, keep))
