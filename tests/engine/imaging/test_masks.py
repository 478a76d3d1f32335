"""RLE and polygons against slow, obvious versions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from samrt.errors import ImageError
from samrt.imaging import mask_to_geometry, mask_to_rle, rle_to_mask
from samrt.imaging.polygons import geometry_area

RNG = np.random.default_rng(9)
Mask = NDArray[np.bool_]


def discs(height: int, width: int) -> Mask:
    """Overlapping discs and holes."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for sign in (True, True, False, True, False):
        cy, cx, r = RNG.integers(0, height), RNG.integers(0, width), RNG.integers(1, height // 2)
        mask[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = sign
    return mask


ring = np.zeros((9, 11), bool)
ring[1:8, 2:9] = True
ring[3:6, 4:7] = False
ring[4, 5] = True
MASKS: dict[str, Mask] = {
    "empty": np.zeros((4, 6), bool),
    "full": np.ones((4, 6), bool),
    "one pixel": np.eye(1, dtype=bool),
    "one row": np.array([[0, 1, 1, 0, 1]], bool),
    "one column": np.array([[1], [0], [1]], bool),
    "ring with an island": ring,
    "chess": (np.indices((5, 7)).sum(axis=0) % 2).astype(bool),
    "noise": RNG.random((31, 17)) > 0.5,
    **{f"discs {i}": discs(40, 53) for i in range(4)},
}


def slow_counts(mask: Mask) -> list[int]:
    """Run lengths down the columns, the first one background."""
    runs, current = [0], False
    for value in mask.T.ravel().tolist():
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    return runs


def slow_packed(counts: list[int]) -> str:
    """COCO's compressed counts: from the fourth on differences to two back, 5 bits a byte."""
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = not ((value == 0 and not bits & 0x10) or (value == -1 and bits & 0x10))
            text.append(chr(48 + (bits | 0x20 if more else bits)))
    return "".join(text)


@pytest.mark.parametrize("name", MASKS)
def test_rle(name: str) -> None:
    mask = MASKS[name]
    plain = mask_to_rle(mask, compressed=False)
    packed = mask_to_rle(mask)
    assert plain == {"size": list(mask.shape), "counts": slow_counts(mask)}
    assert packed == {"size": list(mask.shape), "counts": slow_packed(slow_counts(mask))}
    for rle in (plain, packed, json.loads(json.dumps(packed))):
        back = rle_to_mask(rle)
        assert back.dtype == np.bool_
        assert np.array_equal(back, mask)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 2]},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": [2.0, 2.0]},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [2, 2], "counts": [2**40]},
        {"size": [2, 2], "counts": 4},
        {"size": [2, 2], "counts": "\x01"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": "oooooooooooooooooooo"},
        {"size": [2, 2], "counts": ""},
        {"size": [0, 2], "counts": []},
        {"size": [2**20, 2**20], "counts": [2**40]},
        {"size": ["2", 2], "counts": [4]},
        {"size": 4, "counts": [4]},
    ],
)
def test_damaged_rle_is_refused(rle: dict[str, Any]) -> None:
    with pytest.raises(ImageError):
        rle_to_mask(rle)


@pytest.mark.parametrize("name", MASKS)
def test_polygons_have_the_area_and_the_place_of_the_mask(name: str) -> None:
    mask = MASKS[name]
    geometry = json.loads(json.dumps(mask_to_geometry(mask)))
    assert geometry["type"] == "MultiPolygon"
    assert geometry_area(geometry) == mask.sum()
    # Painted eight times larger, the polygons give the mask back.
    factor = 8
    painted = Image.new("1", (mask.shape[1] * factor, mask.shape[0] * factor))
    pen = ImageDraw.Draw(painted)
    for outer, *holes in geometry["coordinates"]:
        for paint, rings in ((1, [outer]), (0, holes)):
            for corners in rings:
                assert corners[0] == corners[-1]
                pen.polygon([(x * factor, y * factor) for x, y in corners], fill=paint)
    if name != "ring with an island":  # painting a hole here erases the island in it
        assert np.array_equal(
            np.asarray(painted)[factor // 2 :: factor, factor // 2 :: factor], mask
        )


def test_a_hole_is_a_ring_of_its_polygon() -> None:
    parts = mask_to_geometry(ring)["coordinates"]
    assert sorted(len(part) for part in parts) == [1, 2]


def test_wrong_masks_are_refused() -> None:
    for bad in (np.zeros((2, 2, 1), bool), np.zeros((2, 2), np.uint8)):
        with pytest.raises(ImageError):
            mask_to_rle(bad)
        with pytest.raises(ImageError):
            mask_to_geometry(bad)
