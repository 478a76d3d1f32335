"""Logits to masks: the kernels against NumPy and PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import _kernels, reference

TOLERANCE = 1e-4  # on logits with a standard deviation of 5


def noise(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.asarray(5 * np.random.default_rng(seed).standard_normal(shape, np.float32))


def smooth(height: int, width: int) -> NDArray[np.float32]:
    """Two blobs and far outside, as a decoder gives: most of it cannot cross a threshold."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    near = np.minimum(np.hypot(y - 0.4, x - 0.3) - 0.2, np.hypot(y - 0.75, x - 0.8) - 0.11)
    return (np.clip(-60 * near, -17, 12) + np.sin(40 * x)).astype(np.float32)[None]


def plan(low: int, frame: int, out: tuple[int, int]) -> dict[str, Any]:
    """Sizes as for an image of size ``out`` whose longest side is resized to ``frame``."""
    scale = frame / max(out)
    crop = (max(1, int(out[0] * scale + 0.5)), max(1, int(out[1] * scale + 0.5)))
    return {"frame": (frame, frame), "crop": crop, "out": out}


def cases() -> list[tuple[NDArray[np.float32], dict[str, Any]]]:
    rng = np.random.default_rng(11)
    made = []
    sizes = [(1, 1), (1, 400), (400, 1), (2, 3), (37, 41), (256, 256), (513, 700), (1031, 64)]
    sizes += [(int(2**a), int(2**b)) for a, b in rng.uniform(0, 9, (10, 2))]
    for i, size in enumerate(sizes):
        low, frame = [(64, 256), (33, 70), (1, 16), (48, 20), (256, 1024)][i % 5]
        made.append((noise(i, 1 + i % 3, low, low), plan(low, frame, size)))
    made.append((noise(99, 2, 31, 17), {"frame": (60, 90), "crop": (60, 31), "out": (71, 200)}))
    made.append((noise(98, 1, 17, 31), {"frame": (17, 31), "crop": (17, 31), "out": (17, 31)}))
    made.append((smooth(256, 256), plan(256, 1024, (900, 1300))))
    return made


def test_upscaling_equals_the_reference(instruction_set: str) -> None:
    for i, (logits, sizes) in enumerate(cases()):
        got = _kernels.upscale_logits(logits, threads=1 + i % 3, **sizes)
        assert got.dtype == np.float32
        expected = reference.upscale_logits(logits, **sizes)
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, err_msg=f"{sizes}")


def test_upscaling_equals_two_steps_of_pytorch() -> None:
    torch = pytest.importorskip("torch")

    def resized(values: Any, size: tuple[int, int]) -> Any:
        return torch.nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)

    for logits, sizes in cases():
        crop = sizes["crop"]
        frame = resized(torch.from_numpy(logits)[None], sizes["frame"])
        expected = resized(frame[..., : crop[0], : crop[1]], sizes["out"])[0].numpy()
        got = _kernels.upscale_logits(logits, **sizes)
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, err_msg=f"{sizes}")


@pytest.mark.parametrize("threshold", [0.0, 0.7, -1e3, 1e3])
def test_masks_are_where_the_upscaled_logits_are_above(
    threshold: float, instruction_set: str
) -> None:
    for i, (logits, sizes) in enumerate(cases()):
        masks = _kernels.masks_from_logits(logits, threshold=threshold, threads=1 + i % 3, **sizes)
        assert masks.dtype == np.bool_
        assert masks.view(np.uint8).max() <= 1
        expected = _kernels.upscale_logits(logits, **sizes) > np.float32(threshold)
        np.testing.assert_array_equal(masks, expected, err_msg=f"{sizes}")


def test_constant_stretches_next_to_the_threshold(instruction_set: str) -> None:
    """Flat logits a rounding error away from the threshold are not decided by the shortcut."""
    sizes = plan(64, 256, (300, 400))
    for value in (0.1, 3.3, -7.7, 1e-38, 1e6):
        threshold = np.float32(value)
        for logit in (np.nextafter(threshold, -1e30), threshold, np.nextafter(threshold, 1e30)):
            logits = np.full((1, 64, 64), logit, np.float32)
            masks = _kernels.masks_from_logits(logits, threshold=float(threshold), **sizes)
            expected = _kernels.upscale_logits(logits, **sizes) > threshold
            np.testing.assert_array_equal(masks, expected)


def test_masks_of_probabilities(instruction_set: str) -> None:
    for logits, sizes in cases():
        got = _kernels.masks_from_logits(logits, threshold=0.4, probability=True, **sizes)
        share = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
        exact = reference.upscale_logits(share, **sizes)
        sure = np.abs(exact - 0.4) > 1e-6
        np.testing.assert_array_equal(got[sure], (exact > 0.4)[sure])


def test_not_a_number_is_never_inside(instruction_set: str) -> None:
    logits = np.full((1, 64, 64), 9.0, np.float32)
    logits[0, 20:40, 20:40] = np.nan
    masks = _kernels.masks_from_logits(logits, threshold=0.0, **plan(64, 256, (256, 256)))
    assert not masks[0, 84:156, 84:156].any()
    assert masks[0, :76].all()
    logits[0, 20:40, 20:40] = -np.inf
    masks = _kernels.masks_from_logits(logits, threshold=0.0, **plan(64, 256, (256, 256)))
    assert not masks[0, 84:156, 84:156].any()


def test_results_do_not_depend_on_threads_or_processor(instruction_sets: list[str]) -> None:
    for logits, sizes in cases()[3:8]:
        seen: list[NDArray[np.float32]] = []
        for name, threads in itertools.product(instruction_sets, (1, 2, 3, 100)):
            _kernels.load().select_instruction_set(name)
            seen.append(_kernels.upscale_logits(logits, threads=threads, **sizes))
            np.testing.assert_array_equal(seen[0], seen[-1])


def test_a_mask_does_not_depend_on_the_others() -> None:
    logits = noise(1, 5, 40, 40)
    sizes = plan(40, 160, (333, 250))
    together = _kernels.masks_from_logits(logits, threads=3, **sizes)
    for one, mask in zip(logits, together, strict=True):
        alone = _kernels.masks_from_logits(one[None], **sizes)
        np.testing.assert_array_equal(alone[0], mask)


@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 1.0), (0.5, 0.25), (-3.0, 0.0)])
def test_stability(threshold: float, offset: float) -> None:
    logits = np.concatenate([noise(3, 4, 70, 93), np.full((1, 70, 93), -9, np.float32)])
    got = _kernels.stability(logits, threshold, offset)
    np.testing.assert_array_equal(got, reference.stability(logits, threshold, offset))
    assert got.dtype == np.float32
    assert got[4] == 0
