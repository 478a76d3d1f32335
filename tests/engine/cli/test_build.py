"""``samrt build``: its options and what it prints; with TensorRT-RTX where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from samrt import BackendUnavailableError
from samrt.cli import build
from samrt.engines.api import Capabilities, load_api
from samrt.engines.memory import DeviceInfo

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rtx() -> None:
    try:
        load_api("tensorrt-rtx")
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        ("sm89,sm86", ("sm86", "sm89")),
        ("8.6", ("sm86",)),
        ("120,sm_75,SM86,86", ("sm75", "sm86", "sm120")),
    ],
)
def test_targets_have_one_form(words: str, targets: tuple[str, ...]) -> None:
    assert build._targets(words) == targets


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "ampere"),
        ("--target", ""),
        ("--max-prompts", "0"),
        ("--max-points", "x"),
        ("--optimization-level", "6"),
        ("--runtime", "cuda"),
    ],
)
def test_wrong_usage(samrt_command: Cli, bundle_path: Path, words: tuple[str, ...]) -> None:
    outcome = samrt_command("build", bundle_path, *words)
    assert (outcome.code, outcome.out) == (2, "")


def test_nothing_to_do(samrt_command: Cli, bundle_path: Path) -> None:
    error = samrt_command("build", bundle_path).error
    assert "nothing to build: add --runtime tensorrt, tensorrt-rtx or --triton DIR" in error
    both = samrt_command("build", bundle_path, "--runtime", "tensorrt-rtx", "--triton", "r")
    assert "Triton does not serve engines of tensorrt-rtx: leave --runtime out" in both.error


def test_a_runtime_that_is_not_there(
    samrt_command: Cli, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(runtime: str) -> None:
        raise BackendUnavailableError(f"{runtime} cannot be imported")

    monkeypatch.setattr("samrt.engines.api.load_api", absent)
    error = samrt_command("build", bundle_path, "--runtime", "tensorrt").error
    assert error == "samrt: error: tensorrt cannot be imported"


def test_options_reach_the_builder(
    samrt_command: Cli, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything a user may say, and the GPU of the machine where the engine is made for it."""
    seen: list[Any] = []
    can = Capabilities(2, (), True, True, False, False)
    api = SimpleNamespace(title="TensorRT 10.3", capabilities=can)
    gpu = DeviceInfo("Orin", 87, "12.6")

    def build_bundle(bundle: Any, api: Any, options: Any, **more: Any) -> list[Any]:
        seen.append((options, more))
        more["progress"]("encoder", "Building", 0.5)
        return []

    monkeypatch.setattr("samrt.engines.api.load_api", lambda runtime: api)
    monkeypatch.setattr("samrt.engines.bundles.build_bundle", build_bundle)
    monkeypatch.setattr(
        "samrt.engines.memory.open_memory", lambda name: SimpleNamespace(device=lambda: gpu)
    )
    outcome = samrt_command(
        "build", bundle_path, "--runtime", "tensorrt", "--precision", "fp32", "--workspace", "2G",
        "--timing-cache", "t", "--repeatable", "--tf32", "--max-prompts", 4, "--max-points", 6,
        "--optimization-level", 5, "--force", "--no-verify",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Not verified: --no-verify was given.")
    ((options, more),) = seen
    assert options.flags() == {
        "max_prompts": 4, "max_points": 6, "min_points": 1, "workspace_bytes": 2**31,
        "repeatable": True, "tf32": True, "optimization_level": 5,
    }  # fmt: skip
    assert options.timing_cache == Path("t")
    assert (more["precision"], more["device"], more["force"]) == ("fp32", gpu, True)
    targets = samrt_command("build", bundle_path, "--runtime", "tensorrt", "--target", "sm87")
    assert "builds for the GPU of this machine only: leave --target out" in targets.error


def test_a_repository_for_triton(samrt_command: Cli, bundle_path: Path, workplace: Path) -> None:
    found = json.loads(samrt_command("build", bundle_path, "--triton", "r", "--json").out)
    assert found["engines"] == []
    assert len(found["triton_files"]) == 5
    assert all((workplace / name).is_file() for name in found["triton_files"])
    again = samrt_command("build", bundle_path, "--triton", "r")
    assert "exists: use --force to replace it" in again.error
    forced = samrt_command("build", bundle_path, "--triton", "r", "--force")
    assert len(forced.out.splitlines()) == 5


@pytest.mark.usefixtures("rtx")
def test_engines_of_tensorrt_rtx(samrt_command: Cli, bundle_path: Path, cache: Path) -> None:
    words = ("build", bundle_path, "--runtime", "tensorrt-rtx", "--target", "sm86,sm89")
    outcome = samrt_command(*words, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert document["verification"]["state"] == "unverified"
    engines = document["engines"]
    assert [(e["role"], e["built"]) for e in engines] == [("encoder", True), ("decoder", True)]
    for engine in engines:
        assert Path(engine["path"]).stat().st_size == engine["bytes"]
        assert Path(engine["path"]).is_relative_to(cache)
        assert engine["key"]["targets"] == ["sm86", "sm89"]
    text = samrt_command(*words)
    assert text.out.count("in the cache") == 2
    assert "Not verified: the engines cannot be run here (" in text.out
    assert "compares them with the FP32 model before they are used" in text.out


@pytest.mark.usefixtures("rtx")
def test_errors_of_tensorrt_rtx(
    samrt_command: Cli, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("build", bundle_path, "--runtime", "tensorrt-rtx")
    assert (
        "cannot build for sm87: choose from sm75, "
        in samrt_command(*words, "--target", "sm87").error
    )
    assert "has no timing cache" in samrt_command(*words, "--timing-cache", "t").error
    assert "has no precision 'int4'" in samrt_command(*words, "--precision", "int4").error
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMRT_CACHE", str(tmp_path / "file"))
    assert "set SAMRT_CACHE to a folder that can be written to" in samrt_command(*words).error
