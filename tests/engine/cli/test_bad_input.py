"""Whatever is wrong: exit code 1, one line on standard error, nothing written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samrt.imaging.logits import load_mask_inputs

BOX = ("--box", "20,10,60,40")
EditBundle = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_is_written(workplace: Path) -> Any:
    """Every test of this file leaves the current folder empty."""
    yield
    assert list(workplace.iterdir()) == []


def damaged_files(folder: Path, good: bytes) -> dict[str, tuple[bytes, str]]:
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    return {
        "empty.png": (b"", "is empty"),
        "text.png": (b"this is no image", "not an image"),
        "cut.png": (good[: len(good) // 2], "damaged"),
        "header.png": (good[:30], "damaged"),
        "flipped.png": (bytes(flipped), "damaged"),
        "other.gif": (b"GIF89a" + b"\0" * 99, "a GIF"),
        "slice.dcm": (b"\0" * 128 + b"DICM" + b"\0" * 99, "DICOM"),
    }


def test_damaged_images(infer: Callable[..., Any], png: Path, tmp_path: Path) -> None:
    for name, (content, words) in damaged_files(tmp_path, png.read_bytes()).items():
        path = tmp_path / name
        path.write_bytes(content)
        error = infer(path, *BOX).error
        assert words in error
        assert name in error


def test_images_that_are_no_files(infer: Callable[..., Any], tmp_path: Path) -> None:
    assert "does not exist" in infer(tmp_path / "none.png", *BOX).error
    assert "is a folder" in infer(tmp_path, *BOX).error
    assert "cannot read" in infer("a\0b.png", *BOX).error
    assert "does not exist" in infer("line\nbreak.png", *BOX).error
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert "pipe or device" in infer(tmp_path / "pipe.png", *BOX).error


def test_images_that_are_too_large(infer: Callable[..., Any], png: Path) -> None:
    assert "the limit is 100:" in infer(png, *BOX, "--max-pixels", 100).error
    assert "the limit is 50:" in infer(png, *BOX, "--max-file-bytes", 50).error


def test_float_image_with_nan(infer: Callable[..., Any], tmp_path: Path) -> None:
    values = np.ones((48, 80), np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    assert "1 NaN or infinite" in infer(tmp_path / "nan.tif", *BOX).error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--box", "60,40,20,10"), "inverted"),
        (("--box", "20,10,20,40"), "empty"),
        (("--box", "200,10,260,40"), "outside"),
        (("--box", "-30,-20,-5,-2"), "outside"),
        (("--box", "20,10,60,400"), "beyond"),
        (("--box", "nan,10,60,40"), "NaN"),
        (("--box", "20,10,inf,40"), "NaN or infinity"),
        (("--point", "80,10"), "outside"),
        (("--point", "-1,-1"), "outside"),
        (("--point", "nan,1"), "NaN"),
        ((*BOX, "--box", "60,40,20,10"), "prompt 1: "),
        ((*BOX, "--mask-input", "none.npz"), "does not exist"),
        ((*BOX, "--window", "5,5"), "window"),
        ((*BOX, "--window", "nan,5"), "window"),
        ((*BOX, "--backend", "abacus"), "unknown backend 'abacus'"),
        ((*BOX, "--precision", "fp4"), "fp4"),
        ((*BOX, "--threads", "100000"), "threads"),
        ((*BOX, "-o", "a\0b"), "cannot write"),
    ],
)
def test_bad_options(
    infer: Callable[..., Any], png: Path, words: tuple[str, ...], message: str
) -> None:
    assert message in infer(png, *words).error


def test_foreign_mask_inputs(infer: Callable[..., Any], png: Path, tmp_path: Path) -> None:
    path = tmp_path / "mask.npz"
    path.write_bytes(b"nothing")
    assert "cannot be read as NPZ" in infer(png, *BOX, "--mask-input", path).error
    flat = np.zeros((1, 1, 9, 9), np.float32)
    np.savez(path, logits=flat, scores=flat[:, :, 0, 0])
    assert len(load_mask_inputs(path, 1, (48, 80))) == 1
    assert "mask_input has shape (9, 9)" in infer(png, *BOX, "--mask-input", path).error


def test_models(samrt_command: Callable[..., Any], png: Path, tmp_path: Path) -> None:
    def run(model: object) -> str:
        error: str = samrt_command("infer", png, *BOX, "--model", model).error
        return error

    assert "no model named 'nobody'" in run("nobody")
    assert "no model named" in run("")
    assert "a file" in run(png)
    assert "no manifest.json" in run(tmp_path)


def test_damaged_bundles(
    samrt_command: Callable[..., Any], png: Path, edit_bundle: EditBundle
) -> None:
    def run(bundle: Path) -> str:
        error: str = samrt_command("infer", png, *BOX, "--model", bundle).error
        return error

    assert "schema version 99" in run(edit_bundle({"schema_version": 99}, "version"))
    hashed = edit_bundle({}, "hash")
    content = bytearray((hashed / "encoder.onnx").read_bytes())
    content[-1] ^= 1
    (hashed / "encoder.onnx").write_bytes(bytes(content))
    assert "sha256" in run(hashed)
    missing = edit_bundle({}, "missing")
    (missing / "decoder.onnx").unlink()
    assert "decoder.onnx is missing" in run(missing)
    broken = edit_bundle({}, "json")
    (broken / "manifest.json").write_text("{")
    assert "not valid JSON" in run(broken)


def test_a_model_file_that_is_no_model(
    samrt_command: Callable[..., Any], png: Path, edit_bundle: EditBundle
) -> None:
    """The hash fits, the content is nonsense: the runtime's own words stay on the one line."""
    import hashlib

    bundle = edit_bundle({}, "nonsense")
    content = b"nonsense"
    (bundle / "encoder.onnx").write_bytes(content)
    document = json.loads((bundle / "manifest.json").read_text())
    for artifact in document["artifacts"]:
        if artifact["file"] == "encoder.onnx":
            artifact["bytes"] = len(content)
            artifact["sha256"] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(document))
    assert samrt_command("infer", png, *BOX, "--model", bundle).error


def test_output_folder_that_is_a_file(infer: Callable[..., Any], png: Path) -> None:
    assert "not a folder" in infer(png, *BOX, "-o", png).error


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--box",),
        ("--box", ""),
        ("--box", "1,2,3"),
        ("--box", "1", "2", "3"),
        ("--box", "a,b,c,d"),
        ("--point", "1"),
        ("--point", "1,2,5"),
        ("--point", "1,2,3,4"),
        (*BOX, "--outputs", "video"),
        (*BOX, "--outputs", ""),
        (*BOX, "--window", "wide"),
        (*BOX, "--threads", "0"),
        (*BOX, "--threads", "two"),
        (*BOX, "--unknown"),
        (*BOX, "--js"),
        (*BOX, *BOX, "--point", "1,2"),
    ],
)
def test_wrong_usage(infer: Callable[..., Any], png: Path, words: tuple[str, ...]) -> None:
    outcome = infer(png, *words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "error: " in outcome.err
    assert "Traceback" not in outcome.err
