"""samrt behind the interface of the golden vectors' `check_golden.py`.

`load(family, weights, info)` writes the seeded weights as a checkpoint file in the layout in which
that family is published, exports it with `samrt_export.export`, opens the bundle with `samrt.load`
and answers from it, so that reading, identification, graphs and the runtime are all in the loop.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import samrt
from samrt import Predictor, Prompt
from samrt._kernels import resize
from samrt.decoding import placement_of
from samrt.geometry import place
from samrt.postprocess import make_masks
from samrt.preprocess import load_image, preprocess
from samrt.prompts import decoder_input

WRAPPED = ("sam_med2d", "efficient_sam_ti", "efficient_sam_s", "sam2.1_hiera_t")
NOT_TOLD_APART = {"medsam": "medsam"}
"""Families whose keys are those of another one, so that the user must name them."""
BYTES_FIRST = ("bilinear_antialias", "area", "bspline_antialias")
"""Resizing kinds with a picture of whole numbers in between."""


def write_checkpoint(family: str, weights: Mapping[str, Any], info: Mapping[str, Any],
                     folder: Path, lora: Path | None) -> dict[str, Any]:  # fmt: skip
    """The seeded weights as files; returns the arguments of `export`.

    `lora` is the published adapter file of `sam_lora_vitb`, whose sha256 the index holds.
    """
    import torch

    def tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}

    path = folder / "checkpoint.pth"
    extra: dict[str, Any] = {}
    if family in ("sam_lora_vitb", "samed"):
        base = folder / "base.pth"
        torch.save(tensors(weights["base"]), base)
        extra["base"] = base
        if weights["adapter"] is None:
            if lora is None:
                raise FileNotFoundError("sam_lora_vitb needs its published adapter file")
            digest = hashlib.sha256(lora.read_bytes()).hexdigest()
            if digest != info["adapter_sha256"]:
                raise ValueError(f"{lora} is not the adapter that the vectors were made with")
            path = lora
        else:
            torch.save(tensors(weights["adapter"]), path)
    else:
        state = tensors(weights)
        torch.save({"model": state} if family in WRAPPED else state, path)
    if family in NOT_TOLD_APART:
        extra["family"] = NOT_TOLD_APART[family]
    return {"source": path, **extra}


class Engine:
    """`set_image` and `predict` as `check_golden.py` calls them."""

    def __init__(self, predictor: Predictor, *, best_of_many: bool, image_format: str) -> None:
        self.predictor, self.best_of_many = predictor, best_of_many
        self.image_format = image_format
        self.embedding: samrt.ImageEmbedding | None = None

    def set_image(self, rgb: Any) -> dict[str, Any]:
        """Encode; also returns what went into the network."""
        manifest = self.predictor._model.bundle.manifest
        spec = manifest.input
        source = load_image(rgb, image_format=self.image_format)
        placement = place(source.size, spec.size, spec.resize_kind)
        self.embedding = self.predictor.encode(rgb, image_format=self.image_format)
        out: dict[str, Any] = {
            "input": preprocess(source, placement, spec, threads=2).astype(np.float32),
            "embedding": self.embedding.features["image_embeddings"],
        }
        if spec.interpolation in BYTES_FIRST and spec.rounding != "none":
            out["resized"] = resize(
                source.array, placement.input_size, spec.interpolation, rounding=spec.rounding
            )
        return out

    def predict(self, prompt: dict[str, Any]) -> dict[str, Any] | None:
        """One prompt, or several boxes."""
        if self.embedding is None:
            raise RuntimeError("predict before set_image: give a picture first")
        asked = int(prompt["masks_per_prompt"])
        spec = self.predictor._model.bundle.manifest.output
        several: Any = asked > 1
        if asked == spec.num_masks and asked > len(spec.multimask_indices):
            several = "all"
        if "boxes" in prompt:
            prompts = [Prompt(box=b) for b in prompt["boxes"]]
        else:
            keys = ("box", "point_coords", "point_labels", "mask_input")
            given = {k: prompt[k] for k in keys if k in prompt}
            prompts = [Prompt(**given) if given else Prompt.empty()]
        choose = self.best_of_many and not {"box", "boxes", "mask_input"} & prompt.keys()
        found = self.predictor.decode(
            self.embedding, prompts, multimask_output=True if choose else several
        )
        rows = []
        for p in found:
            pick = [int(np.argmax(p.scores))] if choose else list(range(len(p.scores)))
            rows.append((p.logits[pick], p.scores[pick], p.masks[pick]))
        low, scores, masks = (np.stack(part) for part in zip(*rows, strict=True))
        if spec.kind == "classes":  # there `scores` are probabilities, not the IoU head's
            model = self.predictor._model
            where = placement_of(self.embedding)
            nothing = decoder_input(
                prompts, where, model.bundle.manifest.prompts, spec.low_res_size
            )
            _, scores = model.run_decoder(self.embedding.features, nothing)
        if spec.resize_interpolation == "nearest":  # the original leaves its masks in the frame
            frame = self.predictor._model.bundle.manifest.input.size
            whole = place(frame, frame, "stretch")
            masks = np.stack([make_masks(x, whole, spec, threads=2).masks for x in low])
        return {"low": low, "iou": scores, "masks": masks}


def engine_for(family: str, weights: Mapping[str, Any], info: Mapping[str, Any],
               *, lora: Path | None = None, image_format: str = "RGB",
               form: str = "auto") -> Engine:  # fmt: skip
    """Checkpoint, bundle, engine; the files are removed once the engine is open.

    form: of the graphs, as for `samrt.load`.
    """
    from samrt_export import export

    folder = Path(tempfile.mkdtemp(prefix="samrt-parity-"))
    try:
        arguments = write_checkpoint(family, weights, info, folder, lora)
        bundle = export(out=folder / "bundle.samrt", verify=False, **arguments)
        predictor = samrt.load(bundle.path, backend="onnxruntime", form=form)
        return Engine(predictor, best_of_many=family == "sam_med2d", image_format=image_format)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
