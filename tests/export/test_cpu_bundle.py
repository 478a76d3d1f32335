"""Bundles with both forms of the encoder: one set of weights, two proofs, and every reader of them.

A small MobileSAM stands for all families: its TinyViT is narrow and its frame 224 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import samrt
from samrt.backends import operators as forms
from samrt.bundle import Bundle
from samrt.cli import main
from samrt.engines.triton import write_repository
from samrt.errors import OptionError
from samrt.phantoms import phantom_case
from samrt_export import cpu_form, exporter
from samrt_export.families import Frame, family_named
from samrt_export.families import networks as n
from samrt_export.loading import Loaded, RawCheckpoint
from samrt_export.nets.tiny_vit import MOBILE_SAM, TinyViT
from samrt_export.precision.trial import Reference
from samrt_export.reference_model import TorchModel
from samrt_export.seeded import seeded_tensors
from samrt_export.verify import store_record
from samrt_export.weights import ALIGNMENT, WeightStore

FRAME = Frame((224, 224), "native", (224, 224))
SMALL = replace(
    MOBILE_SAM, image_size=FRAME.size, embed_dims=(16, 32, 40, 80), depths=(1, 1, 2, 1),
    num_heads=(1, 2, 5, 5), num_classes=0,
)  # fmt: skip
needs_library = pytest.mark.skipif(
    forms.library_problem() is not None, reason=f"no operators here: {forms.library_problem()}"
)


def small_network() -> Loaded:
    """A narrow MobileSAM; weights as `seeded_state` draws them."""
    network = n.with_sam_decoder(TinyViT(SMALL), FRAME, 16)
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    network.load_state_dict(seeded_tensors(shapes, torch.Generator().manual_seed(11)))
    raw = RawCheckpoint({}, "none", (), "memory", None, None)
    return Loaded(family_named("mobile_sam"), "vit_t", FRAME, network.eval(), raw, ())


def say(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return small_network()


@pytest.fixture(scope="module")
def write(
    loaded: Loaded, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int | None], Bundle]:
    """``write(limit)``: a bundle with both forms; weights are shared above this many bytes."""

    def make(limit: int | None) -> Bundle:
        folder = tmp_path_factory.mktemp("cpu")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporter, "SHARED_FROM_BYTES", limit or 1 << 40)
            return exporter._write(loaded, folder, "small", say, cpu_form=limit is not None)

    return make


@pytest.fixture(scope="module")
def shared(write: Callable[[int | None], Bundle]) -> Bundle:
    return write(1)


@pytest.fixture(scope="module")
def apart(write: Callable[[int | None], Bundle]) -> Bundle:
    return write(1 << 40)


def size_of(bundle: Bundle) -> int:
    return sum(path.stat().st_size for path in bundle.path.iterdir())


def encoder_of(bundle: Bundle, form: str) -> onnx.ModelProto:
    artifact = bundle.artifact("encoder")
    if form == "cpu":
        found = bundle.form_for(artifact, "onnxruntime")
        assert found is not None
        artifact = found
    return onnx.load(bundle.file_of(artifact))


@pytest.fixture(scope="module")
def tensor() -> Any:
    return np.random.default_rng(0).standard_normal((1, 3, *FRAME.size)).astype(np.float32)


@pytest.fixture(scope="module")
def wanted(loaded: Loaded, tensor: Any) -> Any:
    with torch.no_grad():
        return loaded.network.image_encoder(torch.from_numpy(tensor)).numpy()


def relative(got: Any, want: Any) -> float:
    assert got.shape == want.shape
    return float(np.sqrt(np.mean((got.astype(np.float64) - want) ** 2)) / want.std())


def test_weights_are_stored_once(
    loaded: Loaded, write: Callable[[int | None], Bundle], shared: Bundle, apart: Bundle
) -> None:
    one, graphs = size_of(write(None)), 600_000  # bytes of nodes, alignment and small tensors
    files = [a.file for a in shared.manifest.artifacts if a.form == "cpu"]
    assert files == ["encoder.cpu.onnx", "decoder.cpu.onnx"]
    assert size_of(apart) > 1.9 * one  # small bundles hold all twice
    # 1 x 1 and transposed convolutions lie the other way round in the two forms.
    assert size_of(shared) < one + turned_bytes(loaded) + graphs < 1.1 * one
    assert shared.artifact("encoder").data[0].file == "encoder.onnx.data"
    artifacts = [a for a in shared.manifest.artifacts if a.role == "encoder"]
    assert artifacts[0].data == artifacts[1].data
    assert shared.sha256 != apart.sha256


def turned_bytes(loaded: Loaded) -> int:
    """Of the convolutions that the two forms store each in its own way."""
    network = loaded.network
    found = [m for m in network.image_encoder.layers.modules() if isinstance(m, torch.nn.Conv2d)]
    found += [m for m in network.mask_decoder.output_upscaling if hasattr(m, "kernel_size")]
    return sum(m.weight.nbytes for m in found)


def test_both_forms_compute_what_the_network_does(
    shared: Bundle, apart: Bundle, tensor: Any, wanted: Any, operators: ModuleType
) -> None:
    for bundle in (shared, apart):
        got = operators.evaluate(encoder_of(bundle, "cpu"), tensor)
        assert relative(got["image_embeddings"], wanted) < 1e-5
        names = [spec.name for spec in bundle.artifact("encoder").outputs]
        assert list(got) == names


def test_both_decoders_answer_alike(
    loaded: Loaded, shared: Bundle, tensor: Any, operators: ModuleType
) -> None:
    """Against the torch network, two prompts with a mask in one call."""
    canonical = shared.artifact("decoder")
    form = shared.form_for(canonical, "onnxruntime")
    assert form is not None
    model = onnx.load(shared.file_of(form))
    kinds = [node.op_type for node in model.graph.node]
    own = ["UpscaleMasks", "MaskRows", "ReadImage", "ImagePass"]
    assert [kinds.count(kind) for kind in own] == [1, 1, 1, 2]
    rng = np.random.default_rng(2)
    features = operators.evaluate(encoder_of(shared, "cpu"), tensor)
    coords = rng.uniform(0, 224, (2, 3, 2)).astype(np.float32)
    labels = np.float32([[1, 0, -1], [2, 3, 1]])
    mask = rng.standard_normal((2, 1, 56, 56)).astype(np.float32)
    has = np.float32([1, 0])
    feeds = {
        **features, "point_coords": coords, "point_labels": labels, "mask_input": mask,
        "has_mask_input": has,
    }  # fmt: skip
    got = operators.evaluate(model, feeds)
    want = operators.evaluate(onnx.load(shared.file_of(canonical)), feeds)
    for name in ("low_res_masks", "iou_predictions"):
        assert relative(got[name], want[name]) < 1e-5
    assert got["low_res_masks"].shape == (2, 4, 56, 56)


def test_the_manifest_tells_the_forms_apart(shared: Bundle) -> None:
    canonical, cpu, decoder, cpu_decoder = shared.manifest.artifacts
    assert (canonical.runtime, canonical.operators, canonical.form) == (None, None, "canonical")
    assert (cpu.runtime, cpu.operators, cpu.form) == ("onnxruntime", "samrt/1", "cpu")
    assert (cpu.inputs, cpu.outputs) == (canonical.inputs, canonical.outputs)
    assert [(a.role, a.form) for a in (decoder, cpu_decoder)] == [
        ("decoder", "canonical"),
        ("decoder", "cpu"),
    ]
    assert decoder.data == cpu_decoder.data
    assert shared.precisions() == ("fp32",)


@needs_library
def test_each_form_is_proven_against_torch(loaded: Loaded, shared: Bundle, tmp_path: Path) -> None:
    case = phantom_case("portrait")
    cases = [replace(case, prompts=case.prompts[:2])]
    model = samrt.Predictor(TorchModel(loaded.network, shared.manifest, sha256=""))
    truth = Reference(model, [case.image])
    for form in ("cpu", "canonical", "cpu"):  # whatever the order, neither replaces the other
        record = exporter._prove(shared, loaded, truth, cases, 2, say, form=form)
        parity = store_record(shared.path, record).manifest.parity
        assert parity is not None
    own = parity["other_forms"]["cpu"]["fp32"]
    assert (parity["candidate"]["form"], own["candidate"]["form"]) == ("canonical", "cpu")
    assert parity["passed"] is own["passed"] is True
    assert own["outputs"]["image_embeddings"]["rms_rel_worst"] < 1e-4
    for form in ("canonical", "cpu"):
        with samrt.load(shared.path, backend="onnxruntime", threads=1, form=form) as engine:
            assert engine.info.verification.state == "passed"
            assert engine.info.form_effective == form
    assert main(["verify", str(shared.path), "--files-only"]) == 0


def test_the_readers_of_the_canonical_graph(
    shared: Bundle, tensor: Any, wanted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime, OpenVINO, and the files that Triton gets; none needs the operators."""
    from samrt.backends import available_backends, get_backend
    from samrt.backends.base import SessionOptions

    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))
    usable = {info.name for info in available_backends() if info.available}
    for name in sorted(usable & {"onnxruntime", "openvino"}):
        backend = get_backend(name)
        artifact = shared.artifact("encoder")
        with backend.open_artifact(shared, artifact, SessionOptions(threads=1)) as session:
            got = session.run({"image": tensor})["image_embeddings"]
        assert relative(got, wanted) < 1e-4, name
    write_repository(tmp_path / "triton", shared)
    folder = tmp_path / "triton" / "small_encoder" / "1"
    assert sorted(p.name for p in folder.iterdir()) == ["encoder.onnx.data", "model.onnx"]
    session = get_backend("onnxruntime").create(folder / "model.onnx", SessionOptions(threads=1))
    assert relative(session.run({"image": tensor})["image_embeddings"], wanted) < 1e-4
    session.close()


def test_float16_is_made_of_the_canonical_graph_and_keeps_both_forms(
    shared: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samrt_export.precision import addition

    cases = [phantom_case("portrait")]
    monkeypatch.setattr(addition, "phantom_cases", lambda: cases)
    made = addition.add_precision(shared.path, out=tmp_path / "half.samrt", threads=2)
    assert made.precisions() == ("fp32", "fp16")
    half, full = made.artifact("encoder", "fp16"), made.artifact("encoder", "fp32")
    assert half.form == "canonical"
    assert full.data == shared.artifact("encoder").data
    assert made.form_for(full, "onnxruntime") is not None
    assert made.form_for(half, "onnxruntime") is None
    made.verify()


def test_only_provable_forms_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, edge = family_named("mobile_sam"), family_named("edge_sam")
    none = replace(edge, emit_cpu_decoder=None)
    told: list[str] = []

    def wants(family: Any, asked: bool | None, *, verify: bool = True) -> bool:
        return cpu_form.wants_cpu_form(family, asked, verify=verify, say=told.append)

    monkeypatch.setattr(cpu_form, "library_problem", lambda: None)
    assert wants(tiny, None)
    assert wants(tiny, True)
    assert not wants(tiny, False)
    assert wants(edge, None)  # of the decoder
    assert not told
    assert not wants(none, None)
    assert told == ["EdgeSAM has no CPU form; only the canonical graphs are written"]
    with pytest.raises(OptionError, match="EdgeSAM has no CPU form"):
        wants(none, True)
    monkeypatch.setattr(cpu_form, "library_problem", lambda: "the library is not here")
    assert not wants(tiny, None)
    assert not wants(tiny, None, verify=False)  # the same files with and without verification
    assert "cannot be verified here: the library is not here" in told[1]
    assert wants(tiny, True, verify=False)
    with pytest.raises(OptionError, match="cannot be verified here"):
        wants(tiny, True)


def test_the_store_keeps_equal_tensors_once(tmp_path: Path) -> None:
    a = np.arange(5000, dtype=np.float32)
    with WeightStore(tmp_path / "w") as store:
        places = [
            {e.key: e.value for e in store.tensor("t", array).external_data}
            for array in (a, a + 1, a.reshape(50, 100), a.reshape(50, 100).T, a[:4000])
        ]
    assert places[0] == places[2]
    offsets = [int(place["offset"]) for place in places]
    assert len(set(offsets)) == 4
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    content = (tmp_path / "w").read_bytes()
    start, length = offsets[3], int(places[3]["length"])
    turned = np.frombuffer(content[start : start + length], np.float32)
    np.testing.assert_array_equal(turned.reshape(100, 50), a.reshape(50, 100).T)


def test_the_command_line_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(*_: Any, **options: Any) -> None:
        seen.append(options["cpu_form"])
        raise OptionError("enough")

    monkeypatch.setattr(exporter, "export", stop)
    words = ["export", "x.pth", "-o", str(tmp_path / "x.samrt")]
    assert main(words) == 1
    assert main([*words, "--no-cpu-form"]) == 1
    assert seen == [None, False]
