"""Building blocks of the `tiny` graphs: convolutions, residuals, norms, Linear layers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.tiny.model import (
    ConvNorm,
    Residual,
    TinyConfig,
)

F32 = npt.NDArray[np.float32]
FEATURES = ("image_embeddings", "high_res_s8", "high_res_s4", "high_res_s2")


def array(tensor: Tensor) -> F32:
    """A parameter as a NumPy copy."""
    out: F32 = tensor.detach().cpu().numpy().astype(np.float32)
    return out


def folded(block: ConvNorm) -> tuple[F32, F32]:
    """Weight and bias of a convolution with its batch norm folded in."""
    conv, norm = block[0], block[1]
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        raise TypeError(f"expected convolution and batch norm, got {type(conv)}, {type(norm)}")
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise TypeError("batch norm without running statistics cannot be folded")
    scale = norm.weight.double() / torch.sqrt(var.double() + norm.eps)
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    return array(weight), array(norm.bias.double() - mean.double() * scale)


class Writer(GraphBuilder):
    """GraphBuilder that knows the network's blocks."""

    def decoder_inputs(self, cfg: TinyConfig, size: int) -> tuple[list[str], str, str, str, str]:
        """Feature maps, coordinates with pixel centres at .5, labels, mask, whether it counts."""
        widths = zip(FEATURES, (cfg.dim, *cfg.fine), (16, 8, 4, 2), strict=True)
        features = [self.input(name, [1, c, size // s, size // s]) for name, c, s in widths]
        coords = self.op("Add", self.input("point_coords", ["N", "P", 2]), self.constant(0.5))
        labels = self.input("point_labels", ["N", "P"])
        mask = self.input("mask_input", ["N", 1, size // 2, size // 2])
        return features, coords, labels, mask, self.input("has_mask_input", ["N"])

    def conv_norm(self, x: str, block: ConvNorm) -> str:
        """Folded convolution and, if the block has one, its ReLU."""
        conv = block[0]
        stride = int(conv.stride[0])  # type: ignore[index]
        y = self.conv(x, *folded(block), stride=stride)
        return self.op("Relu", y) if len(block) > 2 else y

    def conv_plain(self, x: str, conv: nn.Conv2d) -> str:
        """A convolution with bias."""
        if conv.bias is None:
            raise TypeError("this convolution should have a bias")
        return self.conv(x, array(conv.weight), array(conv.bias))

    def residual(self, x: str, block: Residual) -> str:
        """relu(x + body(x))."""
        y = x
        for part in block.body:
            if not isinstance(part, ConvNorm):
                raise TypeError(f"unexpected {type(part)} in a residual block")
            y = self.conv_norm(y, part)
        return self.op("Relu", self.op("Add", y, x))

    def sequence(self, x: str, blocks: nn.Module) -> str:
        """A Sequential of ConvNorm, Residual and Conv2d."""
        for block in blocks.children():
            if isinstance(block, ConvNorm):
                x = self.conv_norm(x, block)
            elif isinstance(block, Residual):
                x = self.residual(x, block)
            elif isinstance(block, nn.Conv2d):
                x = self.conv_plain(x, block)
            else:
                raise TypeError(f"no rule for {type(block)}")
        return x

    def norm(self, x: str, layer: nn.Module) -> str:
        """LayerNorm over the last axis."""
        if not isinstance(layer, nn.LayerNorm):
            raise TypeError(f"expected LayerNorm, got {type(layer)}")
        return self.op(
            "LayerNormalization", x, self.weight(array(layer.weight)),
            self.weight(array(layer.bias)), axis=-1, epsilon=float(layer.eps),
        )  # fmt: skip

    def affine(self, x: str, layer: nn.Linear, scale: float = 1.0) -> str:
        """A Linear layer, its result times `scale`."""
        return self.linear(x, array(layer.weight) * scale, array(layer.bias) * scale)
