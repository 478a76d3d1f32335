"""Arrays remembered with their copies on the GPU: when they count, when they give way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.engines.channel import Block, Channel, ExecutionOptions, is_frozen


def frozen(value: float) -> NDArray[np.float32]:
    """16 bytes that nobody can change."""
    array = np.full(4, value, np.float32)
    array.flags.writeable = False
    return array


@pytest.fixture
def channel(memory: Any) -> Channel:
    """Room for two arrays of 16 bytes."""
    found = Channel(memory, ExecutionOptions(resident_bytes=32))
    found.join()
    return found


def keep(channel: Channel, array: NDArray[Any]) -> Block | None:
    """Put an array on the GPU; its block if it was taken."""
    block = Block(channel.memory.allocate(16, "features"), 16)
    return block if channel.keep(array, block) else None


def test_what_can_change_is_not_kept(channel: Channel) -> None:
    array = np.zeros(4, np.float32)
    view = frozen(1)[:]
    view.flags.writeable = False
    assert not is_frozen(array)
    assert not is_frozen(view)
    with channel.work():
        assert keep(channel, array) is None
        assert keep(channel, view) is None


def test_an_array_made_writeable_again_does_not_count(channel: Channel) -> None:
    array = frozen(1)
    with channel.work():
        block = keep(channel, array)
        assert block is not None
        assert channel.resident(array) is block
        array.flags.writeable = True
        assert channel.resident(array) is None


def test_another_array_at_the_same_place_does_not_count(channel: Channel) -> None:
    first, second = frozen(1), frozen(2)
    with channel.work():
        keep(channel, first)
        channel._residents[id(second)] = channel._residents.pop(id(first))
        assert channel.resident(second) is None


def test_the_oldest_gives_way_and_is_freed_later(channel: Channel, memory: Any) -> None:
    arrays = [frozen(k) for k in range(3)]
    for array in arrays[:2]:
        with channel.work():
            assert keep(channel, array) is not None
    with channel.work():
        assert keep(channel, arrays[2]) is not None
        assert channel.resident(arrays[0]) is None
        assert channel.resident(arrays[1]) is not None
        assert len(memory.blocks) == 3  # the stream may still be at work
    with channel.work():
        assert len(memory.blocks) == 2


def test_nothing_that_a_run_reads_gives_way(channel: Channel) -> None:
    arrays = [frozen(k) for k in range(3)]
    with channel.work():
        assert keep(channel, arrays[0]) is not None
        assert keep(channel, arrays[1]) is not None
        assert keep(channel, arrays[2]) is None
        assert channel.resident(arrays[0]) is not None
    with channel.work():
        channel.resident(arrays[0])
        assert keep(channel, arrays[2]) is not None
        assert channel.resident(arrays[0]) is not None
        assert channel.resident(arrays[1]) is None


def test_the_last_session_frees_all(channel: Channel, memory: Any) -> None:
    channel.join()
    array = frozen(1)
    with channel.work():
        keep(channel, array)
    channel.leave()
    assert not channel.closed
    assert len(memory.blocks) == 1
    channel.leave()
    assert channel.closed
    assert (memory.blocks, memory.streams) == ({}, set())
