"""Vessel trees (fundus, angiography) and colour lesions (skin, mucosa)."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import (
    U8,
    Rng,
    blur,
    chance,
    f32,
    fractal,
    grid,
    logu,
    oriented,
    ramp,
    smooth,
    texture,
    u8,
    uni,
)
from .render import Scene, over, overlaps, pack, rims, shading, times, tint
from .shapes import Branch, blob, curve, fill, organ, stroke, tree


def _draw(size: int, branches: list[Branch]) -> tuple[U8, U8]:
    """Tree mask (0/1) and branch ids (1..255)."""
    ids = np.zeros((size, size), dtype=np.uint8)
    for i, b in enumerate(reversed(branches)):
        stroke(ids, b.path, b.half, (len(branches) - 1 - i) % 255 + 1)
    return u8(ids > 0), ids


def _view(rng: Rng, size: int, shape: str) -> U8:
    """Field-of-view mask: 'full', 'circle', 'cut' (circle cut flat), 'octagon', 'rounded'."""
    m = np.zeros((size, size), dtype=np.uint8)
    h = size / 2
    if shape == "full":
        m[:] = 1
    elif shape in ("circle", "cut"):
        r = h * (uni(rng, 0.9, 1.02) if shape == "circle" else uni(rng, 1.0, 1.15))
        cv2.circle(m, (int(h + rng.normal(0, 4)), int(h + rng.normal(0, 4))), int(r), (1,), -1)
    elif shape == "octagon":
        c, o = size * uni(rng, 0.08, 0.3), size * uni(rng, 0, 0.06)
        e = size - o
        p = [
            (o + c, o),
            (e - c, o),
            (e, o + c),
            (e, e - c),
            (e - c, e),
            (o + c, e),
            (o, e - c),
            (o, o + c),
        ]
        cv2.fillPoly(m, [np.array(p, dtype=np.int32)], (1,))
    else:
        o = int(size * uni(rng, 0.01, 0.08))
        m[o : size - o, o : size - o] = 1
    return m


def fundus(rng: Rng, size: int) -> Scene:
    """Retina-like: orange disc, optic disc and cup, vessel tree, fovea, lesions."""
    s = float(size)
    fov = _view(rng, size, str(rng.choice(["circle", "circle", "circle", "cut", "full"])))
    zoom = 1.0 if chance(rng, 0.6) else uni(rng, 1.3, 3.5)
    g = f32(0.55 + fractal(rng, size, s * 0.3, 4, 0.6) * f32(uni(rng, 0.02, 0.09)))
    x, y = grid(size)
    g -= f32((x * x + y * y) * f32(uni(rng, 0.0, 0.3)))
    img = tint(rng, g, (0.15, 0.04, 0.02), (0.75, 0.36, 0.16), (1.0, 0.7, 0.4), 0.08)
    side = 1 if chance(rng, 0.5) else -1
    ox, oy = s * (0.5 + side * uni(rng, 0.0, 0.36)), s * uni(rng, 0.4, 0.6)
    r = s * uni(rng, 0.055, 0.1) * zoom
    fx = ox - side * s * 0.4 * zoom
    fov_f = fill(size, blob(rng, fx, oy, r))
    img = over(img, fov_f, f32([0.35, 0.13, 0.06]), soft=r * 0.5, alpha=uni(rng, 0.2, 0.7))
    branches: list[Branch] = []
    w = s * uni(rng, 0.005, 0.011) * math.sqrt(zoom)
    for sg in (-1, 1):
        for _ in range(int(rng.integers(2, 5))):
            a = sg * uni(rng, 0.4, 2.2) + (math.pi if side > 0 else 0.0)
            branches += tree(
                rng,
                (ox, oy),
                a,
                s * uni(rng, 0.2, 0.4) * zoom,
                w * uni(rng, 0.6, 1),
                depth=int(rng.integers(3, 6)),
                bend=uni(rng, 0.3, 0.8),
                limit=40,
            )
    disc = fill(size, blob(rng, ox, oy, r, aspect=uni(rng, 0.8, 1.1), angle=0.0, rough=0.03))
    cup = fill(size, blob(rng, ox + side * r * 0.1, oy, r * uni(rng, 0.3, 0.75), rough=0.05))
    cup = u8(cup & disc)
    img = over(
        img,
        disc,
        f32(np.clip(np.array([0.98, 0.8, 0.5]) + rng.normal(0, 0.08, 3), 0, 1)),
        soft=r * uni(rng, 0.02, 0.15),
        alpha=uni(rng, 0.35, 0.95),
    )
    img = over(img, cup, f32([1.0, 0.95, 0.78]), soft=r * 0.08, alpha=uni(rng, 0.1, 0.8))
    vm, ids = _draw(size, branches)
    vcol = f32(np.clip(np.array([0.5, 0.1, 0.06]) + rng.normal(0, 0.06, 3), 0, 1))
    img = over(img, vm, vcol, soft=uni(rng, 0.5, 1.0), alpha=uni(rng, 0.45, 0.95))
    if chance(rng, 0.4):
        core = u8(cv2.erode(vm, np.ones((3, 3), dtype=np.uint8)))
        img = over(img, core, f32([0.85, 0.4, 0.25]), soft=1.0, alpha=0.4)
    layers = [u8(vm & fov)] * chance(rng, 0.75) + pack([u8(disc & fov), u8(cup & fov)])
    if chance(rng, 0.45):  # lesions, one multi-part target and its parts
        les = np.zeros((size, size), dtype=np.uint8)
        bright = chance(rng, 0.5)
        lr = s * logu(rng, 0.008, 0.05)
        c = rng.uniform(0.2, 0.8, 2) * s
        for _i in range(int(rng.integers(1, 25))):
            px, py = c + rng.normal(0, 0.12, 2) * s
            les |= fill(size, blob(rng, float(px), float(py), lr * logu(rng, 0.5, 1.5), rough=0.3))
        les = u8(les & fov)
        col = f32([1.0, 0.9, 0.5]) if bright else f32([0.4, 0.08, 0.04])
        img = over(img, les, col, soft=uni(rng, 0.6, 1.5), alpha=uni(rng, 0.5, 1))
        layers.append(les)
    if chance(rng, 0.1):
        layers.append(u8(ids * fov))
    img = f32(img + (texture(rng, size) * f32(0.012))[:, :, None])
    img = f32(img * blur(f32(fov), 1.0)[:, :, None])
    if chance(rng, 0.08):
        layers.append(fov)
    return Scene(img, layers, strength=0.7, marks=0.03)


def angio(rng: Rng, size: int) -> Scene:
    """Vessel trees bright on dark, dark on grey, or a fine OCTA-like mesh."""
    s = float(size)
    branches: list[Branch] = []
    w = s * logu(rng, 0.003, 0.022)
    for _ in range(int(rng.choice([1, 1, 2, 3, 5]))):
        e = int(rng.integers(0, 4))
        t = uni(rng, 0.1, 0.9) * s
        p0 = [(t, 0.0), (t, s), (0.0, t), (s, t)][e]
        a = math.atan2(s / 2 - p0[1], s / 2 - p0[0]) + rng.normal(0, 0.4)
        branches += tree(
            rng,
            p0,
            a,
            s * uni(rng, 0.18, 0.4),
            w,
            depth=int(rng.integers(2, 6)),
            bend=uni(rng, 0.2, 1.2),
            limit=50,
        )
    vm, ids = _draw(size, branches)
    bg = uni(rng, 0.0, 0.75)
    delta = uni(rng, 0.15, 0.6) * (1 if bg < 0.35 else -1)
    cloud = fractal(rng, size, s * logu(rng, 0.03, 0.5), 4, 0.7)
    img = f32(bg + cloud * f32(logu(rng, 0.01, 0.06)))
    if chance(rng, 0.4):
        for _ in range(int(rng.integers(1, 5))):
            x, y = rng.uniform(0, 1, 2) * s
            img = over(
                img,
                organ(rng, size, float(x), float(y), s * uni(rng, 0.1, 0.35)),
                bg + rng.normal(0, 0.12),
                soft=uni(rng, 1, 8),
                alpha=uni(rng, 0.3, 1),
            )
    if chance(rng, 0.25):  # capillary mesh around
        f = np.abs(smooth(rng, size, uni(rng, 6, 16)))
        img += f32(np.exp(-f * 6) * f32(delta * uni(rng, 0.2, 0.5)))
    dist = f32(cv2.distanceTransform(vm, cv2.DIST_L2, 3))
    thick = f32(0.65 + 0.35 * np.clip(dist / f32(max(w, 1)), 0, 1))
    img = over(img, vm, f32(img + delta * thick), soft=uni(rng, 0.5, 1.2))
    masks = [vm]
    if (chance(rng, 0.3) and delta < 0) or chance(rng, 0.12):  # aneurysm-like blob
        b = branches[int(rng.integers(0, len(branches)))].path
        q = b[len(b) // 2]
        blo = fill(size, blob(rng, float(q[0]), float(q[1]), w * uni(rng, 2.5, 5)))
        img = over(img, blo, bg + delta, soft=1.0)
        masks = [u8(vm | blo), blo]
    layers = pack(masks)
    if chance(rng, 0.1):
        layers.append(ids)
    if chance(rng, 0.3):
        img = tint(rng, img, (0.1, 0.05, 0.05), (0.7, 0.45, 0.3), (1, 0.9, 0.75), 0.2)
    return Scene(img, layers)


def vessels(rng: Rng, size: int) -> Scene:
    """Fundus or angiography."""
    return fundus(rng, size) if chance(rng, 0.55) else angio(rng, size)


def skin(rng: Rng, size: int) -> Scene:
    """Skin with a pigmented or inflamed lesion; hairs, dark corners, bubbles."""
    s = float(size)
    tone = rng.uniform(0, 1)
    base = np.array([0.93, 0.74, 0.66]) * (1 - tone * 0.45) + rng.normal(0, 0.05, 3)
    tex = f32(
        fractal(rng, size, s * 0.25, 5, 0.6) * f32(0.04)
        + smooth(rng, size, uni(rng, 3, 9)) * f32(uni(rng, 0.005, 0.03))
    )
    img = f32(base + (tex[:, :, None] * f32([0.8, 1.0, 1.0])))
    img = f32(img + (ramp(rng, size) * f32(uni(rng, -0.08, 0.08)))[:, :, None])
    masks: list[U8] = []
    fuzzy = logu(rng, 0.6, 9)
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 3]))):
        r = s * logu(rng, 0.05, 0.42)
        x, y = s * np.clip(rng.normal(0.5, 0.12, 2), 0.1, 0.9)
        p = blob(
            rng,
            float(x),
            float(y),
            r,
            aspect=logu(rng, 0.6, 1.6),
            rough=uni(rng, 0.05, 0.35),
            lobes=int(rng.integers(4, 14)),
        )
        m = fill(size, p)
        if overlaps(m, masks):
            continue
        dark = uni(rng, 0.25, 0.85)
        hue = np.array([0.75, 0.5, 0.38]) if chance(rng, 0.7) else np.array([1.0, 0.6, 0.6])
        col = f32(base * hue ** uni(rng, 0.4, 1.6) * (1 if hue[0] == 1.0 else dark * 0.4 + 0.6))
        f = f32(fractal(rng, size, max(r * 0.6, 6), 4, 0.8) * f32(uni(rng, 0.01, 0.09)))
        img = over(
            img, m, f32(col + f[:, :, None]), soft=min(fuzzy, r * 0.2), alpha=uni(rng, 0.55, 1)
        )
        for _ in range(int(rng.integers(0, 4))):  # inner structure
            q = rng.normal(0, 0.35, 2) * r
            inn = u8(
                organ(rng, size, float(x + q[0]), float(y + q[1]), r * uni(rng, 0.15, 0.5)) & m
            )
            img = over(
                img, inn, f32(col * uni(rng, 0.4, 1.3)), soft=r * 0.06, alpha=uni(rng, 0.2, 0.9)
            )
        if chance(rng, 0.25):
            ring = fill(size, f32((p - [x, y]) * uni(rng, 1.15, 1.6) + [x, y]))
            ring = u8(ring & (1 - m))
            img = over(img, ring, f32(base * [1.02, 0.82, 0.82]), soft=r * 0.15, alpha=0.5)
        masks.append(m)
    if chance(rng, 0.35):  # hairs
        hair = np.zeros((size, size), dtype=np.uint8)
        a0 = uni(rng, 0, 6.28)
        for _ in range(int(rng.integers(3, 45))):
            x, y = rng.uniform(0, 1, 2) * s
            c = curve(
                rng, (float(x), float(y)), a0 + rng.normal(0, 0.5), s * uni(rng, 0.1, 0.5), 0.5, 20
            )
            stroke(hair, c, f32(np.full(20, uni(rng, 0.4, 1.3) * s / 512)), 1)
        img = over(img, hair, f32(base * uni(rng, 0.15, 0.6)), soft=0.6, alpha=uni(rng, 0.5, 1))
    if chance(rng, 0.2):
        for _ in range(int(rng.integers(1, 12))):  # bubbles
            x, y = rng.uniform(0, size, 2)
            cv2.circle(img, (int(x), int(y)), int(uni(rng, 2, 14)), (1.0, 0.95, 0.95), 1)
    if chance(rng, 0.3):
        fov = _view(rng, size, "cut")
        img = f32(img * (blur(f32(fov), uni(rng, 1, 12)) * f32(0.95) + f32(0.05))[:, :, None])
    return Scene(img, pack(masks), strength=0.7, marks=0.05)


def mucosa(rng: Rng, size: int) -> Scene:
    """Endoscopy-like: folds, lumen, specular highlights, a bump-shaded polyp or lesion."""
    s = float(size)
    g = f32(0.5 + fractal(rng, size, s * uni(rng, 0.2, 0.6), 5, 0.55) * f32(uni(rng, 0.04, 0.12)))
    lx, ly = rng.uniform(-0.7, 0.7, 2)
    x, y = grid(size)
    d = f32(np.sqrt((x - f32(lx)) ** 2 + (y - f32(ly)) ** 2))
    if chance(rng, 0.7):
        g += f32((d - f32(0.7)) * f32(uni(rng, 0.1, 0.45) * rng.choice([-1, 1])))
    if chance(rng, 0.55):  # folds: rings around the lumen
        ph = d * f32(uni(rng, 6, 16)) + smooth(rng, size, s * 0.3) * f32(uni(rng, 0.8, 2.4))
        g += f32(np.maximum(np.sin(ph), -0.2) * f32(uni(rng, 0.03, 0.13)))
    if chance(rng, 0.4):
        g += f32(np.exp(-np.abs(smooth(rng, size, s * 0.12)) * 14) * f32(-uni(rng, 0.03, 0.12)))
    masks: list[U8] = []
    hue = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        r = s * logu(rng, 0.055, 0.36)
        px, py = rng.uniform(0.12, 0.88, 2) * s
        rough = uni(rng, 0.03, 0.22)
        m = fill(size, blob(rng, float(px), float(py), r, aspect=logu(rng, 0.6, 1.7), rough=rough))
        if overlaps(m, masks):
            continue
        soft = min(logu(rng, 0.7, 6), r * 0.15)
        a = blur(f32(m), soft)
        dome = blur(f32(m), r * 0.35)
        lift = uni(rng, 0.0, 0.3) if chance(rng, 0.8) else -uni(rng, 0.05, 0.2)
        bump = shading(rng, m, r * uni(rng, 0.15, 0.4))
        inner = f32(
            g * f32(0.5)
            + f32(0.25 + lift * 0.5)
            + dome * f32(lift * 0.6)
            + fractal(rng, size, max(r * 0.5, 8), 4, 0.7) * f32(uni(rng, 0.01, 0.06))
            + bump * f32(uni(rng, 0.0, 0.15))
        )
        g = f32(g + (inner - g) * a)
        hue += a * f32(rng.normal(0, 0.06))
        if chance(rng, 0.6):  # contact shadow
            g -= f32(
                blur(f32(np.roll(m, (int(r * 0.1), int(r * 0.06)), (0, 1)) & (1 - m)), r * 0.06)
                * f32(uni(rng, 0.05, 0.3))
            )
        masks.append(m)
    if chance(rng, 0.5):
        b = tree(rng, (uni(rng, 0, s), 0.0), 1.5, s * 0.3, s * 0.004, depth=4, bend=0.9, limit=40)
        g -= blur(f32(_draw(size, b)[0]), 0.9) * f32(uni(rng, 0.03, 0.12))
    lo, mid, hi = (0.12, 0.02, 0.02), (0.72, 0.33, 0.26), (1.0, 0.82, 0.7)
    img = tint(rng, f32(np.clip(g, 0, 1)), lo, mid, hi, 0.09)
    img = f32(img + hue[:, :, None] * f32([0.5, -1.0, -0.8]))
    if chance(rng, 0.7):  # specular highlights on bright places
        sp = smooth(rng, size, logu(rng, 6, 24)) + (g - f32(g.mean())) * f32(4)
        img = over(img, u8(sp > uni(rng, 2.2, 3.0)), 1.0, soft=0.8)
    if chance(rng, 0.12):  # instrument
        c = curve(rng, (uni(rng, 0, s), s), -1.5, s * 0.6, 0.2)
        tool = np.zeros((size, size), dtype=np.uint8)
        stroke(tool, c, f32(np.full(40, s * uni(rng, 0.012, 0.04))), 1)
        sh = f32(0.5 + 0.4 * rims(tool, 6) + oriented(rng, size, 60, 8, 1.5) * f32(0.05))
        img = over(img, tool, times(sh, img), soft=0.7)
        masks = [u8(m & (1 - tool)) for m in masks] + [tool]
    fov = _view(rng, size, str(rng.choice(["full", "octagon", "cut", "circle", "rounded"])))
    img = f32(img * blur(f32(fov), 0.8)[:, :, None])
    return Scene(img, pack([u8(m & fov) for m in masks]), strength=0.7)


def lesions(rng: Rng, size: int) -> Scene:
    """Skin or mucosa."""
    return skin(rng, size) if chance(rng, 0.5) else mucosa(rng, size)
