"""A bundle gets float16 graphs: by Python and by the command line, all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import samrt
import samrt_export
from samrt.bundle import Bundle, available_models
from samrt.cli import main
from samrt.errors import BundleError, OptionError, OutputError, VerificationError
from samrt.phantoms import PhantomCase
from samrt.selfcheck import check_model
from samrt_export import exporter
from samrt_export.precision import FloatGraph, add_precision, search
from samrt_export.seeded import seeded_state
from samrt_export.verify import Thresholds

from .conftest import seeded_network, truth_of

Make = Callable[..., tuple[Any, Bundle]]


@pytest.fixture(scope="module")
def small(make_bundle: Make) -> Bundle:
    return make_bundle()[1]


@pytest.fixture
def copied(small: Bundle, tmp_path: Path) -> Path:
    target = tmp_path / "small.samrt"
    shutil.copytree(small.path, target)
    return target


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_tiny_by_the_command_line(
    tmp_path: Path, few_phantoms: None, capsys: pytest.CaptureFixture[str],
    few_cases: list[PhantomCase],
) -> None:  # fmt: skip
    out = tmp_path / "tiny.samrt"
    words = ["export", "tiny", "-o", str(out), "--precision", "fp16", "--half-io", "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["precisions"] == ["fp32", "fp16"]
    roles = facts["calibration"]["fp16"]["roles"]
    islands = [island for role in roles.values() for island in role["islands"]]
    assert {"statistics", "overflow", "coordinates"} <= {island["kind"] for island in islands}
    assert all(island["reason"] and island["nodes"] for island in islands)
    assert "decoder island" in printed.err
    bundle = Bundle.open(out, verify="full")
    assert bundle.artifact("decoder", "fp32").precision == "fp32"
    half = bundle.artifact("encoder", "fp16")
    assert {spec.dtype for spec in (*half.inputs, *half.outputs)} == {"float16"}
    model = onnx.load(bundle.file_of(half))
    onnx.checker.check_model(model, full_check=True)
    with samrt.load(out, precision="fp16") as engine:
        assert engine.info.precision_effective == engine.info.decoder_precision == "fp16"
        checks = check_model(engine, few_cases)
        assert all(check.passed for check in checks), checks
        assert any(check.name.startswith("as verified") for check in checks)
    with samrt.load(out) as engine:
        assert engine.info.precision_effective == "fp32"
    shipped = available_models()["tiny"]
    assert "fp16" not in Bundle.open(shipped).precisions()


def test_in_place_and_twice_the_same_bytes(
    copied: Path, small: Bundle, few_phantoms: None, tmp_path: Path
) -> None:
    before = content(copied)
    made = add_precision(copied)
    after = content(copied)
    assert made.precisions() == ("fp32", "fp16")
    for name, data in before.items():
        assert name == "manifest.json" or after[name] == data
    assert set(after) - set(before) == {"encoder.fp16.onnx", "decoder.fp16.onnx"}
    sizes = {a.role: a.total_bytes for a in made.manifest.artifacts if a.precision == "fp16"}
    for role, size in sizes.items():
        assert size < 0.62 * made.artifact(role, "fp32").total_bytes
    again = add_precision(small.path, out=tmp_path / "again" / "small.samrt")
    assert again.model_id == made.model_id
    assert not [p for p in copied.parent.iterdir() if p.name.startswith(".")]
    with pytest.raises(OptionError, match="overwrite"):
        add_precision(copied)


def test_a_quantised_encoder_keeps_the_default_decoder(copied: Path) -> None:
    """Though there are two decoders."""
    path = copied / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    encoder, decoder = document["artifacts"]
    for part, precision in ((encoder, "int8"), (decoder, "fp16")):
        name = f"{part['role']}.{precision}.onnx"
        shutil.copy(copied / part["file"], copied / name)
        document["artifacts"].append({**part, "precision": precision, "file": name})
    path.write_text(json.dumps(document), "utf-8")
    bundle = Bundle.open(copied)
    assert bundle.artifact("decoder", "int8").precision == "fp32"


def test_pictures_of_the_user_are_measured_too(
    copied: Path, few_phantoms: None, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 80, (90, 120), dtype=np.uint8)
    picture[20:60, 30:80] += 120
    Image.fromarray(picture).save(folder / "patient.png")
    made = add_precision(copied, images=folder)
    entry = made.manifest.calibration["fp16"]  # type: ignore[index]
    assert len(entry["images"]) == 2
    assert entry["images"][-1].startswith("image-")
    assert "patient" not in json.dumps(entry)


def test_blocks_return_to_float32_until_the_target_is_met(
    copied: Path, few_phantoms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that the measured islands miss; few blocks, so that it is quick."""
    groups = FloatGraph.groups
    monkeypatch.setattr(FloatGraph, "groups", lambda self, most=24: groups(self, 4))
    monkeypatch.setattr(search, "TARGET", Thresholds(0.9992, 0.99))
    lines: list[str] = []
    made = add_precision(copied, progress=lines.append)
    entry = made.manifest.calibration["fp16"]  # type: ignore[index]
    errors = [c["error"] for c in entry["contributions"]]
    assert len(errors) >= 4
    assert errors == sorted(errors, reverse=True)
    returned = [i for role in entry["roles"].values() for i in role["islands"]
                if i["kind"] == "error"]  # fmt: skip
    assert returned
    assert 2 <= len(entry["rounds"]) <= 6
    assert any("alone in float16" in line for line in lines)
    worst = entry["contributions"][0]
    assert worst["group"] in {island["scope"] for island in returned}


def test_what_is_not_good_enough_changes_nothing(
    copied: Path, few_phantoms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(copied)
    monkeypatch.setattr(search, "SHARES", ())
    monkeypatch.setattr(search, "SCORE_ERROR", 0.0)
    monkeypatch.setattr(search, "_contributions", lambda *_: [])
    with pytest.raises(VerificationError, match=r"no float16 form.*IoU mean"):
        add_precision(copied)
    assert content(copied) == before
    assert [p.name for p in copied.parent.iterdir()] == ["small.samrt"]


def test_what_is_refused_is_kept_on_request(copied: Path, few_phantoms: None) -> None:
    """Another network as the truth refuses it; the record, the words, and the override."""
    truth = truth_of(seeded_network(seed=8), Bundle.open(copied))
    lines: list[str] = []
    made = add_precision(copied, reference=truth, keep_refused=True, progress=lines.append)
    assert any("not good enough" in line and "kept, marked refused" in line for line in lines)
    assert made.precisions() == ("fp32", "fp16")
    record = made.manifest.parity["other_precisions"]["fp16"]  # type: ignore[index]
    assert record["passed"] is False
    assert "the error grows" in record["first_wrong"]
    text = r"small in fp16 is refused.*mask IoU 0\.\d+, at least 0\.9.*the error grows.*allow_ref"
    with pytest.raises(VerificationError, match=text):
        samrt.load(copied, precision="fp16")
    image = np.zeros((64, 64, 3), np.uint8)
    with samrt.load(copied, precision="fp16", allow_refused=True) as engine:
        answer = engine.decode(engine.encode(image), [samrt.Prompt(box=(4, 4, 60, 40))])[0]
    assert answer.verification == "refused"
    assert "is used on request" in answer.warnings[0]


def test_the_best_form_is_kept_where_none_meets_the_target(
    copied: Path, few_phantoms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SHARES", ())
    monkeypatch.setattr(search, "SCORE_ERROR", 0.0)
    monkeypatch.setattr(search, "_contributions", lambda *_: [])
    lines: list[str] = []
    made = add_precision(copied, keep_refused=True, progress=lines.append)
    assert any("no float16 form" in line and "the best of them is kept" in line for line in lines)
    with samrt.load(made.path, precision="fp16") as engine:  # the gate has the last word
        assert engine.info.verification.state == "passed"


def test_the_gate_is_the_network_given_as_reference(copied: Path, few_phantoms: None) -> None:
    """Another network as the truth: refused, with how the error grows; nothing is written."""
    before = content(copied)
    other = seeded_network(seed=8)
    with pytest.raises(VerificationError, match=r"not good enough: .*the error grows"):
        add_precision(copied, reference=truth_of(other, Bundle.open(copied)))
    assert content(copied) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "int8"}, OptionError, "fp16"),
        ({"margin": 0.5}, OptionError, "at least 1"),
        ({"images": "nowhere"}, samrt.errors.ImageError, "not a folder"),
    ],
)
def test_bad_options(
    small: Bundle, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        add_precision(small.path, **options)


def test_bad_places(copied: Path, small: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        add_precision(small.path, out=copied)
    with pytest.raises(samrt.errors.ModelNotFoundError):
        add_precision(tmp_path / "none.samrt")
    (copied / "encoder.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="damaged"):
        add_precision(copied)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--precision", "fp16", "--no-verify"], "verification"),
        (["--images", "folder"], "fp16 only"),
        (["--half-io"], "fp16 only"),
        (["--precision", "fp16", "--images", "nowhere"], "not a folder"),
    ],
)
def test_options_that_contradict_each_other(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "x.pth"
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "x.samrt"), *words]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "--precision fp16"), (["--precision", "fp16", "--family", "sam"], "checkpoints only")],
)
def test_a_bundle_is_no_checkpoint(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "tiny", "-o", str(tmp_path / "x.samrt"), *words]) == 1
    assert said in capsys.readouterr().err


def test_the_exporter_asks_for_it(
    tmp_path: Path, few_cases: list[PhantomCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the torch network as reference, before the bundle is in place."""
    asked: list[dict[str, Any]] = []

    def convert(path: Path, precision: str, **options: Any) -> Bundle:
        asked.append({"precision": precision, **options})
        assert not (tmp_path / "lite.samrt").exists()
        return Bundle.open(path)

    monkeypatch.setattr(exporter, "phantom_cases", lambda: few_cases)
    monkeypatch.setattr(exporter, "add_precision", convert)
    samrt_export.export(
        seeded_state("lite_medsam"), tmp_path / "lite.samrt", precision="fp16", half_io=True
    )
    (call,) = asked
    assert (call["precision"], call["half_io"], call["images"]) == ("fp16", True, None)
    assert call["reference"].info.backend_effective == "torch"
