"""Verification passes what is equal, fails what is not, and never passes on nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samrt
from samrt.errors import BackendError, BundleError, OptionError
from samrt.phantoms import PhantomCase, phantom_case, phantom_cases
from samrt.selfcheck import check_model

pytest.importorskip("torch")
pytest.importorskip("cv2")
from samrt_export.reference_model import TorchModel
from samrt_export.verify import THRESHOLDS, Thresholds, compare

Changed = Callable[..., samrt.Predictor]


def small() -> list[PhantomCase]:
    return [phantom_case("portrait"), phantom_case("ct_abdomen")]


def test_torch_and_onnx_agree(network: Any, predictor: samrt.Predictor) -> None:
    reference = samrt.Predictor(TorchModel(network, predictor.manifest, sha256="ab" * 32))
    seen: list[str] = []
    record = compare(reference, predictor, phantom_cases(), progress=seen.append)
    assert record.passed
    assert record.failures == record.weaknesses == ()
    assert record.image_names == tuple(case.name for case in phantom_cases())
    assert seen[:2] == ["ct_abdomen: reference", "ct_abdomen: candidate"]
    assert (record.prompts, record.prompts_left_out) == (25, 0)
    # three masks and the single one, for 5 prompts and the one with a mask fed back, 5 pictures
    assert record.masks.masks == 5 * 6 * 4
    assert record.masks.informative == record.masks.masks
    assert record.masks.iou_worst > 0.99
    embedding = record.outputs["image_embeddings"]
    assert embedding.comparisons == 5
    assert 0.0 < embedding.rms_rel_worst < 1e-5
    assert embedding.cosine_worst > 0.999999
    assert 0.0 < record.outputs["low_res_masks"].rms_rel_worst < 1e-4
    assert record.outputs["iou_predictions"].max_abs < 1e-5
    assert "torch" in record.against
    assert "ab" * 32 in record.against


def test_the_record_is_json_and_names_what_ran(
    changed: Changed, predictor: samrt.Predictor
) -> None:
    document = compare(changed(), predictor, small()).as_dict()
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert (again["images"], again["prompts"], again["precision"]) == (2, 10, "fp32")
    assert again["mask_iou_worst"] == again["masks"]["iou_worst"] == 1.0
    assert again["candidate"]["model_id"] == predictor.info.model_id
    assert again["candidate"]["files"] == dict(predictor.info.files)
    assert again["thresholds"]["mask_iou_mean"] == 0.999


def test_a_shift_of_the_logits_fails(changed: Changed, predictor: samrt.Predictor) -> None:
    record = compare(predictor, changed(lambda low, iou: (low + 0.3, iou)), small())
    assert not record.passed
    assert any(text.startswith("mean mask IoU 0.") for text in record.failures)
    assert any(text.startswith("worst mask IoU 0.") for text in record.failures)
    assert record.outputs["low_res_masks"].max_abs == pytest.approx(0.3, abs=1e-4)
    assert record.outputs["image_embeddings"].max_abs == 0.0
    assert record.masks.worst_case.split("/")[0] in ("portrait", "ct_abdomen")
    assert 0.0 < record.masks.flipped_share_mean <= record.masks.flipped_share_worst
    assert record.masks.hd95_worst_px > 0.0


def test_thresholds_follow_the_precision(changed: Changed, predictor: samrt.Predictor) -> None:
    nudged = changed(lambda low, iou: (low + 0.03, iou))
    strict = compare(predictor, nudged, small())
    loose = compare(predictor, nudged, small(), precision="int8")
    assert strict.masks == loose.masks
    assert 0.98 < strict.masks.iou_mean < 0.999
    assert (strict.passed, loose.passed) == (False, True)
    assert loose.thresholds == THRESHOLDS["int8"]
    own = Thresholds(mask_iou_mean=0.5, mask_iou_worst=0.5)
    assert compare(predictor, nudged, small(), thresholds=own).passed
    with pytest.raises(OptionError, match="no thresholds for precision 'fp8'"):
        compare(predictor, nudged, small(), precision="fp8")


def test_an_embedding_off_fails_even_with_equal_masks(
    changed: Changed, predictor: samrt.Predictor
) -> None:
    truth = predictor.encode(phantom_case("portrait").image)

    def off(features: Any) -> Any:
        return {**features, "image_embeddings": features["image_embeddings"] * np.float32(1.005)}

    candidate = changed(change_features=off)
    record = compare(predictor, candidate, small(), thresholds=Thresholds(0, 0, 1e-3))
    assert [text.split()[0] for text in record.failures] == ["embedding"]
    assert compare(predictor, candidate, small(), thresholds=Thresholds(0, 0)).passed
    assert record.outputs["image_embeddings"].rms_rel_worst > 1e-3
    assert truth.features["image_embeddings"].any()


def test_nothing_is_proved_by_empty_masks(changed: Changed) -> None:
    def empty(low: Any, iou: Any) -> Any:
        return low * 0 - 5, iou

    record = compare(changed(empty), changed(empty), small())
    assert record.masks.iou_mean == record.masks.iou_worst == 1.0
    assert (record.masks.informative, record.masks.iou_mean_informative) == (0, None)
    assert not record.passed
    assert record.failures[0].startswith("proves nothing")


def test_nothing_is_proved_by_no_pictures(predictor: samrt.Predictor) -> None:
    record = compare(predictor, predictor, [])
    assert not record.passed
    assert record.failures[0].startswith("proves nothing")
    assert record.masks.iou_mean == 0.0


def test_few_informative_masks_are_a_stated_weakness(
    changed: Changed, predictor: samrt.Predictor
) -> None:
    record = compare(changed(), predictor, small()[:1], min_informative=1000)
    assert record.passed
    assert "are neither empty nor the whole image, 1000 are wanted" in record.weaknesses[0]


def test_a_candidate_that_computes_nan_fails_and_the_rest_is_still_compared(
    changed: Changed, predictor: samrt.Predictor
) -> None:
    calls: list[int] = []

    def broken(low: Any, iou: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise BackendError("output low_res_masks holds NaN")
        return low, iou

    record = compare(predictor, changed(broken), small())
    assert record.failures == ("the candidate failed on portrait: output low_res_masks holds NaN",)
    assert record.masks.masks > 0

    def no_features(_: Any) -> Any:
        raise BackendError("encoder overflow")

    record = compare(predictor, changed(change_features=no_features), small())
    assert sum("encoder overflow" in text for text in record.failures) == 2


def test_a_failing_reference_is_an_error(changed: Changed, predictor: samrt.Predictor) -> None:
    def broken(low: Any, iou: Any) -> Any:
        raise BackendError("reference is broken")

    with pytest.raises(BackendError, match="reference is broken"):
        compare(changed(broken), predictor, small())


def test_other_shapes_are_an_error(changed: Changed, predictor: samrt.Predictor) -> None:
    def cut(features: Any) -> Any:
        return {n: np.ascontiguousarray(a[:, :, 1:]) for n, a in features.items()}

    with pytest.raises(BundleError, match="not the same model"):
        compare(predictor, changed(change_features=cut), small())


def test_prompts_the_model_does_not_take_are_left_out_and_counted(
    load_edited: Callable[..., samrt.Predictor],
) -> None:
    boxes = load_edited({"prompts.points": False, "prompts.box_and_points": False})
    record = compare(boxes, boxes, small())
    assert (record.prompts, record.prompts_left_out) == (4, 6)
    assert record.masks.masks == (4 + 2) * 4  # with one mask fed back per picture
    assert record.weaknesses[-1].startswith("6 prompts were left out")


def test_batching_is_part_of_the_comparison(changed: Changed, predictor: samrt.Predictor) -> None:
    def mixed_up(low: Any, iou: Any) -> Any:
        return (low[::-1].copy(), iou[::-1].copy()) if len(low) > 1 else (low, iou)

    assert not compare(predictor, changed(mixed_up), small()).passed


def test_what_was_recorded_is_found_again_and_missed_when_it_changes(
    changed: Changed, predictor: samrt.Predictor, load_edited: Callable[..., samrt.Predictor]
) -> None:
    record = compare(changed(), predictor, small()).as_dict()
    recorded = load_edited({"parity": record})
    checks = check_model(recorded, small())
    assert [c.name for c in checks if c.name.startswith("as verified")] == [
        "as verified on portrait",
        "as verified on ct_abdomen",
    ]
    assert all(check.passed for check in checks)
    record["expected"]["portrait"]["answers"][0]["logits"][3] += 1.0
    checks = check_model(load_edited({"parity": record}), small())
    assert [c.name for c in checks if not c.passed] == ["as verified on portrait"]


def test_the_bundle_is_untouched(bundle_path: Path, predictor: samrt.Predictor) -> None:
    before = {p.name: p.read_bytes() for p in bundle_path.iterdir()}
    compare(predictor, predictor, small()[:1])
    assert {p.name: p.read_bytes() for p in bundle_path.iterdir()} == before
