"""All files or none, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samrt.errors import OutputError
from samrt.imaging import write_files
from samrt.imaging.write import check_targets


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_writes_and_makes_folders(tmp_path: Path) -> None:
    files = {tmp_path / "a" / "b" / "x.png": b"1", tmp_path / "a" / "y.json": b"2"}
    write_files(files)
    assert tree(tmp_path) == {"a": None, "a/b": None, "a/b/x.png": b"1", "a/y.json": b"2"}


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_files({tmp_path / "new": b""})
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "new")]
    assert modes[0] == modes[1]
    (tmp_path / "new").chmod(0o600)
    write_files({tmp_path / "new": b"2"}, force=True)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_one_existing_file_stops_all(tmp_path: Path) -> None:
    old = tmp_path / "b.png"
    old.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"b\.png exists: use --force"):
        write_files({tmp_path / "a.png": b"1", old: b"2", tmp_path / "sub" / "c.png": b"3"})
    assert tree(tmp_path) == {"b.png": b"old"}


def test_force_replaces(tmp_path: Path) -> None:
    old = tmp_path / "b.png"
    old.write_bytes(b"old")
    write_files({tmp_path / "a.png": b"1", old: b"2"}, force=True)
    assert tree(tmp_path) == {"a.png": b"1", "b.png": b"2"}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"keep")
    link.symlink_to(target)
    with pytest.raises(OutputError):
        write_files({link: b"new"})
    write_files({link: b"new"}, force=True)
    assert not link.is_symlink()
    assert (link.read_bytes(), target.read_bytes()) == (b"new", b"keep")


def test_what_is_never_replaced(tmp_path: Path) -> None:
    folder, source = tmp_path / "folder", tmp_path / "image.png"
    folder.mkdir()
    source.write_bytes(b"image")
    with pytest.raises(OutputError, match="not a regular file"):
        check_targets([folder], force=True)
    with pytest.raises(OutputError, match="input of this run"):
        check_targets([tmp_path / "folder" / ".." / "image.png"], force=True, inputs=[source])
    with pytest.raises(OutputError, match="twice"):
        check_targets([folder / "a", folder / "a"])
    with pytest.raises(OutputError, match="not a folder"):
        check_targets([source / "deep" / "a.png"])
    with pytest.raises(OutputError, match="cannot write"):
        check_targets([folder / ("n" * 400)])
    assert tree(tmp_path) == {"folder": None, "image.png": b"image"}


def test_a_locked_folder_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    try:
        if os.access(locked, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(OutputError, match="not writable"):
            write_files({locked / "a.png": b""})
    finally:
        locked.chmod(0o700)


def failing(real: Callable[..., Any], at: int, error: BaseException) -> Callable[..., Any]:
    """``real`` that raises at its call number ``at``."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return real(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("step", ["os.fsync", "os.open", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_failure_in_the_midst_with_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, at: int, error: BaseException
) -> None:
    old = tmp_path / "b"
    old.write_bytes(b"old")
    files = {tmp_path / "new" / "a": b"1", old: b"2", tmp_path / "c": b"3"}
    owner, name = (Path, "replace") if "Path" in step else (os, step.removeprefix("os."))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(getattr(owner, name), at, error))
        with pytest.raises((OutputError, KeyboardInterrupt)):
            write_files(files, force=True)
    assert tree(tmp_path) == {"b": b"old"}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_failure_in_the_midst_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A file system without hard links: links fail always, the rename fails once."""

    def no_link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    files = {tmp_path / name: b"x" for name in "abc"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_link)
        broken = failing(Path.replace, at, OSError(errno.EIO, "Input/output error"))
        patch.setattr(Path, "replace", broken)
        with pytest.raises(OutputError, match="nothing was written"):
            write_files(files)
    assert tree(tmp_path) == {}
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_link)
        write_files(files)
        write_files(files, force=True)
    assert sorted(tree(tmp_path)) == ["a", "b", "c"]


def test_a_file_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = tmp_path / "b"
    real = os.fsync

    def sync_and_appear(descriptor: int) -> None:
        real(descriptor)
        late.write_bytes(b"somebody else's")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync_and_appear)
        with pytest.raises(OutputError, match="appeared"):
            write_files({tmp_path / "a": b"1", late: b"2"})
    assert tree(tmp_path) == {"b": b"somebody else's"}
