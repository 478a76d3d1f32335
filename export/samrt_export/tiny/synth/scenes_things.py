"""Generic objects on textured backgrounds: occlusion, camouflage, internal parts."""

from __future__ import annotations

import cv2
import numpy as np

from .fields import F32, U8, Rng, chance, f32, logu, ramp, smooth, texture, u8, uni
from .render import Scene, lut, over, palette, rims, shading, times
from .shapes import blob, curve, fill, shape, stroke


def _value(rng: Rng, base: F32, tex: F32, colour: bool, amp: float) -> F32:
    v = times(f32(tex * f32(amp)), np.zeros((1, 1, 3), np.float32) if colour else tex)
    return f32(v + base)


def things(rng: Rng, size: int) -> Scene:
    """Random objects painted one over another; the target is the visible part."""
    s = float(size)
    colour = chance(rng, 0.62)
    n = int(rng.choice([1, 2, 3, 5, 8, 14]))
    pal = palette(rng, n + 1, colour)
    bank = [texture(rng, size) for _ in range(3)]
    camo = chance(rng, 0.2)
    amp0 = logu(rng, 0.01, 0.22)
    img = _value(rng, pal[0], bank[0], colour, amp0)
    if chance(rng, 0.5):
        img = f32(img + times(ramp(rng, size) * f32(uni(rng, -0.2, 0.2)), img))
    for _ in range(int(rng.choice([0, 0, 1, 3]))):  # clutter that is never a target
        x, y = rng.uniform(0, 1, 2) * s
        m = shape(rng, size, float(x), float(y), s * uni(rng, 0.03, 0.2))
        img = over(img, m, palette(rng, 1, colour)[0], soft=uni(rng, 0.4, 3), alpha=0.5)
    lab = np.zeros((size, size), dtype=np.uint8)
    extra: list[U8] = []
    soft = logu(rng, 0.3, 2.0)
    scale = 0.45 if n <= 2 else 0.28 if n <= 5 else 0.16
    for i in range(n):
        r = s * logu(rng, 0.018, scale)
        x, y = rng.uniform(-0.02, 1.02, 2) * s
        thin = chance(rng, 0.12)
        if thin:
            p = curve(
                rng,
                (float(x), float(y)),
                uni(rng, 0, 6.28),
                s * uni(rng, 0.2, 0.9),
                uni(rng, 0.2, 2.0),
            )
            m = np.zeros((size, size), dtype=np.uint8)
            stroke(m, p, f32(np.full(40, logu(rng, 0.9, 6) * s / 512)), 1)
        else:
            m = shape(rng, size, float(x), float(y), r)
            if chance(rng, 0.06):  # two-component target
                x2, y2 = rng.uniform(0.1, 0.9, 2) * s
                m = u8(m | shape(rng, size, float(x2), float(y2), r))
        k = i + 1
        if camo:  # texture-defined border: same mean, other texture
            amp = max(amp0, 0.1)
            val = _value(rng, pal[0], bank[1 + i % 2], colour, amp)
        else:
            col = pal[i + 1]
            gap = col - pal[0]
            if float(np.abs(gap).max()) < 0.05:
                col = f32(col + 0.15 * (1 if float(pal[0].mean()) < 0.5 else -1))
            val = _value(rng, col, bank[i % 3], colour, logu(rng, 0.005, 0.15))
        if chance(rng, 0.3):
            val = f32(
                val
                + times(ramp(rng, size) * f32(uni(rng, -0.25, 0.25) * s / (r + 0.1 * s) * 0.3), val)
            )
        img = over(img, m, val, soft=soft)
        lab[m > 0] = k
        for e in extra:
            e[m > 0] = 0
        if not thin and chance(rng, 0.45):  # internal parts: edges that are not the border
            for _ in range(int(rng.integers(1, 4))):
                px, py = rng.normal(0, 0.35, 2) * r
                part = u8(
                    shape(rng, size, float(x + px), float(y + py), r * uni(rng, 0.12, 0.45)) & m
                )
                img = over(img, part, palette(rng, 1, colour)[0], soft=soft, alpha=uni(rng, 0.4, 1))
                if chance(rng, 0.35):
                    extra.append(part.copy())
        if chance(rng, 0.25):
            img = f32(
                img + times(shading(rng, m, max(1.0, r * 0.15)) * f32(uni(rng, 0.05, 0.3)), img)
            )
    if chance(rng, 0.15):
        img = f32(img + times(rims(lab, uni(rng, 0.6, 3)) * f32(uni(rng, -0.4, 0.4)), img))
    layers = [lab]
    sub = np.zeros((size, size), dtype=np.uint8)
    for j, e in enumerate(extra[:40]):
        sub[e > 0] = j + 1
    if extra:
        layers.append(sub)
    return Scene(img, layers, strength=0.8)


def soft_blobs(rng: Rng, size: int) -> Scene:
    """A few low-contrast blobs with fuzzy borders in a smooth or noisy surround."""
    s = float(size)
    colour = chance(rng, 0.4)
    base = palette(rng, 1, colour)[0]
    img = _value(rng, base, texture(rng, size), colour, logu(rng, 0.01, 0.06))
    img = f32(img + times(smooth(rng, size, s * 0.4) * f32(uni(rng, 0.0, 0.08)), img))
    lab = np.zeros((size, size), dtype=np.uint8)
    sign = 1 if float(base.mean()) < 0.5 else -1
    for k in range(int(rng.choice([1, 1, 2, 4]))):
        r = s * logu(rng, 0.025, 0.3)
        x, y = rng.uniform(0.1, 0.9, 2) * s
        m = fill(
            size,
            blob(
                rng,
                float(x),
                float(y),
                r,
                aspect=logu(rng, 0.5, 2),
                rough=uni(rng, 0.05, 0.35),
                lobes=9,
            ),
        )
        delta = f32(rng.normal(0, 0.03, 3)) if colour else f32(0.0)
        c = f32(base + sign * logu(rng, 0.06, 0.4) + delta)
        img = over(
            img,
            m,
            _value(rng, c, texture(rng, size), colour, logu(rng, 0.01, 0.08)),
            soft=min(logu(rng, 0.6, 7), r * 0.3),
        )
        lab[m > 0] = k + 1
    return Scene(img, [lab])


def checker(rng: Rng, size: int) -> Scene:
    """Piecewise regions: Voronoi-like polygons of straight borders with varied fills."""
    n = int(rng.integers(4, 40))
    lab = np.zeros((size, size), dtype=np.uint8)
    p = rng.uniform(0, size, (n, 2)).astype(np.float32)
    src = np.full((size, size), 255, dtype=np.uint8)
    q = np.clip(p.astype(np.int64), 0, size - 1)
    src[q[:, 1], q[:, 0]] = 0
    ids = cv2.distanceTransformWithLabels(src, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    lab[:] = np.asarray(ids)
    pal = palette(rng, n + 1, True)
    t = texture(rng, size)
    amp = f32(rng.uniform(-0.1, 0.1, n + 1))
    img = f32(lut(pal, lab) + (t * lut(amp, lab))[:, :, None])
    return Scene(img, [lab])
