"""SAM's mask decoder and the whole way from prompts to low-resolution masks.

The same module serves SAM, MobileSAM, MedSAM, LiteMedSAM, SAM-Med2D, EdgeSAM, SAMed (nine mask
tokens) and the Medical SAM Adapter; see `DecoderConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.nets.common import LayerNorm2d
from samrt_export.nets.prompt_encoder import PromptConfig, PromptEncoder
from samrt_export.nets.two_way import TwoWayConfig, TwoWayTransformer

__all__ = ["DecoderConfig", "MaskDecoder", "Mlp", "PromptConfig", "PromptEncoder", "decode"]


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a mask decoder.

    Attributes:
        transformer: the two-way transformer.
        num_mask_tokens: masks per prompt, the single-mask token included: 4 for SAM.
        iou_head_depth: Linear layers of the IoU head.
        iou_head_hidden: their hidden width.
    """

    transformer: TwoWayConfig = field(default_factory=TwoWayConfig)
    num_mask_tokens: int = 4
    iou_head_depth: int = 3
    iou_head_hidden: int = 256

    @property
    def dim(self) -> int:
        """Width of tokens and image."""
        return self.transformer.dim

    @classmethod
    def medical_sam_adapter(cls) -> DecoderConfig:
        """The Medical SAM Adapter's: SAM's keys but for the MLP, and residuals everywhere."""
        return cls(TwoWayConfig(mlp_keys="fc", plain_residual=True))


class Mlp(nn.Module):
    """`depth` Linear layers with ReLU between them; keys `layers.K.*`."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [dim, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def linears(self) -> list[nn.Linear]:
        """The layers in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, out)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        out: Tensor = last(x)
        return out


class MaskDecoder(nn.Module):
    """Mask decoder with SAM's keys: `transformer`, `iou_token`, `mask_tokens`,
    `output_upscaling`, `output_hypernetworks_mlps`, `iou_prediction_head`.
    """  # fmt: skip

    def __init__(self, cfg: DecoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        dim, count = cfg.dim, cfg.num_mask_tokens
        self.transformer = TwoWayTransformer(cfg.transformer)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(count, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(dim, dim, dim // 8, 3) for _ in range(count)
        )
        self.iou_prediction_head = Mlp(dim, cfg.iou_head_hidden, count, cfg.iou_head_depth)

    def fixed_tokens(self) -> Tensor:
        """The tokens of every prompt, IoU token first: (1 + M, dim)."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def hypernetworks(self) -> list[Mlp]:
        """The network of each mask token."""
        return [net for net in self.output_hypernetworks_mlps if isinstance(net, Mlp)]

    def forward(
        self, embedding: Tensor, image_code: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All mask tokens' logits (N, M, 4 h, 4 w) and predicted IoU (N, M).

        Args:
            embedding: (1, dim, h, w), shared by the prompts.
            image_code: (1, dim, h, w) position codes.
            sparse: (N, P, dim) embeddings of points and corners; P may be 0.
            dense: (N, dim, h, w) embeddings of mask prompts.
        """
        tokens = join_tokens(self.fixed_tokens(), sparse)
        source = embedding + dense
        height, width = source.shape[2:]
        found, image = self.transformer(tokens, by_token(source), by_token(image_code))
        image = image.transpose(1, 2).unflatten(-1, (height, width))
        upscaled = self.output_upscaling(image)
        count = self.cfg.num_mask_tokens
        masks = combine(self.output_hypernetworks_mlps, found[:, 1 : 1 + count], upscaled)
        return masks, self.iou_prediction_head(found[:, 0])


def by_token(grid: Tensor) -> Tensor:
    """(N, dim, h, w) to (N, h w, dim)."""
    return grid.flatten(2).transpose(1, 2)


def join_tokens(fixed: Tensor, sparse: Tensor) -> Tensor:
    """The fixed tokens (F, dim) before each prompt's own (N, P, dim): (N, F + P, dim)."""
    return torch.cat([fixed.expand(len(sparse), -1, -1), sparse], dim=1)


def combine(networks: nn.ModuleList, tokens: Tensor, upscaled: Tensor) -> Tensor:
    """Each mask token (N, M, dim) makes weights for the channels of `upscaled` (N, C, H, W).

    Returns the logits (N, M, H, W).
    """
    weights = [network(tokens[:, k]) for k, network in enumerate(networks)]
    return torch.einsum("nmc,nchw->nmhw", torch.stack(weights, dim=1), upscaled)


def decode(
    prompt_encoder: PromptEncoder,
    mask_decoder: MaskDecoder,
    embedding: Tensor,
    point_coords: Tensor,
    point_labels: Tensor,
    mask_input: Tensor | None = None,
    has_mask_input: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """From prompts to all mask tokens' masks, as segment-anything computes them.

    Args:
        prompt_encoder: with the family's weights.
        mask_decoder: with the family's weights.
        embedding: (1, 256, h, w) float32, the image encoder's.
        point_coords: (N, P, 2) float32 as (x, y) in pixels of the model frame.
        point_labels: (N, P) float32: 1 object, 0 background, 2 and 3 corners, -1 padding.
        mask_input: (N, 1, 4 h, 4 w) float32 logits, or None.
        has_mask_input: (N) float32, 0 where the mask is to be ignored.

    Returns:
        Logits (N, M, 4 h, 4 w) and predicted IoU (N, M), in the order of the mask tokens.
    """
    sparse = prompt_encoder.sparse(point_coords, point_labels)
    dense = prompt_encoder.dense(mask_input, has_mask_input, len(sparse))
    masks: tuple[Tensor, Tensor] = mask_decoder(
        embedding, prompt_encoder.dense_code(), sparse, dense
    )
    return masks
