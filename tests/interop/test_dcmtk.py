"""DCMTK and dicom3tools agree: on grey levels of what is read, on the form of what is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.cli import main
from samrt.errors import ExtraUnavailableError
from samrt.imaging._extras import installed_version
from samrt.imaging.read import read_image

Tool = Callable[..., Any]


def rendered(tool: Tool, path: Path, *options: object) -> NDArray[np.uint8]:
    """What DCMTK shows of the first frame, 8 bits."""
    names = ("dcm2img", "dcm2pnm", "dcmj2pnm")
    name = next((n for n in names if shutil.which(n)), "dcm2pnm")
    target = path.with_suffix(".pnm")
    tool(name, "+op", *options, path, target)
    return np.asarray(Image.open(BytesIO(target.read_bytes())))


def ramp(low: int, high: int, kind: str = "i2") -> NDArray[Any]:
    return np.linspace(low, high, 4096).astype(kind).reshape(32, 128)


def cases(scanner: Any) -> dict[str, tuple[Any, str | None, tuple[object, ...]]]:
    """Name -> data set, our window, DCMTK's options."""
    ct = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    own = {"WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"]}
    table = scanner.item(LUTDescriptor=[256, -1000, 8], LUTExplanation="CURVE")
    table.add_new("LUTData", "OW", np.arange(256, dtype="<u2")[::-1].tobytes())
    table["LUTDescriptor"].VR = "SS"
    unsigned = ramp(0, 4000, "u2")
    rgb = np.random.default_rng(4).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    palette: dict[str, Any] = {}
    for k, name in enumerate(("Red", "Green", "Blue")):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        values = (np.arange(256) * 257) ^ (k * 0x5555)
        palette[f"{name}PaletteColorLookupTableData"] = values.astype("<u2").tobytes()
    ds = scanner.dataset
    return {
        "window of the file": (ds(unsigned, bits_stored=12, **ct, **own), None, ("+Wi", 1)),
        "second window": (ds(unsigned, bits_stored=12, **ct, **own), "file:1", ("+Wi", 2)),
        "given window": (ds(unsigned, bits_stored=12, **ct), "50/350", ("+Ww", 50, 350)),
        "lowest and highest": (ds(ramp(-900, 1200)), "minmax", ("+Wm",)),
        "inverted": (
            ds(ramp(0, 4000, "u2"), bits_stored=12, photometric="MONOCHROME1", **ct, **own),
            None,
            ("+Wi", 1),
        ),
        "sigmoid": (
            ds(ramp(-500, 500), WindowCenter="10", WindowWidth="300", VOILUTFunction="SIGMOID"),
            None,
            ("+Wi", 1),
        ),
        "VOI LUT": (ds(ramp(-1200, -700), VOILUTSequence=[table]), "lut", ("+Wl", 1)),
        "signed, 12 bits": (ds(ramp(-2048, 2047), bits_stored=12), "0/1000", ("+Ww", 0, 1000)),
        "grey, 8 bits": (ds(ramp(0, 255, "u1"), sop_class=scanner.SECONDARY), None, ()),
        "RGB": (ds(rgb, photometric="RGB", sop_class=scanner.SECONDARY), None, ()),
        "palette": (
            ds(ramp(0, 255, "u1"), photometric="PALETTE COLOR", sop_class=scanner.SECONDARY,
               **palette),
            None,
            (),
        ),
    }  # fmt: skip


def test_grey_levels(tool: Tool, scanner: Any, tmp_path: Path) -> None:
    for name, (dataset, window, options) in cases(scanner).items():
        path = tmp_path / "x.dcm"
        path.write_bytes(scanner.packed(dataset))
        theirs = rendered(tool, path, *options).astype(int)
        ours = read_image(path, window=window).array.astype(int)
        assert ours.shape == theirs.shape, name
        # DCMTK rounds down where we round to nearest.
        assert np.abs(ours - theirs).max() <= 1, name


def test_ybr(tool: Tool, scanner: Any, tmp_path: Path) -> None:
    ybr = np.random.default_rng(4).integers(60, 196, (20, 30, 3)).astype(np.uint8)
    path = tmp_path / "x.dcm"
    dataset = scanner.dataset(ybr, photometric="YBR_FULL", sop_class=scanner.SECONDARY)
    path.write_bytes(scanner.packed(dataset))
    theirs = rendered(tool, path).astype(int)
    assert np.abs(read_image(path).array.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize(("program", "decoder"), [("dcmcrle", "rle"), ("dcmcjpls", "pyjpegls")])
def test_compressed_by_dcmtk(
    tool: Tool, scanner: Any, tmp_path: Path, program: str, decoder: str
) -> None:
    pytest.importorskip({"rle": "rle", "pyjpegls": "jpeg_ls"}[decoder], reason="no decoder")
    values, _ = scanner.body((4, 64, 80))
    path, target = tmp_path / "x.dcm", tmp_path / "y.dcm"
    path.write_bytes(scanner.packed(scanner.enhanced(values)))
    tool(program, path, target)
    for frame in (0, 3):
        found = read_image(target, frame=frame)
        np.testing.assert_array_equal(found.source, values[frame])
        assert found.details is not None
        assert decoder in found.details["decoder"]


@pytest.fixture
def written(scanner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that ``samrt infer`` writes for an oblique series and for one of its slices."""
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")
    values, _ = scanner.body((6, 96, 112))
    folder = scanner.write_series(
        tmp_path / "oblique", scanner.series(values, orientation="oblique")
    )
    monkeypatch.chdir(tmp_path)
    words = ["--threads", "1", "--label", "kidney"]
    volume = ["--box3d", "45,22,1,90,65,6", "--outputs", "seg,rtstruct"]
    assert main(["infer", str(folder), *volume, *words]) == 0
    one = next(folder.iterdir())
    picture = ["--box", "45,22,90,65", "--outputs", "seg,rtstruct,capture"]
    assert main(["infer", str(one), *picture, *words]) == 0
    return tmp_path


def test_what_is_written_is_valid(tool: Tool, written: Path) -> None:
    found = sorted(written.glob("*.dcm"))
    assert len(found) == 5
    for path in found:
        tool("dcmdump", "-q", path)
        result = tool("dciodvfy", path, check=False)
        text = (result.stdout + result.stderr).decode(errors="replace")
        errors = [line for line in text.splitlines() if line.startswith("Error")]
        assert errors == [], path.name


def test_labelmap_is_read_by_dcmtk(tool: Tool, written: Path, scanner: Any) -> None:
    """dicom3tools of today do not know label maps, so DCMTK's parser must do."""
    words = ["--box3d", "45,22,1,90,65,6", "--threads", "1", "--outputs", "seg"]
    assert main(["infer", "oblique", *words, "--seg-type", "labelmap", "--force"]) == 0
    text = tool("dcmdump", "+P", "SegmentationType", written / "oblique.seg.dcm").stdout
    assert b"LABELMAP" in text


LOSSLESS = {"pylibjpeg": "pylibjpeg-libjpeg", "gdcm": "python-gdcm"}


@pytest.mark.parametrize("plugin", LOSSLESS)
@pytest.mark.parametrize(
    ("option", "syntax"),
    [("+e1", "1.2.840.10008.1.2.4.70"), ("+el", "1.2.840.10008.1.2.4.57")],
)
@pytest.mark.parametrize("kind", ["unsigned, 12 bits", "signed, 16 bits", "8 bits", "RGB"])
def test_jpeg_lossless_by_dcmtk(
    tool: Tool, scanner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, option: str, syntax: str, plugin: str,
) -> None:  # fmt: skip
    """Asked for by name, either decoder gives back every pixel that DCMTK has packed."""
    rng = np.random.default_rng(7)
    values, options = {
        "unsigned, 12 bits": (ramp(0, 4095, "u2"), {"bits_stored": 12}),
        "signed, 16 bits": (rng.integers(-2000, 3000, (33, 47)).astype("i2"), {}),
        "8 bits": (rng.integers(0, 256, (31, 45)).astype("u1"), {"sop_class": scanner.SECONDARY}),
        "RGB": (
            rng.integers(0, 256, (31, 44, 3)).astype("u1"),
            {"sop_class": scanner.SECONDARY, "photometric": "RGB"},
        ),
    }[kind]
    path, target = tmp_path / "x.dcm", tmp_path / "y.dcm"
    path.write_bytes(scanner.packed(scanner.dataset(values, **options)))
    tool("dcmcjpeg", option, path, target)
    assert syntax.encode() in target.read_bytes()
    monkeypatch.delenv("SAMRT_DICOM_DECODERS", raising=False)
    with pytest.raises(ExtraUnavailableError, match="SAMRT_DICOM_DECODERS=pylibjpeg or gdcm"):
        read_image(target)
    package = LOSSLESS[plugin]
    if installed_version(package) is None:
        pytest.skip(f"{package} is not installed (it is no dependency: GPL, or can crash)")
    monkeypatch.setenv("SAMRT_DICOM_DECODERS", plugin)
    found = read_image(target)
    np.testing.assert_array_equal(found.source, values)
    assert found.details is not None
    assert found.details["decoder"].startswith(package)
