"""Bundles whose model files keep their weights in files of their own (ONNX external data)."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import bundle as bundle_module
from samrt.bundle import Bundle, write_bundle
from samrt.cli import main
from samrt.errors import BackendError, BundleError, OutputError
from samrt.manifest_artifacts import DataFile

DATA = "encoder.onnx.data"
BUNDLE_V1_SHA256 = "fd69d23531aca316f806f4af09ca28081e452b4fc157a53d5728c16e1f800a41"

Files = dict[str, Path]
Build = Callable[..., Bundle]


@pytest.fixture
def parts(bundle_path: Path, tmp_path: Path) -> Files:
    """The fixture's two models in a work folder, the encoder's weights in a third file."""
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "work"
    folder.mkdir()
    model = onnx.load(bundle_path / "encoder.onnx")
    onnx.save_model(
        model,
        folder / "encoder.onnx",
        save_as_external_data=True,
        location=DATA,
        size_threshold=0,
    )
    (folder / "decoder.onnx").write_bytes((bundle_path / "decoder.onnx").read_bytes())
    return {name: folder / name for name in ("encoder.onnx", "decoder.onnx", DATA)}


@pytest.fixture
def external_doc(manifest_doc: dict[str, Any]) -> dict[str, Any]:
    """The fixture's manifest with the encoder's weights listed; sizes and hashes left open."""
    for artifact in manifest_doc["artifacts"]:
        del artifact["bytes"], artifact["sha256"]
        if artifact["role"] == "encoder":
            artifact["data"] = [{"file": DATA}]
    return manifest_doc


@pytest.fixture
def built(tmp_path: Path, external_doc: dict[str, Any], parts: Files) -> Bundle:
    return write_bundle(tmp_path / "a.samrt", external_doc, parts)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def encoder_of(document: dict[str, Any]) -> dict[str, Any]:
    encoder: dict[str, Any] = next(a for a in document["artifacts"] if a["role"] == "encoder")
    return encoder


def test_writing_fills_in_size_and_hash_of_data_files(built: Bundle, parts: Files) -> None:
    content = parts[DATA].read_bytes()
    want = DataFile(DATA, len(content), hashlib.sha256(content).hexdigest())
    encoder = built.artifact("encoder")
    assert encoder.data == (want,)
    assert encoder.total_bytes == encoder.bytes + len(content)
    assert built.artifact("decoder").data == ()
    assert names(built.path) == ["decoder.onnx", "encoder.onnx", DATA, "manifest.json"]
    assert all(path.is_file() for path in parts.values())


def test_it_loads_and_answers_like_the_bundle_in_one_piece(
    built: Bundle, bundle_path: Path, image: NDArray[np.uint8]
) -> None:
    masks = []
    for path in (bundle_path, built.path):
        with samrt.load(path, threads=1) as predictor:
            predictor.set_image(image)
            masks.append(predictor.predict(box=(10, 10, 60, 40)))
    np.testing.assert_array_equal(masks[0].masks, masks[1].masks)
    np.testing.assert_array_equal(masks[0].scores, masks[1].scores)
    np.testing.assert_array_equal(masks[0].logits, masks[1].logits)


def test_the_weights_really_come_from_the_data_file(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files, image: NDArray[np.uint8]
) -> None:
    plain = write_bundle(tmp_path / "plain.samrt", external_doc, parts)
    weights = np.frombuffer(parts[DATA].read_bytes(), np.float32).copy()
    parts[DATA].write_bytes((weights * np.float32(0.5)).tobytes())
    changed = write_bundle(tmp_path / "changed.samrt", external_doc, parts)
    assert plain.artifact("encoder").sha256 == changed.artifact("encoder").sha256
    assert plain.model_id != changed.model_id
    found = []
    for bundle in (plain, changed):
        with samrt.load(bundle.path, threads=1) as predictor:
            found.append(predictor.encode(image).features["image_embeddings"])
    assert not np.allclose(found[0], found[1])


def test_one_changed_byte_of_the_data_is_found(built: Bundle) -> None:
    path = built.path / DATA
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"damaged: encoder\.onnx\.data has sha256 .*expected"):
        Bundle.open(built.path)


def test_cut_and_missing_data_is_found(built: Bundle) -> None:
    path = built.path / DATA
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data has \d+ bytes, expected"):
        Bundle.open(built.path)
    path.unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data is missing"):
        Bundle.open(built.path)


def test_large_data_is_hashed_on_request_only(
    built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built.path / DATA
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(bundle_module, "HASH_ALWAYS_BELOW_BYTES", 10)
    bundle = Bundle.open(built.path)
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data has sha256"):
        bundle.verify()
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data has sha256"):
        Bundle.open(built.path, verify="full")


def test_data_outside_the_bundle_is_refused(built: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside.data"
    (built.path / DATA).rename(outside)
    (built.path / DATA).symlink_to(outside)
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data points outside the bundle"):
        Bundle.open(built.path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("/etc/passwd", "relative path inside the bundle"),
        ("../encoder.onnx.data", "relative path inside the bundle"),
        ("a\\b", "relative path inside the bundle"),
        ("manifest.json", "name used twice"),
        ("decoder.onnx", "name used twice"),
        ("./decoder.onnx", "name used twice"),
        ("", "is empty"),
    ],
)
def test_names_of_data_files_are_checked(built: Bundle, file: str, text: str) -> None:
    path = built.path / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    encoder_of(document)["data"][0]["file"] = file
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(BundleError, match=text):
        Bundle.open(built.path)


def test_data_lies_where_onnx_can_reach_it(built: Bundle) -> None:
    path = built.path / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    encoder_of(document)["file"] = "fp32/encoder.onnx"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(BundleError, match=r"must lie beside or below the model file"):
        Bundle.open(built.path)


@pytest.mark.parametrize("key", ["file", "bytes", "sha256"])
def test_entries_of_data_are_complete(built: Bundle, key: str) -> None:
    path = built.path / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    del encoder_of(document)["data"][0][key]
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(BundleError, match=rf"artifacts.*data.*{key}"):
        Bundle.open(built.path)


def test_model_and_data_may_lie_in_a_folder(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files
) -> None:
    encoder = encoder_of(external_doc)
    encoder["file"], encoder["data"][0]["file"] = "fp32/encoder.onnx", f"fp32/{DATA}"
    files = {
        "fp32/encoder.onnx": parts["encoder.onnx"],
        f"fp32/{DATA}": parts[DATA],
        "decoder.onnx": parts["decoder.onnx"],
    }
    bundle = write_bundle(tmp_path / "deep.samrt", external_doc, files)
    with samrt.load(bundle.path, threads=1) as predictor:
        assert predictor.info.name == "fixture"


def test_a_model_whose_data_is_not_listed_does_not_load(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files
) -> None:
    del encoder_of(external_doc)["data"], parts[DATA]
    bundle = write_bundle(tmp_path / "a.samrt", external_doc, parts)
    with pytest.raises(BackendError, match=r"cannot open model encoder\.onnx"):
        samrt.load(bundle.path, threads=1)


def test_data_without_content_is_reported(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files
) -> None:
    del parts[DATA]
    with pytest.raises(BundleError, match=r"no content for \['encoder\.onnx\.data'\]"):
        write_bundle(tmp_path / "a.samrt", external_doc, parts)


def test_bundles_without_data_keep_their_id(bundle_path: Path) -> None:
    assert Bundle.open(bundle_path).sha256 == BUNDLE_V1_SHA256


def test_verify_lists_data_files(built: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(built.path)]) == 0
    assert f"sha256 of {DATA}" in capsys.readouterr().out


def test_moved_files_are_renamed_not_copied(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files
) -> None:
    inode = parts[DATA].stat().st_ino
    bundle = write_bundle(tmp_path / "a.samrt", external_doc, parts, move=True)
    assert (bundle.path / DATA).stat().st_ino == inode
    assert names(tmp_path / "work") == []
    bundle.verify()


def test_a_failure_brings_moved_files_back(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files
) -> None:
    before = {name: path.read_bytes() for name, path in parts.items()}
    external_doc["input"]["size"] = "big"
    with pytest.raises(BundleError, match=r"input\.size"):
        write_bundle(tmp_path / "a.samrt", external_doc, parts, move=True)
    assert {name: path.read_bytes() for name, path in parts.items()} == before
    assert names(tmp_path) == sorted(["work", *(f"work/{name}" for name in parts)])


def test_a_missing_source_brings_moved_files_back(
    tmp_path: Path, external_doc: dict[str, Any], parts: Files
) -> None:
    parts["decoder.onnx"].unlink()
    with pytest.raises(OutputError, match="No such file"):
        write_bundle(tmp_path / "a.samrt", external_doc, parts, move=True)
    assert names(tmp_path) == ["work", "work/encoder.onnx", f"work/{DATA}"]


def test_across_file_systems_a_copy_replaces_the_move(
    tmp_path: Path,
    external_doc: dict[str, Any],
    parts: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rename = Path.rename

    def other_device(self: Path, target: Path) -> Path:
        if self.parent.name == "work":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", other_device)
    bundle = write_bundle(tmp_path / "a.samrt", external_doc, parts, move=True)
    bundle.verify()
    assert names(tmp_path / "work") == []


def test_a_bundle_can_be_written_again_from_its_own_files(built: Bundle) -> None:
    document = json.loads((built.path / "manifest.json").read_text("utf-8"))
    document["producer"]["note"] = "verified"
    files = {name: built.path / name for name in ("encoder.onnx", "decoder.onnx", DATA)}
    again = write_bundle(built.path, document, files, overwrite=True, move=True)
    assert again.model_id == built.model_id
    assert again.manifest.producer["note"] == "verified"
    again.verify()
