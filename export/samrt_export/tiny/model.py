"""The `tiny` network: SAM's shape (image encoder, prompt encoder, two-way decoder), our own parts.

The image encoder is a small residual CNN with a top-down path.  It hands the decoder one
stride-16 embedding and three finer maps.  The decoder sees a prompt twice: as tokens (Fourier
features of the coordinates plus a learned type, Kirillov et al. 2023, section 3 and appendix A)
and as dense maps drawn on a grid (box-relative coordinates, an inscribed-ellipse field, click
bumps, the previous mask).

Frames: coordinates are pixels of the model frame, axis order (x, y); maps are (N, C, h, w).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samrt_export.tiny.prompt_parts import (
    PROMPT_MAPS,
    PromptMaps,
    Prototypes,
    ScoreHead,
    prototype_weights,
)


@dataclass(frozen=True)
class TinyConfig:
    """Widths of the network; everything else follows from them."""

    image_size: int = 512
    stem: int = 16
    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    depths: tuple[int, int, int, int] = (2, 2, 3, 2)
    dim: int = 128
    pyramid: tuple[int, int] = (64, 32)
    fine: tuple[int, int, int] = (32, 16, 8)
    heads: int = 4
    attention_dim: int = 64
    mlp_dim: int = 256
    layers: int = 2
    num_masks: int = 4

    def as_dict(self) -> dict[str, object]:
        """Plain values, for checkpoints."""
        return asdict(self)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, if asked, ReLU."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, *, act: bool = True
    ) -> None:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        parts: list[nn.Module] = [conv, nn.BatchNorm2d(c_out)]
        if act:
            parts.append(nn.ReLU(inplace=True))
        super().__init__(*parts)


class Residual(nn.Module):
    """Two 3x3 convolutions with a skip; `mid` narrows the inside to a 1x1-3x3-1x1 bottleneck."""

    def __init__(self, width: int, mid: int | None = None) -> None:
        super().__init__()
        if mid is None:
            self.body = nn.Sequential(ConvNorm(width, width), ConvNorm(width, width, act=False))
        else:
            self.body = nn.Sequential(
                ConvNorm(width, mid, 1), ConvNorm(mid, mid), ConvNorm(mid, width, 1, act=False)
            )
        last = list(self.body.modules())[-1]
        if isinstance(last, nn.BatchNorm2d):
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        return F.relu(x + self.body(x))


def upsample(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear, half-pixel centres."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Encoder(nn.Module):
    """(1, 3, S, S) normalised image to the four feature maps the decoder needs."""

    def __init__(self, cfg: TinyConfig) -> None:
        super().__init__()
        w, (f8, f4, f2) = cfg.widths, cfg.fine
        self.stem = ConvNorm(3, cfg.stem, 5, 2)
        stages, previous = [], cfg.stem
        for width, depth in zip(w, cfg.depths, strict=True):
            blocks = [ConvNorm(previous, width, 3, 2), *(Residual(width) for _ in range(depth))]
            stages.append(nn.Sequential(*blocks))
            previous = width
        self.stages = nn.ModuleList(stages)
        self.lateral32 = ConvNorm(w[3], cfg.dim, 1, act=False)
        self.lateral16 = ConvNorm(w[2], cfg.dim, 1, act=False)
        self.smooth16 = ConvNorm(cfg.dim, cfg.dim)
        p8, p4 = cfg.pyramid
        self.down8 = ConvNorm(cfg.dim, p8, 1, act=False)
        self.lateral8 = ConvNorm(w[1], p8, 1, act=False)
        self.smooth8 = ConvNorm(p8, p8)
        self.down4 = ConvNorm(p8, p4, 1, act=False)
        self.lateral4 = ConvNorm(w[0], p4, 1, act=False)
        self.smooth4 = ConvNorm(p4, p4)
        self.out16 = nn.Conv2d(cfg.dim, cfg.dim, 1)
        self.out8 = nn.Conv2d(p8, f8, 1)
        self.out4 = nn.Conv2d(p4, f4, 1)
        self.out2 = nn.Conv2d(cfg.stem, f2, 1)
        self.down2 = nn.Conv2d(p4, f2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps at strides 16, 8, 4 and 2: (1, dim, S/16, S/16), (1, f8, S/8, S/8), ..."""
        x2 = self.stem(image)
        x4 = self.stages[0](x2)
        x8 = self.stages[1](x4)
        x16 = self.stages[2](x8)
        x32 = self.stages[3](x16)
        p16 = self.smooth16(F.relu(self.lateral16(x16) + upsample(self.lateral32(x32))))
        p8 = self.smooth8(F.relu(self.lateral8(x8) + upsample(self.down8(p16))))
        p4 = self.smooth4(F.relu(self.lateral4(x4) + upsample(self.down4(p8))))
        fine = self.out2(x2) + upsample(self.down2(p4))
        return self.out16(p16), self.out8(p8), self.out4(p4), fine


class Attention(nn.Module):
    """Multi-head attention with its own inner width; token axes (N, T, C)."""

    def __init__(self, dim: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads, self.inner = heads, inner
        self.q, self.k, self.v = (nn.Linear(dim, inner) for _ in range(3))
        self.out = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, Tq, C), (N, Tk, C), (N, Tk, C) to (N, Tq, C)."""
        n, d = q.shape[0], self.inner // self.heads
        qh = self.q(q).view(n, -1, self.heads, d).transpose(1, 2)
        kh = self.k(k).view(n, -1, self.heads, d).transpose(1, 2)
        vh = self.v(v).view(n, -1, self.heads, d).transpose(1, 2)
        weights = torch.softmax(qh @ kh.transpose(-1, -2) * d**-0.5, dim=-1)
        mixed: Tensor = self.out((weights @ vh).transpose(1, 2).reshape(n, -1, self.inner))
        return mixed


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self, cfg: TinyConfig) -> None:
        super().__init__()
        d, a, h = cfg.dim, cfg.attention_dim, cfg.heads
        self.self_attention = Attention(d, d, h)
        self.token_to_image = Attention(d, a, h)
        self.image_to_token = Attention(d, a, h)
        self.mlp = nn.Sequential(
            nn.Linear(d, cfg.mlp_dim), nn.ReLU(inplace=True), nn.Linear(cfg.mlp_dim, d)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(4))

    def forward(self, t: Tensor, x: Tensor, t_pe: Tensor, x_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, C), image (N, HW, C) and their position codes."""
        q = t + t_pe
        t = self.norms[0](t + self.self_attention(q, q, t))
        t = self.norms[1](t + self.token_to_image(t + t_pe, x + x_pe, x))
        t = self.norms[2](t + self.mlp(t))
        x = self.norms[3](x + self.image_to_token(x + x_pe, t + t_pe, t))
        return t, x


class Decoder(nn.Module):
    """Prompts and feature maps to `num_masks` low-resolution mask logits and predicted IoUs."""

    gaussian: Tensor

    def __init__(self, cfg: TinyConfig) -> None:
        super().__init__()
        self.cfg = cfg
        d, (f8, f4, f2) = cfg.dim, cfg.fine
        self.register_buffer("gaussian", torch.randn(2, d // 2))
        self.type_embed = nn.Parameter(torch.randn(5, d) * 0.5)
        self.tokens = nn.Parameter(torch.randn(1 + cfg.num_masks, d) * 0.5)
        self.maps = PromptMaps()
        self.dense16 = nn.Sequential(ConvNorm(PROMPT_MAPS, 32), nn.Conv2d(32, d, 1))
        self.dense8 = nn.Conv2d(PROMPT_MAPS, f8, 1)
        self.dense4 = nn.Conv2d(PROMPT_MAPS, f4, 1)
        self.blocks = nn.ModuleList(TwoWayBlock(cfg) for _ in range(cfg.layers))
        self.final = Attention(d, cfg.attention_dim, cfg.heads)
        self.final_norm = nn.LayerNorm(d)
        self.mix16 = nn.Sequential(Residual(d, 64))
        self.like8 = Prototypes(f8)
        self.like4 = Prototypes(f4)
        self.down8 = nn.Conv2d(d, f8, 1)
        self.mix8 = Residual(f8)
        self.down4 = nn.Conv2d(f8, f4, 1)
        self.mix4 = Residual(f4)
        self.down2 = nn.Conv2d(f4, f2, 1)
        self.mix2 = ConvNorm(f2, f2)
        self.hyper = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 64), nn.ReLU(inplace=True), nn.Linear(64, f2 + 1))
            for _ in range(cfg.num_masks)
        )
        self.score = ScoreHead(d)

    def encode_position(self, xy: Tensor) -> Tensor:
        """(..., 2) in [0, 1] to (..., dim): random Fourier features (Tancik et al. 2020)."""
        angle: Tensor = (2 * xy - 1) @ self.gaussian * (2 * torch.pi)
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)

    def forward(
        self,
        image_embeddings: Tensor,
        high_res_s8: Tensor,
        high_res_s4: Tensor,
        high_res_s2: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Feature maps with batch 1 or N, prompts with batch N.

        point_coords (N, P, 2) pixels of the model frame, point_labels (N, P): 1, 0, 2 and 3 for
        the box corners, -1 for padding.  mask_input (N, 1, S/2, S/2) logits.  Returns masks
        (N, num_masks, S/2, S/2) and IoU (N, num_masks), unbounded estimates of [0, 1].
        """
        h, w = int(image_embeddings.shape[-2]), int(image_embeddings.shape[-1])
        n, size = point_coords.shape[0], h * 16
        coords = point_coords + 0.5
        pe = self.encode_position(coords / size)
        pe = pe * (point_labels >= 0).to(pe.dtype)[..., None]
        types = sum(
            (point_labels == k).to(pe.dtype)[..., None] * self.type_embed[k + 1]
            for k in (-1, 0, 1, 2, 3)
        )
        fixed = self.tokens[None].expand(n, -1, -1)
        t_pe = torch.cat([fixed, pe + types], dim=1)

        mask4 = F.avg_pool2d(mask_input, 2)
        grid4 = self.maps((h * 4, w * 4), 4, coords, point_labels, mask4, has_mask_input)
        grid4 = grid4.to(high_res_s4.dtype)
        grid8 = F.avg_pool2d(grid4, 2)
        grid16 = F.avg_pool2d(grid8, 2)

        gy = (torch.arange(h, device=pe.device, dtype=pe.dtype) + 0.5) / h
        gx = (torch.arange(w, device=pe.device, dtype=pe.dtype) + 0.5) / w
        grid = torch.stack([gx[None, :].expand(h, w), gy[:, None].expand(h, w)], dim=-1)
        x_pe = self.encode_position(grid).reshape(1, h * w, -1)

        x = image_embeddings + self.dense16(grid16)
        x = x.flatten(2).transpose(1, 2)
        t = t_pe
        for block in self.blocks:
            t, x = block(t, x, t_pe, x_pe)
        t = self.final_norm(t + self.final(t + t_pe, x + x_pe, x))
        x = x.transpose(1, 2).reshape(n, -1, h, w)

        x = self.mix16(x)
        weights4 = prototype_weights(grid4)
        like8 = self.like8(high_res_s8, F.avg_pool2d(weights4, 2))
        like4 = self.like4(high_res_s4, weights4)
        x = self.mix8(F.relu(upsample(self.down8(x)) + like8 + self.dense8(grid8)))
        x = self.mix4(F.relu(upsample(self.down4(x)) + like4 + self.dense4(grid4)))
        x = self.mix2(F.relu(upsample(self.down2(x)) + high_res_s2))
        weights = torch.stack([m(t[:, 1 + i]) for i, m in enumerate(self.hyper)], dim=1)
        f2 = x.shape[1]
        flat = weights[:, :, :f2] @ x.flatten(2) + weights[:, :, f2:]
        masks = flat.view(n, -1, h * 8, w * 8)
        return masks, self.score(t[:, : 1 + masks.shape[1]], F.avg_pool2d(masks, 2), grid4)


class Tiny(nn.Module):
    """Encoder and decoder together, as trained; `edges` only helps the encoder to learn."""

    def __init__(self, cfg: TinyConfig | None = None) -> None:
        super().__init__()
        self.cfg = cfg or TinyConfig()
        self.encoder = Encoder(self.cfg)
        self.decoder = Decoder(self.cfg)
        f4, f2 = self.cfg.fine[1:]
        self.edges = nn.ModuleList([nn.Conv2d(f4, 1, 1), nn.Conv2d(f2, 1, 1)])
