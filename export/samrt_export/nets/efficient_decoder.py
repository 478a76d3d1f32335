"""Prompt encoder and mask decoder of EfficientSAM.

They differ from SAM's in small ways: one embedding for object points and none for background
points, no mask prompts, always `SLOTS` points, position codes kept for padding, GELU everywhere,
residuals around every attention, one group norm over all pixels and channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samrt_export.nets.decoder import by_token, combine, join_tokens
from samrt_export.nets.prompt_encoder import (
    BACKGROUND,
    BOTTOM_RIGHT,
    OBJECT,
    PADDING,
    TOP_LEFT,
    PositionCode,
    PromptConfig,
)
from samrt_export.nets.two_way import GELU, TwoWayConfig, TwoWayTransformer

SLOTS = 6
PADDING_COORDINATE = -1.0


@dataclass(frozen=True)
class EfficientDecoderConfig:
    """Shape of the mask decoder; see `DecoderConfig`.

    `iou_head_depth` counts the hidden layers and the last one.
    """

    transformer: TwoWayConfig = field(
        default_factory=lambda: TwoWayConfig(activation=GELU, mlp_keys="fc", plain_residual=True)
    )
    num_mask_tokens: int = 4
    iou_head_depth: int = 3
    iou_head_hidden: int = 256

    @property
    def dim(self) -> int:
        """Width of tokens and image."""
        return self.transformer.dim


class EfficientPromptEncoder(nn.Module):
    """Points and corners to embeddings; keys `pe_layer`, `invalid_points`, `point_embeddings`,
    `bbox_top_left_embeddings`, `bbox_bottom_right_embeddings`.
    """  # fmt: skip

    def __init__(self, cfg: PromptConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.pe_layer = PositionCode(cfg.embed_dim)
        self.invalid_points = nn.Embedding(1, cfg.embed_dim)
        self.point_embeddings = nn.Embedding(1, cfg.embed_dim)
        self.bbox_top_left_embeddings = nn.Embedding(1, cfg.embed_dim)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, cfg.embed_dim)

    def dense_code(self) -> Tensor:
        """Position codes of the image embedding's cells, (1, dim, h, w)."""
        return self.pe_layer.dense(self.cfg.grid, self.cfg.whole_grid)

    def types(self) -> Tensor:
        """What is added for the labels -1, 0, 1, 2, 3: (5, dim)."""
        by_label = {
            PADDING: self.invalid_points.weight,
            BACKGROUND: torch.zeros_like(self.point_embeddings.weight),
            OBJECT: self.point_embeddings.weight,
            TOP_LEFT: self.bbox_top_left_embeddings.weight,
            BOTTOM_RIGHT: self.bbox_bottom_right_embeddings.weight,
        }
        return torch.cat([by_label[label] for label in sorted(by_label)])

    def fill(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Exactly `SLOTS` rows per prompt: further ones are cut, missing ones are padding.

        Padding stands at (-1, -1), where the original puts it, whatever coordinates it came with.
        """
        missing = (len(coords), SLOTS)
        labels = torch.cat([labels, labels.new_full(missing, PADDING)], dim=1)[:, :SLOTS]
        coords = torch.cat([coords, coords.new_zeros(*missing, 2)], dim=1)[:, :SLOTS]
        padding = (labels == PADDING)[..., None]
        return torch.where(padding, PADDING_COORDINATE, coords), labels

    def sparse(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Points (N, P, 2) in frame pixels and labels (N, P) to embeddings (N, SLOTS, dim)."""
        coords, labels = self.fill(coords, labels)
        code = self.pe_layer.points(coords, self.cfg.frame)
        kinds = torch.arange(PADDING, BOTTOM_RIGHT + 1, device=labels.device)
        return code + (labels[..., None] == kinds).to(code.dtype) @ self.types()


class EfficientMlp(nn.Module):
    """`depth` Linear layers with GELU between them; keys `layers.K.0.*`, `fc.*`."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [dim, *[hidden] * (depth - 2)]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, hidden)) for width in widths)
        self.fc = nn.Linear(hidden, out)

    def linears(self) -> list[nn.Linear]:
        """The layers in order."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, out)."""
        for layer in self.layers:
            x = F.gelu(layer(x))
        out: Tensor = self.fc(x)
        return out


class EfficientMaskDecoder(nn.Module):
    """Mask decoder; keys as SAM's but `final_output_upscaling_layers.0-1` and the MLPs'."""

    def __init__(self, cfg: EfficientDecoderConfig | None = None) -> None:
        super().__init__()
        self.cfg = cfg = cfg or EfficientDecoderConfig()
        dim, count = cfg.dim, cfg.num_mask_tokens
        self.transformer = TwoWayTransformer(cfg.transformer)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(count, dim)
        self.final_output_upscaling_layers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
                    nn.GroupNorm(1, dim // 4),
                    nn.GELU(),
                ),
                nn.Sequential(
                    nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2), nn.GELU()
                ),
            ]
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            EfficientMlp(dim, dim, dim // 8, 3) for _ in range(count)
        )
        self.iou_prediction_head = EfficientMlp(dim, cfg.iou_head_hidden, count, cfg.iou_head_depth)

    def fixed_tokens(self) -> Tensor:
        """The tokens of every prompt, IoU token first: (1 + M, dim)."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def hypernetworks(self) -> list[EfficientMlp]:
        """The network of each mask token."""
        return [net for net in self.output_hypernetworks_mlps if isinstance(net, EfficientMlp)]

    def forward(
        self, embedding: Tensor, image_code: Tensor, sparse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All mask tokens' logits (N, M, 4 h, 4 w) and predicted IoU (N, M).

        Args:
            embedding: (1, dim, h, w), shared by the prompts.
            image_code: (1, dim, h, w) position codes.
            sparse: (N, P, dim) embeddings of points and corners.
        """
        tokens = join_tokens(self.fixed_tokens(), sparse)
        source = by_token(embedding).expand(len(tokens), -1, -1)
        found, image = self.transformer(tokens, source, by_token(image_code))
        x = image.transpose(1, 2).unflatten(-1, embedding.shape[2:])
        for layer in self.final_output_upscaling_layers:
            x = layer(x)
        masks = combine(
            self.output_hypernetworks_mlps, found[:, 1 : 1 + self.cfg.num_mask_tokens], x
        )
        return masks, self.iou_prediction_head(found[:, 0])


def decode(
    prompt_encoder: EfficientPromptEncoder,
    mask_decoder: EfficientMaskDecoder,
    embedding: Tensor,
    point_coords: Tensor,
    point_labels: Tensor,
    mask_input: Tensor | None = None,
    has_mask_input: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """From points to all mask tokens' masks; see `samrt_export.nets.decoder.decode`.

    Raises ValueError for a mask prompt, which this family does not know.
    """
    if mask_input is not None or has_mask_input is not None:
        raise ValueError("EfficientSAM takes no mask prompt: leave mask_input out")
    sparse = prompt_encoder.sparse(point_coords, point_labels)
    masks: tuple[Tensor, Tensor] = mask_decoder(embedding, prompt_encoder.dense_code(), sparse)
    return masks
