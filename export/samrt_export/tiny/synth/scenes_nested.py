"""Targets that fill little of their box: rings, bent bands, pairs, folded sheets, trees."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import F32, U8, Rng, chance, f32, fractal, logu, smooth, u8, uni
from .render import Scene, over, pack, paint_labels
from .scenes_colour import vessels
from .shapes import blob, curve, ellipse, fill, organ, stroke


def _clutter(rng: Rng, size: int, count: int, r_lo: float, r_hi: float) -> tuple[U8, int]:
    """A label map of overlapping organs: (S, S) labels 0..n-1, and n."""
    lab = np.zeros((size, size), dtype=np.uint8)
    for k in range(count):
        x, y = rng.uniform(-0.05, 1.05, 2) * size
        lab[organ(rng, size, float(x), float(y), size * logu(rng, r_lo, r_hi)) > 0] = k + 1
    return lab, count + 1


def _levels(rng: Rng, n: int) -> F32:
    """n grey levels, often close to each other."""
    if chance(rng, 0.5):
        return f32(np.clip(uni(rng, 0.25, 0.7) + rng.normal(0, uni(rng, 0.04, 0.2), n), 0, 1))
    return f32(rng.uniform(0.03, 0.95, n))


def _finish(rng: Rng, img: F32, masks: list[U8]) -> Scene:
    if chance(rng, 0.5):
        img = f32(img + smooth(rng, size=img.shape[0], cell=img.shape[0] * uni(rng, 0.3, 1)) * f32(
            uni(rng, 0.01, 0.08)
        ))  # fmt: skip
    return Scene(img, pack(masks))


def rings(rng: Rng, size: int) -> Scene:
    """Hollow objects: the wall, the cavity (with what grows into it) and the whole are targets."""
    s = float(size)
    lab, n = _clutter(rng, size, int(rng.integers(3, 12)), 0.04, 0.3)
    count = int(rng.choice([1, 1, 2, 3]))
    mu = _levels(rng, n + 4 * count)
    masks: list[U8] = []
    grown: list[tuple[U8, float]] = []
    taken = np.zeros((size, size), dtype=np.uint8)
    for i in range(count):
        r = s * logu(rng, 0.04, 0.36 if count == 1 else 0.18)
        cx, cy = rng.uniform(0.1, 0.9, 2) * s
        outline = blob(
            rng, float(cx), float(cy), r, aspect=uni(rng, 1, 1.6), rough=uni(rng, 0.0, 0.12)
        )
        whole = fill(size, outline)
        f = uni(rng, 0.4, 0.9)
        shift = rng.normal(0, 0.3, 2) * r * (1 - f)
        inner = f32((outline - [cx, cy]) * f + [cx, cy] + shift)
        if chance(rng, 0.3):
            inner = blob(rng, float(cx), float(cy), r * f * 0.85, rough=uni(rng, 0.02, 0.2))
        cavity = u8(fill(size, inner) & whole)
        if bool((whole & taken).any()):
            continue
        taken |= whole
        k = n + 4 * i
        if chance(rng, 0.6):  # a neighbour that clasps the wall
            b, d = uni(rng, 0, 6.28), r * uni(rng, 0.7, 1.2)
            side = fill(size, blob(
                rng, float(cx) + math.cos(b) * d, float(cy) + math.sin(b) * d,
                r * uni(rng, 0.5, 1.1), aspect=uni(rng, 1, 1.8), angle=b + math.pi / 2, rough=0.1,
            ))  # fmt: skip
            side = u8(side & (1 - whole) & (1 - (taken & (1 - whole))))
            lab[side > 0] = k
            masks.append(side)
            if chance(rng, 0.6):
                mu[k] = mu[k + 2] + rng.normal(0, 0.03)
        lab[whole > 0] = k + 1
        lab[cavity > 0] = k + 2
        if abs(float(mu[k + 1] - mu[k + 2])) < 0.08:
            mu[k + 1] = np.clip(mu[k + 2] + rng.choice([-1, 1]) * uni(rng, 0.1, 0.5), 0, 1)
        wall = u8(whole & (1 - cavity))
        masks += [wall, cavity, whole] if chance(rng, 0.6) else [wall, cavity]
        for _ in range(int(rng.integers(0, 4))):  # muscle, clot or stone inside the cavity
            t, q = uni(rng, 0, 6.28), r * f * uni(rng, 0.3, 1.0)
            lump = fill(size, blob(
                rng, float(cx + shift[0]) + math.cos(t) * q, float(cy + shift[1]) + math.sin(t) * q,
                r * f * uni(rng, 0.08, 0.35), rough=0.2,
            ))  # fmt: skip
            grown.append((u8(lump & cavity), float(mu[k + 1]) + float(rng.normal(0, 0.04))))
    img = paint_labels(rng, lab, len(mu), False, means=mu, soft=uni(rng, 0.5, 2.2), rim=0.2)
    for lump, value in grown:
        img = over(img, lump, value, soft=uni(rng, 0.7, 2.0))
    return _finish(rng, img, masks)


def bent(rng: Rng, size: int) -> Scene:
    """Long bent organs among others of nearly the same grey."""
    s = float(size)
    lab, n = _clutter(rng, size, int(rng.integers(4, 14)), 0.05, 0.25)
    count = int(rng.integers(1, 4))
    mu = _levels(rng, n + count)
    masks: list[U8] = []
    for i in range(count):
        length = s * logu(rng, 0.15, 0.8)
        a = uni(rng, 0, 6.28)
        x, y = rng.uniform(0.15, 0.85, 2) * s
        path = curve(
            rng, (float(x) - math.cos(a) * length / 2, float(y) - math.sin(a) * length / 2),
            a, length, uni(rng, 0.2, 2.2), 32,
        )  # fmt: skip
        t = np.linspace(0, 1, len(path))
        profile = 0.7 + 0.3 * np.sin(t * uni(rng, 2, 18) + uni(rng, 0, 6))
        m = np.zeros((size, size), dtype=np.uint8)
        stroke(m, path, f32(profile * length * logu(rng, 0.03, 0.16)), 1)
        if chance(rng, 0.4):
            end = path[0]
            m |= fill(size, blob(rng, float(end[0]), float(end[1]), length * uni(rng, 0.08, 0.18)))
        lab[m > 0] = n + i
        masks = [u8(old & (1 - m)) for old in masks] + [m]
    img = paint_labels(rng, lab, len(mu), False, means=mu, soft=uni(rng, 0.6, 2.5), rim=0.15)
    return _finish(rng, img, masks)


def pairs(rng: Rng, size: int) -> Scene:
    """Targets of several like parts with something else between them; each part is one as well."""
    s = float(size)
    lab, n = _clutter(rng, size, int(rng.integers(2, 9)), 0.05, 0.2)
    body = fill(size, ellipse(s / 2, s / 2, s * uni(rng, 0.4, 0.6), s * uni(rng, 0.4, 0.6)))
    base = np.zeros((size, size), dtype=np.uint8)
    base[body > 0] = 1
    lab = u8(np.where((lab > 0) & (body > 0), lab + 1, base))
    n += 2
    mu = _levels(rng, n + 3)
    cx, cy = rng.uniform(0.4, 0.6, 2) * s
    gap, r = s * uni(rng, 0.1, 0.28), s * logu(rng, 0.05, 0.2)
    turn = float(rng.choice([0.0, 0.0, math.pi / 2])) + float(rng.normal(0, 0.15))
    state = rng.bit_generator.state
    parts: list[U8] = []
    like = chance(rng, 0.6)
    for sign in (-1, 1):
        x, y = float(cx) + sign * math.cos(turn) * gap, float(cy) + sign * math.sin(turn) * gap
        if like:
            rng.bit_generator.state = state
        p = blob(rng, 0.0, 0.0, r, aspect=logu(rng, 0.4, 2.5), angle=uni(rng, 0, 3.1), rough=0.12)
        part = fill(size, f32(p * [sign, 1] + [x, y]))
        if parts:
            part &= 1 - parts[0]
        parts.append(u8(part))
    both = u8(parts[0] | parts[1])
    lab[both > 0] = n
    if chance(rng, 0.6):
        mid = fill(size, blob(rng, float(cx), float(cy), gap * uni(rng, 0.4, 0.9), rough=0.15))
        lab[u8(mid & (1 - both)) > 0] = n + 1
    masks = [both, *parts] if chance(rng, 0.6) else [both]
    img = paint_labels(rng, lab, len(mu), False, means=mu, soft=uni(rng, 0.6, 2.5), rim=0.15)
    return _finish(rng, img, masks)


def folds(rng: Rng, size: int) -> Scene:
    """Two tissues folded into each other inside one organ; both are targets, and the organ."""
    s = float(size)
    lab, n = _clutter(rng, size, int(rng.integers(1, 7)), 0.05, 0.25)
    r = s * logu(rng, 0.12, 0.45)
    cx, cy = rng.uniform(0.3, 0.7, 2) * s
    organ_mask = fill(size, blob(
        rng, float(cx), float(cy), r, aspect=uni(rng, 1, 1.5), rough=uni(rng, 0.03, 0.15)
    ))  # fmt: skip
    field = smooth(rng, size, r * uni(rng, 0.12, 0.5))
    depth = f32(cv2.distanceTransform(organ_mask, cv2.DIST_L2, 3)) / f32(max(r, 1.0))
    field = f32(field * f32(uni(rng, 0.1, 0.35)) + depth * f32(uni(rng, 0.0, 1.2)))
    level = float(np.quantile(field[organ_mask > 0], uni(rng, 0.3, 0.7)))
    inner = u8((field > level) & (organ_mask > 0))
    outer = u8(organ_mask & (1 - inner))
    mu = _levels(rng, n + 2)
    if abs(float(mu[n] - mu[n + 1])) < 0.07:
        mu[n] = np.clip(mu[n + 1] + rng.choice([-1, 1]) * uni(rng, 0.08, 0.4), 0, 1)
    lab[inner > 0] = n
    lab[outer > 0] = n + 1
    img = paint_labels(rng, lab, len(mu), False, means=mu, soft=uni(rng, 0.5, 1.8), rim=0.1)
    img = f32(img + fractal(rng, size, s * 0.1, 3, 0.6) * f32(uni(rng, 0.0, 0.03)))
    return _finish(rng, img, [inner, outer, organ_mask] if chance(rng, 0.4) else [inner, outer])


def trees(rng: Rng, size: int) -> Scene:
    """Vessels whose tree is the only target."""
    while True:
        scene = vessels(rng, size)
        thin = [layer for layer in scene.layers if _is_tree(layer)]
        if thin:
            return Scene(scene.image, thin[:1], scene.strength, scene.marks)


def _is_tree(layer: U8) -> bool:
    """One label, and most of it gone after three erosions, over a wide box."""
    if int(layer.max()) != 1:
        return False
    ys, xs = np.nonzero(layer)
    wide = (np.ptp(ys) + 1) * (np.ptp(xs) + 1) > 4 * len(ys)
    return bool(wide) and len(ys) > 300
