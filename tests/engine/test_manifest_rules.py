"""Rules that schema version 1 got after its first bundles: optional, and silent where unused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from samrt.bundle import Bundle
from samrt.errors import BundleError
from samrt.manifest import InputSpec, Manifest, OutputSpec, PromptSpec, parse_manifest

Document = dict[str, Any]


def with_rules(
    document: Document,
    *,
    resize: Document | None = None,
    normalize: Document | None = None,
    prompts: Document | None = None,
    output: Document | None = None,
) -> Manifest:
    """The committed manifest with some rules set; what is given as ``...`` is removed."""
    doc = copy.deepcopy(document)
    parts = (
        (doc["input"]["resize"], resize), (doc["input"]["normalize"], normalize),
        (doc["prompts"], prompts), (doc["output"], output),
    )  # fmt: skip
    for place, changes in parts:
        for key, value in (changes or {}).items():
            if value is ...:
                del place[key]
            else:
                place[key] = value
    return parse_manifest(doc)


def test_a_manifest_without_later_rules_reads_as_ever(manifest_doc: Document) -> None:
    manifest = parse_manifest(manifest_doc)
    assert manifest.input.rounding == "nearest"
    assert manifest.input.via == ()
    assert manifest.input.divisor == 1.0
    assert manifest.prompts.pad_to is None
    assert manifest.prompts.takes_prompts
    out = manifest.output
    assert (out.kind, out.multimask, out.logit_limit) == ("masks", "candidates", None)


def test_the_digest_of_older_bundles_has_not_changed(bundle_path: Path) -> None:
    assert Bundle.open(bundle_path).model_id == "fixture@fd69d23531ac"


def test_repr_shows_later_rules_only_where_they_say_something(manifest_doc: Document) -> None:
    plain = parse_manifest(manifest_doc)
    for spec in (plain.input, plain.prompts, plain.output):
        for name in ("rounding", "via", "divisor", "pad_to", "kind", "multimask", "logit_limit"):
            assert f", {name}=" not in repr(spec)
    # What is written out although it is the default means the same, so it has the same digest.
    spelled = with_rules(
        manifest_doc,
        resize={"rounding": "nearest", "via": []},
        normalize={"divisor": 1.0},
        prompts={"pad_to": None},
        output={"kind": "masks", "multimask": "candidates", "logit_limit": None},
    )
    assert repr(spelled.input) == repr(plain.input)
    assert repr(spelled.prompts) == repr(plain.prompts)
    assert repr(spelled.output) == repr(plain.output)
    assert repr(plain.prompts).startswith("PromptSpec(box=True, points=True, ")


@pytest.mark.parametrize(
    ("changes", "part", "text"),
    [
        ({"resize": {"rounding": "none"}}, "input", "rounding='none'"),
        ({"normalize": {"divisor": 255}}, "input", "divisor=255.0"),
        (
            {
                "resize": {
                    "interpolation": "bspline_corners", "rounding": "none", "via": [[224, 224]],
                }
            },
            "input",
            "via=((224, 224),)",
        ),
        ({"resize": {"interpolation": "bspline_antialias", "rounding": "truncate"}}, "input",
         "rounding='truncate'"),
        ({"prompts": {"pad_to": 6, "padding_point": False}}, "prompts", "pad_to=6"),
        ({"prompts": {"box_transform": "truncate_longest"}}, "prompts", "'truncate_longest'"),
        ({"output": {"mask_choice": "stability"}}, "output", "mask_choice='stability'"),
        ({"output": {"multimask": "best"}}, "output", "multimask='best'"),
        ({"output": {"logit_limit": 32}}, "output", "logit_limit=32.0"),
        ({"output": {"single_mask": "best_candidate"}}, "output", "single_mask='best_candidate'"),
        (
            {"output": {"resize": {"kind": "direct", "interpolation": "bicubic"}}},
            "output",
            "resize_interpolation='bicubic'",
        ),
        (
            {"output": {"resize": {"kind": "two_step", "interpolation": "nearest"}}},
            "output",
            "resize_interpolation='nearest'",
        ),
    ],
)  # fmt: skip
def test_each_rule_arrives_and_changes_the_digest(
    manifest_doc: Document, changes: Document, part: str, text: str
) -> None:
    changed, plain = with_rules(manifest_doc, **changes), parse_manifest(manifest_doc)
    spec: InputSpec | PromptSpec | OutputSpec = getattr(changed, part)
    assert text in repr(spec)
    assert repr(spec) != repr(getattr(plain, part))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"resize": {"interpolation": "bspline_corners", "via": [[9, 9]]}},
            "input.resize.via: needs a bspline interpolation and rounding 'none'",
        ),
        (
            {"prompts": {"pad_to": 1, "padding_point": False}},
            "prompts.pad_to: 1 rows do not hold",
        ),
        (
            {"prompts": {"pad_to": 4, "max_points": 5, "padding_point": False}},
            "prompts.pad_to: 4 rows do not hold",
        ),
        (
            {"resize": {"kind": "stretch"}, "prompts": {"box_transform": "truncate_longest"}},
            "'truncate_longest' needs resize longest_side",
        ),
        (
            {"output": {"kind": "classes", "threshold_space": "probability"}},
            "'classes' needs num_masks 2 or more, logits and bilinear",
        ),
        (
            {"output": {"kind": "classes", "mask_choice": "stability"}},
            "ranked by score, not by stability",
        ),
        (
            {"output": {"resize": {"kind": "direct", "interpolation": "nearest"},
                        "kind": "classes"}},
            "'classes' needs",
        ),
        (
            {"prompts": {k: False for k in ("box", "points", "mask", "box_and_points")}},
            "prompts: the model takes no prompt at all",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_named(manifest_doc: Document, changes: Document, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        with_rules(manifest_doc, **changes)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def without_prompts(document: Document, batch: int | str) -> Document:
    """The committed manifest as one of a model of classes that takes no prompts."""
    doc = copy.deepcopy(document)
    for key in ("box", "points", "negative_points", "mask", "box_and_points", "padding_point"):
        doc["prompts"][key] = False
    doc["output"]["kind"] = "classes"
    decoder = doc["artifacts"][1]
    decoder["inputs"] = [
        i for i in decoder["inputs"] if not i["name"].startswith(("point", "mask", "has_"))
    ]
    for tensor in decoder["outputs"]:
        tensor["shape"][0] = batch
    return doc


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_model_of_classes_needs_no_prompts(manifest_doc: Document, batch: int | str) -> None:
    manifest = parse_manifest(without_prompts(manifest_doc, batch))
    assert manifest.output.kind == "classes"
    assert not manifest.prompts.takes_prompts


def test_a_decoder_without_prompts_has_no_prompt_inputs(manifest_doc: Document) -> None:
    doc = without_prompts(manifest_doc, 1)
    doc["artifacts"][1]["inputs"].append(manifest_doc["artifacts"][1]["inputs"][2])
    with pytest.raises(BundleError, match="input 'point_coords' is not known"):
        parse_manifest(doc)
    doc = without_prompts(manifest_doc, 2)
    with pytest.raises(BundleError, match=r"output low_res_masks float32\[2, .* should be"):
        parse_manifest(doc)
