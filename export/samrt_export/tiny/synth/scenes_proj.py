"""Projection and sound: X-ray, ultrasound, layered bands."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .fields import F32, U8, Rng, blur, chance, f32, fractal, grid, logu, oriented, smooth, u8, uni
from .render import Scene, lut, over, overlaps, pack
from .shapes import band, blob, box, curve, fill, organ, paint, tube_mask


def _add(img: F32, mask: U8, amount: float, soft: float) -> F32:
    return f32(img + blur(f32(mask), soft) * f32(amount))


def _bone(img: F32, mask: U8, amount: float, r: float) -> F32:
    """Add a bone: body plus brighter cortex along its border."""
    d = f32(cv2.distanceTransform(mask, cv2.DIST_L2, 3))
    f = f32((d > 0) * (0.6 + 0.6 * np.exp(d * f32(-3.0 / max(r, 2.0)))))
    return f32(img + blur(f, 0.8) * f32(amount))


def chest(rng: Rng, size: int) -> Scene:
    """Frontal chest: dark lungs under rib bands, heart blob, spine, clavicles."""
    s = float(size)
    img = np.full((size, size), uni(rng, 0.0, 0.05), dtype=np.float32)
    cx, cy = s * uni(rng, 0.46, 0.54), s * uni(rng, 0.46, 0.54)
    body = fill(size, box(cx, cy + s * 0.12, s * uni(rng, 0.42, 0.55), s * 0.75, 0, 3.5))
    img = _add(img, body, uni(rng, 0.5, 0.65), s * 0.02)
    dark = uni(rng, 0.2, 0.42)
    hw, hh = s * uni(rng, 0.12, 0.18), s * uni(rng, 0.24, 0.36)
    lungs: list[U8] = []
    for sg in (-1, 1):
        x = cx + sg * s * uni(rng, 0.17, 0.22)
        p = box(
            x, cy, hw * uni(rng, 0.85, 1.1), hh * uni(rng, 0.9, 1.05), sg * -0.1, uni(rng, 2.0, 3.2)
        )
        top = np.clip((cy - p[:, 1]) / hh, 0, 1)
        p[:, 0] -= f32(sg * top * hw * 0.35)
        jag = blob(rng, x, cy, 1.0, rough=0.05)
        th = np.interp(
            np.linspace(0, 1, len(p)),
            np.linspace(0, 1, len(jag)),
            np.linalg.norm(jag - [x, cy], axis=1),
        )
        p = f32((p - [x, cy]) * th[:, None] + [x, cy])
        m = fill(size, p)
        base = blob(rng, x, cy + hh * 1.05, hw * 1.1, aspect=1.6, angle=0.0, rough=0.03)
        paint(m, [base], 0)
        lungs.append(m)
    heart = fill(
        size,
        blob(
            rng,
            cx + s * uni(rng, 0.01, 0.07),
            cy + hh * 0.45,
            s * uni(rng, 0.1, 0.16),
            aspect=1.25,
            angle=0.6,
            rough=0.05,
        ),
    )
    lungs = [u8(m & (1 - heart)) for m in lungs]
    both = u8(lungs[0] | lungs[1])
    img = _add(img, both, -dark, s * uni(rng, 0.002, 0.008))
    visible = chance(rng, 0.65)
    if visible:
        img = _add(img, heart, uni(rng, 0.04, 0.14), s * 0.006)
    img += f32(fractal(rng, size, s * 0.06, 4, 0.7) * f32(0.018) * blur(f32(both), 4))
    rib = uni(rng, 0.02, 0.1)
    for i in range(int(rng.integers(6, 11))):
        y0 = cy - hh * 0.95 + i * hh * 0.22
        for sg in (-1, 1):
            t = np.linspace(0, 1, 24)
            w = hw * 2.1
            path = f32(
                np.stack(
                    [
                        cx + sg * (0.03 * s + w * np.sin(t * 1.75)),
                        y0 + hh * (0.5 * t - 0.28 * np.sin(math.pi * t)),
                    ],
                    1,
                )
            )
            m = fill(size, band(path, f32(np.full(24, s * 0.012))))
            e = u8(cv2.morphologyEx(m, cv2.MORPH_GRADIENT, np.ones((3, 3), dtype=np.uint8)))
            img = _add(_add(img, m, rib, 1.0), e, rib * 0.5, 0.8)
    bones: list[U8] = []
    for sg in (-1, 1):
        path = curve(
            rng,
            (cx + sg * s * 0.04, cy - hh * 0.75),
            -0.25 if sg > 0 else math.pi + 0.25,
            s * 0.34,
            0.15,
            20,
        )
        m = fill(size, band(path, f32(np.full(20, s * uni(rng, 0.011, 0.02)))))
        img = _bone(img, m, uni(rng, 0.06, 0.15), s * 0.015)
        bones.append(m)
    for i in range(14):
        m = fill(size, box(cx, s * (i + 0.5) / 14, s * 0.035, s * 0.028, 0, 5))
        img = _add(img, m, uni(rng, 0.01, 0.05), 1.5)
    if chance(rng, 0.3):  # opacity
        x, y = cx + rng.choice([-1, 1]) * s * 0.18, cy + rng.normal(0, 0.4) * hh
        les = fill(size, blob(rng, float(x), float(y), s * logu(rng, 0.02, 0.1), rough=0.25))
        img = _add(img, les, uni(rng, 0.06, 0.2), uni(rng, 1, 6))
        return Scene(img, pack([lungs[0], lungs[1], both, les]), marks=0.35)
    masks = [lungs[0], lungs[1], both] + ([heart] if visible else [])
    if chance(rng, 0.4):
        masks += bones
    return Scene(img, pack(masks), marks=0.35)


def bones(rng: Rng, size: int) -> Scene:
    """Teeth rows, vertebra stacks, long bones with heads, pelvis rings: additive."""
    s = float(size)
    img = np.full((size, size), uni(rng, 0.02, 0.3), dtype=np.float32)
    img += fractal(rng, size, s * 0.5, 3) * f32(0.05)
    tissue = organ(rng, size, s / 2, s / 2, s * uni(rng, 0.35, 0.6))
    img = _add(img, tissue, uni(rng, 0.05, 0.25), s * 0.02)
    masks: list[U8] = []
    gain = uni(rng, 0.15, 0.45)
    kind = float(rng.random())
    if kind < 0.3:  # teeth
        rows = int(rng.integers(1, 3))
        n = int(rng.integers(5, 15))
        arc = uni(rng, -0.15, 0.15) * s
        w = s * 0.9 / n / 2
        for row in range(rows):
            sg = 1 if row else -1
            yc = s * (0.5 + (0.13 * sg if rows == 2 else 0.0))
            for i in range(n):
                u = (i + 0.5) / n
                x, y = s * (0.05 + 0.9 * u), yc + arc * (math.sin(math.pi * u) - 0.5)
                h, a = s * uni(rng, 0.08, 0.12), rng.normal(0, 0.08)
                m = fill(size, box(x, y, w * uni(rng, 0.75, 0.93), h, a, uni(rng, 2.6, 5)))
                if chance(rng, 0.5):
                    paint(m, [box(x, y + sg * h, w * 0.25, h * 0.6, a, 2.0)], 0)
                img = _bone(img, m, gain, w)
                crown = u8(m & fill(size, box(x, y - sg * h * 0.6, w * 1.1, h * 0.45, a, 3)))
                img = _add(img, crown, gain * 0.4, 1.2)
                pulp = fill(size, box(x, y, w * 0.18, h * 0.6, a, 2))
                img = _add(img, pulp, -gain * 0.3, 1.5)
                masks.append(m)
    elif kind < 0.6:  # vertebrae
        n = int(rng.integers(3, 9))
        path = curve(rng, (s * uni(rng, 0.35, 0.65), -s * 0.02), math.pi / 2, s * 1.05, 0.4, n)
        w, h = s * uni(rng, 0.07, 0.16), s / n * uni(rng, 0.34, 0.44)
        for i in range(n):
            j = max(i, 1)
            a = (
                math.atan2(float(path[j, 1] - path[j - 1, 1]), float(path[j, 0] - path[j - 1, 0]))
                - math.pi / 2
            )
            p = box(
                float(path[i, 0]), float(path[i, 1]), w * uni(rng, 0.9, 1.1), h, a, uni(rng, 3, 8)
            )
            m = fill(size, p)
            img = _bone(img, m, gain, w * 0.5)
            masks.append(m)
            if chance(rng, 0.5):
                q = path[i] + [w * 1.5, 0]
                img = _bone(img, organ(rng, size, float(q[0]), float(q[1]), w * 0.5), gain * 0.5, w)
    else:  # long bones with heads
        for _ in range(int(rng.integers(1, 6))):
            x, y = rng.uniform(0.1, 0.9, 2) * s
            a, ln = uni(rng, 0, 6.28), s * uni(rng, 0.25, 0.8)
            hw = ln * uni(rng, 0.04, 0.1)
            path = curve(
                rng,
                (float(x - math.cos(a) * ln / 2), float(y - math.sin(a) * ln / 2)),
                a,
                ln,
                0.12,
                24,
            )
            t = np.abs(np.linspace(-1, 1, 24))
            m = fill(
                size,
                band(path, f32(hw * (1 + uni(rng, 0.3, 1.2) * t**3))),
                blob(rng, float(path[0, 0]), float(path[0, 1]), hw * uni(rng, 1.4, 2.2)),
                blob(rng, float(path[-1, 0]), float(path[-1, 1]), hw * uni(rng, 1.2, 2)),
            )
            img = _bone(img, m, gain, hw)
            masks.append(m)
            if chance(rng, 0.3):
                head = fill(size, blob(rng, float(path[0, 0]), float(path[0, 1]), hw * 2))
                img = _bone(img, head, gain * 0.5, hw)
                masks.append(head)
    img += f32(fractal(rng, size, 20, 3) * f32(0.01))
    layers = pack(masks, 4)
    if kind < 0.6 and chance(rng, 0.3):
        whole = np.zeros((size, size), dtype=np.uint8)
        for m in masks:
            whole |= m
        layers.append(whole)
    return Scene(img, layers, marks=0.25)


def xray(rng: Rng, size: int) -> Scene:
    """Chest or bones."""
    return chest(rng, size) if chance(rng, 0.5) else bones(rng, size)


def _speckle(rng: Rng, size: int) -> F32:
    """Rayleigh speckle with correlated, depth-stretched grain: float32, mean 1."""
    g = logu(rng, 1.5, 5) * size / 512
    k = uni(rng, 1.2, 3.0)
    a = oriented(rng, size, g * k, g, 0.0)
    b = oriented(rng, size, g * k, g, 0.0)
    r = np.sqrt(a * a + b * b)
    return f32(r / f32(1.25))


def ultrasound(rng: Rng, size: int) -> Scene:
    """Fan or linear view, speckle, anechoic or hypoechoic objects, bright walls, shadows."""
    s = float(size)
    x, y = grid(size)
    fan = chance(rng, 0.5)
    view = np.ones((size, size), dtype=np.uint8)
    if fan:
        ay, half = uni(rng, -1.5, -0.95), uni(rng, 0.5, 0.95)
        ang = np.arctan2(x - f32(rng.normal(0, 0.05)), y - f32(ay))
        rad = np.sqrt(x * x + (y - f32(ay)) ** 2)
        near, far = uni(rng, 0.1, 0.45), uni(rng, 1.7, 2.3)
        view = u8((np.abs(ang) < half) & (rad > near) & (rad < far))
    elif chance(rng, 0.4):
        o = int(s * uni(rng, 0.02, 0.12))
        view[:] = 0
        view[o : size - o, o : size - o] = 1
    base = uni(rng, 0.2, 0.5)
    ech = f32(base + fractal(rng, size, s * uni(rng, 0.1, 0.4), 4, 0.6) * f32(uni(rng, 0.03, 0.12)))
    if chance(rng, 0.6):  # tissue layers
        ech += f32(
            np.sin((y + smooth(rng, size, s * 0.4) * f32(0.08)) * f32(uni(rng, 5, 22)))
            * f32(uni(rng, 0.02, 0.1))
        )
    for _ in range(int(rng.integers(0, 6))):  # distractor streaks
        m = tube_mask(rng, size, uni(rng, 0, s), uni(rng, 0, s), s * uni(rng, 0.04, 0.2))
        ech = _add(ech, m, uni(rng, -0.1, 0.25), uni(rng, 1.5, 6))
    masks: list[U8] = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        r = s * logu(rng, 0.03, 0.26)
        cx, cy = s * np.clip(rng.normal(0.5, 0.15, 2), 0.15, 0.85)
        if chance(rng, 0.75):
            p = blob(
                rng,
                float(cx),
                float(cy),
                r,
                aspect=logu(rng, 0.7, 2.2),
                angle=rng.normal(0, 0.5),
                rough=uni(rng, 0.03, 0.2),
                lobes=8,
            )
            m = fill(size, p)
        else:
            m = organ(rng, size, float(cx), float(cy), r)
        m = u8(m & view)
        if overlaps(m, masks):
            continue
        lvl = base * (
            uni(rng, 0.02, 0.35)
            if chance(rng, 0.5)
            else uni(rng, 0.3, 0.75)
            if chance(rng, 0.75)
            else uni(rng, 1.4, 2.0)
        )
        t = r * uni(rng, 0.05, 0.3)
        d = f32(cv2.distanceTransform(u8(1 - m), cv2.DIST_L2, 3))
        outer = u8((d < t) & (view > 0))
        wall = u8(outer & (1 - m))
        ech = over(ech, m, f32(lvl + (ech - f32(ech.mean())) * f32(0.3)), soft=logu(rng, 0.8, 4))
        style = float(rng.random())
        if style < 0.5:
            ech = over(
                ech, wall, base * uni(rng, 1.15, 2.0), soft=uni(rng, 1, 3), alpha=uni(rng, 0.3, 0.9)
            )
            masks += [m, wall, outer] if style < 0.3 else [m]
        else:
            masks.append(m)
        if chance(rng, 0.5):  # enhancement or shadow below the object
            col = u8(np.cumsum(m, axis=0, dtype=np.int32) > 0) & (1 - m)
            ech = f32(ech * (f32(1) + blur(f32(col), s * 0.012) * f32(uni(rng, -0.6, 0.5))))
    if chance(rng, 0.4):
        sh = np.maximum(smooth(rng, 64, 12)[0], 0)
        prof = cv2.resize(f32(sh[None, :]), (size, 1), interpolation=cv2.INTER_CUBIC)
        ech = f32(ech * (f32(1) - np.clip(f32(prof) * f32(uni(rng, 0.1, 0.5)), 0, 0.8)))
    sp = _speckle(rng, size)
    a = f32(uni(rng, 0.25, 0.9))
    img = f32(np.maximum(ech, 0) * (f32(1) - a + a * sp))
    if chance(rng, 0.4):
        img = f32(np.log1p(img * f32(6)) / math.log(7))
    img = f32(img * (f32(1) - np.abs(y - f32(uni(rng, -0.5, 0.5))) * f32(uni(rng, 0, 0.35))))
    img = f32(img * blur(f32(view), 0.7))
    return Scene(img, pack(masks), strength=0.5, marks=0.4)


def bands(rng: Rng, size: int) -> Scene:
    """OCT-like wavy layers with speckle, fluid pockets and a dark vitreous above."""
    s = float(size)
    n = int(rng.integers(3, 11))
    t = np.linspace(0, 1, size)
    mid = s * uni(rng, 0.25, 0.5) + s * rng.normal(0, 0.12) * (t - 0.5)
    wave = smooth(rng, size, s * uni(rng, 0.3, 0.9))[0] * s * uni(rng, 0.005, 0.05)
    pit = -np.exp(-(((t - uni(rng, 0.3, 0.7)) / 0.09) ** 2)) * s * uni(rng, 0, 0.08)
    pit *= chance(rng, 0.5)
    total = s * uni(rng, 0.2, 0.6)
    fr = rng.dirichlet(np.full(n, uni(rng, 0.8, 4)))
    rows = np.arange(size, dtype=np.float32)[:, None]
    lab = np.zeros((size, size), dtype=np.uint8)
    top = mid + wave - pit
    pos = 0.0
    for i in range(n + 1):
        b = top + pos * total + pit * min(1.0, pos * 3) + smooth(rng, size, s * 0.12)[0] * s * 0.003
        lab[rows >= f32(b)[None, :]] = i + 1
        if i < n:
            pos += max(float(fr[i]), 0.02)
    mu = f32(rng.uniform(0.12, 0.9, n + 2))
    mu[0] = uni(rng, 0.0, 0.12)
    mu[n + 1] = uni(rng, 0.05, 0.3)
    mu[1 : n + 1 : 2] = f32(
        np.clip(mu[1 : n + 1 : 2] * 0.5 + (0.35 if chance(rng, 0.5) else 0.0), 0, 1)
    )
    ech = blur(lut(mu, lab), uni(rng, 0.7, 2.2))
    fade = np.clip((rows - f32(top)[None, :] - f32(total)) / s, 0, 1)
    ech = f32(ech * np.exp(-fade * uni(rng, 1, 6)))
    masks: list[U8] = []
    inside = u8((lab > 0) & (lab <= n))
    for _ in range(int(rng.choice([0, 1, 2, 5]))):
        cx = uni(rng, 0.1, 0.9) * s
        cy = float(top[int(cx)]) + uni(rng, 0.15, 0.85) * total
        m = fill(
            size,
            blob(
                rng, cx, cy, s * logu(rng, 0.015, 0.09), aspect=uni(rng, 1, 3), angle=0, rough=0.12
            ),
        )
        m = u8(m & inside)
        ech = over(ech, m, uni(rng, 0.02, 0.15), soft=uni(rng, 0.8, 2))
        masks.append(m)
    img = ech
    if chance(rng, 0.3):
        img = f32(img * (f32(1) + smooth(rng, size, 60)[0][None, :] * f32(0.12)))
    a = f32(uni(rng, 0.1, 0.6))
    img = f32((img + f32(0.03)) * (f32(1) - a + a * _speckle(rng, size)))
    lay = lab.copy()
    lay[lab > n] = 0
    for m in masks:
        lay[m > 0] = 0
    layers = [lay, *pack(masks)]
    if n >= 4 and chance(rng, 0.5):
        i = int(rng.integers(1, n - 1))
        j = int(rng.integers(i + 1, n))
        layers.append(u8((lab >= i) & (lab <= j)))
    if chance(rng, 0.4):
        layers.append(inside)
    return Scene(img, layers, strength=0.6, marks=0.1)
