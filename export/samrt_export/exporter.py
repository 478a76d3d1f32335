"""From a checkpoint to a bundle: read, identify, check every key, write graphs, prove, record."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import onnx

from samrt._version import __version__
from samrt.bundle import MANIFEST_NAME, Bundle, write_bundle
from samrt.errors import OptionError, OutputError, VerificationError
from samrt.phantoms import PhantomCase, phantom_cases
from samrt.predictor import Predictor, load
from samrt_export.cpu_form import CpuForms, wants_cpu_form
from samrt_export.graph import GraphBuilder
from samrt_export.loading import Loaded, Size, Source, load_network, load_reference
from samrt_export.manifests import artifact, document
from samrt_export.precision import add_precision
from samrt_export.precision.trial import Reference
from samrt_export.reference_model import TorchModel
from samrt_export.verify import (
    CropDeviation,
    VerificationRecord,
    compare,
    crop_deviation,
    image_files,
    store_record,
)
from samrt_export.weights import WeightStore

__all__ = ["export", "load_network", "load_reference"]

Progress = Callable[[str], None]
HEAVY_PARAMETERS = 200_000_000
SHARED_FROM_BYTES = 8_000_000


def export(
    source: Source,
    out: str | PathLike[str],
    *,
    family: str | None = None,
    base: Source | None = None,
    lora_alpha: float | None = None,
    name: str | None = None,
    image_size: Size | None = None,
    crop_padding: Size | None = None,
    precision: str = "fp32",
    calibration_images: str | PathLike[str] | None = None,
    half_io: bool = False,
    overwrite: bool = False,
    verify: bool = True,
    keep_refused: bool = False,
    cpu_form: bool | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint, and prove that it computes what the checkpoint does.

    Args:
        source: path of a checkpoint; or a state dict; or a module with SAM's parts, such as a
            ``segment_anything`` ``Sam``.
        out: the bundle folder to write, ``NAME.samrt``.
        family: name of a family, where the keys fit several; ``None`` asks the keys.
        base: the checkpoint that a LoRA adapter was trained on.
        lora_alpha: numerator of a PEFT adapter's scale; its ``adapter_config.json`` has it.
        name: the model's name in the manifest; ``None`` takes it from ``out``.
        image_size: `(S_h, S_w)` of another input frame; position tables are interpolated.
        crop_padding: `(S_h, S_w)` of the part of the frame to encode, for images of that shape.
        precision: ``fp32``, or ``fp16`` for float16 graphs beside the float32 ones; these stay
            the default. See :func:`samrt_export.precision.add_precision`.
        calibration_images: folder of pictures on which float16 is measured and proven, besides
            the built-in ones.
        half_io: float16 inputs and outputs of the float16 graphs.
        overwrite: replace an existing bundle.
        verify: compare the bundle with the torch network on built-in images before it is put in
            place; the figures go into the manifest.
        keep_refused: write also what differs too much, with its record: ``samrt.load`` refuses it
            unless the caller insists (``allow_refused``), and then every result says so.
        cpu_form: also write the graphs in samrt's own operators, which ONNX Runtime then takes
            on the CPU. ``None``: if the family has such a form and the library of the operators
            can be loaded here, so that it can be proven; ``True`` insists on both.
        threads: threads of the verification.
        progress: called with a line of text before each long step.

    Returns:
        The opened bundle.

    Raises:
        CheckpointError: not a readable checkpoint, or its keys do not fit; all are listed.
        OptionError: unknown family or precision, a frame that the family does not allow,
            ``fp16`` or ``keep_refused`` without verification, or a ``cpu_form`` that cannot be
            made.
        ImageError: no pictures in ``calibration_images``, or a damaged one.
        OutputError: ``out`` exists, or cannot be written.
        VerificationError: the bundle differs from the checkpoint by more than rounding; nothing
            is written, but with ``keep_refused``.
    """
    _check_precision(precision, calibration_images, half_io=half_io, verify=verify)
    if keep_refused and not verify:
        raise OptionError("keep_refused is about the verification: it cannot be left out")
    say = progress or (lambda text: None)
    target = Path(out)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists: choose another name or pass overwrite=True")
    say("reading the checkpoint")
    loaded = load_network(
        source,
        family=family,
        base=base,
        lora_alpha=lora_alpha,
        image_size=image_size,
        crop_padding=crop_padding,
    )
    for remark in loaded.remarks:
        say(remark)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.export.", dir=target.parent))
    try:
        with_cpu = wants_cpu_form(loaded.family, cpu_form, verify=verify, say=say)
        title = name or target.name.removesuffix(".samrt")
        built = _write(loaded, folder, title, say, cpu_form=with_cpu, insists=bool(cpu_form))
        if not verify:
            return _put(built, target, overwrite)
        cases = _cases(loaded)
        model = TorchModel(loaded.network, built.manifest, sha256=loaded.checkpoint.sha256 or "")
        truth = Reference(Predictor(model), [case.image for case in cases])
        record = _prove(built, loaded, truth, cases, threads, say, keep=keep_refused)
        crop = None
        if loaded.frame.mode == "crop":
            whole = load_reference(
                source, family=family, base=base, lora_alpha=lora_alpha, threads=threads
            )
            crop = _price_of_crop(built, loaded, whole, threads, say)
        built = store_record(built.path, record, crop)
        if any(part.form == "cpu" for part in built.manifest.artifacts):
            say("the same for the CPU form")
            record = _prove(
                built, loaded, truth, cases, threads, say, form="cpu", keep=keep_refused
            )
            built = store_record(built.path, record)
        del truth
        if precision == "fp16":
            built = add_precision(
                built.path, precision, images=calibration_images, half_io=half_io,
                reference=Predictor(model), keep_refused=keep_refused, threads=threads,
                progress=say,
            )  # fmt: skip
        loaded.network = None
        gc.collect()
        return _put(built, target, overwrite)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_precision(
    precision: str, images: str | PathLike[str] | None, *, half_io: bool, verify: bool
) -> None:
    """Refuse options that contradict each other, before anything long is begun."""
    if precision not in ("fp32", "fp16"):
        raise OptionError(f"precision must be 'fp32' or 'fp16', got {precision!r}")
    if precision == "fp32":
        if images is not None or half_io:
            raise OptionError(
                "calibration pictures and float16 inputs are of use for fp16 only: "
                "ask for that precision"
            )
        return
    if not verify:
        raise OptionError("fp16 is found by comparisons: it cannot be made without verification")
    if images is not None:
        image_files(images)


def _write(
    loaded: Loaded, folder: Path, name: str, say: Progress, *, cpu_form: bool = False,
    insists: bool = False,
) -> Bundle:  # fmt: skip
    """All graphs and the manifest into a new bundle folder."""
    family, network = loaded.family, loaded.network
    spec = family.rules(loaded.variant, loaded.frame)
    files: dict[str, Any] = {}
    say("writing the encoder's graph")
    encoder = GraphBuilder("encoder")
    image = encoder.input("image", [1, 3, *loaded.frame.size])
    shapes = _finish(encoder, family.emit_encoder(encoder, network, image))
    part = artifact("encoder", "encoder.onnx", encoder.opset, _inputs(encoder), shapes)
    forms = CpuForms(loaded, shapes, say, insists=insists) if cpu_form else None
    parts = _save(encoder, part, folder, files, forms)
    say("writing the decoder's graph")
    decoder = GraphBuilder("decoder")
    family.emit_decoder(decoder, network, shapes)
    outputs = {v.name: _dims(v) for v in decoder.outputs}
    part = artifact("decoder", "decoder.onnx", decoder.opset, _inputs(decoder), outputs)
    parts += _save(decoder, part, folder, files, forms)
    manifest = document(loaded, spec, parts, name, None)
    return write_bundle(folder / "bundle.samrt", manifest, files, move=True)


def _prove(
    built: Bundle, loaded: Loaded, truth: Predictor, cases: Sequence[PhantomCase],
    threads: int | None, say: Progress, form: str = "canonical", *, keep: bool = False,
) -> VerificationRecord:  # fmt: skip
    """Compare with the torch network.

    Raises VerificationError if the bundle does not pass and is not to be kept all the same.
    """
    with load(built.path, backend="onnxruntime", threads=threads, form=form) as candidate:
        record = compare(truth, candidate, cases, progress=say)
    if record.passed:
        return record
    problem = (
        f"the graphs ({form}) of this {loaded.family.title} do not compute what its checkpoint "
        f"does: {'; '.join(record.failures)}"
    )
    if not keep:
        raise VerificationError(f"{problem}; nothing was written, please report this")
    say(f"{problem}; they are kept, marked refused")
    return record


def _price_of_crop(
    built: Bundle, loaded: Loaded, whole: TorchModel, threads: int | None, say: Progress
) -> CropDeviation:
    """Compare with the exact model, both in torch; an honest figure, not a threshold."""
    part = TorchModel(loaded.network, built.manifest, threads=threads)
    found = crop_deviation(Predictor(whole), Predictor(part), _cases(loaded), say)
    say(found.in_words())
    return found


def _cases(loaded: Loaded) -> list[PhantomCase]:
    """Pictures to compare on: fewer for models that take long."""
    cases = phantom_cases()
    weights = sum(t.numel() for t in loaded.network.parameters())
    return cases if weights < HEAVY_PARAMETERS else cases[:2]


def _put(built: Bundle, target: Path, overwrite: bool) -> Bundle:
    """Move a finished bundle into place."""
    document_text = (built.path / MANIFEST_NAME).read_text("utf-8")
    files: dict[str, Any] = {}
    for part in built.manifest.artifacts:
        for name in (part.file, *(extra.file for extra in part.data)):
            files[name] = built.path / name
    return write_bundle(target, json.loads(document_text), files, overwrite=overwrite, move=True)


def _finish(g: GraphBuilder, made: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Give the outputs their names; their shapes are inferred from the graph."""
    shapes = infer_shapes(g, list(made.values()))
    for public, tensor in made.items():
        g.output(tensor, public, shapes[tensor])
    return {public: shapes[tensor] for public, tensor in made.items()}


def infer_shapes(g: GraphBuilder, tensors: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors of an unfinished graph, by onnx, without its large weights."""
    shells = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in g.arrays.items()
        if array.nbytes > 4096
    ]
    small = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in g.arrays.items()
        if array.nbytes <= 4096
    ]
    wanted = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    ]
    graph = onnx.helper.make_graph(g.nodes, g.name, [*g.inputs, *shells], wanted, small)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", g.opset)], ir_version=9
    )
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    out = {}
    for value in found.graph.output:
        dims = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        if not dims or 0 in dims:
            raise RuntimeError(f"the shape of {value.name} is not fixed: {dims}")
        out[value.name] = dims
    return out


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)


def _inputs(g: GraphBuilder) -> dict[str, tuple[int | str, ...]]:
    return {value.name: _dims(value) for value in g.inputs}


def _save(
    g: GraphBuilder, part: dict[str, Any], folder: Path, files: dict[str, Any],
    forms: CpuForms | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write a graph and its CPU form if there is one; note their files. `g` is used up."""
    if forms is None or not forms.has(part["role"]):
        return [_noted(part, g.write(folder / part["file"], __version__), files)]
    name = f"{part['file']}.data"
    shared = g.nbytes() > SHARED_FROM_BYTES
    with WeightStore(folder / name) if shared else nullcontext() as store:
        canonical = _noted(part, g.write(folder / part["file"], __version__, store), files)
        g.arrays.clear()
        gc.collect()
        other = forms.graph(part["role"])
        if other is None:
            return [canonical]
        twin = forms.entry(canonical)
        return [
            canonical,
            _noted(twin, other.write(folder / twin["file"], __version__, store), files),
        ]


def _noted(part: dict[str, Any], written: Sequence[Path], files: dict[str, Any]) -> dict[str, Any]:
    """The entry of a graph with its data files."""
    model, *data = written
    files[model.name] = model
    for path in data:
        files[path.name] = path
        part.setdefault("data", []).append({"file": path.name, "bytes": 1, "sha256": "0" * 64})
    return part
