"""The built-in pictures are the same bytes everywhere, and their prompts lie on them."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from samrt.errors import OptionError
from samrt.manifest import PromptSpec
from samrt.phantoms import PHANTOM_NAMES, phantom_case, phantom_cases
from samrt.prompts import check_prompt
from samrt.selfcheck import supported_prompts

PICTURES = {
    "ct_abdomen": (
        (512, 512),
        "fb6bc0c7c7b21a2bccf56a6bc1017b247d36fb731e3b00d09ec513718e558e97",
    ),
    "ultrasound": (
        (600, 800),
        "f62a3582f10c77db8027a4ef8df66b61aa5f28797afb26afbd5257b9a6cbaaf0",
    ),
    "microscopy": (
        (480, 640, 3),
        "81a4b11cbee2a8d634d2d34155f4462dc89df1ce342e09324904888666b5566e",
    ),
    "portrait": (
        (130, 96),
        "bd3ee54e76364d33d70f5368441b0f48fe5f47e604412e2193b861d860ab738e",
    ),
    "overview": (
        (1080, 1440),
        "7746b259df9361f3646031a5b2504d28df32849d76186ecaba7513b60765e60d",
    ),
}


def test_they_are_the_same_bytes_on_every_machine() -> None:
    found = {
        case.name: (case.image.shape, hashlib.sha256(case.image.tobytes()).hexdigest())
        for case in phantom_cases()
    }
    assert found == PICTURES
    assert tuple(found) == PHANTOM_NAMES


@pytest.mark.parametrize("name", PHANTOM_NAMES)
def test_prompts_lie_on_something(name: str) -> None:
    case = phantom_case(name)
    assert case.image.dtype == np.uint8
    assert not case.image.flags.writeable
    assert case.image.flags.c_contiguous
    size = (case.image.shape[0], case.image.shape[1])
    kinds = set()
    for prompt in case.prompts:
        check_prompt(prompt, size)
        kinds.add((prompt.box is not None, prompt.point_coords is not None))
        if prompt.box is not None:
            x0, y0, x1, y1 = (int(v) for v in prompt.box)
            assert case.image[y0:y1, x0:x1].std() > 10
    assert kinds == {(True, False), (False, True), (True, True)}
    assert any(0 in p.point_labels for p in case.prompts if p.point_labels is not None)


def test_models_that_take_boxes_only_have_two_prompts_each() -> None:
    spec = PromptSpec(
        box=True, points=False, negative_points=False, mask=False, box_and_points=False,
        box_transform="scale", max_points=None, padding_point=True, padding_inert=False,
    )  # fmt: skip
    for case in phantom_cases():
        size = (case.image.shape[0], case.image.shape[1])
        assert len(supported_prompts(case.prompts, size, spec)) == 2


def test_drawing_is_quick() -> None:
    best = {}
    for name in PHANTOM_NAMES:
        times = []
        for _ in range(3):
            start = time.process_time()
            phantom_case(name)
            times.append(time.process_time() - start)
        best[name] = min(times)
    assert max(best.values()) < 0.1, best


def test_unknown_names_are_refused() -> None:
    with pytest.raises(OptionError, match="choose one of ct_abdomen"):
        phantom_case("brain")
