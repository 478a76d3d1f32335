"""The folder of compiled models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from samrt import BackendError
from samrt.backends._compiled import CompiledCache, CompiledKey

KEY = CompiledKey("0" * 64, "openvino", "1", "CPU", {"threads": 2})


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path)


def test_what_is_stored_comes_back(cache: CompiledCache) -> None:
    assert cache.load(KEY) is None
    assert cache.writable
    assert cache.store(KEY, b"one")
    assert cache.store(KEY, b"two")
    assert cache.load(KEY) == b"two"


@pytest.mark.parametrize(
    "other",
    [
        CompiledKey("1" * 64, "openvino", "1", "CPU", {"threads": 2}),
        CompiledKey("0" * 64, "openvino", "2", "CPU", {"threads": 2}),
        CompiledKey("0" * 64, "openvino", "1", "GPU", {"threads": 2}),
        CompiledKey("0" * 64, "openvino", "1", "CPU", {"threads": 1}),
        CompiledKey("0" * 64, "other", "1", "CPU", {"threads": 2}),
    ],
)
def test_everything_counts(cache: CompiledCache, other: CompiledKey) -> None:
    cache.store(KEY, b"one")
    assert cache.load(other) is None


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 40])
def test_a_damaged_entry_is_none(cache: CompiledCache, damage: bytes) -> None:
    cache.store(KEY, b"content")
    cache.path_of(KEY).write_bytes(damage)
    assert cache.load(KEY) is None
    whole = bytearray(cache.path_of(KEY).read_bytes())
    cache.store(KEY, b"content")
    whole = bytearray(cache.path_of(KEY).read_bytes())
    whole[-1] ^= 1
    cache.path_of(KEY).write_bytes(whole)
    assert cache.load(KEY) is None


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
def test_what_everyone_may_replace_is_refused(cache: CompiledCache) -> None:
    cache.store(KEY, b"content")
    cache.path_of(KEY).chmod(0o666)
    with pytest.raises(BackendError, match="can be written by every user"):
        cache.load(KEY)


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "compiled").write_bytes(b"a file where a folder should be")
    cache = CompiledCache(tmp_path)
    assert not cache.writable
    assert not cache.store(KEY, b"content")
    assert cache.load(KEY) is None
