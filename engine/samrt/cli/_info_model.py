"""What ``samrt info MODEL`` shows of one bundle."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.manifest_artifacts import Artifact

__all__ = ["model_document", "model_rows"]

_ROLES = ("encoder", "decoder")
_PROMPTS = ("box", "points", "negative_points", "box_and_points", "mask")


def model_document(name: str) -> dict[str, Any]:
    """Everything about a bundle, ready for JSON.

    Args:
        name: of an installed model, or the path of a bundle's folder.

    Raises:
        ModelNotFoundError, BundleError: as :meth:`samrt.bundle.Bundle.open`.
    """
    from samrt.bundle import Bundle, find_model

    bundle = Bundle.open(find_model(name))
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "model_id": bundle.model_id,
        "path": str(bundle.path),
        "family": manifest.family,
        "variant": manifest.variant,
        "input": asdict(manifest.input),
        "prompts": asdict(manifest.prompts),
        "output": asdict(manifest.output),
        "graphs": [_graphs(bundle, precision, form) for precision, form in _choices(bundle)],
        "source": dict(manifest.source),
        "producer": dict(manifest.producer),
    }


def _choices(bundle: Bundle) -> list[tuple[str, str]]:
    """Precision and form of each pair of graphs, the default first."""
    found = []
    for precision in bundle.precisions():
        artifacts = [a for a in bundle.manifest.artifacts if a.precision == precision]
        found += [(precision, form) for form in ("canonical", "cpu")
                  if any(a.role == "encoder" and a.form == form for a in artifacts)]  # fmt: skip
    return found


def _graphs(bundle: Bundle, precision: str, form: str) -> dict[str, Any]:
    from samrt.gate import graph_verdict

    chosen: dict[str, Artifact] = {}
    for role in _ROLES:
        canonical = bundle.artifact(role, precision)
        own = bundle.form_for(canonical, "onnxruntime") if form == "cpu" else None
        chosen[role] = own or canonical
    verdict = graph_verdict(bundle.manifest, chosen)
    return {
        "precision": precision,
        "form": form,
        "runtime": chosen["encoder"].runtime,
        "files": {role: _file(artifact) for role, artifact in chosen.items()},
        "verdict": asdict(verdict),
    }


def _file(artifact: Artifact) -> dict[str, Any]:
    return {
        "file": artifact.file,
        "bytes": artifact.total_bytes,
        "sha256": artifact.sha256,
        "precision": artifact.precision,
        "opset": artifact.opset,
        "inputs": [str(spec) for spec in artifact.inputs],
        "outputs": [str(spec) for spec in artifact.outputs],
    }


def model_rows(document: dict[str, Any]) -> list[list[str]]:
    """The same as rows of a table."""
    rows = [
        ["model", document["model_id"]],
        ["path", document["path"]],
        ["family", f"{document['family']}, {document['variant']}"],
        ["input", _input_text(document["input"])],
        ["prompts", ", ".join(k.replace("_", " ") for k in _PROMPTS if document["prompts"][k])],
        ["masks", _masks_text(document["output"])],
    ]
    for graphs in document["graphs"]:
        label = graphs["precision"] + ("" if graphs["form"] == "canonical" else ", CPU form")
        files = [f"{f['file']} {f['bytes'] / 1e6:.1f} MB" for f in graphs["files"].values()]
        rows += [[label, " + ".join(files)], ["", _verdict_text(graphs["verdict"])]]
    made = ", ".join(f"{name} {version}" for name, version in document["producer"].items())
    return [
        *rows,
        ["licence", str(document["source"].get("license"))],
        ["use", str(document["source"].get("intended_use"))],
        ["made with", made],
    ]


def _input_text(spec: dict[str, Any]) -> str:
    height, width = spec["size"]
    how = f"{spec['resize_kind']}, {spec['interpolation']}".replace("_", " ")
    return f"{height} x {width}, {how}, {spec['normalize_kind'].replace('_', '-')}"


def _masks_text(spec: dict[str, Any]) -> str:
    height, width = spec["low_res_size"]
    choice = spec["mask_choice"].replace("_", " ")
    return f"{spec['num_masks']} of {height} x {width}, the best by {choice}"


def _verdict_text(verdict: dict[str, Any]) -> str:
    if verdict["state"] != "passed":
        return f"{verdict['state']}: {verdict['detail']}"
    mean, worst = verdict["mask_iou_mean"], verdict["mask_iou_worst"]
    return f"passed: mask IoU mean {mean:.5f}, worst {worst:.5f}, {verdict['detail']}"
