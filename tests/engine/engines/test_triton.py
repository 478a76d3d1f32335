from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samrt import OptionError, OutputError
from samrt.bundle import Bundle
from samrt.engines.bundles import build_bundle
from samrt.engines.cache import EngineCache
from samrt.engines.options import BuildOptions
from samrt.engines.triton import QueueRules, plan_repository, write_repository
from samrt.manifest_artifacts import DataFile


def balanced(text: str) -> bool:
    body = re.sub(r'"[^"]*"|#.*', "", text)
    return body.count("{") == body.count("}") and body.count("[") == body.count("]")


def test_a_repository_of_onnx_files(bundle: Bundle, tmp_path: Path) -> None:
    name = bundle.manifest.name
    files = write_repository(tmp_path, bundle)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in files) == [
        f"{name}_decoder/1/model.onnx",
        f"{name}_decoder/config.pbtxt",
        f"{name}_encoder/1/model.onnx",
        f"{name}_encoder/config.pbtxt",
        f"{name}_encoder/samrt_manifest.json",
    ]
    model = tmp_path / f"{name}_encoder" / "1" / "model.onnx"
    assert model.read_bytes() == (bundle.path / "encoder.onnx").read_bytes()
    encoder = (tmp_path / f"{name}_encoder" / "config.pbtxt").read_text()
    assert f'name: "{name}_encoder"\nbackend: "onnxruntime"\nmax_batch_size: 1\n' in encoder
    assert 'input [ { name: "image" data_type: TYPE_FP32 dims: [ 3, 64, 64 ] } ]' in encoder
    assert "dynamic_batching {" in encoder
    assert "max_queue_size: 64" in encoder
    decoder = (tmp_path / f"{name}_decoder" / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in decoder
    assert 'name: "point_coords" data_type: TYPE_FP32 dims: [ -1, -1, 2 ]' in decoder
    assert 'name: "image_embeddings" data_type: TYPE_FP32 dims: [ 1, 8, 16, 16 ]' in decoder
    assert "dynamic_batching" not in decoder
    for text in (encoder, decoder):
        assert balanced(text)
        assert f'string_value: "{bundle.model_id}"' in text


def test_a_repository_of_engines(
    bundle: Bundle, make_fake: Callable[..., Any], memory: Any, tmp_path: Path
) -> None:
    cache, device = EngineCache(tmp_path / "cache"), memory.device()
    engines = build_bundle(bundle, make_fake("10"), BuildOptions(), device=device, cache=cache)
    write_repository(tmp_path / "r", bundle, engines=engines)
    folder = tmp_path / "r" / f"{bundle.manifest.name}_decoder"
    assert (folder / "1" / "model.plan").read_bytes() == engines[1].path.read_bytes()
    text = (folder / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text
    assert "kind: KIND_GPU" in text
    assert not (folder / "1" / "model.onnx").exists()
    rtx = build_bundle(bundle, make_fake("rtx"), BuildOptions(), cache=cache)
    with pytest.raises(
        OptionError, match="does not serve engines of tensorrt-rtx: leave --runtime"
    ):
        write_repository(tmp_path / "r2", bundle, engines=rtx)
    assert not (tmp_path / "r2").exists()


def test_nothing_is_replaced_unasked(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(tmp_path, bundle)
    with pytest.raises(OutputError, match="exists: use --force to replace it"):
        write_repository(tmp_path, bundle)
    write_repository(tmp_path, bundle, force=True, rules=QueueRules(size=3, timeout_ms=5))
    text = (tmp_path / f"{bundle.manifest.name}_encoder" / "config.pbtxt").read_text()
    assert "max_queue_size: 3" in text
    assert "default_timeout_microseconds: 5000" in text


def test_data_files_lie_where_the_model_expects_them(bundle: Bundle, tmp_path: Path) -> None:
    encoder = bundle.artifact("encoder")
    moved = replace(
        encoder, file="sub/encoder.onnx", data=(DataFile("sub/weights/w.bin", 1, "a" * 64),)
    )
    artifacts = tuple(moved if a is encoder else a for a in bundle.manifest.artifacts)
    other = Bundle(bundle.path, replace(bundle.manifest, artifacts=artifacts))
    files = plan_repository(
        tmp_path, other, precision="auto", engines=(), rules=QueueRules(instances=2)
    )
    version = tmp_path / f"{bundle.manifest.name}_encoder" / "1"
    assert files[version / "weights" / "w.bin"] == bundle.path / "sub/weights/w.bin"
    assert files[version / "model.onnx"] == bundle.path / "sub/encoder.onnx"


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"size": 0}, "queue size must be 1 to 100000, got 0"),
        ({"timeout_ms": 0}, "queue timeout must be 1 to 3600000 ms, got 0"),
        ({"instances": 65}, "instances must be 1 to 64, got 65"),
    ],
)
def test_rules_are_checked(rules: dict[str, int], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        QueueRules(**rules)
