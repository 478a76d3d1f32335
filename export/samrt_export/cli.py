"""`samrt-export`: the verbs that need torch or onnx."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from samrt_export.tiny.cli import add_subparser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 bad input (one line on stderr), 2 usage."""
    parser = argparse.ArgumentParser(prog="samrt-export", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_subparser(verbs)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (OSError, ValueError, ImportError) as error:
        print(f"samrt-export: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
