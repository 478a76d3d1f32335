from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samrt import OptionError
from samrt.engines.options import BuildOptions, parse_bytes, shape_ranges
from samrt.manifest import TensorSpec


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_prompts": 0}, "max_prompts must be 1 to 4096, got 0"),
        ({"max_points": 1025}, "max_points must be 1 to 1024, got 1025"),
        ({"min_points": 20}, "at least 20 rows, max_points is 16: raise it"),
        ({"workspace_bytes": 5}, "workspace is 5 bytes, expected at least 1 MiB"),
        ({"repeatable": True}, "needs a timing cache: add --timing-cache"),
        ({"optimization_level": 6}, "optimization_level must be 0 to 5, got 6"),
        ({"targets": ("ampere",)}, "targets ampere are not a list"),
        ({"targets": ("sm86", "sm86")}, "not a list of different GPU generations"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        BuildOptions(**options)


def test_ranges_follow_the_letters() -> None:
    specs = [
        TensorSpec("image_embeddings", "float32", (1, 8, 16, 16)),
        TensorSpec("point_coords", "float32", ("N", "P", 2)),
        TensorSpec("has_mask_input", "float32", ("N",)),
    ]
    found = shape_ranges(specs, BuildOptions(max_prompts=4, max_points=6))
    assert list(found) == ["point_coords", "has_mask_input"]
    assert found["point_coords"].smallest == (1, 1, 2)
    assert found["point_coords"].best == (1, 2, 2)
    assert found["point_coords"].largest == (4, 6, 2)
    assert found["point_coords"].contains((4, 1, 2))
    for outside in [(5, 1, 2), (0, 1, 2), (1, 7, 2), (1, 1, 3), (1, 1)]:
        assert not found["point_coords"].contains(outside)


@pytest.mark.parametrize(("low", "high", "best"), [(1, 1, 1), (5, 5, 5), (1, 9, 2), (3, 9, 3)])
def test_the_usual_prompt_is_a_box(low: int, high: int, best: int) -> None:
    options = BuildOptions(min_points=low, max_points=high)
    found = shape_ranges([TensorSpec("x", "float32", ("P",))], options)["x"]
    assert (found.smallest, found.best, found.largest) == ((low,), (best,), (high,))


def test_an_unknown_free_size_is_refused() -> None:
    with pytest.raises(OptionError, match=r"input x float32\[B\] has the free size B: only N"):
        shape_ranges([TensorSpec("x", "float32", ("B",))], BuildOptions())


@pytest.mark.parametrize(
    ("text", "value"),
    [("4G", 4 * 2**30), ("512M", 2**29), ("64k", 65536), ("1.5 GiB", 3 * 2**29), ("77", 77)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "G", "-1", "4T", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(OptionError, match="is not a size in bytes: write 512M or 4G"):
        parse_bytes(text)


def test_flags_hold_what_changes_the_engine() -> None:
    one = BuildOptions(timing_cache=Path("a"), repeatable=True, tf32=True).flags()
    assert one["tf32"] is True
    assert "timing_cache" not in one
    assert BuildOptions().flags() != BuildOptions(workspace_bytes=2**30).flags()
