"""Downloading one file: resumable, checked, and put in place only when it is right.

Nothing in samrt calls this but ``samrt pull``. The file grows beside its target and takes its
name when it is complete and its digest is right. A broken connection leaves what has arrived, and
the next call goes on there, but only if the server still has the same file (``If-Range``) or a
digest will tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import shutil
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.errors import DownloadError, OutputError
from samrt.partial import PartialFile, open_partial, part_of
from samrt.quoting import one_line
from samrt.transport import Opener, https_only, make_opener, open_url

__all__ = ["Download", "Downloaded", "digests_of", "fetch"]

Progress = Callable[[int, "int | None"], None]

_CHUNK = 256 * 1024
_MARGIN_BYTES = 32 * 1024 * 1024
_ATTEMPTS = 4
_LARGEST = 64 * 1024**3
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Download:
    """What to fetch and what it must be.

    Attributes:
        url: where from; HTTPS.
        target: the file to write.
        size: bytes, if known.
        sha256: hex digest, if known.
        git_blob: SHA-1 under which git stores the file, if known; of use where that is all that
            a publisher offers. It is checked only where there is no ``sha256``.
    """

    url: str
    target: Path
    size: int | None = None
    sha256: str | None = None
    git_blob: str | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What is there now.

    Attributes:
        path: the file.
        bytes: its size.
        sha256: its digest.
        checked: ``"sha256"``, ``"git_blob"`` or ``None``: which published digest it agrees with.
        resumed_at: bytes that were there from an earlier call and were kept.
        fetched: false if the file was there before and right.
    """

    path: Path
    bytes: int
    sha256: str
    checked: str | None
    resumed_at: int
    fetched: bool


def fetch(
    wanted: Download,
    *,
    force: bool = False,
    progress: Progress | None = None,
    opener: Opener | None = None,
) -> Downloaded:
    """Download a file, or find that it is there already.

    Args:
        wanted: what to fetch.
        force: replace a file of that name that differs.
        progress: called with the bytes that are there and the bytes in all, if known.
        opener: in place of the usual one, which speaks HTTPS only, honours the proxy settings of
            the environment, follows at most five redirects and gives up connecting in 5 seconds.

    Raises:
        DownloadError: no network, refused by the server, another size or digest than expected, or
            broken off; what arrived of the right file is kept for the next call.
        OutputError: the target exists and differs, its folder cannot be written to, the disk has
            no room, or another process is downloading the same file.
    """
    target = wanted.target
    try:
        there = _existing(wanted, force)
        if there is not None:
            return there
        if opener is None:
            https_only(wanted.url)
            opener = make_opener()
        with _folder(target.parent), open_partial(target) as part:
            try:
                resumed = _Transfer(wanted, part, opener, progress).run()
                return _finish(wanted, part, resumed, force)
            finally:
                part.remove_if_empty()
    except (DownloadError, OutputError):
        raise
    except OSError as exc:
        hint = "; what has arrived is kept" if part_of(target).exists() else ""
        raise OutputError(f"cannot write {target}: {exc.strerror or exc}{hint}") from exc


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder; if nothing has come into it in the end, it was not wanted."""
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()


def digests_of(path: Path) -> tuple[int, str, str]:
    """Size, sha256 and git's SHA-1 of a file, hex; read in pieces."""
    size = path.stat().st_size
    plain, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            plain.update(piece)
            blob.update(piece)
    return size, plain.hexdigest(), blob.hexdigest()


def _existing(wanted: Download, force: bool) -> Downloaded | None:
    """The file that is there already if it is the right one; ``None`` if one is to be fetched."""
    target = wanted.target
    if not (target.exists() or target.is_symlink()):
        return None
    if not target.is_file():
        raise OutputError(f"{target} is not a regular file: choose another folder")
    size, sha256, blob = digests_of(target)
    problem, checked = _compare(wanted, size, sha256, blob)
    if problem is None and checked is not None:
        return Downloaded(target, size, sha256, checked, 0, fetched=False)
    if force:
        return None
    why = problem or "no digest is published to tell whether it is the same file"
    raise OutputError(
        f"{target} exists and {why}: use --force to download it again or choose another folder"
    )


def _compare(wanted: Download, size: int, sha256: str, blob: str) -> tuple[str | None, str | None]:
    """What is wrong with a file, and which digest says that nothing is."""
    if wanted.size is not None and size != wanted.size:
        return f"has {size} bytes, expected {wanted.size}", None
    if wanted.sha256 is not None:
        wrong = f"has sha256 {sha256}, expected {wanted.sha256}"
        return (None, "sha256") if sha256 == wanted.sha256 else (wrong, None)
    if wanted.git_blob is not None:
        wrong = f"has git id {blob}, expected {wanted.git_blob}"
        return (None, "git_blob") if blob == wanted.git_blob else (wrong, None)
    return ("is empty" if size == 0 else None), None


def _finish(wanted: Download, part: PartialFile, resumed: int, force: bool) -> Downloaded:
    if not len(part):
        part.remove()
        raise DownloadError(f"{wanted.url} sent an empty file")
    size, sha256, blob = digests_of(part.path)
    problem, checked = _compare(wanted, size, sha256, blob)
    if problem is not None:
        part.remove()
        raise DownloadError(
            f"what {wanted.url} sent {problem}: it was thrown away; a damaged transfer or another "
            "file, compare with the publisher's page before using it"
        )
    part.publish(force=force)
    return Downloaded(wanted.target, size, sha256, checked, resumed, fetched=True)


class _BrokenOffError(Exception):
    """The connection ended too early."""


class _Transfer:
    """Brings a partial file to its full length.

    Attributes:
        resumed: bytes of an earlier call that were kept.
    """

    def __init__(
        self, wanted: Download, part: PartialFile, opener: Opener, progress: Progress | None
    ) -> None:
        self.wanted, self.part, self.opener, self.progress = wanted, part, opener, progress
        self.resumed = 0

    def run(self) -> int:
        """Request until the file is complete; returns the bytes that were kept from before."""
        self._keep_what_may_be_continued()
        for attempt in range(_ATTEMPTS):
            before = len(self.part)
            try:
                if self._request(before):
                    return self.resumed
            except _BrokenOffError as exc:
                have = len(self.part)
                if have <= before or attempt == _ATTEMPTS - 1:
                    raise DownloadError(
                        f"{exc} after {have} bytes of {self.wanted.target.name}: they are kept, "
                        "run the same command again to go on"
                    ) from exc
        raise DownloadError(f"{self.wanted.url} does not send the file as a whole: try again later")

    def _keep_what_may_be_continued(self) -> None:
        source, have = self.part.source(), len(self.part)
        digest = self.wanted.sha256 or self.wanted.git_blob
        same = source.get("url") == self.wanted.url and (source.get("validator") or digest)
        if not same or (self.wanted.size is not None and have > self.wanted.size):
            self.part.discard()
            return
        self.resumed = have

    def _begin_anew(self) -> None:
        self.part.discard()
        self.resumed = 0

    def _request(self, start: int) -> bool:
        """One request; true when the file is complete, false to try once more from the start."""
        if self.wanted.size is not None and start == self.wanted.size:
            return True
        headers = {"Accept-Encoding": "identity"}
        validator = self.part.source().get("validator")
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = str(validator)
        try:
            response = open_url(self.opener, self.wanted.url, headers)
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                    return self._past_the_end(exc.headers.get("Content-Range"), start)
                reason = f"{exc.code} {exc.reason}"
            raise DownloadError(
                f"{self.wanted.url} answered {reason}: the file may have moved, see its page"
            ) from None
        with response:
            if response.status == http.client.PARTIAL_CONTENT and not self._continues(
                response, start
            ):
                return False
            total = self._accept(response)
            self.part.remember(self.wanted.url, _validator(response.headers))
            self._copy(response, total)
        return True

    def _past_the_end(self, content_range: str | None, start: int) -> bool:
        """The server has nothing behind what is there: it is complete, or it is another file."""
        if (content_range or "").rpartition("/")[2] == str(start):
            return True
        self._begin_anew()
        return False

    def _continues(self, response: Any, start: int) -> bool:
        """Whether a partial answer begins where the file ends."""
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is not None and int(match[1]) == start and start:
            return True
        self._begin_anew()
        return False

    def _accept(self, response: Any) -> int | None:
        """Bytes in all that an answer promises; a full answer drops what was there."""
        url, headers, wanted = self.wanted.url, response.headers, self.wanted.size
        total: int | None = None
        if response.status == http.client.PARTIAL_CONTENT:
            text = headers["Content-Range"].rpartition("/")[2]
        elif response.status == http.client.OK:
            self.part.restart()
            self.resumed = 0
            text = headers.get("Content-Length", "")
        else:
            raise DownloadError(f"{url} answered {response.status}, expected 200 or 206")
        if headers.get("Content-Type", "").partition(";")[0].strip() == "text/html":
            self._begin_anew()
            raise DownloadError(f"{url} answered with a web page in place of the file")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{url} sends {headers['Content-Encoding']} data, unasked")
        if text.isdecimal():
            total = int(text)
        if total is not None and wanted is not None and total != wanted:
            self._begin_anew()
            raise DownloadError(f"{url} offers {total} bytes, expected {wanted}: not the same file")
        total = wanted if total is None else total
        whole = headers.get("Transfer-Encoding", "") == "chunked" or self.wanted.sha256
        if total is None and not (whole or self.wanted.git_blob):
            raise DownloadError(f"{url} does not say how long the file is, so its end is unknown")
        self._check_room(total)
        return total

    def _check_room(self, total: int | None) -> None:
        if total is None:
            return
        folder = self.wanted.target.parent
        needed = total - len(self.part) + _MARGIN_BYTES
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise OutputError(
                f"{folder} has {free // 1_000_000} MB free, {needed // 1_000_000} MB are needed: "
                "make room or choose another folder with -o"
            )

    def _copy(self, response: Any, total: int | None) -> None:
        done, limit = len(self.part), _LARGEST if total is None else total
        self._tell(done, total)
        while True:
            try:
                piece = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as exc:
                text = one_line(exc)
                raise _BrokenOffError(f"the connection failed ({text})") from exc
            if not piece:
                break
            done += len(piece)
            if done > limit:
                self._begin_anew()
                raise DownloadError(f"{self.wanted.url} sends more than {limit} bytes")
            self.part.append(piece)
            self._tell(done, total)
        if total is not None and done < total:
            raise _BrokenOffError(f"the connection ended, {total} bytes were promised,")

    def _tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _validator(headers: Any) -> str | None:
    """What ``If-Range`` may hold: a strong ETag, or the date of the last change."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    date = headers.get("Last-Modified")
    return str(date) if date else None
