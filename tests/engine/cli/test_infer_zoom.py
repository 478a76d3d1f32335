"""``samrt infer --zoom``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Infer = Callable[..., Any]


@pytest.fixture
def large(tmp_path: Path, picture: Callable[..., Any]) -> Path:
    path = tmp_path / "large.png"
    Image.fromarray(picture(400, 600)).save(path)
    return path


def test_small_boxes_zoom_and_large_ones_do_not(infer: Infer, large: Path, workplace: Path) -> None:
    boxes = ("--box", "300,200,320,215", "--box", "50,50,500,350")
    done = infer(large, *boxes, "--zoom", "auto", "--json", "--outputs", "mask")
    assert done.code == 0, done.err
    first, second = json.loads(done.out)["prompts"]
    x0, y0, x1, y1 = first["zoom"]
    assert second["zoom"] is None
    mask = np.asarray(Image.open(workplace / "large.p0.mask.png")) > 0
    assert mask.shape == (400, 600)
    mask[y0:y1, x0:x1] = False
    assert not mask.any()


def test_off_is_the_default(infer: Infer, large: Path) -> None:
    done = infer(large, "--box", "300,200,320,215", "--json", "--outputs", "none")
    assert json.loads(done.out)["prompts"][0]["zoom"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--zoom", "on", "--point", "5,5"), "needs --box"),
        (("--zoom", "on", "--everything"), "leave it out with --everything"),
        (("--zoom", "auto", "--box", "1,1,9,9", "--outputs", "npz"), "does not write npz"),
        (("--zoom", "large", "--box", "1,1,9,9"), "invalid choice"),
    ],
)
def test_wrong_usage(infer: Infer, large: Path, words: tuple[str, ...], message: str) -> None:
    done = infer(large, *words)
    assert done.code == 2
    assert message in done.err
