from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samrt import BackendError, BundleError, OutputError, VerificationError
from samrt.engines.api import Api
from samrt.engines.cache import EngineCache, cache_folder, misfits
from samrt.engines.memory import DeviceInfo
from samrt.engines.options import ShapeRange
from samrt.engines.record import EngineKey, EngineRecord, model_digest, read_record
from samrt.manifest import TensorSpec
from samrt.manifest_artifacts import Artifact, DataFile

GPU = DeviceInfo("Fake 4000", 89, "12.6")
MODEL = "a" * 64


def record_of(content: bytes, **key: Any) -> EngineRecord:
    given = {
        "model_sha256": MODEL,
        "runtime": "tensorrt",
        "version": "10.3.0.30",
        "device": GPU.key,
        "driver": "12.6",
        **key,
    }
    digest = hashlib.sha256(content).hexdigest()
    return EngineRecord(
        key=EngineKey(**given),
        file=f"engine-{digest[:12]}.plan",
        bytes=len(content),
        sha256=digest,
        inputs=(TensorSpec("x", "float32", ("N", 3)),),
        outputs=(TensorSpec("y", "float16", ("N",)),),
        ranges={"x": ShapeRange((1, 3), (1, 3), (4, 3))},
        build={"seconds": 1.5},
    )


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def api(make_fake: Callable[..., Api]) -> Api:
    return make_fake("10")


def test_what_is_stored_is_found(cache: EngineCache) -> None:
    record = record_of(b"engine")
    assert cache.find(record.key) is None
    path = cache.store(record, b"engine")
    assert path.read_bytes() == b"engine"
    assert cache.find(record.key) == record
    assert cache.records(MODEL, "tensorrt") == [record]
    assert cache.records(MODEL, "tensorrt-rtx") == cache.records("b" * 64, "tensorrt") == []
    assert oct(path.parent.stat().st_mode)[-3:] == "700"
    cache.check(record)


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "b" * 64}, {"runtime": "tensorrt-rtx"}, {"version": "10.3.0.31"},
        {"device": "Other sm89"}, {"driver": "12.7"}, {"targets": ("sm86",)}, {"flags": {"a": 1}},
    ],
)  # fmt: skip
def test_every_part_of_the_key_counts(cache: EngineCache, change: dict[str, Any]) -> None:
    cache.store(record_of(b"engine"), b"engine")
    assert cache.find(record_of(b"engine", **change).key) is None


def test_a_new_engine_replaces_the_old(cache: EngineCache) -> None:
    first, second = record_of(b"one"), record_of(b"second")
    cache.store(first, b"one")
    path = cache.store(second, b"second")
    assert cache.find(first.key) == second
    assert [p.name for p in path.parent.glob("engine*")] == [second.file]


def damaged(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "changed":
        path.write_bytes(b"ENGINE")
    elif how == "missing":
        path.unlink()
    elif how == "link":
        target = path.with_name("other")
        path.rename(target)
        path.symlink_to(target)
    else:
        path.chmod(0o666)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("truncated", "has 5 bytes, expected 6: build it again with samrt build --force"),
        ("changed", "has sha256 [0-9a-f]{12}…, expected [0-9a-f]{12}…: build it again"),
        ("missing", "cannot be read .No such file or directory.: build it again"),
        ("link", "is not a regular file: build it again"),
        ("open", "can be written by every user of this machine and may have been replaced"),
    ],
)
def test_a_damaged_engine_is_refused(cache: EngineCache, how: str, text: str) -> None:
    record = record_of(b"engine")
    damaged(cache.store(record, b"engine"), how)
    with pytest.raises(BackendError, match=text):
        cache.check(record)
    assert cache.find(record.key) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"record_version": 2}', '{"record_version": 1, "key": {}}'],
)
def test_a_damaged_manifest_is_no_entry(cache: EngineCache, content: str) -> None:
    record = record_of(b"engine")
    path = cache.store(record, b"engine")
    path.with_name("manifest.json").write_text(content)
    assert cache.find(record.key) is None
    assert cache.records(MODEL, "tensorrt") == []


def test_a_manifest_in_a_foreign_folder_is_no_entry(cache: EngineCache) -> None:
    record = record_of(b"engine")
    path = cache.store(record, b"engine")
    other = record_of(b"engine", version="10.7.0")
    path.parent.rename(path.parent.with_name(other.key.digest))
    assert cache.find(other.key) is None
    assert cache.records(MODEL, "tensorrt") == []


def test_manifests_name_no_files_elsewhere() -> None:
    document = record_of(b"engine").as_dict()
    assert read_record(json.loads(json.dumps(document)), "m") == record_of(b"engine")
    document["file"] = "../../engine-aaaaaaaaaaaa.plan"
    with pytest.raises(BundleError, match="m is not the manifest of an engine: file: got"):
        read_record(document, "m")
    document["record_version"] = 9
    with pytest.raises(BundleError, match="has record version 9, this samrt reads 1: build the"):
        read_record(document, "m")


def test_a_full_disk_leaves_the_old_entry(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = record_of(b"old one")
    cache.store(old, b"old one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("samrt.imaging.write.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device; nothing was written"):
        cache.store(record_of(b"new"), b"new")
    assert cache.find(old.key) == old
    names = sorted(p.name for p in cache.path_of(old).parent.iterdir())
    assert names == [old.file, "manifest.json"]


def test_a_failing_manifest_takes_the_engine_back(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: EngineCache, record: EngineRecord) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(EngineCache, "_write_manifest", fail)
    record = record_of(b"engine")
    with pytest.raises(OutputError, match="disk full"):
        cache.store(record, b"engine")
    assert not cache.path_of(record).exists()


def test_a_folder_that_cannot_be_used_is_told_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot use .*file/engines for engines .*SAMRT_CACHE"):
        EngineCache(tmp_path / "file").check_writable()


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samrt.folders.os.access", lambda path, mode: False)
    with pytest.raises(OutputError, match="is not writable: set SAMRT_CACHE to a folder that is"):
        EngineCache(tmp_path).check_writable()


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samrt.folders.sys.platform", "linux")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("SAMRT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/me/.cache/samrt")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/me/.cache/samrt")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c/samrt")
    monkeypatch.setenv("SAMRT_CACHE", "~/own")
    assert cache_folder() == Path("/home/me/own")
    monkeypatch.delenv("SAMRT_CACHE")
    monkeypatch.setattr("samrt.folders.sys.platform", "darwin")
    assert cache_folder() == Path("/home/me/Library/Caches/samrt")
    monkeypatch.setattr("samrt.folders.sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert cache_folder() == Path("/local/samrt/Cache")


@pytest.mark.parametrize(
    ("key", "device", "text"),
    [
        ({}, GPU, None),
        ({"version": "10.7.0"}, GPU, "built with version 10.7.0, installed is 10.3.0.30"),
        ({"device": "Orin sm87"}, GPU, "built on Orin sm87, this GPU is Fake 4000 sm89"),
        ({"driver": "12.2"}, GPU, "built with driver 12.2, this machine has 12.6"),
        ({"device": "any", "driver": "any"}, GPU, None),
        ({"device": "any", "driver": "any"}, DeviceInfo("T4", 75, "12.6"), "for sm80 and newer"),
        ({"device": "any", "driver": "any", "targets": ("sm86", "sm89")}, GPU, None),
        ({"device": "any", "driver": "any", "targets": ("sm86",)}, GPU, "for sm86, this GPU is"),
    ],
)
def test_what_fits(api: Api, key: dict[str, Any], device: DeviceInfo, text: str | None) -> None:
    found = misfits(record_of(b"engine", **key), api, device)
    assert (text is None) is (found == [])
    assert text is None or text in found[0]


def test_the_latest_engine_that_fits_is_chosen(cache: EngineCache, api: Api) -> None:
    with pytest.raises(BackendError, match=r"no engine for m\.onnx fits TensorRT 10.3.0.30 on Fak"):
        cache.choose(MODEL, "m.onnx", api, GPU)
    engines = [record_of(b"a", flags={"k": 1}), record_of(b"b"), record_of(b"c", version="10.7.0")]
    for age, record in enumerate(engines):
        path = cache.store(record, record.file.encode()[:0] + b"abc"[age : age + 1])
        os.utime(path.with_name("manifest.json"), (1000 + age, 1000 + age))
    assert cache.choose(MODEL, "m.onnx", api, GPU) == engines[1]
    other = replace(GPU, name="Orin", capability=87)
    with pytest.raises(BackendError) as caught:
        cache.choose(MODEL, "m.onnx", api, other)
    text = str(caught.value)
    assert text.count("built on Fake 4000 sm89, this GPU is Orin sm87") == 3
    assert "built with version 10.7.0, installed is 10.3.0.30" in text
    assert "run samrt build BUNDLE --runtime tensorrt here" in text


def test_a_refused_engine_is_chosen_on_request_only(cache: EngineCache, api: Api) -> None:
    record = record_of(b"engine")
    cache.store(record, b"engine")
    passed = cache.record_verification(
        record, {"passed": True, "mask_iou_mean": 0.9995, "mask_iou_worst": 0.995}
    )
    assert cache.choose(MODEL, "m", api, GPU) == passed
    assert cache.find(record.key) == passed
    refused = cache.record_verification(record, {"passed": False, "failures": ["mean IoU 0.5"]})
    text = r"the engine of m for TensorRT 10.3.0.30 is refused, .*: mean IoU 0.5; build it again"
    with pytest.raises(VerificationError, match=text):
        cache.choose(MODEL, "m", api, GPU)
    assert cache.choose(MODEL, "m", api, GPU, allow_refused=True) == refused


def test_figures_count_and_not_the_word_passed(cache: EngineCache, api: Api) -> None:
    record = record_of(b"engine")
    cache.store(record, b"engine")
    cache.record_verification(
        record, {"passed": True, "mask_iou_mean": 0.9, "mask_iou_worst": 0.995}
    )
    with pytest.raises(VerificationError, match=r"mean mask IoU 0\.9"):
        cache.choose(MODEL, "m", api, GPU)


@pytest.mark.parametrize("elsewhere", [{"device": "Other sm86"}, {"driver": "13.1"}])
def test_a_refusal_elsewhere_says_nothing_here(
    cache: EngineCache, make_fake: Callable[..., Api], elsewhere: dict[str, str]
) -> None:
    """A portable engine is compiled further by each GPU and driver."""
    rtx = make_fake("rtx")
    record = record_of(
        b"engine", runtime="tensorrt-rtx", version=rtx.version, device="any", driver="any"
    )
    cache.store(record, b"engine")
    here = {"passed": False, "device": GPU.key, "driver": GPU.driver}
    cache.record_verification(record, {**here, **elsewhere})
    assert cache.choose(MODEL, "m", rtx, GPU).key == record.key
    cache.record_verification(record, here)
    with pytest.raises(VerificationError, match="its verification failed"):
        cache.choose(MODEL, "m", rtx, GPU)


def test_an_older_engine_serves_where_the_latest_is_refused(cache: EngineCache, api: Api) -> None:
    older, latest = record_of(b"a", flags={"k": 1}), record_of(b"b")
    for age, (record, content) in enumerate(((older, b"a"), (latest, b"b"))):
        path = cache.store(record, content)
        if record is latest:
            cache.record_verification(record, {"passed": False})
        os.utime(path.with_name("manifest.json"), (1000 + age, 1000 + age))
    assert cache.choose(MODEL, "m", api, GPU) == older


def test_data_files_are_part_of_the_models_digest() -> None:
    plain = Artifact("encoder", "e.onnx", "onnx", "fp32", 17, 1, "a" * 64, (), ())
    assert model_digest(plain) == "a" * 64
    one = replace(plain, data=(DataFile("w", 1, "b" * 64),))
    two = replace(plain, data=(DataFile("w", 1, "c" * 64),))
    assert len({model_digest(plain), model_digest(one), model_digest(two)}) == 3
