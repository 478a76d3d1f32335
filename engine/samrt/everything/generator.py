"""``AutomaticMaskGenerator``: every mask of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from samrt.errors import OptionError, PromptError
from samrt.everything.asking import Clock, ask
from samrt.everything.defaults import thresholds_of
from samrt.everything.filters import keep_best, without_small_regions
from samrt.everything.findings import Findings, Masks, join
from samrt.everything.grid import Crop, crops_of
from samrt.everything.options import EverythingOptions
from samrt.predictor import Predictor
from samrt.preprocess import DEFAULT_MAX_PIXELS, ImageSource, ModelImage, Window, cut, load_image
from samrt.types import ImageEmbedding, Size

__all__ = ["AutomaticMaskGenerator", "Progress"]

Progress = Callable[[int, int], None]
"""Called with the number of points asked so far and of all."""

_BATCH_ON_CPU = 4
"""Prompts per decoder call on processors: fewer or many more take longer each, and the memory
grows with them, see ``benchmarks/everything.py --sweep``."""
_BATCH_ELSEWHERE = 16
"""What engines are built for, see :class:`samrt.engines.options.BuildOptions`."""
_CPU_BACKENDS = ("onnxruntime", "openvino")


class AutomaticMaskGenerator:
    """Finds all masks of an image by asking the model about every point of a grid.

    Parameters, steps and results are those of ``SamAutomaticMaskGenerator``, so code written for it
    needs another import and a predictor in place of the model. Three things differ:
    ``pred_iou_thresh`` and ``stability_score_thresh`` default to values that fit the model (SAM's
    for SAM), ``points_per_batch`` to one that fits the backend, and a mask without any pixel above
    the lower level has stability 0 where the original has NaN.

    Masks are kept as run lengths from the moment they are made: besides the encoder's and the
    decoder's own memory, ``H * W`` bytes are needed for each thread, and what the run lengths take.

    ``generate`` keeps no state; several threads may use the same generator.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        points_per_side: int | None = 32,
        points_per_batch: int | None = None,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[ArrayLike] | None = None,
        min_mask_region_area: float = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Check the parameters; see :class:`samrt.everything.options.EverythingOptions`.

        Raises:
            OptionError: a value out of range.
            PromptError: the model takes no points, or its masks are classes.
        """
        _check_model(predictor)
        own = thresholds_of(predictor.manifest.family)
        on_cpu = predictor.info.backend_effective in _CPU_BACKENDS
        fitting = _BATCH_ON_CPU if on_cpu else _BATCH_ELSEWHERE
        self._predictor = predictor
        self.options = EverythingOptions(
            points_per_side=points_per_side,
            points_per_batch=fitting if points_per_batch is None else points_per_batch,
            pred_iou_thresh=own.pred_iou_thresh if pred_iou_thresh is None else pred_iou_thresh,
            stability_score_thresh=own.stability_score_thresh
            if stability_score_thresh is None
            else stability_score_thresh,
            stability_score_offset=stability_score_offset,
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            point_grids=point_grids,
            min_mask_region_area=min_mask_region_area,
            output_mode=output_mode,
        )

    def generate(
        self,
        image: ImageSource | ImageEmbedding,
        *,
        window: Window | None = None,
        image_format: str = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> list[dict[str, Any]]:
        """All masks of an image, best first within a crop.

        Args:
            image: as :meth:`samrt.Predictor.encode` takes it; or an embedding, without crops.
            window: see ``encode``.
            image_format: see ``encode``.
            max_pixels: see ``encode``.

        Returns:
            One dictionary per mask: ``segmentation``, an array ``(H, W)`` bool or a COCO RLE as
            ``output_mode`` says; ``area`` in pixels; ``bbox`` ``[x, y, w, h]`` as SAM counts it
            (``w`` and ``h`` are distances between the first and the last pixel, one less than their
            number); ``predicted_iou``; ``point_coords``, the point that was asked, as
            ``[[x, y]]``; ``stability_score``; ``crop_box`` ``[x, y, w, h]``.

        Raises:
            ImageError: see ``encode``.
            OptionError: an embedding together with ``crop_n_layers``.
            BundleError: an embedding of another model.
            BackendError: the runtime failed or computed NaN.
        """
        found = self.find(image, window=window, image_format=image_format, max_pixels=max_pixels)
        return list(found.records(self.options.output_mode))

    def find(
        self,
        image: ImageSource | ImageEmbedding,
        *,
        window: Window | None = None,
        image_format: str = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        progress: Progress | None = None,
    ) -> Findings:
        """The same as run lengths, with times; see :meth:`generate`."""
        options, clock = self.options, Clock()
        if isinstance(image, ImageEmbedding):
            size = self._whole(image)
            crops = crops_of(size, 0, 0.0)
        else:
            source = load_image(
                image,
                window=window,
                image_format=image_format,
                max_pixels=max_pixels,
                threads=self._predictor.info.threads,
            )
            size = source.size
            crops = crops_of(size, options.crop_n_layers, options.crop_overlap_ratio)
        total = sum(len(options.grids[crop.layer]) for crop in crops)
        asked = 0
        parts: list[Masks] = []
        remarks: dict[str, None] = {}
        for crop in crops:
            if isinstance(image, ImageEmbedding):
                embedding = image
            else:
                embedding = self._encode(source, crop, clock)
            remarks.update(dict.fromkeys(embedding.warnings))
            found: list[Masks] = []
            for masks, count in self._batches(embedding, crop, size, clock):
                found.append(masks)
                asked += count
                if progress is not None:
                    progress(asked, total)
            with clock.time("filter"):
                masks = join(found)
                kept = keep_best(masks.boxes, masks.scores, options.box_nms_thresh)
                parts.append(masks.take(kept))
        with clock.time("filter"):
            masks = self._cleaned(self._between_crops(join(parts), len(crops)), size)
        return Findings(masks, size, MappingProxyType(clock.spent), asked, tuple(remarks))

    # -- steps --------------------------------------------------------------------------------

    def _whole(self, embedding: ImageEmbedding) -> Size:
        if self.options.crop_n_layers:
            raise OptionError(
                "an embedding holds the whole image only: pass the image, or crop_n_layers=0"
            )
        self._predictor.check_embedding(embedding)
        return embedding.original_size

    def _encode(self, source: ModelImage, crop: Crop, clock: Clock) -> ImageEmbedding:
        with clock.time("encode"):
            part = source if crop.layer == 0 else cut(source, crop.box)
            return self._predictor.encode_loaded(part)

    def _batches(
        self, embedding: ImageEmbedding, crop: Crop, size: Size, clock: Clock
    ) -> Iterator[tuple[Masks, int]]:
        """The masks of each decoder call and how many points it answered."""
        options, model = self.options, self._predictor.model
        height, width = crop.size
        points = options.grids[crop.layer] * np.array([width, height], np.float64)
        for start in range(0, len(points), options.points_per_batch):
            batch = points[start : start + options.points_per_batch]
            yield ask(model, embedding, batch, crop, size, options, clock), len(batch)

    def _between_crops(self, masks: Masks, crops: int) -> Masks:
        """Remove doubles between crops; the mask of the smaller crop stays."""
        if crops < 2:
            return masks
        sides = masks.crops[:, 2:] - masks.crops[:, :2]
        scores = (1.0 / sides.prod(axis=1)).astype(np.float32)
        return masks.take(keep_best(masks.boxes, scores, self.options.crop_nms_thresh))

    def _cleaned(self, masks: Masks, size: Size) -> Masks:
        """Without small regions, and without doubles that this makes; untouched masks win."""
        options = self.options
        if not options.min_mask_region_area or not len(masks):
            return masks
        cleaned = [
            without_small_regions(counts, size, options.min_mask_region_area)
            for counts in masks.counts
        ]
        changed = np.array([item[2] for item in cleaned])
        boxes = np.stack([item[1] for item in cleaned])
        most = max(options.box_nms_thresh, options.crop_nms_thresh)
        kept = keep_best(boxes, (~changed).astype(np.float32), most)
        new = Masks(
            [item[0] for item in cleaned],
            np.where(changed[:, None], boxes, masks.boxes),
            masks.scores,
            masks.stability,
            masks.points,
            masks.crops,
        )
        return new.take(kept)


def _check_model(predictor: Predictor) -> None:
    if not isinstance(predictor, Predictor):
        raise OptionError(f"expected a Predictor from samrt.load, got {type(predictor).__name__}")
    manifest = predictor.manifest
    if not manifest.prompts.points or manifest.output.kind != "masks":
        raise PromptError(
            f"{manifest.name} takes no points: everything mode asks about points, use a model that "
            "takes them, such as tiny"
        )
