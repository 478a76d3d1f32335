"""``samrt info``: what is installed here and what it can do; or what one model is."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_subparser", "collect", "run"]


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "info",
        help="show versions, native code, backends, models and limits; or one model",
        description="Show versions, whether the native code is there and which instructions it "
        "uses, every backend and what it lacks, the installed models, and the limits on input. "
        "With MODEL show that model instead: its rules, files, precisions, what each was compared "
        "with and how it did, and its licence.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="name of a model or path of its folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def collect() -> dict[str, Any]:
    """Everything the verb shows, ready for JSON."""
    from samrt.backends import available_backends
    from samrt.cli.models import list_models
    from samrt.environment import environment
    from samrt.imaging.sniff import ImageLimits

    limits = ImageLimits()
    return {
        **environment(),
        "native": _native(),
        "operators": _operators(),
        "backends": [
            {"name": b.name, "available": b.available, "missing": list(b.missing)}
            for b in available_backends()
        ],
        "models": list_models(),
        "limits": {
            "max_file_bytes": limits.max_file_bytes,
            "max_pixels": limits.max_pixels,
        },
    }


def _native() -> dict[str, Any]:
    """Whether the C++ kernels can be loaded, and which inner loops they chose."""
    from samrt import _kernels
    from samrt.errors import KernelError

    try:
        _kernels.load()
        return {"available": True, "instruction_set": _kernels.instruction_set(), "error": None}
    except KernelError as exc:
        return {"available": False, "instruction_set": None, "error": str(exc)}


def _operators() -> dict[str, Any]:
    """Whether ONNX Runtime can run the CPU form of encoders here, and why not."""
    from samrt.backends import available_backends
    from samrt.backends.operators import OPERATORS, library_path, library_problem, requested_form
    from samrt.errors import OptionError

    usable = {info.name for info in available_backends() if info.available}
    problem = library_problem() if "onnxruntime" in usable else "ONNX Runtime is not installed"
    try:
        form = requested_form(None)
    except OptionError as exc:
        form, problem = None, str(exc)
    return {
        "version": OPERATORS,
        "available": problem is None,
        "library": None if library_path() is None else str(library_path()),
        "form": form,
        "error": problem,
    }


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from samrt.cli._report import print_json, print_table

    if args.model is not None:
        from samrt.cli._info_model import model_document, model_rows

        document = model_document(args.model)
        if args.json:
            print_json(document)
        else:
            print_table(model_rows(document))
        return 0
    found = collect()
    if args.json:
        print_json(found)
        return 0
    native = found["native"]
    rows = [[name, version or "not installed"] for name, version in found["versions"].items()]
    rows += [
        ["platform", found["platform"]],
        ["processor", f"{found['cpu']['model'] or found['machine']}"],
        ["cpus", f"{found['cpus_usable']} usable of {found['cpus_logical']}"],
        ["native", f"on ({native['instruction_set']})" if native["available"] else native["error"]],
    ]
    ops = found["operators"]
    state = f"on ({ops['version']}, form {ops['form']})" if ops["available"] else ops["error"]
    rows.append(["operators", state])
    for backend in found["backends"]:
        lacks = f"missing: {', '.join(backend['missing'])}"
        rows.append([f"backend {backend['name']}", "available" if backend["available"] else lacks])
    for model in found["models"]:
        rows.append([f"model {model['name']}", model.get("error") or model["model_id"]])
    if not found["models"]:
        rows.append(["models", "none installed"])
    limits = found["limits"]
    rows.append(["largest file", f"{limits['max_file_bytes']} bytes"])
    rows.append(["largest image", f"{limits['max_pixels']} pixels"])
    print_table(rows)
    return 0
