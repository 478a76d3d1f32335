"""The decoder of `tiny` in samrt's own operators for ONNX Runtime; see `samrt.backends.operators`.

The tokens' side is that of `onnx_decoder`; what is done to the image and to masks is three kinds of
operators.  Weights, inputs and outputs are those of the canonical graph.
"""

from __future__ import annotations

import onnx
from torch import Tensor, nn

from samrt_export.graph import CUSTOM_DOMAIN, GraphBuilder
from samrt_export.tiny.model import Attention, ConvNorm, Decoder, TwoWayBlock
from samrt_export.tiny.onnx_blocks import F32, array, folded
from samrt_export.tiny.onnx_decoder import DecoderWriter
from samrt_export.tiny.prompt_parts import PROMPT_MAPS, Prototypes, ScoreHead


class CpuDecoderWriter(DecoderWriter):
    """Writes the decoder around samrt's operators."""

    def image_side(self, t: str, k: str, layer: Attention) -> tuple[str, str, str]:
        """What the image attends to: keys, offsets and values in its own channels.

        The weights of a head sum to one, so a share of the output's bias goes into every value.
        """
        scale = (self.inner // self.heads) ** -0.5
        keys = self.heads_of(self.affine(k, layer.k), self.inner)
        to_rows = self.weight(array(self.by_head(layer.q.weight, rows=True) * scale))
        wide = self.shape(self.op("MatMul", keys, to_rows), [0, -1, self.dim])
        bias = layer.q.bias.detach().double().view(1, self.heads, -1, 1) * scale
        offset = self.op("MatMul", keys, self.weight(array(bias)))
        offset = self.shape(offset, [0, -1])
        values = self.heads_of(self.affine(t, layer.v), self.inner)
        out = self.by_head(layer.out.weight, rows=False).transpose(-1, -2)
        values = self.shape(self.op("MatMul", values, self.weight(array(out))), [0, -1, self.dim])
        share = array(layer.out.bias.double() / self.heads)
        return wide, offset, self.op("Add", values, self.weight(share))

    def think(self, t: str, t_code: str, block: TwoWayBlock) -> str:
        """Tokens attend to themselves."""
        own = self.attend_tokens(t, self.op("Add", t, t_code), block.self_attention)
        return self.norm(self.op("Add", t, own), block.norms[0])

    def transform(self, t: str, x: str, t_code: str) -> tuple[str, str]:
        """The two-way transformer; each block's way over the image also reads for the next one."""
        d = self.decoder
        blocks = [b for b in d.blocks if isinstance(b, TwoWayBlock)]
        code = self.weight(array(self.image_code))
        pixels = self.side**2
        t = self.think(t, t_code, blocks[0])
        queries = self.queries(self.op("Add", t, t_code), blocks[0].token_to_image)
        seen = self.custom("ReadRows", ("N", "R", self.dim), x, code, queries)
        for number, block in enumerate(blocks):
            read = self.answer(seen, block.token_to_image)
            t = self.norm(self.op("Add", t, read), block.norms[1])
            hidden = self.op("Relu", self.affine(t, block.mlp[0]))  # type: ignore[arg-type]
            t = self.op("Add", t, self.affine(hidden, block.mlp[2]))  # type: ignore[arg-type]
            t = self.norm(t, block.norms[2])
            keys, offset, values = self.image_side(
                t, self.op("Add", t, t_code), block.image_to_token
            )
            last = number + 1 == len(blocks)
            if not last:
                t = self.think(t, t_code, blocks[number + 1])
            reader = d.final if last else blocks[number + 1].token_to_image
            queries = self.queries(self.op("Add", t, t_code), reader)
            norm = block.norms[3]
            if not isinstance(norm, nn.LayerNorm):
                raise TypeError(f"expected LayerNorm, got {type(norm)}")
            x, seen = self.split_op(
                "ImagePass", 2, x, code, self.weight(array(norm.weight)),
                self.weight(array(norm.bias)), values, queries, keys, offset,
                domain=CUSTOM_DOMAIN, heads=self.heads, epsilon=float(norm.eps),
            )  # fmt: skip
            self.declare(x, ("N", pixels, self.dim))
            self.declare(seen, ("N", "R", self.dim))
        read = self.answer(seen, d.final)
        return self.norm(self.op("Add", t, read), d.final_norm), x

    def declare(self, name: str, shape: tuple[int | str, ...]) -> None:
        """The shape of a result that shape inference cannot know."""
        kind = onnx.TensorProto.FLOAT
        self.values[name] = onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def fine_weights(self) -> list[str]:
        """The constants of FineMasks, in its order."""
        d = self.decoder

        def vector(x: Tensor | F32) -> str:
            return self.weight(array(x) if isinstance(x, Tensor) else x)

        def point(conv: nn.Conv2d) -> tuple[F32, str]:
            if conv.bias is None:
                raise TypeError("this convolution should have a bias")
            return array(conv.weight)[:, :, 0, 0], vector(conv.bias)

        def blocks(module: nn.Module) -> list[ConvNorm]:
            return [part for part in module.modules() if isinstance(part, ConvNorm)]

        found = []
        for number, part in enumerate(blocks(d.mix16)):
            weight, bias = folded(part)
            found += [vector(weight if number == 1 else weight[:, :, 0, 0].T), vector(bias)]
        weight, bias_name = point(d.down8)
        found += [vector(weight.T), bias_name]
        for like in (d.like8, d.like4):
            if not isinstance(like, Prototypes):
                raise TypeError(f"unexpected {type(like)}")
            found += [vector(like.a), vector(like.b), vector(like.bias.weight.T),
                      vector(like.bias.bias)]  # fmt: skip
        weight, bias_name = point(d.dense8)
        found += [vector(weight.T), bias_name]
        for part in blocks(d.mix8):
            found += [vector(x) for x in folded(part)]
        for conv in (d.down4, d.dense4):
            weight, bias_name = point(conv)
            found += [vector(weight), bias_name]
        for part in blocks(d.mix4):
            found += [vector(x) for x in folded(part)]
        weight, bias_name = point(d.down2)
        found += [vector(weight), bias_name]
        return found + [vector(x) for x in folded(d.mix2)]

    def score(self, token: str, own: str, figures: str, fit: str) -> str:
        """`ScoreHead` behind its figures."""
        head = self.decoder.score
        if not isinstance(head, ScoreHead):
            raise TypeError(f"unexpected {type(head)}")
        mixed = self.op("Add", self.affine(own, head.own), self.affine(token, head.shared))
        x = self.op("Concat", mixed, figures, axis=2)
        x = self.affine(self.op("Relu", self.affine(x, head.hidden)), head.out)
        return self.op("Mul", self.shape(x, [0, self.decoder.cfg.num_masks]), fit)


def cpu_decoder_graph(decoder: Decoder, size: int, *, half_weights: bool = True) -> GraphBuilder:
    """The graph of `onnx_decoder.decoder_graph` in samrt's operators."""
    d, side = decoder, size // 16
    g = CpuDecoderWriter(decoder, side, half_weights=half_weights)
    features, coords, labels, mask, has_mask = g.decoder_inputs(d.cfg, size)
    first, last = d.dense16[0], d.dense16[1]
    if not isinstance(first, ConvNorm) or not isinstance(last, nn.Conv2d) or last.bias is None:
        raise TypeError("unexpected layers at stride 16")
    w1, b1 = folded(first)
    maps, x = g.split_op(
        "DrawPrompts", 2, coords, labels, mask, has_mask, features[0],
        g.weight(w1.reshape(len(w1), PROMPT_MAPS * 9).T), g.weight(b1),
        g.weight(array(last.weight)[:, :, 0, 0].T), g.weight(array(last.bias)),
        domain=CUSTOM_DOMAIN,
    )  # fmt: skip
    g.declare(maps, ("N", PROMPT_MAPS, size // 4, size // 4))
    g.declare(x, ("N", side * side, g.dim))
    t_code = g.prompt_tokens(coords, labels, has_mask)
    t, x = g.transform(t_code, x, t_code)
    token, own = g.cut(t, 0, 1), g.cut(t, 1, 1 + d.cfg.num_masks)
    masks, figures, fit = g.split_op(
        "FineMasks", 3, x, *features[1:], maps, g.hyper(own), *g.fine_weights(),
        domain=CUSTOM_DOMAIN,
    )  # fmt: skip
    count = d.cfg.num_masks
    g.declare(figures, ("N", count, 8))
    g.declare(fit, ("N", count))
    g.output(masks, "low_res_masks", ["N", count, size // 2, size // 2])
    g.output(g.score(token, own, figures, fit), "iou_predictions", ["N", count])
    return g
