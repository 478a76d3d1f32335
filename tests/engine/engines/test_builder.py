"""What the builder asks of a runtime, and what it makes of its answers; RTX builds for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samrt import BackendError, OptionError
from samrt.bundle import Bundle
from samrt.engines.api import Api
from samrt.engines.builder import BuiltEngine, build_engine
from samrt.engines.options import BuildOptions
from samrt.manifest import TensorSpec

Build = Callable[..., BuiltEngine]


@pytest.fixture
def build(bundle: Bundle, make_fake: Callable[..., Api]) -> Build:
    """``build("10", role="decoder", options=...)`` with the fake runtime."""

    def run(
        kind: str = "10", role: str = "decoder", options: BuildOptions | None = None, **more: Any
    ) -> BuiltEngine:
        artifact = bundle.artifact(role)
        given: dict[str, Any] = {"inputs": artifact.inputs, "outputs": artifact.outputs, **more}
        path = given.pop("path", bundle.file_of(artifact))
        inputs, outputs = given.pop("inputs"), given.pop("outputs")
        api = make_fake(kind)
        return build_engine(api, path, inputs, outputs, options or BuildOptions(), **given)

    return run


@pytest.mark.parametrize(("kind", "flags"), [("10", 2), ("11", 0), ("rtx", 2)])
def test_one_builder_for_all_runtimes(build: Build, script: Any, kind: str, flags: int) -> None:
    built = build(kind, options=BuildOptions(max_prompts=4, max_points=6))
    assert built.content == b'{"file": "decoder.onnx"}'
    assert script.asked("create_network") == [(flags,)]
    assert script.asked("clear_flag") == [("TF32",)]
    assert script.asked("set_flag") == []
    assert script.ranges["point_coords"] == ((1, 1, 2), (1, 2, 2), (4, 6, 2))
    assert script.ranges["mask_input"] == ((1, 1, 32, 32), (1, 1, 32, 32), (4, 1, 32, 32))
    assert set(script.ranges) == set(built.ranges)
    assert "image_embeddings" not in script.ranges
    assert (built.layers, built.timing_cache) == (3, None)


def test_an_encoder_needs_no_profile(build: Build, script: Any) -> None:
    script.refuse = {"profile"}
    assert build(role="encoder").ranges == {}


def test_options_reach_the_runtime(build: Build, script: Any) -> None:
    options = BuildOptions(
        targets=("sm86", "sm89"), tf32=True, optimization_level=5, workspace_bytes=2**30
    )
    build("rtx", options=options)
    assert script.asked("set_flag") == [("TF32",)]
    assert script.asked("target") == [("SM86", 0), ("SM89", 1)]
    assert script.asked("level") == [(5,)]


def test_parser_errors_name_the_node(build: Build, script: Any) -> None:
    script.parse_errors = [
        ("Assertion failed: unsupported\nthing", "/blocks.3/attn/Softmax", "Softmax"),
        ("no node", "", ""),
        *[(f"e{k}", "", "") for k in range(5)],
    ]
    with pytest.raises(BackendError) as caught:
        build()
    text = str(caught.value)
    assert text.startswith(
        "TensorRT 10.3.0.30 cannot read decoder.onnx: node '/blocks.3/attn/Softmax' (Softmax): "
        "Assertion failed: unsupported thing; no node; e0"
    )
    assert "and 2 more" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        ("network", "cannot create a network for decoder.onnx: the runtime gave no reason"),
        ("set_shape", "did not take sizes of 'point_coords' .shapes are inconsistent. in dec"),
        ("profile", r"did not take the sizes point_coords \[1, 1, 2\] to \[16, 16, 2\]"),
        ("workspace", "set the workspace to 17 bytes instead of 1073741824 for decoder.onnx"),
        ("target", "did not take the target sm86 for decoder.onnx"),
        ("empty", "built an empty engine from decoder.onnx"),
        ("build", "cannot build an engine from decoder.onnx: node matmul_7: no kernel$"),
    ],
)
def test_every_answer_is_looked_at(build: Build, script: Any, refused: str, text: str) -> None:
    script.refuse = {refused}
    if refused == "build":
        script.complaints = [(1, "x (cudaError 35: no driver)"), (1, "node matmul_7:\nno kernel")]
    with pytest.raises(BackendError, match=text):
        build("rtx", options=BuildOptions(targets=("sm86",), workspace_bytes=2**30))


def test_without_other_reasons_the_missing_driver_is_one(build: Build, script: Any) -> None:
    script.refuse, script.complaints = (
        {"build"},
        [(1, "cudaError 35: no driver"), (2, "w"), (2, "w")],
    )
    with pytest.raises(BackendError, match=r"from decoder.onnx: cudaError 35: no driver$"):
        build()
    script.refuse = set()
    assert build().warnings == ("w",)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        ("10", {"targets": ("sm86",)}, "builds for the GPU of this machine only: leave --target"),
        ("rtx", {"targets": ("sm86", "sm87")}, "cannot build for sm87: choose from sm86, sm89"),
        ("rtx", {"timing_cache": Path("t")}, "has no timing cache: leave --timing-cache out"),
    ],
)
def test_what_a_runtime_lacks(build: Build, kind: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        build(kind, options=BuildOptions(**options))


def test_a_timing_cache_goes_in_and_out(build: Build, script: Any) -> None:
    options = BuildOptions(timing_cache=Path("t"))
    assert build(options=options, timing_cache=b"old").timing_cache == b"times:old"
    assert build(options=options).timing_cache == b"times:"
    assert script.asked("set_flag") == []
    build(options=BuildOptions(timing_cache=Path("t"), repeatable=True), timing_cache=b"old")
    assert script.asked("set_flag") == [("ERROR_ON_TIMING_CACHE_MISS",)]
    script.refuse = {"timing_cache"}
    with pytest.raises(
        BackendError, match=r"refused the timing cache t .it belongs to another GPU"
    ):
        build(options=options, timing_cache=b"old")


def test_a_file_that_is_not_its_manifests(build: Build, bundle: Bundle, tmp_path: Path) -> None:
    decoder = bundle.artifact("decoder")
    inputs = [TensorSpec("image_embeddings", "float16", (1, 8, 16, 16)), *decoder.inputs[2:]]
    outputs = [*decoder.outputs, TensorSpec("more", "float32", (1,))]
    with pytest.raises(BackendError) as caught:
        build(inputs=inputs, outputs=outputs)
    text = str(caught.value)
    assert "decoder.onnx differs from its manifest: input 'high_res_s2' is not in the manif" in text
    assert "image_embeddings float16[1, 8, 16, 16] is float32[1, 8, 16, 16] in the file" in text
    assert "output 'more' is not in the file" in text
    with pytest.raises(BackendError, match=r"none.onnx is missing: the bundle is damaged"):
        build(path=tmp_path / "none.onnx")


def test_a_fixed_size_is_not_a_free_one(build: Build, bundle: Bundle) -> None:
    inputs = list(bundle.artifact("decoder").inputs)
    wrong = [TensorSpec(s.name, s.dtype, ("N", *s.shape[1:])) for s in inputs]
    with pytest.raises(BackendError, match=r"image_embeddings float32\[N, 8, 16, 16\] is float32"):
        build(inputs=wrong)


def test_progress_is_told(build: Build, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samrt.engines.messages._EVERY_SECONDS", 0.0)
    seen: list[tuple[str, float]] = []
    build(progress=lambda phase, fraction: seen.append((phase, fraction)))
    assert seen == [("Building", 0.0), ("Building", 0.5), ("Building", 1.0)]


def test_an_interruption_ends_the_build_between_steps(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samrt.engines.messages._EVERY_SECONDS", 0.0)

    def stop(phase: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(progress=stop)
