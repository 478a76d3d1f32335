"""The end of a build: the engines are compared with the FP32 model, where they can be run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from samrt.backends.base import SessionOptions
from samrt.bundle import Bundle
from samrt.engines.api import Api
from samrt.engines.bundles import Outcome
from samrt.engines.cache import EngineCache, misfits
from samrt.engines.memory import DeviceMemory
from samrt.engines.proof import EngineProof

if TYPE_CHECKING:
    from samrt.verification import Case

__all__ = ["known_record", "reasons_not_to_run", "verify_engines"]


def reasons_not_to_run(api: Api, outcomes: Sequence[Outcome], memory: DeviceMemory) -> list[str]:
    """Why engines cannot be run on this GPU; empty if they can."""
    device = memory.device()
    return list(dict.fromkeys(p for o in outcomes for p in misfits(o.record, api, device)))


def known_record(
    api: Api, outcomes: Sequence[Outcome], memory: DeviceMemory, cache: EngineCache
) -> Mapping[str, Any] | None:
    """The record of these engines with this GPU; ``None`` if they have not been compared."""
    return _proof(api, outcomes, memory, cache).record()


def _proof(
    api: Api, outcomes: Sequence[Outcome], memory: DeviceMemory, cache: EngineCache
) -> EngineProof:
    records = {outcome.role: outcome.record for outcome in outcomes}
    return EngineProof(cache, records, memory.device(), api.version)


def verify_engines(
    bundle: Bundle,
    api: Api,
    outcomes: Sequence[Outcome],
    *,
    memory: DeviceMemory,
    cache: EngineCache,
    cases: Iterable[Case] | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[list[Outcome], Mapping[str, Any]]:
    """Run the engines and the bundle's FP32 graphs on the same pictures; keep the figures.

    Args:
        bundle: what the engines were built from.
        api: the runtime.
        outcomes: encoder and decoder.
        memory: the GPU.
        cache: where the engines lie; the record goes into their manifests.
        cases: pictures with prompts; the built-in ones where ``None``.
        threads: of the FP32 model and of all work on the processor.
        progress: is told what is being done.

    Returns:
        The outcomes with the record, and the record; :mod:`samrt.gate` judges it.

    Raises:
        BackendError: an engine cannot be opened, or the FP32 model cannot be run.
        OutputError: the record cannot be written.
    """
    from samrt.admission import prove
    from samrt.backends.tensorrt import TensorRTBackend, TensorRTRtxBackend
    from samrt.model import open_model
    from samrt.predictor import Predictor

    kind = TensorRTRtxBackend if api.runtime == "tensorrt-rtx" else TensorRTBackend
    only = {outcome.record.key.model_sha256: outcome.record for outcome in outcomes}
    backend = kind(api, memory, cache=cache, only=only)
    precision = next(o.precision for o in outcomes if o.role == "encoder")
    options = SessionOptions(threads=threads, allow_refused=True)
    opened = open_model(bundle.path, backend=backend, precision=precision, options=options)
    with Predictor(opened) as predictor:
        record = prove(predictor, cases=cases, progress=progress)
    proof = _proof(api, outcomes, memory, cache)
    proof.store(record)
    told = proof.record()
    if told is None:
        raise RuntimeError("a record that was just stored is not found")
    return [replace(o, record=o.record.with_verification(told)) for o in outcomes], told
