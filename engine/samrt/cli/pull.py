"""``samrt pull``: download a public checkpoint."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt.catalogue import Checkpoint
    from samrt.download import Downloaded

__all__ = ["add_subparser", "run"]

_BAR_EVERY_SECONDS = 0.2
_BAR_WIDTH = 30


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "pull",
        help="download a public checkpoint",
        description="Download the checkpoint NAME (samrt models lists them) from its authors' "
        "address: over HTTPS, continued where it broke off, checked, and in place only when it is "
        "complete. It is the only verb that uses a network. samrt export makes a model of it.",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="name of a checkpoint, see samrt models")
    parser.add_argument("-o", "--output-dir", default=".", metavar="DIR", help="folder (default .)")
    parser.add_argument(
        "--accept-license",
        action="store_true",
        help="the licence has been read and is kept; needed where it forbids commercial use",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a file of that name that differs"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.catalogue import load_catalogue
    from samrt.errors import DownloadError, OptionError

    checkpoint = load_catalogue().find(args.name)
    license_ = checkpoint.license
    _remark([f"{checkpoint.title}: {checkpoint.note}", f"licence: {license_.name}, {license_.url}"])
    folder = Path(args.output_dir)
    if checkpoint.url is None or checkpoint.file is None:
        _remark(_by_hand(checkpoint, folder))
        raise DownloadError(f"{checkpoint.name} has no direct address: get it by hand, see above")
    if license_.needs_consent and not args.accept_license:
        limit = "forbids commercial use" if license_.commercial is False else "is not plain"
        raise OptionError(
            f"the licence of {checkpoint.name} {limit} ({license_.name}): read {license_.url} and "
            "add --accept-license if you keep to it"
        )
    try:
        found = _download(checkpoint, folder / checkpoint.file, force=args.force)
    except DownloadError:
        _remark(_by_hand(checkpoint, folder))
        raise
    if args.json:
        from samrt.cli._report import print_json

        print_json(_document(checkpoint, found))
    else:
        _print(checkpoint, found)
    return 0


def _download(checkpoint: Checkpoint, target: Path, *, force: bool) -> Downloaded:
    from samrt.download import Download, fetch

    wanted = Download(
        url=checkpoint.url or "",
        target=target,
        size=checkpoint.bytes,
        sha256=checkpoint.sha256,
        git_blob=checkpoint.git_blob,
    )
    if not _is_terminal():
        return fetch(wanted, force=force)
    bar = _Bar(target.name)
    try:
        return fetch(wanted, force=force, progress=bar)
    finally:
        bar.end()


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _remark(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _by_hand(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """The way without this verb."""
    file = checkpoint.file or "FILE"
    digest = f", sha256 {checkpoint.sha256}" if checkpoint.sha256 else ""
    return [
        "By hand:",
        f"  1. get {file} from {checkpoint.url or checkpoint.page}{digest}",
        f"  2. put it into {folder}",
        f"  3. {_next_step(checkpoint, folder / file)}",
    ]


def _next_step(checkpoint: Checkpoint, path: Path) -> str:
    source, unpack = path, ""
    if path.suffix == ".zip":
        source = path.with_suffix("")
        unpack = f"unzip {quote(str(path))} -d {quote(str(path.parent))} && "
    options = f" {checkpoint.export_options}" if checkpoint.export_options else ""
    return f"{unpack}samrt export {quote(str(source))}{options} -o {checkpoint.name}.samrt"


def _document(checkpoint: Checkpoint, found: Downloaded) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "family": checkpoint.family,
        "variant": checkpoint.variant,
        "url": checkpoint.url,
        "license": checkpoint.license.name,
        "file": str(found.path),
        "bytes": found.bytes,
        "sha256": found.sha256,
        "checked": found.checked,
        "downloaded": found.fetched,
        "resumed_at": found.resumed_at,
    }


def _print(checkpoint: Checkpoint, found: Downloaded) -> None:
    from samrt.cli._report import print_table, say, size_text

    checked = {
        "sha256": "agrees with the sha256 in the catalogue",
        "git_blob": "agrees with the id under which the authors' git repository stores it",
        None: "NOT checked: no digest is published; keep the one above",
    }[found.checked]
    kept = f", {size_text(found.resumed_at)} of it from before" if found.resumed_at else ""
    state = "" if found.fetched else ", was there already"
    print_table(
        [
            ["file", f"{found.path} ({size_text(found.bytes)}{kept}{state})"],
            ["sha256", found.sha256],
            ["checked", checked],
            ["next", _next_step(checkpoint, found.path)],
        ]
    )
    say("Nothing here is for clinical use.")


class _Bar:
    """Progress on a terminal, on one line of standard error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = self._last = 0.0
        self._first_bytes = 0

    def __call__(self, done: int, total: int | None) -> None:
        """Draw, but not more than a few times per second."""
        from samrt.cli._report import size_text

        now = time.monotonic()
        if not self._start:
            self._start, self._first_bytes = now, done
        if now - self._last < _BAR_EVERY_SECONDS and done != total:
            return
        self._last = now
        rate = (done - self._first_bytes) / max(now - self._start, 0.001)
        text = f"{size_text(done)}"
        if total:
            filled = _BAR_WIDTH * done // total
            text = f"[{'#' * filled:{_BAR_WIDTH}}] {text} of {size_text(total)}"
        print(f"\r{self._name} {text}, {size_text(int(rate))}/s\033[K", end="", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line, if there is one."""
        if self._start:
            print(file=sys.stderr)
