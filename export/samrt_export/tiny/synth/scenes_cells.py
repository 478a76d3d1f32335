"""Microscopy scenes: touching cells, blood smears, fluorescence nuclei, histology glands."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import (
    F32,
    U8,
    Rng,
    blur,
    chance,
    f32,
    fractal,
    jittered,
    logu,
    smooth,
    texture,
    u8,
    uni,
    voronoi,
    warp_maps,
)
from .render import Scene, components, drop_slivers, lut, over, paint_labels, rims, times
from .shapes import blob, fill, paint


def remap_labels(lab: U8, maps: tuple[F32, F32]) -> U8:
    """Warp a label map (nearest)."""
    return u8(cv2.remap(lab, maps[0], maps[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))


def scatter(rng: Rng, size: int, n: int, r: float, gap: float) -> F32:
    """Up to n points (N, 2) with distances of at least gap * r (dart throwing)."""
    pts: list[tuple[float, float]] = []
    lim = (gap * r) ** 2
    cand = rng.uniform(-0.02 * size, 1.02 * size, (n * 4, 2))
    for x, y in cand:
        if len(pts) >= n:
            break
        if all((x - a) ** 2 + (y - b) ** 2 >= lim for a, b in pts):
            pts.append((float(x), float(y)))
    return f32(pts)


def membranes(rng: Rng, size: int) -> Scene:
    """Touching cells with dark or bright membranes; EM-like or plain interiors."""
    sc = size / 512
    step = logu(rng, 22, 170) * sc
    pts = jittered(rng, size, step, uni(rng, 0.15, 0.5))
    _, ids = voronoi(rng, size, pts)
    cells = np.zeros((size, size), dtype=np.uint8)
    cells[:] = (ids * 37 + ids // 7) % 251 + 2
    cells = remap_labels(cells, warp_maps(rng, size, step * uni(rng, 0.02, 0.12), step * 0.8))
    thick = max(1.2, min(logu(rng, 1.5, 9) * sc, step * 0.12))
    k = np.ones((3, 3), dtype=np.uint8)
    edge = u8(cv2.dilate(cells, k)) != u8(cv2.erode(cells, k))
    d = f32(cv2.distanceTransform(u8(~edge), cv2.DIST_L2, 5))
    if chance(rng, 0.5):
        d = f32(d + smooth(rng, size, step * 0.5) * f32(thick * 0.25))
    inside = u8(d > thick / 2)
    lab, _n = components(inside, int(60 * sc * sc))
    bright = uni(rng, 0.35, 0.9)
    dark = chance(rng, 0.65)
    mem = bright - uni(rng, 0.2, 0.6) if dark else bright + uni(rng, 0.15, 0.4)
    var = logu(rng, 0.005, 0.15)
    mu = f32(bright + rng.normal(0, var, 256))
    mu[0] = max(mem, 0.02)
    img = blur(lut(mu, lab), uni(rng, 0.4, 1.2))
    img += fractal(rng, size, logu(rng, 4, 24) * sc, 3, 0.7) * f32(logu(rng, 0.01, 0.12))
    if chance(rng, 0.5):  # organelles
        spots = smooth(rng, size, logu(rng, 7, 22) * sc)
        m = u8((spots > uni(rng, 1.2, 1.9)) & (d > thick))
        img = over(img, m, bright - uni(rng, -0.2, 0.45), soft=1.0, alpha=uni(rng, 0.4, 1))
    union = u8(inside & (lab > 0))
    layers = [lab, union] if chance(rng, 0.6) else [lab]
    if chance(rng, 0.35):  # nuclei
        nuc = np.zeros((size, size), dtype=np.uint8)
        dist = f32(cv2.distanceTransform(inside, cv2.DIST_L2, 3))
        nr = step * uni(rng, 0.14, 0.26)
        for x, y in pts:
            if 0 <= x < size and 0 <= y < size and chance(rng, 0.85):
                paint(nuc, [blob(rng, float(x), float(y), nr, aspect=uni(rng, 0.7, 1.4))], 1)
        nuc = u8(nuc & (dist > 1.5))
        img = over(img, nuc, bright + rng.choice([-1, 1]) * uni(rng, 0.12, 0.4), soft=1.0)
        layers.append(components(nuc, int(60 * sc * sc))[0])
    if chance(rng, 0.3):
        c = f32(rng.uniform(0.3, 1, 3))
        img = f32(img[:, :, None] * c + f32(rng.uniform(0, 0.3, 3)))
    return Scene(img, layers)


def smear(rng: Rng, size: int) -> Scene:
    """Blood-smear-like: round cells with pale centres, some bigger nucleated cells."""
    sc = size / 512
    r = logu(rng, 12, 55) * sc
    bg = f32(rng.uniform(0.72, 1.0, 3)) if chance(rng, 0.8) else f32(rng.uniform(0.1, 0.6, 3))
    red = f32(np.clip(np.array([0.8, 0.55, 0.55]) + rng.normal(0, 0.12, 3), 0, 1))
    pts = scatter(
        rng,
        size,
        int(min(140, 0.45 * size * size / (r * r) * uni(rng, 0.15, 0.7))),
        r,
        uni(rng, 1.3, 2.2),
    )
    lab = np.zeros((size, size), dtype=np.uint8)
    pale = np.zeros((size, size), dtype=np.uint8)
    k = 0
    rough = uni(rng, 0.02, 0.12)
    for x, y in pts:
        if k >= 220:
            break
        k += 1
        q = r * uni(rng, 0.8, 1.15)
        paint(lab, [blob(rng, float(x), float(y), q, aspect=uni(rng, 0.8, 1.25), rough=rough)], k)
        paint(pale, [blob(rng, float(x), float(y), q * uni(rng, 0.3, 0.55))], 1)
    img = f32(np.broadcast_to(bg, (size, size, 3)).copy())
    img += f32((smooth(rng, size, 200) * f32(0.03))[:, :, None])
    img = over(img, u8(lab > 0), red, soft=uni(rng, 0.5, 1.5), alpha=uni(rng, 0.6, 1))
    if chance(rng, 0.7):
        img = over(img, pale, bg, soft=r * 0.15, alpha=uni(rng, 0.2, 0.8))
    if chance(rng, 0.5):
        img -= f32((rims(lab, logu(rng, 1, 4)) * f32(uni(rng, 0.05, 0.25)))[:, :, None])
    whole = lab
    nuclei = np.zeros((size, size), dtype=np.uint8)
    cyto = f32(np.clip(np.array([0.75, 0.7, 0.85]) + rng.normal(0, 0.12, 3), 0, 1))
    nuc = f32(np.clip(np.array([0.4, 0.2, 0.55]) + rng.normal(0, 0.12, 3), 0, 1))
    tex = fractal(rng, size, 14 * sc, 3, 0.8)
    big = np.zeros((size, size), dtype=np.uint8)
    for i in range(int(rng.choice([1, 1, 1, 2, 3, 5]))):
        big_r = min(r * uni(rng, 1.2, 2.6), size * 0.3)
        x, y = rng.uniform(0.1, 0.9, 2) * size
        v = k + 1 + i
        m = fill(
            size, blob(rng, x, y, big_r, aspect=uni(rng, 0.75, 1.3), rough=uni(rng, 0.02, 0.15))
        )
        img = over(img, m, cyto, soft=1.0, alpha=uni(rng, 0.8, 1))
        whole[m > 0] = v
        nuclei[m > 0] = 0
        big[m > 0] = 1
        nm = np.zeros((size, size), dtype=np.uint8)
        lobes = int(rng.choice([1, 1, 2, 3, 4]))
        a0, nr = uni(rng, 0, 6.28), big_r * (0.66 if lobes == 1 else 0.42) * uni(rng, 0.8, 1.1)
        for j in range(lobes):
            t = a0 + j * uni(rng, 1.1, 2.2)
            o = 0.12 * big_r if lobes == 1 else 0.42 * big_r
            paint(
                nm,
                [
                    blob(
                        rng,
                        x + math.cos(t) * o,
                        y + math.sin(t) * o,
                        nr,
                        aspect=uni(rng, 0.6, 1.5),
                        rough=0.15,
                    )
                ],
                1,
            )
        nm = u8(nm & m)
        nuclei[nm > 0] = v
    col = f32(nuc + (tex * f32(uni(rng, 0.02, 0.1)))[:, :, None])
    img = over(img, u8(nuclei > 0), col, soft=uni(rng, 0.5, 1.2))
    img += times(f32(tex * f32(0.04) * f32(big)), img)
    return Scene(img, [whole, nuclei] + ([u8(whole > 0)] if chance(rng, 0.15) else []))


def nuclei(rng: Rng, size: int) -> Scene:
    """Fluorescence nuclei or dense blob fields, bright on dark (or the inverse)."""
    sc = size / 512
    r = logu(rng, 5.5, 60) * sc
    pts = scatter(
        rng,
        size,
        int(np.clip(size * size / (r * r) * uni(rng, 0.02, 0.25), 4, 240)),
        r,
        uni(rng, 1.2, 2.6),
    )
    lab = np.zeros((size, size), dtype=np.uint8)
    rough, asp = uni(rng, 0.03, 0.2), uni(rng, 1.0, 2.0)
    common = uni(rng, 0, 6.28) if chance(rng, 0.3) else None
    for i, (x, y) in enumerate(pts):
        paint(
            lab,
            [
                blob(
                    rng,
                    float(x),
                    float(y),
                    r * logu(rng, 0.65, 1.4),
                    aspect=uni(rng, 1, asp),
                    angle=common,
                    rough=rough,
                )
            ],
            i + 1,
        )
    bg = uni(rng, 0.0, 0.2)
    amp = f32(bg + logu(rng, 0.2, 0.9) * np.exp(rng.normal(0, uni(rng, 0.1, 0.5), 256)))
    amp[0] = bg
    img = blur(lut(amp, lab), logu(rng, 0.4, 2.0))
    fg = f32(blur(f32(lab > 0), 1.0))
    img += fg * (texture(rng, size) * f32(uni(rng, 0.0, 0.1)) * img.mean())
    if chance(rng, 0.5):  # domed brightness
        d = f32(cv2.distanceTransform(u8(lab > 0), cv2.DIST_L2, 3))
        img *= f32(1 - 0.6 * np.exp(d * f32(-2.0 / r)) * (d > 0))
    if chance(rng, 0.5):
        img -= rims(lab, 1.2) * fg * f32(uni(rng, 0.02, 0.3))
    if chance(rng, 0.5):
        img = f32(img + blur(img, 14 * sc) * f32(uni(rng, 0.1, 0.5)))
    img += smooth(rng, size, 150) * f32(0.02)
    if chance(rng, 0.2):
        img = f32(uni(rng, 0.7, 1.0) - img * f32(uni(rng, 0.5, 0.9)))
    if chance(rng, 0.25):
        img = f32(np.clip(img, 0, 1)[:, :, None] * f32(rng.uniform(0, 1, 3)))
    return Scene(img, [lab, u8(lab > 0)] if chance(rng, 0.35) else [lab])


def histology(rng: Rng, size: int) -> Scene:
    """Pink and purple tissue: glands as rings of cells around a lumen, scattered nuclei."""
    sc = size / 512
    stroma = f32(np.clip(np.array([0.88, 0.62, 0.78]) + rng.normal(0, 0.09, 3), 0, 1))
    epi = f32(np.clip(np.array([0.72, 0.48, 0.72]) + rng.normal(0, 0.1, 3), 0, 1))
    dark = f32(np.clip(np.array([0.36, 0.22, 0.5]) + rng.normal(0, 0.09, 3), 0, 1))
    lumen_c = f32(np.clip(np.array([0.95, 0.9, 0.94]) + rng.normal(0, 0.04, 3), 0, 1))
    gland = np.zeros((size, size), dtype=np.uint8)
    lum = np.zeros((size, size), dtype=np.uint8)
    r = logu(rng, 32, 150) * sc
    nr = max(3.0, min(logu(rng, 3, 10) * sc, r * 0.16))
    polys: list[F32] = []
    for x, y in scatter(
        rng, size, int(np.clip(0.35 * (size / r) ** 2, 1, 40)), r, uni(rng, 1.8, 2.6)
    ):
        q = r * uni(rng, 0.6, 1.05)
        asp, ang = uni(rng, 1, 1.9), uni(rng, 0, 6.28)
        p = blob(rng, float(x), float(y), q, aspect=asp, angle=ang, rough=uni(rng, 0.05, 0.25))
        polys.append(p)
        paint(lum, [p], 0)
        paint(gland, [p], len(polys))
        f = uni(rng, 0.1, 0.6)
        paint(lum, [f32((p - [x, y]) * f + [x, y])], len(polys))
    nmap = np.zeros((size, size), dtype=np.uint8)
    k = 0
    for p in polys:
        c = p.mean(axis=0)
        for ring in (0.88, 0.74) if chance(rng, 0.4) else (0.86,):
            loop = np.concatenate([p, p[:1]])
            seg = np.linalg.norm(np.diff(loop, axis=0), axis=1)
            s = np.concatenate([[0], np.cumsum(seg)])
            t = np.arange(0, s[-1], nr * uni(rng, 1.7, 2.6))
            xs, ys = np.interp(t, s, loop[:, 0]), np.interp(t, s, loop[:, 1])
            for x, y in zip(xs, ys, strict=True):
                gx, gy = c[0] + (x - c[0]) * ring, c[1] + (y - c[1]) * ring
                k = k % 254 + 1
                paint(
                    nmap,
                    [
                        blob(
                            rng,
                            float(gx),
                            float(gy),
                            nr * uni(rng, 0.75, 1.15),
                            aspect=uni(rng, 1, 1.8),
                            angle=math.atan2(float(gy - c[1]), float(gx - c[0])),
                        )
                    ],
                    k,
                )
    nmap[lum > 0] = 0
    free = scatter(rng, size, int(rng.integers(5, 90)), nr, 3.0)
    for x, y in free:
        ix, iy = int(np.clip(x, 0, size - 1)), int(np.clip(y, 0, size - 1))
        if gland[iy, ix] == 0:
            k = k % 254 + 1
            paint(
                nmap,
                [blob(rng, float(x), float(y), nr * uni(rng, 0.6, 1.2), aspect=uni(rng, 1, 2.6))],
                k,
            )
    img = f32(
        stroma
        + (fractal(rng, size, 60 * sc, 4, 0.7) * f32(uni(rng, 0.02, 0.06)))[:, :, None]
        * f32([0.6, 1.2, 0.8])
    )
    img = over(img, u8(gland > 0), epi, soft=1.2, alpha=uni(rng, 0.35, 1))
    img = over(img, u8(lum > 0), lumen_c, soft=1.2, alpha=uni(rng, 0.5, 1))
    img = over(img, u8(nmap > 0), dark, soft=0.9, alpha=uni(rng, 0.6, 1))
    img += f32((texture(rng, size) * f32(uni(rng, 0.005, 0.04)))[:, :, None])
    layers = [gland, lum]
    if nr * nr * 3 > 70 * sc * sc and k < 254:
        layers.append(nmap)
    return Scene(img, layers)


def noise_labels(rng: Rng, size: int) -> Scene:
    """SynthSeg-like: argmax of smooth noise fields, components as targets."""
    sc = size / 512
    k = int(rng.integers(2, 7))
    cell = logu(rng, 45, 260) * sc
    best = smooth(rng, size, cell)
    lab = np.zeros((size, size), dtype=np.uint8)
    for i in range(1, k):
        f = smooth(rng, size, cell * uni(rng, 0.7, 1.4)) + f32(uni(rng, -0.4, 0.4))
        lab[f > best] = i
        best = np.maximum(best, f)
    if chance(rng, 0.3):
        lab = remap_labels(lab, warp_maps(rng, size, uni(rng, 2, 9) * sc, uni(rng, 15, 50) * sc))
    out = np.zeros((size, size), dtype=np.uint8)
    n = 0
    for i in range(k):
        c, n = components(u8(lab == i), int(120 * sc * sc), n)
        out = np.maximum(out, c)
    if chance(rng, 0.5):
        img = paint_labels(rng, lab, k, chance(rng, 0.4))
    else:
        img = paint_labels(rng, out, 256, chance(rng, 0.4))
    return Scene(img, [drop_slivers(out)])
