"""What the kernels refuse, and what they promise about the arrays they return."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from samrt import _kernels
from samrt.errors import KernelError

RGB = np.zeros((4, 5, 3), np.uint8)
DEEP = np.zeros((4, 5), np.uint16)
LOGITS = np.zeros((2, 8, 8), np.float32)
MASK = np.zeros((6, 7), bool)
NAN, INF = float("nan"), float("inf")

KINDS = [
    "bilinear_antialias", "bicubic", "area", "bilinear", "nearest", "bspline_antialias",
    "bspline_corners",
]  # fmt: skip
SIZES = {"frame": (32, 32), "crop": (32, 20), "out": (40, 25)}
PLAN: dict[str, Any] = {
    "out_size": (8, 8), "resized": (8, 6), "interpolation": "nearest",
    "mean": (1, 2, 3), "std": (1, 2, 3),
}  # fmt: skip

# One call of every function with valid arguments: (function, arrays, other arguments).
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "resize": (_kernels.resize, (RGB,), {"size": (3, 3), "interpolation": "area"}),
    "preprocess": (_kernels.preprocess, (RGB,), PLAN),
    "preprocess_window": (_kernels.preprocess_window, (DEEP,), {**PLAN, "window": (0, 1)}),
    "window_to_uint8": (_kernels.window_to_uint8, (DEEP,), {"lo": 0, "hi": 9}),
    "upscale_logits": (_kernels.upscale_logits, (LOGITS,), SIZES),
    "masks_from_logits": (_kernels.masks_from_logits, (LOGITS,), SIZES),
    "stability": (_kernels.stability, (LOGITS,), {}),
    "mask_stats": (_kernels.mask_stats, (MASK[None],), {}),
    "rle_encode": (_kernels.rle_encode, (MASK,), {}),
    "rle_decode": (_kernels.rle_decode, (np.array([42], np.uint32),), {"size": (6, 7)}),
    "rle_to_string": (_kernels.rle_to_string, (np.array([42], np.uint32),), {}),
    "connected_components": (_kernels.connected_components, (MASK,), {}),
    "remove_small_regions": (
        _kernels.remove_small_regions, (MASK,), {"min_area": 3, "mode": "holes"},
    ),
    "mask_polygons": (_kernels.mask_polygons, (MASK,), {}),
}  # fmt: skip


def call(name: str, array: Any = None, **changes: Any) -> Any:
    function, arrays, options = CALLS[name]
    return function(*(arrays if array is None else (array,)), **{**options, **changes})


def test_every_kernel_is_covered() -> None:
    others = {"load", "instruction_set", "release_memory", "rle_from_string"}
    assert set(_kernels.__all__) == set(CALLS) | others


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arrays_are_refused(name: str) -> None:
    array = CALLS[name][1][0]
    wrong_dtype = array.astype(np.complex64)
    swapped = array.astype(array.dtype.newbyteorder())
    flat = np.zeros((2, 2, 2, 2), array.dtype)
    for bad, error in (
        (array.tolist(), TypeError), (wrong_dtype, TypeError), (array[:0], ValueError),
        (flat, ValueError), (np.zeros((), array.dtype), ValueError), (None.__class__, TypeError),
        (np.ma.masked_array(wrong_dtype), TypeError), ("text", TypeError),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            call(name, bad)
        assert "\n" not in str(caught.value)
    if array.itemsize > 1:
        with pytest.raises(TypeError, match="dtype"):
            call(name, swapped)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_with_gaps_are_refused(name: str) -> None:
    array = CALLS[name][1][0]
    doubled = np.repeat(array, 2, axis=-1)[..., ::2]
    if doubled.flags.c_contiguous:
        pytest.skip("one element has no gaps")
    with pytest.raises(ValueError, match="C-contiguous"):
        call(name, doubled)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resize", {"size": (0, 3)}, "size must be"),
        ("resize", {"size": (3, -1)}, "size must be"),
        ("resize", {"size": (3, 2**40)}, "size must be"),
        ("resize", {"interpolation": "lanczos"}, "unknown interpolation 'lanczos'"),
        ("resize", {"threads": 0}, "threads must be at least 1, got 0"),
        ("resize", {"rounding": "up"}, "unknown rounding 'up'"),
        ("resize", {"rounding": "truncate"}, "truncate with a spline"),
        ("resize", {"rounding": "none"}, "rounding must be nearest"),
        ("preprocess", {"rounding": "truncate"}, "truncate needs a spline"),
        ("preprocess", {"via": [(3, 3)]}, "via needs a spline"),
        ("preprocess", {"via": [(0, 3)], "interpolation": "bspline_corners"}, "via must be"),
        ("preprocess", {"via": [(3, 3)], "interpolation": "bspline_corners"}, "rounding none"),
        ("preprocess", {"divisor": 0.0}, "divisor must be more than 0"),
        ("preprocess", {"divisor": NAN}, "divisor must be a finite number"),
        ("preprocess", {"threads": -1}, "threads"),
        ("preprocess", {"resized": (9, 6)}, r"resized \(9, 6\) must fit into out_size \(8, 8\)"),
        ("preprocess", {"mean": None}, "mean must be 3 numbers"),
        ("preprocess", {"mean": (1, 2)}, "3 numbers"),
        ("preprocess", {"std": (1, 0, 1)}, "std must not be 0"),
        ("preprocess", {"std": (1, NAN, 1)}, "std must be a finite number"),
        ("preprocess", {"scale": INF}, "scale must be a finite number"),
        ("preprocess", {"pad_value": NAN}, "pad_value must be a finite number"),
        ("preprocess", {"out_dtype": "float64"}, "out_dtype"),
        ("preprocess_window", {"window": (2, 2)}, "low < high"),
        ("preprocess_window", {"window": (NAN, 2)}, "finite"),
        ("window_to_uint8", {"lo": 3, "hi": 1}, "low < high"),
        ("window_to_uint8", {"hi": INF}, "finite"),
        ("upscale_logits", {"crop": (33, 20)}, "crop"),
        ("upscale_logits", {"out": (0, 20)}, "out must be"),
        ("upscale_logits", {"interpolation": "area"}, "expected bilinear, bicubic or nearest"),
        ("masks_from_logits", {"interpolation": "bicubic"}, "bicubic takes one step: frame must"),
        ("masks_from_logits", {"threshold": NAN}, "threshold must be a finite number, got nan"),
        ("masks_from_logits", {"threshold": -INF}, "threshold"),
        ("masks_from_logits", {"threads": 0}, "threads"),
        ("stability", {"threshold": NAN}, "threshold"),
        ("stability", {"offset": -1.0}, "offset"),
        ("rle_decode", {"size": (6, 8)}, "counts sum to 42"),
        ("rle_decode", {"size": (2**23, 2**23)}, "samples"),
        ("connected_components", {"connectivity": 6}, "connectivity must be 4 or 8, got 6"),
        ("remove_small_regions", {"mode": "both"}, "mode"),
        ("remove_small_regions", {"min_area": NAN}, "min_area"),
    ],
)
def test_wrong_values_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(name, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CALLS)
def test_results_are_new_arrays(name: str) -> None:
    array = CALLS[name][1][0].copy()
    before = array.copy()
    first, second = call(name, array), call(name, array)
    np.testing.assert_array_equal(array, before)

    def arrays(value: Any) -> list[np.ndarray[Any, Any]]:
        if isinstance(value, np.ndarray):
            return [value]
        return [a for v in value for a in arrays(v)] if isinstance(value, list | tuple) else []

    for a, b in zip(arrays(first), arrays(second), strict=True):
        # The memory of tensors returns to a pool when the last view is gone: test_memory.py.
        assert a.flags.owndata or (a.size > 0 and type(a.base).__name__ == "PyCapsule")
        assert a.flags.writeable
        assert not np.shares_memory(a, array)
        assert not np.shares_memory(a, b)


def test_results_without_work_are_copies_too() -> None:
    same = _kernels.resize(RGB, (4, 5), "nearest")
    assert not np.shares_memory(same, RGB)
    clean, _ = _kernels.remove_small_regions(MASK, 0, "holes")
    assert not np.shares_memory(clean, MASK)


def test_read_only_arrays_are_welcome() -> None:
    image = RGB.copy()
    image.flags.writeable = False
    assert call("resize", image).shape == (3, 3, 3)


def test_many_python_threads_at_once() -> None:
    rng = np.random.default_rng(31)
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    expected = _kernels.resize(image, (128, 128), "bilinear_antialias")
    wrong: list[int] = []

    def work() -> None:
        for _ in range(10):
            got = _kernels.resize(image, (128, 128), "bilinear_antialias", 3)
            if not np.array_equal(got, expected):
                wrong.append(1)

    team = [threading.Thread(target=work) for _ in range(6)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not wrong


def test_random_calls_never_crash() -> None:
    rng = np.random.default_rng(32)
    for _ in range(400):
        sides = [int(2 ** rng.uniform(-0.5, 7)) for _ in range(8)]
        image = rng.integers(0, 256, (sides[0], sides[1], 3), dtype=np.uint8)
        logits = rng.normal(0, 9, (2, sides[2], sides[3])).astype(np.float32)
        kind = rng.choice(KINDS)
        try:
            _kernels.preprocess(
                image,
                out_size=(sides[4], sides[5]),
                resized=(sides[6], sides[7]),
                interpolation=str(kind),
                rounding=str(rng.choice(["nearest", "none"])),
                min_max=True,
                threads=int(rng.integers(1, 5)),
            )
            _kernels.masks_from_logits(
                logits,
                frame=(sides[4], sides[5]),
                crop=(sides[6], sides[7]),
                out=(sides[0], sides[1]),
                interpolation=str(rng.choice(["bilinear", "nearest"])),
                threads=int(rng.integers(1, 5)),
            )
        except ValueError as error:
            assert "must" in str(error)  # noqa: PT017


def test_unknown_instruction_set() -> None:
    with pytest.raises(ValueError, match="unknown or not offered"):
        _kernels.load().select_instruction_set("mmx")
    assert _kernels.instruction_set() in ("avx2", "neon", "baseline")


def test_missing_extension_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(_kernels, "import_module", missing)
    with pytest.raises(KernelError, match=r"not built.*pip install") as caught:
        _kernels.load()
    assert isinstance(caught.value, ImportError)


def test_damaged_extension_is_not_called_missing(tmp_path: Any, monkeypatch: Any) -> None:
    name = str(importlib.import_module("samrt._native").__file__)
    damaged = tmp_path / name.rpartition("/")[2]
    damaged.write_bytes(b"this is no shared object")
    monkeypatch.delitem(sys.modules, "samrt._native")
    monkeypatch.setattr(sys.modules["samrt"], "__path__", [str(tmp_path)])
    with pytest.raises(KernelError, match="cannot be loaded"):
        _kernels.load()


def test_dependency_missing_inside_the_extension_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(_kernels, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="other"):
        _kernels.load()
