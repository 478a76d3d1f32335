"""Scene registry and the sample generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .degrade import degrade
from .fields import F32, U8, Rng, chance, f32, smooth, u8, uni, warp_maps
from .render import Scene
from .scenes_cells import histology, membranes, noise_labels, nuclei, smear
from .scenes_colour import lesions, vessels
from .scenes_nested import bent, folds, pairs, rings, trees
from .scenes_organs import body_slice, mr
from .scenes_proj import bands, ultrasound, xray
from .scenes_things import checker, soft_blobs, things
from .scenes_zones import cores, hearts, lumps

MAX_AREA = 0.72

SCENES: dict[str, tuple[float, Callable[[Rng, int], Scene]]] = {
    "noise_labels": (0.8, noise_labels),
    "body_slice": (1.5, body_slice),
    "membranes": (0.8, membranes),
    "smear": (0.8, smear),
    "nuclei": (0.8, nuclei),
    "vessels": (1.0, vessels),
    "lesions": (1.6, lesions),
    "xray": (1.0, xray),
    "ultrasound": (1.2, ultrasound),
    "bands": (0.6, bands),
    "mr": (1.4, mr),
    "things": (1.6, things),
    "histology": (0.6, histology),
    "soft_blobs": (0.6, soft_blobs),
    "checker": (0.3, checker),
    "rings": (1.0, rings),
    "bent": (0.8, bent),
    "pairs": (0.6, pairs),
    "folds": (0.5, folds),
    "trees": (1.2, trees),
    "hearts": (0.8, hearts),
    "cores": (1.0, cores),
    "lumps": (1.0, lumps),
}


@dataclass(frozen=True)
class Sample:
    """One training image and its targets.

    image: uint8 (H, W) grey or (H, W, 3) RGB. layers: uint8 (L, H, W) label maps; 0 is no
    target and every distinct (layer, label > 0) is one target mask. kind: scene name.
    """

    image: U8
    layers: U8
    kind: str


def _clean(layers: list[U8], min_area: int, max_area: int) -> list[U8]:
    """Drop targets outside [min_area, max_area] pixels; drop empty layers."""
    out: list[U8] = []
    for lay in layers:
        n = np.bincount(lay.ravel(), minlength=256)
        ok = (n >= min_area) & (n <= max_area)
        ok[0] = False
        if not bool(ok.any()):
            continue
        table = np.where(ok, np.arange(256), 0).astype(np.uint8)
        out.append(u8(cv2.LUT(lay, table)))
    return out


def _geometry(rng: Rng, sc: Scene, size: int) -> tuple[F32, list[U8]]:
    """Warp, crop, flip and turn image and layers together."""
    img, layers = sc.image, sc.layers
    u = float(rng.random())
    if sc.warp and u < 0.12:
        mx, my = warp_maps(rng, size, uni(rng, 0.004, 0.014) * size, uni(rng, 0.15, 0.5) * size)
    elif u < 0.32:  # affine: rotation, zoom, shear
        a, z = uni(rng, 0, 6.283), uni(rng, 0.55, 1.05)
        if chance(rng, 0.6):
            a *= 0.05
        t = np.arange(size, dtype=np.float32) - f32(size / 2)
        sh = float(rng.normal(0, 0.08))
        c, s = float(np.cos(a)) * z, float(np.sin(a)) * z
        o = rng.uniform(-0.5, 0.5, 2) * max(0.0, 1 - z) * size + size / 2
        mx = f32(t[None, :] * f32(c) + t[:, None] * f32(-s + sh) + f32(o[0]))
        my = f32(t[None, :] * f32(s) + t[:, None] * f32(c) + f32(o[1]))
    else:
        mx = my = f32([])
    if mx.size:
        edge = cv2.BORDER_REFLECT if chance(rng, 0.5) else cv2.BORDER_CONSTANT
        img = f32(cv2.remap(img, mx, my, cv2.INTER_LINEAR, borderMode=edge))
        layers = [u8(cv2.remap(m, mx, my, cv2.INTER_NEAREST, borderMode=edge)) for m in layers]
    if chance(rng, 0.4):
        img, layers = f32(img[:, ::-1]), [u8(m[:, ::-1]) for m in layers]
    if chance(rng, 0.15):
        img, layers = f32(img[::-1]), [u8(m[::-1]) for m in layers]
    if chance(rng, 0.15):
        img = f32(np.swapaxes(img, 0, 1))
        layers = [u8(m.T) for m in layers]
    return f32(np.ascontiguousarray(img)), [np.ascontiguousarray(m) for m in layers]


def _make(rng: Rng, kind: str, size: int) -> Sample | None:
    sc = SCENES[kind][1](rng, size)
    img, layers = _geometry(rng, sc, size)
    low = max(50, round(60 * (size / 512) ** 2)) if size >= 512 else round(60 * (size / 512) ** 2)
    kept = _clean(layers, max(low, 4), int(MAX_AREA * size * size))
    if not kept:
        return None
    out = degrade(rng, img, strength=sc.strength, marks_p=sc.marks)
    return Sample(np.ascontiguousarray(out), np.stack(kept), kind)


def generate(rng: Rng, size: int = 512, kind: str | None = None) -> Sample:
    """One random sample of size x size pixels; the same rng state gives the same sample.

    kind: a name of SCENES, or None for a random one. Raises ValueError on a size below 64 or
    an unknown kind.
    """
    if size < 64:
        raise ValueError(f"size must be at least 64, got {size}")
    if kind is not None and kind not in SCENES:
        raise ValueError(f"unknown scene kind {kind!r}")
    names = list(SCENES)
    w = np.array([SCENES[k][0] for k in names])
    w = w / w.sum()
    for _ in range(20):
        k = kind if kind is not None else names[int(rng.choice(len(names), p=w))]
        out = _make(rng, k, size)
        if out is not None:
            return out
    lab = np.zeros((1, size, size), dtype=np.uint8)
    q = size // 4
    lab[0, q : 3 * q, q : 3 * q] = 1
    img = f32(0.4 + 0.3 * lab[0] + 0.03 * smooth(rng, size, 8))
    return Sample(u8(np.clip(img * 255, 0, 255)), lab, "things")
