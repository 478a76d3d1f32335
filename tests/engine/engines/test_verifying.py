"""``samrt build`` ends in a comparison, where the engines can be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import samrt
from samrt import BackendError, VerificationError, cli
from samrt.backends import get_backend
from samrt.engines.memory import DeviceInfo
from samrt.phantoms import phantom_case
from samrt.verification import compare

Build = Callable[..., SimpleNamespace]


@pytest.fixture(autouse=True)
def one_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare  # its names are bound before they are changed here
    monkeypatch.setattr("samrt.phantoms.PHANTOM_NAMES", ("portrait",))
    monkeypatch.setattr("samrt.phantoms.phantom_cases", lambda: [phantom_case("portrait")])


@pytest.fixture
def build(
    make_fake: Any, memory: Any, bundle_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> Build:  # fmt: skip
    """``build(...)``: the verb over the fake runtime and the fake GPU."""
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path))
    monkeypatch.setattr("samrt.engines.memory.open_memory", lambda name="auto": memory)

    def run(*words: str, kind: str = "10", source: Path = bundle_path) -> SimpleNamespace:
        monkeypatch.setattr("samrt.engines.api.load_api", lambda runtime: make_fake(kind))
        runtime = "tensorrt-rtx" if kind == "rtx" else "tensorrt"
        code = cli.main(["build", str(source), "--runtime", runtime, *words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


def wrong(value: Any) -> Any:
    return np.ascontiguousarray(value[..., ::-1, :])


def test_a_build_ends_in_figures(build: Build, script: Any) -> None:
    found = build()
    assert (found.code, found.err) == (0, "")
    for text in (
        "compared with its fp32 graphs in ONNX Runtime", "embedding", "low-res logits", "IoU",
        "Dice", "HD95 (pixels)", "Passed: the engines compute what the FP32 model does",
    ):  # fmt: skip
        assert text in found.out
    runs = len(script.asked("context"))
    again = json.loads(build("--json").out)
    assert len(script.asked("context")) == runs  # the figures are known
    assert again["verification"]["state"] == "passed"
    assert again["verification"]["comparison"]["mask_iou_mean"] == 1.0
    assert "expected" not in again["verification"]["comparison"]
    assert again["engines"][0]["verification"]["passed"] is True


def test_a_wrong_engine_fails_the_build_and_is_marked(build: Build, script: Any) -> None:
    script.spoil["low_res_masks"] = wrong
    found = build("--triton", "repository")
    assert found.code == 3
    assert "samrt: the engines are refused: " in found.err
    assert "first far off is the decoder's output low_res_masks" in found.err
    assert not Path("repository").exists()
    assert build().code == 3  # in the cache, and refused there
    allowed = build("--allow-refused")
    assert (allowed.code, allowed.err) == (0, "")
    script.spoil.clear()
    assert build("--force").code == 0


def test_pictures_of_the_user_are_compared_too(build: Build, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.fromarray(phantom_case("portrait").image[:90]).save(folder / "scan.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = build("--images", str(folder))
    assert found.code == 0
    assert "2 pictures" in found.out
    assert "broken.png was left out" in found.err
    document = json.loads(build("--images", str(folder), "--json").out)["verification"]
    assert list(document["image_files"].values()) == [str(folder / "scan.png")]
    assert len(document["comparison"]["image_names"]) == 2


@pytest.mark.parametrize("why", ["no GPU", "another GPU"])
def test_what_cannot_be_run_here_is_unverified(
    build: Build, memory: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no GPU":

        def absent(name: str = "auto") -> None:
            raise BackendError("no GPU: cudaErrorNoDevice")

        monkeypatch.setattr("samrt.engines.memory.open_memory", absent)
    else:
        memory.info = replace(DeviceInfo("Old 1000", 75, "12.6"), total_bytes=1)
    found = build(kind="rtx")
    assert (found.code, found.err) == (0, "")
    reason = {"no GPU": "cudaErrorNoDevice", "another GPU": "this GPU is sm75"}[why]
    assert f"Not verified: the engines cannot be run here ({reason}" in found.out.replace(
        "no GPU: ", ""
    ).replace("built for sm80 and newer, ", "")


def test_refused_graphs_are_not_built(build: Build, edit_bundle: Any, script: Any) -> None:
    parity = {"precision": "fp32", "passed": False, "failures": ["mean mask IoU 0.5"]}
    source = edit_bundle({"parity": parity})
    found = build(source=source)
    assert found.code == 3
    assert "fixture in fp32 is refused, " in found.err
    assert "mean mask IoU 0.5; use another precision" in found.err
    assert script.asked("create_network") == []
    assert build("--allow-refused", source=source).code == 0


def test_usage(build: Build, tmp_path: Path) -> None:
    found = build("--images", str(tmp_path), "--no-verify")
    assert found.code == 1
    assert "--images is for the comparison of engines" in found.err


def test_verify_compares_engines_in_full_and_keeps_the_figures(
    make_backend: Any, bundle_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    backend = make_backend("10", proven=False)
    monkeypatch.setattr(
        "samrt.model.get_backend",
        lambda name: backend if name == backend.name else get_backend(name),
    )
    words = ["verify", str(bundle_path), "--backend", "tensorrt", "--against", "fp32", "--record"]
    script.spoil["low_res_masks"] = wrong
    assert cli.main(words) == 3
    assert "first far off is the decoder's output low_res_masks" in capsys.readouterr().out
    with pytest.raises(VerificationError):
        samrt.load(bundle_path, backend="tensorrt", threads=1)
    script.spoil.clear()
    assert cli.main(words) == 0
    assert "equals its FP32 graphs" in capsys.readouterr().out
    with samrt.load(bundle_path, backend="tensorrt", threads=1) as engine:
        assert engine.info.verification.state == "passed"
