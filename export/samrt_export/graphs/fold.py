"""Linear steps merged into the convolution before them, in float64.

In evaluation BatchNorm is y = (x - mean) gamma / sqrt(var + eps) + beta (Ioffe and Szegedy 2015,
algorithm 2), so a convolution W without bias becomes the weight W s and the bias beta - mean s
with s = gamma / sqrt(var + eps).  Parallel depthwise branches add up in the same way (Ding et al.
2021, RepVGG).  The rounding to float32 happens once, when the graph stores the result.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.nets.conv_bn import ConvBn

Array64 = npt.NDArray[np.float64]


def float64(tensor: Tensor) -> Array64:
    """The values of a tensor as a float64 array of the same shape."""
    return np.asarray(tensor.detach().cpu().double().numpy())


def fold_batch_norm(module: ConvBn) -> tuple[Array64, Array64]:
    """Weight (out, in / groups, k, k) and bias (out) of the one convolution equal to `module`.

    Raises ValueError where a running variance is negative beyond eps: no such statistics exist.
    """
    bn = module.bn
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("the batch norm holds no running statistics; expected a checkpoint's")
    variance = float64(bn.running_var) + bn.eps
    if not (variance > 0).all():
        raise ValueError(
            f"running_var of a batch norm is {variance.min() - bn.eps:g}; expected no negative "
            "value: the checkpoint is damaged"
        )
    scale = float64(bn.weight) / np.sqrt(variance)
    weight = float64(module.c.weight) * scale[:, None, None, None]
    return weight, float64(bn.bias) - float64(bn.running_mean) * scale


def add_depthwise_branches(
    wide: ConvBn, point: ConvBn, *, identity: bool
) -> tuple[Array64, Array64]:
    """Weight (C, 1, k, k) and bias (C) of `wide(x) + point(x) (+ x)`, all depthwise, k odd."""
    weight, bias = fold_batch_norm(wide)
    point_weight, point_bias = fold_batch_norm(point)
    if weight.shape[1] != 1 or point_weight.shape != (len(weight), 1, 1, 1):
        raise ValueError(
            f"branches of shape {weight.shape} and {point_weight.shape} cannot be added; "
            "expected depthwise kernels (C, 1, k, k) and (C, 1, 1, 1)"
        )
    middle = weight.shape[-1] // 2
    weight[:, 0, middle, middle] += point_weight[:, 0, 0, 0] + float(identity)
    return weight, bias + point_bias


def emit_conv_bn(g: GraphBuilder, x: str, module: nn.Module) -> str:
    """A ConvBn as one convolution of (1, C, H, W)."""
    if not isinstance(module, ConvBn):
        raise TypeError(f"got a {type(module).__name__}; expected a ConvBn")
    weight, bias = fold_batch_norm(module)
    return g.conv(x, weight, bias, stride=module.c.stride[0], group=module.c.groups)
