"""Every family's pixels against its original code: what goes in, and what comes out.

The vectors lie beside the repository (``../shared/golden``); without them the tests are skipped.
No weights are needed: the vectors hold what the original code fed to its encoder and what it made
of its low-resolution logits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import _kernels
from samrt.classes import class_map, class_masks
from samrt.geometry import Placement, place
from samrt.manifest import Manifest, parse_manifest
from samrt.postprocess import make_masks
from samrt.preprocess import load_image, preprocess
from samrt.types import Size

from . import family_rules

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"


PICTURES = ("colour_700x523", "ct_512", "grey_96x130", "large_1440x1080")
ROUNDED_TO_BYTES = ("medsam", "lite_medsam", "medical_sam_adapter")
"""Families with a picture of bytes on the way, besides those that share SAM's."""

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden vectors beside the repository"),
]


@cache
def families() -> dict[str, Any]:
    path = GOLDEN / "index.json"
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["families"]
    return found


def vectors(names: Iterable[str]) -> list[tuple[str, str]]:
    """Family and picture of every record; one without vectors, to be skipped for their lack."""
    names = list(names)
    found = [(f, picture) for f in names for picture in families().get(f, {}).get("images", {})]
    return found or [(names[0], PICTURES[0])]


def manifest_of(family: str) -> Manifest:
    return parse_manifest(family_rules.manifest_document(family))


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def record(family: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = families()[family]["images"][name]
    return found


def test_no_family_is_left_out() -> None:
    assert set(family_rules.RULES) == set(families())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("family", "name"), vectors(family_rules.RULES))
def test_encoder_input_is_bit_exact(family: str, name: str, threads: int) -> None:
    facts = record(family, name)
    spec = manifest_of(family).input
    picture = load_image(str(GOLDEN / "images" / f"{name}.png"))
    assert list(picture.size) == facts["original_size"]
    placement = place(picture.size, spec.size, spec.resize_kind)
    tensor = preprocess(picture, placement, spec, threads=threads)
    stored = np.load(GOLDEN / f"{family}.npz")[f"{name}.input"]
    np.testing.assert_allclose(tensor[0, :, ::31, ::31], stored, rtol=1e-5, atol=1e-6)
    assert digest(tensor) == facts["input"]["sha256_float32"]


@pytest.mark.parametrize(("family", "name"), vectors(["sam_vit_b", *ROUNDED_TO_BYTES]))
def test_resized_picture_is_identical(family: str, name: str) -> None:
    facts = record(family, name)
    spec = manifest_of(family).input
    picture = load_image(str(GOLDEN / "images" / f"{name}.png")).array
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    size = place(picture.shape[:2], spec.size, spec.resize_kind).input_size
    resized = _kernels.resize(picture, size, spec.interpolation, 2, rounding=spec.rounding)
    assert digest(resized) == facts["resized_uint8"]["sha256"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", ["samed", "sam2.1_hiera_t", "medsam", "efficient_sam_ti"])
def test_colour_and_grey_copies_of_a_picture_agree(family: str, dtype: str) -> None:
    """A grey picture is three equal channels, whichever way it comes, also in half precision."""
    spec = manifest_of(family).input
    grey = load_image(str(GOLDEN / "images" / "ct_512.png")).array
    assert grey.ndim == 2
    placement = place(grey.shape[:2], spec.size, spec.resize_kind)
    tensors = [
        preprocess(load_image(image), placement, spec, threads=1).astype(dtype)
        for image in (grey, np.repeat(grey[..., None], 3, axis=2))
    ]
    np.testing.assert_array_equal(*tensors)


def original_masks(family: str, name: str, case: str) -> tuple[Any, Any, dict[str, Any]]:
    """Low-resolution logits, masks of the original code, facts; logits were kept as float16."""
    stored = np.load(GOLDEN / f"{family}.npz")
    facts = families()[family]["images"][name]["cases"][case]
    low = stored[f"{name}.{case}.low_full"].astype(np.float32)
    shape = tuple(facts["mask_shape"])
    bits = np.unpackbits(stored[f"{name}.{case}.masks"])[: int(np.prod(shape))]
    return low, bits.astype(bool).reshape(shape), facts


def stored_cases(family: str) -> list[tuple[str, str]]:
    keys = np.load(GOLDEN / f"{family}.npz").files
    found = [key.split(".") for key in keys if key.endswith(".low_full")]
    return [(name, case) for name, case, _ in found]


def placement_for(family: str, manifest: Manifest, size: Size) -> Placement:
    """The Medical SAM Adapter's masks stay in the frame; there an image of the frame's size."""
    spec = manifest.input
    if manifest.output.resize_interpolation == "nearest":
        size = spec.size
    return place(size, spec.size, spec.resize_kind)


@pytest.mark.parametrize("family", [f for f in family_rules.RULES if f != "samed"])
def test_masks_differ_only_at_the_threshold(family: str) -> None:
    manifest = manifest_of(family)
    cases = stored_cases(family)
    assert cases
    for name, case in cases:
        low, expected, facts = original_masks(family, name, case)
        height, width = families()[family]["images"][name]["original_size"]
        placement = placement_for(family, manifest, (height, width))
        for logits, masks in zip(low, expected, strict=True):
            got = make_masks(logits, placement, manifest.output, threads=2).masks
            # Rounding to half precision moves a tenth of the pixels that lie within 0.01 at most.
            # SAM 2's logits were clipped as well, after its masks had been made.
            share = 0.1 if manifest.output.logit_limit is None else 1.0
            limit = share * facts["near_threshold"] + 2e-5
            assert (got != masks).mean() <= limit, f"{name} {case}"


def test_classes_differ_only_where_two_are_level() -> None:
    manifest = manifest_of("samed")
    (case,) = stored_cases("samed")
    low, expected, facts = original_masks("samed", *case)
    placement = place((512, 512), manifest.input.size, manifest.input.resize_kind)
    found = class_map(low[0], placement, manifest.output, threads=2)
    everything = tuple(range(9))
    got, _ = class_masks(low[0], found, everything, placement, manifest.output, with_logits=False)
    assert (got.masks != expected[0]).mean() <= facts["near_threshold"] / 10
    assert got.areas_px == pytest.approx(facts["mask_area"], rel=5e-3, abs=4)
