"""Files that are no checkpoints, damaged ones, and files made to do harm."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from samrt_export.checkpoint import CheckpointError, read_checkpoint

GIB = 2**30
Archive = Callable[..., Path]


class Storage:
    """Pickles as a reference to a storage of ``numel`` float32 values."""

    def __init__(self, numel: int, key: str = "0") -> None:
        self.reference = ("storage", torch.FloatStorage, key, "cpu", numel)


class Tensor:
    """Pickles as a tensor over a `Storage`, with any size and strides."""

    def __init__(self, storage: Storage, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments = (storage, 0, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


def pickled(content: object) -> bytes:
    """The pickle that ``torch.save`` would write for ``content``."""
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return obj.reference if isinstance(obj, Storage) else None

    Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """``archive(pickle, {"data/0": bytes})``: a zip file as ``torch.save`` writes it."""

    def make(
        pickle_bytes: bytes,
        records: Mapping[str, bytes] | None = None,
        compression: int = zipfile.ZIP_STORED,
    ) -> Path:
        path = tmp_path / "hostile.pth"
        with zipfile.ZipFile(path, "w", compression) as out:
            out.writestr("archive/data.pkl", pickle_bytes)
            out.writestr("archive/byteorder", b"little")
            for name, content in (records or {"data/0": bytes(16)}).items():
                out.writestr(f"archive/{name}", content)
            out.writestr("archive/version", b"3\n")
        return path

    return make


@pytest.fixture
def safetensors_file(tmp_path: Path) -> Callable[..., Path]:
    """``safetensors_file(header, data)``; a header may be a dictionary or bytes."""

    def make(header: object, data: bytes = b"", length: int | None = None) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "hostile.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
        return path

    return make


def refused(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def quick_and_small() -> Iterator[None]:
    """The test takes neither time nor memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert time.monotonic() - start < 20
    assert used < 256 * 1024, f"{used} KiB"


class Evil:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["model", "epoch"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, new_format: bool, place: str) -> None:
    marker, path = tmp_path / "owned", tmp_path / "evil.pth"
    content = {"model": {"a.b": torch.ones(2)}, "epoch": 1, place: Evil(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    refused(path, r"evil\.pth is refused: .*import (posix|nt)\.system.*save the weights alone")
    assert not marker.exists()


def test_code_in_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "owned", tmp_path / "evil.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Evil(marker), protocol))
        refused(path, "is not a checkpoint")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_shows_what_it_imports(
    tmp_path: Path, archive: Archive, protocol: int
) -> None:
    marker = tmp_path / "owned"
    path = archive(pickle.dumps({"a.b": Evil(marker)}, protocol))
    refused(path, r"(posix|nt)\.system")
    assert not marker.exists()


def test_a_hidden_import_is_refused(archive: Archive) -> None:
    hidden = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93."  # through the memo
    refused(archive(hidden), r"import (posix\.system|a computed name)")
    computed = b"\x80\x04NN\x93."
    refused(archive(computed), "import a computed name")
    refused(archive(b"\x80\x02\x82\x01."), "import copyreg extension 1")


def test_all_foreign_names_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "args.pth"
    torch.save({"model": {"a.b": torch.ones(2)}, "args": argparse.Namespace(p=Path("x"))}, path)
    refused(path, r"would import argparse\.Namespace, pathlib\.\S+, and samrt loads")


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, r"torch\.nn\.modules\.linear\.Linear.*torch\.save\(model\.state_dict\(\), path\)")


def test_calls_that_allocate_are_refused(archive: Archive, quick_and_small: None) -> None:
    bomb = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x80\x02\x85R."
    refused(archive(bomb), r"import builtins\.bytearray")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"hello world, I am text", "is not a checkpoint: it begins with b'hello wo'"),
        (b"\x00" * 64, "is not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page, the download failed"),
        (b"\x80\x04K\x01.", "bare pickle"),
        (b"PK\x03\x04", "is damaged"),
        (b"PK\x05\x06" + bytes(18), "is not a checkpoint"),
        (b"{}", "is not a checkpoint"),
    ],
    ids=["empty", "text", "zeros", "lfs", "html", "pickle", "head", "empty-zip", "json"],
)
def test_other_files(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    refused(path, match)


def test_missing_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", "does not exist")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "locked.pth"
    path.write_bytes(b"x")
    path.chmod(0)
    refused(path, "cannot read .*Permission denied")


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_cut_files_are_refused_wherever_they_end(tmp_path: Path, new_format: bool) -> None:
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save({"a.b": torch.ones(40)}, whole, _use_new_zipfile_serialization=new_format)
    content = whole.read_bytes()
    for keep in [*range(1, len(content), max(1, len(content) // 60)), len(content) - 1]:
        cut.write_bytes(content[:keep])
        refused(cut, "damaged|not a checkpoint|cannot be loaded")


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pth"
    torch.save({"model": {"a.b": torch.ones(4), "a.c": torch.ones(2, 2)}}, path)
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path)


def test_a_zip_without_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "office.docx"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("word/document.xml", "<w/>")
    refused(path, r"is a zip archive but not a checkpoint: .*word/document\.xml")


def test_torchscript(tmp_path: Path, archive: Archive) -> None:
    path = archive(pickled({}), {"constants.pkl": b"\x80\x02).", "code/a.py": b""})
    refused(path, "TorchScript")


def test_compressed_entries_are_refused(archive: Archive, quick_and_small: None) -> None:
    content = {"a.b": Tensor(Storage(GIB // 128), (GIB // 128,), (1,))}
    path = archive(pickled(content), {"data/0": bytes(GIB // 32)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(path, "is compressed or encrypted, which torch.save never does")


def test_an_entry_that_claims_10_gb(tmp_path: Path, quick_and_small: None) -> None:
    path = tmp_path / "claim.pth"
    content = {"a.b": Tensor(Storage(10 * GIB // 4), (10 * GIB // 4,), (1,))}
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", pickled(content))
        out.writestr("archive/data/0", bytes(16))
        out.filelist[-1].file_size = out.filelist[-1].compress_size = 10 * GIB
        out.writestr("archive/version", b"3\n")
    refused(path, rf"entry archive/data/0 claims {10 * GIB} bytes of a file of \d+")


def test_a_pickle_that_claims_10_gb(archive: Archive, quick_and_small: None) -> None:
    numel = 10 * GIB // 4
    refused(archive(pickled({"a.b": Tensor(Storage(numel), (numel,), (1,))})), "cannot be loaded")
    refused(archive(pickled({"a.b": Tensor(Storage(4), (numel,), (1,))})), "cannot be loaded")


def test_a_view_that_unfolds_to_10_gb(archive: Archive, quick_and_small: None) -> None:
    path = archive(pickled({"a.b": Tensor(Storage(4), (10 * GIB // 4,), (0,))}))
    refused(path, r"claim more than the file holds \(\d+ bytes\): a\.b")


def test_many_tensors_over_the_same_bytes(archive: Archive, quick_and_small: None) -> None:
    storage = Storage(4096)
    content = {f"a.{k}": Tensor(storage, (4096,), (1,)) for k in range(4096)}
    refused(archive(pickled(content), {"data/0": bytes(16384)}), "claim more than the file holds")


def test_a_legacy_file_that_claims_10_gb(tmp_path: Path, quick_and_small: None) -> None:
    path = tmp_path / "legacy.pth"
    torch.save({"a.b": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    claim = b"\x8a\x05" + (10 * GIB // 4).to_bytes(5, "little")
    content = path.read_bytes()
    assert content.count(b"M\xe8\x03") >= 2
    path.write_bytes(content.replace(b"M\xe8\x03", claim))
    refused(path, "cannot be loaded")


def test_entries_twice_and_overlapping(tmp_path: Path) -> None:
    path = tmp_path / "twice.pth"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", pickled({}))
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("archive/data.pkl", pickled({}))
    refused(path, "names an entry twice")
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", pickled({}))
        out.writestr("archive/data/0", bytes(1000))
        first = out.filelist[-1]
        for key in range(1, 50):
            out.writestr(f"archive/data/{key}", b"")
            copy = out.filelist[-1]
            copy.header_offset, copy.file_size = first.header_offset, 1000
            copy.compress_size, copy.CRC = 1000, first.CRC
    refused(path, "its entries claim")


@pytest.mark.parametrize(
    ("header", "data", "length", "match"),
    [
        ({}, b"", 10 * GIB, f"its header claims {10 * GIB} bytes"),
        ({}, b"", 2**64 - 1, "its header claims"),
        (b"{not json" + b" " * 9, b"", None, "not valid JSON"),
        (b'{"a":' * 50_000, b"", None, "not valid JSON"),
        ({"a.b": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}, b"1234", None,
         r"do not fit the 4 bytes of data: a\.b"),
        ({"a.b": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"1234", None,
         "do not fit"),
        ({"a.b": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234", None,
         "do not fit"),
        ({"a.b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234", None,
         "do not fit"),
        ({"a.b": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234", None,
         "do not fit"),
        ({"a.b": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, b"1234", None,
         "do not fit"),
        ({"a.b": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"1234", None,
         "is damaged"),
        ({"a.b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345678", None,
         "is damaged"),
        ({"a.b": 3}, b"", None, "do not fit"),
        ({}, b"", None, "holds no model weights"),
    ],
    ids=["10gb", "max", "json", "deep", "claim", "shape", "negative", "swapped", "bool", "text",
         "dtype", "rest", "entry", "none"],
)  # fmt: skip
def test_safetensors_headers(
    safetensors_file: Callable[..., Path],
    quick_and_small: None,
    header: object,
    data: bytes,
    length: int | None,
    match: str,
) -> None:
    pytest.importorskip("safetensors")
    refused(safetensors_file(header, data, length), match)


def test_cut_safetensors(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save
    content = save({"a.b": torch.ones(40), "a.c": torch.ones(3)})
    path = tmp_path / "cut.safetensors"
    for keep in range(9, len(content), 7):
        path.write_bytes(content[:keep])
        refused(path, "damaged|not a checkpoint")
