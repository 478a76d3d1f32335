"""The procedural generator: determinism, formats, target sizes, variety."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from samrt_export.tiny.synth import SCENES, Sample, generate


def _areas(s: Sample) -> list[int]:
    out: list[int] = []
    for lay in s.layers:
        n = np.bincount(lay.ravel(), minlength=256)[1:]
        out += [int(v) for v in n if v]
    return out


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    cv2.setNumThreads(1)
    return [generate(np.random.default_rng([5, i])) for i in range(160)]


def test_same_seed_same_sample() -> None:
    for kind in SCENES:
        a = generate(np.random.default_rng(3), 256, kind)
        b = generate(np.random.default_rng(3), 256, kind)
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.layers, b.layers)
        assert a.kind == b.kind == kind
    c = generate(np.random.default_rng(4), 256, "things")
    assert not np.array_equal(generate(np.random.default_rng(3), 256, "things").image, c.image)


def test_global_generator_is_not_used() -> None:
    np.random.seed(3)
    want = np.random.rand(4)
    np.random.seed(3)
    generate(np.random.default_rng(1), 128)
    assert np.array_equal(want, np.random.rand(4))


def test_shapes_and_types(samples: list[Sample]) -> None:
    for s in samples:
        assert s.image.dtype == np.uint8
        assert s.image.shape in ((512, 512), (512, 512, 3))
        assert s.layers.dtype == np.uint8
        assert s.layers.ndim == 3
        assert s.layers.shape[1:] == (512, 512)
        assert s.image.flags.c_contiguous
        assert s.layers.flags.c_contiguous


def test_targets_are_large_enough(samples: list[Sample]) -> None:
    for s in samples:
        areas = _areas(s)
        assert areas
        assert min(areas) > 50


def test_every_scene_kind_appears(samples: list[Sample]) -> None:
    assert {s.kind for s in samples} == set(SCENES)


def test_area_range_and_colour_share(samples: list[Sample]) -> None:
    frac = np.array([a for s in samples for a in _areas(s)]) / 512**2
    assert frac.min() <= 0.0005
    assert frac.max() >= 0.6
    colour = float(np.mean([s.image.ndim == 3 for s in samples]))
    assert 0.3 < colour < 0.6


def test_images_are_not_flat(samples: list[Sample]) -> None:
    assert np.mean([float(s.image.std()) < 3 for s in samples]) < 0.03


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="size"):
        generate(np.random.default_rng(0), 8)
    with pytest.raises(ValueError, match="kind"):
        generate(np.random.default_rng(0), 128, "nope")
