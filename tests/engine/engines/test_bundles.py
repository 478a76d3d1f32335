from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samrt import BackendError, BundleError, OptionError, OutputError
from samrt.bundle import Bundle
from samrt.engines.builder import BuiltEngine
from samrt.engines.bundles import build_bundle, options_for_bundle
from samrt.engines.cache import EngineCache
from samrt.engines.options import BuildOptions

MakeFake = Callable[..., Any]


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def test_what_is_there_is_not_built_again(
    bundle: Bundle, make_fake: MakeFake, memory: Any, cache: EngineCache, script: Any
) -> None:
    api, device = make_fake("10"), memory.device()

    def build(**more: Any) -> list[bool]:
        options = BuildOptions(max_prompts=more.pop("max_prompts", 16))
        found = build_bundle(bundle, api, options, device=device, cache=cache, **more)
        assert [outcome.role for outcome in found] == ["encoder", "decoder"]
        assert all(outcome.path.is_file() for outcome in found)
        return [outcome.built for outcome in found]

    assert build() == [True, True]
    assert build() == [False, False]
    assert build(max_prompts=4) == [False, True]
    assert build(force=True) == [True, True]
    assert len(script.asked("create_network")) == 5


def test_the_record_says_what_was_built(
    bundle: Bundle, make_fake: MakeFake, memory: Any, cache: EngineCache, script: Any
) -> None:
    script.complaints = [(2, "careful")]
    told: list[str] = []
    encoder, decoder = build_bundle(
        bundle,
        make_fake("10"),
        BuildOptions(),
        device=memory.device(),
        cache=cache,
        progress=lambda role, phase, fraction: told.append(role),
    )
    build = decoder.record.build
    assert build["model_id"] == bundle.model_id
    assert (build["role"], build["precision"], build["layers"]) == ("decoder", "fp32", 3)
    assert build["warnings"] == ["careful"]
    assert decoder.record.key.device == "Fake 4000 sm89"
    assert decoder.record.key.model_sha256 == bundle.artifact("decoder").sha256
    assert decoder.record.ranges["point_coords"].largest == (16, 16, 2)
    assert encoder.record.ranges == {}
    assert decoder.as_dict()["verification"] is None
    assert set(told) == {"encoder", "decoder"}


@pytest.mark.parametrize("varying", [None, "a busy machine"])
def test_the_record_says_whether_the_bytes_will_be_the_same(
    bundle: Bundle, make_fake: MakeFake, cache: EngineCache, varying: str | None
) -> None:
    def builder(*given: Any, **more: Any) -> BuiltEngine:
        return BuiltEngine(b"engine", 1.0, 3, {}, varying=varying)

    build_bundle(bundle, make_fake("rtx"), BuildOptions(), cache=cache, builder=builder)
    found = build_bundle(bundle, make_fake("rtx"), BuildOptions(), cache=cache)  # read back
    for outcome in found:
        build = outcome.record.build
        assert (build["fixed_addresses"], build["varying"]) == (varying is None, varying)


def test_rtx_needs_no_gpu_and_others_do(
    bundle: Bundle, make_fake: MakeFake, cache: EngineCache
) -> None:
    found = build_bundle(bundle, make_fake("rtx"), BuildOptions(targets=("sm86",)), cache=cache)
    key = found[0].record.key
    assert (key.device, key.driver, key.targets) == ("any", "any", ("sm86",))
    with pytest.raises(OptionError, match="builds for the GPU of this machine: open it first"):
        build_bundle(bundle, make_fake("10"), BuildOptions(), cache=cache)


def test_prompts_of_a_fixed_length(bundle: Bundle) -> None:
    prompts = replace(bundle.manifest.prompts, pad_to=6)
    padded = Bundle(bundle.path, replace(bundle.manifest, prompts=prompts))
    assert options_for_bundle(padded, BuildOptions()).min_points == 6
    with pytest.raises(OptionError, match="at least 6 rows, max_points is 4: raise it"):
        options_for_bundle(padded, BuildOptions(max_points=4))


def test_a_timing_cache_is_kept_in_its_file(
    bundle: Bundle,
    make_fake: MakeFake,
    memory: Any,
    cache: EngineCache,
    script: Any,
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "times"
    given: dict[str, Any] = {"device": memory.device(), "cache": cache, "force": True}
    api = make_fake("10")
    repeat = BuildOptions(timing_cache=path, repeatable=True)
    with pytest.raises(OptionError, match="is missing: build once without --repeatable"):
        build_bundle(bundle, api, repeat, **given)
    build_bundle(bundle, api, BuildOptions(timing_cache=path), **given)
    assert path.read_bytes() == b"times:times:"
    build_bundle(bundle, api, repeat, **given)
    assert path.read_bytes() == b"times:times:"
    folder = BuildOptions(timing_cache=tmp_path)
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        build_bundle(bundle, api, folder, **given)


def test_a_failed_build_leaves_nothing(
    bundle: Bundle, make_fake: MakeFake, memory: Any, cache: EngineCache, script: Any
) -> None:
    script.refuse = {"build"}
    with pytest.raises(BackendError, match=r"cannot build an engine from encoder\.onnx"):
        build_bundle(bundle, make_fake("10"), BuildOptions(), device=memory.device(), cache=cache)
    assert list(cache.folder.iterdir()) == []


def test_nothing_is_built_that_cannot_be_kept(
    bundle: Bundle, make_fake: MakeFake, memory: Any, script: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file")
    with pytest.raises(OutputError, match="SAMRT_CACHE"):
        build_bundle(bundle, make_fake("10"), BuildOptions(), device=memory.device(), cache=cache)
    assert script.calls == []


def test_damaged_bundles_are_not_built(
    edit_bundle: Callable[..., Path], make_fake: MakeFake, memory: Any, cache: EngineCache
) -> None:
    bundle = Bundle.open(edit_bundle())
    path = bundle.path / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"decoder\.onnx has sha256"):
        build_bundle(bundle, make_fake("10"), BuildOptions(), device=memory.device(), cache=cache)
