"""``samrt verify``: is a model bundle intact?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["add_subparser", "run"]

_FAILED = 3


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "verify",
        help="check that a model bundle is intact",
        description="Check a model bundle: the manifest against its schema, and presence, size "
        "and sha256 of every file. Exit code 3 if it is damaged.",
        allow_abbrev=False,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="name of a model or path of its folder")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.bundle import Bundle, find_model
    from samrt.cli._report import print_json, print_table, say
    from samrt.errors import BundleError

    path = find_model(args.bundle)
    checks: list[dict[str, Any]] = []
    problem: str | None = None
    model_id: str | None = None
    try:
        bundle = Bundle.open(path, verify="full")
        model_id = bundle.model_id
        checks.append({"name": "schema", "passed": True})
        for artifact in bundle.manifest.artifacts:
            checks.append(
                {
                    "name": f"sha256 of {artifact.file}",
                    "passed": True,
                    "sha256": artifact.sha256,
                    "bytes": artifact.bytes,
                }
            )
    except BundleError as exc:
        problem = " ".join(str(exc).split())
        checks.append({"name": "intact", "passed": False, "problem": problem})
    if args.json:
        print_json(
            {
                "bundle": str(path),
                "model_id": model_id,
                "passed": problem is None,
                "checks": checks,
            }
        )
    elif problem is None:
        print_table([["ok", str(check["name"])] for check in checks])
        say(f"{path} is intact: {model_id}")
    if problem is not None:
        print(f"samrt: verification failed: {problem}", file=sys.stderr)
        return _FAILED
    return 0
