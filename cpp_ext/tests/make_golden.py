"""Write cases with the answers of :mod:`samrt.reference` for test_kernels.cpp.

    python cpp_ext/tests/make_golden.py FILE

The file is a sequence of cases: a name, then integers, numbers and arrays in the order in which
the C++ side reads them. Everything is little-endian: text and arrays are a 64-bit length in bytes
and the bytes, integers 64 bits, numbers IEEE doubles.
"""

from __future__ import annotations

import itertools
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt import reference, reference_runs
from samrt.reference_resize import resize_exactly

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = [
    ((1, 1), (1, 1)), ((1, 1), (7, 5)), ((5, 1), (3, 4)), ((1, 97), (2, 13)), ((97, 1), (13, 1)),
    ((31, 37), (31, 37)), ((31, 37), (31, 101)), ((31, 37), (101, 37)), ((64, 64), (128, 128)),
    ((127, 89), (61, 43)), ((3, 900), (5, 3)), ((900, 3), (3, 5)), ((100, 10), (10, 100)),
    ((301, 101), (128, 43)), ((17, 300), (64, 21)),
]  # fmt: skip


class Writer:
    """Cases in a buffer."""

    def __init__(self) -> None:
        self.data = bytearray()

    def case(self, name: str, *values: Any) -> None:
        """Add a case: text, integers, floats and arrays."""
        for value in (name, *values):
            if isinstance(value, str):
                self._bytes(value.encode("ascii"))
            elif isinstance(value, np.ndarray):
                self._bytes(np.ascontiguousarray(value).tobytes())
            elif isinstance(value, float):
                self.data += struct.pack("<d", value)
            else:
                self.data += struct.pack("<q", int(value))

    def _bytes(self, value: bytes) -> None:
        self.data += struct.pack("<Q", len(value)) + value


def picture(rng: np.random.Generator, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Noise; sometimes only black and white, where cubic weights overshoot."""
    shape = size if channels == 1 else (*size, channels)
    if rng.integers(3) == 0:
        return (rng.integers(0, 2, shape) * 255).astype(np.uint8)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def images(out: Writer, rng: np.random.Generator) -> None:
    """Resizing, preprocessing, windows."""
    for before, after in SIZES:
        for channels in (1, 3):
            image = picture(rng, before, channels)
            for kind in ("bilinear_antialias", "bicubic", "nearest", "area"):
                expected = reference.resize(image, after, kind)
                out.case("resize", kind, "nearest", *before, channels, *after, image, expected)
            for kind, rounding in (
                ("bspline_antialias", "truncate"),
                ("bspline_corners", "nearest"),
            ):
                expected = reference.resize(image, after, kind, rounding)
                out.case("resize", kind, rounding, *before, channels, *after, image, expected)
            exact = resize_exactly(image, after, "bilinear")
            out.case("resize_float", "bilinear", "nearest", *before, channels, *after, image, exact)
    for before, ratio in (((40, 36), (2, 2)), ((45, 60), (3, 4)), ((7, 31), (7, 1))):
        image = picture(rng, before, 3)
        after = (before[0] // ratio[0], before[1] // ratio[1])
        expected = reference.resize(image, after, "area")
        out.case("resize", "area", "nearest", *before, 3, *after, image, expected)
    rules: tuple[tuple[str, str, int, float], ...] = (
        ("bilinear_antialias", "nearest", 0, 1.0),
        ("bilinear", "none", 0, 255.0),
        ("bilinear_antialias", "none", 0, 255.0),
        ("bspline_antialias", "truncate", 0, 1.0),
        ("bspline_corners", "none", 20, 255.0),
        ("bicubic", "nearest", 0, 3.0),
    )
    for i, (kind, rounding, via, divisor) in itertools.product(range(12), rules):
        before, after = SIZES[i % len(SIZES)]
        steps = [(via, via)] if via else []
        channels = 1 if i % 3 == 2 else 3
        image = picture(rng, before, channels)
        frame = (after[0] + i % 4, after[1] + i % 3)
        options: dict[str, Any] = {
            "scale": (1.0, 1 / 255)[i % 2], "min_max": i % 4 == 3,
            "pad_value": (0.0, 114.0)[i // 2 % 2], "pad_before": i % 5 == 1, "bgr": i % 2 == 1,
        }  # fmt: skip
        for dtype in ("float32", "float16"):
            expected = reference.preprocess(
                image, out_size=frame, resized=after, interpolation=kind, rounding=rounding,
                via=steps, divisor=divisor, mean=MEAN, std=STD, out_dtype=dtype, **options,
            )  # fmt: skip
            out.case(
                "preprocess", kind, rounding, via, divisor, *before, channels, *after, *frame,
                *MEAN, *STD,
                *options.values(), dtype == "float16", image, expected,
            )  # fmt: skip
    types: tuple[Any, ...] = (np.uint16, np.int16, np.float32)
    for i, dtype in enumerate(types):
        for before, after in SIZES[:10]:
            deep = (rng.normal(0, 900, before) + 1000 * (i == 0)).astype(dtype)
            window = (-100.5, 700.0) if i else (300.0, 1700.0)
            values = reference.preprocess_window(
                deep, window=window, out_size=after, resized=after, mean=(0, 0, 0), std=(1, 1, 1),
                interpolation="bilinear_antialias",
            )  # fmt: skip
            byte = reference.window_to_uint8(deep, *window)
            out.case("window", i, *before, *after, *window, deep, values, byte)


def logits(out: Writer, rng: np.random.Generator) -> None:
    """Upscaling, thresholds, stability."""
    for i, (low, frame, size) in enumerate(
        [(64, 256, (1, 1)), (33, 70, (41, 97)), (1, 16, (5, 60)), (48, 20, (64, 33)),
         (64, 256, (300, 211)), (64, 256, (256, 256)), (40, 160, (1, 500)), (40, 160, (500, 1))]
    ):  # fmt: skip
        scale = frame / max(size)
        crop = (max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5)))
        count = 1 + i % 2
        values = rng.normal(0, 5, (count, low, low)).astype(np.float32)
        if i % 3 == 0:
            y, x = np.mgrid[:low, :low] / low
            values[:] = (9 - 60 * np.hypot(y - 0.4, x - 0.5)).astype(np.float32)
        stable = reference.stability(values, 0.25, 0.5)
        for kind in ("bilinear", "nearest", "bicubic"):
            whole = (low, low) if kind == "bicubic" else (frame, frame)
            part = (min(crop[0], whole[0]), min(crop[1], whole[1]))
            expected = reference.upscale_logits(
                values, frame=whole, crop=part, out=size, interpolation=kind
            )
            out.case(
                "logits", kind, count, low, low, *whole, *part, *size, values, expected, stable
            )  # fmt: skip


def regions(out: Writer, rng: np.random.Generator) -> None:
    """Measures, run lengths, components, outlines."""
    masks = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool)]
    masks += [np.eye(9, dtype=bool), np.indices((8, 9)).sum(0) % 2 == 1]
    for shape in ((1, 70), (70, 1), (33, 65), (64, 40)):
        masks += [rng.random(shape) < density for density in (0.03, 0.4, 0.6, 0.97)]
    for mask in masks:
        areas, boxes = reference.mask_stats(mask[None])
        counts = reference.rle_encode(mask)
        text = reference.rle_to_string(counts).decode("ascii")
        out.case("mask", *mask.shape, mask, areas, boxes, counts, text)
        for connectivity in (4, 8):
            labels, n = reference.connected_components(mask, connectivity)
            out.case("components", *mask.shape, connectivity, mask, labels, n)
        for mode in ("holes", "islands"):
            kept, changed = reference.remove_small_regions(mask, 6.0, mode)
            out.case("small", *mask.shape, 6.0, mode == "holes", mask, kept, changed)
        edges = [int(n) for n in rng.integers(0, 4, 4)]
        place = (edges[0], edges[1])
        whole = (mask.shape[0] + edges[0] + edges[2], mask.shape[1] + edges[1] + edges[3])
        moved = reference_runs.place_runs(counts, mask.shape, place, whole)
        out.case("placed", *mask.shape, *place, *whole, counts, moved)
        polygons = reference.mask_polygons(mask)
        lengths = [[len(rings), *map(len, rings)] for rings in polygons]
        points = [ring for rings in polygons for ring in rings] or [np.zeros((0, 2))]
        out.case(
            "polygons", *mask.shape, mask,
            np.array([n for part in lengths for n in part], np.int64),
            np.concatenate(points).astype(np.int32),
        )  # fmt: skip


def suppression(out: Writer, rng: np.random.Generator) -> None:
    """Boxes with many equal scores, some without area."""
    for count in (1, 7, 300):
        corners = rng.integers(0, 25, (count, 2, 2)).astype(np.float32)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
        scores = rng.integers(0, 6, count).astype(np.float32)
        for threshold in (0.0, 0.4, 0.8, 1.0):
            kept = reference_runs.box_nms(boxes, scores, threshold)
            out.case("nms", threshold, boxes, scores, kept)


def main() -> None:
    """Write every case to the file that is named on the command line."""
    rng = np.random.default_rng(2024)
    out = Writer()
    images(out, rng)
    logits(out, rng)
    regions(out, rng)
    suppression(out, rng)
    out.case("end")
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.data)
    print(f"{path}: {len(out.data) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
