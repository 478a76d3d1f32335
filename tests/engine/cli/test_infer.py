"""``samrt infer`` when all is well."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import samrt
from samrt.imaging.rle import rle_to_mask

BOX = "20,10,60,40"


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_box(infer: Callable[..., Any], png: Path, workplace: Path, bundle_path: Path) -> None:
    outcome = infer(png, "--box", BOX)
    assert (outcome.code, outcome.err) == (0, "")
    assert listed(workplace) == ["scan.mask.png", "scan.overlay.png"]
    for name in listed(workplace):
        assert name in outcome.out
    mask = np.asarray(Image.open("scan.mask.png"))
    assert mask.shape == (48, 80)
    assert set(np.unique(mask)) <= {0, 255}
    with samrt.load(bundle_path) as engine:
        engine.set_image(png)
        expected = engine.predict(box=(20, 10, 60, 40), multimask_output=False)
    assert np.array_equal(mask > 0, expected.masks[0])


def test_json_is_one_complete_document(
    infer: Callable[..., Any], png: Path, bundle_path: Path
) -> None:
    outcome = infer(png, "--box", BOX, "--json", "--threads", 1)
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert document["samrt"] == samrt.__version__
    model = document["model"]
    assert model["name"] == "fixture"
    assert re.fullmatch("[0-9a-f]{64}", model["sha256"])
    encoder = hashlib.sha256((bundle_path / "encoder.onnx").read_bytes()).hexdigest()
    assert model["files"]["encoder"] == encoder
    assert model["precision"] == {"requested": "auto", "effective": "fp32"}
    assert model["backend"]["requested"] == "auto"
    assert model["backend"]["effective"] == "onnxruntime"
    assert model["threads"] == 1
    picture = document["image"]
    assert picture["sha256"] == hashlib.sha256(png.read_bytes()).hexdigest()
    assert (picture["width"], picture["height"]) == (80, 48)
    assert (picture["format"], picture["bit_depth"], picture["window"]) == ("PNG", 8, None)
    (prompt,) = document["prompts"]
    assert prompt["prompt"] == {"box": [20, 10, 60, 40], "points": None, "mask_input": None}
    (mask,) = prompt["masks"]
    stored = np.asarray(Image.open(mask["file"])) > 0
    ys, xs = np.nonzero(stored)
    assert mask["area_px"] == stored.sum()
    assert mask["box"] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert 0 <= mask["stability"] <= 1
    assert document["files"] == {"overlay": "scan.overlay.png"}
    assert document["warnings"] == []
    times = document["timings_ms"]
    wanted = ["decode_image", "load_model", "preprocess", "encode", "decode_prompt"]
    assert list(times) == [*wanted, "postprocess", "write", "total"]
    assert all(value >= 0 for value in times.values())
    assert sum(times.values()) - times["total"] <= times["total"] + 1


def test_every_output_of_several_prompts(
    infer: Callable[..., Any], png: Path, workplace: Path
) -> None:
    kinds = "mask,overlay,label,coco,polygons,npz"
    outcome = infer(png, "--box", BOX, "--box", 0, 0, 30, 30, "--outputs", kinds, "-o", "a/b")
    assert outcome.code == 0
    assert listed(workplace / "a" / "b") == [
        "scan.coco.json",
        "scan.labels.png",
        "scan.logits.npz",
        "scan.overlay.png",
        "scan.p0.mask.png",
        "scan.p1.mask.png",
        "scan.polygons.geojson",
    ]
    coco = json.loads((workplace / "a/b/scan.coco.json").read_text())
    for index, note in enumerate(coco["annotations"]):
        stored = np.asarray(Image.open(f"a/b/scan.p{index}.mask.png")) > 0
        assert np.array_equal(rle_to_mask(note["segmentation"]), stored)


def test_multimask_writes_all_candidates(
    infer: Callable[..., Any], png: Path, workplace: Path
) -> None:
    outcome = infer(png, "--box", BOX, "--multimask", "--json")
    (prompt,) = json.loads(outcome.out)["prompts"]
    assert [mask["file"] for mask in prompt["masks"]] == [f"scan.m{m}.mask.png" for m in range(3)]
    scores = [mask["score"] for mask in prompt["masks"]]
    assert prompt["best"] == int(np.argmax(scores))
    assert listed(workplace) == [*(f"scan.m{m}.mask.png" for m in range(3)), "scan.overlay.png"]


def test_points_are_one_prompt_and_refine_a_box(infer: Callable[..., Any], png: Path) -> None:
    points = ("--point", "30,20", "--point", "5,6,0")
    (alone,) = json.loads(infer(png, *points, "--json").out)["prompts"]
    assert alone["prompt"]["points"] == [
        {"x": 30, "y": 20, "label": 1},
        {"x": 5, "y": 6, "label": 0},
    ]
    both = infer(png, *points, "--box", BOX, "--json", "--force")
    (together,) = json.loads(both.out)["prompts"]
    assert together["prompt"]["box"] == [20, 10, 60, 40]
    assert together["masks"] != alone["masks"]


def test_mask_of_an_earlier_run(infer: Callable[..., Any], png: Path) -> None:
    boxes = ("--box", BOX, "--box", "0,0,30,30")
    assert infer(png, *boxes, "--outputs", "npz", "--multimask").code == 0
    again = infer(png, *boxes, "--mask-input", "scan.logits.npz", "--json")
    first = json.loads(again.out)["prompts"][0]
    assert first["prompt"]["mask_input"] == "scan.logits.npz"
    plain = json.loads(infer(png, *boxes, "--json", "--force").out)["prompts"][0]
    assert first["masks"] != plain["masks"]


def test_no_outputs(infer: Callable[..., Any], png: Path, workplace: Path) -> None:
    outcome = infer(png, "--box", BOX, "--outputs", "none", "--json")
    document = json.loads(outcome.out)
    assert document["prompts"][0]["masks"][0]["file"] is None
    assert listed(workplace) == []


def test_existing_files_are_kept_unless_forced(
    infer: Callable[..., Any], png: Path, workplace: Path
) -> None:
    kept = workplace / "scan.overlay.png"
    kept.write_bytes(b"mine")
    assert "exists: use --force" in infer(png, "--box", BOX).error
    assert listed(workplace) == ["scan.overlay.png"]
    assert kept.read_bytes() == b"mine"
    assert infer(png, "--box", BOX, "--force").code == 0
    assert kept.read_bytes() != b"mine"


def test_the_input_is_never_overwritten(infer: Callable[..., Any], png: Path) -> None:
    content = png.read_bytes()
    (png.parent / "work" / "scan.overlay.png").symlink_to(png)
    assert "input of this run" in infer(png, "--box", BOX, "--force").error
    assert png.read_bytes() == content


def test_deep_images_take_a_window(
    infer: Callable[..., Any], tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(image[:, :, 0].astype(np.uint16) * 16).save(path)
    automatic = infer(path, "--box", BOX, "--outputs", "none")
    assert automatic.code == 0
    assert automatic.err.count("samrt: warning: ") == 1
    shown = infer(path, "--box", BOX, "--outputs", "none", "--window", -100, 3000, "--json")
    document = json.loads(shown.out)
    assert document["image"]["window"] == [-100, 3000]
    assert document["image"]["bit_depth"] == 16
    assert (document["warnings"], shown.err) == ([], "")


def test_damage_that_the_decoder_survives_is_reported(
    infer: Callable[..., Any], tmp_path: Path
) -> None:
    bits = np.random.default_rng(0).random((48, 80)) > 0.5
    path = tmp_path / "fax.tif"
    Image.fromarray(bits).save(path, compression="group4")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    outcome = infer(path, "--box", BOX, "--outputs", "none")
    if outcome.code == 0:
        assert "may be damaged" in outcome.err
    else:
        assert "damaged" in outcome.error
    assert all(line.startswith("samrt: ") for line in outcome.err.splitlines())


def command(*argv: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m samrt`` in a process of its own."""
    words = [sys.executable, "-m", "samrt", *map(str, argv)]
    return subprocess.run(words, capture_output=True, check=False, **options)


def test_standard_input_in_a_process_of_its_own(
    png: Path, workplace: Path, bundle_path: Path
) -> None:
    words = ("infer", "-", "--box", BOX, "--model", bundle_path, "--json")
    result = command(*words, input=png.read_bytes(), cwd=workplace)
    assert (result.returncode, result.stderr) == (0, b"")
    document = json.loads(result.stdout)
    assert document["image"]["file"] is None
    assert listed(workplace) == ["stdin.mask.png", "stdin.overlay.png"]
    empty = command(*words, "--force", input=b"", cwd=workplace)
    assert empty.returncode == 1
    assert empty.stderr.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_cannot_be_written() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "samrt", "info"]
        result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(b"samrt: error: cannot write to standard output")
    assert result.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_early() -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "samrt", "info"]
    result = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="file names need not be text here")
def test_a_file_name_that_is_no_text(png: Path, workplace: Path, bundle_path: Path) -> None:
    name = os.fsdecode(b"sc\xffan.png")
    (workplace / name).write_bytes(png.read_bytes())
    words = ("infer", name, "--box", BOX, "--model", bundle_path, "--outputs", "mask,coco")
    plain = command(*words, cwd=workplace)
    assert (plain.returncode, plain.stderr) == (0, b"")
    result = command(*words, "--force", "--json", cwd=workplace)
    assert json.loads(result.stdout)["image"]["file"] == name


def test_a_refused_model_is_used_on_request_only(
    samrt_command: Any, png: Path, edit_bundle: Any
) -> None:
    parity = {"precision": "fp32", "passed": False, "failures": ["mean mask IoU 0.5"]}
    words = ("infer", png, "--box", BOX, "--model", edit_bundle({"parity": parity}))
    refused = samrt_command(*words)
    assert (refused.code, refused.out) == (3, "")
    assert "is refused, it does not compute what the FP32 model does: mean mask" in refused.err
    assert not listed(Path())
    used = samrt_command(*words, "--allow-refused", "--json")
    document = json.loads(used.out)
    assert document["model"]["verification"]["state"] == "refused"
    assert document["model"]["verification"]["override"] is True
    assert any("was refused by its verification" in text for text in document["warnings"])


def test_what_is_known_of_the_model_is_in_the_result(samrt_command: Any, png: Path) -> None:
    words = ("infer", png, "--box", BOX, "--json", "--no-self-test", "--outputs", "none")
    verification = json.loads(samrt_command(*words).out)["model"]["verification"]
    assert (verification["state"], verification["override"]) == ("passed", False)
    assert verification["mask_iou_mean"] > 0.999
