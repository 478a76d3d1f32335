"""samrt's own operators for ONNX Runtime: where the library is, and which form of a graph to run.

A bundle may hold its graphs a second time, in the *CPU form*: the same networks and the same
weights in operators of the domain ``samrt`` (see :mod:`samrt.reference_operators`). The library
that computes them lies beside the package as ``_ops``; it is built for a processor, so it may be
absent, and then the canonical graph, which needs no library, is run.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from samrt.backends.base import FORMS, FormChoice
from samrt.bundle import Bundle
from samrt.errors import BackendError, OptionError
from samrt.gate import graph_verdict
from samrt.manifest import Artifact

__all__ = [
    "OPERATORS",
    "VARIABLE",
    "choose_form",
    "fast_integers",
    "library_path",
    "library_problem",
    "requested_form",
]

OPERATORS = "samrt/1"
"""The set of operators that this samrt has, as manifests name it."""
VARIABLE = "SAMRT_ONNXRUNTIME_FORM"
_MODULE = "samrt._ops"
_RUNTIME = "onnxruntime"


def library_path() -> Path | None:
    """The library of the operators; ``None`` where it has not been built."""
    found = importlib.util.find_spec(_MODULE)
    return Path(found.origin) if found is not None and found.origin else None


def library_problem() -> str | None:
    """Why the operators cannot be used here, in words; ``None`` if they can.

    The library is loaded into the installed ONNX Runtime to find that out, once per process.
    """
    path = library_path()
    return "the library samrt/_ops is not installed" if path is None else _load_problem(str(path))


@cache
def fast_integers() -> bool:
    """Whether the operators' 8-bit products are faster here than those of floats."""
    path = library_path()
    return path is not None and bool(ctypes.CDLL(str(path)).samrt_ops_fast8())


@cache
def _load_problem(path: str) -> str | None:
    from samrt.backends.onnxruntime import registration_problem

    return registration_problem(path)


def requested_form(option: str | None) -> str:
    """``auto``, ``canonical`` or ``cpu``: an option, or where it is ``None`` the environment's.

    Raises:
        OptionError: ``SAMRT_ONNXRUNTIME_FORM`` has another value.
    """
    if option is not None:
        return option
    value = os.environ.get(VARIABLE) or "auto"
    if value not in FORMS:
        raise OptionError(f"{VARIABLE} is {value!r}, expected one of {', '.join(FORMS)}")
    return value


def choose_form(bundle: Bundle, chosen: Mapping[str, Artifact], option: str | None) -> FormChoice:
    """The forms of the graphs that ONNX Runtime should run, and why.

    The CPU forms, if the bundle has any, this samrt has the operators and the library loads.

    Args:
        bundle: the model.
        chosen: ``encoder`` and ``decoder`` -> the canonical artifact.
        option: ``auto``, ``canonical`` or ``cpu``; ``None``: as the environment says.

    Raises:
        OptionError: the environment's variable has another value.
        BackendError: ``cpu`` was asked for and cannot be had; the reason is named.
    """
    wanted = requested_form(option)
    if wanted == "canonical":
        return FormChoice(chosen, wanted, "asked for")
    forms = _forms(bundle, chosen)
    problem = _form_problem(bundle, chosen, forms, insists=wanted == "cpu")
    if problem is None:
        roles = " and ".join(forms)
        reason = "asked for" if wanted == "cpu" else "the library of its operators is installed"
        return FormChoice({**chosen, **forms}, wanted, f"{roles}: {reason}")
    if wanted == "cpu":
        raise BackendError(
            f"the CPU form of {bundle.manifest.name} cannot be run: {problem}; leave the form open "
            "(auto) for the canonical graph"
        )
    return FormChoice(chosen, wanted, f"canonical, because {problem}")


def _forms(bundle: Bundle, chosen: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Role -> the CPU form, of those that have one.

    A decoder that serves an encoder of another precision takes its CPU form only beside an encoder
    in that form: these are the pairs that were compared.
    """
    found = {role: bundle.form_for(artifact, _RUNTIME) for role, artifact in chosen.items()}
    if len({artifact.precision for artifact in chosen.values()}) > 1 and not found["encoder"]:
        found["decoder"] = None
    return {role: form for role, form in found.items() if form is not None}


def _form_problem(
    bundle: Bundle, chosen: Mapping[str, Artifact], forms: Mapping[str, Artifact], *, insists: bool
) -> str | None:
    """Why CPU forms cannot be run, or should not; ``None`` if they can."""
    if not forms:
        return f"the bundle has no CPU form in {chosen['encoder'].precision}"
    for form in forms.values():
        if form.operators != OPERATORS:
            return f"it needs the operators {form.operators}, this samrt has {OPERATORS}"
    problem = library_problem()
    if problem is None and not insists:
        if any(form.precision == "int8" for form in forms.values()) and not fast_integers():
            return "this processor multiplies 8-bit integers no faster than floats (no VNNI)"
        verdict = graph_verdict(bundle.manifest, {**chosen, **forms})
        if verdict.state == "refused":
            return f"the CPU form was refused by its verification: {verdict.detail}"
    return problem
