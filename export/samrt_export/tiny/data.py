"""Training images: a pool of procedural samples, real train-ok cases, and augmentation.

A drawn item is an image in the model frame (grey is repeated to three channels), and the masks
of a few of its targets.  All randomness comes from the generator passed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from samrt_export.tiny.synth import Sample, generate

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


@dataclass(frozen=True)
class Item:
    """image (S, S, 3) float32 normalised, padded; masks (K, S, S) and edges (S, S) uint8 0 or 1."""

    image: F32
    masks: U8
    edges: U8
    valid: tuple[int, int]


def build_pool(
    folder: Path, count: int, seed: int, size: int = 512, start: int = 0, kinds: Sequence[str] = ()
) -> None:
    """Write samples `start` to `count` - 1 into `folder`, one .npz each; existing ones stay.

    `kinds` names the scenes to draw in turn; without it the generator chooses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, count):
        path = folder / f"{i:06d}.npz"
        if path.exists():
            continue
        kind = kinds[i % len(kinds)] if kinds else None
        sample = generate(np.random.default_rng([seed, i]), size, kind)
        part = path.with_suffix(".part.npz")
        np.savez(part, image=sample.image, layers=sample.layers, kind=np.array(sample.kind))
        part.replace(path)


class Pool:
    """Random access to folders written by `build_pool`; they may still be growing.

    A share `focus_share` of the draws comes from `focus`, if given.
    """

    def __init__(self, folder: Path, focus: Path | None = None, focus_share: float = 0.4) -> None:
        self.folder = folder
        self.focus = Pool(focus) if focus else None
        self.focus_share = focus_share
        self.files: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Look for new files."""
        found = self.folder.glob("[0-9]*.npz")
        self.files = sorted(p for p in found if not p.name.endswith(".part.npz"))
        if self.focus:
            self.focus.refresh()

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample, uniformly within its folder."""
        if self.focus and rng.random() < self.focus_share:
            return self.focus.draw(rng)
        if not self.files:
            raise FileNotFoundError(f"no samples in {self.folder}: run `samrt-export tiny pool`")
        path = self.files[int(rng.integers(len(self.files)))]
        with np.load(path, allow_pickle=False) as z:
            return Sample(z["image"], z["layers"], str(z["kind"]))


def real_cases(root: Path, train: bool) -> list[dict[str, object]]:
    """Records of `btcv_imis`, split by case: every third case is held out of training."""
    rows = json.loads((root / "index.json").read_text(encoding="utf-8"))
    rows = [r for r in rows if r["set"] == "btcv_imis" and r["use"] == "train-ok"]
    cases = sorted({case_of(r) for r in rows})
    held_out = set(cases[::3])
    return [r for r in rows if (case_of(r) in held_out) != train]


def case_of(record: dict[str, object]) -> str:
    """`ABD_001` for `btcv_imis/images/ABD_001_100.png`."""
    return Path(str(record["image"])).stem.rsplit("_", 1)[0]


class RealImages:
    """The train-ok slices with their labels, as pool samples."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pairs = sorted(
            {(str(r["image"]), str(r["mask"])) for r in real_cases(root, train=True)}
        )
        self.cache: dict[int, Sample] = {}

    def draw(self, rng: np.random.Generator) -> Sample:
        """One slice, uniformly."""
        i = int(rng.integers(len(self.pairs)))
        if i not in self.cache:
            image, mask = (
                cv2.imread(str(self.root / p), cv2.IMREAD_UNCHANGED) for p in self.pairs[i]
            )
            if image is None or mask is None:
                raise FileNotFoundError(f"cannot read {self.pairs[i]} in {self.root}")
            if image.ndim == 3:
                image = np.ascontiguousarray(image[..., ::-1])
            layers = mask.astype(np.uint8)[None]
            self.cache[i] = Sample(image.astype(np.uint8), layers, "btcv")
        return self.cache[i]


def draw_item(
    rng: np.random.Generator, sample: Sample, size: int, targets: int, crop_min: float = 0.35
) -> Item | None:
    """Random crop, flips and photometric changes of one sample; None if no target is left."""
    h, w = sample.image.shape[:2]
    side = float(np.exp(rng.uniform(np.log(crop_min), np.log(1.08)))) * max(h, w)
    aspect = float(rng.uniform(0.62, 1.0)) if rng.random() < 0.5 else 1.0
    ch, cw = (side, side * aspect) if rng.random() < 0.5 else (side * aspect, side)
    cx, cy = rng.uniform(0, w), rng.uniform(0, h)
    if rng.random() < 0.6:
        layer = sample.layers[int(rng.integers(len(sample.layers)))]
        names = np.unique(layer[layer > 0])
        if len(names):
            ys, xs = np.nonzero(layer == rng.choice(names))
            k = int(rng.integers(len(ys)))
            cx = xs[k] + rng.uniform(-0.3, 0.3) * cw
            cy = ys[k] + rng.uniform(-0.3, 0.3) * ch
    x0 = float(np.clip(cx - cw / 2, min(0.0, w - cw), max(0.0, w - cw)))
    y0 = float(np.clip(cy - ch / 2, min(0.0, h - ch), max(0.0, h - ch)))
    scale = size / max(ch, cw)
    oh, ow = min(size, round(ch * scale)), min(size, round(cw * scale))
    turn = rng.random() < 0.2
    matrix = np.array([[scale, 0, -x0 * scale], [0, scale, -y0 * scale]], np.float64)
    if turn:
        a = np.deg2rad(rng.uniform(-30, 30))
        rot = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        c = np.array([ow / 2, oh / 2])
        matrix = np.hstack([rot @ matrix[:, :2], (rot @ (matrix[:, 2] - c) + c)[:, None]])
    image = sample.image
    if scale < 0.75:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / scale)
    mode = cv2.INTER_LINEAR if rng.random() < 0.8 else cv2.INTER_CUBIC
    image = cv2.warpAffine(image, matrix, (ow, oh), flags=mode)
    warped = [
        cv2.warpAffine(np.ascontiguousarray(layer), matrix, (ow, oh), flags=cv2.INTER_NEAREST)
        for layer in sample.layers
    ]
    layers = np.stack(warped)
    image, layers = _flip(rng, np.atleast_3d(image), layers)
    oh, ow = image.shape[:2]
    masks = _pick(rng, layers, targets, size)
    if masks is None:
        return None
    pixels = photometric(rng, image)
    out = np.zeros((size, size, 3), np.float32)
    out[:oh, :ow] = (pixels - MEAN) / STD
    full = np.zeros((len(masks), size, size), np.uint8)
    full[:, :oh, :ow] = masks
    edges = np.zeros((size, size), np.uint8)
    edges[:oh, :ow] = label_edges(layers)
    return Item(out, full, edges, (oh, ow))


def label_edges(layers: U8) -> U8:
    """(L, h, w) label maps to (h, w): 1 beside every border between labels."""
    out = np.zeros(layers.shape[1:], bool)
    across, down = layers[:, :, 1:] != layers[:, :, :-1], layers[:, 1:] != layers[:, :-1]
    out[:, 1:] |= across.any(axis=0)
    out[:, :-1] |= across.any(axis=0)
    out[1:] |= down.any(axis=0)
    out[:-1] |= down.any(axis=0)
    return out.astype(np.uint8)


def _flip(rng: np.random.Generator, image: U8, layers: U8) -> tuple[U8, U8]:
    if rng.random() < 0.5:
        image, layers = image[:, ::-1], layers[:, :, ::-1]
    if rng.random() < 0.5:
        image, layers = image[::-1], layers[:, ::-1]
    if rng.random() < 0.5:
        image, layers = image.swapaxes(0, 1), layers.swapaxes(1, 2)
    return np.ascontiguousarray(image), np.ascontiguousarray(layers)


def _pick(rng: np.random.Generator, layers: U8, count: int, size: int) -> U8 | None:
    """`count` target masks, small and large alike; None if nothing usable is in view."""
    h, w = layers.shape[1:]
    found: list[tuple[int, int, int]] = []
    for i, layer in enumerate(layers):
        areas = np.bincount(layer.ravel(), minlength=256)
        found += [
            (i, int(k), int(areas[k]))
            for k in np.flatnonzero(areas)
            if k > 0 and 45 <= areas[k] <= 0.85 * h * w
        ]
    if not found:
        return None
    area = np.array([f[2] for f in found], np.float64)
    weight = np.minimum(area, 0.01 * size * size) ** 0.5
    weight /= weight.sum()
    few = len(found) < count
    chosen = rng.choice(len(found), size=count, replace=few, p=weight)
    return np.stack([(layers[found[c][0]] == found[c][1]).astype(np.uint8) for c in chosen])


def photometric(rng: np.random.Generator, image: U8) -> F32:
    """Contrast, curves, colour, noise, blur; (h, w, 1 or 3) uint8 to (h, w, 3) float32 0..255."""
    x = image.astype(np.float32) / 255
    grey = x.shape[2] == 1
    if not grey and rng.random() < 0.15:
        x = x @ np.array([[0.299], [0.587], [0.114]], np.float32)
        grey = True
    if rng.random() < 0.12:
        x = 1 - x
    if rng.random() < 0.4:
        x = np.power(x, np.float32(np.exp(rng.uniform(-0.6, 0.6))))
    if rng.random() < 0.5:
        gain, shift = rng.uniform(0.5, 1.4), rng.uniform(-0.2, 0.2)
        x = (x - 0.5) * np.float32(gain) + np.float32(0.5 + shift)
    if grey:
        x = np.repeat(x, 3, axis=2)
    elif rng.random() < 0.3:
        x = x[..., rng.permutation(3)]
    if (not grey and rng.random() < 0.5) or rng.random() < 0.08:
        x = x * rng.uniform(0.75, 1.25, 3).astype(np.float32)
        x = x + rng.uniform(-0.08, 0.08, 3).astype(np.float32)
    h, w = x.shape[:2]
    if rng.random() < 0.2:
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.3:
        sigma = np.float32(rng.uniform(0.005, 0.07))
        shape = (h, w, 1) if grey or rng.random() < 0.5 else (h, w, 3)
        x = x + rng.standard_normal(shape, dtype=np.float32) * sigma
    return np.clip(x, 0, 1).astype(np.float32) * 255


def batch_source(
    pool: Pool, real: RealImages | None, real_share: float, size: int, batch: int, targets: int
) -> Callable[[np.random.Generator], list[Item]]:
    """A function that draws one batch of items."""

    def draw(rng: np.random.Generator) -> list[Item]:
        items: list[Item] = []
        while len(items) < batch:
            use_real = real is not None and rng.random() < real_share
            sample = real.draw(rng) if use_real and real is not None else pool.draw(rng)
            item = draw_item(rng, sample, size, targets)
            if item is not None:
                items.append(item)
        return items

    return draw


def stack(items: Sequence[Item]) -> tuple[F32, U8, U8]:
    """Images (B, 3, S, S), masks (B * K, S, S), those of one image adjacent, edges (B, S, S)."""
    images = np.stack([i.image for i in items]).transpose(0, 3, 1, 2)
    masks, edges = np.concatenate([i.masks for i in items]), np.stack([i.edges for i in items])
    return np.ascontiguousarray(images), masks, edges
