"""What is known of one compiled engine: its key, its tensors, how it was built and verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from samrt.engines.options import ShapeRange
from samrt.errors import BundleError
from samrt.manifest import TensorSpec
from samrt.manifest_artifacts import Artifact
from samrt.schema import problems as schema_problems

__all__ = [
    "ANY_DEVICE",
    "RECORD_VERSION",
    "EngineKey",
    "EngineRecord",
    "model_digest",
    "read_record",
]

RECORD_VERSION = 1
ANY_DEVICE = "any"
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TEXT = {"type": "string"}
_SIZES = {"type": "array", "items": {"type": "integer", "minimum": 1}}
_SHAPE = {"type": "array", "items": {"type": ["integer", "string"]}}
_TENSOR = {
    "type": "object",
    "required": ["name", "dtype", "shape"],
    "properties": {"name": _TEXT, "dtype": _TEXT, "shape": _SHAPE},
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["record_version", "key", "file", "bytes", "sha256", "inputs", "outputs", "ranges"],
    "properties": {
        "record_version": {"type": "integer"},
        "file": {"type": "string", "pattern": "^engine-[0-9a-f]{12}\\.plan$"},
        "bytes": {"type": "integer", "minimum": 1},
        "sha256": _DIGEST,
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": _TENSOR},
        "ranges": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "smallest", "best", "largest"],
                "properties": {
                    "name": _TEXT, "smallest": _SIZES, "best": _SIZES, "largest": _SIZES,
                },
            },
        },
        "build": {"type": "object"},
        "verification": {"type": ["object", "null"]},
        "key": {
            "type": "object",
            "required": [
                "model_sha256", "runtime", "version", "device", "driver", "targets", "flags",
            ],
            "properties": {
                "model_sha256": _DIGEST,
                "runtime": _TEXT,
                "version": _TEXT,
                "device": _TEXT,
                "driver": _TEXT,
                "targets": {"type": "array", "items": _TEXT},
                "flags": {"type": "object"},
            },
        },
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that an engine depends on.

    Attributes:
        model_sha256: :func:`model_digest` of the ONNX file it was built from.
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        version: version of the runtime.
        device: name and generation of the GPU it was built on, or ``any``.
        driver: version of that GPU's driver (what CUDA it supports), or ``any``.
        targets: GPU generations it was built for; empty where the runtime chose.
        flags: options of the build that change the engine.
    """

    model_sha256: str
    runtime: str
    version: str
    device: str = ANY_DEVICE
    driver: str = ANY_DEVICE
    targets: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """32 hex digits over all of it."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def as_dict(self) -> dict[str, Any]:
        """Return a plain, JSON-ready dictionary."""
        return {
            "model_sha256": self.model_sha256,
            "runtime": self.runtime,
            "version": self.version,
            "device": self.device,
            "driver": self.driver,
            "targets": list(self.targets),
            "flags": dict(self.flags),
        }


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """The manifest of one engine in the cache.

    Attributes:
        key: what it depends on.
        file: name of the engine file beside the manifest.
        bytes: its size.
        sha256: its digest.
        inputs: what it takes; free sizes are letters.
        outputs: what it returns.
        ranges: name of each input with free sizes -> sizes it takes.
        build: how it was built: model, role, precision, seconds, layers, warnings, when, by what.
        verification: record of the comparison with the FP32 model; ``None`` until there is one.
            :mod:`samrt.gate` judges it; an engine that it refuses is not loaded.
    """

    key: EngineKey
    file: str
    bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: Mapping[str, ShapeRange]
    build: Mapping[str, Any] = field(default_factory=dict)
    verification: Mapping[str, Any] | None = None

    def with_verification(self, figures: Mapping[str, Any]) -> EngineRecord:
        """The same with other figures."""
        return replace(self, verification=dict(figures))

    def as_dict(self) -> dict[str, Any]:
        """Return the manifest, ready for JSON."""
        return {
            "record_version": RECORD_VERSION,
            "key": self.key.as_dict(),
            "file": self.file,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "inputs": [_tensor(spec) for spec in self.inputs],
            "outputs": [_tensor(spec) for spec in self.outputs],
            "ranges": [{"name": name, **asdict(sizes)} for name, sizes in self.ranges.items()],
            "build": dict(self.build),
            "verification": None if self.verification is None else dict(self.verification),
        }


def read_record(document: object, where: str) -> EngineRecord:
    """A manifest read back.

    Raises:
        BundleError: not the manifest of an engine, or of another version of samrt.
    """
    version = document.get("record_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != RECORD_VERSION:
        raise BundleError(
            f"{where} has record version {version}, this samrt reads {RECORD_VERSION}: "
            "build the engine again"
        )
    found = schema_problems(document, _SCHEMA)
    if found or not isinstance(document, dict):
        raise BundleError(f"{where} is not the manifest of an engine: {'; '.join(found[:3])}")
    key = document["key"]
    return EngineRecord(
        key=EngineKey(
            model_sha256=key["model_sha256"],
            runtime=key["runtime"],
            version=key["version"],
            device=key["device"],
            driver=key["driver"],
            targets=tuple(key["targets"]),
            flags=key["flags"],
        ),
        file=document["file"],
        bytes=document["bytes"],
        sha256=document["sha256"],
        inputs=_specs(document["inputs"]),
        outputs=_specs(document["outputs"]),
        ranges={
            item["name"]: ShapeRange(
                tuple(item["smallest"]), tuple(item["best"]), tuple(item["largest"])
            )
            for item in document["ranges"]
        },
        build=document.get("build", {}),
        verification=document.get("verification"),
    )


def model_digest(artifact: Artifact) -> str:
    """Digest of an ONNX file and of its data files: the file's sha256 where it has none."""
    if not artifact.data:
        return artifact.sha256
    parts = [artifact.sha256, *(f"{d.file}={d.sha256}" for d in artifact.data)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in items)
