"""The exporter's registry writes the rules that were checked against the original code."""

from __future__ import annotations

from typing import Any

import pytest

from samrt.manifest import parse_manifest

from . import family_rules

NAMES = {
    "sam_vit_b": ("sam", "vit_b"),
    "sam_vit_l": ("sam", "vit_l"),
    "sam_vit_h": ("sam", "vit_h"),
    "sam_lora_vitb": ("sam", "vit_b"),
    "sam2.1_hiera_t": ("sam2", "sam2.1_hiera_t"),
}
"""Name and variant in the registry, where they are not those of the vectors."""


def registered(family: str) -> dict[str, Any]:
    pytest.importorskip("torch")
    from samrt_export.families import FAMILIES

    name, variant = NAMES.get(family, (family, None))
    entry = FAMILIES[name]
    rules: dict[str, Any] = entry.rules(variant or entry.variants[0], entry.frame())
    return rules


@pytest.mark.parametrize("family", list(family_rules.RULES))
def test_registry_and_checked_rules_agree(family: str) -> None:
    checked = family_rules.manifest_document(family)
    document = {**checked, **registered(family)}
    ours, theirs = parse_manifest(checked), parse_manifest(document)
    assert theirs.input == ours.input
    for name in ("box_transform", "padding_point", "pad_to", "mask", "box", "points"):
        assert getattr(theirs.prompts, name) == getattr(ours.prompts, name), name
    for name in (
        "kind", "low_res_size", "num_masks", "multimask_indices", "threshold", "threshold_space",
        "resize_kind", "resize_interpolation", "logit_limit",
    ):  # fmt: skip
        assert getattr(theirs.output, name) == getattr(ours.output, name), name
