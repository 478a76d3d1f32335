"""A download is complete and right, or it is not there; what arrived is not lost."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from samrt.download import Download, Downloaded, digests_of, fetch
from samrt.errors import DownloadError, OutputError
from samrt.partial import open_partial

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GIT_BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()

Fetch = Callable[..., Downloaded]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "sam.pth"


@pytest.fixture
def get(file_server: Any, local_opener: Callable[..., Any], target: Path) -> Fetch:
    """``get(sha256=..., force=...)`` from the file server, which has :data:`CONTENT`."""
    file_server.content = CONTENT

    def run(*, force: bool = False, progress: Any = None, **facts: Any) -> Downloaded:
        wanted = Download(url=f"{file_server.url}/sam.pth", target=target, **facts)
        return fetch(wanted, force=force, progress=progress, opener=local_opener())

    return run


def files(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} if target.parent.exists() else set()


def test_whole_file(get: Fetch, target: Path, file_server: Any) -> None:
    seen: list[tuple[int, int | None]] = []
    found = get(sha256=SHA256, size=len(CONTENT), progress=lambda *now: seen.append(now))
    assert found == Downloaded(target, len(CONTENT), SHA256, "sha256", 0, True)
    assert target.read_bytes() == CONTENT
    assert files(target) == {"sam.pth"}
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    (request,) = file_server.requests
    assert request["accept-encoding"] == "identity"
    assert request["user-agent"].startswith("samrt/")
    assert "range" not in request
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_digests(get: Fetch, target: Path) -> None:
    assert get(git_blob=GIT_BLOB).checked == "git_blob"
    assert digests_of(target) == (len(CONTENT), SHA256, GIT_BLOB)
    target.unlink()
    found = get()
    assert (found.checked, found.sha256) == (None, SHA256)


def test_git_id_is_that_of_git(tmp_path: Path) -> None:
    path = tmp_path / "hello"
    path.write_bytes(b"hello world\n")
    assert digests_of(path)[2] == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"


def test_a_broken_connection_is_picked_up_at_once(
    get: Fetch, target: Path, file_server: Any
) -> None:
    file_server.die_after = [300_000, 200_000]
    assert get(sha256=SHA256).resumed_at == 0
    assert target.read_bytes() == CONTENT
    assert file_server.asked_ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert [r.get("if-range") for r in file_server.requests] == [None, '"one"', '"one"']


def test_a_server_that_always_dies_leaves_what_arrived(
    get: Fetch, target: Path, file_server: Any
) -> None:
    file_server.die_after = [300_000, 0]
    with pytest.raises(DownloadError, match=r"300000 bytes of sam.pth: they are kept, run the"):
        get(sha256=SHA256)
    assert files(target) == {"sam.pth.part", "sam.pth.part.json"}
    file_server.requests.clear()
    found = get(sha256=SHA256)
    assert (found.resumed_at, found.checked) == (300_000, "sha256")
    assert file_server.asked_ranges == ["bytes=300000-"]
    assert target.read_bytes() == CONTENT
    assert files(target) == {"sam.pth"}


def leave_a_part(get: Fetch, file_server: Any, **facts: Any) -> None:
    file_server.die_after = [300_000, 0]
    with pytest.raises(DownloadError):
        get(**facts)
    file_server.die_after = []
    file_server.requests.clear()


def test_a_changed_file_begins_anew(get: Fetch, target: Path, file_server: Any) -> None:
    leave_a_part(get, file_server)
    file_server.content, file_server.etag = CONTENT[::-1], '"two"'
    assert get().resumed_at == 0
    assert target.read_bytes() == CONTENT[::-1]
    assert file_server.asked_ranges == ["bytes=300000-"]


def test_a_server_without_ranges_begins_anew(get: Fetch, target: Path, file_server: Any) -> None:
    leave_a_part(get, file_server)
    file_server.ranges = False
    assert get().resumed_at == 0
    assert target.read_bytes() == CONTENT


def test_without_validator_and_digest_nothing_is_continued(
    get: Fetch, target: Path, file_server: Any
) -> None:
    file_server.etag = None
    leave_a_part(get, file_server)
    get()
    assert file_server.asked_ranges == [None]
    assert target.read_bytes() == CONTENT


def test_a_weak_etag_is_no_validator(get: Fetch, file_server: Any) -> None:
    file_server.etag = 'W/"one"'
    leave_a_part(get, file_server)
    get()
    assert file_server.asked_ranges == [None]


def test_a_part_of_another_address_is_dropped(
    get: Fetch, target: Path, file_server: Any, local_opener: Callable[..., Any]
) -> None:
    leave_a_part(get, file_server, sha256=SHA256)
    other = Download(f"{file_server.url}/other", target, sha256=SHA256)
    assert fetch(other, opener=local_opener()).resumed_at == 0
    assert file_server.asked_ranges == [None]


def test_a_part_that_is_complete_is_finished(get: Fetch, target: Path, file_server: Any) -> None:
    leave_a_part(get, file_server)
    with (target.parent / "sam.pth.part").open("ab") as stream:
        stream.write(CONTENT[300_000:])
    found = get()  # the server answers 416: nothing is behind the end
    assert (found.resumed_at, target.read_bytes() == CONTENT) == (len(CONTENT), True)


def test_a_part_longer_than_the_file_is_dropped(get: Fetch, target: Path, file_server: Any) -> None:
    leave_a_part(get, file_server)
    with (target.parent / "sam.pth.part").open("ab") as stream:
        stream.write(CONTENT)
    assert get().resumed_at == 0
    assert target.read_bytes() == CONTENT
    assert file_server.asked_ranges == [f"bytes={300_000 + len(CONTENT)}-", None]


def test_a_damaged_part_is_found_out(get: Fetch, target: Path, file_server: Any) -> None:
    leave_a_part(get, file_server, sha256=SHA256)
    part = target.parent / "sam.pth.part"
    part.write_bytes(bytes(300_000))
    with pytest.raises(DownloadError, match="it was thrown away"):
        get(sha256=SHA256)
    assert files(target) == set()
    assert get(sha256=SHA256).resumed_at == 0


class Wrong(NamedTuple):
    facts: dict[str, Any]
    message: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"sha256": "0" * 64}, "has sha256 fbbab289"),
        Wrong({"git_blob": "0" * 40}, f"has git id {GIT_BLOB}, expected 0000"),
        Wrong({"size": 1000}, "offers 1048576 bytes, expected 1000"),
        Wrong({"size": 2_000_000, "sha256": SHA256}, "offers 1048576 bytes, expected 2000000"),
    ],
)
def test_another_file_than_expected(get: Fetch, target: Path, wrong: Wrong) -> None:
    with pytest.raises(DownloadError, match=wrong.message):
        get(**wrong.facts)
    assert files(target) == set()


def test_more_than_promised(get: Fetch, target: Path, file_server: Any) -> None:
    file_server.headers = {"Content-Length": None, "Transfer-Encoding": None}
    with pytest.raises(DownloadError, match="sends more than 1000 bytes"):
        get(size=1000)
    assert files(target) == set()


def test_an_unknown_length_needs_a_digest(get: Fetch, target: Path, file_server: Any) -> None:
    file_server.headers = {"Content-Length": None}
    with pytest.raises(DownloadError, match="does not say how long"):
        get()
    assert files(target) == set()
    assert get(sha256=SHA256).bytes == len(CONTENT)


@pytest.mark.parametrize("code", [403, 404, 500])
def test_refusals(get: Fetch, target: Path, file_server: Any, code: int) -> None:
    file_server.status = code
    with pytest.raises(DownloadError, match=rf"answered {code} .*the file may have moved"):
        get()
    assert not target.parent.exists()


def test_pages_and_empty_files_are_not_checkpoints(
    get: Fetch, target: Path, file_server: Any
) -> None:
    file_server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="a web page in place of the file"):
        get()
    file_server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="sends gzip data"):
        get()
    file_server.headers, file_server.content = {}, b""
    with pytest.raises(DownloadError, match="empty file"):
        get()
    assert files(target) == set()


def test_an_existing_file(get: Fetch, target: Path, file_server: Any) -> None:
    get(sha256=SHA256)
    file_server.requests.clear()
    found = get(sha256=SHA256, size=len(CONTENT))
    assert (found.fetched, found.checked) == (False, "sha256")
    assert get(git_blob=GIT_BLOB).fetched is False
    assert file_server.requests == []
    with pytest.raises(OutputError, match="no digest is published"):
        get()
    target.write_bytes(b"my own")
    with pytest.raises(OutputError, match=r"exists and has sha256 .* use --force"):
        get(sha256=SHA256)
    assert target.read_bytes() == b"my own"
    assert get(sha256=SHA256, force=True).fetched
    assert target.read_bytes() == CONTENT


def test_force_keeps_the_old_file_until_the_new_one_is_right(get: Fetch, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"my own")
    with pytest.raises(DownloadError):
        get(sha256="0" * 64, force=True)
    assert target.read_bytes() == b"my own"
    assert files(target) == {"sam.pth"}


def test_places_that_cannot_be_written(get: Fetch, target: Path, tmp_path: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(OutputError, match="not a regular file"):
        get()
    target.rmdir()
    (target.parent / "sam.pth.part").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*sam.pth.part"):
        get()
    (target.parent / "sam.pth.part").rmdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (target.parent / "sam.pth.part").symlink_to(victim)
    with pytest.raises(OutputError, match=r"cannot write .*sam.pth.part"):
        get()
    assert victim.read_bytes() == b"precious"
    target.parent.rename(tmp_path / "aside")
    target.parent.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot write"):
        get()


def test_a_pipe_is_no_partial_file(get: Fetch, target: Path) -> None:
    target.parent.mkdir()
    os.mkfifo(target.parent / "sam.pth.part")
    with pytest.raises(OutputError, match="not a regular file"):
        get()


def test_no_room(
    get: Fetch, target: Path, file_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(target.parents[1])._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="has 20 MB free, 34 MB are needed: make room"):
        get()
    assert files(target) == set()


def test_a_disk_that_fills_up_keeps_what_arrived(
    get: Fetch, target: Path, file_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samrt.partial import PartialFile

    append, room = PartialFile.append, [2]

    def full(self: PartialFile, piece: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        append(self, piece)

    monkeypatch.setattr(PartialFile, "append", full)
    with pytest.raises(OutputError, match="No space left on device; what has arrived is kept"):
        get(sha256=SHA256)
    monkeypatch.undo()
    found = get(sha256=SHA256)
    assert found.resumed_at == 2 * 256 * 1024
    assert target.read_bytes() == CONTENT


def test_two_processes_do_not_write_into_one_file(get: Fetch, target: Path) -> None:
    target.parent.mkdir()
    with open_partial(target), pytest.raises(OutputError, match="by another process"):
        get()
    assert get().bytes == len(CONTENT)


def test_a_lock_on_a_file_that_was_just_published_is_no_lock(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the other process gives the same file its final name."""
    target.parent.mkdir()
    part = target.parent / "sam.pth.part"
    part.write_bytes(b"all of it")
    lock = fcntl.flock

    def publish_then_lock(descriptor: int, how: int) -> None:
        part.rename(target)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", publish_then_lock)
    with pytest.raises(OutputError, match="by another process"), open_partial(target):
        pass
    assert target.read_bytes() == b"all of it"


def test_a_file_that_appears_meanwhile_is_not_replaced(
    get: Fetch, target: Path, file_server: Any
) -> None:
    def appear(done: int, total: int | None) -> None:
        if not target.exists():
            target.write_bytes(b"my own")

    with pytest.raises(OutputError, match="has appeared meanwhile"):
        get(sha256=SHA256, progress=appear)
    assert target.read_bytes() == b"my own"


def test_interruption_keeps_what_arrived(get: Fetch, target: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(sha256=SHA256, progress=stop)
    assert get(sha256=SHA256).resumed_at > 500_000
    assert target.read_bytes() == CONTENT
