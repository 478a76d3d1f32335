from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import samrt
from samrt import bundle as bundle_module
from samrt.bundle import Bundle, available_models, find_model, write_bundle
from samrt.errors import BundleError, ModelNotFoundError, OptionError, OutputError

EditBundle = Callable[..., Path]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_opens_and_knows_itself(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path, verify="full")
    assert bundle.manifest.name == "fixture"
    assert bundle.model_id == f"fixture@{bundle.sha256[:12]}"
    assert bundle.precisions() == ("fp32",)
    assert bundle.artifact("decoder").file == "decoder.onnx"
    assert bundle.file_of(bundle.artifact("encoder")).is_file()


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_one_changed_byte_is_found(edit_bundle: EditBundle, name: str) -> None:
    path = edit_bundle()
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"damaged: {name} has sha256 .*expected"):
        Bundle.open(path)


def test_all_damaged_files_are_listed(edit_bundle: EditBundle) -> None:
    path = edit_bundle()
    (path / "encoder.onnx").unlink()
    (path / "decoder.onnx").write_bytes(b"short")
    with pytest.raises(
        BundleError, match=r"encoder.onnx is missing; decoder.onnx has 5 bytes, expected"
    ):
        Bundle.open(path)


def test_large_files_are_hashed_on_request_only(
    edit_bundle: EditBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "HASH_ALWAYS_BELOW_BYTES", 10)
    path = edit_bundle({"artifacts.0.sha256": "0" * 64})
    bundle = Bundle.open(path)
    with pytest.raises(BundleError, match=r"encoder\.onnx has sha256"):
        bundle.verify()
    with pytest.raises(BundleError, match=r"encoder\.onnx has sha256"):
        Bundle.open(path, verify="full")


def test_verify_has_two_levels_only(bundle_path: Path) -> None:
    with pytest.raises(OptionError, match="'none'"):
        Bundle.open(bundle_path, verify="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "expected object"),
        (b" " * (5 * 1024 * 1024), "larger than 4 MiB"),
    ],
    ids=["empty", "cut", "binary", "deep", "list", "huge"],
)
def test_a_damaged_manifest_gives_one_clear_line(
    edit_bundle: EditBundle, content: bytes, text: str
) -> None:
    path = edit_bundle()
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=text) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        Bundle.open(tmp_path)


def test_a_file_or_nothing_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        Bundle.open(tmp_path / "none.samrt")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelNotFoundError, match="is a file"):
        Bundle.open(tmp_path / "file")


def test_a_link_out_of_the_bundle_is_refused(edit_bundle: EditBundle, tmp_path: Path) -> None:
    path = edit_bundle()
    outside = tmp_path / "outside.onnx"
    (path / "encoder.onnx").rename(outside)
    (path / "encoder.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="points outside the bundle"):
        Bundle.open(path)


def test_model_id_follows_rules_and_files_but_not_remarks(edit_bundle: EditBundle) -> None:
    def model_id(edits: dict[str, Any], name: str) -> str:
        return Bundle.open(edit_bundle(edits, name)).model_id

    plain = model_id({}, "plain")
    assert model_id({"producer.note": "x"}, "remark") == plain
    assert model_id({"input.channel_order": "BGR"}, "bgr") != plain
    assert model_id({"output.threshold": 0.5}, "threshold") != plain
    assert model_id({"name": "other"}, "name").startswith("other@")


def test_a_precision_that_is_not_there_is_refused(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.artifact("encoder", "fp32") is bundle.artifact("encoder", "auto")
    for wanted in ("fp16", "int8", "nonsense"):
        with pytest.raises(OptionError, match=rf"no precision '{wanted}': .*'auto' or .*fp32"):
            bundle.artifact("encoder", wanted)


def test_find_model_lists_what_there_is(bundle_path: Path) -> None:
    assert find_model(bundle_path) == bundle_path
    assert find_model(str(bundle_path)) == bundle_path
    with pytest.raises(ModelNotFoundError, match="no model named 'huge': shipped models are"):
        find_model("huge")
    with pytest.raises(ModelNotFoundError):
        find_model("")


def test_shipped_models_are_found_in_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit_bundle: EditBundle
) -> None:
    edit_bundle(name="flat")
    (tmp_path / "deep").mkdir()
    edit_bundle(name="deep/deep")
    (tmp_path / "file.samrt").write_text("not a folder")
    monkeypatch.setattr(bundle_module, "models_folder", lambda: tmp_path)
    assert set(available_models()) == {"flat", "deep"}
    assert find_model("deep") == tmp_path / "deep" / "deep.samrt"
    with samrt.load("flat", threads=1) as predictor:
        assert predictor.info.name == "fixture"
    with pytest.raises(ModelNotFoundError, match="shipped models are deep, flat"):
        samrt.load("tony")


@pytest.fixture
def files(bundle_path: Path) -> dict[str, Any]:
    return {
        "encoder.onnx": bundle_path / "encoder.onnx",
        "decoder.onnx": (bundle_path / "decoder.onnx").read_bytes(),
    }


def test_write_fills_in_sizes_and_hashes(
    tmp_path: Path, manifest_doc: dict[str, Any], files: dict[str, Any]
) -> None:
    for artifact in manifest_doc["artifacts"]:
        del artifact["bytes"], artifact["sha256"]
    bundle = write_bundle(tmp_path / "new" / "a.samrt", manifest_doc, files)
    digest = hashlib.sha256(files["decoder.onnx"]).hexdigest()
    assert bundle.artifact("decoder").sha256 == digest
    assert bundle.artifact("decoder").bytes == len(files["decoder.onnx"])
    assert "sha256" not in manifest_doc["artifacts"][0]
    assert sorted(tree(bundle.path)) == ["decoder.onnx", "encoder.onnx", "manifest.json"]
    assert [p.name for p in bundle.path.parent.iterdir()] == ["a.samrt"]


def test_writing_over_something_needs_leave(
    edit_bundle: EditBundle, manifest_doc: dict[str, Any], files: dict[str, Any]
) -> None:
    path = edit_bundle()
    before = tree(path)
    with pytest.raises(OutputError, match=r"exists: choose another name or pass overwrite=True"):
        write_bundle(path, manifest_doc, files)
    assert tree(path) == before
    manifest_doc["variant"] = "second"
    write_bundle(path, manifest_doc, files, overwrite=True)
    assert json.loads((path / "manifest.json").read_text())["variant"] == "second"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_only_a_bundle_is_ever_replaced(
    tmp_path: Path, manifest_doc: dict[str, Any], files: dict[str, Any]
) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter").write_text("years of work")
    with pytest.raises(OutputError, match="is not a bundle folder"):
        write_bundle(folder, manifest_doc, files, overwrite=True)
    assert (folder / "chapter").read_text() == "years of work"


def test_a_bad_manifest_leaves_the_old_bundle(
    edit_bundle: EditBundle, manifest_doc: dict[str, Any], files: dict[str, Any]
) -> None:
    path = edit_bundle()
    before = tree(path)
    manifest_doc["input"]["size"] = "big"
    with pytest.raises(BundleError, match=r"input\.size"):
        write_bundle(path, manifest_doc, files, overwrite=True)
    assert tree(path) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failed_rename_brings_the_old_bundle_back(
    edit_bundle: EditBundle,
    manifest_doc: dict[str, Any],
    files: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = edit_bundle()
    before = tree(path)
    rename, calls = Path.rename, []

    def broken(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(path, manifest_doc, files, overwrite=True)
    assert tree(path) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_files_must_match_the_artifacts(
    tmp_path: Path, manifest_doc: dict[str, Any], files: dict[str, Any]
) -> None:
    files["extra.bin"] = b"1"
    del files["decoder.onnx"]
    with pytest.raises(BundleError, match=r"no content for \['decoder.onnx'\].*'extra.bin'"):
        write_bundle(tmp_path / "a.samrt", manifest_doc, files)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_leaves_the_folder_writes_nothing(
    tmp_path: Path, manifest_doc: dict[str, Any], files: dict[str, Any]
) -> None:
    manifest_doc["artifacts"][1]["file"] = "../outside.onnx"
    files["../outside.onnx"] = files.pop("decoder.onnx")
    with pytest.raises(BundleError, match="outside the bundle"):
        write_bundle(tmp_path / "in" / "a.samrt", manifest_doc, files)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
