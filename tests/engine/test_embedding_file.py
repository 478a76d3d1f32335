from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt import BundleError, ImageEmbedding, OutputError
from samrt import embedding_file as module


@pytest.fixture
def embedding() -> ImageEmbedding:
    rng = np.random.default_rng(0)
    return ImageEmbedding(
        features={
            "image_embeddings": rng.standard_normal((1, 4, 6, 6)).astype(np.float32),
            "fine/s2": rng.standard_normal((1, 2, 12, 12)).astype(np.float32),
        },
        original_size=(48, 80),
        input_size=(38, 64),
        frame_size=(64, 64),
        scale=(38 / 48, 0.8),
        model_id="fixture@0123456789ab",
        warnings=("16-bit file: minimum and maximum are used",),
    )


def rewrite(path: Path, edits: dict[str, Any]) -> None:
    """Change some members of a saved embedding."""
    with np.load(path) as data:
        members = dict(data)
    meta = json.loads(str(members["meta"]))
    for key, value in edits.items():
        if key in members:
            members[key] = value
        else:
            meta[key] = value
    if "meta" not in edits:
        members["meta"] = np.array(json.dumps(meta))
    np.savez(path, **members)


def test_round_trip_keeps_every_bit(embedding: ImageEmbedding, tmp_path: Path) -> None:
    path = tmp_path / "scan.emb"
    embedding.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["scan.emb"]
    loaded = ImageEmbedding.load(path)
    for name in ("original_size", "input_size", "frame_size", "scale", "model_id", "warnings"):
        assert getattr(loaded, name) == getattr(embedding, name)
        assert type(getattr(loaded, name)) is type(getattr(embedding, name))
    assert list(loaded.features) == list(embedding.features)
    for name, array in embedding.features.items():
        assert loaded.features[name].tobytes() == array.tobytes()
        assert not loaded.features[name].flags.writeable


def test_an_existing_file_is_kept(embedding: ImageEmbedding, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists: choose another name or pass overwrite=True"):
        embedding.save(path)
    assert path.read_text() == "precious"
    embedding.save(path, overwrite=True)
    assert ImageEmbedding.load(path).model_id == embedding.model_id


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    embedding: ImageEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.npz"
    path.write_text("precious")

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        embedding.save(path, overwrite=True)
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["scan.npz"]


def test_a_missing_folder_is_named(embedding: ImageEmbedding, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        embedding.save(tmp_path / "none" / "scan.npz")


def test_every_cut_of_the_file_is_noticed(embedding: ImageEmbedding, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    embedding.save(path)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError, match="is damaged") as caught:
            ImageEmbedding.load(path)
        assert "\n" not in str(caught.value)


def test_flipped_bytes_never_pass_unnoticed(embedding: ImageEmbedding, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    embedding.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 60):
        broken = bytearray(whole)
        broken[place] ^= 0x41
        path.write_bytes(broken)
        try:
            loaded = ImageEmbedding.load(path)
        except BundleError:
            continue
        for name, array in embedding.features.items():
            np.testing.assert_array_equal(loaded.features[name], array)


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ({"version": 2}, "has version 2, expected 1"),
        ({"format": "other"}, "not a samrt embedding"),
        ({"sha256": "0" * 64}, "sha256 of the features differs"),
        ({"original_size": [0, 5]}, r"size \[0, 5\] is not"),
        ({"original_size": [5]}, "is damaged"),
        ({"input_size": [1.5, 2]}, "is not"),
        ({"scale": [0, 1]}, "scale is not positive"),
        ({"scale": ["nan", 1]}, "scale is not positive"),
        ({"features": ["a"]}, "is damaged"),
        ({"features": ["a", "b", "c"]}, "is damaged"),
        ({"features": [1, 2]}, "feature name is not text"),
        ({"meta": np.array("{")}, "is damaged"),
        ({"meta": np.array("[]")}, "not a samrt embedding"),
        ({"meta": np.array(3)}, "not a samrt embedding"),
        ({"feature_0": np.zeros((1, 4, 6, 6))}, "not a float32 array"),
        ({"feature_0": np.float32(1)}, "not a float32 array"),
    ],
)
def test_wrong_content_is_named(
    embedding: ImageEmbedding, tmp_path: Path, edits: dict[str, Any], text: str
) -> None:
    path = tmp_path / "scan.npz"
    embedding.save(path)
    rewrite(path, edits)
    with pytest.raises(BundleError, match=text):
        ImageEmbedding.load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no embedding file"):
        ImageEmbedding.load(tmp_path / "none.npz")
    with pytest.raises(BundleError, match="no embedding file"):
        ImageEmbedding.load(tmp_path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(BundleError, match="not a samrt embedding"):
        ImageEmbedding.load(tmp_path / "other.npz")
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(BundleError, match="is damaged"):
        ImageEmbedding.load(tmp_path / "plain.npy")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.folder,))


def test_pickled_content_is_never_executed(embedding: ImageEmbedding, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    embedding.save(path)
    rewrite(path, {"feature_0": np.array([Trap(tmp_path / "owned")], object)})
    with pytest.raises(BundleError, match="is damaged"):
        ImageEmbedding.load(path)
    assert not (tmp_path / "owned").exists()


def test_a_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feature_0.npy", b"\0" * 100_000)
    with pytest.raises(BundleError, match="unpacks to 100000 bytes"):
        ImageEmbedding.load(path)
