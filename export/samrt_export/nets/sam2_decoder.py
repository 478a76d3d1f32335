"""Mask decoder of SAM 2 and 2.1 for single images, with SAM's prompt encoder.

Beside SAM's it has a token for the presence of an object (whose score single images do not use),
high-resolution features added while upscaling, a sigmoid after the IoU head, and a rule for the
single mask: where it is unstable under small changes of the threshold, the best of the others
takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from samrt_export.nets.common import LayerNorm2d
from samrt_export.nets.decoder import DecoderConfig, Mlp, by_token, combine, join_tokens
from samrt_export.nets.prompt_encoder import PromptEncoder
from samrt_export.nets.two_way import TwoWayConfig, TwoWayTransformer

Features = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Sam2DecoderConfig(DecoderConfig):
    """Shape of the mask decoder.

    Attributes:
        stability_delta: logits by which the threshold moves to measure stability.
        stability_threshold: the least share of the area that must stay.
    """

    transformer: TwoWayConfig = field(default_factory=lambda: TwoWayConfig(mlp_keys="layers"))
    stability_delta: float = 0.05
    stability_threshold: float = 0.98


class Sam2MaskDecoder(nn.Module):
    """Mask decoder with the keys of `sam_mask_decoder`."""

    def __init__(self, cfg: Sam2DecoderConfig | None = None) -> None:
        super().__init__()
        self.cfg = cfg = cfg or Sam2DecoderConfig()
        dim, count = cfg.dim, cfg.num_mask_tokens
        self.transformer = TwoWayTransformer(cfg.transformer)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(count, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(dim, dim, dim // 8, 3) for _ in range(count)
        )
        self.iou_prediction_head = Mlp(dim, cfg.iou_head_hidden, count, cfg.iou_head_depth)
        self.pred_obj_score_head = Mlp(dim, dim, 1, 3)

    def fixed_tokens(self) -> Tensor:
        """The tokens of every prompt, object and IoU token first: (2 + M, dim)."""
        layers = (self.obj_score_token, self.iou_token, self.mask_tokens)
        return torch.cat([layer.weight for layer in layers])

    def hypernetworks(self) -> list[Mlp]:
        """The network of each mask token."""
        return [net for net in self.output_hypernetworks_mlps if isinstance(net, Mlp)]

    def upscale(self, image: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """Image (N, dim, h, w) and features (1, dim / 8, 4 h, 4 w), (1, dim / 4, 2 h, 2 w).

        Returns (N, dim / 8, 4 h, 4 w).
        """
        first, norm, activation, second, last = self.output_upscaling
        x = activation(norm(first(image) + coarse))
        out: Tensor = last(second(x) + fine)
        return out

    def forward(
        self, features: Features, image_code: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All mask tokens' logits (N, M, 4 h, 4 w) and predicted IoU (N, M), see `decode`."""
        embedding, fine, coarse = features
        tokens = join_tokens(self.fixed_tokens(), sparse)
        source = embedding + dense
        found, image = self.transformer(tokens, by_token(source), by_token(image_code))
        image = image.transpose(1, 2).unflatten(-1, source.shape[2:])
        upscaled = self.upscale(image, self.conv_s0(fine), self.conv_s1(coarse))
        count = self.cfg.num_mask_tokens
        masks = combine(self.output_hypernetworks_mlps, found[:, 2 : 2 + count], upscaled)
        return masks, torch.sigmoid(self.iou_prediction_head(found[:, 1]))

    def settle(self, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Put the best other mask in the place of mask 0 where that is unstable.

        A mask is stable if the area above +delta is at least the threshold's share of the area
        above -delta; an empty one is stable.
        """
        delta = self.cfg.stability_delta
        flat = masks[:, 0].flatten(1)
        inner, outer = ((flat > level).sum(-1) for level in (delta, -delta))
        stability = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
        best = 1 + scores[:, 1:].argmax(-1)
        index = torch.where(stability >= self.cfg.stability_threshold, 0, best)
        rows = torch.arange(len(masks), device=masks.device)
        first = masks[rows, index][:, None], scores[rows, index][:, None]
        return torch.cat([first[0], masks[:, 1:]], 1), torch.cat([first[1], scores[:, 1:]], 1)


def decode(
    prompt_encoder: PromptEncoder,
    mask_decoder: Sam2MaskDecoder,
    embedding: Features,
    point_coords: Tensor,
    point_labels: Tensor,
    mask_input: Tensor | None = None,
    has_mask_input: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """From prompts to masks; see `samrt_export.nets.decoder.decode`.

    SAM 2 gives every prompt a padding point, with or without a box; it is added here, so
    `point_coords` should not hold one.

    Args:
        prompt_encoder: SAM's, with the weights of `sam_prompt_encoder`.
        mask_decoder: with the weights of `sam_mask_decoder`.
        embedding: the image encoder's features of stride 16 with `no_mem_embed` added
            (1, dim, h, w), of stride 4 (1, dim, 4 h, 4 w) and of stride 8 (1, dim, 2 h, 2 w).
        point_coords: (N, P, 2) float32 as (x, y) in pixels of the model frame.
        point_labels: (N, P) float32.
        mask_input: (N, 1, 4 h, 4 w) float32 logits, or None.
        has_mask_input: (N) float32.

    Returns:
        Logits (N, M, 4 h, 4 w) and predicted IoU (N, M); index 0 is the answer where one mask is
        asked for, after the rule of stability.
    """
    sparse = prompt_encoder.sparse(point_coords, point_labels)
    padding = prompt_encoder.not_a_point_embed.weight.expand(len(sparse), 1, -1)
    sparse = torch.cat([sparse, padding], dim=1)
    dense = prompt_encoder.dense(mask_input, has_mask_input, len(sparse))
    masks, scores = mask_decoder(embedding, prompt_encoder.dense_code(), sparse, dense)
    return mask_decoder.settle(masks, scores)
