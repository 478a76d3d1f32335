"""The values that travel through samrt: prompts, embeddings, predictions, timings.

All of them are frozen. Conventions everywhere: points are ``(x, y)``, boxes are XYXY, sizes are
``(H, W)``, coordinates are pixels of the original image where the centre of the top-left pixel
is ``(0, 0)``. Arrays inside prompts and embeddings are private read-only copies; arrays inside
a prediction belong to the caller and may be changed freely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samrt.errors import PromptError
from samrt.quoting import one_line

__all__ = ["Box", "ImageEmbedding", "Prediction", "Prompt", "Size", "Timings"]

Box = tuple[float, float, float, float]
Size = tuple[int, int]


def frozen_copy(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return a C-contiguous read-only array of ``dtype`` that nobody else can write to.

    An array that already is read-only and owns its memory is passed through.
    """
    private = array.flags.owndata and not array.flags.writeable and array.flags.c_contiguous
    if private and array.dtype == np.dtype(dtype):
        return array
    copied = np.array(array, dtype=dtype, order="C", copy=True)
    copied.flags.writeable = False
    return copied


@dataclass(frozen=True, slots=True)
class Timings(Mapping[str, "float | None"]):
    """Wall-clock time of each stage in milliseconds; ``None`` for a stage that did not run.

    ``decode_image_ms`` reading the file, ``preprocess_ms`` resize and normalise, ``encode_ms``
    the image encoder, ``decode_prompt_ms`` the prompt decoder (for prompts that shared one
    decoder call: the call's time divided by their number), ``postprocess_ms`` mask resizing and
    statistics. Behaves as a read-only mapping from these names to values.
    """

    decode_image_ms: float | None = None
    preprocess_ms: float | None = None
    encode_ms: float | None = None
    decode_prompt_ms: float | None = None
    postprocess_ms: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """Return a plain dictionary with all five stages in the order in which they run."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __getitem__(self, key: str) -> float | None:
        return self.as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(fields(self))


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Prompt:
    """What to segment: a box, points, a mask of an earlier prediction, or several of them.

    Building one checks types and shapes; whether it fits an image and a model is checked when
    it is decoded (see :func:`samrt.prompts.make_prompt`).

    Attributes:
        box: ``(x0, y0, x1, y1)`` in image pixels, one box.
        point_coords: ``(P, 2)`` float64, ``(x, y)`` in image pixels, ``P >= 1``.
        point_labels: ``(P,)`` int64, 1 = part of the object, 0 = not part of it.
        mask_input: ``(h, w)`` float32 low-resolution logits, one of ``Prediction.logits``;
            ``(1, h, w)`` is accepted.

    Raises:
        PromptError: nothing given, wrong shape, not numeric, labels other than 0 and 1,
            points without labels or the other way round, NaN or infinite values.
    """

    box: Box | None
    point_coords: NDArray[np.float64] | None
    point_labels: NDArray[np.int64] | None
    mask_input: NDArray[np.float32] | None

    def __init__(
        self,
        *,
        box: ArrayLike | None = None,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
    ) -> None:
        if point_coords is None and point_labels is not None:
            raise PromptError("point_labels given without point_coords: give both")
        if point_coords is not None and point_labels is None:
            raise PromptError("point_coords given without point_labels: give one label per point")
        if box is None and point_coords is None and mask_input is None:
            raise PromptError("empty prompt: give a box, points with labels, or a mask_input")
        coords = None if point_coords is None else _as_points(point_coords)
        labels = None
        if coords is not None and point_labels is not None:
            labels = _as_labels(point_labels, len(coords))
        put = object.__setattr__
        put(self, "box", None if box is None else _as_box(box))
        put(self, "point_coords", coords)
        put(self, "point_labels", labels)
        put(self, "mask_input", None if mask_input is None else _as_mask_input(mask_input))

    @classmethod
    def empty(cls) -> Prompt:
        """Nothing asked in particular: for models that take no prompts."""
        prompt = object.__new__(cls)
        for item in fields(cls):
            object.__setattr__(prompt, item.name, None)
        return prompt

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a box nor points nor a mask."""
        return self.box is None and self.point_coords is None and self.mask_input is None


def _array(value: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as exc:
        reason = one_line(exc)
        raise PromptError(f"{name} is not a regular array of numbers: {reason}") from None


def _numeric(value: ArrayLike, name: str) -> NDArray[Any]:
    array = _array(value, name)
    if array.dtype.kind not in "iuf":
        raise PromptError(f"{name} must hold numbers, got dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise PromptError(f"{name} holds NaN or infinity: every value must be finite")
    return array


def _as_box(value: ArrayLike) -> Box:
    array = _numeric(value, "box")
    if array.ndim == 2 and array.shape[0] > 1 and array.shape[1] == 4:
        raise PromptError(
            f"got {array.shape[0]} boxes, expected one: a prompt holds one box, "
            "pass a list of prompts to predict_batch for several"
        )
    if array.shape not in ((4,), (1, 4)):
        raise PromptError(f"box must be (x0, y0, x1, y1), got an array of shape {array.shape}")
    x0, y0, x1, y1 = (float(v) for v in array.reshape(4))
    return (x0, y0, x1, y1)


def _as_points(value: ArrayLike) -> NDArray[np.float64]:
    array = _array(value, "point_coords")
    if array.size == 0:
        raise PromptError("point_coords is empty: leave it out or give at least one (x, y)")
    if array.ndim != 2 or array.shape[1] != 2:
        raise PromptError(
            f"point_coords must have shape (P, 2) with (x, y) rows, got {array.shape}"
        )
    coords: NDArray[np.float64] = frozen_copy(_numeric(array, "point_coords"), np.float64)
    return coords


def _as_labels(value: ArrayLike, count: int) -> NDArray[np.int64]:
    array = _array(value, "point_labels")
    if array.dtype == np.bool_:
        array = array.astype(np.int64)
    array = _numeric(array, "point_labels")
    if array.shape != (count,):
        raise PromptError(
            f"point_labels must have shape ({count},), one label per point, got {array.shape}"
        )
    if not np.isin(array, (0, 1)).all():
        bad = array[~np.isin(array, (0, 1))][0]
        raise PromptError(f"point_labels must be 1 (object) or 0 (background), got {bad:g}")
    labels: NDArray[np.int64] = frozen_copy(array, np.int64)
    return labels


def _as_mask_input(value: ArrayLike) -> NDArray[np.float32]:
    array = _array(value, "mask_input")
    if array.dtype == np.bool_:
        raise PromptError(
            "mask_input is a boolean mask, expected low-resolution float logits: "
            "pass Prediction.logits[i] of an earlier prediction"
        )
    array = _numeric(array, "mask_input")
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.size == 0:
        raise PromptError(
            f"mask_input must be one map of shape (h, w) or (1, h, w), got {array.shape}: "
            "pass Prediction.logits[i] for one mask i"
        )
    with np.errstate(over="ignore"):
        mask: NDArray[np.float32] = frozen_copy(array, np.float32)
    if not np.isfinite(mask).all():
        raise PromptError("mask_input does not fit into float32: its values are too large")
    return mask


@dataclass(frozen=True, slots=True, eq=False)
class ImageEmbedding:
    """An encoded image: everything the decoder needs, independent of the image itself.

    It is a value: keep it, save it, send it to another process that runs the same model. The
    arrays are read-only.

    Attributes:
        features: name of the encoder output -> float32 array ``(1, C, h, w)``.
        original_size: ``(H, W)`` of the image in pixels.
        input_size: ``(h, w)`` of the resized image inside the model frame.
        frame_size: ``(S_h, S_w)`` of the model frame, padding included.
        scale: ``(sy, sx)`` model pixels per image pixel.
        model_id: ``name@`` + 12 hex digits that identify the exact model files.
        timings: time spent on reading, preprocessing and encoding.
        warnings: remarks about the image, such as an assumed intensity window.
    """

    features: Mapping[str, NDArray[np.float32]]
    original_size: Size
    input_size: Size
    frame_size: Size
    scale: tuple[float, float]
    model_id: str
    timings: Timings = field(default_factory=Timings)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        private = {name: frozen_copy(a, np.float32) for name, a in self.features.items()}
        object.__setattr__(self, "features", MappingProxyType(private))

    def __reduce__(self) -> tuple[Any, ...]:
        values = [getattr(self, f.name) for f in fields(self)]
        return (type(self), (dict(self.features), *values[1:]))

    @property
    def nbytes(self) -> int:
        """Memory held by the feature arrays, in bytes."""
        return sum(array.nbytes for array in self.features.values())

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the embedding to one ``.npz`` file, completely or not at all.

        Raises:
            OutputError: the file exists and ``overwrite`` is false, or it cannot be written.
        """
        from samrt.embedding_file import save_embedding

        save_embedding(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ImageEmbedding:
        """Read an embedding written by :meth:`save`; nothing in the file is ever executed.

        Raises:
            BundleError: no such file, not an embedding, another version, or damaged.
        """
        from samrt.embedding_file import load_embedding

        return load_embedding(path)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one prompt: ``M`` candidate masks with their figures.

    Unpacks into ``masks, scores, logits`` (with ``return_logits=True`` into
    ``mask_logits, scores, logits``) as code written for ``SamPredictor`` expects.

    Attributes:
        masks: ``(M, H, W)`` bool at the size of the original image.
        scores: ``(M,)`` float32, the model's own estimate of each mask's IoU; for models whose
            masks are classes the mean probability inside each mask, see :mod:`samrt.classes`.
        logits: ``(M, h, w)`` float32 low-resolution logits; ``logits[i]`` may be fed back as
            ``mask_input``.
        stability: ``(M,)`` float32 in [0, 1], IoU between the masks cut a little above and a
            little below the threshold.
        areas_px: ``(M,)`` int64, pixels in each mask.
        boxes: ``(M, 4)`` float64, tight XYXY box; ``x1`` and ``y1`` lie on the far edge of the
            last pixel, so the width is ``x1 - x0``. All zero for an empty mask.
        prompt: the prompt that was answered.
        timings: time per stage.
        warnings: remarks, such as an empty mask or an assumed intensity window.
        mask_logits: ``(M, H, W)`` float32 logits (or probabilities, where the model thresholds
            those) at the size of the original image; only with ``return_logits=True``.
        ranked_by: ``"predicted_iou"`` or ``"stability"``, what the model ranks its masks by.
        verification: ``"passed"``, ``"refused"`` or ``"unverified"``: whether the model that
            answered was found equal to its FP32 original; details in ``Predictor.info``.
        zoom: the part ``(x0, y0, x1, y1)`` of the image that was encoded, where that was not all
            of it; ``logits`` then belong to it, see :mod:`samrt.zoom`.
        refine_steps: how often the decoder was asked again with its own mask.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    stability: NDArray[np.float32]
    areas_px: NDArray[np.int64]
    boxes: NDArray[np.float64]
    prompt: Prompt
    timings: Timings = field(default_factory=Timings)
    warnings: tuple[str, ...] = ()
    mask_logits: NDArray[np.float32] | None = None
    ranked_by: str = "predicted_iou"
    verification: str = "unverified"
    zoom: tuple[int, int, int, int] | None = None
    refine_steps: int = 0

    @property
    def best(self) -> int:
        """Index of the highest ranked mask; the first one of equals."""
        return int(np.argmax(self.stability if self.ranked_by == "stability" else self.scores))

    @property
    def low_res_masks(self) -> NDArray[np.float32]:
        """Another name of ``logits``, as ``SamPredictor.predict_torch`` calls them."""
        return self.logits

    def __iter__(self) -> Iterator[NDArray[Any]]:
        yield self.masks if self.mask_logits is None else self.mask_logits
        yield self.scores
        yield self.logits
