"""Slice-like scenes: abdominal CT, head, pelvis and cardiac MR."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import F32, U8, Rng, blur, chance, f32, fractal, logu, smooth, u8, uni, white
from .render import Scene, drop_slivers, lut, over, pack, paint_labels
from .shapes import band, blob, curve, fill, organ, paint


def _erode(m: U8, px: float) -> U8:
    d = cv2.distanceTransform(m, cv2.DIST_L2, 3)
    return u8(d > px)


def body_slice(rng: Rng, size: int) -> Scene:
    """Abdominal CT-like slice: body outline, fat ring, muscle, bones, many organs."""
    s = float(size)
    real = chance(rng, 0.7)
    cx, cy = s * uni(rng, 0.45, 0.55), s * uni(rng, 0.45, 0.55)
    r = s * uni(rng, 0.34, 0.52)
    body = fill(size, blob(rng, cx, cy, r, aspect=uni(rng, 1.1, 1.6), angle=0.0, rough=0.04))
    d = f32(cv2.distanceTransform(body, cv2.DIST_L2, 5))
    fat = r * uni(rng, 0.03, 0.2)
    wall = fat + r * uni(rng, 0.05, 0.14)
    wob = f32(d + smooth(rng, size, s * 0.15) * f32(r * 0.02))
    lab = np.zeros((size, size), dtype=np.uint8)
    lab[body > 0] = 1
    lab[(wob > fat) & (body > 0)] = 2
    inner = u8((wob > wall) & (body > 0))
    lab[inner > 0] = 3
    ys, xs = np.nonzero(inner)
    if len(xs) == 0:
        return body_slice(rng, size)
    k = 3
    kinds: list[str] = ["air", "fat", "muscle", "visceral"]
    order = np.sort(rng.uniform(0, 1, int(rng.integers(7, 26))))[::-1]
    big = uni(rng, 0.2, 0.5)
    for q in order:
        k += 1
        j = int(rng.integers(0, len(xs)))
        for _ in range(4):  # prefer places that are still empty
            if lab[ys[j], xs[j]] == 3:
                break
            j = int(rng.integers(0, len(xs)))
        rr = r * (0.05 + big * float(q) ** 1.6)
        m = organ(rng, size, float(xs[j]), float(ys[j]), rr)
        lab[(m & inner) > 0] = k
        kinds.append("organ")
        if chance(rng, 0.12):  # part inside an organ: vessel, cyst, gas
            k += 1
            lab[_erode(m & inner, rr * uni(rng, 0.15, 0.5)) > 0] = k
            kinds.append(str(rng.choice(["cyst", "gas", "bright"])))
    for _ in range(int(rng.integers(0, 7))):  # small round vessels
        k += 1
        j = int(rng.integers(0, len(xs)))
        paint(
            lab,
            [
                blob(
                    rng,
                    float(xs[j]),
                    float(ys[j]),
                    s * uni(rng, 0.012, 0.04),
                    aspect=uni(rng, 1, 1.5),
                )
            ],
            k,
        )
        kinds.append(str(rng.choice(["bright", "organ", "vessel"])))
    k += 1  # spine
    kinds.append("bone")
    sy = cy + r * uni(rng, 0.25, 0.55)
    paint(lab, [blob(rng, cx, sy, r * uni(rng, 0.1, 0.17), aspect=1.2, angle=0.0)], k)
    for sg in (-1, 1):
        paint(
            lab,
            [
                band(
                    curve(rng, (cx, sy + r * 0.12), math.pi / 2 - sg * 0.9, r * 0.25, 0.3, 12),
                    f32(np.full(12, r * 0.03)),
                )
            ],
            k,
        )
    for _ in range(int(rng.integers(0, 9))):  # ribs on the wall
        k += 1
        t = uni(rng, 0, 6.28)
        mid = np.nonzero((wob > max(fat + 2, wall - r * 0.08)) & (wob < wall) & (body > 0))
        if len(mid[0]) == 0:
            break
        j = int(rng.integers(0, len(mid[0])))
        t = math.atan2(mid[0][j] - cy, (mid[1][j] - cx) * 0.6) + math.pi / 2
        paint(
            lab,
            [
                blob(
                    rng,
                    float(mid[1][j]),
                    float(mid[0][j]),
                    r * uni(rng, 0.025, 0.05),
                    aspect=uni(rng, 1.2, 4),
                    angle=t,
                )
            ],
            k,
        )
        kinds.append("bone")
    lab[body == 0] = 0
    n = k + 1
    kinds += ["bone"] * (n - len(kinds))
    if real:
        base = uni(rng, 0.45, 0.6)
        sd = logu(rng, 0.015, 0.12)
        val = {
            "air": 0.0,
            "fat": base - uni(rng, 0.15, 0.4),
            "muscle": base,
            "gas": 0.02,
            "bone": uni(rng, 0.85, 1.1),
            "bright": base + uni(rng, 0.1, 0.3),
            "cyst": base - uni(rng, 0.05, 0.2),
            "vessel": base + 0.03,
        }
        val["visceral"] = val["fat"] + uni(rng, -0.02, 0.1)
        mu = f32([val.get(c, base + rng.normal(0.03, sd)) for c in kinds])
        img = blur(lut(mu, lab), uni(rng, 0.6, 1.6))
        amp = f32(np.full(n, logu(rng, 0.008, 0.06)))
        amp[0] *= 0.3
        img += smooth(rng, size, uni(rng, 1.5, 4)) * lut(amp, lab)
        img += fractal(rng, size, s * 0.08, 4) * lut(f32(rng.uniform(0, 0.025, n)), lab)
        marrow = u8(cv2.distanceTransform(u8(lab == k), cv2.DIST_L2, 3) > r * 0.025)
        img = over(img, marrow, base + 0.1, soft=1.0, alpha=uni(rng, 0.2, 0.8))
        img[body > 0] += f32(0.02)
    else:
        img = paint_labels(rng, lab, n, False)
    keep = lab.copy()
    keep[lab < (2 if chance(rng, 0.1) else 4)] = 0
    layers = [drop_slivers(keep)]
    if chance(rng, 0.3):
        layers.append(u8(body > 0))
    if chance(rng, 0.15):
        layers.append(u8(inner > 0))
    return Scene(img, layers, marks=0.15)


def _cortex(rng: Rng, size: int, brain: U8, d: F32, r: float) -> tuple[U8, U8]:
    """Folded grey-matter ribbon and sulci of a brain mask whose border distance is d."""
    cell = r * uni(rng, 0.13, 0.26)
    fold = np.abs(smooth(rng, size, cell)) * f32(cell * 0.4)
    reach = f32(r * (uni(rng, 0.15, 0.4) + 0.08 * smooth(rng, size, r * 0.5)))
    line = f32(np.maximum(fold, (d - reach) * f32(1.5)))
    near = f32(np.minimum(d, line))
    thick = r * uni(rng, 0.035, 0.075)
    gm = u8((near < thick) & (brain > 0))
    csf = u8((line < r * uni(rng, 0.004, 0.018)) & (brain > 0))
    return gm, csf


def head(rng: Rng, size: int) -> Scene:
    """Axial head MR: scalp, skull, folded cortex, ventricles, nested tumours."""
    s = float(size)
    cx, cy, r = s * uni(rng, 0.46, 0.54), s * uni(rng, 0.46, 0.54), s * uni(rng, 0.3, 0.48)
    asp = uni(rng, 0.72, 0.95) if chance(rng, 0.7) else uni(rng, 1.05, 1.3)
    ang = rng.normal(0, 0.12)
    out = fill(size, blob(rng, cx, cy, r, aspect=asp, angle=ang, rough=0.025))
    d0 = f32(cv2.distanceTransform(out, cv2.DIST_L2, 5))
    t1, t2, t3 = np.cumsum(rng.uniform(0.015, 0.07, 3)) * r
    if chance(rng, 0.3):
        t1 = t2 = t3 = 0.0  # skull-stripped
    lab = np.zeros((size, size), dtype=np.uint8)
    lab[out > 0] = 1
    lab[d0 > t1] = 2
    lab[d0 > t2] = 3
    brain = u8(d0 > max(t3, 0.5))
    d = f32(np.maximum(d0 - f32(t3), 0))
    lab[brain > 0] = 5
    gm, csf = _cortex(rng, size, brain, d, r)
    lab[gm > 0] = 4
    lab[csf > 0] = 3
    vent = np.zeros((size, size), dtype=np.uint8)
    vr, sep = r * uni(rng, 0.1, 0.24), r * uni(rng, 0.04, 0.12)
    hi, hj = uni(rng, 0.25, 0.7), uni(rng, 0.6, 1.2)
    for sg in (-1, 1):
        for up in (-1, 1):
            p = curve(
                rng, (cx + sg * sep, cy), up * math.pi / 2 - sg * up * hi, vr * hj * 1.6, 0.2, 14
            )
            paint(vent, [band(p, f32(np.linspace(1, 0.4, 14) * vr * uni(rng, 0.18, 0.34)))], 1)
        deep = u8(
            fill(size, blob(rng, cx + sg * r * 0.26, cy, r * uni(rng, 0.08, 0.14), aspect=0.6))
            & brain
        )
        lab[deep > 0] = 7 + (sg > 0)
    lab[vent > 0] = 6
    masks: list[U8] = []
    n = 9
    if chance(rng, 0.6):
        for _ in range(int(rng.choice([1, 1, 2, 4]))):
            a, o = uni(rng, 0, 6.28), r * uni(rng, 0.15, 0.6)
            q = r * logu(rng, 0.05, 0.3)
            x, y = cx + math.cos(a) * o * 0.8, cy + math.sin(a) * o
            ed = u8(fill(size, blob(rng, x, y, q * 1.5, rough=0.35, lobes=8)) & brain)
            if not ed.any() or bool((lab[ed > 0] >= 9).any()):
                continue
            co = u8(fill(size, blob(rng, x, y, q * 0.85, rough=0.2)) & ed)
            ne = u8(fill(size, blob(rng, x, y, q * uni(rng, 0.3, 0.6), rough=0.25)) & co)
            for j, m in enumerate((ed, co, ne)):
                lab[m > 0] = n + j
            masks += [ed, co, ne, u8(co & (1 - ne))][: int(rng.integers(1, 5))]
            n += 3
            if n > 200:
                break
    mu = f32(rng.uniform(0.1, 0.95, n))
    mu[0] = uni(rng, 0, 0.05)
    mu[2] = uni(rng, 0, 0.15)
    if chance(rng, 0.7):  # T1 or T2/FLAIR order
        g = uni(rng, 0.35, 0.65)
        c = uni(rng, 0.07, 0.25) * (1 if chance(rng, 0.6) else -1)
        mu[4], mu[5], mu[3] = g, g + c, (0.1 if c > 0 else uni(rng, 0.05, 0.95))
        mu[6] = mu[3]
        mu[7:9] = g + c * uni(rng, -0.3, 0.6)
        for j in range(9, n):
            mu[j] = np.clip(g + rng.choice([-1, 1]) * uni(rng, 0.05, 0.4), 0, 1)
    img = blur(lut(mu, lab), uni(rng, 0.7, 2.0))
    img += f32(fractal(rng, size, s * 0.06, 4) * f32(uni(rng, 0.005, 0.03)) * (out > 0))
    vent = u8(lab == 6)
    masks += [vent] + ([brain] if chance(rng, 0.6) else []) + ([out] if chance(rng, 0.2) else [])
    masks += [u8(lab == 7), u8(lab == 8)]
    if chance(rng, 0.15):
        masks.append(u8(lab == 5))
    return Scene(img, [drop_slivers(m) for m in pack(masks)])


def _surround(rng: Rng, size: int) -> tuple[U8, int]:
    """Background anatomy: a body of smooth regions, labels 0..n-1."""
    s = float(size)
    lab = np.zeros((size, size), dtype=np.uint8)
    out = fill(
        size,
        blob(
            rng,
            s / 2,
            s / 2,
            s * uni(rng, 0.42, 0.75),
            aspect=uni(rng, 1, 1.5),
            angle=0.0,
            rough=0.05,
        ),
    )
    lab[out > 0] = 1
    k = 1
    for _ in range(int(rng.integers(5, 15))):
        k += 1
        x, y = rng.uniform(0.08, 0.92, 2) * s
        m = organ(rng, size, float(x), float(y), s * uni(rng, 0.05, 0.22))
        lab[(m & out) > 0] = k
    return lab, k + 1


def pelvis(rng: Rng, size: int) -> Scene:
    """Pelvis-like MR: small low-contrast gland with an inner zone, bladder, rectum, femurs."""
    s = float(size)
    lab, n = _surround(rng, size)
    first = n
    cx, cy, r = s * uni(rng, 0.42, 0.58), s * uni(rng, 0.42, 0.58), s * uni(rng, 0.05, 0.2)
    for sg in (-1, 1):
        q = s * uni(rng, 0.06, 0.11)
        paint(lab, [blob(rng, cx + sg * s * uni(rng, 0.25, 0.38), cy, q, rough=0.04)], n)
        paint(
            lab,
            [
                blob(
                    rng,
                    cx + sg * r * 1.9,
                    cy + r * 0.2,
                    r * 0.5,
                    aspect=0.35,
                    angle=0.2 * sg,
                    rough=0.1,
                )
            ],
            n + 1,
        )
        n += 2
    if chance(rng, 0.6):
        paint(lab, [blob(rng, cx, cy - r * 2.0, r * uni(rng, 0.8, 1.3), aspect=1.3, angle=0.0)], n)
        n += 1
    paint(lab, [blob(rng, cx, cy + r * 1.8, r * uni(rng, 0.5, 0.8), rough=0.1)], n)
    n += 1
    gland = fill(size, blob(rng, cx, cy, r, aspect=uni(rng, 1.0, 1.5), angle=0.0, rough=0.05))
    inner = u8(
        fill(
            size,
            blob(
                rng, cx, cy - r * 0.2, r * uni(rng, 0.55, 0.75), aspect=1.2, angle=0.0, rough=0.08
            ),
        )
        & gland
    )
    lab[gland > 0] = n
    lab[inner > 0] = n + 1
    les = u8(fill(size, blob(rng, cx + r * uni(rng, -0.6, 0.6), cy + r * 0.5, r * 0.22)) & gland)
    lab[les > 0] = n + 2
    masks = [gland, inner, u8(gland & (1 - inner))]
    mu = f32(rng.uniform(0.1, 0.8, n + 3))
    g = uni(rng, 0.3, 0.6)
    mu[0] = 0.02
    mu[1] = g + uni(rng, -0.15, 0.3)
    mu[n] = g + rng.choice([-1, 1]) * uni(rng, 0.05, 0.2)
    mu[n + 1] = g + rng.choice([-1, 1]) * uni(rng, 0.03, 0.15)
    mu[n + 2] = g - 0.12
    img = paint_labels(rng, lab, n + 3, False, means=mu, tex=0.6, soft=uni(rng, 0.8, 2.5))
    rest = lab.copy()
    rest[(lab < first) | (lab >= n)] = 0
    return Scene(img, [*pack(masks), drop_slivers(rest)])


def cardiac(rng: Rng, size: int) -> Scene:
    """Short-axis heart: myocardial ring, bright or dark cavity, crescent right ventricle."""
    s = float(size)
    lab, n = _surround(rng, size)
    cx, cy, r = s * uni(rng, 0.35, 0.65), s * uni(rng, 0.35, 0.65), s * logu(rng, 0.05, 0.25)
    a, asp = uni(rng, 0, 6.28), uni(rng, 1.0, 1.35)
    epi_p = blob(rng, cx, cy, r, aspect=asp, angle=a, rough=0.04)
    epi = fill(size, epi_p)
    f = uni(rng, 0.45, 0.82)
    off = rng.normal(0, 0.05, 2) * r
    cav = fill(size, f32((epi_p - [cx, cy]) * f + [cx, cy] + off))
    b = uni(rng, 0, 6.28)
    rv_o = r * uni(rng, 0.7, 1.1)
    rv = fill(
        size,
        blob(
            rng,
            cx + math.cos(b) * rv_o,
            cy + math.sin(b) * rv_o,
            r * uni(rng, 0.75, 1.1),
            aspect=uni(rng, 1, 1.7),
            angle=b + math.pi / 2,
            rough=0.1,
        ),
    )
    rv = u8(rv & (1 - epi))
    shell = u8(
        cv2.dilate(u8(rv | epi), np.ones((3, 3), dtype=np.uint8), iterations=max(1, int(r * 0.06)))
    )
    lab[shell > 0] = n
    lab[rv > 0] = n + 1
    lab[epi > 0] = n + 2
    lab[cav > 0] = n + 3
    mu = f32(rng.uniform(0.05, 0.7, n + 4))
    mu[0] = 0.02
    blood = uni(rng, 0.6, 0.95)
    myo = uni(rng, 0.12, 0.4)
    if chance(rng, 0.25):
        blood, myo = myo, blood
    mu[n], mu[n + 1], mu[n + 2], mu[n + 3] = (
        uni(rng, 0.1, 0.9),
        blood + rng.normal(0, 0.04),
        myo,
        blood,
    )
    img = paint_labels(rng, lab, n + 4, False, means=mu, tex=0.6, soft=uni(rng, 0.8, 2.5), rim=0.1)
    if chance(rng, 0.5):  # papillary muscles inside the cavity
        for _ in range(2):
            t, q = uni(rng, 0, 6.28), r * f * 0.6
            m = fill(size, blob(rng, cx + math.cos(t) * q, cy + math.sin(t) * q, r * 0.1))
            img = over(img, u8(m & cav), myo + 0.1, soft=1.2)
    return Scene(
        img,
        pack([cav, u8(epi & (1 - cav)), rv, epi] + ([u8(epi | rv)] if chance(rng, 0.3) else [])),
    )


def mr(rng: Rng, size: int) -> Scene:
    """One of the MR scenes, with bias field."""
    k = float(rng.random())
    sc = head(rng, size) if k < 0.45 else pelvis(rng, size) if k < 0.7 else cardiac(rng, size)
    img = sc.image
    if chance(rng, 0.6):
        img = f32(
            img
            * (f32(1) + smooth(rng, size, size * uni(rng, 0.5, 1.2)) * f32(uni(rng, 0.05, 0.25)))
        )
    if chance(rng, 0.5):
        g = f32(uni(rng, 0.01, 0.06))
        img = f32(np.sqrt((img + white(rng, size) * g) ** 2 + (white(rng, size) * g) ** 2))
    return Scene(img, sc.layers, sc.strength, sc.marks)
