"""An object is followed through its slices, and propagation ends where the object does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.errors import OptionError, PromptError
from samrt.propagation import PropagationRules, propagate

WINDOW = (-160.0, 240.0)


@pytest.fixture(scope="module")
def tiny() -> Iterator[samrt.Predictor]:
    with samrt.load("tiny", threads=1) as engine:
        yield engine


def tube() -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """``(18, 96, 112)``: a slanted tube on slices 3 to 14, noise everywhere."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (18, 96, 112)), indexing="ij")
    inside = ((x - 34 - 2.0 * z) ** 2 + (y - 40 - z) ** 2 < 13**2) & (z >= 3) & (z <= 14)
    noise = np.random.default_rng(2).normal(0, 12, inside.shape)
    return (np.where(inside, 110, -20) + noise).astype(np.int16), inside


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_a_tube(tiny: samrt.Predictor) -> None:
    values, truth = tube()
    steps: list[tuple[int, int]] = []
    found = propagate(
        tiny, lambda k: values[k], count=18, start=8, box=box_of(truth[8]), window=WINDOW,
        progress=lambda _, done, total: steps.append((done, total)),
    )  # fmt: skip
    mask = np.zeros(values.shape, bool)
    found.fill(mask)
    dice = 2 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum())
    assert dice > 0.93
    indices = [item.index for item in found.slices]
    assert indices == list(range(3, 15))
    assert all("slice" in why for why in found.stopped.values())
    assert found.slices[5].overlap is None
    assert found.slices[5].index == found.start == 8
    for item in found.slices:
        assert item.area_px == np.count_nonzero(item.mask)
        assert box_of(item.mask) == tuple(item.box)
        assert 0.5 <= item.score <= 1.5
    assert steps[-1][0] <= steps[-1][1] == 18
    assert found.encoded <= 18


def test_bounds_and_range(tiny: samrt.Predictor) -> None:
    values, truth = tube()
    x0, y0, x1, y1 = box_of(truth[6:11].any(axis=0))
    found = propagate(
        tiny, lambda k: values[k], count=18, start=8, box=(x0, y0, x1, y1), window=WINDOW,
        first=6, last=10, bounds=(x0, y0, x1, y1),
    )  # fmt: skip
    assert [item.index for item in found.slices] == [6, 7, 8, 9, 10]
    assert found.stopped == {"up": "end of the range", "down": "end of the range"}
    for item in found.slices:
        a0, b0, a1, b1 = item.prompt_box
        assert a0 >= x0
        assert b0 >= y0
        assert a1 <= x1
        assert b1 <= y1


def test_few_slices_are_ahead(tiny: samrt.Predictor) -> None:
    """Slices are asked for in order, by another thread, and never far ahead of the decoder."""
    values, truth = tube()
    asked: list[int] = []
    done = 0
    threads = set()

    def planes(index: int) -> NDArray[Any]:
        asked.append(index)
        threads.add(threading.get_ident())
        assert len(asked) - done <= 3
        return values[index]

    def progress(*_: Any) -> None:
        nonlocal done
        done = len(set(asked))

    propagate(
        tiny, planes, count=18, start=8, box=box_of(truth[8]), window=WINDOW, progress=progress
    )
    assert asked[0] == 8
    assert asked[1:5] == [9, 10, 11, 12]
    assert len(threads) == 2


def test_results_do_not_depend_on_what_is_ahead(tiny: samrt.Predictor) -> None:
    values, truth = tube()
    runs = [
        propagate(
            tiny,
            lambda k: values[k],
            count=18,
            start=8,
            box=box_of(truth[8]),
            window=WINDOW,
            ahead=ahead,
        )
        for ahead in (0, 3)
    ]
    for a, b in zip(runs[0].slices, runs[1].slices, strict=True):
        assert (a.index, a.score, a.box) == (b.index, b.score, b.box)
        np.testing.assert_array_equal(a.bits, b.bits)


def test_rules_stop(tiny: samrt.Predictor) -> None:
    values, truth = tube()

    def reasons(**rules: float) -> set[str]:
        found = propagate(
            tiny, lambda k: values[k], count=18, start=8, box=box_of(truth[8]), window=WINDOW,
            rules=PropagationRules(**rules),
        )  # fmt: skip
        return set(found.stopped.values())

    assert all("below 1" in text for text in reasons(min_overlap=1.0))
    assert any("contrast" in text for text in reasons(min_score=0.0))
    assert all("area changes" in t or "overlap" in t for t in reasons(max_growth=1.0))


def test_errors_of_slices_come_through(tiny: samrt.Predictor) -> None:
    values, truth = tube()

    def planes(index: int) -> NDArray[Any]:
        if index == 10:
            raise OSError("the disk is gone")
        return values[index]

    with pytest.raises(OSError, match="the disk is gone"):
        propagate(tiny, planes, count=18, start=8, box=box_of(truth[8]), window=WINDOW)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"start": 18}, OptionError, "do not fit a volume of 18"),
        ({"start": 2, "first": 3}, OptionError, "do not fit"),
        ({"last": 18}, OptionError, "do not fit"),
        ({"ahead": 99}, OptionError, "expected 0 to 16"),
        ({"box": (50, 50, 40, 60)}, PromptError, "inverted"),
        ({"box": (500, 50, 540, 60)}, PromptError, "outside"),
    ],
)
def test_bad_calls(tiny: samrt.Predictor, options: dict[str, Any], error: Any, words: str) -> None:
    values, _ = tube()
    call: dict[str, Any] = {"count": 18, "start": 8, "box": (30, 30, 60, 60), "window": WINDOW}
    with pytest.raises(error, match=words):
        propagate(tiny, lambda k: values[k], **{**call, **options})


@pytest.mark.parametrize(
    "rules", [{"min_score": 2.0}, {"margin": -1.0}, {"max_growth": 0.5}, {"min_overlap": np.nan}]
)
def test_bad_rules(rules: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected"):
        PropagationRules(**rules)
