"""A model repository for NVIDIA Triton Inference Server, from the files of a bundle.

    DIR/NAME_encoder/config.pbtxt, DIR/NAME_encoder/1/model.onnx (or model.plan)
    DIR/NAME_decoder/config.pbtxt, DIR/NAME_decoder/1/model.onnx (or model.plan)

The encoder's graph takes one image, so ``max_batch_size`` is 1 and ``dynamic_batching`` gives it
a bounded queue with a time limit. The decoder takes one embedding and any number of prompts about
it. Triton would join the embeddings of different images into one batch, which the graph does not
take, so its ``max_batch_size`` is 0 and the prompts are a free size: a client sends all prompts
of an image in one request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from samrt.bundle import Bundle
from samrt.engines.bundles import ROLES, Outcome
from samrt.errors import OptionError, OutputError
from samrt.imaging.write import check_targets, write_files
from samrt.manifest import Artifact, TensorSpec

__all__ = ["QueueRules", "config_text", "plan_repository", "write_repository"]

_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
_LONGEST_QUEUE = 100_000


@dataclass(frozen=True, slots=True)
class QueueRules:
    """How long a request may wait.

    Attributes:
        size: most requests that wait, 1 to 100000; more are turned away at once.
        timeout_ms: longest wait of a request in milliseconds; later ones are turned away.
        instances: copies of the model that run at the same time, 1 to 64.

    Raises:
        OptionError: a value out of range.
    """

    size: int = 64
    timeout_ms: int = 10_000
    instances: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _LONGEST_QUEUE:
            raise OptionError(f"queue size must be 1 to {_LONGEST_QUEUE}, got {self.size}")
        if not 1 <= self.timeout_ms <= 3_600_000:
            raise OptionError(f"queue timeout must be 1 to 3600000 ms, got {self.timeout_ms}")
        if not 1 <= self.instances <= 64:
            raise OptionError(f"instances must be 1 to 64, got {self.instances}")


def write_repository(
    folder: Path,
    bundle: Bundle,
    *,
    precision: str = "auto",
    engines: Sequence[Outcome] = (),
    rules: QueueRules | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the repository, all files or none.

    Args:
        folder: the repository; other models in it are left alone.
        bundle: the model.
        precision: which of the bundle's ONNX files.
        engines: TensorRT engines to serve in place of the ONNX files.
        rules: of the encoder's queue.
        force: replace files that exist.

    Returns:
        The files written.

    Raises:
        OptionError: engines of a runtime that Triton does not serve.
        OutputError: a file exists, or the disk refused; everything is as before.
    """
    files = plan_repository(
        folder, bundle, precision=precision, engines=engines, rules=rules or QueueRules()
    )
    check_targets(files, force=force, inputs=[p for p in files.values() if isinstance(p, Path)])
    content = {
        path: item if isinstance(item, bytes) else _read(item) for path, item in files.items()
    }
    write_files(content, force=force)
    return list(content)


def plan_repository(
    folder: Path,
    bundle: Bundle,
    *,
    precision: str,
    engines: Sequence[Outcome],
    rules: QueueRules,
) -> dict[Path, bytes | Path]:
    """Each file of the repository and its content, or where its content lies."""
    foreign = [o.record.key.runtime for o in engines if o.record.key.runtime != "tensorrt"]
    if foreign:
        raise OptionError(
            f"Triton does not serve engines of {foreign[0]}: leave --runtime out for the ONNX "
            "files, or use --runtime tensorrt"
        )
    by_role = {outcome.role: outcome for outcome in engines}
    files: dict[Path, bytes | Path] = {}
    for role in ROLES:
        artifact = bundle.artifact(role, precision)
        name = f"{bundle.manifest.name}_{role}"
        engine = by_role.get(role)
        text = config_text(
            name, artifact, rules, model_id=bundle.model_id, engine=engine is not None
        )
        files[folder / name / "config.pbtxt"] = text.encode()
        version = folder / name / "1"
        if engine is not None:
            files[version / "model.plan"] = engine.path
            continue
        files[version / "model.onnx"] = bundle.file_of(artifact)
        base = PurePosixPath(artifact.file).parent
        for item in artifact.data:  # the ONNX file names them relative to itself
            files[version / PurePosixPath(item.file).relative_to(base)] = bundle.path / item.file
    files[folder / f"{bundle.manifest.name}_encoder" / "samrt_manifest.json"] = (
        bundle.path / "manifest.json"
    )
    return files


def config_text(
    name: str, artifact: Artifact, rules: QueueRules, *, model_id: str, engine: bool
) -> str:
    """``config.pbtxt`` of one model, in protobuf's text format."""
    batched = artifact.role == "encoder"
    backend = 'platform: "tensorrt_plan"' if engine else 'backend: "onnxruntime"'
    lines = [
        f"# {model_id}, {artifact.role}, {artifact.precision}; written by samrt build --triton.",
        f"name: {json.dumps(name)}",
        backend,
        f"max_batch_size: {1 if batched else 0}",
    ]
    for side, specs in (("input", artifact.inputs), ("output", artifact.outputs)):
        lines += [line for spec in specs for line in _tensor(side, spec, batched=batched)]
    kind = "KIND_GPU" if engine else "KIND_AUTO"
    lines += [f"instance_group [ {{ count: {rules.instances} kind: {kind} }} ]"]
    if batched:
        lines += [
            "dynamic_batching {",
            "  default_queue_policy {",
            "    timeout_action: REJECT",
            f"    default_timeout_microseconds: {rules.timeout_ms * 1000}",
            "    allow_timeout_override: true",
            f"    max_queue_size: {rules.size}",
            "  }",
            "}",
        ]
    facts: Mapping[str, str] = {
        "samrt_model_id": model_id,
        "samrt_role": artifact.role,
        "samrt_precision": artifact.precision,
    }
    for key, value in facts.items():
        lines.append(
            f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
        )
    return "\n".join(lines) + "\n"


def _tensor(side: str, spec: TensorSpec, *, batched: bool) -> list[str]:
    """One tensor; a batched model's first size is left to Triton."""
    sizes = spec.shape[1:] if batched else spec.shape
    dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in sizes)
    return [
        f"{side} [ {{ name: {json.dumps(spec.name)} data_type: {_TYPES[spec.dtype]} "
        f"dims: [ {dims} ] }} ]"
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise OutputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
