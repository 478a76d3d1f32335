from __future__ import annotations

import copy
from typing import Any

import pytest

from samrt.errors import BundleError
from samrt.manifest import TensorSpec, parse_manifest


def edited(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *parents, last = path.split(".")
    place: Any = changed
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is ...:
        del place[int(last) if isinstance(place, list) else last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return changed


def test_values_arrive_typed(manifest_doc: dict[str, Any]) -> None:
    manifest = parse_manifest(manifest_doc)
    assert manifest.name == "fixture"
    assert manifest.input.size == (64, 64)
    assert manifest.input.mean == (123.675, 116.28, 103.53)
    assert manifest.input.pad_before_normalize is False
    assert manifest.prompts.max_points is None
    assert manifest.prompts.padding_inert is False
    assert manifest.output.multimask_indices == (1, 2, 3)
    assert manifest.output.resize_kind == "two_step"
    encoder = manifest.artifacts[0]
    assert encoder.role == "encoder"
    assert encoder.inputs == (TensorSpec("image", "float32", (1, 3, 64, 64)),)
    assert str(encoder.inputs[0]) == "image float32[1, 3, 64, 64]"


def test_optional_keys_have_defaults(manifest_doc: dict[str, Any]) -> None:
    for key in ("mask_choice", "threshold_space", "resize", "stability_offset"):
        del manifest_doc["output"][key]
    for key in ("box_transform", "max_points", "padding_point"):
        del manifest_doc["prompts"][key]
    del manifest_doc["calibration"], manifest_doc["parity"]
    manifest = parse_manifest(manifest_doc)
    assert manifest.output.threshold_space == "logits"
    assert manifest.output.resize_kind == "two_step"
    assert manifest.output.stability_offset == 1.0
    assert manifest.prompts.padding_point is True
    assert manifest.calibration is None


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("schema_version", ..., "schema_version: missing"),
        ("schema_version", "1", "schema_version: expected integer"),
        ("name", "../evil", "name: got '../evil'"),
        ("name", "", "name: got ''"),
        ("colour", 1, "colour: unknown key"),
        ("input.size", [64], "input.size: has 1 items"),
        ("input.size", [64, 0], "input.size[1]: got 0"),
        ("input.resize.kind", "fit", "input.resize.kind: got 'fit'"),
        ("input.resize.interpolation", "lanczos", "input.resize.interpolation"),
        ("input.pad.mode", "none", "leaves the frame unfilled"),
        ("input.normalize.std", [1.0, 0.0, 1.0], "input.normalize.std[1]: got 0.0"),
        ("input.normalize.mean", ..., "input.normalize.mean: missing"),
        ("input.resize.rounding", "up", "input.resize.rounding: got 'up'"),
        ("input.resize.rounding", "truncate", "'truncate' does not exist for bilinear_antialias"),
        ("input.resize.via", [[8, 8]], "input.resize.via: needs a bspline"),
        ("input.resize.via", [[8]], "input.resize.via[0]: has 1 items"),
        ("input.normalize.divisor", 0, "input.normalize.divisor: got 0"),
        ("input.channel_order", "GBR", "input.channel_order"),
        ("prompts.box", "yes", "prompts.box: expected boolean"),
        ("prompts.max_points", 0, "prompts.max_points: got 0"),
        ("prompts.points", False, "prompts.box_and_points: true although"),
        ("prompts.pad_to", 0, "prompts.pad_to: got 0"),
        ("prompts.pad_to", 6, "padding_point must be false"),
        ("prompts.box_transform", "floor", "prompts.box_transform: got 'floor'"),
        ("output.num_masks", 3, "mask index 3 with num_masks 3"),
        ("output.single_mask_index", 9, "mask index 9 with num_masks 4"),
        ("output.threshold", float("nan"), "output.threshold: must be finite"),
        ("output.threshold_space", "odds", "output.threshold_space"),
        ("output.stability_offset", 0, "output.stability_offset"),
        ("output.kind", "labels", "output.kind: got 'labels'"),
        ("output.mask_choice", "area", "output.mask_choice: got 'area'"),
        ("output.multimask", "some", "output.multimask: got 'some'"),
        ("output.single_mask", "first", "output.single_mask: got 'first'"),
        ("output.logit_limit", 0, "output.logit_limit: got 0"),
        ("output.resize.interpolation", "area", "output.resize.interpolation: got 'area'"),
        ("output.resize.interpolation", "bicubic", "'bicubic' takes one step"),
        ("output.low_res_size", [16, 16], "mask_input float32[N, 1, 32, 32] should be"),
        ("precision", "int8", "no encoder of precision int8"),
        ("artifacts", [], "artifacts: has 0 items"),
        ("artifacts.0.role", "decoder", "no encoder"),
        ("artifacts.0.sha256", "ABC", "artifacts[0].sha256"),
        ("artifacts.0.bytes", 0, "artifacts[0].bytes"),
        ("artifacts.0.file", "../encoder.onnx", "must be a relative path inside the bundle"),
        ("artifacts.0.file", "/encoder.onnx", "must be a relative path inside the bundle"),
        ("artifacts.0.file", "c:\\encoder.onnx", "must be a relative path inside the bundle"),
        ("artifacts.0.file", "manifest.json", "name used twice"),
        ("artifacts.0.file", "decoder.onnx", "name used twice"),
        ("artifacts.0.inputs.0.name", "pixels", "inputs are (pixels float32[1, 3, 64, 64])"),
        ("artifacts.0.inputs.0.dtype", "float16", "expected (image float32"),
        ("artifacts.0.outputs.0.shape", [1, 8, "h", 16], "must have fixed sizes"),
        ("artifacts.0.outputs.0.name", "features", "input 'features' missing"),
        ("artifacts.0.outputs.1.name", "image_embeddings", "listed twice"),
        ("artifacts.1.inputs.0.shape", [1, 8, 8, 8], "should be image_embeddings"),
        ("artifacts.1.inputs.2.shape", [1, "P", 2], "should be point_coords"),
        ("artifacts.1.inputs.2.dtype", "float16", "should be point_coords float32[N, P, 2]"),
        ("artifacts.1.outputs.0.dtype", "int64", "should be low_res_masks float32"),
        ("artifacts.1.inputs.3.name", "labels", "input 'point_labels' missing"),
        ("artifacts.1.outputs.0.shape", ["N", 3, 32, 32], "should be low_res_masks"),
        ("source.license", ..., "source.license: missing"),
        ("source.checkpoint_sha256", "12", "source.checkpoint_sha256"),
    ],
)
def test_each_mistake_is_named(
    manifest_doc: dict[str, Any], path: str, value: Any, text: str
) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(edited(manifest_doc, path, value))
    message = str(caught.value)
    assert text in message
    assert "\n" not in message


def test_all_mistakes_are_listed_at_once(manifest_doc: dict[str, Any]) -> None:
    del manifest_doc["name"], manifest_doc["family"]
    manifest_doc["precision"] = "fp8"
    with pytest.raises(BundleError, match=r"3 problems.*name: missing; family: .*precision"):
        parse_manifest(manifest_doc)


def test_a_very_long_list_is_cut(manifest_doc: dict[str, Any]) -> None:
    manifest_doc.update({f"key{i}": 0 for i in range(50)})
    with pytest.raises(BundleError, match=r"50 problems: .*; and 42 more"):
        parse_manifest(manifest_doc)


@pytest.mark.parametrize(("version", "advice"), [(2, "update samrt"), (0, "export the model")])
def test_other_versions_are_refused_with_advice(
    manifest_doc: dict[str, Any], version: int, advice: str
) -> None:
    manifest_doc["schema_version"] = version
    manifest_doc["from_the_future"] = True
    with pytest.raises(BundleError, match=f"schema version {version}.*reads version 1: {advice}"):
        parse_manifest(manifest_doc)


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_manifest_must_be_an_object(document: object) -> None:
    with pytest.raises(BundleError, match="expected object"):
        parse_manifest(document, where="x/manifest.json")


def test_a_model_without_mask_prompts_needs_no_mask_inputs(manifest_doc: dict[str, Any]) -> None:
    manifest_doc["prompts"]["mask"] = False
    with pytest.raises(BundleError, match="input 'has_mask_input' is not known"):
        parse_manifest(manifest_doc)
    decoder = manifest_doc["artifacts"][1]
    decoder["inputs"] = [i for i in decoder["inputs"] if "mask_input" not in i["name"]]
    assert parse_manifest(manifest_doc).prompts.mask is False
