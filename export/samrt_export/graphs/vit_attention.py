"""Multi-head self-attention over a grid of tokens, relative positions folded into q and k.

SAM adds to the score of query (i, u) and key (j, w) the terms q.Rh[i - j] and q.Rw[u - w].  With
q' = [q, q.Rh[i - 0], ..., q.Rh[i - (h - 1)], q.Rw[u - 0], ...] and k' = [k, onehot(j), onehot(w)]
the score is the plain product q'.k', so softmax(q' k'^T) v is an attention that fused kernels take
and no (heads, n, n) bias is ever made.  The softmax scale is folded into the weights of q, and its
inverse into the tables of relative positions.

Windows that reach over the edge of the grid hold padding tokens, which take part as keys: their k
and v are the bias of the projection.  A bias that all keys share moves all scores of a query alike
and leaves the softmax as it is; one that all values share is added to the result, and so to the
bias of the output projection.  Without these two biases padding tokens are zeros.  Whole windows
and those at the edges are separate, so that queries are real tokens only and no more than the keys
and values of the edges is padded.

Runtimes without a fused attention make the (heads, n, n) scores in memory.  For them attention over
many tokens can be tiled: one head and a few rows of queries at a time, scores that stay in the
processor's cache, and there adding the two terms costs less than the longer product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from samrt_export.graph import GraphBuilder
from samrt_export.graphs.blocks import F32, concat, split, tile_rows

Size = tuple[int, int]
SCORE_TILE_BYTES = 4 << 20


@dataclass(frozen=True)
class Windows:
    """A grid of tokens cut into windows from its upper left corner; sizes are (h, w)."""

    grid: Size
    window: Size

    @property
    def counts(self) -> Size:
        """Windows down and across."""
        return -(-self.grid[0] // self.window[0]), -(-self.grid[1] // self.window[1])

    @property
    def padded(self) -> Size:
        """The grid with its padding tokens."""
        return self.counts[0] * self.window[0], self.counts[1] * self.window[1]

    @property
    def pads(self) -> bool:
        """Whether windows reach over the edge."""
        return self.padded != self.grid


@dataclass(frozen=True)
class Span:
    """Neighbouring windows of the same extent along one axis.

    start: first token; count: windows; size: real tokens in each of them.
    """

    start: int
    count: int
    size: int

    @property
    def end(self) -> int:
        """The token after the last one."""
        return self.start + self.count * self.size


def spans(length: int, window: int) -> Iterator[Span]:
    """Whole windows along an axis, then the one at the edge if there is one."""
    whole = length // window
    if whole:
        yield Span(0, whole, window)
    if length % window:
        yield Span(whole * window, 1, length % window)


@dataclass(frozen=True)
class Attention:
    """The weights of an attention layer.

    qkv_weight (3 dim, dim), qkv_bias (3 dim): q before k before v.  proj_weight (dim, dim),
    proj_bias (dim).  tables: relative positions of rows (2 window_h - 1, d) and of columns
    (2 window_w - 1, d), d = dim / heads.
    """

    heads: int
    qkv_weight: F32
    qkv_bias: F32
    proj_weight: F32
    proj_bias: F32
    tables: tuple[F32, F32] | None = None

    @property
    def dim(self) -> int:
        """Channels of a token."""
        return int(self.proj_weight.shape[0])

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.heads

    @property
    def scale(self) -> float:
        """Factor of the scores before the softmax."""
        return float(self.head_dim**-0.5)

    def scaled_weight(self) -> F32:
        """Weight (3 dim, dim) of the projection, q scaled for the softmax."""
        factor = np.ones((3 * self.dim, 1), np.float32)
        factor[: self.dim] = self.scale
        return np.asarray(self.qkv_weight * factor)

    def query_bias(self) -> F32:
        """Bias (dim) of q, scaled; k and v need none, see the module's text."""
        return np.asarray(self.qkv_bias[: self.dim] * np.float32(self.scale))

    def output_bias(self) -> F32:
        """Bias (dim) of the output projection with what the bias of v adds."""
        moved = self.proj_weight.astype(np.float64) @ self.qkv_bias[2 * self.dim :]
        return np.asarray(self.proj_bias + moved, np.float32)


class AttentionWriter:
    """Emits attention layers into one graph; they share the position codes of their keys.

    With `tiled`, attention whose scores take more than 4 MiB per head is emitted in tiles.
    """

    def __init__(self, g: GraphBuilder, *, tiled: bool = False) -> None:
        self.g, self.tiled = g, tiled
        self._codes: dict[tuple[int, int, Size], str] = {}

    def emit(self, x: str, attn: Attention, cut: Windows) -> str:
        """Attention within each window; x and the result are tokens (1, h * w, dim)."""
        g, dim = self.g, attn.dim
        y = g.shape(self._qkv(x, attn), [*cut.grid, 3 * dim])
        bands = []
        for down in spans(cut.grid[0], cut.window[0]):
            parts = [
                self._part(y, attn, cut, down, across)
                for across in spans(cut.grid[1], cut.window[1])
            ]
            bands.append(concat(g, parts, axis=1))
        tokens = g.shape(concat(g, bands, axis=0), [1, cut.grid[0] * cut.grid[1], dim])
        with g.scope("proj"):
            return g.linear(tokens, attn.proj_weight, attn.output_bias())

    def _qkv(self, x: str, attn: Attention) -> str:
        """Tokens (1, n, 3 dim): q, with its bias and scaled for the softmax, k and v without."""
        bias = np.zeros(3 * attn.dim, np.float32)
        bias[: attn.dim] = attn.query_bias()
        with self.g.scope("qkv"):
            return self.g.linear(x, attn.scaled_weight(), bias)

    def _part(self, y: str, attn: Attention, cut: Windows, down: Span, across: Span) -> str:
        """Attention in windows of one extent; y (h, w, 3 dim) to (rows, columns, dim) of tokens."""
        g, heads, d = self.g, attn.heads, attn.head_dim
        if (down.end - down.start, across.end - across.start) != cut.grid:
            bounds = ([down.start, across.start], [down.end, across.end], [0, 1])
            y = g.op("Slice", y, *(g.constant(v, "int64") for v in bounds))
        y = g.shape(y, [down.count, down.size, across.count, across.size, 3, heads, d])
        y = g.op("Transpose", y, perm=[4, 0, 2, 5, 1, 3, 6])
        shape = [down.count * across.count, heads, down.size, across.size, d]
        q, k, v = (g.shape(part, shape) for part in g.split_op("Split", 3, y, axis=0))
        spare = [cut.window[0] - down.size, cut.window[1] - across.size]
        if any(spare):
            pads = g.constant([0] * 7 + [*spare, 0], "int64")
            k, v = g.op("Pad", k, pads), g.op("Pad", v, pads)
        mixed = self._mix(q, k, v, attn, shape[:4], cut.window)
        mixed = g.shape(mixed, [down.count, across.count, heads, down.size, across.size, d])
        mixed = g.op("Transpose", mixed, perm=[0, 3, 1, 4, 2, 5])
        return g.shape(mixed, [down.end - down.start, across.end - across.start, attn.dim])

    def _mix(
        self, q: str, k: str, v: str, attn: Attention, queries: list[int], window: Size
    ) -> str:
        """Values mixed by attention, (windows, heads, rows * columns of queries, d).

        q is (windows, heads, rows, columns, d), the first four of them in `queries`; k and v have
        rows and columns of the whole window.
        """
        g = self.g
        count, heads, rows, columns = queries
        keys = window[0] * window[1]
        step = tile_rows(rows, columns * keys * 4, SCORE_TILE_BYTES)
        if self.tiled and step < rows:
            return self._mix_tiled(q, k, v, attn, queries, window, rows // step)
        if attn.tables is not None:
            along_h, along_w = relative(g, q, attn, attn.tables, (rows, columns))
            with g.scope("rel_pos"):
                q = g.op("Concat", q, along_h, along_w, axis=-1)
                k = g.op("Concat", k, self._code(count, heads, window), axis=-1)
        q = g.shape(q, [count, heads, rows * columns, -1])
        k, v = (g.shape(part, [count, heads, keys, -1]) for part in (k, v))
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)

    def _mix_tiled(
        self, q: str, k: str, v: str, attn: Attention, queries: list[int], window: Size, tiles: int
    ) -> str:
        """As `_mix`, one head and rows / tiles rows of queries at a time."""
        g = self.g
        count, heads, rows, columns = queries
        keys, size = window[0] * window[1], rows * columns // tiles
        parts: list[list[str]] = []
        if attn.tables is not None:
            along_h, along_w = relative(g, q, attn, attn.tables, (rows, columns))
            shapes = [[count, heads, -1, window[0], 1], [count, heads, -1, 1, window[1]]]
            for bias, shape in zip((along_h, along_w), shapes, strict=True):
                parts.append(split(g, g.shape(bias, shape), heads, 1))
        q = g.shape(q, [count, heads, rows * columns, -1])
        k, v = (g.shape(part, [count, heads, keys, -1]) for part in (k, v))
        k = g.op("Transpose", k, perm=[0, 1, 3, 2])
        mixed = []
        by_head = zip(*(split(g, t, heads, 1) for t in (q, k, v)), *parts, strict=True)
        for q1, k1, v1, *biases in by_head:
            done = []
            for q2, *terms in zip(*(split(g, t, tiles, 2) for t in (q1, *biases)), strict=True):
                scores = g.op("MatMul", q2, k1)
                if terms:
                    scores = g.shape(scores, [count, 1, size, *window])
                    for term in terms:
                        scores = g.op("Add", scores, term)
                    scores = g.shape(scores, [count, 1, size, keys])
                done.append(g.op("MatMul", g.op("Softmax", scores, axis=-1), v1))
            mixed.append(concat(g, done, axis=2))
        return concat(g, mixed, axis=1)

    def _code(self, count: int, heads: int, window: Size) -> str:
        """[onehot(row), onehot(column)] of each key, (count, heads, h, w, h + w)."""
        key = (count, heads, window)
        if key not in self._codes:
            h, w = window
            row = np.broadcast_to(np.eye(h)[:, None], (h, w, h))
            column = np.broadcast_to(np.eye(w)[None], (h, w, w))
            code = self.g.constant(np.concatenate([row, column], -1)[None, None])
            spread = self.g.constant(np.zeros((count, heads, 1, 1, 1)))
            self._codes[key] = self.g.op("Add", code, spread)
        return self._codes[key]


def relative(
    g: GraphBuilder, q: str, attn: Attention, tables: tuple[F32, F32], queries: Size
) -> tuple[str, str]:
    """q.Rh and q.Rw of the module's text: (windows, heads, rows, columns, h) and (..., w)."""
    rows, columns = (
        relative_table(table, size, attn.scale) for table, size in zip(tables, queries, strict=True)
    )
    with g.scope("rel_pos"):
        along_h = g.op("MatMul", q, g.weight(rows))
        turned = g.op("Transpose", q, perm=[0, 1, 3, 2, 4])
        turned = g.op("MatMul", turned, g.weight(columns))
        return along_h, g.op("Transpose", turned, perm=[0, 1, 3, 2, 4])


def relative_table(table: F32, queries: int, scale: float) -> F32:
    """(2 n - 1, d) to (queries, d, n): [i, :, j] is row i - j + n - 1 of the table, over scale."""
    keys = (table.shape[0] + 1) // 2
    index = np.arange(queries)[:, None] - np.arange(keys)[None, :] + keys - 1
    return np.ascontiguousarray(table[index].transpose(0, 2, 1) / np.float32(scale))
