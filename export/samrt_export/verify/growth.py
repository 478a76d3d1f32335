"""Where does the error explode? Two ONNX files of one network, tensor by tensor.

The files share the names of their tensors: a converted or quantized graph keeps those of the
graph it was made from. Some tensors, evenly spread, are computed by both; the interval in which
the relative error jumps is looked at more closely, until one node is left. ONNX Runtime runs both
without optimisation, nodes as they are written. Float16 is computed in float32 by its CPU
provider, so of such graphs only lost weights and overflowing casts show.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from samrt.backends.base import default_threads
from samrt.bundle import Bundle
from samrt.decoding import placement_of
from samrt.errors import BackendError
from samrt.geometry import place
from samrt.phantoms import PHANTOM_NAMES, phantom_case
from samrt.predictor import load
from samrt.preprocess import load_image, preprocess
from samrt.prompts import decoder_input
from samrt.quoting import one_line
from samrt.selfcheck import supported_prompts

__all__ = ["GraphPair", "explosion"]

Arrays = Mapping[str, NDArray[Any]]

_ROLES = ("encoder", "decoder")
_AT_ONCE = 16
_LARGEST_TENSOR = 32_000_000
_JUMP = 10.0
_NOTABLE = {"fp16": 0.02, "int8": 0.2}  # int8 rounds a product by a few percent as it should


def explosion(bundle: Bundle, precision: str, *, threads: int | None = None) -> str | None:
    """The first node of a bundle's graphs at which the error against FP32 explodes, in words.

    Args:
        bundle: has ``fp32`` and the other precision.
        precision: the other one.
        threads: of the runs.

    Returns:
        A sentence; ``None`` if the bundle has no FP32 graphs.

    Raises:
        BackendError: ONNX Runtime cannot run one of the graphs.
    """
    if "fp32" not in bundle.precisions():
        return None
    ends = []
    for role, feeds in _feeds(bundle, threads).items():
        files = [bundle.file_of(bundle.artifact(role, p)) for p in ("fp32", precision)]
        if files[0] == files[1]:
            continue
        with GraphPair(*files, threads=threads) as pair:
            found = pair.first_jump(feeds, notable=_NOTABLE.get(precision, 0.02))
        if found is not None:
            before, after, tensor = found
            grown = "the first NaN or infinity comes" if math.isinf(after) else (
                f"the error grows from {before:.1e} to {after:.1e}"
            )  # fmt: skip
            return f"{grown} in the {role}, at {pair.name_of(tensor)}"
        ends.append(f"{pair.last:.1e} at the end of the {role}")
    return f"the error grows without a jump, to {' and '.join(ends)}" if ends else None


def _feeds(bundle: Bundle, threads: int | None) -> dict[str, dict[str, NDArray[Any]]]:
    """Inputs of one run of the encoder and of the decoder, as the FP32 graphs get them."""
    case = phantom_case(PHANTOM_NAMES[0])
    with load(bundle.path, backend="onnxruntime", precision="fp32", threads=threads) as engine:
        spec = engine.manifest
        source = load_image(case.image, threads=engine.info.threads)
        placement = place(source.size, spec.input.size, spec.input.resize_kind)
        image = preprocess(source, placement, spec.input, threads=engine.info.threads)
        embedding = engine.encode(case.image)
        prompts = supported_prompts(case.prompts, source.size, spec.prompts)[:1]
    tokens = decoder_input(prompts, placement_of(embedding), spec.prompts, spec.output.low_res_size)
    wanted = {item.name for item in bundle.artifact("decoder", "fp32").inputs}
    given = {**embedding.features, **tokens.feeds()}
    return {
        "encoder": {bundle.artifact("encoder", "fp32").inputs[0].name: image},
        "decoder": {name: array for name, array in given.items() if name in wanted},
    }


class GraphPair:
    """A graph and another form of it, opened for looking at tensors inside.

    Attributes:
        tensors: names of what both compute, in the order of the first graph.
        last: relative error at the last tensor that was looked at.
    """

    def __init__(self, reference: Path, candidate: Path, *, threads: int | None = None) -> None:
        self._threads = threads or default_threads()
        self._models = [onnx.load(str(path)) for path in (reference, candidate)]
        self._folder = tempfile.TemporaryDirectory(prefix="samrt-")
        first, second = (model.graph for model in self._models)
        there = {name for node in second.node for name in node.output}
        sizes = _sizes(self._models[0])
        self._nodes = {name: node for node in first.node for name in node.output}
        self.tensors = [
            name
            for node in first.node
            for name in node.output
            if name in there and 0 < sizes.get(name, 0) <= _LARGEST_TENSOR
        ]
        self._errors: dict[str, float] = {}
        self.last = 0.0

    def __enter__(self) -> GraphPair:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def name_of(self, tensor: str) -> str:
        """The node that makes a tensor, for people."""
        node = self._nodes[tensor]
        return f"node {node.name or tensor!r} ({node.op_type})"

    def first_jump(
        self, feeds: Arrays, *, notable: float = 0.02
    ) -> tuple[float, float, str] | None:
        """Error before, error after, and the tensor where it explodes; ``None`` without a jump.

        A jump is an infinity or NaN, or an error above ``notable`` and ten times the one before.
        """
        low, high = -1, len(self.tensors) - 1  # the error at low is taken as sound
        if high < 0:
            return None
        while True:
            picked = sorted({round(i) for i in np.linspace(low + 1, high, _AT_ONCE)})
            self._measure([self.tensors[i] for i in picked], feeds)
            errors = [(-1, 0.0)] if low < 0 else [(low, self._errors[self.tensors[low]])]
            errors += [(i, self._errors[self.tensors[i]]) for i in picked]
            jump = _first_jump(errors, notable)
            if jump is None:
                self.last = errors[-1][1]
                return None
            low, high = errors[jump - 1][0], errors[jump][0]
            if high - low == 1:
                return errors[jump - 1][1], errors[jump][1], self.tensors[high]

    def _measure(self, names: Sequence[str], feeds: Arrays) -> None:
        wanted = [name for name in names if name not in self._errors]
        if wanted:
            first, second = (self._run(index, wanted, feeds) for index in (0, 1))
            for name in wanted:
                self._errors[name] = relative_error(first[name], second[name])

    def _run(self, index: int, names: Sequence[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        model = self._models[index]
        kept = list(model.graph.output)
        known = {value.name for value in kept}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in names if name not in known
        )
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = self._threads
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = 4
        try:
            path = Path(self._folder.name) / f"{index}.onnx"
            path.unlink(missing_ok=True)
            data = path.with_suffix(".data")
            data.unlink(missing_ok=True)
            onnx.save(model, str(path), save_as_external_data=True, location=data.name)
            session = ort.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
            kinds = {item.name: item.type for item in session.get_inputs()}
            half = "tensor(float16)"
            cast = {
                name: array.astype(np.float16) if kinds[name] == half else array
                for name, array in feeds.items()
                if name in kinds
            }
            return dict(zip(names, session.run(list(names), cast), strict=True))
        except Exception as exc:
            reason = one_line(exc, 300)
            raise BackendError(f"ONNX Runtime cannot run {model.graph.name}: {reason}") from exc
        finally:
            del model.graph.output[:]
            model.graph.output.extend(kept)


def _sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> number of elements, free sizes counted as one; float tensors only."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(bare)
    found = {}
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if kind.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            found[value.name] = math.prod(max(d.dim_value, 1) for d in kind.shape.dim)
    return found


def _first_jump(errors: Sequence[tuple[int, float]], notable: float) -> int | None:
    """Place of the first error that is infinite, or notable and many times the one before it."""
    for place_, ((_, before), (_, after)) in enumerate(pairwise(errors), 1):
        if math.isinf(after) or (after > notable and after > _JUMP * before):
            return place_
    return None


def relative_error(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """Rms of the difference over rms of the wanted values; infinity where there is a NaN."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    if a.shape != b.shape or not np.isfinite(b).all():
        return math.inf
    size, gap = float(np.sqrt(np.mean(a * a))), float(np.sqrt(np.mean((a - b) ** 2)))
    return gap / size if size > 0.0 else gap
