"""Decoders with the golden vectors' seeded weights: logits and IoU of the original code.

The image encoder is the torch module; its embedding goes through both forms of the decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from samrt_export.graphs import decoder, efficient_decoder, sam2_decoder
from samrt_export.nets import decoder as sam
from samrt_export.nets import efficient_decoder as efficient
from samrt_export.nets import sam2_decoder as sam2
from samrt_export.nets.efficient_vit import EFFICIENT_VIT_PRESETS, EfficientSamEncoder
from samrt_export.nets.hiera import HieraConfig, HieraEncoder
from samrt_export.nets.prompt_encoder import PromptConfig
from samrt_export.nets.tiny_vit import MOBILE_SAM, TinyViT
from samrt_export.nets.vit import VIT_PRESETS, ImageEncoderViT, adapt_state

pytestmark = pytest.mark.shared
LOGITS, SCORES = 5e-4, 2e-4
F32 = NDArray[np.float32]


def sam2_input(image: NDArray[np.uint8]) -> F32:
    """0 to 1, bilinear to 1024 x 1024 with antialiasing, ImageNet's mean and std."""
    planes = torch.from_numpy(image).permute(2, 0, 1).float().div(255)[None]
    planes = F.interpolate(planes, (1024, 1024), mode="bilinear", antialias=True)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return np.asarray((planes - mean) / std)


@dataclass(frozen=True)
class Case:
    """How one family is run, and which masks the original returns for 1 and for 3."""

    encoder: Callable[[], nn.Module]
    parts: Callable[[], tuple[Any, Any]]
    emission: ModuleType
    decode: Callable[..., tuple[Tensor, Tensor]]
    prefix: str = ""
    padding: bool = True
    masks: bool = True
    masks_of: tuple[slice, slice] = (slice(0, 1), slice(1, 4))
    limit: float = np.inf


FAMILIES = {
    "mobile_sam": Case(
        lambda: TinyViT(MOBILE_SAM),
        lambda: (sam.PromptEncoder(PromptConfig()), sam.MaskDecoder(sam.DecoderConfig())),
        decoder, sam.decode,
    ),
    "medical_sam_adapter": Case(
        lambda: ImageEncoderViT(VIT_PRESETS["medical_sam_adapter"]),
        lambda: (
            sam.PromptEncoder(PromptConfig()),
            sam.MaskDecoder(sam.DecoderConfig.medical_sam_adapter()),
        ),
        decoder, sam.decode, masks_of=(slice(0, 1), slice(0, 3)),
    ),
    "efficient_sam_ti": Case(
        lambda: EfficientSamEncoder(EFFICIENT_VIT_PRESETS["efficient_sam_ti"]),
        lambda: (
            efficient.EfficientPromptEncoder(PromptConfig()), efficient.EfficientMaskDecoder()
        ),
        efficient_decoder, efficient.decode, padding=False, masks=False,
    ),
    "sam2.1_hiera_t": Case(
        lambda: HieraEncoder(HieraConfig()),
        lambda: (sam.PromptEncoder(PromptConfig()), sam2.Sam2MaskDecoder()),
        sam2_decoder, sam2.decode, prefix="sam_", padding=False, limit=32.0,
    ),
}  # fmt: skip


class Weights:
    """Seeded weights by the names of a checkpoint."""

    def __init__(self, golden: Path, seeded: ModuleType, family: str) -> None:
        text = (golden / "manifests" / f"{family}.json").read_text("utf-8")
        self._keys, self._seeded = json.loads(text)["keys"], seeded

    def __call__(self, prefix: str) -> dict[str, Tensor]:
        """The part below `prefix`, without it."""
        return {
            name.removeprefix(prefix): torch.from_numpy(self._seeded.seeded_array(name, shape))
            for name, (_, shape) in self._keys.items()
            if name.startswith(prefix)
        }


def embed(case: Case, weights: Weights, family: str, image: F32) -> tuple[Tensor, ...]:
    """The features that the decoder takes."""
    encoder, state = case.encoder().eval(), weights("image_encoder.")
    if family == "medical_sam_adapter":
        state = adapt_state(state, VIT_PRESETS[family], "interpolate")
    encoder.load_state_dict(state)
    with torch.no_grad():
        found = encoder(torch.from_numpy(image))
    if isinstance(found, Tensor):
        return (found,)
    (past,) = weights("no_mem_embed").values()
    return (found[0] + past.reshape(1, -1, 1, 1), *found[1:])


def rows_of(record: dict[str, Any], scale: NDArray[np.float64], padding: bool) -> tuple[F32, F32]:
    """The prompts of one case as decoder rows: points, then corners or a padding point."""
    boxes = record.get("boxes", [record["box"]] if "box" in record else [])
    corners = np.array(boxes, np.float64).reshape(-1, 2, 2) * scale
    count = max(1, len(corners))
    points = np.array(record.get("point_coords", []), np.float64).reshape(-1, 2) * scale
    coords = [np.tile(points, (count, 1, 1))]
    labels = [np.tile(np.array(record.get("point_labels", []), np.float64), (count, 1))]
    if len(corners):
        coords.append(corners)
        labels.append(np.tile([2.0, 3.0], (count, 1)))
    elif padding:
        coords.append(np.zeros((1, 1, 2)))
        labels.append(np.full((1, 1), -1.0))
    joined = np.concatenate(coords, 1), np.concatenate(labels, 1)
    return joined[0].astype(np.float32), joined[1].astype(np.float32)


def frame_scale(family: str, size: list[int]) -> NDArray[np.float64]:
    """Model pixels per image pixel, (x, y)."""
    height, width = size
    if family != "mobile_sam":
        return np.array([1024 / width, 1024 / height])
    longest = 1024 / max(size)
    return np.array([int(side * longest + 0.5) / side for side in (width, height)])


@pytest.mark.parametrize(
    "family",
    ["mobile_sam", *(pytest.param(name, marks=pytest.mark.slow) for name in list(FAMILIES)[1:])],
)
def test_logits_and_scores_are_the_originals(
    decoders: Any, golden: Path, seeded: ModuleType, golden_inputs: ModuleType, family: str
) -> None:
    case, picture = FAMILIES[family], "colour_700x523"
    weights = Weights(golden, seeded, family)
    vectors = np.load(golden / f"{family}.npz")
    index = json.loads((golden / "index.json").read_text("utf-8"))["families"][family]["images"]
    pixels = np.array(Image.open(golden / "images" / f"{picture}.png").convert("RGB"))
    recipes = {
        **golden_inputs.RECIPES,
        "mobile_sam": golden_inputs.sam,
        "sam2.1_hiera_t": sam2_input,
    }
    features = embed(case, weights, family, recipes[family](pixels))
    parts = case.parts()
    for part, name in zip(parts, ("prompt_encoder.", "mask_decoder."), strict=True):
        part.eval().load_state_dict(weights(case.prefix + name))
    graphs = decoders.Graphs(case.emission, *parts, [tuple(f.shape) for f in features])
    seen = 0
    for name, record in index[picture]["cases"].items():
        scale = frame_scale(family, index[picture]["original_size"])
        coords, labels = (torch.from_numpy(v) for v in rows_of(record, scale, case.padding))
        given = {"point_coords": coords, "point_labels": labels}
        if case.masks:
            stored = f"{picture}.{name}.mask_input"
            mask = torch.zeros(len(coords), 1, 256, 256)
            if stored in vectors:
                mask += torch.from_numpy(vectors[stored].astype(np.float32))
            given["mask_input"] = mask
            given["has_mask_input"] = torch.full((len(coords),), float(stored in vectors))
        image = features if len(features) > 1 else features[0]
        answers = (
            decoders.reference(case.decode, *parts, image, *given.values()),
            graphs(features, given),
        )
        chosen = case.masks_of[record["masks_per_prompt"] == 3]
        expected = vectors[f"{picture}.{name}.low"], vectors[f"{picture}.{name}.iou"]
        for masks, scores in answers:
            low = np.clip(masks[:, chosen], -case.limit, case.limit)[..., ::5, ::5]
            error = np.sqrt(np.square(low - expected[0]).mean()) / expected[0].std()
            assert error <= LOGITS, (name, error)
            assert np.abs(scores[:, chosen] - expected[1]).max() <= SCORES, name
            seen += 1
    assert seen >= 2 * 3
