"""The ``samrt`` command: one module per verb.

Exit codes: 0 done; 1 the input or the machine does not allow it (one line on standard error);
2 wrong usage; 3 a verification failed; 130 interrupted. Results go to standard output, remarks
to standard error. Anything that ends in a traceback is a bug in samrt.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import warnings
from collections.abc import Sequence

from samrt._version import __version__
from samrt.cli import _numbers
from samrt.cli._report import flush
from samrt.errors import SamrtError, VerificationError

__all__ = ["build_parser", "main"]

_VERBS = (
    "infer", "export", "quantize", "build", "verify", "bench", "eval", "models", "pull", "info"
)  # fmt: skip
"""Modules of this package, in the order of the help."""


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser with all verbs, or only the one named: the others need not be imported then."""
    parser = argparse.ArgumentParser(
        prog="samrt",
        description="Segment Anything on medical images: a box or a point in, a mask out.",
        epilog="samrt VERB --help says more. Exit codes: 0 done, 1 error, 2 wrong usage, "
        "3 verification failed.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"samrt {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in [verb] if verb in _VERBS else _VERBS:
        importlib.import_module(f"samrt.cli.{name}").add_subparser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = _numbers.join_values(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser(words[0] if words else None).parse_args(words)
        with warnings.catch_warnings():
            _hush_pillow()
            code: int = args.run(args)
        flush()
    except SystemExit as exit_:  # argparse has printed help or what is wrong
        return int(exit_.code or 0)
    except SamrtError as exc:
        print(f"samrt: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return 3 if isinstance(exc, VerificationError) else 1
    except KeyboardInterrupt:
        print("samrt: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: nobody to tell
        return 1
    return code


def _hush_pillow() -> None:
    """Keep Pillow's own remarks about odd files off standard error; errors still come through."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
