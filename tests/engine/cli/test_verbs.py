"""The command itself and its smaller verbs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import samrt
from samrt import cli
from samrt.bundle import Bundle
from samrt.cli import _numbers, infer
from samrt.errors import KernelError
from samrt.imaging.derived.render import DERIVED_KINDS
from samrt.imaging.outputs import OUTPUT_KINDS

VERBS = (
    "infer", "export", "quantize", "build", "verify", "bench", "eval", "models", "pull", "info"
)  # fmt: skip


def test_help_lists_the_verbs_that_exist(samrt_command: Callable[..., Any]) -> None:
    outcome = samrt_command("--help")
    assert (outcome.code, outcome.err) == (0, "")
    for verb in VERBS:
        assert f"\n    {verb} " in outcome.out
        assert samrt_command(verb, "--help").code == 0
    assert cli._VERBS == VERBS


def test_a_verb_imports_its_own_module_only() -> None:
    code = "import sys; from samrt.cli import main; main(['info', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) & {f"samrt.cli.{verb}" for verb in VERBS}
    assert loaded == {"samrt.cli.info"}


def test_version_and_usage(samrt_command: Callable[..., Any]) -> None:
    assert samrt_command("--version").out == f"samrt {samrt.__version__}\n"
    assert samrt_command().code == 2
    assert samrt_command("paint").code == 2


def test_kinds_are_those_of_the_library() -> None:
    assert (*OUTPUT_KINDS, *DERIVED_KINDS) == infer._KINDS


def test_info(samrt_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(samrt_command("info", "--json").out)
    assert found["versions"]["samrt"] == samrt.__version__
    assert found["native"]["available"] is True
    assert {"name": "onnxruntime", "available": True, "missing": []} in found["backends"]
    assert found["limits"] == {"max_file_bytes": 512 * 1024 * 1024, "max_pixels": 100_000_000}
    text = samrt_command("info")
    assert (text.code, text.err) == (0, "")
    assert "onnxruntime" in text.out

    def missing() -> None:
        raise KernelError("samrt's C++ extension is not built")

    monkeypatch.setattr("samrt._kernels.load", missing)
    assert json.loads(samrt_command("info", "--json").out)["native"]["available"] is False
    assert "not built" in samrt_command("info").out


def test_info_of_a_model(samrt_command: Callable[..., Any], bundle_path: Path) -> None:
    found = json.loads(samrt_command("info", str(bundle_path), "--json").out)
    bundle = Bundle.open(bundle_path)
    assert found["model_id"] == bundle.model_id
    assert tuple(found["input"]["size"]) == bundle.manifest.input.size
    first = found["graphs"][0]
    assert (first["precision"], first["form"]) == (bundle.manifest.precision, "canonical")
    assert first["files"]["encoder"]["sha256"] == bundle.artifact("encoder").sha256
    assert first["verdict"]["state"] in ("passed", "unverified", "refused")
    text = samrt_command("info", str(bundle_path))
    assert (text.code, text.err) == (0, "")
    assert bundle.model_id in text.out
    assert bundle.manifest.source["license"] in text.out


def test_info_of_no_model(samrt_command: Callable[..., Any], tmp_path: Path) -> None:
    outcome = samrt_command("info", str(tmp_path / "nothing.samrt"))
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1


def test_models(
    samrt_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    bundle_path: Path,
    edit_bundle: Callable[..., Path],
) -> None:
    damaged = edit_bundle({}, "damaged")
    (damaged / "encoder.onnx").unlink()
    found = {"fixture": bundle_path, "damaged": damaged}
    monkeypatch.setattr("samrt.bundle.available_models", lambda: found)
    good, bad = json.loads(samrt_command("models", "--json").out)["models"]
    assert good["name"] == "fixture"
    assert good["bytes"] == sum(f["bytes"] for f in good["files"].values())
    assert good["license"]
    assert "encoder.onnx is missing" in bad["error"]
    text = samrt_command("models", "--installed").out
    assert good["sha256"][:12] in text
    assert "damaged:" in text
    assert "sam_vit_b" not in text
    monkeypatch.setattr("samrt.bundle.available_models", dict)
    assert "no models are installed" in samrt_command("models").out
    only = samrt_command("models", "--installed", "--json").out
    assert json.loads(only) == {"models": []}


def test_models_lists_families_and_checkpoints(samrt_command: Callable[..., Any]) -> None:
    found = json.loads(samrt_command("models", "--json").out)
    assert list(found) == ["models", "families", "checkpoints"]
    assert "mobile_sam" in [family["name"] for family in found["families"]]
    sam = next(row for row in found["checkpoints"] if row["name"] == "sam_vit_b")
    assert sam["url"].startswith("https://dl.fbaipublicfiles.com/segment_anything/")
    assert sam["license"]["name"] == "Apache-2.0"
    assert sam["sources"]["sha256"]
    text = samrt_command("models")
    assert (text.code, text.err) == (0, "")
    rows = {line.split()[0]: line for line in text.out.splitlines() if line}
    assert "375.0 MB" in rows["sam_vit_b"]
    assert "(non-commercial)" in rows["edge_sam"]
    assert "by hand: https://drive.google.com/" in rows["medsam"]


def test_interruption(samrt_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("samrt.cli.info.collect", stop)
    outcome = samrt_command("info")
    assert (outcome.code, outcome.err) == (130, "samrt: interrupted\n")


def test_a_bug_keeps_its_traceback(
    samrt_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("samrt.cli.info.collect", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        samrt_command("info")


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ("infer a.png --box 1 2 3 4", "infer a.png --box=1,2,3,4"),
        ("infer --box 1 2 3 4 a.png", "infer --box=1,2,3,4 a.png"),
        ("infer --box 1,2,3,4 a.png", "infer --box=1,2,3,4 a.png"),
        ("infer --box -1 -2 3 4", "infer --box=-1,-2,3,4"),
        ("infer --box -1,-2,3,4", "infer --box=-1,-2,3,4"),
        ("infer --box=1,2,3,4", "infer --box=1,2,3,4"),
        ("infer --box 1 2 3 4 --box 5 6 7 8", "infer --box=1,2,3,4 --box=5,6,7,8"),
        ("infer --box 1 2 3 a.png", "infer --box=1,2,3 a.png"),
        ("infer --point -3,4,0 a.png", "infer --point=-3,4,0 a.png"),
        ("infer --point 3 4 a.png", "infer --point=3,4 a.png"),
        ("infer --point 3 4 0 --json", "infer --point=3,4,0 --json"),
        ("infer --window -160 240 a.png", "infer --window=-160,240 a.png"),
        ("infer --window minmax a.png", "infer --window minmax a.png"),
        ("infer --box nan 2 3 4", "infer --box=nan,2,3,4"),
        ("infer --box", "infer --box"),
        ("infer --box --json", "infer --box --json"),
        ("infer -- --box 1 2 3 4", "infer -- --box 1 2 3 4"),
    ],
)
def test_joining_of_numbers(words: str, joined: str) -> None:
    assert _numbers.join_values(words.split()) == joined.split()


def test_parser_can_be_built_twice() -> None:
    assert cli.build_parser().prog == cli.build_parser().prog == "samrt"
