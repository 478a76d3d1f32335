"""The stand-in for torchvision does what `segment_anything` relies on."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image


def test_resize_is_pillows_and_takes_height_first(segment_anything: ModuleType) -> None:
    from segment_anything.utils.transforms import ResizeLongestSide

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), np.uint8)
    expected = Image.fromarray(image).resize((32, 21), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(ResizeLongestSide(32).apply_image(image), np.array(expected))


def test_pictures_that_are_not_uint8_are_refused(torchvision_stub: ModuleType) -> None:
    with pytest.raises(TypeError, match="float32"):
        torchvision_stub.to_pil_image(np.zeros((4, 4, 3), np.float32))
    assert torchvision_stub.to_pil_image(np.zeros((4, 5, 1), np.uint8)).size == (5, 4)


def test_suppression_keeps_the_best_of_each_heap(torchvision_stub: ModuleType) -> None:
    boxes = torch.tensor(
        [[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10], [0, 5, 10, 15]],
        dtype=torch.float32,
    )
    scores = torch.tensor([0.5, 0.9, 0.3, 0.8, 0.7])
    groups = torch.tensor([0, 0, 0, 1, 0])
    keep = torchvision_stub.batched_nms(boxes, scores, groups, 0.5)
    assert keep.tolist() == [1, 3, 4, 2]
    third = torchvision_stub.box_iou(boxes[:1], boxes[4:])
    torch.testing.assert_close(third, torch.tensor([[1 / 3]]))
    assert torchvision_stub.batched_nms(boxes[:0], scores[:0], groups[:0], 0.5).tolist() == []
