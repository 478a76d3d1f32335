"""Targets made of zones: heart chambers and their wall, cores with halos, lumps on mucosa.

What they teach: the box says which zone is meant; inner edges, highlights and shadows are not
borders.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import F32, U8, Rng, blur, chance, f32, fractal, grid, logu, smooth, u8, uni
from .render import Scene, over, overlaps, pack, paint_labels, shading, tint
from .shapes import blob, fill, organ


def hearts(rng: Rng, size: int) -> Scene:
    """Short axis of a heart: left cavity with muscles in it, its wall, the crescent beside it."""
    s = float(size)
    lab = np.zeros((size, size), dtype=np.uint8)
    n = int(rng.integers(4, 14))
    for k in range(1, n):
        x, y = rng.uniform(-0.05, 1.05, 2) * s
        lab[organ(rng, size, float(x), float(y), s * logu(rng, 0.04, 0.3)) > 0] = k
    dark, muscle, blood = sorted(float(v) for v in rng.uniform(0.03, 0.9, 3))
    if blood - muscle < 0.08:
        blood = min(0.98, muscle + uni(rng, 0.08, 0.4))
    if chance(rng, 0.25):
        blood, muscle = muscle, blood
    levels = np.array([dark, muscle, blood, dark])
    mu = f32(np.clip(rng.choice(levels, n + 4) + rng.normal(0, 0.06, n + 4), 0, 1))
    r = s * logu(rng, 0.03, 0.24)
    cx, cy = rng.uniform(0.2, 0.8, 2) * s
    f = uni(rng, 0.5, 0.9)
    aspect, tilt = uni(rng, 1, 1.35), uni(rng, 0, 3.14)
    outline = blob(
        rng, float(cx), float(cy), r, aspect=aspect, angle=tilt, rough=uni(rng, 0.0, 0.06)
    )
    whole = fill(size, outline)
    middle = np.array([cx, cy]) + rng.normal(0, 0.2, 2) * r * (1 - f)
    inner = f32((outline - [cx, cy]) * f + middle)
    cavity = u8(fill(size, inner) & whole)
    wall = u8(whole & (1 - cavity))
    a = uni(rng, 0, 6.283)
    d = r * uni(rng, 0.55, 1.0)
    side = fill(size, blob(
        rng, float(cx) + math.cos(a) * d, float(cy) + math.sin(a) * d, r * uni(rng, 0.7, 1.25),
        aspect=uni(rng, 1.0, 1.7), angle=a + math.pi / 2, rough=uni(rng, 0.02, 0.14),
    ))  # fmt: skip
    skin = max(1.0, r * uni(rng, 0.02, 0.12))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(skin) + 1,) * 2)
    hull = u8(cv2.dilate(side, kernel))
    lab[hull > 0] = n
    lab[side > 0] = n + 1
    lab[whole > 0] = n + 2
    lab[cavity > 0] = n + 3
    mu[n], mu[n + 2] = muscle + rng.normal(0, 0.04), muscle
    mu[n + 1], mu[n + 3] = blood + rng.normal(0, 0.05), blood
    img = paint_labels(
        rng, lab, n + 4, False, means=mu, soft=uni(rng, 0.6, max(0.8, r * 0.06)), rim=0.15
    )
    side = u8(side & (1 - whole))
    for region, centre, reach in ((cavity, middle, r * f), (side, np.array([cx, cy]), d + r * 0.5)):
        for _ in range(int(rng.integers(0, 6))):  # papillary muscles and trabeculae
            t, q = uni(rng, 0, 6.283), reach * uni(rng, 0.25, 1.0)
            lump = fill(size, blob(
                rng, float(centre[0]) + math.cos(t) * q, float(centre[1]) + math.sin(t) * q,
                reach * uni(rng, 0.06, 0.28), aspect=uni(rng, 1, 2), rough=0.2,
            ))  # fmt: skip
            img = over(img, u8(lump & region), muscle + float(rng.normal(0, 0.05)), soft=1.0)
    if chance(rng, 0.4):  # swirls of flow
        swirl = smooth(rng, size, r * uni(rng, 0.15, 0.6)) * f32(abs(blood - muscle))
        img = f32(img + swirl * blur(f32(cavity | side), 1.0) * f32(uni(rng, 0.05, 0.3)))
    if chance(rng, 0.25):
        img = blur(f32(img), logu(rng, 0.6, 3.0))
    masks = [wall, cavity, side]
    return Scene(img, pack([*masks, whole] if chance(rng, 0.25) else masks), strength=0.8)


def _ground(rng: Rng, size: int, colour: bool) -> F32:
    """Uneven background, grey or of one tissue colour."""
    s = float(size)
    g = f32(uni(rng, 0.2, 0.8) + fractal(rng, size, s * uni(rng, 0.1, 0.5), 4, 0.6) * f32(0.05))
    for _ in range(int(rng.integers(0, 8))):
        x, y = rng.uniform(0, 1, 2) * s
        m = organ(rng, size, float(x), float(y), s * logu(rng, 0.04, 0.3))
        g = over(g, m, float(rng.uniform(0.1, 0.95)), soft=uni(rng, 1, 8), alpha=uni(rng, 0.1, 0.9))
    if not colour:
        return g
    base = rng.uniform(0.25, 1.0, 3)
    return f32(np.clip(g, 0, 1)[:, :, None] * f32(base) + f32(1 - base) * f32(0.2))


def cores(rng: Rng, size: int) -> Scene:
    """Roundish objects of two or three fuzzy zones; every zone's outline is a target."""
    s = float(size)
    colour = chance(rng, 0.45)
    img = _ground(rng, size, colour)
    taken: list[U8] = []
    masks: list[U8] = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        r = s * logu(rng, 0.03, 0.4)
        x, y = rng.uniform(0.12, 0.88, 2) * s
        outline = blob(
            rng, float(x), float(y), r, aspect=logu(rng, 0.6, 1.7), rough=uni(rng, 0.0, 0.12)
        )
        outer = fill(size, outline)
        if overlaps(outer, taken):
            continue
        taken.append(outer)
        mean = f32(img[outer > 0].mean(axis=0))
        shift = f32(rng.normal(0, 1, mean.shape) * uni(rng, 0.04, 0.3))
        soft = min(logu(rng, 0.6, 8), r * 0.12)
        img = over(img, outer, f32(np.clip(mean + shift, 0, 1)), soft=soft, alpha=uni(rng, 0.5, 1))
        zones = [outer]
        for _ in range(int(rng.choice([0, 1, 1, 2]))):
            k = uni(rng, 0.3, 0.85)
            off = rng.normal(0, 0.35, 2) * r * (1 - k)
            if chance(rng, 0.5):
                zone = fill(size, f32((outline - [x, y]) * k + [x, y] + off))
            else:
                zone = fill(size, blob(
                    rng, float(x + off[0]), float(y + off[1]), r * k * 0.9, rough=uni(rng, 0, 0.3)
                ))  # fmt: skip
            zone = u8(zone & zones[-1])
            if not zone.any():
                continue
            value = f32(np.clip(mean + rng.normal(0, 0.25, mean.shape), 0, 1))
            img = over(img, zone, value, soft=soft * uni(rng, 0.5, 2), alpha=uni(rng, 0.4, 1))
            zones.append(zone)
        grain = fractal(rng, size, max(r * uni(rng, 0.1, 0.6), 4), 3, 0.7)
        spread = blur(f32(outer), soft) * grain * f32(uni(rng, 0.0, 0.09))
        img = f32(img + (spread[:, :, None] if colour else spread))
        masks += zones[: 1 + int(chance(rng, 0.5)) * 2]
    return Scene(img, pack(masks), strength=0.9)


def lumps(rng: Rng, size: int) -> Scene:
    """Lumps of the mucosa's own colour: shown by shading and a partial rim, often half in shadow.

    Several lumps can be one target together.
    """
    s = float(size)
    g = f32(0.5 + fractal(rng, size, s * uni(rng, 0.2, 0.6), 5, 0.6) * f32(uni(rng, 0.03, 0.1)))
    x, y = grid(size)
    lx, ly = rng.uniform(-0.8, 0.8, 2)
    d = f32(np.sqrt((x - f32(lx)) ** 2 + (y - f32(ly)) ** 2))
    if chance(rng, 0.6):
        waves = d * f32(uni(rng, 5, 14)) + smooth(rng, size, s * 0.3) * f32(uni(rng, 0.8, 2.4))
        g = f32(g + np.maximum(np.sin(waves), -0.3) * f32(uni(rng, 0.02, 0.12)))
    masks: list[U8] = []
    hue = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3]))):
        r = s * logu(rng, 0.05, 0.34)
        px, py = rng.uniform(0.12, 0.88, 2) * s
        m = fill(size, blob(
            rng, float(px), float(py), r, aspect=logu(rng, 0.55, 1.8), rough=uni(rng, 0.0, 0.1)
        ))  # fmt: skip
        if overlaps(m, masks):
            continue
        soft = min(logu(rng, 0.7, 4), r * 0.1)
        a = blur(f32(m), soft)
        depth = f32(np.minimum(cv2.distanceTransform(m, cv2.DIST_L2, 5) / f32(r), 1))
        dome = f32(np.sqrt(np.maximum(1 - (1 - depth) ** 2, 0)))
        flat = f32(g[m > 0].mean())
        body = f32(flat + (g - flat) * f32(uni(rng, 0.2, 0.8)))
        body = f32(
            body
            + dome * f32(uni(rng, -0.05, 0.22))
            + shading(rng, m, r * uni(rng, 0.2, 0.6)) * f32(uni(rng, 0.02, 0.2))
            + fractal(rng, size, max(r * 0.4, 5), 3, 0.7) * f32(uni(rng, 0.0, 0.05))
        )
        g = f32(g + (body - g) * a)
        ring = f32(np.exp(-np.abs(blur(f32(m), r * 0.05) - f32(0.5)) * 9))
        part = blur(f32(smooth(rng, size, r * 1.5) > uni(rng, -1.5, 0.8)), 3)  # the rim fades
        g = f32(g - ring * part * f32(uni(rng, 0.0, 0.16)))
        if chance(rng, 0.4):  # pale or reddened patch on the lump: not a border
            q = rng.normal(0, 0.4, 2) * r
            patch = organ(rng, size, float(px + q[0]), float(py + q[1]), r * uni(rng, 0.3, 0.7))
            g = over(g, u8(patch & m), flat + float(rng.normal(0, 0.12)), soft=r * 0.05, alpha=0.7)
        hue += a * f32(rng.normal(0, 0.03))
        masks.append(m)
    if chance(rng, 0.6):  # uneven light: a broad shadow across everything
        g = f32(g * (1 - blur(f32(smooth(rng, size, s * 0.5) > 0.3), s * 0.05) * f32(
            uni(rng, 0.1, 0.6)
        )))  # fmt: skip
    img = tint(
        rng, f32(np.clip(g, 0, 1)), (0.12, 0.03, 0.02), (0.7, 0.34, 0.26), (1.0, 0.85, 0.7), 0.1
    )
    img = f32(img + hue[:, :, None] * f32([0.5, -1.0, -0.8]))
    if chance(rng, 0.8):
        spots = smooth(rng, size, logu(rng, 5, 22)) + (g - f32(g.mean())) * f32(3)
        img = over(img, u8(spots > uni(rng, 2.0, 3.0)), 1.0, soft=0.8)
    if chance(rng, 0.5):
        c = int(s * uni(rng, 0.08, 0.25))
        view = np.zeros((size, size), dtype=np.uint8)
        e = size - 1
        corners = [(c, 0), (e - c, 0), (e, c), (e, e - c), (e - c, e), (c, e), (0, e - c), (0, c)]
        cv2.fillPoly(view, [np.array(corners, dtype=np.int32)], (1,))
        img = f32(img * blur(f32(view), 0.8)[:, :, None])
        masks = [u8(m & view) for m in masks]
    together = u8(np.clip(np.sum(masks, axis=0), 0, 1))
    layers = pack([together] if len(masks) > 1 and chance(rng, 0.7) else masks)
    return Scene(img, layers, strength=0.7)
