"""The two-way transformer of the mask decoders: tokens and image attend to each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

RELU, GELU = "relu", "gelu"
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {RELU: nn.ReLU, GELU: nn.GELU}
MLP_KEYS = ("lin", "layers", "fc")


@dataclass(frozen=True)
class TwoWayConfig:
    """Shape of a two-way transformer.

    Attributes:
        dim: width of tokens and image.
        depth: number of blocks.
        heads: heads of every attention.
        mlp_dim: hidden width of the tokens' MLP.
        downsample: by how much the inner width of cross-attention is smaller than `dim`.
        activation: "relu" or "gelu", of the MLP.
        mlp_keys: names of the MLP's layers: "lin" for `lin1`, `lin2` (SAM), "layers" for
            `layers.0`, `layers.1` (SAM 2), "fc" for `layers.0.0`, `fc` (EfficientSAM).
        plain_residual: False for SAM's self-attention, where the first block has no residual and
            later ones leave the position codes out of it; True where every block is
            `x = norm(x' + attention(x', x', x'))` with x' = x plus, from the second block on, the
            codes (EfficientSAM, Medical SAM Adapter).
    """

    dim: int = 256
    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048
    downsample: int = 2
    activation: str = RELU
    mlp_keys: str = "lin"
    plain_residual: bool = False

    def __post_init__(self) -> None:
        if self.dim % (self.heads * self.downsample):
            raise ValueError(
                f"dim {self.dim} does not divide into {self.heads} heads of 1/{self.downsample}"
            )
        if self.activation not in ACTIVATIONS or self.mlp_keys not in MLP_KEYS:
            raise ValueError(
                f"activation {self.activation!r}, mlp_keys {self.mlp_keys!r}: expected one of "
                f"{sorted(ACTIVATIONS)} and one of {MLP_KEYS}"
            )


class Attention(nn.Module):
    """Multi-head attention; keys `q_proj`, `k_proj`, `v_proj` (inner, dim), `out_proj`."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads, self.inner = heads, dim // downsample
        self.q_proj = nn.Linear(dim, self.inner)
        self.k_proj = nn.Linear(dim, self.inner)
        self.v_proj = nn.Linear(dim, self.inner)
        self.out_proj = nn.Linear(self.inner, dim)

    @property
    def scale(self) -> float:
        """Factor of the scores, 1 / sqrt(width of a head)."""
        return 1 / math.sqrt(self.inner // self.heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (N, A, dim), keys and values (N, B, dim) to (N, A, dim)."""

        def split(x: Tensor) -> Tensor:
            return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

        q, k, v = split(self.q_proj(q)), split(self.k_proj(k)), split(self.v_proj(v))
        weights = torch.softmax(q @ k.transpose(-1, -2) * self.scale, dim=-1)
        out: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return out


class TokenMlp(nn.Module):
    """Two Linear layers with an activation between; see `TwoWayConfig.mlp_keys` for the keys."""

    def __init__(self, cfg: TwoWayConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[cfg.activation]()
        first, second = nn.Linear(cfg.dim, cfg.mlp_dim), nn.Linear(cfg.mlp_dim, cfg.dim)
        if cfg.mlp_keys == "lin":
            self.lin1, self.lin2 = first, second
        elif cfg.mlp_keys == "layers":
            self.layers = nn.ModuleList([first, second])
        else:
            self.layers = nn.ModuleList([nn.Sequential(first)])
            self.fc = second

    def linears(self) -> tuple[nn.Linear, nn.Linear]:
        """The two layers in order."""
        first, second = (m for m in self.modules() if isinstance(m, nn.Linear))
        return first, second

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, dim) to (N, T, dim)."""
        first, second = self.linears()
        out: Tensor = second(self.activation(first(x)))
        return out


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens."""

    def __init__(self, cfg: TwoWayConfig, first: bool) -> None:
        super().__init__()
        self.first, self.plain_residual = first, cfg.plain_residual
        self.self_attn = Attention(cfg.dim, cfg.heads)
        self.norm1 = nn.LayerNorm(cfg.dim)
        self.cross_attn_token_to_image = Attention(cfg.dim, cfg.heads, cfg.downsample)
        self.norm2 = nn.LayerNorm(cfg.dim)
        self.mlp = TokenMlp(cfg)
        self.norm3 = nn.LayerNorm(cfg.dim)
        self.norm4 = nn.LayerNorm(cfg.dim)
        self.cross_attn_image_to_token = Attention(cfg.dim, cfg.heads, cfg.downsample)

    def forward(
        self, tokens: Tensor, image: Tensor, token_code: Tensor, image_code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, dim), image (N, h w, dim) and their position codes to both, updated."""
        coded = tokens if self.first else tokens + token_code
        if self.plain_residual:
            tokens = coded + self.self_attn(coded, coded, coded)
        elif self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens = tokens + self.self_attn(coded, coded, tokens)
        tokens = self.norm1(tokens)
        read = self.cross_attn_token_to_image(tokens + token_code, image + image_code, image)
        tokens = self.norm2(tokens + read)
        tokens = self.norm3(tokens + self.mlp(tokens))
        written = self.cross_attn_image_to_token(image + image_code, tokens + token_code, tokens)
        return tokens, self.norm4(image + written)


class TwoWayTransformer(nn.Module):
    """Blocks, then a last look of the tokens at the image; keys of `mask_decoder.transformer`."""

    def __init__(self, cfg: TwoWayConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.layers = nn.ModuleList(TwoWayBlock(cfg, k == 0) for k in range(cfg.depth))
        self.final_attn_token_to_image = Attention(cfg.dim, cfg.heads, cfg.downsample)
        self.norm_final_attn = nn.LayerNorm(cfg.dim)

    def forward(self, tokens: Tensor, image: Tensor, image_code: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, dim), which are their own position codes, and the image (N, h w, dim)."""
        token_code = tokens
        for block in self.layers:
            tokens, image = block(tokens, image, token_code, image_code)
        read = self.final_attn_token_to_image(tokens + token_code, image + image_code, image)
        return self.norm_final_attn(tokens + read), image
