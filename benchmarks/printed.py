"""Tables in the documents that commands print: fill them in again, or say which are out of date.

    python benchmarks/printed.py [--check] [PAGE ...]

A block of a page between `<!-- printed by: python benchmarks/NAME.py ... -->` and `<!-- end -->`
is what that command prints from recorded results.  Without pages: the README and those in `docs`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"^(<!-- printed by: python (benchmarks/[^\n]+?) -->\n)(.*?)^(<!-- end -->)$",
    re.MULTILINE | re.DOTALL,
)


def printed(words: str) -> str:
    """What `python WORDS` prints, run in the checkout.

    Raises:
        SystemExit: it fails.
    """
    done = subprocess.run(
        [sys.executable, *shlex.split(words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"python {words} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def filled(text: str, run: Callable[[str], str] = printed) -> tuple[str, list[str]]:
    """A page with its blocks filled, and the commands of those that were out of date."""
    stale = []

    def fill(match: re.Match[str]) -> str:
        begin, words, old, end = match.groups()
        new = f"\n{run(words)}\n\n"
        if new != old:
            stale.append(words)
        return f"{begin}{new}{end}"

    return BLOCK.sub(fill, text), stale


def main(argv: list[str] | None = None) -> int:
    """Fill the blocks, or with --check exit with 1 if one is out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    args = parser.parse_args(argv)
    status = 0
    for page in args.pages or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text, stale = filled(page.read_text("utf-8"))
        for words in stale:
            print(f"{page}: {'out of date' if args.check else 'filled in'}: python {words}")
        if stale and not args.check:
            page.write_text(text, "utf-8")
        status |= bool(stale) and args.check
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
