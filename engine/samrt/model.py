"""A bundle opened with a backend: two sessions that agree with the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.backends import get_backend
from samrt.backends.base import Backend, Proof, Session, SessionOptions
from samrt.backends.choice import choose_backend
from samrt.bundle import Bundle, find_model
from samrt.errors import BundleError
from samrt.gate import Verdict, admit, graph_verdict, remark
from samrt.manifest import Artifact, TensorSpec
from samrt.prompts import DecoderInput

__all__ = ["Model", "ModelInfo", "open_model"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was asked for and what is really running.

    Attributes:
        name: name of the bundle, such as ``tiny``.
        family: model family.
        variant: the exact variant.
        model_id: ``name@`` + 12 hex digits; embeddings carry it.
        sha256: digest over all model files and rules of the bundle.
        files: role (``encoder``, ``decoder``) -> sha256 of the file in use.
        path: the bundle folder.
        precision_requested: as given to ``load``, maybe ``auto``.
        precision_effective: precision of the encoder in use.
        decoder_precision: precision of the decoder in use.
        backend_requested: as given to ``load``, maybe ``auto``.
        backend_effective: the backend in use.
        backend_version: version of its runtime.
        threads: threads the runtime and the kernels may use.
        license: licence of the weights.
        intended_use: what the weights are meant for.
        verification: what is known of the accuracy of what is running, see :mod:`samrt.gate`.
        warnings: remarks that every result carries, such as that a refused model is in use.
        device: where the runtime computes, in its own words.
        backend_reason: why this backend was taken.
        form_requested: which form of the graphs was asked for, maybe ``auto``.
        form_effective: the one in use, ``canonical``, or ``cpu`` if a graph has that form and
            runs in it.
        form_reason: why it was taken.
    """

    name: str
    family: str
    variant: str
    model_id: str
    sha256: str
    files: Mapping[str, str]
    path: str
    precision_requested: str
    precision_effective: str
    decoder_precision: str
    backend_requested: str
    backend_effective: str
    backend_version: str
    threads: int
    license: str
    intended_use: str
    verification: Verdict = field(default=Verdict("unverified", "nothing is known"))
    warnings: tuple[str, ...] = ()
    device: str = "CPU"
    backend_reason: str = "asked for"
    form_requested: str = "auto"
    form_effective: str = "canonical"
    form_reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return a plain, JSON-ready dictionary."""
        return asdict(self)


class Model:
    """Encoder and decoder of one bundle, ready to run. Both calls are safe in several threads.

    Attributes:
        bundle: the bundle.
        info: what is running.
        proof: where the record of compiled sessions is kept; ``None`` for graphs.
        tests_itself: it is tested when it is loaded unless the caller says otherwise.
    """

    def __init__(
        self,
        bundle: Bundle,
        info: ModelInfo,
        encoder: Session,
        decoder: Session,
        proof: Proof | None = None,
        *,
        tests_itself: bool = False,
    ) -> None:
        self.bundle = bundle
        self.info = info
        self.proof = proof
        self.tests_itself = tests_itself
        self._encoder = encoder
        self._decoder = decoder

    def run_encoder(self, image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Encode a preprocessed image ``(1, 3, S_h, S_w)``.

        Returns:
            Name of each encoder output -> read-only float32 array ``(1, C, h, w)``.

        Raises:
            BackendError: the runtime failed or the result holds NaN or infinity.
        """
        wanted = self._encoder.inputs[0]
        results = self._encoder.run({wanted.name: image.astype(wanted.dtype, copy=False)})
        features = {name: array.astype(np.float32, copy=False) for name, array in results.items()}
        for array in features.values():
            array.flags.writeable = False
        self._encoder.retain(features)
        return features

    def run_decoder(
        self, features: Mapping[str, NDArray[np.float32]], prompts: DecoderInput
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode ``N`` prompts in one call.

        Returns:
            Low-resolution masks ``(N, num_masks, h, w)`` and predicted IoU ``(N, num_masks)``,
            both float32.

        Raises:
            BackendError: features of another model, the runtime failed, or the result holds NaN
                or infinity.
            BundleError: the graph returns another number of answers than prompts.
        """
        wanted = {spec.name: spec.dtype for spec in self._decoder.inputs}
        given = {name: array for name, array in prompts.feeds().items() if name in wanted}
        feeds: dict[str, NDArray[Any]] = {**features, **given}
        for name in wanted.keys() & feeds.keys():
            feeds[name] = feeds[name].astype(wanted[name], copy=False)
        results = self._decoder.run(feeds)
        masks, scores = results["low_res_masks"], results["iou_predictions"]
        count = len(prompts.point_coords)
        if len(masks) != count or len(scores) != count:
            raise BundleError(
                f"decoder of {self.info.model_id} returned {len(masks)} masks and {len(scores)} "
                f"scores for {count} prompts: its graph is wrong, export the model again"
            )
        return masks.astype(np.float32, copy=False), scores.astype(np.float32, copy=False)

    @property
    def takes_mask_input(self) -> bool:
        """Whether the decoder has an input for an earlier mask."""
        return any(spec.name == "mask_input" for spec in self._decoder.inputs)

    def close(self) -> None:
        """Free both sessions; closing twice is fine."""
        self._encoder.close()
        self._decoder.close()


def options_for(role: str, options: SessionOptions) -> SessionOptions:
    """Options of one session: what is left open is on for the decoder and off for the encoder."""
    small = role == "decoder"
    return replace(
        options,
        arena=small if options.arena is None else options.arena,
        spinning=small if options.spinning is None else options.spinning,
    )


def open_model(
    model: str | PathLike[str], *, backend: str | Backend, precision: str, options: SessionOptions
) -> Model:
    """Find a bundle, check it, and open its two sessions; see :func:`samrt.load`.

    Graphs that their verification has refused are not opened unless ``options.allow_refused``;
    compiled sessions are not proven here, see :mod:`samrt.admission`.
    """
    bundle = Bundle.open(find_model(model))
    chosen = {role: bundle.artifact(role, precision) for role in ("encoder", "decoder")}
    requested = backend if isinstance(backend, str) else backend.name
    choice = None
    if backend == "auto":
        choice = choose_backend(bundle, chosen["encoder"].precision, options.effective_threads)
    wanted = backend if choice is None else choice.backend
    runtime = wanted if isinstance(wanted, Backend) else get_backend(wanted)
    form = runtime.choose_form(bundle, chosen, options)
    chosen = dict(form.artifacts)
    verdict, said = _judge(bundle, chosen, options, runtime.name)
    sessions: dict[str, Session] = {}
    try:
        for role, artifact in chosen.items():
            own = options_for(role, options)
            sessions[role] = runtime.open_artifact(bundle, artifact, own)
            _compare(artifact, sessions[role])
    except BaseException:
        for session in sessions.values():
            session.close()
        raise
    manifest = bundle.manifest
    info = ModelInfo(
        name=manifest.name,
        family=manifest.family,
        variant=manifest.variant,
        model_id=bundle.model_id,
        sha256=bundle.sha256,
        files={role: artifact.sha256 for role, artifact in chosen.items()},
        path=str(bundle.path),
        precision_requested=precision,
        precision_effective=chosen["encoder"].precision,
        decoder_precision=chosen["decoder"].precision,
        backend_requested=requested,
        backend_effective=runtime.name,
        backend_version=runtime.version(),
        threads=options.effective_threads,
        license=str(manifest.source["license"]),
        intended_use=str(manifest.source["intended_use"]),
        verification=verdict,
        warnings=() if said is None else (said,),
        device=runtime.device(),
        backend_reason="asked for" if choice is None else choice.reason,
        form_requested=form.requested,
        form_effective=form.form,
        form_reason=form.reason,
    )
    return Model(
        bundle,
        info,
        sessions["encoder"],
        sessions["decoder"],
        runtime.proof(sessions),
        tests_itself=runtime.device() != "CPU",
    )


def _judge(
    bundle: Bundle, chosen: Mapping[str, Artifact], options: SessionOptions, backend: str
) -> tuple[Verdict, str | None]:
    """What the record of the graphs says, and what every result has to say about it."""
    encoder = chosen["encoder"]
    what = f"{bundle.manifest.name} in {encoder.precision}"
    if any(artifact.form == "cpu" for artifact in chosen.values()):
        what += " (cpu form)"
    verdict = admit(
        graph_verdict(bundle.manifest, chosen, backend),
        what,
        allow_refused=options.allow_refused,
        advice="use another precision, export or quantize it again",
    )
    return verdict, remark(verdict, what, encoder.precision)


def _compare(artifact: Artifact, session: Session) -> None:
    """Refuse a model file whose inputs or outputs differ from the manifest; list all."""
    found = []
    for side, wanted, have in (
        ("input", artifact.inputs, session.inputs),
        ("output", artifact.outputs, session.outputs),
    ):
        real = {spec.name: spec for spec in have}
        named = {spec.name for spec in wanted}
        found += [f"{side} {n!r} is not in the manifest" for n in real if n not in named]
        for spec in wanted:
            if spec.name not in real:
                found.append(f"{side} {spec.name!r} is not in the file")
            elif not _agree(spec, real[spec.name]):
                found.append(f"{side} {spec} is {real[spec.name]} in the file")
    if found:
        raise BundleError(
            f"{artifact.file} differs from its manifest: {'; '.join(found)}; export it again"
        )


def _agree(wanted: TensorSpec, real: TensorSpec) -> bool:
    """Same dtype and rank; sizes that are fixed on both sides are equal, inputs' freedom kept."""
    if wanted.dtype != real.dtype or len(wanted.shape) != len(real.shape):
        return False
    for want, have in zip(wanted.shape, real.shape, strict=True):
        if isinstance(have, int) and want != have:
            return False
    return True
