"""A bundle gets int8 graphs: all or nothing, recorded, and loaded like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import samrt
from samrt.bundle import Bundle, available_models
from samrt.cli import main
from samrt.errors import OptionError, OutputError, VerificationError
from samrt.phantoms import PhantomCase
from samrt.selfcheck import check_model
from samrt_export.quantize import QuantizeOptions, quantise, quantize, search
from samrt_export.quantize.choose import Choice
from samrt_export.verify import Thresholds, compare

Make = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("few_pictures", "cache")


@pytest.fixture
def copied(small: Bundle, tmp_path: Path) -> Path:
    target = tmp_path / "small.samrt"
    shutil.copytree(small.path, target)
    return target


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of random weights lie near the threshold everywhere: the search is tested apart."""
    monkeypatch.setattr(search, "TARGET", Thresholds(0.5, 0.0))
    monkeypatch.setattr(quantise._Quantisation, "_judge", _passing(quantise._Quantisation._judge))


def _passing(judge: Any) -> Any:
    def judged(*args: Any) -> Any:
        return replace(judge(*args), passed=True, failures=())

    return judged


QUICK = QuantizeOptions(method="max", smoothing=False, backends=("onnxruntime",))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def tiny8(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, few_cases: list[PhantomCase]
) -> tuple[Bundle, dict[str, Any], str]:
    """`tiny` by the command line: the bundle, what was printed, what was said."""
    import contextlib
    import io

    root = tmp_path_factory.mktemp("tiny8")
    out = root / "tiny8.samrt"
    words = ["quantize", "tiny", "--images", str(folder), "-o", str(out), "--json"]
    printed, said = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMRT_CACHE", str(root / "cache"))
        patch.setattr(quantise, "phantom_cases", lambda: few_cases)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            assert main(words) == 0, said.getvalue()
        assert not list((root / "cache").rglob("*.npz"))
    return Bundle.open(out, verify="full"), json.loads(printed.getvalue()), said.getvalue()


def test_tiny_by_the_command_line(
    tiny8: tuple[Bundle, dict[str, Any], str], few_cases: list[PhantomCase]
) -> None:
    bundle, facts, said = tiny8
    assert facts["precisions"] == ["fp32", "int8"]
    entry = facts["calibration"]
    assert len(entry["layers"]) >= 10
    assert all(layer["scale"] > 0 and layer["error"] < 0.1 for layer in entry["layers"])
    assert {"neck"} < {item["reason"] for item in entry["excluded"]}
    assert entry["held_out"] == 1
    assert len(entry["images"]) == 6
    assert "patient" not in json.dumps(facts)
    assert "calibrating on 6 of 6" in said
    assert facts["parity"]["mask_iou_mean"] >= 0.98
    assert facts["encoder_bytes"]["int8"] < 0.75 * facts["encoder_bytes"]["fp32"]
    with samrt.load(bundle.path, precision="int8") as engine:
        assert engine.info.precision_effective == "int8"
        assert engine.info.decoder_precision == "fp32"
        assert engine.info.verification.state == "passed"
        assert not engine.info.warnings
        checks = check_model(engine, few_cases)
        assert all(check.passed for check in checks), checks
    with samrt.load(bundle.path) as engine:
        assert engine.info.precision_effective == "fp32"
    assert "int8" not in Bundle.open(available_models()["tiny"]).precisions()


def test_the_same_file_in_openvino(
    tiny8: tuple[Bundle, dict[str, Any], str], few_cases: list[PhantomCase]
) -> None:
    pytest.importorskip("openvino")
    with (
        samrt.load("tiny", precision="fp32") as truth,
        samrt.load(
            tiny8[0].path, precision="int8", backend="openvino", allow_refused=True
        ) as engine,
    ):
        record = compare(truth, engine, few_cases, precision="int8")
    assert record.masks.iou_mean >= 0.98, record.failures
    assert record.passed, record.failures
    assert set(tiny8[1]["calibration"]["runtimes"]) == {"onnxruntime", "openvino"}


def test_the_same_file_builds_with_tensorrt_rtx(
    tiny8: tuple[Bundle, dict[str, Any], str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    words = ["build", str(tiny8[0].path), "--runtime", "tensorrt-rtx", "--precision", "int8"]
    assert main([*words, "--target", "sm86", "--json"]) == 0
    built = {e["role"]: e for e in json.loads(capsys.readouterr().out)["engines"]}
    assert built["encoder"]["bytes"] > 100_000


def test_the_ranges_are_found_again(copied: Path, folder: Path, lenient: None) -> None:
    before = content(copied)
    made = quantize(copied, folder, options=QUICK)
    after = content(copied)
    assert made.precisions() == ("fp32", "int8")
    assert all(name == "manifest.json" or after[name] == data for name, data in before.items())
    assert set(after) - set(before) == {"encoder.int8.onnx"}
    assert not [p for p in copied.parent.iterdir() if p.name.startswith(".")]
    with pytest.raises(OptionError, match="overwrite"):
        quantize(copied, folder)
    again = quantize(copied, folder, overwrite=True, options=QUICK)
    assert again.model_id == made.model_id
    calibration = made.manifest.calibration
    assert calibration is not None
    names = [layer["node"] for layer in calibration["int8"]["layers"]]
    assert any("patch_embed" in name for name in names)
    assert sum("mlp" in name for name in names) == 8
    assert not any("neck" in name or "rel_pos" in name for name in names)


def test_an_interrupted_run_goes_on(copied: Path, folder: Path, cache: Path, lenient: None) -> None:
    before = content(copied)

    def stop(text: str) -> None:
        if "on 4 of" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(copied, folder, options=QUICK, progress=stop)
    assert content(copied) == before
    assert len(list(cache.rglob("*.npz"))) == 1
    said: list[str] = []
    quantize(copied, folder, options=QUICK, progress=said.append)
    assert any(text.startswith("going on after 3 of") for text in said)
    assert not list(cache.rglob("*.npz"))


def test_layers_return_until_the_target_is_met(
    copied: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that eight bits everywhere miss."""
    monkeypatch.setattr(search, "MOST_UNITS", 6)  # blocks, so that it is quick
    monkeypatch.setattr(search, "TARGET", Thresholds(0.998, 0.992))
    said: list[str] = []
    made = quantize(copied, folder, progress=said.append)
    assert made.manifest.calibration is not None
    entry = made.manifest.calibration["int8"]
    assert entry["returned"] >= 1
    errors = [item["error"] for item in entry["sensitivities"]]
    assert errors == sorted(errors, reverse=True)
    assert sum("returned" in item["reason"] for item in entry["excluded"]) == entry["returned"]
    assert any("alone in int8" in text for text in said)
    assert made.manifest.parity is not None
    record = made.manifest.parity["other_precisions"]["int8"]
    assert record["passed"]
    assert record["mask_iou_mean"] >= 0.98


@pytest.fixture
def ruined(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer's clip is far too small, and the search gives up at once."""
    monkeypatch.setattr(search, "SHARES", ())
    monkeypatch.setattr(search, "_sensitivities", lambda *_: [])
    real = quantise.choose

    def choose(graph: Any, layer: Any, statistics: Any, **options: Any) -> Choice:
        found = real(graph, layer, statistics, **options)
        return replace(found, clip=found.clip / 300) if "patch_embed" in layer.name else found

    monkeypatch.setattr(quantise, "choose", choose)


def test_what_is_refused_is_kept_on_request(
    copied: Path, folder: Path, ruined: None, capsys: pytest.CaptureFixture[str],
    few_cases: list[PhantomCase],
) -> None:  # fmt: skip
    """In the bundle with its record: not loaded, or loaded and every result says so."""
    words = ["quantize", str(copied), "--images", str(folder), "--method", "max", "--no-smoothing"]
    for more in ([], ["--force"]):  # the second time its own record is there
        assert main([*words, "--keep-refused", *more]) == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert "small in int8 is refused and was kept as asked: mean mask IoU 0." in said
        assert "patch_embed" in said.rsplit("the error grows", 1)[1]
    bundle = Bundle.open(copied, verify="full")
    assert bundle.precisions() == ("fp32", "int8")
    assert bundle.manifest.parity is not None
    record = bundle.manifest.parity["other_precisions"]["int8"]
    assert record["passed"] is False
    text = r"small in int8 is refused.*mean mask IoU 0\.\d+, at least 0\.98.*allow_refused=True"
    with pytest.raises(VerificationError, match=text):
        samrt.load(copied, precision="int8")
    samrt.load(copied).close()  # float32 is not touched by it
    case = few_cases[0]
    with samrt.load(copied, precision="int8", allow_refused=True) as engine:
        answer = engine.decode(engine.encode(case.image), [case.prompts[0]])[0]
    assert answer.verification == "refused"
    assert "mean mask IoU 0." in answer.warnings[0]


def test_refused_float32_graphs_are_no_truth(copied: Path, folder: Path) -> None:
    """What agrees with something wrong would pass."""
    document = json.loads((copied / "manifest.json").read_text("utf-8"))
    document["parity"] = {"precision": "fp32", "passed": False, "failures": ["IoU 0.3"]}
    (copied / "manifest.json").write_text(json.dumps(document), "utf-8")
    before = content(copied)
    with pytest.raises(VerificationError, match=r"small in fp32 is refused, .*IoU 0\.3"):
        quantize(copied, folder, options=QUICK, keep_refused=True)
    assert content(copied) == before


def test_the_best_form_tried_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reaches the target: of the rounds the one with the highest mean is kept."""
    names = ["a", "b", "c", "d"]
    choices: Any = [SimpleNamespace(layer=SimpleNamespace(name=n, key=n)) for n in names]
    means = {4: 0.5, 3: 0.9, 2: 0.7}

    def record(kept: Any, *_: Any) -> Any:
        masks = SimpleNamespace(iou_mean=means[len(kept)], worst_case="x")
        return SimpleNamespace(passed=False, masks=masks, candidate={"backend": "onnxruntime"})

    errors = [
        search.Sensitivity(n, (n,), e) for n, e in zip(names, (9.0, 5.0, 1.0, 0.1), strict=True)
    ]
    monkeypatch.setattr(search, "to_int8", lambda graph, kept: kept)
    monkeypatch.setattr(search, "in_words", lambda record: f"mean {record.masks.iou_mean}")
    monkeypatch.setattr(search, "_sensitivities", lambda *_: errors)
    monkeypatch.setattr(search, "SHARES", (0.5, 0.2))
    attempt: Any = SimpleNamespace(record=record, only=lambda _: attempt)
    with pytest.raises(search.NoInt8FormError, match=r"mean 0\.5; 3 of 4.*mean 0\.9") as caught:
        search.search(attempt, None, choices, None, [], few=1, by_block=False, say=lambda _: None)
    best = caught.value.best
    assert [choice.layer.name for choice in best.kept] == ["b", "c", "d"]
    assert (best.returned, best.record.masks.iou_mean) == (["a"], 0.9)
    assert (best.sensitivities, len(best.rounds)) == (errors, 3)


def test_what_is_not_good_enough_changes_nothing(
    copied: Path, folder: Path, ruined: None, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Exit code 3, and where it went wrong."""
    before = content(copied)
    assert main(["quantize", str(copied), "--images", str(folder), "--method", "max"]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert "no int8 form" in said
    assert "nothing was written" in said
    assert "patch_embed" in said.rsplit("the error grows", 1)[1]
    assert content(copied) == before
    assert [p.name for p in copied.parent.iterdir() if p.name.startswith(".")] == []


def test_int8_weights(copied: Path, tmp_path: Path, few_cases: list[PhantomCase]) -> None:
    out = tmp_path / "light.samrt"
    options = QuantizeOptions(precision="int8-weights", alone=True)
    made = quantize(copied, out=out, options=options)
    assert made.precisions() == ("int8-weights",)
    assert made.manifest.precision == "int8-weights"
    old = Bundle.open(copied)
    whole = sum(part.total_bytes for part in old.manifest.artifacts)
    assert sum(part.total_bytes for part in made.manifest.artifacts) < 0.4 * whole
    with samrt.load(out) as engine, samrt.load(copied) as truth:
        assert engine.info.precision_effective == "int8-weights"
        assert engine.info.decoder_precision == "int8-weights"
        record = compare(truth, engine, few_cases)
    assert record.passed, record.failures
    beside = quantize(copied, options=QuantizeOptions(precision="int8-weights"))
    assert beside.precisions() == ("fp32", "int8-weights")


def test_alone_keeps_the_float32_decoder(
    copied: Path, folder: Path, tmp_path: Path, lenient: None
) -> None:
    made = quantize(copied, folder, out=tmp_path / "q.samrt", options=replace(QUICK, alone=True))
    assert {(a.role, a.precision) for a in made.manifest.artifacts} == {
        ("encoder", "int8"), ("decoder", "fp32"),
    }  # fmt: skip
    with samrt.load(made.path) as engine:
        assert engine.info.precision_effective == "int8"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": "int4"}, "precision"), ({"convs": "some"}, "convs"),
     ({"method": "guess"}, "method"), ({"most_pictures": 0}, "at least 1"),
     ({"backends": ("onnxruntime", "tensorrt")}, "got 'tensorrt'"),
     ({"backends": ("openvino",)}, "always judged in onnxruntime"),
     ({"backends": ()}, "always judged in onnxruntime")],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        QuantizeOptions(**options)


def test_bad_calls(copied: Path, small: Bundle, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--images"):
        quantize(copied)
    with pytest.raises(OptionError, match="-o"):
        quantize(copied, folder, options=QuantizeOptions(alone=True))
    with pytest.raises(OutputError, match="exists"):
        quantize(small.path, folder, out=copied)
    with pytest.raises(samrt.errors.ImageError, match="not a folder"):
        quantize(copied, tmp_path / "none")
    with pytest.raises(OptionError, match="no layer"):
        quantize(copied, folder, options=QuantizeOptions(exclude=(".",)))
    with pytest.raises(samrt.errors.ModelNotFoundError):
        quantize(tmp_path / "none.samrt", folder)


def test_the_gate_judges_the_file(
    copied: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search was content, the final comparison is not."""
    before = content(copied)
    monkeypatch.setattr(search, "TARGET", Thresholds(0.5, 0.0))
    real = quantise.compare

    def strict(*args: Any, **options: Any) -> Any:
        return real(*args, **{**options, "thresholds": Thresholds(1.0, 1.0)})

    monkeypatch.setattr(quantise, "compare", strict)
    with pytest.raises(VerificationError, match=r"int8 encoder is not good enough.*nothing was"):
        quantize(copied, folder, options=QUICK)
    assert content(copied) == before
