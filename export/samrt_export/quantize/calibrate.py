"""Calibration: pictures one at a time through the float32 encoder, figures kept and saved.

Memory holds one picture, the network, and the tensors of as many layers as fit into `BUDGET`;
if not all do, the pictures are run again for the next layers.  The figures are saved from time to
time and when the run is interrupted; the same call goes on from there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from samrt.backends.base import Arrays
from samrt.errors import OutputError, SamrtError
from samrt.predictor import Predictor
from samrt_export.precision.emulate import GraphSession
from samrt_export.precision.floatgraph import FloatGraph
from samrt_export.quantize.layers import Layer
from samrt_export.quantize.pictures import Picture
from samrt_export.quantize.statistics import Statistics, load_state, save_state, tensors_of

__all__ = ["BUDGET", "CalibrationError", "WatchingSession", "calibrate", "state_key"]

BUDGET = 1 << 31
SAVE_EVERY_SECONDS = 60.0


class CalibrationError(SamrtError, ValueError):
    """A picture drives the float32 network to values that are not finite."""


class WatchingSession(GraphSession):
    """Runs a float32 graph and hands some of its tensors over after each run."""

    def __init__(
        self, graph: FloatGraph, tensors: Sequence[str], seen: Callable[[Arrays], None], *,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        """Open a graph; `seen` gets the tensors by name and must not keep them."""
        self._tell = seen
        inputs = {value.name for value in graph.inputs}
        watch = {name: graph.shapes[name] for name in tensors if name not in inputs}
        super().__init__(graph.builder(), "encoder", threads=threads, watch=watch)

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        found = super()._run(feeds)
        self._tell({**feeds, **found, **self.watched})
        self.watched = {}
        return found


def state_key(*parts: str) -> str:
    """Name of the state file: hex digest over whatever the figures depend on."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def calibrate(
    graph: FloatGraph,
    layers: Sequence[Layer],
    pictures: Sequence[Picture],
    predictor_for: Callable[[GraphSession], Predictor],
    *,
    state: Path | None = None,
    threads: int | None = None,
    say: Callable[[str], None],
) -> Statistics:
    """Run all pictures and sum up what the layers see.

    Args:
        graph: the float32 encoder.
        layers: whose inputs (and outputs) are measured.
        pictures: read when their turn comes.
        predictor_for: a predictor of the bundle's rules with another encoder.
        state: where figures are kept in between; `None`: nowhere.
        threads: of the runs.
        say: is told what is being done.

    Raises:
        CalibrationError: the network returns NaN or infinity.
        OutputError: the state cannot be written.
    """
    run = _Calibration(graph, pictures, predictor_for, state, threads, say)
    parts = list(_passes(graph, layers))
    try:
        for number, part in enumerate(parts):
            if number >= run.done["pass"]:
                before = {n for early in parts[:number] for la in early for n in tensors_of(la)}
                run.pass_over(part, before, number, len(parts))
    finally:
        run.save()
    return run.statistics


class _Calibration:
    """One run of `calibrate`."""

    def __init__(
        self, graph: FloatGraph, pictures: Sequence[Picture],
        predictor_for: Callable[[GraphSession], Predictor], state: Path | None,
        threads: int | None, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.graph, self.pictures, self.predictor_for = graph, pictures, predictor_for
        self.state, self.threads, self.say = state, threads, say
        self.statistics, self.done = Statistics(len(pictures)), {"pass": 0, "picture": 0}
        known = load_state(state, len(pictures)) if state is not None else None
        if known is not None:
            self.statistics, self.done = known
            say(f"going on after {self.done['picture']} of {len(pictures)} pictures")
        self._saved, self._whole, self._unsaved = time.monotonic(), True, False

    def pass_over(self, layers: Sequence[Layer], known: set[str], number: int, passes: int) -> None:
        """Run the pictures that are left for some of the layers."""
        first = self.done["picture"] if number == self.done["pass"] else 0
        names = list(dict.fromkeys(name for layer in layers for name in tensors_of(layer)))
        current = first

        def seen(values: Arrays) -> None:
            self._whole = False
            try:
                self.statistics.add(layers, values, seed=current, known=known)
            except ValueError as exc:
                raise CalibrationError(
                    f"picture {self.pictures[current].name} gives NaN or infinity in the float32 "
                    "network: leave it out, or check the checkpoint with samrt verify"
                ) from exc
            self._whole = True

        with closing(WatchingSession(self.graph, names, seen, threads=self.threads)) as session:
            predictor = self.predictor_for(session)
            for current in range(first, len(self.pictures)):
                picture, part = self.pictures[current], f", pass {number + 1} of {passes}"
                self.say(
                    f"calibrating on {current + 1} of {len(self.pictures)}, {picture.name}"
                    f"{part if passes > 1 else ''}"
                )
                predictor.encode(picture.read())
                self.done, self._unsaved = {"pass": number, "picture": current + 1}, True
                if time.monotonic() - self._saved >= SAVE_EVERY_SECONDS:
                    self.save()

    def save(self) -> None:
        """Keep the figures, unless they were left in the middle of a picture."""
        if self.state is None or not self._unsaved or not self._whole:
            return
        try:
            save_state(self.state, self.statistics, self.done)
        except OSError as exc:
            raise OutputError(
                f"cannot keep the calibration at {self.state}: {exc.strerror or exc}; set "
                "SAMRT_CACHE to a folder that can be written"
            ) from exc
        self._saved, self._unsaved = time.monotonic(), False


def _passes(graph: FloatGraph, layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers in runs whose tensors fit into the budget; a layer alone may exceed it."""
    sizes = Statistics(1)
    part: list[Layer] = []
    for layer in layers:
        if part and sizes.nbytes(graph, [*part, layer]) > BUDGET:
            yield part
            part = []
        part.append(layer)
    if part:
        yield part
