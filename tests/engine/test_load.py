from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import samrt
from samrt.backends.base import Session, SessionOptions, TensorSpec
from samrt.model import Model, options_for
from samrt.prompts import DecoderInput

EditBundle = Callable[..., Path]


def test_info_tells_requested_from_effective(bundle_path: Path) -> None:
    with samrt.load(bundle_path, threads=2) as predictor:
        info = predictor.info
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    assert info.name == "fixture"
    assert info.model_id == f"fixture@{info.sha256[:12]}"
    assert (info.backend_requested, info.backend_effective) == ("auto", "onnxruntime")
    assert info.backend_version == ort.__version__
    assert (info.precision_requested, info.precision_effective) == ("auto", "fp32")
    assert info.decoder_precision == "fp32"
    assert info.threads == 2
    assert info.files == {a["role"]: a["sha256"] for a in manifest["artifacts"]}
    assert info.license == "Apache-2.0"
    assert json.loads(json.dumps(info.as_dict()))["path"] == str(bundle_path)


def test_what_is_asked_for_is_what_runs(bundle_path: Path) -> None:
    with samrt.load(str(bundle_path), backend="onnxruntime", precision="fp32") as predictor:
        assert predictor.info.backend_requested == "onnxruntime"
        assert predictor.info.precision_requested == "fp32"
        assert 1 <= predictor.info.threads <= 8


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"precision": "fp16"}, samrt.OptionError, "no precision 'fp16': choose 'auto' or one of"),
        ({"precision": "fast"}, samrt.OptionError, "no precision 'fast'"),
        ({"backend": "cuda"}, samrt.OptionError, "unknown backend 'cuda': choose one of auto"),
        ({"threads": 0}, samrt.OptionError, "threads must be 1 to 256, got 0"),
        ({"threads": 1.5}, samrt.OptionError, "threads must be a whole number"),
    ],
)
def test_bad_options_are_refused(
    bundle_path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        samrt.load(bundle_path, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(samrt.ModelNotFoundError, match="no model named 'sam3': shipped models"):
        samrt.load("sam3")
    for name in ("a" * 5000, "nul\0byte", "no/such/folder"):
        with pytest.raises(samrt.ModelNotFoundError, match="no model named"):
            samrt.load(name)
    with pytest.raises(samrt.OptionError, match="must be a name or a path, got int"):
        samrt.load(5)  # type: ignore[arg-type]
    (tmp_path / "x.onnx").write_bytes(b"1")
    with pytest.raises(samrt.ModelNotFoundError, match="is a file, expected the folder"):
        samrt.load(tmp_path / "x.onnx")


def test_a_file_that_differs_from_its_manifest_is_refused(edit_bundle: EditBundle) -> None:
    def renamed(document: dict[str, Any]) -> dict[str, Any]:
        for artifact, side in zip(document["artifacts"], ("outputs", "inputs"), strict=True):
            artifact[side][1]["name"] = "fine"
        return document

    path = edit_bundle()
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps(renamed(json.loads(manifest.read_text()))))
    with pytest.raises(
        samrt.BundleError,
        match=r"encoder\.onnx differs from its manifest: output 'high_res_s2' is not in the "
        r"manifest; output 'fine' is not in the file",
    ):
        samrt.load(path)
    document = json.loads((edit_bundle(name="b") / "manifest.json").read_text())
    document["artifacts"][1]["inputs"][4]["dtype"] = "float16"
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(
        samrt.BundleError, match=r"input mask_input float16.* is mask_input float32"
    ):
        samrt.load(path)


def test_a_swapped_file_is_refused(edit_bundle: EditBundle, bundle_path: Path) -> None:
    path = edit_bundle()
    (path / "encoder.onnx").write_bytes((bundle_path / "decoder.onnx").read_bytes())
    with pytest.raises(samrt.BundleError, match=r"damaged: encoder\.onnx has"):
        samrt.load(path)


def test_a_file_that_is_no_model_is_refused(edit_bundle: EditBundle) -> None:
    from samrt.bundle import sha256_of

    path = edit_bundle()
    (path / "decoder.onnx").write_bytes(b"rubbish" * 10)
    document = json.loads((path / "manifest.json").read_text())
    document["artifacts"][1].update(bytes=70, sha256=sha256_of(path / "decoder.onnx"))
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(samrt.BackendError, match=r"cannot open model decoder\.onnx"):
        samrt.load(path)


class HalfDecoder(Session):
    """A decoder in half precision that notes what it gets."""

    def __init__(self, bundle: Any) -> None:
        artifact = bundle.artifact("decoder")
        half = [
            TensorSpec(s.name, "float32" if "point" in s.name else "float16", s.shape)
            for s in artifact.inputs
        ]
        outputs = [TensorSpec(s.name, "float16", s.shape) for s in artifact.outputs]
        super().__init__("half", half, outputs)

    def _run(self, feeds: Any) -> dict[str, Any]:
        n = len(feeds["point_coords"])
        return {
            "low_res_masks": np.ones((n, 4, 32, 32), np.float16),
            "iou_predictions": np.ones((n, 4), np.float16),
        }


def test_half_precision_models_get_and_give_what_they_should(
    predictor: samrt.Predictor, image: Any
) -> None:
    """The decoder's dtypes are met on both sides, the caller sees float32."""
    model = predictor._model
    embedding = predictor.encode(image)
    half = Model(model.bundle, model.info, model._encoder, HalfDecoder(model.bundle))
    tokens = DecoderInput(
        np.zeros((2, 3, 2), np.float32),
        np.zeros((2, 3), np.float32),
        np.zeros((2, 1, 32, 32), np.float32),
        np.zeros(2, np.float32),
    )
    masks, scores = half.run_decoder(embedding.features, tokens)
    assert masks.dtype == scores.dtype == np.float32
    assert masks.shape == (2, 4, 32, 32)


def test_a_model_without_mask_input_runs_without(
    load_edited: Callable[..., samrt.Predictor], image: Any
) -> None:
    """Its decoder has no such inputs, so they must not be fed."""
    predictor = load_edited()
    model = predictor._model
    seen: list[set[str]] = []

    class NoMask(HalfDecoder):
        def __init__(self) -> None:
            super().__init__(model.bundle)
            self.inputs = tuple(s for s in self.inputs if "mask_input" not in s.name)

        def _run(self, feeds: Any) -> dict[str, Any]:
            seen.append(set(feeds))
            return super()._run(feeds)

    predictor._model = Model(model.bundle, model.info, model._encoder, NoMask())
    predictor.set_image(image)
    assert predictor.predict(box=(1, 1, 20, 20)).masks.all()
    assert seen == [{"image_embeddings", "high_res_s2", "point_coords", "point_labels"}]


def test_options_left_open_depend_on_the_role() -> None:
    open_ones = SessionOptions(threads=1)
    assert options_for("decoder", open_ones) == SessionOptions(1, arena=True, spinning=True)
    assert options_for("encoder", open_ones) == SessionOptions(1, arena=False, spinning=False)
    for flag in (True, False):
        given = SessionOptions(1, arena=flag, spinning=flag)
        assert options_for("decoder", given) == options_for("encoder", given) == given
