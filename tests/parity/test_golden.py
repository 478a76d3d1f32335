"""Pixels in and masks out against the original Segment Anything code.

The vectors lie beside the repository (``../shared/golden``); without them the tests are skipped.
They hold what the original code fed to its encoder and made of its low-resolution logits, so the
engine's own steps are checked without any weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.geometry import place, points_to_frame
from samrt.manifest import InputSpec, OutputSpec
from samrt.postprocess import make_masks
from samrt.preprocess import load_image, preprocess

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
FRAME = (1024, 1024)
INPUT = InputSpec(
    size=FRAME,
    resize_kind="longest_side",
    interpolation="bilinear_antialias",
    pad_mode="right_bottom",
    pad_value=0.0,
    pad_before_normalize=False,
    normalize_kind="mean_std",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    scale=1.0,
    channel_order="RGB",
    dtype="float32",
)
OUTPUT = OutputSpec(
    low_res_size=(256, 256),
    num_masks=4,
    multimask_indices=(1, 2, 3),
    single_mask_index=0,
    mask_choice="predicted_iou",
    threshold=0.0,
    threshold_space="logits",
    resize_kind="two_step",
    resize_interpolation="bilinear",
    stability_offset=1.0,
)
PICTURES = ("colour_700x523", "ct_512", "grey_96x130", "large_1440x1080")

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden vectors beside the repository"),
]


@pytest.fixture(scope="module")
def families() -> dict[str, Any]:
    index: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text("utf-8"))
    return index["families"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", PICTURES)
def test_the_encoder_gets_the_same_bits(families: dict[str, Any], name: str, threads: int) -> None:
    image = load_image(GOLDEN / "images" / f"{name}.png")
    record = families["sam_vit_b"]["images"][name]
    assert list(image.size) == record["original_size"]
    tensor = preprocess(image, place(image.size, FRAME, "longest_side"), INPUT, threads=threads)
    assert hashlib.sha256(tensor.tobytes()).hexdigest() == record["input"]["sha256_float32"]


@pytest.mark.parametrize("family", ["sam_vit_b", "mobile_sam", "edge_sam"])
def test_masks_differ_only_at_the_threshold(families: dict[str, Any], family: str) -> None:
    """The stored logits are float16, so pixels within their rounding may flip."""
    vectors = np.load(GOLDEN / f"{family}.npz")
    seen = 0
    for name, record in families[family]["images"].items():
        height, width = record["original_size"]
        placement = place((height, width), FRAME, "longest_side")
        for case, facts in record["cases"].items():
            key = f"{name}.{case}."
            if f"{key}low_full" not in vectors:
                continue
            logits = vectors[f"{key}low_full"].astype(np.float32).reshape(-1, 256, 256)
            got = make_masks(logits, placement, OUTPUT, threads=1)
            bits = np.unpackbits(vectors[f"{key}masks"])[: got.masks.size]
            expected = bits.astype(bool).reshape(got.masks.shape)
            assert (got.masks != expected).mean() <= facts["near_threshold"] / 10 + 1e-5
            assert got.areas_px == pytest.approx(facts["mask_area"], rel=1e-3)
            if f"{key}stability" in vectors:
                stored = vectors[f"{key}stability"].reshape(-1)
                np.testing.assert_allclose(got.stability, stored, atol=1e-3)
            seen += 1
    assert seen >= 2


def test_coordinates_scale_as_in_the_original() -> None:
    """``ResizeLongestSide.apply_coords``: times new size over old size, per axis."""
    placement = place((523, 700), FRAME, "longest_side")
    points = np.array([[110.5, 350.25], [699.0, 522.0]])
    expected = points * np.array([1024 / 700, 765 / 523])
    np.testing.assert_allclose(points_to_frame(points, placement.scale), expected, rtol=1e-15)
