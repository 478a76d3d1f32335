"""Each format gives the same targets and pixels that were put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.errors import DatasetError, ImageError, SamrtError
from samrt.evaluation.dataset import choose, grouped
from samrt.evaluation.formats import ReadOptions, open_dataset

Shapes = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def test_folders(folder_data: Path, shapes: Shapes) -> None:
    data = open_dataset(folder_data)
    assert (data.kind, len(data.targets), data.dropped) == ("folders", 8, 4)
    first = data.targets[0]
    image, labels = shapes(0)
    assert (first.key, first.set, first.name) == ("images/case0.png#case0:1", "shapes", "disc")
    assert (first.modality, first.size) == ("CT", (60, 80))
    assert first.area_px == int((labels == 1).sum())
    assert np.array_equal(data.read_image(first), image)
    assert np.array_equal(data.read_mask(first), labels == 1)
    assert data.targets[1].box == (45, 15, 59, 44)


def test_binary_masks_and_folders_of_masks(tmp_path: Path, shapes: Shapes) -> None:
    image, labels = shapes(1)
    (tmp_path / "images").mkdir()
    (tmp_path / "gt" / "b").mkdir(parents=True)
    for name in "abc":
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    binary = np.where(labels == 1, 255, 0).astype(np.uint8)
    Image.fromarray(binary).save(tmp_path / "gt" / "a_mask.png")
    Image.fromarray(labels == 1).save(tmp_path / "gt" / "b" / "left.png")
    Image.fromarray(np.stack([np.where(labels == 2, 255, 0).astype(np.uint8)] * 3, -1)).save(
        tmp_path / "gt" / "b" / "right.png"
    )
    data = open_dataset(tmp_path, options=ReadOptions(name="mine", modality="MR"))
    assert [(t.image, t.name, t.label) for t in data.targets] == [
        ("images/a.png", "object", 255),
        ("images/b.png", "left", 1),
        ("images/b.png", "right", 255),
    ]
    assert {(t.set, t.modality) for t in data.targets} == {("mine", "MR")}
    assert data.remarks == ["1 of 3 images have no mask"]
    for target, label in zip(data.targets, (1, 1, 2), strict=True):
        assert np.array_equal(data.read_mask(target), labels == label)


def test_palette_colour_and_jpeg_masks(tmp_path: Path, shapes: Shapes) -> None:
    image, labels = shapes(2)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("p", "c", "j"):
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    palette = Image.fromarray(labels)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "masks" / "p.png")
    colour = np.zeros((60, 80, 3), np.uint8)
    colour[labels == 1], colour[labels == 2] = (255, 0, 0), (0, 0, 9)
    Image.fromarray(colour).save(tmp_path / "masks" / "c.png")
    Image.fromarray(np.where(labels == 2, 255, 0).astype(np.uint8)).save(
        tmp_path / "masks" / "j.jpg", quality=80
    )
    data = open_dataset(tmp_path)
    found = {(t.image[7], t.label): data.read_mask(t) for t in data.targets}
    assert set(found) == {("p", 1), ("p", 2), ("c", 0xFF0000), ("c", 9), ("j", 255)}
    for (_, label), mask in found.items():
        wanted = labels == (1 if label in (1, 0xFF0000) else 2)
        assert np.array_equal(mask, wanted)


def test_deep_pictures_get_a_window(tmp_path: Path, shapes: Shapes) -> None:
    _, labels = shapes(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    deep = (np.arange(4800).reshape(60, 80) * 10).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "images" / "d.png")
    Image.fromarray(labels).save(tmp_path / "masks" / "d.png")
    options = ReadOptions(window=(0.0, 24000.0))
    windowed = open_dataset(tmp_path, options=options)
    picture = windowed.read_image(windowed.targets[0])
    assert picture[0, 0] == 0
    assert picture[30, 0] == 255
    plain = open_dataset(tmp_path)
    assert abs(int(plain.read_image(plain.targets[0])[30, 0]) - 128) <= 2


def test_index(index_data: Path, shapes: Shapes) -> None:
    data = open_dataset(index_data)
    assert (data.kind, len(data.targets), data.dropped) == ("index", 12, 0)
    assert {t.part for t in data.targets if t.set == "beta"} == {"even", "odd"}
    target = data.targets[7]
    assert np.array_equal(data.read_mask(target), shapes(0)[1] == target.label)
    assert np.array_equal(data.read_image(target), shapes(0)[0])


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        ({"area_px": 77}, "index.json says 77"),
        ({"box_xyxy": [0, 0, 5, 5]}, "has the box"),
        ({"height": 61}, "index.json says"),
        ({"image": "../outside.png"}, "outside the folder"),
        ({"image": "/etc/passwd"}, "outside the folder"),
        ({"image": None, "box_xyxy": "abc"}, "malformed"),
        ({"label_value": "x"}, "malformed"),
        ({"mask": "alpha/none.png"}, "does not exist"),
    ],
)
def test_a_wrong_record_is_an_error(index_data: Path, edit: dict[str, Any], word: str) -> None:
    path = index_data / "index.json"
    rows = json.loads(path.read_text())
    rows[0].update(edit)
    path.write_text(json.dumps(rows))
    with pytest.raises(SamrtError, match=word):
        _read_first(index_data)


def _read_first(root: Path) -> None:
    data = open_dataset(root)
    data.read_mask(data.targets[0])
    data.read_image(data.targets[0])


def test_twice_the_same_target(index_data: Path) -> None:
    path = index_data / "index.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[3]]))
    with pytest.raises(DatasetError, match="twice"):
        open_dataset(index_data)


def test_small_targets_are_dropped(index_data: Path) -> None:
    path = index_data / "index.json"
    rows = json.loads(path.read_text())
    rows[0]["area_px"] = 50
    path.write_text(json.dumps(rows))
    data = open_dataset(index_data)
    assert (len(data.targets), data.dropped) == (11, 1)
    path.write_text(json.dumps([rows[0]]))
    with pytest.raises(DatasetError, match="no target of more than 50 pixels"):
        open_dataset(index_data)


# -- which targets ----------------------------------------------------------------------------


def test_choosing(index_data: Path) -> None:
    data = open_dataset(index_data)
    some = choose(data, limit=2, seed=3)
    assert [t.set for t in some] == ["alpha"] * 2 + ["beta"] * 2
    assert some == choose(data, limit=2, seed=3)
    others = {choose(data, limit=2, seed=s)[0].key for s in range(9)}
    assert len(others) > 1
    assert choose(data, sets=["beta"], limit=2, seed=3) == some[2:]
    left = choose(data, exclude=["alpha/i[01].png"])
    assert {t.image for t in left if t.set == "alpha"} == {"alpha/i2.png"}
    for options, word in (
        ({"sets": ["gamma"]}, "no set 'gamma'"),
        ({"exclude": ["nothing*"]}, "excludes nothing"),
        ({"exclude": ["*"]}, "is left"),
    ):
        with pytest.raises(DatasetError, match=word):
            choose(data, **options)  # type: ignore[arg-type]


def test_targets_of_an_image_stay_together(index_data: Path) -> None:
    groups = list(grouped(open_dataset(index_data).targets))
    assert [len(g) for g in groups] == [2] * 6
    assert all(len({t.image for t in g}) == 1 for g in groups)


def test_the_digest_is_that_of_the_data(index_data: Path, tmp_path: Path) -> None:
    one = open_dataset(index_data).digest
    moved = index_data.rename(tmp_path / "moved")
    assert open_dataset(moved).digest == one
    path = moved / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    assert open_dataset(moved).digest != one


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match="no data set that samrt knows"):
        open_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="no picture"):
        open_dataset(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match="no masks"):
        open_dataset(tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="not an image"):
        open_dataset(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot read"):
        open_dataset(tmp_path)
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(DatasetError, match="is a file"):
        open_dataset(tmp_path / "file.txt")
    with pytest.raises(DatasetError, match="unknown format"):
        open_dataset(tmp_path, kind="zarr")


@pytest.mark.shared
def test_the_shared_data_are_read_as_recorded() -> None:
    if not (SHARED / "index.json").is_file():
        pytest.skip("no data beside the repository (../shared/data)")
    data = open_dataset(SHARED)
    assert len({t.set for t in data.targets}) == 13
    for target in choose(data, limit=1, seed=1):
        assert data.read_image(target).shape[:2] == target.size
        assert data.read_mask(target).sum() == target.area_px
