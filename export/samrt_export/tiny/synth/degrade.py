"""Image degradations: float image in, uint8 image out. Borders stay where they are."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import F32, U8, Rng, blur, chance, f32, grid, logu, oriented, smooth, u8, uni, white
from .render import random_map, times


def curve(rng: Rng, img: F32) -> F32:
    """Random monotone intensity curve on [0, 1]."""
    n = int(rng.integers(3, 6))
    ys = np.cumsum(rng.uniform(0.15, 1.0, n))
    ys = (ys - ys[0]) / (ys[-1] - ys[0])
    table = f32(np.interp(np.linspace(0, 1, 1024), np.linspace(0, 1, n), ys))
    idx = np.clip(img * f32(1023), 0, 1023).astype(np.int32)
    return f32(table[idx])


def window(rng: Rng, img: F32) -> F32:
    """Too wide (flat) or too narrow (clipped) window, or gamma."""
    k = float(rng.random())
    if k < 0.35:
        w = uni(rng, 0.35, 0.8)
        return f32(img * f32(w) + f32(uni(rng, 0, 1 - w)))
    if k < 0.6:
        w = uni(rng, 1.2, 1.9)
        return f32((img - f32(0.5)) * f32(w) + f32(uni(rng, 0.35, 0.65)))
    g = logu(rng, 0.5, 2.0)
    return f32(np.power(np.clip(img, 0, 1), f32(g)))


def noise(rng: Rng, img: F32) -> F32:
    """One random noise model."""
    size = img.shape[0]
    k = int(rng.integers(0, 7))
    s = logu(rng, 0.008, 0.11)
    if k == 0:
        return f32(img + times(white(rng, size) * f32(s), img))
    if k == 1 and img.ndim == 3:
        h = rng.standard_normal((size // 2, size // 2, 3), dtype=np.float32)
        return f32(img + f32(cv2.resize(h, (size, size))) * f32(s))
    if k <= 2:
        return f32(img + times(smooth(rng, size, logu(rng, 1.5, 5)) * f32(s), img))
    if k == 3:  # Rician
        a = f32(img + times(white(rng, size) * f32(s), img))
        b = times(white(rng, size) * f32(s), img)
        return f32(np.sqrt(a * a + b * b))
    if k == 4:  # Poisson-like
        root = np.sqrt(np.clip(img, 0.01, 1))
        return f32(img + root * times(white(rng, size) * f32(1.3 * s), img))
    if k == 5:  # speckle
        g = smooth(rng, size, logu(rng, 1.2, 4))
        return f32(img * (f32(1) + times(g * f32(2.5 * s), img)))
    short = logu(rng, 1, 3)
    ang = uni(rng, 0, 3.14) if chance(rng, 0.4) else 0.0
    return f32(
        img + times(oriented(rng, size, short * uni(rng, 4, 40), short, ang) * f32(0.7 * s), img)
    )


def illumination(rng: Rng, img: F32) -> F32:
    """Bias field or vignetting, multiplicative or additive."""
    size = img.shape[0]
    if chance(rng, 0.6):
        f = smooth(rng, size, size * uni(rng, 0.4, 1.5)) * f32(uni(rng, 0.05, 0.25))
        return f32(
            img * (f32(1) + times(f32(f), img))
            if chance(rng, 0.7)
            else img + times(f32(f * f32(0.6)), img)
        )
    x, y = grid(size)
    r2 = f32((x - f32(uni(rng, -0.4, 0.4))) ** 2 + (y - f32(uni(rng, -0.4, 0.4))) ** 2)
    return f32(img * times(f32(1 - r2 * f32(uni(rng, 0.1, 0.42))), img))


def resolution(rng: Rng, img: F32) -> F32:
    """Down then up sampling, as from a low-resolution source."""
    size = img.shape[0]
    n = max(16, int(size * logu(rng, 0.125, 0.6)))
    lo = cv2.resize(img, (n, n), interpolation=cv2.INTER_AREA)
    how = (
        cv2.INTER_NEAREST
        if chance(rng, 0.15)
        else (cv2.INTER_CUBIC if chance(rng, 0.5) else cv2.INTER_LINEAR)
    )
    return f32(cv2.resize(lo, (size, size), interpolation=how))


def motion(rng: Rng, img: F32) -> F32:
    """Short motion blur."""
    k = int(rng.integers(3, 8))
    ker = np.zeros((k, k), dtype=np.float32)
    a, c = uni(rng, 0, math.pi), (k - 1) / 2
    d = (math.cos(a) * c, math.sin(a) * c)
    cv2.line(ker, (round(c - d[0]), round(c - d[1])), (round(c + d[0]), round(c + d[1])), (1.0,))
    return f32(cv2.filter2D(img, -1, ker / max(float(ker.sum()), 1.0)))


def ringing(rng: Rng, img: F32) -> F32:
    """Gibbs-like over- and undershoot along edges: unsharp masking of one or two widths."""
    out = f32(img + (img - blur(img, uni(rng, 1.0, 3.0))) * f32(uni(rng, 0.3, 1.5)))
    if chance(rng, 0.4):
        out = f32(out - (blur(img, 2.0) - blur(img, 4.0)) * f32(uni(rng, 0.3, 1.0)))
    return out


def ghost(rng: Rng, img: F32) -> F32:
    """A faint shifted copy."""
    size = img.shape[0]
    sh = int(size * uni(rng, 0.1, 0.5))
    a = f32(uni(rng, 0.03, 0.12))
    return f32(img * (f32(1) - a) + np.roll(img, sh, axis=int(rng.integers(0, 2))) * a)


def marks(rng: Rng, img: U8) -> None:
    """Text, rulers, calipers and arrows painted in place near the image edges."""
    size = img.shape[0]
    sc = size / 512
    v = int(rng.integers(170, 256)) if chance(rng, 0.8) else int(rng.integers(0, 60))
    col = (v, v, v) if chance(rng, 0.6) else (255, 220, int(rng.integers(0, 120)))
    alphabet = "ABDEFGHLMPRST0123456789:.-/ "
    for _ in range(int(rng.integers(1, 6))):
        s = "".join(alphabet[int(i)] for i in rng.integers(0, len(alphabet), rng.integers(1, 14)))
        edge = uni(rng, 0.03, 0.12) if chance(rng, 0.5) else uni(rng, 0.88, 0.99)
        x = int(size * (uni(rng, 0.01, 0.12) if chance(rng, 0.5) else uni(rng, 0.6, 0.93)))
        cv2.putText(
            img,
            s,
            (x, int(size * edge)),
            cv2.FONT_HERSHEY_SIMPLEX,
            uni(rng, 0.3, 0.7) * sc,
            col,
            1,
            cv2.LINE_AA,
        )
    if chance(rng, 0.35):
        x = int(size * (uni(rng, 0.01, 0.05) if chance(rng, 0.5) else uni(rng, 0.94, 0.98)))
        step = int(size * uni(rng, 0.03, 0.1))
        for i, y in enumerate(range(int(size * 0.1), int(size * 0.9), max(step, 4))):
            ln = int(sc * (8 if i % 5 == 0 else 4))
            cv2.line(img, (x - ln, y), (x + ln, y), col, 1)
    if chance(rng, 0.3):
        for _ in range(int(rng.integers(1, 3)) * 2):
            x, y = (int(t) for t in rng.integers(int(0.15 * size), int(0.85 * size), 2))
            r = max(2, int(4 * sc))
            cv2.line(img, (x - r, y), (x + r, y), col, 1)
            cv2.line(img, (x, y - r), (x, y + r), col, 1)


def borders(rng: Rng, img: F32) -> F32:
    """Thin black or white margins on some sides (targets below are kept as they were)."""
    size = img.shape[0]
    v = f32(0.0 if chance(rng, 0.85) else 1.0)
    out = img.copy()
    for side in range(4):
        if chance(rng, 0.4):
            n = int(size * uni(rng, 0.005, 0.03))
            if n:
                (out, out[::-1], out.swapaxes(0, 1), out.swapaxes(0, 1)[::-1])[side][:n] = v
    return f32(out)


def jpeg(rng: Rng, img: U8) -> U8:
    """JPEG round trip at a random quality."""
    ok, buf = cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(18, 90))])
    if not ok:
        return img
    flag = cv2.IMREAD_GRAYSCALE if img.ndim == 2 else cv2.IMREAD_COLOR
    back = cv2.imdecode(buf, flag)
    return img if back is None else u8(back)


def recolour(rng: Rng, img: F32) -> F32:
    """Grey <-> colour and channel mixing, at random."""
    if img.ndim == 2:
        if chance(rng, 0.12):
            if chance(rng, 0.5):
                return random_map(rng, img)
            c = rng.uniform(0.5, 1.1, 3)
            return f32(img[:, :, None] * f32(c))
        return img
    if chance(rng, 0.18):
        w = rng.dirichlet([1.5, 2.5, 1.0])
        return f32(img @ f32(w))
    if chance(rng, 0.4):
        m = np.eye(3) + rng.normal(0, 0.08, (3, 3))
        img = f32(img @ f32(m.T))
    if chance(rng, 0.08):
        img = f32(img[:, :, rng.permutation(3)])
    if chance(rng, 0.5):
        g = f32(img.mean(axis=2, keepdims=True))
        img = f32(g + (img - g) * f32(uni(rng, 0.4, 1.5)))
    if chance(rng, 0.4):
        img = f32(img * f32(rng.uniform(0.8, 1.2, 3)))
    return img


def degrade(rng: Rng, img: F32, *, strength: float = 1.0, marks_p: float = 0.12) -> U8:
    """Random subset of all degradations: float32 (H,W[,3]) about [0,1] -> uint8 same shape.

    strength scales the chance of each noise and blur step (0 = none).
    """
    p = strength * float(rng.choice([0.2, 0.7, 1.0, 1.4]))
    img = recolour(rng, img)
    if chance(rng, 0.25):
        img = illumination(rng, img)
    if chance(rng, 0.35 * p):
        img = blur(img, logu(rng, 0.4, 2.8))
    elif chance(rng, 0.06 * p):
        img = motion(rng, img)
    if chance(rng, 0.08 * p):
        img = ghost(rng, img)
    for q in (0.6, 0.2):
        if chance(rng, q * p):
            img = noise(rng, img)
    if chance(rng, 0.3 * p):
        img = resolution(rng, img)
    if chance(rng, 0.1 * p):
        img = ringing(rng, img)
    if chance(rng, 0.35):
        img = window(rng, img)
    if chance(rng, 0.15):
        img = curve(rng, img)
    if chance(rng, 0.05):
        img = f32(1 - img)
    if chance(rng, 0.05):
        img = borders(rng, img)
    out = u8(np.clip(img * f32(255) + f32(0.5), 0, 255).astype(np.uint8))
    if chance(rng, marks_p):
        out = np.ascontiguousarray(out)
        marks(rng, out)
    if chance(rng, 0.3):
        out = jpeg(rng, out)
    return out
