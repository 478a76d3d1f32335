"""What calibration reads, and what is kept for the proof alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samrt.errors import ImageError
from samrt.phantoms import PhantomCase
from samrt_export.quantize.pictures import choose_pictures


def many(root: Path, count: int) -> Path:
    for k in range(count):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(root / f"name-{k:03d}.png")
    return root


def test_one_in_five_is_held_out(tmp_path: Path, few_cases: list[PhantomCase]) -> None:
    found = choose_pictures(many(tmp_path, 20), few_cases)
    assert found.held_out == 4
    assert len(found.calibration) == 1 + 16
    assert len(found.verification) == 1 + 4
    shared = {p.sha256 for p in found.calibration} & {p.sha256 for p in found.verification}
    assert shared == {found.calibration[0].sha256}  # the built-in one
    assert not any("name" in p.name for p in (*found.calibration, *found.verification))


def test_few_pictures_serve_for_both(tmp_path: Path) -> None:
    found = choose_pictures(many(tmp_path, 3), [])
    assert found.held_out == 0
    assert len(found.calibration) == len(found.verification) == 3


def test_of_many_an_even_selection(tmp_path: Path) -> None:
    found = choose_pictures(many(tmp_path, 40), [], most=4)
    values = [int(np.asarray(p.read().array)[0, 0]) for p in found.calibration]  # type: ignore[union-attr]
    assert values == [0, 10, 20, 30]


def test_the_digest_follows_pixels_and_window(tmp_path: Path) -> None:
    root = many(tmp_path, 3)
    plain = choose_pictures(root, []).sha256
    assert choose_pictures(root, []).sha256 == plain
    assert choose_pictures(root, [], window=(0, 9)).sha256 != plain
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(root / "name-001.png")
    assert choose_pictures(root, []).sha256 != plain


def test_deep_pictures_get_the_window(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 100
    for ending in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"a.{ending}")
    found = choose_pictures(tmp_path, [], window=(0.0, 1000.0))
    for picture in found.calibration:
        shown = picture.read().array  # type: ignore[union-attr]
        assert shown[0, 0] == 0
        assert shown.flat[10] == 255
        assert shown.flat[63] == 255


def test_dicom_files_of_any_name(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.Modality, data.PhotometricInterpretation = "CT", "MONOCHROME2"
    data.Rows = data.Columns = 8
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, 12, 11
    data.PixelRepresentation = 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (np.arange(64, dtype=np.uint16) * 32).tobytes()
    data.save_as(tmp_path / "IM000001", enforce_file_format=True)
    found = choose_pictures(tmp_path, [], window=(-1024.0, 992.0))
    shown = found.calibration[0].read().array  # type: ignore[union-attr]
    assert shown.flat[0] == 0
    assert shown.flat[63] == 255


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not a folder"):
        choose_pictures(tmp_path / "none", [])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match="holds no picture"):
        choose_pictures(tmp_path, [])
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    found = choose_pictures(tmp_path, [])
    with pytest.raises(ImageError, match=r"cut\.png"):
        found.calibration[0].read()
