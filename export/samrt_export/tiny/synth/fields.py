"""Cheap random fields: smooth noise, textures, Voronoi cells.

Every field is float32 (size, size) with roughly zero mean and unit standard deviation
unless said otherwise. Smooth noise is made at low resolution and enlarged.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Rng = np.random.Generator


def f32(a: Any) -> F32:
    """Typed view of `a` as a float32 array (copies only when the dtype differs)."""
    return np.asarray(a, dtype=np.float32)


def u8(a: Any) -> U8:
    """Typed view of `a` as a uint8 array (copies only when the dtype differs)."""
    return np.asarray(a, dtype=np.uint8)


def uni(rng: Rng, lo: float, hi: float) -> float:
    """Uniform float in [lo, hi)."""
    return float(rng.uniform(lo, hi))


def logu(rng: Rng, lo: float, hi: float) -> float:
    """Log-uniform float in [lo, hi), lo > 0."""
    return math.exp(float(rng.uniform(math.log(lo), math.log(hi))))


def chance(rng: Rng, p: float) -> bool:
    """True with probability p."""
    return bool(rng.random() < p)


def blur(a: F32, sigma: float) -> F32:
    """Gaussian blur of a float32 (H,W) or (H,W,C) array; large sigmas run at low resolution."""
    if sigma < 0.2:
        return a
    if sigma > 6.0:
        h, w = a.shape[:2]
        k = sigma / 3.0
        lo = cv2.resize(a, (max(4, int(w / k)), max(4, int(h / k))), interpolation=cv2.INTER_AREA)
        lo = cv2.GaussianBlur(lo, (0, 0), 2.8)
        return f32(cv2.resize(lo, (w, h), interpolation=cv2.INTER_LINEAR))
    k2 = 2 * math.ceil(2.5 * sigma) + 1
    return f32(cv2.GaussianBlur(a, (k2, k2), sigma))


def unit(a: F32) -> F32:
    """`a` shifted and scaled to zero mean and unit standard deviation."""
    mean, std = cv2.meanStdDev(a)
    s = 1.0 / max(float(std[0][0]), 1e-6)
    return f32((a - f32(mean[0][0])) * f32(s))


def white(rng: Rng, size: int) -> F32:
    """White Gaussian noise."""
    return rng.standard_normal((size, size), dtype=np.float32)


def smooth(rng: Rng, size: int, cell: float) -> F32:
    """Isotropic smooth noise whose features are about `cell` pixels wide."""
    if cell < 2.5:
        return unit(blur(white(rng, size), 0.45 * cell))
    n = max(4, round(2.0 * size / cell))
    pad = 4
    g = f32(
        cv2.GaussianBlur(
            rng.standard_normal((n + 2 * pad, n + 2 * pad), dtype=np.float32), (7, 7), 1.1
        )
    )[pad:-pad, pad:-pad]
    return unit(f32(cv2.resize(g, (size, size), interpolation=cv2.INTER_CUBIC)))


def fractal(rng: Rng, size: int, cell: float, octaves: int = 4, gain: float = 0.6) -> F32:
    """Sum of smooth noises at cell, cell/2, ... with amplitudes falling by `gain`."""
    out = smooth(rng, size, cell)
    amp = 1.0
    for _ in range(octaves - 1):
        cell /= 2.0
        amp *= gain
        if cell < 1.5:
            break
        out += smooth(rng, size, cell) * f32(amp)
    return unit(out)


def oriented(rng: Rng, size: int, long: float, short: float, angle: float) -> F32:
    """Anisotropic noise: features `long` pixels along `angle` (radians), `short` across."""
    diag = 1.45 * size
    nx, ny = max(4, round(diag / long)), max(4, round(diag / short))
    g = rng.standard_normal((ny, nx), dtype=np.float32)
    c, s = math.cos(angle), math.sin(angle)
    ax, ay = nx / diag, ny / diag
    h = size / 2.0
    m = np.array(
        [[c * ax, s * ax, nx / 2 - (c + s) * h * ax], [-s * ay, c * ay, ny / 2 + (s - c) * h * ay]],
        dtype=np.float64,
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return unit(f32(cv2.warpAffine(g, m, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)))


def grid(size: int) -> tuple[F32, F32]:
    """Pixel coordinates (x, y), float32 (size, size), in [-1, 1]."""
    t = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    return f32(np.broadcast_to(t[None, :], (size, size))), f32(
        np.broadcast_to(t[:, None], (size, size))
    )


def ramp(rng: Rng, size: int) -> F32:
    """Linear ramp in a random direction, about [-1.4, 1.4]."""
    a = uni(rng, 0, 2 * math.pi)
    x, y = grid(size)
    return f32(x * f32(math.cos(a)) + y * f32(math.sin(a)))


def stripes(rng: Rng, size: int, period: float, wobble: float) -> F32:
    """Wavy stripes of the given period (pixels); wobble in radians."""
    arg = ramp(rng, size) * f32(math.pi * size / period)
    if wobble > 0:
        arg = f32(arg + smooth(rng, size, uni(rng, 40, 200)) * f32(wobble))
    return f32(np.sin(arg) * f32(1.4))


def voronoi(rng: Rng, size: int, pts: F32) -> tuple[F32, npt.NDArray[np.int32]]:
    """Distance to the nearest point and its id (1..N): float32 and int32 (size, size).

    pts: float32 (N, 2) pixel coordinates (x, y); points off the image are clipped away.
    """
    src = np.full((size, size), 255, dtype=np.uint8)
    p = np.round(pts).astype(np.int64)
    p = p[(p[:, 0] >= 0) & (p[:, 0] < size) & (p[:, 1] >= 0) & (p[:, 1] < size)]
    if len(p) == 0:
        p = np.array([[size // 2, size // 2]], dtype=np.int64)
    src[p[:, 1], p[:, 0]] = 0
    d, lab = cv2.distanceTransformWithLabels(src, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return f32(d), np.asarray(lab, dtype=np.int32)


def jittered(rng: Rng, size: int, step: float, jitter: float) -> F32:
    """Jittered hexagonal points covering the image: float32 (N, 2), pixels."""
    ys = np.arange(-step, size + step, step * 0.87)
    xs = np.arange(-step, size + step, step)
    gx, gy = np.meshgrid(xs, ys)
    gx = gx + (np.arange(len(ys)) % 2)[:, None] * step * 0.5
    p = np.stack([gx.ravel(), gy.ravel()], axis=1)
    return f32(p + rng.uniform(-jitter, jitter, p.shape) * step)


def warp_maps(rng: Rng, size: int, amp: float, cell: float) -> tuple[F32, F32]:
    """Absolute remap coordinates of a random smooth warp, `amp` pixels std."""
    t = np.arange(size, dtype=np.float32)
    mx = smooth(rng, size, cell) * f32(amp) + t[None, :]
    my = smooth(rng, size, cell) * f32(amp) + t[:, None]
    return f32(mx), f32(my)


def texture(rng: Rng, size: int) -> F32:
    """A random texture out of a varied family, clipped to [-3, 3]."""
    k = int(rng.integers(0, 11))
    sc = size / 512.0
    if k == 0:
        t = smooth(rng, size, logu(rng, 2, 60) * sc)
    elif k <= 2:
        t = fractal(rng, size, logu(rng, 12, 160) * sc, 4, uni(rng, 0.45, 0.9))
    elif k == 3:
        a = uni(rng, 0, math.pi)
        short = logu(rng, 2, 12) * sc
        t = oriented(rng, size, short * uni(rng, 2, 10), short, a)
    elif k == 4:
        t = stripes(rng, size, logu(rng, 5, 40) * sc, uni(rng, 0, 4))
    elif k == 5:
        p = jittered(rng, size, logu(rng, 8, 40) * sc, 0.5)
        t = unit(voronoi(rng, size, p)[0])
    elif k == 6:
        t = smooth(rng, size, logu(rng, 4, 30) * sc)
        t = unit(f32(np.maximum(t - f32(uni(rng, 0.3, 1.5)), 0)))
    elif k == 7:
        t = unit(f32(np.abs(smooth(rng, size, logu(rng, 8, 50) * sc))))
    elif k == 8:
        t = white(rng, size)
    elif k == 9:
        t = unit(f32(smooth(rng, size, logu(rng, 4, 30) * sc) > uni(rng, -0.5, 0.9)))
    else:
        t = f32(smooth(rng, size, logu(rng, 1.5, 4)) * (smooth(rng, size, 60) + f32(0.8)))
    if chance(rng, 0.3):
        t = f32(-t)
    return f32(np.clip(t, -3, 3))
