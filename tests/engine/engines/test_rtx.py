"""Real builds with TensorRT-RTX, which needs no GPU to build; nothing is run here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samrt import BackendError, BackendUnavailableError, OptionError
from samrt.bundle import Bundle, find_model
from samrt.engines.apart import build_apart, can_build_apart
from samrt.engines.api import Api, load_api
from samrt.engines.builder import BuiltEngine, build_engine
from samrt.engines.bundles import build_bundle
from samrt.engines.cache import EngineCache
from samrt.engines.loading import load_engine
from samrt.engines.messages import BuildLog, make_logger
from samrt.engines.options import BuildOptions
from samrt.manifest import TensorSpec

SMALL = BuildOptions(max_prompts=2, max_points=4)
PLAN = b"vtrt"
Spec = TensorSpec("x", "float32", (1, 4))


@pytest.fixture(scope="module")
def rtx() -> Api:
    try:
        return load_api("tensorrt-rtx")
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return Bundle.open(find_model("tiny"))


def build(api: Api, bundle: Bundle, role: str, options: BuildOptions = SMALL) -> BuiltEngine:
    artifact = bundle.artifact(role)
    path = bundle.file_of(artifact)
    return build_apart(api, path, artifact.inputs, artifact.outputs, options)


def test_its_module_is_read_rightly(rtx: Api) -> None:
    can = rtx.capabilities
    assert {"sm86", "sm89", "sm120"} <= set(can.compute_capabilities)
    assert can.network_flags == 1
    assert (can.timing_cache, can.engine_validity, can.runtime_config) == (False, True, True)
    assert can_build_apart(rtx)


def test_a_program_without_a_python_to_start_builds_by_itself(
    rtx: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    assert not can_build_apart(rtx)


def fixed(built: BuiltEngine) -> bytes:
    """The bytes of an engine that was built under fixed conditions; no others can be compared."""
    if built.varying is not None:
        pytest.skip(built.varying)
    return built.content


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_the_same_graph_gives_the_same_bytes(
    rtx: Api, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """From another shell, in another folder."""
    first = fixed(build(rtx, tiny, role))
    assert first[:4] == PLAN
    assert len(first) > 1_000_000
    place = tmp_path / "a folder with a long name" / "and another one" / "copy.samrt"
    shutil.copytree(tiny.path, place)
    monkeypatch.setenv("SAMRT_TEST", "x" * 50_000)
    monkeypatch.setenv("CUDA_TEST", "y" * 5_000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert fixed(build(rtx, Bundle.open(place), role)) == first


def test_tiny_builds_into_the_cache(rtx: Api, tiny: Bundle, tmp_path: Path) -> None:
    seen: list[str] = []
    cache = EngineCache(tmp_path)
    found = build_bundle(tiny, rtx, SMALL, cache=cache, progress=lambda role, *_: seen.append(role))
    assert [outcome.built for outcome in found] == [True, True]
    assert set(seen) == {"encoder", "decoder"}
    for outcome in found:
        assert outcome.path.stat().st_size == outcome.record.bytes > 1_000_000
        assert outcome.record.build["layers"] > 50
        told = outcome.record.build
        assert told["fixed_addresses"] is (told["varying"] is None)
        assert "own process" not in (told["varying"] or "")
    again = build_bundle(tiny, rtx, SMALL, cache=cache)
    assert [outcome.built for outcome in again] == [False, False]


def test_targets_change_the_engine(rtx: Api, tiny: Bundle) -> None:
    portable = build(rtx, tiny, "encoder").content
    options = BuildOptions(targets=("sm86", "sm89"), workspace_bytes=2**30)
    assert build(rtx, tiny, "encoder", options).content != portable


def test_turing_has_no_float32_and_says_so(rtx: Api, tiny: Bundle) -> None:
    with pytest.raises(BackendError, match=r"cannot build an engine from decoder\.onnx: .*SM75"):
        build(rtx, tiny, "decoder", BuildOptions(targets=("sm75",), max_prompts=1))


@pytest.mark.parametrize("builder", [build_engine, build_apart])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"rubbish" * 100, r"cannot read broken\.onnx: .*Failed to parse the ONNX model"),
        (b"", r"broken\.onnx differs from its manifest: input 'x' is not in the file"),
    ],
)
def test_a_broken_file(
    rtx: Api, tmp_path: Path, content: bytes, text: str, builder: Callable[..., BuiltEngine]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=text) as caught:
        builder(rtx, path, [Spec], [Spec], BuildOptions())
    assert "\n" not in str(caught.value)


def test_an_unknown_operator_names_its_node(rtx: Api, tmp_path: Path) -> None:
    """With the same words from a process of its own."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Wobble", ["x"], ["y"], name="/blocks.3/wobble", domain="com.example")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("y", kind, [1, 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "odd.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    said = []
    for builder in (build_engine, build_apart):
        with pytest.raises(BackendError, match=r"node '/blocks\.3/wobble' \(Wobble\): ") as caught:
            builder(rtx, path, [Spec], [Spec], BuildOptions())
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_what_is_not_there_or_not_offered(rtx: Api, tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"absent\.onnx is missing: the bundle is damaged"):
        build_apart(rtx, tmp_path / "absent.onnx", [Spec], [Spec], BuildOptions())
    with pytest.raises(OptionError, match="cannot build for sm50"):
        build(rtx, tiny, "encoder", BuildOptions(targets=("sm50",)))


def test_an_interruption_ends_the_build(rtx: Api, tiny: Bundle) -> None:
    def interrupt(phase: str, fraction: float) -> None:
        raise KeyboardInterrupt

    artifact = tiny.artifact("decoder")
    path = tiny.file_of(artifact)
    with pytest.raises(KeyboardInterrupt):
        build_apart(
            rtx, path, artifact.inputs, artifact.outputs, BuildOptions(), progress=interrupt
        )


def test_loading_without_a_gpu_is_a_clear_error(rtx: Api, tiny: Bundle, tmp_path: Path) -> None:
    encoder, _ = build_bundle(tiny, rtx, SMALL, cache=EngineCache(tmp_path))
    content = encoder.path.read_bytes()
    runtime = rtx.module.Runtime(make_logger(rtx, BuildLog()))
    if runtime.deserialize_cuda_engine(content) is not None:
        pytest.skip("there is a GPU")
    text = r"refuses the engine of tiny encoder\.onnx \(validity INVALID, diagnostics 0\): .*cuda"
    with pytest.raises(BackendError, match=text) as caught:
        load_engine(rtx, encoder.path, encoder.record, "tiny encoder.onnx")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def mobile_sam(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("torch")
    from samrt_export.exporter import export
    from samrt_export.seeded import seeded_state

    target = tmp_path_factory.mktemp("mobile_sam") / "mobile_sam.samrt"
    return export(seeded_state("mobile_sam"), target, family="mobile_sam", verify=False)


def test_an_encoder_of_a_mobile_sam(rtx: Api, mobile_sam: Bundle) -> None:
    built = build(rtx, mobile_sam, "encoder")
    assert built.content[:4] == PLAN
    assert len(built.content) > mobile_sam.artifact("encoder").bytes // 2


def test_a_decoder_for_many_prompts_builds(rtx: Api, mobile_sam: Bundle) -> None:
    built = build(rtx, mobile_sam, "decoder", BuildOptions(max_prompts=16, max_points=16))
    assert built.content[:4] == PLAN
    assert built.ranges["mask_input"].largest == (16, 1, 256, 256)
