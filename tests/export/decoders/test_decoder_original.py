"""SAM's decoder against the original `segment_anything` and against the checkpoints' keys."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samrt_export.nets import efficient_decoder as efficient
from samrt_export.nets import sam2_decoder as sam2
from samrt_export.nets.decoder import (
    DecoderConfig,
    MaskDecoder,
    PromptConfig,
    PromptEncoder,
    decode,
)
from samrt_export.nets.two_way import TwoWayConfig

DIM, GRID, FRAME = 32, (4, 6), (64, 96)
DECODERS: dict[str, DecoderConfig] = {
    "sam_vit_b": DecoderConfig(),
    "sam_vit_h": DecoderConfig(),
    "medsam": DecoderConfig(),
    "mobile_sam": DecoderConfig(),
    "lite_medsam": DecoderConfig(),
    "sam_med2d": DecoderConfig(),
    "edge_sam": DecoderConfig(),
    "samed": DecoderConfig(num_mask_tokens=9),
    "medical_sam_adapter": DecoderConfig.medical_sam_adapter(),
}


@pytest.fixture
def originals(segment_anything: ModuleType) -> tuple[nn.Module, nn.Module]:
    """The original's prompt encoder and mask decoder, small."""
    modeling = segment_anything.modeling
    prompts = modeling.PromptEncoder(
        embed_dim=DIM, image_embedding_size=GRID, input_image_size=FRAME, mask_in_chans=16
    )
    decoder = modeling.MaskDecoder(
        transformer_dim=DIM,
        transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=4, mlp_dim=48),
        iou_head_hidden_dim=24,
    )
    return prompts.eval(), decoder.eval()


def ours(originals: tuple[nn.Module, nn.Module]) -> tuple[PromptEncoder, MaskDecoder]:
    """Our modules with the weights of the original's."""
    prompts = PromptEncoder(PromptConfig(embed_dim=DIM, grid=GRID, frame=FRAME))
    transformer = TwoWayConfig(dim=DIM, heads=4, mlp_dim=48)
    decoder = MaskDecoder(DecoderConfig(transformer, iou_head_hidden=24))
    for module, original in zip((prompts, decoder), originals, strict=True):
        assert list(module.state_dict()) == list(original.state_dict())
        module.load_state_dict(original.state_dict())
    return prompts.eval(), decoder.eval()


def close(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() < 1e-5 * theirs.std()


def original_answer(
    originals: tuple[nn.Module, nn.Module], image: Tensor, points: Any, boxes: Any, masks: Any
) -> tuple[Tensor, Tensor]:
    prompts, decoder = originals
    sparse, dense = prompts(points, boxes, masks)
    return decoder.predict_masks(image, prompts.get_dense_pe(), sparse, dense)  # type: ignore[operator, no-any-return]


def test_answers_are_the_originals(decoders: Any, originals: tuple[nn.Module, nn.Module]) -> None:
    for part, original in enumerate(originals):
        decoders.randomise(original, seed=part)
    parts = ours(originals)
    random = torch.Generator().manual_seed(5)
    image = torch.randn(1, DIM, *GRID, generator=random)
    coords = torch.rand(3, 4, 2, generator=random) * torch.tensor([96.0, 64.0])
    labels = torch.tensor([[1.0, 0, 1, 1], [0, 0, -1, 1], [1, 1, -1, -1]])
    boxes = torch.tensor([[3.0, 5, 60, 50], [0, 0, 96, 64], [10.5, 20.25, 40, 33]])
    masks = 4 * torch.randn(3, 1, 16, 24, generator=random)
    padding = torch.zeros(3, 1, 2), -torch.ones(3, 1)
    corners = boxes.reshape(3, 2, 2), torch.tensor([[2.0, 3.0]]).expand(3, 2)
    with torch.no_grad():
        theirs = original_answer(originals, image, (coords, labels), None, None)
        rows = [torch.cat(pair, 1) for pair in zip((coords, labels), padding, strict=True)]
        close(decode(*parts, image, *rows), theirs)

        theirs = original_answer(originals, image, None, boxes, masks)
        close(decode(*parts, image, *corners, masks, torch.ones(3)), theirs)

        theirs = original_answer(originals, image, (coords, labels), boxes, masks)
        rows = [torch.cat(pair, 1) for pair in zip((coords, labels), corners, strict=True)]
        close(decode(*parts, image, *rows, masks, torch.ones(3)), theirs)

        unmasked = original_answer(originals, image, (coords, labels), boxes, None)
        mixed = decode(*parts, image, *rows, masks, torch.tensor([1.0, 0.0, 1.0]))
        expected = [torch.stack([t[0], u[1], t[2]]) for t, u in zip(theirs, unmasked, strict=True)]
        close(mixed, (expected[0], expected[1]))

        theirs = original_answer(originals, image, None, None, None)
        close(decode(*parts, image, torch.zeros(1, 0, 2), torch.zeros(1, 0)), theirs)


def test_position_codes_are_the_originals(originals: tuple[nn.Module, nn.Module]) -> None:
    prompts, _ = ours(originals)
    expected = originals[0].get_dense_pe()  # type: ignore[operator]
    assert (prompts.dense_code() - expected).abs().max() < 1e-5


def test_a_cropped_grid_has_the_codes_of_its_place(originals: tuple[nn.Module, nn.Module]) -> None:
    cfg = PromptConfig(embed_dim=DIM, grid=(2, 5), frame=FRAME, frame_grid=GRID)
    cropped = PromptEncoder(cfg)
    cropped.load_state_dict(originals[0].state_dict())
    expected = originals[0].get_dense_pe()[:, :, :2, :5]  # type: ignore[operator]
    assert (cropped.dense_code() - expected).abs().max() < 1e-5


def test_keys_of_the_registrys_vit_b(segment_anything: ModuleType) -> None:
    with torch.device("meta"):
        original = segment_anything.sam_model_registry["vit_b"]()
        parts = {
            "prompt_encoder": PromptEncoder(PromptConfig()),
            "mask_decoder": MaskDecoder(DecoderConfig()),
        }
    for name, module in parts.items():
        expected = getattr(original, name).state_dict()
        got = module.state_dict()
        assert list(got) == list(expected)
        assert all(got[key].shape == expected[key].shape for key in expected)


def keys_of(golden: Path, family: str, prefix: str) -> dict[str, tuple[int, ...]]:
    keys = json.loads((golden / "manifests" / f"{family}.json").read_text("utf-8"))["keys"]
    return {
        name.removeprefix(prefix): tuple(shape)
        for name, (_, shape) in keys.items()
        if name.startswith(prefix)
    }


def require_keys(module: nn.Module, expected: dict[str, tuple[int, ...]], ordered: bool) -> None:
    got = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert expected
    assert got == expected
    assert not ordered or list(got) == list(expected)


@pytest.mark.shared
@pytest.mark.parametrize("family", DECODERS)
def test_keys_of_the_checkpoints(golden: Path, family: str) -> None:
    """EdgeSAM's file has the value before the key projections; the order has no meaning."""
    with torch.device("meta"):
        prompts, decoder = PromptEncoder(PromptConfig()), MaskDecoder(DECODERS[family])
    require_keys(prompts, keys_of(golden, family, "prompt_encoder."), True)
    require_keys(decoder, keys_of(golden, family, "mask_decoder."), family != "edge_sam")


@pytest.mark.shared
@pytest.mark.parametrize("family", ["efficient_sam_ti", "efficient_sam_s"])
def test_keys_of_efficient_sam(golden: Path, family: str) -> None:
    with torch.device("meta"):
        prompts = efficient.EfficientPromptEncoder(PromptConfig())
        decoder = efficient.EfficientMaskDecoder()
    require_keys(prompts, keys_of(golden, family, "prompt_encoder."), True)
    require_keys(decoder, keys_of(golden, family, "mask_decoder."), True)


@pytest.mark.shared
def test_keys_of_sam2(golden: Path) -> None:
    with torch.device("meta"):
        prompts, decoder = PromptEncoder(PromptConfig()), sam2.Sam2MaskDecoder()
    require_keys(prompts, keys_of(golden, "sam2.1_hiera_t", "sam_prompt_encoder."), True)
    require_keys(decoder, keys_of(golden, "sam2.1_hiera_t", "sam_mask_decoder."), True)
