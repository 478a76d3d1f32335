"""The decoder of `tiny` as an ONNX graph; see `onnx_graph`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder
from samrt_export.tiny.model import Attention, Decoder, TwoWayBlock
from samrt_export.tiny.onnx_blocks import Writer, array
from samrt_export.tiny.prompt_parts import PromptMaps, Prototypes


@dataclass(frozen=True)
class Drawn:
    """Tensors of a drawn prompt: maps, u (N, 1, 1, n) and v (N, 1, n, 1) in the box, has a box."""

    maps: list[str]
    u: str
    v: str
    has: str
    side: int


class DecoderWriter(Writer):
    """Writes the decoder; `side` is the width of the stride-16 grid."""

    def __init__(self, decoder: Decoder, side: int, *, half_weights: bool) -> None:
        super().__init__("tiny_decoder", half_weights=half_weights)
        self.decoder, self.side, self.frame = decoder, side, side * 16
        cfg = decoder.cfg
        self.dim, self.heads, self.inner = cfg.dim, cfg.heads, cfg.attention_dim
        step = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        grid = torch.stack(
            [step[None, :].expand(side, side), step[:, None].expand(side, side)], dim=-1
        )
        angle = (2 * grid - 1) @ decoder.gaussian.double() * (2 * torch.pi)
        code = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
        self.image_code = code.reshape(1, side * side, -1)

    def heads_of(self, x: str, width: int) -> str:
        """(N, T, width) to (N, heads, T, width / heads)."""
        split = self.shape(x, [0, -1, self.heads, width // self.heads])
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def by_head(self, matrix: Tensor, rows: bool) -> Tensor:
        """A weight (out, in) cut along its rows (or columns) into (1, heads, ..., ...)."""
        parts = matrix.detach().double().chunk(self.heads, dim=0 if rows else 1)
        return torch.stack(parts)[None]

    def attend_tokens(self, t: str, q: str, layer: Attention) -> str:
        """Self-attention of the few tokens: queries and keys from q, values from t."""
        head = self.dim // self.heads
        queries = self.heads_of(self.affine(q, layer.q, head**-0.5), self.dim)
        split = self.shape(self.affine(q, layer.k), [0, -1, self.heads, head])
        keys = self.op("Transpose", split, perm=[0, 2, 3, 1])
        weights = self.op("Softmax", self.op("MatMul", queries, keys), axis=-1)
        mixed = self.op("MatMul", weights, self.heads_of(self.affine(t, layer.v), self.dim))
        flat = self.shape(self.op("Transpose", mixed, perm=[0, 2, 1, 3]), [0, -1, self.dim])
        return self.affine(flat, layer.out)

    def read_image(self, q: str, x: str, x_coded: str, layer: Attention) -> str:
        """Tokens q (N, T, dim) attend to the image (N, HW, dim).

        The key and value projections of the image move to the token side, where there are few rows:
        q (X W)^T = (q W^T) X^T, and A (X V) O = (A X) (V O).  The key bias adds the same to every
        score of a row, which softmax ignores.
        """
        queries = self.queries(q, layer)
        scores = self.op("MatMul", queries, self.op("Transpose", x_coded, perm=[0, 2, 1]))
        return self.answer(self.op("MatMul", self.op("Softmax", scores, axis=-1), x), layer)

    def queries(self, q: str, layer: Attention) -> str:
        """What tokens q (N, T, dim) ask of the image in its own channels: (N, heads * T, dim)."""
        scale = (self.inner // self.heads) ** -0.5
        queries = self.heads_of(self.affine(q, layer.q, scale), self.inner)
        to_rows = self.weight(array(self.by_head(layer.k.weight, rows=True)))
        return self.shape(self.op("MatMul", queries, to_rows), [0, -1, self.dim])

    def answer(self, seen: str, layer: Attention) -> str:
        """Means of the image (N, heads * T, dim) through values and output: (N, T, dim)."""
        seen = self.shape(seen, [0, self.heads, -1, self.dim])
        v = self.by_head(layer.v.weight, rows=True).transpose(-1, -2)
        o = self.by_head(layer.out.weight, rows=False).transpose(-1, -2)
        mixed = self.op("MatMul", seen, self.weight(array(v @ o)))
        mixed = self.op("ReduceSum", mixed, self.constant([1], "int64"), keepdims=0)
        bias = layer.out.weight.double() @ layer.v.bias.double() + layer.out.bias.double()
        return self.op("Add", mixed, self.weight(array(bias)))

    def write_image(self, t: str, k: str, x_coded: str, layer: Attention) -> str:
        """The image attends to tokens (keys from k, values from t); minus the result, (N, HW, dim).

        The sign lets the caller subtract: ONNX Runtime fuses addition and LayerNormalization into a
        kernel that is several times slower here than the two apart.
        """
        scale = (self.inner // self.heads) ** -0.5
        keys = self.heads_of(self.affine(k, layer.k), self.inner)
        to_rows = self.weight(array(self.by_head(layer.q.weight, rows=True) * scale))
        wide = self.shape(self.op("MatMul", keys, to_rows), [0, -1, self.dim])
        bias = layer.q.bias.detach().double().view(1, self.heads, -1, 1) * scale
        offset = self.op("MatMul", keys, self.weight(array(bias)))
        scores = self.op("MatMul", x_coded, self.op("Transpose", wide, perm=[0, 2, 1]))
        scores = self.op("Add", scores, self.shape(offset, [0, 1, -1]))
        pixels = self.side**2
        weights = self.op("Softmax", self.shape(scores, [0, pixels, self.heads, -1]), axis=-1)
        values = self.heads_of(self.affine(t, layer.v), self.inner)
        out = -self.by_head(layer.out.weight, rows=False).transpose(-1, -2)
        values = self.shape(self.op("MatMul", values, self.weight(array(out))), [0, -1, self.dim])
        mixed = self.op("MatMul", self.shape(weights, [0, pixels, -1]), values)
        return self.op("Add", mixed, self.weight(-array(layer.out.bias)))

    def code_image(self, x: str) -> str:
        """The image tokens with their position codes."""
        return self.op("Add", x, self.weight(array(self.image_code)))

    def block(self, t: str, x: str, t_code: str, layer: TwoWayBlock) -> tuple[str, str]:
        """One two-way block."""
        coded = self.code_image(x)
        own = self.attend_tokens(t, self.op("Add", t, t_code), layer.self_attention)
        t = self.norm(self.op("Add", t, own), layer.norms[0])
        read = self.read_image(self.op("Add", t, t_code), x, coded, layer.token_to_image)
        t = self.norm(self.op("Add", t, read), layer.norms[1])
        hidden = self.op("Relu", self.affine(t, layer.mlp[0]))  # type: ignore[arg-type]
        t = self.op("Add", t, self.affine(hidden, layer.mlp[2]))  # type: ignore[arg-type]
        t = self.norm(t, layer.norms[2])
        mixed = self.write_image(t, self.op("Add", t, t_code), coded, layer.image_to_token)
        return t, self.norm(self.op("Sub", x, mixed), layer.norms[3])

    def is_label(self, labels: str, value: int) -> str:
        """1.0 where the label is `value`, (N, P)."""
        return self.op("Cast", self.op("Equal", labels, self.constant(float(value))), to=1)

    def prompt_tokens(self, coords: str, labels: str, has_mask: str) -> str:
        """The fixed tokens and the prompt's, with position codes and types: (N, 5 + P, dim)."""
        d = self.decoder
        gaussian = d.gaussian.double()
        angle = self.op(
            "Add",
            self.op("MatMul", coords, self.constant(array(gaussian * (4 * np.pi / self.frame)))),
            self.constant(array(-2 * np.pi * gaussian.sum(0))),
        )
        code = self.op("Concat", self.op("Sin", angle), self.op("Cos", angle), axis=-1)
        column = self.op("Unsqueeze", labels, self.constant([2], "int64"))
        real = self.op("Cast", self.op("GreaterOrEqual", column, self.constant(0.0)), to=1)
        kinds = self.op("Equal", column, self.constant([-1, 0, 1, 2, 3]))
        types = self.op("MatMul", self.op("Cast", kinds, to=1), self.weight(array(d.type_embed)))
        own = self.op("Add", self.op("Mul", code, real), types)
        zero = self.op("Mul", self.shape(has_mask, [-1, 1, 1]), self.constant(0.0))
        fixed = self.op("Add", zero, self.weight(array(d.tokens)[None]))
        return self.op("Concat", fixed, own, axis=1)

    def prompt_grid(self, coords: str, labels: str, mask: str, has_mask: str) -> Drawn:
        """The twelve maps of `PromptMaps` at stride 4; maps 6 to 9 are one tensor."""
        n = self.side * 4
        centres = (np.arange(n, dtype=np.float32) + 0.5) * 4
        gx = self.constant(centres.reshape(1, 1, 1, n))
        gy = self.constant(centres.reshape(1, 1, n, 1))
        zeros = self.constant(np.zeros((1, 1, n, n)))
        one, two, low = self.constant(1.0), self.constant(2.0), self.constant(-2.0)
        axis1 = self.constant([1], "int64")

        def clip(x: str) -> str:
            return self.op("Clip", x, low, two)

        def corner(value: int) -> tuple[str, str, str]:
            here = self.op("Unsqueeze", self.is_label(labels, value), self.constant([2], "int64"))
            xy = self.op("ReduceSum", self.op("Mul", coords, here), axis1, keepdims=0)
            x, y = self.split_op("Split", 2, xy, self.constant([1, 1], "int64"), axis=1)
            found = self.op("ReduceSum", here, axis1, keepdims=0)
            return (
                *(self.shape(v, [-1, 1, 1, 1]) for v in (x, y)),
                self.shape(found, [-1, 1, 1, 1]),
            )  # type: ignore[return-value]

        x0, y0, has = corner(2)
        x1, y1, _ = corner(3)
        has = self.op("Min", has, one)
        half = self.constant(0.5)
        ratios, edges = [], []
        for a, b, g in ((x0, x1, gx), (y0, y1, gy)):
            centre = self.op("Mul", self.op("Add", a, b), half)
            reach = self.op("Max", self.op("Mul", self.op("Sub", b, a), half), one)
            ratio = self.op("Div", self.op("Sub", g, centre), reach)
            inside = self.op("Sub", one, self.op("Abs", ratio))
            ratios.append(ratio)
            edges.append((inside, self.op("Mul", inside, reach)))
        u, v = ratios
        square = self.op("Add", self.op("Mul", u, u), self.op("Mul", v, v))
        pixels = self.op("Min", edges[0][1], edges[1][1])
        parts = [
            self.op("Add", self.op("Mul", clip(u), has), zeros),
            self.op("Add", self.op("Mul", clip(v), has), zeros),
            self.op("Mul", clip(self.op("Sub", one, square)), has),
            self.op("Mul", clip(self.op("Min", edges[0][0], edges[1][0])), has),
            self.op("Mul", clip(self.op("Mul", pixels, self.constant(1 / 16))), has),
            self.op("Add", has, zeros),
        ]
        bumps = self.click_bumps(coords, labels, centres)
        gate = self.shape(has_mask, [-1, 1, 1, 1])
        small = self.op("AveragePool", mask, kernel_shape=[2, 2], strides=[2, 2])
        soft = self.op("Tanh", self.op("Mul", small, self.constant(0.25)))
        parts += [bumps, self.op("Mul", soft, gate), self.op("Add", gate, zeros)]
        return Drawn(parts, u, v, has, n)

    def click_bumps(self, coords: str, labels: str, centres: npt.NDArray[np.float32]) -> str:
        """Maps 6 to 9: narrow and wide bumps of positive, then of negative clicks; (N, 4, n, n)."""
        n = len(centres)
        powers = self.constant([[[k]] for k in (-0.5 / s**2 for s in PromptMaps.SIGMAS)] * 2)
        kinds = self.constant([[[1.0]], [[1.0]], [[0.0]], [[0.0]]])
        x, y = self.split_op("Split", 2, coords, self.constant([1, 1], "int64"), axis=2)
        waves = []
        for at, shape in ((x, (1, n)), (y, (n, 1))):
            away = self.op(
                "Sub",
                self.constant(centres.reshape(shape)),
                self.op("Unsqueeze", at, self.constant([3, 4], "int64")),
            )
            away = self.op("Mul", self.op("Mul", away, away), powers)
            waves.append(self.op("Exp", away))
        same = self.op(
            "Equal", self.op("Unsqueeze", labels, self.constant([2, 3, 4], "int64")), kinds
        )
        across = self.op("Mul", waves[0], self.op("Cast", same, to=1))
        return self.op("ReduceMax", self.op("Mul", across, waves[1]), axes=[1], keepdims=0)

    def prototype_weights(self, maps: list[str]) -> str:
        """`model.prototype_weights`, (N, 2, S/4, S/4)."""
        ellipse, field, has, bumps, soft = (maps[i] for i in (2, 3, 5, 6, 7))
        ones = self.constant([1, 1, 1, 1], "int64")
        positive, _, negative, _ = self.split_op("Split", 4, bumps, ones, axis=1)
        off = self.op("Abs", self.op("Add", field, self.constant(0.4)))
        ring = self.op(
            "Relu", self.op("Sub", self.constant(1.0), self.op("Mul", off, self.constant(3.0)))
        )
        ring = self.op("Mul", ring, has)
        inside = self.op("Add", self.op("Relu", ellipse), positive)
        inside = self.op("Add", inside, self.op("Relu", soft))
        beyond = self.op("Mul", self.op("Relu", self.op("Neg", soft)), self.constant(0.1))
        outside = self.op("Add", self.op("Add", ring, negative), beyond)
        return self.op("Concat", inside, self.op("Add", outside, self.constant(0.003)), axis=1)

    def merge(self, maps: str, like: str, layer: nn.Conv2d) -> str:
        """layer(maps) + like as one convolution, which keeps ONNX Runtime in its blocked layout."""
        if layer.bias is None:
            raise TypeError("this convolution should have a bias")
        own = array(layer.weight)
        weight = np.concatenate([own, np.eye(len(own), dtype=np.float32)[:, :, None, None]], axis=1)
        return self.conv(self.op("Concat", maps, like, axis=1), weight, array(layer.bias))

    def compare(self, f: str, weights: str, layer: Prototypes, side: int) -> str:
        """`Prototypes`: f (1, C, side, side), weights (N, 2, side, side) to (N, C, side, side)."""
        c = layer.a.shape[0]
        flat = self.shape(f, [1, c, side * side])
        mass = self.shape(weights, [0, 2, side * side])
        total = self.op("ReduceSum", mass, self.constant([2], "int64"), keepdims=1)
        sums = self.op("MatMul", mass, self.op("Transpose", flat, perm=[0, 2, 1]))
        pooled = self.op("Div", sums, self.op("Add", total, self.constant(1e-3)))
        both = self.shape(pooled, [0, 2 * c])
        squares = self.op("Mul", both, both)
        bias = self.affine(self.op("Concat", both, squares, axis=1), layer.bias)
        p_in, p_out = self.split_op("Split", 2, pooled, self.constant([1, 1], "int64"), axis=1)
        matrix = self.op("Mul", p_in, self.weight(array(layer.a)))
        matrix = self.op("Add", matrix, self.op("Mul", p_out, self.weight(array(layer.b))))
        matrix = self.op("Add", matrix, self.constant(np.eye(c)))
        product = self.op("MatMul", matrix, flat)
        product = self.op("Add", product, self.shape(bias, [0, c, 1]))
        return self.shape(product, [0, c, side, side])

    def heads_out(self, t: str, x: str, drawn: Drawn) -> tuple[str, str]:
        """Mask logits (N, M, S/2, S/2) and IoU (N, M) from tokens and the stride-2 map."""
        count, f2 = self.decoder.cfg.num_masks, self.decoder.cfg.fine[2]
        score, masks = self.cut(t, 0, 1), self.cut(t, 1, 1 + count)
        y = self.hyper(masks)
        w_map, bias = self.split_op("Split", 2, y, self.constant([f2, 1], "int64"), axis=-1)
        n = self.side * 8
        flat = self.op("MatMul", w_map, self.shape(x, [0, f2, n * n]))
        logits = self.shape(self.op("Add", flat, bias), [0, count, n, n])
        return logits, self.scores(score, masks, logits, drawn)

    def cut(self, t: str, start: int, end: int) -> str:
        """Tokens from `start` to before `end`."""
        return self.op("Slice", t, *(self.constant([v], "int64") for v in (start, end, 1)))

    def hyper(self, masks: str) -> str:
        """Weights of the last layer for every mask: (N, M, f2 + 1)."""
        count, f2 = self.decoder.cfg.num_masks, self.decoder.cfg.fine[2]
        y = self.shape(masks, [0, count, 1, self.dim])
        for k in (0, 2):
            layers: list[nn.Linear] = [m[k] for m in self.decoder.hyper]  # type: ignore[index]
            w = np.stack([array(layer.weight).T for layer in layers])[None]
            b = np.stack([array(layer.bias)[None] for layer in layers])[None]
            y = self.op("Add", self.op("MatMul", y, self.weight(w)), self.weight(b))
            if k == 0:
                y = self.op("Relu", y)
        return self.shape(y, [0, count, f2 + 1])

    def scores(self, token: str, own: str, logits: str, drawn: Drawn) -> str:
        """`ScoreHead`: tokens (N, 1, dim) and (N, M, dim), logits, prompt to IoU (N, M)."""
        head, count, n = self.decoder.score, self.decoder.cfg.num_masks, drawn.side
        last, one = self.constant([2], "int64"), self.constant(1.0)

        def total(x: str) -> str:
            return self.op("ReduceSum", x, last, keepdims=1)

        small = self.op("AveragePool", logits, kernel_shape=[2, 2], strides=[2, 2])
        soft = self.op("Sigmoid", small)
        p = self.shape(soft, [0, count, n * n])
        hard = self.op("Cast", self.op("Greater", small, self.constant(0.0)), to=1)
        hard = self.shape(hard, [0, count, n * n])
        both, sp, sh = total(self.op("Mul", p, hard)), total(p), total(hard)
        union = self.op("Add", self.op("Sub", self.op("Add", sp, sh), both), one)
        size = self.op("Sqrt", self.op("Add", sh, self.constant(1e-6)))
        figures = [self.op("Div", both, union), self.op("Mul", size, self.constant(1 / n))]
        has, cells, fits = self.shape(drawn.has, [-1, 1, 1]), [], []
        for axis, line in ((3, drawn.v), (2, drawn.u)):
            extent = self.op("ReduceMax", soft, axes=[axis], keepdims=0)
            within = self.op("LessOrEqual", self.op("Abs", line), one)
            within = self.op("Mul", self.shape(self.op("Cast", within, to=1), [0, 1, n]), has)
            shared, cell = total(self.op("Mul", extent, within)), total(within)
            whole = self.op("Sub", self.op("Add", total(extent), cell), shared)
            fit = self.op("Div", shared, self.op("Add", whole, self.constant(1e-3)))
            figures.append(self.op("Mul", fit, has))
            cells.append(cell)
            sure = self.op("Cast", self.op("Greater", extent, self.constant(0.5)), to=1)
            shared = total(self.op("Mul", sure, within))
            whole = self.op("Sub", self.op("Add", total(sure), cell), shared)
            fits.append(self.op("Div", shared, self.op("Add", whole, self.constant(1e-3))))
        area = self.op("Add", self.op("Mul", cells[0], cells[1]), one)
        fill = self.op("Min", self.op("Div", sh, area), self.constant(2.0))
        figures.append(self.op("Mul", fill, has))
        figures.append(self.op("Add", has, self.constant(np.zeros((1, count, 1)))))
        bumps = self.shape(drawn.maps[6], [0, 4, n * n])
        mass = self.op("ReduceSum", bumps, last, keepdims=0)
        mass = self.op("Add", self.shape(mass, [0, 1, 4]), self.constant(1e-3))
        seen = self.op("MatMul", p, self.op("Transpose", bumps, perm=[0, 2, 1]))
        seen = self.op("Div", seen, mass)
        mixed = self.op("Add", self.affine(own, head.own), self.affine(token, head.shared))
        weight = array(head.hidden.weight)
        wide = np.zeros((weight.shape[0], weight.shape[1] + 2), np.float32)
        wide[:, :-4] = weight[:, :-2]  # narrow bumps are columns 0 (positive) and 2 (negative)
        wide[:, [-4, -2]] = weight[:, -2:]
        x = self.op("Concat", mixed, *figures, seen, axis=2)
        x = self.op("Relu", self.linear(x, wide, array(head.hidden.bias)))
        fit = self.op("Mul", self.op("Sub", self.op("Mul", fits[0], fits[1]), one), has)
        score = self.op("Mul", self.affine(x, head.out), self.op("Add", fit, one))
        return self.shape(score, [0, count])


def decoder_graph(decoder: Decoder, size: int, *, half_weights: bool = True) -> GraphBuilder:
    """Feature maps (batch 1) and N prompts of P points to masks and IoU; see `Decoder.forward`."""
    d, side = decoder, size // 16
    g = DecoderWriter(decoder, side, half_weights=half_weights)
    features, coords, labels, mask, has_mask = g.decoder_inputs(d.cfg, size)

    t_code = g.prompt_tokens(coords, labels, has_mask)
    drawn = g.prompt_grid(coords, labels, mask, has_mask)
    grid4 = g.op("Concat", *drawn.maps, axis=1)
    grid8 = g.op("AveragePool", grid4, kernel_shape=[2, 2], strides=[2, 2])
    grid16 = g.op("AveragePool", grid8, kernel_shape=[2, 2], strides=[2, 2])

    x = g.op("Add", g.sequence(grid16, d.dense16), features[0])
    x = g.op("Transpose", g.shape(x, [0, g.dim, side * side]), perm=[0, 2, 1])
    t = t_code
    for block in d.blocks:
        if not isinstance(block, TwoWayBlock):
            raise TypeError(f"unexpected {type(block)}")
        t, x = g.block(t, x, t_code, block)
    read = g.read_image(g.op("Add", t, t_code), x, g.code_image(x), d.final)
    t = g.norm(g.op("Add", t, read), d.final_norm)
    x = g.shape(g.op("Transpose", x, perm=[0, 2, 1]), [0, g.dim, side, side])

    x = g.sequence(x, d.mix16)
    weights4 = g.prototype_weights(drawn.maps)
    weights8 = g.op("AveragePool", weights4, kernel_shape=[2, 2], strides=[2, 2])
    like8 = g.compare(features[1], weights8, d.like8, side * 2)
    like4 = g.compare(features[2], weights4, d.like4, side * 4)
    fused = g.merge(grid8, like8, d.dense8)
    x = g.residual(g.op("Relu", g.op("Add", fused, g.double(g.conv_plain(x, d.down8)))), d.mix8)
    fused = g.merge(grid4, like4, d.dense4)
    x = g.residual(g.op("Relu", g.op("Add", fused, g.double(g.conv_plain(x, d.down4)))), d.mix4)
    up = g.double(g.conv_plain(x, d.down2))
    x = g.conv_norm(g.op("Relu", g.op("Add", up, features[3])), d.mix2)
    masks, iou = g.heads_out(t, x, drawn)
    g.output(masks, "low_res_masks", ["N", d.cfg.num_masks, size // 2, size // 2])
    g.output(iou, "iou_predictions", ["N", d.cfg.num_masks])
    return g
