"""The CPU form of a bundle's graphs: whether to write it, and the graphs themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from samrt.backends.operators import OPERATORS, library_problem
from samrt.errors import OptionError
from samrt_export.families import Family
from samrt_export.graph import GraphBuilder
from samrt_export.graphs.operators import NoCpuFormError
from samrt_export.loading import Loaded

__all__ = ["CpuForms", "wants_cpu_form"]

Say = Callable[[str], None]


def wants_cpu_form(family: Family, asked: bool | None, *, verify: bool, say: Say) -> bool:
    """Whether to write graphs in samrt's own operators; where they are left out, says why.

    Args:
        family: what is exported.
        asked: ``False`` leaves them out, ``True`` insists, ``None`` takes what can be proven here.
        verify: the bundle will be compared with the network.
        say: is told why there is no CPU form.

    Raises:
        OptionError: it is insisted on and cannot be made, or not be proven.
    """
    if asked is False:
        return False
    there = family.emit_cpu_encoder or family.emit_cpu_decoder
    problem = None if there else f"{family.title} has no CPU form"
    provable = library_problem()
    if problem is None and provable is not None and (asked is None or verify):
        problem = f"the CPU form cannot be verified here: {provable}"
    if problem is None:
        return True
    if asked:
        raise OptionError(f"{problem}: leave cpu_form open")
    say(f"{problem}; only the canonical graphs are written")
    return False


class CpuForms:
    """Writes the CPU forms of one network.

    Args:
        loaded: the network.
        shapes: the encoder's outputs, by name.
        say: is told what is written, and why something is not.
        insists: raise where there is no CPU form of the encoder.
    """

    def __init__(
        self, loaded: Loaded, shapes: dict[str, tuple[int, ...]], say: Say, *, insists: bool
    ) -> None:
        self._loaded, self._shapes, self._say, self._insists = loaded, shapes, say, insists

    def has(self, role: str) -> bool:
        """Whether the family has a CPU form of the encoder or the decoder."""
        family = self._loaded.family
        emit = family.emit_cpu_encoder if role == "encoder" else family.emit_cpu_decoder
        return emit is not None

    def graph(self, role: str) -> GraphBuilder | None:
        """The finished graph; ``None`` where this network cannot be written so.

        Raises:
            OptionError: that, and the caller insists.
        """
        self._say(f"writing the {role}'s CPU form")
        try:
            return self._encoder() if role == "encoder" else self._decoder()
        except NoCpuFormError as exc:
            if self._insists:
                raise OptionError(f"there is no CPU form: {exc}; leave cpu_form open") from exc
            self._say(f"there is no CPU form: {exc}; only the canonical {role} is written")
            return None

    def entry(self, canonical: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest's entry, without data files: inputs and outputs are the canonical ones."""
        part = {k: v for k, v in canonical.items() if k != "data"}
        file = f"{canonical['role']}.cpu.onnx"
        return {**part, "file": file, "runtime": "onnxruntime", "operators": OPERATORS}

    def _encoder(self) -> GraphBuilder:
        emit = self._loaded.family.emit_cpu_encoder
        if emit is None:
            raise NoCpuFormError("the family has none of the encoder")
        g = GraphBuilder("encoder")
        image = g.input("image", [1, 3, *self._loaded.frame.size])
        made = emit(g, self._loaded.network, image)
        for public, shape in self._shapes.items():
            g.output(made[public], public, shape)
        return g

    def _decoder(self) -> GraphBuilder:
        emit = self._loaded.family.emit_cpu_decoder
        if emit is None:
            raise NoCpuFormError("the family has none of the decoder")
        g = GraphBuilder("decoder")
        emit(g, self._loaded.network, self._shapes)
        return g
