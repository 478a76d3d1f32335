"""The memory of tensors: used again when it is free, and never a moment earlier."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from samrt import _kernels

MIB = 2**20
IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture(autouse=True)
def _empty_pool() -> Iterator[None]:
    gc.collect()
    _kernels.release_memory()
    yield
    _kernels.release_memory()


def tensor(side: int = 512, fill: float = 0.0, dtype: str = "float32") -> Any:
    """A tensor of 12 * side * side bytes (half of that in float16) with a mark in its padding."""
    return _kernels.preprocess(
        IMAGE, out_size=(side, side), resized=(4, 4), interpolation="nearest", mean=(0, 0, 0),
        std=(1, 1, 1), pad_value=fill, out_dtype=dtype,
    )  # fmt: skip


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def kept() -> int:
    return int(_kernels.load().kept_memory())


def test_a_freed_block_serves_the_next_tensor_of_its_size() -> None:
    first = tensor()
    place = address(first)
    assert place % 64 == 0
    assert kept() == 0
    del first
    assert kept() == 12 * 512 * 512
    other = tensor(side=640)
    assert address(other) != place
    again = tensor()
    assert address(again) == place
    assert kept() == 0


def test_views_keep_the_memory() -> None:
    whole = tensor(fill=7.0)
    view = whole[0, 1, 100:, 100:].T
    place = address(whole)
    del whole
    gc.collect()
    assert kept() == 0
    assert address(tensor(fill=8.0)) != place
    assert (view == 7.0).all()
    del view
    assert kept() > 0


def test_arrays_that_live_never_share_memory() -> None:
    rng = np.random.default_rng(0)
    alive: list[tuple[float, Any]] = []
    for step in range(200):
        if alive and rng.integers(2):
            alive.pop(int(rng.integers(len(alive))))
        side, dtype = int(rng.choice([320, 512])), str(rng.choice(["float32", "float16"]))
        alive.append((float(step), tensor(side, float(step), dtype)))
        alive = alive[-6:]
        for mark, array in alive:
            assert (array[0, :, 4:, 4:] == mark).all()


def test_no_more_than_two_blocks_and_64_mib_are_kept() -> None:
    several = [tensor() for _ in range(5)]
    del several
    assert kept() == 2 * 3 * MIB
    big = [tensor(side=2048) for _ in range(2)]  # 48 MiB each
    del big
    assert kept() == 48 * MIB
    huge = tensor(side=2560)  # 75 MiB
    assert kept() == 48 * MIB
    del huge
    assert kept() == 48 * MIB
    _kernels.release_memory()
    assert kept() == 0


def test_small_tensors_are_not_kept() -> None:
    small = tensor(side=128)
    del small
    assert kept() == 0


def test_the_newest_blocks_are_kept() -> None:
    a, b, c = tensor(320), tensor(384), tensor(448)
    del a, b, c
    assert kept() == 12 * (384 * 384 + 448 * 448)


def test_a_failed_call_gives_its_block_back() -> None:
    with pytest.raises(ValueError, match="truncate"):
        _kernels.preprocess(
            IMAGE, out_size=(512, 512), resized=(4, 4), interpolation="nearest", mean=(0, 0, 0),
            std=(1, 1, 1), rounding="truncate",
        )  # fmt: skip
    gc.collect()
    assert kept() in (0, 3 * MIB)


def test_many_threads_get_memory_of_their_own() -> None:
    wrong: list[float] = []

    def work(mark: float) -> None:
        for step in range(25):
            array = tensor(400, mark + step)
            view = array[0, 2, 10:, 10:]
            del array
            if not (view == mark + step).all():
                wrong.append(mark)

    team = [threading.Thread(target=work, args=(1000.0 * i,)) for i in range(5)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not wrong
    gc.collect()
    assert kept() <= 64 * MIB
