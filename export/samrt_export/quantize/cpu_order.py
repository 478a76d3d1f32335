"""Which int8 nodes of a CPU form cost the most accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from samrt.backends.operators import library_path
from samrt.bundle import Bundle
from samrt.geometry import place
from samrt.preprocess import ImageSource, load_image, preprocess

__all__ = ["Costs", "encoder_inputs", "measure"]

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Costs:
    """Errors of the image embedding, squared, relative to its own square, mean of the pictures.

    Attributes:
        together: with all nodes in int8.
        apart: name of a node -> by how much the error falls if it stays float32; largest first.
    """

    together: float
    apart: Mapping[str, float]

    def next_kept(self, kept: Sequence[str]) -> list[str]:
        """Nodes to leave in float32 after `kept` was too few: those whose part is largest, until
        half of the error that was left is gone; the same as `kept` where nothing helps."""
        left = self.together - sum(self.apart[name] for name in kept)
        found, aim = list(kept), left / 2
        for name, part in self.apart.items():
            if name in kept:
                continue
            if left <= aim or part <= 0:
                break
            found.append(name)
            left -= part
        return found


def encoder_inputs(
    bundle: Bundle, pictures: Iterable[ImageSource], threads: int
) -> Iterator[Feeds]:
    """What the encoder is given for each picture."""
    spec = bundle.manifest.input
    name = bundle.artifact("encoder", "fp32").inputs[0].name
    for picture in pictures:
        source = load_image(picture, threads=threads)
        where = place(source.size, spec.size, spec.resize_kind)
        yield {name: preprocess(source, where, spec, threads=threads)}


def measure(
    source: str, nodes: Sequence[str], make: Callable[[Sequence[str]], onnx.ModelProto],
    feeds: Sequence[Feeds], threads: int | None, say: Callable[[str], None],
) -> Costs:  # fmt: skip
    """Encode with all nodes in int8, and with all but one, for each of them.

    Args:
        source: the CPU form in float32.
        nodes: names of the nodes in int8.
        make: float32 nodes -> the model with all others in int8.
        feeds: inputs of the encoder.
        threads: of the runtime.
        say: is told the costs.
    """
    truth = _run(source, feeds, threads)

    def error(kept: Sequence[str]) -> float:
        got = _run(make(kept).SerializeToString(), feeds, threads)
        parts = [
            float(np.sum((a - b) ** 2, dtype=np.float64) / np.sum(b**2, dtype=np.float64))
            for a, b in zip(got, truth, strict=True)
        ]
        return sum(parts) / len(parts)

    together = error([])
    apart = {name: together - error([name]) for name in nodes}
    ordered = dict(sorted(apart.items(), key=lambda item: -item[1]))
    for name, part in list(ordered.items())[:8]:
        say(f"{name}: {part / together:.0%} of the error in int8")
    return Costs(together, ordered)


def _run(model: str | bytes, feeds: Sequence[Feeds], threads: int | None) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.enable_cpu_mem_arena = False
    options.register_custom_ops_library(str(library_path()))
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    first = session.get_outputs()[0].name
    return [np.asarray(session.run([first], dict(feed))[0]) for feed in feeds]
