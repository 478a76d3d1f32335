"""Contact sheets: python -m samrt_export.tiny.synth sheet OUT.png --seed S --n 48."""

from __future__ import annotations

import argparse
import sys
import time

import cv2
import numpy as np

from .fields import U8, u8
from .scenes import SCENES, Sample, generate


def draw(sample: Sample, side: int, contours: bool) -> U8:
    """BGR tile uint8 (side, side, 3) with target contours in colours."""
    img = sample.image
    flag = cv2.COLOR_GRAY2BGR if img.ndim == 2 else cv2.COLOR_RGB2BGR
    tile = u8(cv2.resize(cv2.cvtColor(img, flag), (side, side), interpolation=cv2.INTER_AREA))
    k = 0
    for lay in sample.layers if contours else []:
        small = u8(cv2.resize(lay, (side, side), interpolation=cv2.INTER_NEAREST))
        for v in np.unique(small):
            if v == 0:
                continue
            k += 1
            hsv = np.array([[[k * 47 % 180, 255, 255]]], dtype=np.uint8)
            c = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0]
            cs, _ = cv2.findContours(u8(small == v), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, cs, -1, (int(c[0]), int(c[1]), int(c[2])), 1)
    return tile


def main(argv: list[str] | None = None) -> int:
    """Write a contact sheet; returns the exit status."""
    ap = argparse.ArgumentParser(prog="samrt_export.tiny.synth", description=__doc__)
    sub = ap.add_subparsers(dest="cmd", required=True)
    sh = sub.add_parser("sheet", help="write a contact sheet")
    sh.add_argument("out")
    sh.add_argument("--seed", type=int, default=0)
    sh.add_argument("--n", type=int, default=48)
    sh.add_argument("--side", type=int, default=256, help="tile size in pixels")
    sh.add_argument("--cols", type=int, default=8)
    sh.add_argument("--kind", choices=sorted(SCENES), default=None)
    sh.add_argument("--plain", action="store_true", help="no contours")
    a = ap.parse_args(argv)
    tiles: list[U8] = []
    spent = 0.0
    for i in range(a.n):
        t = time.perf_counter()
        s = generate(np.random.default_rng([a.seed, i]), 512, a.kind)
        spent += time.perf_counter() - t
        tiles.append(draw(s, a.side, not a.plain))
    while len(tiles) % a.cols:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + a.cols]) for i in range(0, len(tiles), a.cols)]
    if not cv2.imwrite(a.out, np.vstack(rows)):
        print(f"cannot write {a.out}", file=sys.stderr)
        return 1
    print(f"{a.n} samples, mean {1e3 * spent / max(a.n, 1):.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
