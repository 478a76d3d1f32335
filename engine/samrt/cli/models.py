"""``samrt models``: the models that ship inside the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_subparser", "list_models", "run"]


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "models",
        help="list the installed models",
        description="List the models that ship with samrt: size, licence, sha256. A bundle "
        "folder (NAME.samrt) elsewhere is used by giving its path as --model.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def list_models() -> list[dict[str, Any]]:
    """One JSON-ready row per model; a damaged one carries ``error`` in place of its facts."""
    from samrt.bundle import available_models

    return [_describe(name, path) for name, path in available_models().items()]


def _describe(name: str, path: Path) -> dict[str, Any]:
    from samrt.bundle import Bundle
    from samrt.errors import SamrtError

    try:
        bundle = Bundle.open(path)
    except SamrtError as exc:
        return {"name": name, "path": str(path), "error": str(exc)}
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "model_id": bundle.model_id,
        "family": manifest.family,
        "variant": manifest.variant,
        "precisions": list(bundle.precisions()),
        "input_size": list(manifest.input.size),
        "bytes": sum(artifact.bytes for artifact in manifest.artifacts),
        "license": manifest.source["license"],
        "intended_use": manifest.source["intended_use"],
        "sha256": bundle.sha256,
        "files": {a.file: {"bytes": a.bytes, "sha256": a.sha256} for a in manifest.artifacts},
        "path": str(path),
    }


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.cli._report import print_json, print_table, say, size_text

    rows = list_models()
    if args.json:
        print_json({"models": rows})
    elif not rows:
        say("no models are installed: give the path of a bundle folder as --model")
    else:
        table = [["NAME", "SIZE", "PRECISION", "INPUT", "SHA256", "LICENCE"]]
        for row in rows:
            if "error" in row:
                table.append([row["name"], "damaged:", str(row["error"])])
                continue
            height, width = row["input_size"]
            table.append(
                [
                    str(row["name"]),
                    size_text(row["bytes"]),
                    ", ".join(row["precisions"]),
                    f"{width} x {height}",
                    row["sha256"][:12],
                    str(row["license"]),
                ]
            )
        print_table(table)
    return 0
