"""Mask decoders in samrt's own operators; see `operators`."""

from __future__ import annotations

from onnx import TensorProto, helper
from torch import nn

from samrt_export.graph import CUSTOM_DOMAIN, GraphBuilder
from samrt_export.graphs.blocks import array, linear
from samrt_export.graphs.decoder_cross import (
    MaskPrompt,
    Start,
    head_queries,
    mask_columns,
    mask_values,
    seen_values,
    token_keys,
    token_values,
    wide_keys,
    wide_queries,
)
from samrt_export.graphs.decoder_masks import mask_weight
from samrt_export.graphs.decoder_tokens import merge_heads
from samrt_export.nets.common import LayerNorm2d
from samrt_export.nets.prompt_encoder import PromptEncoder
from samrt_export.nets.two_way import Attention, TwoWayBlock


def mask_rows(g: GraphBuilder, encoder: PromptEncoder, mask: str, has_mask: str) -> MaskPrompt:
    """As `decoder_masks.mask_prompt`, in one operator that leaves out prompts without a mask."""
    layers, epsilon = encoder.mask_downscaling, 0.0
    weights = []
    for conv, norm in ((layers[0], layers[1]), (layers[3], layers[4])):
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, LayerNorm2d):
            raise TypeError(f"expected convolution and norm, got {type(conv)}, {type(norm)}")
        if conv.bias is None:
            raise TypeError("this convolution should have a bias")
        weight = array(conv.weight).transpose(2, 3, 1, 0).reshape(-1, conv.out_channels)
        epsilon = float(norm.eps)
        weights += [weight, array(conv.bias), array(norm.weight), array(norm.bias)]
    height, width = encoder.cfg.grid
    with g.scope("mask_downscaling"):
        rows = g.custom(
            "MaskRows", ("N", encoder.cfg.mask_in_chans + 1, height * width),
            mask, has_mask, *(g.weight(value) for value in weights), epsilon=epsilon,
        )  # fmt: skip
    return MaskPrompt(rows, mask_weight(encoder), has_mask)


class OwnImage:
    """A `decoder_cross.Image` in samrt's operators: one pass over the image for each block."""

    def __init__(self, g: GraphBuilder, start: Start) -> None:
        self._g, self._start = g, start
        self._image, self._passes = start.embedding, 0
        self._codes = g.constant(start.codes())
        self._written: list[str] = []
        self._options: dict[str, float] = {}

    def read_first(self, q: str, layer: Attention) -> str:
        """See `decoder_cross.Image`."""
        g, side, mask = self._g, self._start.side, self._start.mask
        queries = head_queries(g, q, layer)
        own: list[str] = []
        if mask is not None:
            columns = mask_columns(g, queries, mask, layer.k_proj.weight, layer.heads)
            own = [mask.given, mask.rows, columns, g.weight(mask_values(mask, layer))]
        shape = ("N", layer.heads, "T", layer.inner // layer.heads)
        seen = g.custom("ReadImage", shape, queries, side.keys, side.values, *own)
        with g.scope("out_proj"):
            return linear(g, merge_heads(g, seen, layer.inner), layer.out_proj)

    def write(self, k: str, tokens: str, block: TwoWayBlock) -> None:
        """See `decoder_cross.Image`; `read` appends the operator that does both."""
        g, layer, mask = self._g, block.cross_attn_image_to_token, self._start.mask
        own = [""] * 4
        with g.scope("cross_attn_image_to_token"):
            if self._passes:
                keys, offset = wide_keys(g, k, layer)
                values, side = token_values(g, tokens, layer, 1.0), ""
            else:
                keys, offset, side = token_keys(g, k, layer), "", self._start.side.queries
                values = token_values(g, tokens, layer, 1.0, self._start.base)
                if mask is not None:
                    columns = mask_columns(g, keys, mask, layer.q_proj.weight, layer.heads)
                    own = [mask.given, mask.rows, columns, g.weight(mask.weight)]
        norm = block.norm4
        self._written = [
            g.weight(array(norm.weight)), g.weight(array(norm.bias)), values,
            "", keys, offset, side, *own,
        ]  # fmt: skip
        self._options = {"heads": layer.heads, "epsilon": float(norm.eps)}

    def read(self, q: str, layer: Attention) -> str:
        """See `decoder_cross.Image`."""
        g, start = self._g, self._start
        self._written[3] = wide_queries(g, q, layer)
        inputs = [self._image, self._codes, *self._written]
        while not inputs[-1]:
            inputs.pop()
        self._image, seen = g.split_op(
            "ImagePass", 2, *inputs, domain=CUSTOM_DOMAIN, **self._options
        )
        self._passes += 1
        rows = f"heads * T {self._passes}"  # one name for two sizes would make them share memory
        for name, size in ((self._image, start.pixels), (seen, rows)):
            sizes = ["N", size, start.dim]
            g.values[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        return seen_values(g, seen, layer)

    def result(self) -> str:
        """See `decoder_cross.Image`."""
        return self._image
