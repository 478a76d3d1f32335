"""The model files of a bundle as typed values, and whether they fit the manifest's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt.manifest import InputSpec, Manifest, PromptSpec

__all__ = ["Artifact", "DataFile", "TensorSpec", "artifact_problems", "read_artifact"]

_EXACT = ("point_coords", "point_labels")
_RESULTS = ("low_res_masks", "iou_predictions")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one model input or output; a string in a shape is a free size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        sizes = ", ".join(str(size) for size in self.shape)
        return f"{self.name} {self.dtype}[{sizes}]"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that a model file reads its weights from, relative to the bundle folder."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """One model file of a bundle; ``file`` is relative to the bundle folder.

    ``data`` lists the files of external weights that belong to it: ONNX names them relative to
    the model file, so they lie in its folder or below. Artifacts may share such files.

    ``runtime`` names the only backend that a model file is for, ``operators`` the set of samrt's
    own operators that it needs, such as ``samrt/1``; both are ``None`` for the canonical form,
    which every backend can open.
    """

    role: str
    file: str
    format: str
    precision: str
    opset: int | None
    bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: tuple[DataFile, ...] = ()
    runtime: str | None = None
    operators: str | None = None

    @property
    def form(self) -> str:
        """``canonical``, or ``cpu`` for the form in samrt's own operators."""
        return "canonical" if self.runtime is None else "cpu"

    @property
    def all_files(self) -> tuple[Artifact | DataFile, ...]:
        """The model file itself, then its data files."""
        return (self, *self.data)

    @property
    def total_bytes(self) -> int:
        """Bytes of the model file and of its data files."""
        return sum(item.bytes for item in self.all_files)


def read_artifact(doc: Mapping[str, Any]) -> Artifact:
    """One entry of the manifest's ``artifacts``, already checked against the schema."""

    def specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in items)

    return Artifact(
        role=doc["role"],
        file=doc["file"],
        format=doc["format"],
        precision=doc["precision"],
        opset=doc.get("opset"),
        bytes=doc["bytes"],
        sha256=doc["sha256"],
        inputs=specs(doc["inputs"]),
        outputs=specs(doc["outputs"]),
        data=tuple(DataFile(d["file"], d["bytes"], d["sha256"]) for d in doc.get("data", ())),
        runtime=doc.get("runtime"),
        operators=doc.get("operators"),
    )


def artifact_problems(manifest: Manifest) -> list[str]:
    """What is wrong with the artifacts of a manifest; nothing is read from disk."""
    return _file_problems(manifest) + _role_problems(manifest)


def _file_problems(manifest: Manifest) -> list[str]:
    found = []
    seen: dict[str, Artifact | DataFile] = {}
    for artifact in manifest.artifacts:
        folder = PurePosixPath(artifact.file).parent
        for item in artifact.all_files:
            name, path = item.file, PurePosixPath(item.file)
            what = "artifact file" if item is artifact else f"data file of {artifact.file}"
            if re.search(r"[\\:\x00]", name) or name.startswith("/") or ".." in path.parts:
                found.append(f"{what} {name!r}: must be a relative path inside the bundle")
            elif path.name == "manifest.json" or seen.get(str(path), item) != item:
                found.append(f"{what} {name!r}: name used twice")
            elif not path.is_relative_to(folder):
                found.append(f"{what} {name!r}: must lie beside or below the model file")
            elif isinstance(item, Artifact) and str(path) in seen:
                found.append(f"{what} {name!r}: name used twice")
            seen[str(path)] = item
    return found


def _role_problems(manifest: Manifest) -> list[str]:
    by_role: dict[str, list[Artifact]] = {"encoder": [], "decoder": []}
    for artifact in manifest.artifacts:
        by_role[artifact.role].append(artifact)
    found = []
    for role, items in by_role.items():
        kinds = [" ".join(_kind(item)) for item in items]
        if not items:
            found.append(f"artifacts: no {role}")
        found += [f"artifacts: {kind} {role} listed twice" for kind in _repeated(kinds)]
        for item in items:
            found += _form_problems(item, items)
            for side, specs in (("input", item.inputs), ("output", item.outputs)):
                names = [spec.name for spec in specs]
                found += [f"{item.file}: {side} {n!r} listed twice" for n in _repeated(names)]
    canonical = {a.precision for a in by_role["encoder"] if a.runtime is None}
    if manifest.precision not in canonical:
        found.append(f"precision: no encoder of precision {manifest.precision}")
    for encoder in by_role["encoder"]:
        found += _encoder_problems(encoder, manifest.input)
        for decoder in by_role["decoder"]:
            found += _decoder_problems(encoder, decoder, manifest)
    return list(dict.fromkeys(found))


def _kind(item: Artifact) -> tuple[str, ...]:
    """What may be there once in a role."""
    return (item.precision,) if item.runtime is None else (item.precision, item.runtime)


def _form_problems(item: Artifact, others: Sequence[Artifact]) -> list[str]:
    """A form for one runtime stands beside a canonical one with the same inputs and outputs."""
    if item.runtime is None:
        alone = item.operators is not None
        return [f"{item.file}: 'operators' without 'runtime'"] if alone else []
    if item.operators is None:
        return [f"{item.file}: 'runtime' without 'operators'"]
    twins = [a for a in others if a.runtime is None and a.precision == item.precision]
    if not twins:
        return [f"{item.file}: no {item.precision} {item.role} that every backend can open"]
    if (twins[0].inputs, twins[0].outputs) != (item.inputs, item.outputs):
        return [f"{item.file}: inputs or outputs differ from those of {twins[0].file}"]
    return []


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _encoder_problems(encoder: Artifact, spec: InputSpec) -> list[str]:
    want = TensorSpec("image", spec.dtype, (1, 3, *spec.size))
    half = TensorSpec("image", "float16", want.shape)
    if encoder.inputs != (want,) and not (
        encoder.precision == "fp16" and encoder.inputs == (half,)
    ):
        got = ", ".join(str(item) for item in encoder.inputs)
        return [f"{encoder.file}: inputs are ({got}), expected ({want})"]
    free = [spec for spec in encoder.outputs if any(isinstance(s, str) for s in spec.shape)]
    return [f"{encoder.file}: output {spec} must have fixed sizes" for spec in free]


def _decoder_problems(encoder: Artifact, decoder: Artifact, manifest: Manifest) -> list[str]:
    out, prompts = manifest.output, manifest.prompts
    low = out.low_res_size
    wanted: dict[str, tuple[int | str, ...]] = {}
    if prompts.takes_prompts:
        wanted.update({"point_coords": ("N", "P", 2), "point_labels": ("N", "P")})
    if prompts.mask:
        wanted["mask_input"] = ("N", 1, *low)
        wanted["has_mask_input"] = ("N",)
    wanted.update({spec.name: spec.shape for spec in encoder.outputs})
    results: dict[str, tuple[int | str, ...]] = {
        "low_res_masks": ("N", out.num_masks, *low),
        "iou_predictions": ("N", out.num_masks),
    }
    found = []
    for side, specs, expected in (
        ("input", decoder.inputs, wanted),
        ("output", decoder.outputs, results),
    ):
        have = {spec.name: spec for spec in specs}
        for name, shape in expected.items():
            if name not in have:
                found.append(f"{decoder.file}: {side} {name!r} missing")
            elif not _fits(_sizes(have[name], prompts), shape) or not _dtype_fits(have[name]):
                dtype = have[name].dtype if _dtype_fits(have[name]) else "float32"
                want = TensorSpec(name, dtype, shape)
                found.append(f"{decoder.file}: {side} {have[name]} should be {want}")
        if side == "input":
            extra = sorted(set(have) - set(expected))
            found += [f"{decoder.file}: input {name!r} is not known" for name in extra]
    return found


def _sizes(spec: TensorSpec, prompts: PromptSpec) -> tuple[int | str, ...]:
    """Without prompts there is one answer per image: a batch of 1 is as good as a free one."""
    fixed = not prompts.takes_prompts and spec.shape[:1] == (1,)
    return ("N", *spec.shape[1:]) if fixed and spec.name in _RESULTS else spec.shape


def _dtype_fits(spec: TensorSpec) -> bool:
    """Coordinates need float32: half precision cannot tell half pixels of a 1024-pixel frame."""
    return spec.dtype == "float32" or (spec.dtype == "float16" and spec.name not in _EXACT)


def _fits(shape: tuple[int | str, ...], wanted: tuple[int | str, ...]) -> bool:
    """Whether free sizes are free where they must be and all other sizes agree."""
    if len(shape) != len(wanted):
        return False
    pairs = zip(shape, wanted, strict=True)
    return all(
        isinstance(got, str) if isinstance(want, str) else got == want for got, want in pairs
    )
