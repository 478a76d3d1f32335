"""The CPU form of an encoder (operators of the domain ``samrt``) with int8 weights.

Weights are symmetric int8 with one scale per column, as in `samrt_export.quantize.write`.  Rows of
activations become integers inside the operators, each with a scale of its own (the largest
magnitude over 127), so nothing has to be calibrated; attention, norms, convolutions of the stem
and the neck stay float32.  See ``cpp_ext/ops``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from samrt.backends.operators import OPERATORS, library_problem
from samrt.bundle import MANIFEST_NAME, Bundle, write_bundle
from samrt.predictor import Predictor, load
from samrt_export.precision.search import in_words
from samrt_export.quantize.arithmetic import quantise_weight
from samrt_export.quantize.cpu_order import Costs, encoder_inputs, measure
from samrt_export.verify import Case, VerificationRecord, compare, parity_with

__all__ = ["DOMAIN", "add_int8_form", "integer_nodes", "to_int8_operators"]

RUNTIME = "onnxruntime"
FILE = "encoder.int8.cpu.onnx"

DOMAIN = "samrt"
_WEIGHTS = {"Linear": (1,), "Mlp": (3, 5), "MbConv": (1, 5)}
_INPUTS = {"Linear": 6, "Mlp": 7, "MbConv": 7}
_LEFT_ALONE = re.compile(r"(^|/)neck\b")
_SMALLEST = 1024
"""Elements of a matrix below which integers save nothing."""
_MOST_TRIES = 8
_PICTURES = 3
"""Pictures on which it is found out which nodes cost the most."""


def add_int8_form(
    built: Bundle, old: Bundle, truth: Predictor, cases: Callable[[], Iterable[Case]], work: Path,
    *, threads: int | None = None, say: Callable[[str], None] = lambda text: None,
) -> Bundle:  # fmt: skip
    """Give a bundle with an int8 encoder the int8 form in samrt's operators, if that passes too.

    First all layers are tried in int8. If that does not pass, those that cost the most accuracy
    return to float32 (see `Costs.next_kept`) until it does.

    Args:
        built: the bundle with its int8 graphs.
        old: the bundle whose CPU form in float32 is converted.
        truth: the float32 engine.
        cases: pictures of the comparison, anew at each call.
        work: a folder for the new bundle.
        threads: of the comparison.
        say: is told what is done, and why there is no such form.

    Returns:
        The bundle with the form, its record in ``parity.other_forms`` and what was changed in
        ``calibration.int8.cpu_form``; or `built` as it was.
    """
    source = old.form_for(old.artifact("encoder", "fp32"), RUNTIME)
    problem = library_problem() if source is not None else "the bundle has no CPU form in fp32"
    if source is None or problem is not None:
        say(f"no CPU form in int8: {problem}")
        return built
    path = old.file_of(source)
    costs: Costs | None = None
    wanted: list[str] = []
    for attempt in range(1, _MOST_TRIES + 1):
        model, changed, kept = to_int8_operators(path, wanted)
        if not changed:
            break
        say(f"the encoder's CPU form with {len(changed)} nodes in int8, {len(kept)} in float32")
        content = model.SerializeToString(deterministic=True)
        del model
        made = _with_form(built, content, work / f"cpu{attempt}")
        with load(
            made.path, precision="int8", backend=RUNTIME, threads=threads, form="cpu"
        ) as engine:
            record = compare(truth, engine, cases(), precision="int8", progress=say)
        say(f"int8, CPU form: {in_words(record)}")
        if record.passed:
            return _recorded(made, record, changed, kept)
        say(f"not good enough: {'; '.join(record.failures)}")
        if costs is None:
            pictures = [case.image for case in islice(cases(), _PICTURES)]
            feeds = list(encoder_inputs(old, pictures, threads or 1))
            costs = measure(
                str(path), changed, lambda names: to_int8_operators(path, names)[0], feeds,
                threads, say,
            )  # fmt: skip
        before, wanted = wanted, costs.next_kept(wanted)
        if wanted == before:
            break
    say("there is no CPU form in int8" + ("" if costs else ": no layer of it is large enough"))
    return built


def _with_form(built: Bundle, content: bytes, work: Path) -> Bundle:
    document: dict[str, Any] = json.loads((built.path / MANIFEST_NAME).read_text("utf-8"))
    entries = document["artifacts"]
    own = ("encoder", "int8")
    kept = [a for a in entries if (a["role"], a["precision"]) != own or "runtime" not in a]
    plain = next(a for a in kept if (a["role"], a["precision"]) == own)
    form = {key: value for key, value in plain.items() if key != "data"}
    form.update(file=FILE, runtime=RUNTIME, operators=OPERATORS)
    document["artifacts"] = [*kept, form]
    files: dict[str, Any] = {
        item["file"]: built.path / item["file"] for a in kept for item in (a, *a.get("data", []))
    }
    work.mkdir()
    return write_bundle(work / built.path.name, document, {**files, FILE: content})


def _recorded(
    made: Bundle, record: VerificationRecord, changed: list[str], kept: list[str]
) -> Bundle:
    target = made.path / MANIFEST_NAME
    document = json.loads(target.read_text("utf-8"))
    document["parity"] = parity_with(
        document.get("parity"), record.as_dict(), made.manifest.precision
    )
    document["calibration"]["int8"]["cpu_form"] = {
        "method": "weights per column; activations by the largest magnitude of each row",
        "nodes": changed,
        "excluded": kept,
    }
    target.write_text(f"{json.dumps(document, indent=2, ensure_ascii=False)}\n", "utf-8")
    return Bundle.open(made.path)


def integer_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that `to_int8_operators` could change, in the graph's order."""
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}

    def large(node: onnx.NodeProto) -> bool:
        sizes = (np.prod(shapes.get(node.input[at], (0,))) for at in _WEIGHTS[node.op_type])
        return all(size >= _SMALLEST for size in sizes)

    return [
        node
        for node in model.graph.node
        if node.domain == DOMAIN
        and node.op_type in _WEIGHTS
        and large(node)
        and not _LEFT_ALONE.search(node.name)
    ]


def to_int8_operators(
    source: str | Path, keep: Collection[str] = ()
) -> tuple[onnx.ModelProto, list[str], list[str]]:
    """Read a CPU form in float32 and give its linear layers int8 weights.

    Args:
        source: the ``.onnx`` file; its data files beside it.
        keep: names of nodes that stay float32.

    Returns:
        The model, all weights inside; names of the nodes that were changed; and of those that
        could have been.
    """
    model = onnx.load(str(source))
    nodes = integer_nodes(model)
    values = {item.name: item for item in model.graph.initializer}
    made: dict[str, tuple[str, str]] = {}
    chosen = [node for node in nodes if node.name not in keep]
    kept = [node.name for node in nodes if node.name in keep]
    for node in chosen:
        inputs = [*node.input, *[""] * (_INPUTS[node.op_type] - len(node.input))]
        scales = []
        for at in _WEIGHTS[node.op_type]:
            name = inputs[at]
            if name not in made:
                made[name] = _integers(model, values[name])
            inputs[at], scale = made[name]
            scales.append(scale)
        node.op_type += "Int8"
        del node.input[:]
        node.input.extend([*inputs, *scales])
    _drop_unused(model)
    return model, [node.name for node in chosen], kept


def _integers(model: onnx.ModelProto, weight: onnx.TensorProto) -> tuple[str, str]:
    """Adds the int8 matrix and its scales; their names."""
    whole, scale = quantise_weight(numpy_helper.to_array(weight), axis=1)
    names = f"{weight.name}.int8", f"{weight.name}.scale"
    model.graph.initializer.append(numpy_helper.from_array(whole, names[0]))
    model.graph.initializer.append(numpy_helper.from_array(scale, names[1]))
    return names


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
