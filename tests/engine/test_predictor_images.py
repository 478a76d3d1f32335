"""All the kinds of image that the engine takes, and those it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import samrt
from samrt import ImageEmbedding, Predictor
from samrt.imaging import read_image

Picture = Callable[..., NDArray[np.uint8]]


def distance(a: ImageEmbedding, b: ImageEmbedding) -> float:
    return max(float(np.abs(a.features[k] - b.features[k]).max()) for k in a.features)


def test_grey_equals_three_equal_channels(predictor: Predictor, picture: Picture) -> None:
    grey = picture(48, 80, 0)
    colour = predictor.encode(np.stack([grey] * 3, -1))
    assert distance(predictor.encode(grey), colour) == 0
    assert distance(predictor.encode(grey[:, :, None]), colour) == 0


def test_channel_order_is_respected(
    predictor: Predictor, image: NDArray[np.uint8], load_edited: Callable[..., Predictor]
) -> None:
    rgb = predictor.encode(image)
    swapped = np.ascontiguousarray(image[:, :, ::-1])
    assert distance(predictor.encode(swapped, image_format="BGR"), rgb) == 0
    assert distance(predictor.encode(image, image_format="BGR"), rgb) > 0.01
    predictor.set_image(swapped, "BGR")
    assert distance(predictor.embedding, rgb) == 0
    other = load_edited({"input.channel_order": "BGR"})
    assert distance(other.encode(swapped), rgb) == 0
    assert distance(other.encode(image, image_format="BGR"), rgb) == 0
    assert distance(other.encode(image), rgb) > 0.01
    with pytest.raises(samrt.OptionError, match="'RGB' or 'BGR', got 'rgb'"):
        predictor.encode(image, image_format="rgb")


def test_views_and_foreign_layouts_are_fine(predictor: Predictor, picture: Picture) -> None:
    big = picture(96, 160)
    view = big[::2, ::2]
    assert not view.flags.c_contiguous
    expected = predictor.encode(np.ascontiguousarray(view))
    assert distance(predictor.encode(view), expected) == 0
    assert distance(predictor.encode(np.asfortranarray(view)), expected) == 0
    frozen = np.ascontiguousarray(view)
    frozen.flags.writeable = False
    assert distance(predictor.encode(frozen), expected) == 0


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64, np.int32, ">u2"])
def test_deep_images_with_a_window_match_eight_bits(
    predictor: Predictor, picture: Picture, dtype: Any
) -> None:
    grey = picture(48, 80, 0)
    expected = predictor.encode(grey)
    deep = (grey.astype(np.int64) * 20 + 100).astype(dtype)
    got = predictor.encode(deep, window=(100, 100 + 255 * 20))
    assert distance(got, expected) < 0.02
    assert got.warnings == ()
    low, high = int(deep.min()), int(deep.max())
    ruled = predictor.encode(deep, window="minmax")
    assert distance(ruled, predictor.encode(deep, window=(low, high))) < 1e-5
    predictor.set_image(deep, window="percentile")
    assert predictor.is_image_set


def test_sixteen_bits_reach_the_model_without_eight_bit_steps(
    predictor: Predictor,
) -> None:
    """Inside one step of 8 bits the input still changes smoothly."""
    ramp = np.tile(np.linspace(1000, 1003, 64).round(2).astype(np.float32), (64, 1))
    flat = np.full((64, 64), 1000, np.float32)
    a = predictor.encode(ramp, window=(0, 2000))
    b = predictor.encode(flat, window=(0, 2000))
    assert distance(a, b) > 1e-4


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((4, 4), np.uint16), r"uint16.*pass window=\(lo, hi\)"),
        (np.zeros((4, 4), np.float32), r"float32.*pass window"),
        (np.zeros((4, 4), bool), "boolean"),
        (np.zeros((4, 4), complex), "complex"),
        (np.zeros((0, 4), np.uint8), "empty"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((3, 40, 40), np.uint8), "channels come last"),
        (np.zeros((1, 4, 4, 3), np.uint8), "one image at a time"),
        (np.zeros(4, np.uint8), "shape"),
        (np.array(4, np.uint8), "shape"),
        (np.array(["a"]), "dtype"),
        (None, "dtype"),
        (Image.new("P", (4, 4)), "Pillow picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable_images_are_refused(predictor: Predictor, image: Any, text: str) -> None:
    with pytest.raises(samrt.ImageError, match=text) as caught:
        predictor.encode(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("window", [(5, 5), (9, 1), (np.nan, 1), "auto", 3])
def test_bad_windows_are_refused(predictor: Predictor, window: Any) -> None:
    with pytest.raises(samrt.ImageError, match="window"):
        predictor.encode(np.zeros((4, 4), np.uint16), window=window)


def test_nan_pixels_are_refused(predictor: Predictor) -> None:
    image = np.zeros((4, 4), np.float32)
    image[1, 2] = np.nan
    with pytest.raises(samrt.ImageError, match="NaN"):
        predictor.encode(image, window=(0, 1))


def test_too_many_pixels_are_refused_before_any_work(predictor: Predictor) -> None:
    huge = np.broadcast_to(np.uint8(0), (20_000, 20_000))
    with pytest.raises(samrt.ImageError, match="20000 x 20000 = 400000000 pixels, the limit is"):
        predictor.encode(huge)
    with pytest.raises(samrt.ImageError, match="the limit is 8: crop or shrink"):
        predictor.encode(np.zeros((3, 3), np.uint8), max_pixels=8)
    assert predictor.encode(np.zeros((2, 4), np.uint8), max_pixels=8)
    with pytest.raises(samrt.OptionError, match="max_pixels must be at least 1"):
        predictor.encode(np.zeros((3, 3), np.uint8), max_pixels=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (2, 3), (64, 64), (500, 700)])
def test_every_size_gives_masks_of_that_size(
    predictor: Predictor, picture: Picture, size: tuple[int, int]
) -> None:
    predictor.set_image(picture(*size))
    pred = predictor.predict(box=(0, 0, size[1], size[0]))
    assert pred.masks.shape == (3, *size)


def test_a_file_equals_its_pixels(
    predictor: Predictor, image: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "scan.png"
    Image.fromarray(image).save(path)
    expected = predictor.encode(image)
    for source in (path, str(path), read_image(path)):
        got = predictor.encode(source)
        assert distance(got, expected) == 0
        assert (got.timings.decode_image_ms is None) == (not isinstance(source, (str, Path)))
    with pytest.raises(samrt.ImageError, match="limit is 100"):
        predictor.encode(path, max_pixels=100)
    with pytest.raises(samrt.ImageError, match="limit is 100"):
        predictor.encode(read_image(path), max_pixels=100)
    with pytest.raises(samrt.ImageError, match="read with a window already"):
        predictor.encode(read_image(path), window="minmax")


def test_a_sixteen_bit_file_equals_its_pixels_and_says_which_window(
    predictor: Predictor, picture: Picture, tmp_path: Path
) -> None:
    deep = picture(48, 80, 0).astype(np.uint16) * 100 + 77
    path = tmp_path / "scan.png"
    Image.fromarray(deep).save(path)
    expected = predictor.encode(deep, window="minmax")
    got = predictor.encode(path)
    assert distance(got, expected) == 0
    assert len(got.warnings) == 1
    predictor.set_image(path)
    assert predictor.predict(box=(1, 1, 20, 20)).warnings == got.warnings
    windowed = predictor.encode(path, window=(77, 25577))
    assert windowed.warnings == ()
    assert distance(windowed, predictor.encode(deep, window=(77, 25577))) == 0


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_damaged_files_are_refused(predictor: Predictor, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    with pytest.raises(samrt.ImageError) as caught:
        predictor.encode(path)
    assert "\n" not in str(caught.value)
