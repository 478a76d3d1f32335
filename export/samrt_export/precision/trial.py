"""Answers of a bundle whose graphs are exchanged for others, and what they cost in accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from samrt.backends.base import Arrays, Session
from samrt.bundle import Bundle
from samrt.model import Model, ModelInfo
from samrt.predictor import Predictor
from samrt.preprocess import ImageSource
from samrt.types import ImageEmbedding, Prediction, Prompt
from samrt_export.precision.emulate import GraphSession, rounded
from samrt_export.precision.floatgraph import FloatGraph, key_of
from samrt_export.precision.half import HalfGraph, settle, to_half

__all__ = ["ROLES", "Reference", "Remembering", "Trial", "error_growth", "predictor_of"]

ROLES = ("encoder", "decoder")
EMULATION = "float16 emulation"


class Remembering(Session):
    """A session that returns what it returned before for feeds that it has seen."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner.name, inner.inputs, inner.outputs)
        self._inner = inner
        self._known: dict[str, dict[str, NDArray[Any]]] = {}

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        digest = hashlib.sha256()
        for name in sorted(feeds):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(feeds[name]).data)
        key = digest.hexdigest()
        if key not in self._known:
            self._known[key] = self._inner.run(feeds)
        return {name: array.copy() for name, array in self._known[key].items()}

    def close(self) -> None:
        """Free the session behind it, and what it remembers."""
        super().close()
        self._inner.close()
        self._known.clear()


class Reference(Predictor):
    """A predictor that encodes some pictures, and answers their prompts, once only."""

    def __init__(self, inner: Predictor, pictures: Iterable[ImageSource]) -> None:
        """Wrap a predictor; `pictures` are remembered as objects, and kept alive."""
        super().__init__(inner._model)
        self._encoded: dict[int, tuple[ImageSource, ImageEmbedding | None]] = {
            id(picture): (picture, None) for picture in pictures
        }
        self._answered: dict[tuple[int, int, object], tuple[object, object, list[Prediction]]] = {}

    def encode(self, image: ImageSource, **options: Any) -> ImageEmbedding:
        """As `Predictor.encode`."""
        picture, known = self._encoded.get(id(image), (None, None))
        if known is not None and not options:
            return known
        found = super().encode(image, **options)
        if picture is not None and not options:
            self._encoded[id(image)] = (picture, found)
        return found

    def decode(
        self, embedding: ImageEmbedding, prompts: Prompt | Sequence[Prompt], **options: Any
    ) -> list[Prediction]:
        """As `Predictor.decode`; only what a prompt of its own returned is remembered."""
        mine = any(embedding is known for _, known in self._encoded.values())
        if not mine or not isinstance(prompts, Prompt) or prompts.mask_input is not None:
            return super().decode(embedding, prompts, **options)
        key = (id(embedding), id(prompts), tuple(sorted(options.items())))
        if key not in self._answered:
            found = super().decode(embedding, prompts, **options)
            self._answered[key] = (embedding, prompts, found)  # kept alive: ids stay their own
        return self._answered[key][2]


def predictor_of(bundle: Bundle, info: ModelInfo, sessions: Mapping[str, Session]) -> Predictor:
    """A predictor of the bundle's rules with other sessions."""
    return Predictor(Model(bundle, info, sessions["encoder"], sessions["decoder"]))


class Trial:
    """The float32 graphs of a bundle, and conversions of them as emulated sessions.

    Attributes:
        bundle: the bundle.
        graphs: role -> its float32 graph.
        threads: of all sessions.
    """

    def __init__(self, bundle: Bundle, info: ModelInfo, threads: int | None) -> None:
        self.bundle, self.threads = bundle, threads
        self.graphs = {
            role: FloatGraph(bundle.file_of(bundle.artifact(role, "fp32"))) for role in ROLES
        }
        self.info = emulated_info(info)
        self._exact: dict[str, Session] = {}

    def close(self) -> None:
        """Free the float32 sessions."""
        for session in self._exact.values():
            session.close()
        self._exact.clear()

    def exact(self, role: str) -> Session:
        """The float32 graph, unchanged; answers are remembered."""
        if role not in self._exact:
            plain = GraphSession(self.graphs[role].builder(), role, threads=self.threads)
            self._exact[role] = Remembering(plain)
        return self._exact[role]

    def convert(self, role: str, float32: Iterable[str], **options: bool) -> HalfGraph:
        """The role's graph in float16 but for some nodes."""
        graph = self.graphs[role]
        return to_half(graph, settle(graph, set(float32)), **options)

    def emulated(self, role: str, half: HalfGraph) -> GraphSession:
        """A session that rounds as the converted graph does."""
        return GraphSession(rounded(half), f"{role} in float16", threads=self.threads)

    def only(self, role: str, group: Iterable[str], islands: set[str]) -> HalfGraph:
        """Float16 in one group, without its islands; float32 everywhere else."""
        chosen = set(group) - islands
        rest = [key_of(node) for node in self.graphs[role].nodes if key_of(node) not in chosen]
        return self.convert(role, rest)

    def predictor(self, sessions: Mapping[str, Session]) -> Predictor:
        """The bundle's rules with these sessions."""
        return predictor_of(self.bundle, self.info, sessions)


def emulated_info(info: ModelInfo) -> ModelInfo:
    """What a record says about emulated sessions."""
    return replace(
        info,
        precision_requested="fp16",
        precision_effective="fp16",
        decoder_precision="fp16",
        backend_requested=EMULATION,
        backend_effective=EMULATION,
        backend_version=f"every float16 tensor rounded, on ONNX Runtime {ort.__version__}",
    )


def error_growth(
    graph: FloatGraph, half: HalfGraph, feeds: Arrays, threads: int | None
) -> dict[str, float]:
    """Relative error at the last tensor of every group of nodes, in the graph's order.

    Args:
        graph: the float32 graph.
        half: its conversion.
        feeds: inputs of one run.
        threads: of both runs.

    Returns:
        Group -> error; infinity from the first NaN or overflow on.
    """
    by_key = {key_of(node): node for node in graph.nodes}
    ends: dict[str, str] = {}
    for group, keys in graph.groups().items():
        floats = [str(n) for key in keys for n in by_key[key].output if graph.is_float(n)]
        if floats:
            ends[group] = floats[-1]
    watch = {name: graph.shapes[name] for name in ends.values()}
    values = []
    for builder in (graph.builder(), rounded(half)):
        session = GraphSession(builder, graph.name, threads=threads, watch=watch)
        found = session._run(feeds)  # not run(): it would refuse the infinities that are sought
        values.append({**found, **session.watched})
        session.close()
    return {
        group: _relative(values[0][tensor], values[1][tensor]) for group, tensor in ends.items()
    }


def _relative(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """The larger of two ratios: rms of the error to rms, and median of the error to median.

    Beside an outlier channel of 1.4e3 the first says little about all other channels.
    """
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(b).all():
        return float("inf")
    gap, size = np.abs(a - b), np.abs(a)
    ratios = []
    for whole, error in (
        (np.sqrt(np.mean(size * size)), np.sqrt(np.mean(gap * gap))),
        (np.median(size), np.median(gap)),
    ):
        if whole > 0.0:
            ratios.append(float(error / whole))
    return max(ratios, default=float(gap.max(initial=0.0)))
