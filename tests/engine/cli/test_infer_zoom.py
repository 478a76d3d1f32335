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


def test_refined_answers_say_so(infer: Infer, large: Path, tmp_path: Path) -> None:
    logits = []
    for steps in (0, 2):
        folder = tmp_path / str(steps)
        done = infer(
            large, "--box", "200,100,320,215", "--json", "--outputs", "npz", "--refine", str(steps),
            "-o", str(folder),
        )  # fmt: skip
        assert json.loads(done.out)["prompts"][0]["refine_steps"] == steps
        with np.load(folder / "large.logits.npz") as stored:
            logits.append(stored["logits"])
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--refine", "1", "--everything"), 2, "--refine needs prompts"),
        (("--refine", "-1", "--box", "1,1,9,9"), 2, "--refine"),
        (("--refine", "11", "--box", "1,1,9,9"), 1, "from 0 to 10, got 11"),
    ],
)
def test_refining_that_is_refused(
    infer: Infer, large: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = infer(large, *words)
    assert done.code == code
    assert message in done.err
