"""RepViT as EdgeSAM uses it, in torch, in the form it was trained in and with its key names.

Convolutions only: depthwise token mixers with a parallel 1x1 branch and an identity, some with
squeeze-and-excitation, and residual channel mixers (Wang et al. 2024, RepViT).  EdgeSAM (Zhou et
al. 2023) adds the last two stages up and a neck as in SAM.  Tensors are (B, C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from samrt_export.nets.common import Neck, check_image_size
from samrt_export.nets.conv_bn import ConvBn

STAGES = 4
DIVISOR = 8
COARSEST = 32


def _alternating(pairs: int, tail: int) -> tuple[bool, ...]:
    return (True, False) * pairs + (False,) * tail


@dataclass(frozen=True)
class RepVitConfig:
    """Sizes of the network; `image_size` is (height, width)."""

    image_size: tuple[int, int] = (1024, 1024)
    widths: tuple[int, ...] = (48, 96, 192, 384)
    squeeze: tuple[tuple[bool, ...], ...] = (
        _alternating(1, 1),
        _alternating(1, 1),
        _alternating(7, 1),
        _alternating(1, 0),
    )
    """Per stage and block of unchanged size: has it squeeze-and-excitation?"""
    out_chans: int = 256

    def __post_init__(self) -> None:
        if len(self.widths) != STAGES or len(self.squeeze) != STAGES:
            raise ValueError(
                f"got {len(self.widths)} widths and {len(self.squeeze)} lists of blocks; "
                f"expected {STAGES} stages"
            )
        if any(side < 1 or side % COARSEST for side in self.image_size):
            raise ValueError(
                f"image size {self.image_size} (height, width) does not fit a RepViT, whose "
                f"coarsest stride is {COARSEST}; use positive multiples of {COARSEST}"
            )

    def grid(self, stage: int) -> tuple[int, int]:
        """Rows and columns of a stage's maps; those of the embedding are grid(2)."""
        stride = 4 << stage
        return self.image_size[0] // stride, self.image_size[1] // stride


EDGE_SAM = RepVitConfig()


def squeezed(channels: int) -> int:
    """Hidden width of squeeze-and-excitation: a quarter, rounded to a multiple of eight."""
    return max(DIVISOR, (channels // 4 + DIVISOR // 2) // DIVISOR * DIVISOR)


class SqueezeExcite(nn.Module):
    """Channels weighted by a function of their means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed(channels), 1)
        self.fc2 = nn.Conv2d(squeezed(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class RepVggDw(nn.Module):
    """Depthwise 3x3 and 1x1 convolutions and the identity, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBn(channels, channels, 3, groups=channels)
        self.conv1 = ConvBn(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = self.conv(x) + self.conv1(x) + x
        return out


class ChannelMixer(nn.Module):
    """Widen by two, GELU, narrow, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.m = nn.Sequential(
            ConvBn(channels, 2 * channels), nn.GELU(), ConvBn(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = x + self.m(x)
        return out


class RepVitBlock(nn.Module):
    """A token mixer and a channel mixer of unchanged size."""

    def __init__(self, channels: int, *, squeeze: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(channels) if squeeze else nn.Identity()
        self.token_mixer = nn.Sequential(RepVggDw(channels), gate)
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        out: Tensor = self.channel_mixer(self.token_mixer(x))
        return out


class RepVitReduction(RepVitBlock):
    """The same between two stages: half the rows and columns, `out` channels."""

    def __init__(self, channels: int, out: int) -> None:
        nn.Module.__init__(self)
        reduce = ConvBn(channels, channels, 3, 2, groups=channels)
        self.token_mixer = nn.Sequential(reduce, nn.Identity(), ConvBn(channels, out))
        self.channel_mixer = ChannelMixer(out)


class Upsampled(nn.Module):
    """A 1x1 convolution, then bicubic upsampling by two (a = -0.75, half-pixel centres)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.op_list = nn.ModuleList([nn.Conv2d(channels, out, 1, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, 2 H, 2 W)."""
        narrow: Tensor = self.op_list[0](x)
        return F.interpolate(narrow, scale_factor=2, mode="bicubic", align_corners=False)


class RepViT(nn.Module):
    """Image encoder of EdgeSAM."""

    def __init__(self, cfg: RepVitConfig) -> None:
        super().__init__()
        self.cfg = cfg
        width = cfg.widths[0]
        stem = nn.Sequential(
            ConvBn(3, width // 2, 3, 2), nn.GELU(), ConvBn(width // 2, width, 3, 2)
        )
        layers: list[nn.Module] = [stem]
        self.last: list[int] = []
        """Index in `features` of the last block of each stage."""
        for stage, out in enumerate(cfg.widths):
            if stage:
                layers.append(RepVitReduction(width, out))
            layers += [RepVitBlock(out, squeeze=gate) for gate in cfg.squeeze[stage]]
            self.last.append(len(layers) - 1)
            width = out
        self.features = nn.ModuleList(layers)
        self.fuse_stage2 = nn.Conv2d(cfg.widths[2], cfg.out_chans, 1, bias=False)
        self.fuse_stage3 = Upsampled(cfg.widths[3], cfg.out_chans)
        self.neck = Neck(cfg.out_chans, cfg.out_chans)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S_h, S_w) float32 to the embedding (B, 256, S_h / 16, S_w / 16).

        Raises ValueError where the image has another size than the configuration.
        """
        check_image_size(image, self.cfg.image_size)
        x, stages = image, []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.last:
                stages.append(x)
        out: Tensor = self.neck(self.fuse_stage2(stages[2]) + self.fuse_stage3(stages[3]))
        return out
