"""The committed pictures: readable, as described, and made by the committed script."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.imaging import read_image

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def phantom_module() -> Any:
    spec = importlib.util.spec_from_file_location("ct_phantom", EXAMPLES / "ct_phantom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ct_phantom"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ct_phantom"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ct_phantom.png", (512, 512)),
        ("cell.png", (660, 550)),
        ("retina.jpg", (512, 512, 3)),
    ],
)
def test_pictures(name: str, shape: tuple[int, ...]) -> None:
    loaded = read_image(EXAMPLES / name)
    assert loaded.array.shape == shape
    assert loaded.warnings == ()


def test_the_script_still_draws_the_committed_phantom(phantom_module: Any) -> None:
    phantom = phantom_module.make_phantom()
    drawn = phantom_module.window_8bit(phantom.hu, 40.0, 400.0)
    committed = read_image(EXAMPLES / "ct_phantom.png").array
    # Rounding may differ in single pixels between versions of numpy.
    assert np.mean(drawn != committed) < 1e-3
    text = (EXAMPLES / "README.md").read_text("utf-8")
    for name in ("kidney_left", "liver", "lesion", "spleen"):
        label = name.removesuffix("_left")
        found = re.search(rf"{label} `([\d,]+)`", text)
        assert found is not None
        assert tuple(map(int, found[1].split(","))) == phantom.box(name)


def test_the_dicom_slice_holds_the_same_phantom(phantom_module: Any) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(EXAMPLES / "ct_phantom.dcm")
    values = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
    hounsfield = values.astype(np.int32) + int(dataset.RescaleIntercept)
    assert np.mean(hounsfield != phantom_module.make_phantom().hu) < 1e-3
    assert str(dataset.PatientName) == "Phantom^samrt"
    assert dataset.SOPInstanceUID.startswith("2.25.")
