"""``samrt models``: what is installed, which families there are, where checkpoints are."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["add_subparser", "list_catalogue", "list_models", "run"]


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "models",
        help="list installed models, model families and public checkpoints",
        description="List the models that ship with samrt (size, licence, sha256), the families "
        "that samrt export knows, and the public checkpoints that samrt pull downloads. A bundle "
        "folder (NAME.samrt) elsewhere is used by giving its path as --model. Nothing is "
        "downloaded.",
        allow_abbrev=False,
    )
    parser.add_argument("--installed", action="store_true", help="list installed models only")
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
    files = list(bundle.files().values())
    return {
        "name": manifest.name,
        "model_id": bundle.model_id,
        "family": manifest.family,
        "variant": manifest.variant,
        "precisions": list(bundle.precisions()),
        "input_size": list(manifest.input.size),
        "bytes": sum(item.bytes for item in files),
        "license": manifest.source["license"],
        "intended_use": manifest.source["intended_use"],
        "sha256": bundle.sha256,
        "files": {item.file: {"bytes": item.bytes, "sha256": item.sha256} for item in files},
        "path": str(path),
    }


def list_catalogue() -> dict[str, Any]:
    """Families and checkpoints, ready for JSON."""
    from samrt.catalogue import load_catalogue

    catalogue = load_catalogue()
    return {
        "families": [asdict(family) for family in catalogue.families],
        "checkpoints": [asdict(checkpoint) for checkpoint in catalogue.checkpoints],
    }


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.cli._report import print_json, print_table, say

    rows = list_models()
    known = {} if args.installed else list_catalogue()
    if args.json:
        print_json({"models": rows, **known})
        return 0
    if rows:
        print_table(_installed_table(rows))
    else:
        say("no models are installed: give the path of a bundle folder as --model")
    if known:
        say("")
        print_table(_family_table(known["families"]))
        say("")
        print_table(_checkpoint_table(known["checkpoints"]))
        say("")
        say("samrt pull NAME downloads a checkpoint, samrt export FILE makes a model of it;")
        say("by hand: the authors offer no direct address, samrt pull NAME says what to do.")
    return 0


def _installed_table(rows: list[dict[str, Any]]) -> list[list[str]]:
    from samrt.cli._report import size_text

    table = [["INSTALLED", "SIZE", "PRECISION", "INPUT", "SHA256", "LICENCE"]]
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
    return table


def _family_table(families: list[dict[str, Any]]) -> list[list[str]]:
    table = [["FAMILY", "MODELS", "INPUT", "PROMPTS"]]
    table += [[f["name"], f["title"], f["input"], f["prompts"]] for f in families]
    return table


def _checkpoint_table(checkpoints: list[dict[str, Any]]) -> list[list[str]]:
    from samrt.cli._report import size_text

    table = [["CHECKPOINT", "FAMILY", "SIZE", "DIGEST", "LICENCE", "FROM"]]
    for row in checkpoints:
        terms = row["license"]
        digest = "sha256" if row["sha256"] else "git id" if row["git_blob"] else "none published"
        table.append(
            [
                row["name"],
                row["family"],
                size_text(row["bytes"]) if row["bytes"] else "unknown",
                digest if row["url"] else "-",
                terms["name"] + (" (non-commercial)" if terms["commercial"] is False else ""),
                row["url"] or f"by hand: {row['page']}",
            ]
        )
    return table
