"""The engine a user holds: encode an image once, decode as many prompts as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from time import perf_counter

from numpy.typing import ArrayLike

from samrt import _kernels
from samrt.admission import admit_model
from samrt.backends.base import SessionOptions
from samrt.closing import Closing
from samrt.decoding import (
    check_prompts,
    check_refine_steps,
    decode_together,
    group_prompts,
    placement_of,
)
from samrt.errors import BundleError, ImageError, OptionError
from samrt.geometry import frame_warnings, place
from samrt.manifest import Manifest
from samrt.model import Model, ModelInfo, open_model
from samrt.postprocess import Multimask
from samrt.preprocess import (
    DEFAULT_MAX_PIXELS,
    ImageSource,
    ModelImage,
    Window,
    load_image,
    preprocess,
)
from samrt.types import ImageEmbedding, Prediction, Prompt

__all__ = ["DEFAULT_CHUNK_SIZE", "ModelInfo", "Predictor", "load"]

DEFAULT_CHUNK_SIZE = 16


def load(
    model: str | PathLike[str] = "tiny",
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    arena: bool | None = None,
    spinning: bool | None = None,
    allow_refused: bool = False,
    self_test: bool | None = None,
    form: str | None = None,
) -> Predictor:
    """Open a model.

    What its verification has refused is not opened. An engine compiled for this machine that
    has not been verified yet is compared with the FP32 model first, which takes up to about a
    minute, once; the figures are kept with the engine.

    Args:
        model: name of a model that ships with samrt, or the path of a bundle folder.
        backend: ``"auto"`` or the name of a backend, see :func:`samrt.available_backends`.
        precision: ``"auto"`` (the bundle's default), ``"fp32"``, ``"fp16"``, ``"int8"`` or
            ``"int8-weights"``.
        threads: threads for the runtime and the kernels, 1 to 256. ``None``: the CPUs this
            process may use or its physical cores, whichever is less, at most 8.
        arena: let the runtime keep its memory between runs, which saves page faults. ``None``:
            the decoder does, the encoder, which needs more and runs less often, does not.
        spinning: let worker threads spin while a run is in progress; between runs they sleep.
            ``None``: the decoder's do, the encoder's do not.
        allow_refused: open also what was refused, or what cannot be verified here, as it is.
            Every result then says so in ``warnings`` and ``verification``.
        self_test: run one built-in picture and compare with what the verification recorded,
            which finds kernels that an update of the driver has broken. ``None``: where a driver
            compiles or a GPU computes; a run of the encoder costs more than all the rest of
            the loading of a small model on a CPU.
        form: of the graphs: ``"auto"``, ``"canonical"`` or ``"cpu"``, see
            :class:`samrt.backends.base.SessionOptions`.

    Returns:
        A predictor; what is really in use stands in ``Predictor.info``.

    Raises:
        ModelNotFoundError: no such model.
        BundleError: the bundle is damaged or contradicts itself.
        OptionError: unknown backend, a precision the bundle lacks, bad number of threads.
        BackendUnavailableError: the backend lacks something that is listed.
        BackendError: the runtime does not accept the model.
        VerificationError: refused, now or earlier, or the self-test found other numbers.
    """
    options = SessionOptions(
        threads=threads, arena=arena, spinning=spinning, allow_refused=allow_refused, form=form
    )
    predictor = Predictor(open_model(model, backend=backend, precision=precision, options=options))
    try:
        admit_model(predictor, allow_refused=allow_refused, self_test=self_test)
    except BaseException:
        predictor.close()
        raise
    return predictor


class Predictor(Closing):
    """Turns an image and prompts into masks. Get one from :func:`samrt.load`.

    ``encode`` and ``decode`` keep no state: both may be called from several threads at once on
    the same predictor. ``set_image``, ``predict`` and ``predict_batch`` share the current image,
    so give each thread that uses them a predictor of its own, or a lock. ``close`` must not run
    beside any other call.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._embedding: ImageEmbedding | None = None

    @property
    def info(self) -> ModelInfo:
        """What was asked for and what is in use."""
        return self._model.info

    @property
    def model(self) -> Model:
        """The opened bundle, for code that runs its two halves itself."""
        return self._model

    @property
    def manifest(self) -> Manifest:
        """The rules of the model: its input, the prompts it takes, how masks are made."""
        return self._model.bundle.manifest

    # -- values in, values out ---------------------------------------------------------------

    def encode(
        self,
        image: ImageSource,
        *,
        window: Window | None = None,
        image_format: str = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> ImageEmbedding:
        """Encode an image; the expensive half, once per image.

        Args:
            image: path of an image file; or an array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``
                of dtype uint8 with values 0..255; or ``(H, W)`` uint16, int16 or float with a
                ``window``.
            window: intensities ``(lo, hi)`` that map to black and white, or ``"minmax"`` or
                ``"percentile"`` to take them from the image. Needed for arrays other than
                uint8; 16-bit files default to ``"minmax"`` and say so in ``warnings``.
            image_format: order of the channels of a colour array, ``"RGB"`` or ``"BGR"``.
            max_pixels: largest ``H * W`` accepted.

        Raises:
            ImageError: missing, damaged, empty or too large file, wrong shape or dtype, NaN.
            OptionError: unknown ``image_format``.
            BackendError: the runtime failed or computed NaN.
        """
        source = load_image(
            image,
            window=window,
            image_format=image_format,
            max_pixels=max_pixels,
            threads=self.info.threads,
        )
        return self.encode_loaded(source)

    def encode_loaded(self, source: ModelImage) -> ImageEmbedding:
        """Encode a picture of :func:`samrt.preprocess.load_image`, or a part cut out of one."""
        spec = self._model.bundle.manifest.input
        placement = place(source.size, spec.size, spec.resize_kind)
        start = perf_counter()
        tensor = preprocess(source, placement, spec, threads=self.info.threads)
        prepared = perf_counter()
        features = self._model.run_encoder(tensor)
        done = perf_counter()
        return ImageEmbedding(
            features=features,
            original_size=placement.original_size,
            input_size=placement.input_size,
            frame_size=placement.frame_size,
            scale=placement.scale,
            model_id=self.info.model_id,
            timings=replace(
                source.timings,
                preprocess_ms=_ms(prepared - start),
                encode_ms=_ms(done - prepared),
            ),
            warnings=(
                *self.info.warnings,
                *source.warnings,
                *frame_warnings(placement, spec.cropped_from),
            ),
        )

    def decode(
        self,
        embedding: ImageEmbedding,
        prompts: Prompt | Sequence[Prompt],
        *,
        multimask_output: Multimask = True,
        return_logits: bool = False,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        refine_steps: int = 0,
    ) -> list[Prediction]:
        """Answer prompts about an encoded image, in the order given.

        All prompts are checked before anything is computed. Prompts with the same number of
        tokens (points, plus two for a box or one for its absence) share decoder calls of at most
        ``chunk_size`` prompts; each answer equals that of a call with this prompt alone.

        Args:
            embedding: from ``encode`` of the same model.
            prompts: one or many; ``Prompt.empty()`` for models that take none.
            multimask_output: several candidate masks per prompt, or the single best guess; or
                ``"all"``, the mask of every mask token of the model. Models whose masks are
                classes answer with the mask of every class, of the one with the highest score,
                or with ``"all"`` of the background too.
            return_logits: also fill ``Prediction.mask_logits``.
            chunk_size: most prompts per decoder call; bounds memory.
            refine_steps: ask so many times more, 0 to 10, each time with the best mask of the
                time before as mask input. Better masks for a decoder call each, see
                ``benchmarks/refine.py``.

        Raises:
            BundleError: the embedding belongs to another model.
            PromptError: a prompt is malformed, outside the image or not taken by the model; with
                several prompts the message starts with the number of the first bad one.
            OptionError: bad ``chunk_size`` or ``multimask_output``, or ``refine_steps`` that the
                model, which takes no mask, cannot do.
            BackendError: the runtime failed or computed NaN.
        """
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise OptionError(f"chunk_size must be a whole number from 1, got {chunk_size!r}")
        if isinstance(multimask_output, str) and multimask_output != "all":
            raise OptionError(
                f"multimask_output must be True, False or 'all', got {multimask_output!r}"
            )
        self.check_embedding(embedding)
        wanted = [prompts] if isinstance(prompts, Prompt) else list(prompts)
        manifest = self._model.bundle.manifest
        check_refine_steps(refine_steps, manifest)
        check_prompts(wanted, embedding.original_size, manifest)
        answers: dict[int, Prediction] = {}
        for members in group_prompts(wanted, manifest.prompts, chunk_size):
            found = decode_together(
                self._model,
                embedding,
                [wanted[index] for index in members],
                multimask=multimask_output,
                return_logits=return_logits,
                refine_steps=refine_steps,
            )
            answers.update(zip(members, found, strict=True))
        return [answers[index] for index in range(len(wanted))]

    # -- the current image, as SamPredictor has it --------------------------------------------

    def set_image(
        self, image: ImageSource, image_format: str = "RGB", *, window: Window | None = None
    ) -> None:
        """Encode an image and keep it for ``predict``; see :meth:`encode`.

        If it fails, the image set before stays set.
        """
        self._embedding = self.encode(image, window=window, image_format=image_format)

    def set_embedding(self, embedding: ImageEmbedding) -> None:
        """Make an embedding, saved earlier perhaps, the current image.

        Raises:
            BundleError: it belongs to another model.
        """
        self.check_embedding(embedding)
        self._embedding = embedding

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        *,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: Multimask = True,
        return_logits: bool = False,
        refine_steps: int = 0,
    ) -> Prediction:
        """Answer one prompt about the current image; none for models that take none.

        Args:
            point_coords: ``(P, 2)`` points ``(x, y)`` in pixels of the image.
            point_labels: ``(P,)`` of 1 (object) and 0 (background).
            box: ``(4,)`` XYXY in pixels of the image.
            mask_input: ``(h, w)`` or ``(1, h, w)`` float32, from ``Prediction.logits``.
            multimask_output, refine_steps: see :meth:`decode`.
            return_logits: also fill ``Prediction.mask_logits``.

        Raises:
            ImageError: no image is set.
            PromptError: malformed, outside the image or not taken by the model.
            BackendError: the runtime failed or computed NaN.
        """
        embedding = self._current()
        given = (box, point_coords, point_labels, mask_input)
        if self.manifest.prompts.takes_prompts or any(part is not None for part in given):
            prompt = Prompt(
                box=box,
                point_coords=point_coords,
                point_labels=point_labels,
                mask_input=mask_input,
            )
        else:
            prompt = Prompt.empty()
        return self.decode(
            embedding,
            prompt,
            multimask_output=multimask_output,
            return_logits=return_logits,
            refine_steps=refine_steps,
        )[0]

    def predict_batch(
        self,
        prompts: Sequence[Prompt],
        *,
        multimask_output: Multimask = True,
        return_logits: bool = False,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        refine_steps: int = 0,
    ) -> list[Prediction]:
        """Answer many prompts about the current image; see :meth:`decode`.

        Raises:
            ImageError: no image is set.
        """
        return self.decode(
            self._current(),
            prompts,
            multimask_output=multimask_output,
            return_logits=return_logits,
            chunk_size=chunk_size,
            refine_steps=refine_steps,
        )

    def reset_image(self) -> None:
        """Forget the current image."""
        self._embedding = None

    @property
    def is_image_set(self) -> bool:
        """Whether ``predict`` has an image to work on."""
        return self._embedding is not None

    @property
    def embedding(self) -> ImageEmbedding:
        """The current image, encoded.

        Raises:
            ImageError: no image is set.
        """
        return self._current()

    # -- end of life ----------------------------------------------------------------------------

    def close(self) -> None:
        """Free the model, the current image and memory kept for tensors; twice is fine."""
        self.reset_image()
        self._model.close()
        _kernels.release_memory()

    # -- inside ---------------------------------------------------------------------------------

    def _current(self) -> ImageEmbedding:
        if self._embedding is None:
            raise ImageError("no image is set: call set_image before predict")
        return self._embedding

    def check_embedding(self, embedding: ImageEmbedding) -> None:
        """Refuse what is no embedding of this very model.

        Raises:
            ImageError: not an embedding.
            BundleError: of another model, or damaged.
        """
        if not isinstance(embedding, ImageEmbedding):
            raise ImageError(
                f"expected an ImageEmbedding from encode, got {type(embedding).__name__}"
            )
        if embedding.model_id != self.info.model_id:
            raise BundleError(
                f"this embedding was made by {embedding.model_id}, the model in use is "
                f"{self.info.model_id}: encode the image with this model"
            )
        spec = self._model.bundle.manifest.input
        if placement_of(embedding) != place(embedding.original_size, spec.size, spec.resize_kind):
            raise BundleError("this embedding has sizes that do not fit together: encode again")


def _ms(seconds: float) -> float:
    return seconds * 1000.0
