"""Pictures of cases show what they say."""

from __future__ import annotations

import base64
from io import BytesIO
from itertools import pairwise

import numpy as np
from PIL import Image

from samrt.evaluation.pictures import (
    COLOURS,
    case_picture,
    data_uri,
    error_panel,
    plain_panel,
    png_bytes,
    window_of,
)
from samrt.evaluation.report.svg import Mark, Row, bars, dot_plot, line_plot
from samrt.types import Prompt

SIZE = (100, 140)
GREY = np.full(SIZE, 128, np.uint8)


def box_mask(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def nearest(colour: np.ndarray) -> str:
    tint = colour.astype(float) - 128
    score = {k: float(np.dot(tint, np.array(c, float) - 128)) for k, c in COLOURS.items()}
    return max(score, key=lambda k: score[k])


def test_agreed_missed_and_extra_have_their_tints() -> None:
    truth, answer = box_mask(20, 20, 60, 60), box_mask(20, 40, 60, 80)
    panel = error_panel(GREY, truth, answer, (0, 0, 140, 100), 280)
    at = {"missed": (30, 30), "agreed": (50, 40), "extra": (70, 40)}
    for name, (x, y) in at.items():
        pixel = panel[40 + 2 * y, 2 * x]
        assert nearest(pixel) == name
        assert np.abs(pixel.astype(int) - 128).max() > 20
    assert (panel[40 + 2 * 90, 2 * 120] == 128).all()
    assert panel[5, 100].max() < 40  # the band above a wide image


def test_the_window_holds_the_target_and_stays_on_the_image() -> None:
    truth = box_mask(2, 3, 12, 23)
    left, top, right, bottom = window_of([truth], (3, 2, 22, 11), SIZE)
    assert 0 <= left <= 3
    assert 0 <= top <= 2
    assert 23 <= right <= 140
    assert 12 <= bottom <= 100
    assert right - left == 48
    far = box_mask(2, 3, 12, 120)
    wide = window_of([truth, far], (3, 2, 22, 11), SIZE)
    assert wide[2] - wide[0] > 80
    empty = window_of([np.zeros(SIZE, np.bool_)], (60, 40, 90, 60), SIZE)
    assert empty[0] < 60
    assert empty[2] > 90
    whole = window_of([np.ones(SIZE, np.bool_)], (0, 0, 139, 99), SIZE)
    assert whole == (0, 0, 140, 100)


def test_prompts_are_drawn() -> None:
    mask = box_mask(30, 30, 60, 60)
    plain = error_panel(GREY, mask, mask, (20, 20, 80, 80), 240)
    boxed = error_panel(
        GREY, mask, mask, (20, 20, 80, 80), 240, prompt=Prompt(box=(30, 30, 59, 59))
    )
    changed = np.argwhere((plain != boxed).any(axis=2))
    assert changed.min() >= 4 * 10 - 6
    assert changed.max() <= 4 * 40 + 6
    prompt = Prompt(point_coords=[[50, 45]], point_labels=[1])
    marked = error_panel(GREY, mask, mask, (20, 20, 80, 80), 240, prompt=prompt)
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    assert abs(rows.mean() - 4 * 25.5) < 1.5
    assert abs(columns.mean() - 4 * 30.5) < 1.5


def test_files() -> None:
    panel = plain_panel(np.stack([GREY] * 3, -1), (0, 0, 100, 100), 64)
    both = case_picture([panel, panel])
    assert both.shape == (64, 132, 3)
    assert np.array_equal(np.asarray(Image.open(BytesIO(png_bytes(both)))), both)
    kind, _, data = data_uri(both).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).size == (132, 64)


def test_plots_of_little() -> None:
    one = dot_plot([Row("a", [Mark("s5", 0.5)])], low=0.0, high=1.0, step=0.5, what="x & y")
    assert one.count("<circle") == 1
    assert "x &amp; y" in one
    flat = line_plot([(0.0, 0.5, None, None)], {}, x_label="x", y_label="y", ticks=[0.0], low=0.0)
    assert "polygon" not in flat
    assert bars([("none", 0.0, "0 ms")], what="time").count("<rect") == 1


def test_labels_never_hide_each_other() -> None:
    curves = {f"set{i}": [(0.0, 0.9, None, None), (1.0, 0.95, None, None)] for i in range(12)}
    plot = line_plot(
        [(0.0, 0.5, 0.4, 0.6), (1.0, 0.6, 0.5, 0.7)], curves,
        x_label="x", y_label="y", ticks=[0.0, 1.0], low=0.0,
    )  # fmt: skip
    rows = sorted(float(part.split('y="')[1].split('"')[0]) for part in plot.split("<text")
                  if 'class="tiny"' in part)  # fmt: skip
    assert len(rows) == 12
    assert min(b - a for a, b in pairwise(rows)) >= 11.0
    assert rows[0] > 0
    assert rows[-1] < 330
