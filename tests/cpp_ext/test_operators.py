"""The operators of the CPU form, run by ONNX Runtime, against NumPy in float64."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from .nodes import close, noise, run

F32 = NDArray[np.float32]
ERF = np.vectorize(math.erf)


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = x * 0.5 * (1 + ERF(x / math.sqrt(2)))
    return out


def norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> NDArray[np.float64]:
    x = x.astype(np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    out: NDArray[np.float64] = x * gamma + (0 if beta is None else beta)
    return out


@pytest.mark.parametrize(
    ("rows", "k", "n"), [(1, 1, 1), (13, 7, 5), (12, 16, 33), (97, 64, 160), (200, 300, 31)]
)
@pytest.mark.parametrize("parts", ["", "bias", "bias gelu", "norm", "norm bias gelu residual"])
def test_linear(rows: int, k: int, n: int, parts: str) -> None:
    rng = np.random.default_rng(rows + n)
    x, w = noise(rng, 1, rows, k), noise(rng, k, n, scale=k**-0.5)
    bias = noise(rng, n) if "bias" in parts else None
    gamma = noise(rng, k) if "norm" in parts else None
    beta = noise(rng, k) if "norm" in parts and bias is not None else None
    more = noise(rng, 1, rows, n) if "residual" in parts else None
    value = x.astype(np.float64) if gamma is None else norm(x, gamma, beta, 1e-3)
    value = value @ w.astype(np.float64) + (0 if bias is None else bias)
    value = gelu(value) if "gelu" in parts else value
    value = value + (0 if more is None else more)
    got = run(
        "Linear", [x, w, bias, gamma, beta, more], epsilon=1e-3, gelu=int("gelu" in parts),
        norm=int("norm" in parts),
    )  # fmt: skip
    close(got, value, 1e-5 if k == 1 else 3e-6)


@pytest.mark.parametrize(("rows", "k", "hidden"), [(5, 8, 3), (49, 160, 640), (130, 48, 100)])
def test_mlp(rows: int, k: int, hidden: int) -> None:
    rng = np.random.default_rng(rows)
    x, gamma, beta = noise(rng, 1, rows, k), noise(rng, k), noise(rng, k)
    w1, b1 = noise(rng, k, hidden, scale=k**-0.5), noise(rng, hidden)
    w2, b2 = noise(rng, hidden, k, scale=hidden**-0.5), noise(rng, k)
    inside = gelu(norm(x, gamma, beta, 1e-6) @ w1.astype(np.float64) + b1)
    expected = x + inside @ w2.astype(np.float64) + b2
    close(run("Mlp", [x, gamma, beta, w1, b1, w2, b2], epsilon=1e-6), expected)


def by_integers(x: Any, weight: Any, scale: Any) -> NDArray[np.float64]:
    """x @ (weight * scale) with every row of x rounded to 127 steps of its largest value."""
    step = (np.abs(x).max(-1, keepdims=True) / np.float32(127)).astype(np.float32)
    whole = np.rint(x / np.where(step > 0, step, 1))
    out: NDArray[np.float64] = (whole @ weight.astype(np.float64)) * step * scale
    return out


def integers(rng: np.random.Generator, k: int, n: int) -> tuple[Any, F32]:
    weight = rng.integers(-127, 128, (k, n)).astype(np.int8)
    return weight, (rng.random(n) * k**-0.5 / 70).astype(np.float32)


@pytest.mark.parametrize(("rows", "k", "n"), [(1, 1, 1), (13, 7, 5), (97, 66, 33), (40, 300, 64)])
def test_linear_int8(rows: int, k: int, n: int) -> None:
    rng = np.random.default_rng(rows)
    x, bias, more = noise(rng, 1, rows, k), noise(rng, n), noise(rng, 1, rows, n)
    x[:, rows // 2] = 0
    weight, scale = integers(rng, k, n)
    expected = gelu(by_integers(x, weight, scale) + bias) + more
    close(run("LinearInt8", [x, weight, bias, None, None, more, scale], gelu=1), expected, 1e-5)
    gamma = noise(rng, k)
    expected = by_integers(norm(x, gamma, None, 1e-2).astype(np.float32), weight, scale)
    got = run("LinearInt8", [x, weight, None, gamma, None, None, scale], norm=1, epsilon=1e-2)
    step = float(np.abs(expected).max()) / 40  # a value between two integers may go either way
    assert float(np.abs(got - expected).max()) <= step


def test_mlp_int8_is_close_to_floats() -> None:
    rng = np.random.default_rng(5)
    k, hidden = 64, 900
    x, gamma, beta = noise(rng, 1, 70, k), noise(rng, k), noise(rng, k)
    (w1, s1), (w2, s2) = integers(rng, k, hidden), integers(rng, hidden, k)
    b1, b2 = noise(rng, hidden), noise(rng, k)
    expected = run("Mlp", [x, gamma, beta, w1 * s1, b1, w2 * s2, b2]) - x
    got = run("MlpInt8", [x, gamma, beta, w1, b1, w2, b2, s1, s2]) - x
    off = float(np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)))
    assert 1e-5 < off < 0.02


def test_mbconv_int8_is_close_to_floats() -> None:
    rng = np.random.default_rng(6)
    x, wd = noise(rng, 1, 20, 33, 16), noise(rng, 9, 40)
    (w1, s1), (w3, s3) = integers(rng, 16, 40), integers(rng, 40, 16)
    b1, bd, b3 = noise(rng, 40), noise(rng, 40), noise(rng, 16)
    expected = run("MbConv", [x, w1 * s1, b1, wd, bd, w3 * s3, b3], residual=1)
    got = run("MbConvInt8", [x, w1, b1, wd, bd, w3, b3, s1, s3], residual=1)
    off = float(np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)))
    assert 1e-5 < off < 0.02


def filtered(x: Any, weight: Any, bias: Any, stride: int) -> NDArray[np.float64]:
    """3 x 3 depthwise convolution of (1, H, W, C), zero padding."""
    padded = np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    high, wide = x.shape[1], x.shape[2]
    total = np.zeros((1, high, wide, x.shape[3])) + bias
    for tap in range(9):
        y, z = divmod(tap, 3)
        total += padded[:, y : y + high, z : z + wide] * weight[tap]
    return total[:, ::stride, ::stride]


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 16), (9, 7, 33), (16, 21, 64)])
def test_depthwise(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    x, weight, bias = noise(rng, 1, *shape), noise(rng, 9, shape[2]), noise(rng, shape[2])
    close(run("DepthwiseConv", [x, weight, bias]), filtered(x, weight, bias, 1))


@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (40, 37), (33, 130), (64, 64)])
@pytest.mark.parametrize("kind", ["residual", "plain", "halved"])
def test_mbconv(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(shape[0])
    c_in, mid, c_out = 24, 200, 24 if kind == "residual" else 17
    stride = 2 if kind == "halved" else 1
    x = noise(rng, 1, *shape, c_in)
    w1, b1 = noise(rng, c_in, mid, scale=0.2), noise(rng, mid)
    wd, bd = noise(rng, 9, mid, scale=0.3), noise(rng, mid)
    w3, b3 = noise(rng, mid, c_out, scale=0.07), noise(rng, c_out)
    inside = gelu(x.astype(np.float64) @ w1 + b1)
    expected = gelu(filtered(inside, wd, bd, stride)) @ w3.astype(np.float64) + b3
    if kind == "residual":
        expected = gelu(x + expected)
    got = run("MbConv", [x, w1, b1, wd, bd, w3, b3], stride=stride, residual=int(c_in == c_out))
    close(got, expected)


def halved(x: NDArray[np.float64], weight: Any, bias: Any) -> NDArray[np.float64]:
    """3 x 3 convolution of (1, H, W, K), stride 2, zero padding; weight (9, K, N)."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    high, wide = x.shape[1], x.shape[2]
    total = np.zeros((1, -(-high // 2), -(-wide // 2), weight.shape[2])) + bias
    for tap in range(9):
        y, z = divmod(tap, 3)
        total += padded[:, y : y + high : 2, z : z + wide : 2] @ weight[tap].astype(np.float64)
    return total


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 6, 5), (3, 77, 130), (4, 256, 33)])
@pytest.mark.parametrize("threads", [1, 3])
def test_stem(shape: tuple[int, int, int], threads: int) -> None:
    rng = np.random.default_rng(shape[1])
    image, middle, out = noise(rng, 1, *shape), 32, 40
    w1, b1 = noise(rng, 9, shape[0], middle, scale=0.2), noise(rng, middle)
    w2, b2 = noise(rng, 9, middle, out, scale=0.1), noise(rng, out)
    inside = gelu(halved(image.astype(np.float64).transpose(0, 2, 3, 1), w1, b1))
    close(run("Stem", [image, w1, b1, w2, b2], threads), halved(inside, w2, b2))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 3), (16, 16, 64), (37, 50, 33)])
def test_conv3x3(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(shape[0])
    x, weight = noise(rng, 1, *shape), noise(rng, 40, shape[2], 3, 3, scale=0.1)
    padded = np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = sum(
        padded[:, i : i + shape[0], j : j + shape[1]] @ weight[:, :, i, j].astype(np.float64).T
        for i in range(3)
        for j in range(3)
    )
    close(run("Conv3x3", [x, weight]), expected, 5e-6)
    np.testing.assert_array_equal(run("Conv3x3", [x, weight], 1), run("Conv3x3", [x, weight], 4))


def test_gelu_far_from_zero() -> None:
    """A product by the unit matrix, so that only the GELU rounds."""
    x = np.concatenate([np.linspace(-9, 9, 4001), [-1e30, -1e4, -50, -0.0, 50, 1e4, 1e30]])
    x = x.astype(np.float32)[None, :, None]
    got = run("Linear", [x, np.ones((1, 1), np.float32), np.zeros(1, np.float32)], gelu=1)
    off = np.abs(got - gelu(x.astype(np.float64)))
    assert float((off / np.maximum(np.abs(x), 1)).max()) < 4e-7
    assert not np.any(got[np.abs(x) < 30] > np.maximum(x[np.abs(x) < 30], 0) + 1e-6)


@pytest.mark.parametrize(("high", "wide", "masks"), [(1, 1, 1), (3, 5, 4), (2, 50, 3)])
def test_upscale_masks(high: int, wide: int, masks: int) -> None:
    rng = np.random.default_rng(high)
    n, c, middle, fine = 2, 24, 20, 6
    x, hyper = noise(rng, n, high * wide, c), noise(rng, n, masks, fine)
    w1, b1 = noise(rng, c, 4 * middle, scale=0.2), noise(rng, 4 * middle)
    w2, b2 = noise(rng, middle, 4 * fine, scale=0.2), noise(rng, 4 * fine)
    gamma, beta = noise(rng, middle), noise(rng, middle)
    y = (x @ w1.astype(np.float64) + b1).reshape(n, high, wide, 2, 2, middle)
    y = gelu(norm(y, gamma, beta, 1e-6)) @ w2.astype(np.float64) + b2
    y = gelu(y.reshape(n, high, wide, 2, 2, 2, 2, fine))
    # rows: token, first block, second block; columns likewise
    y = y.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, 4 * high * 4 * wide, fine)
    expected = (hyper @ y.transpose(0, 2, 1)).reshape(n, masks, 4 * high, 4 * wide)
    got = run("UpscaleMasks", [x, hyper, w1, b1, gamma, beta, w2, b2], feed=2, height=high,
              width=wide, epsilon=1e-6)  # fmt: skip
    close(got, expected)


def attention(
    qkv: F32, heads: int, grid: tuple[int, int], window: tuple[int, int], query_bias: Any,
    rows: Any, columns: Any, bias: Any,
) -> NDArray[np.float64]:  # fmt: skip
    """Straight from the definition: padding tokens are keys of zeros."""
    (h, w), (wh, ww) = grid, window
    dim = qkv.shape[-1] // 3
    d = dim // heads
    high, wide = -(-h // wh) * wh, -(-w // ww) * ww
    tokens = np.zeros((high, wide, 3, heads, d))
    tokens[:h, :w] = qkv.reshape(h, w, 3, heads, d)
    if query_bias is not None:
        tokens[:, :, 0] += query_bias.reshape(heads, d)
    out = np.zeros((high, wide, heads, d))
    for top in range(0, high, wh):
        for left in range(0, wide, ww):
            part = tokens[top : top + wh, left : left + ww]
            q, k, v = (part[:, :, i].transpose(2, 0, 1, 3) for i in range(3))
            scores = np.einsum("hiud,hjwd->hiujw", q, k)
            if rows is not None:
                scores += np.einsum("hiud,idj->hiuj", q, rows)[..., None]
                scores += np.einsum("hiud,udw->hiuw", q, columns)[:, :, :, None]
            scores = scores.reshape(heads, wh * ww, wh * ww)
            if bias is not None:
                scores += bias
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = scores @ v.reshape(heads, wh * ww, d)
            mixed = mixed.reshape(heads, wh, ww, d).transpose(1, 2, 0, 3)
            out[top : top + wh, left : left + ww] = mixed
    return out[:h, :w].reshape(1, h * w, dim)


@pytest.mark.parametrize(
    ("heads", "d", "grid", "window"),
    [
        (1, 3, (1, 1), (1, 1)), (2, 32, (7, 7), (7, 7)), (3, 16, (10, 9), (4, 4)),
        (2, 64, (20, 20), (14, 14)), (1, 32, (30, 40), (30, 40)), (2, 20, (33, 64), (33, 64)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("parts", ["", "relative", "query dense", "relative dense"])
def test_attention(
    heads: int, d: int, grid: tuple[int, int], window: tuple[int, int], parts: str
) -> None:
    if "dense" in parts and grid[0] > 30:
        pytest.skip("a large table")
    rng = np.random.default_rng(d)
    dim, keys = heads * d, window[0] * window[1]
    qkv = noise(rng, 1, grid[0] * grid[1], 3 * dim, scale=d**-0.25)
    qkv[..., :7] *= 5  # scores of very different size
    bias = noise(rng, heads, keys, keys) if "dense" in parts else None
    query = noise(rng, dim) if "query" in parts else None
    rows = columns = None
    if "relative" in parts:
        rows = noise(rng, window[0], d, window[0])
        columns = noise(rng, window[1], d, window[1])
    got = run(
        "Attention", [qkv, query, rows, columns, bias], heads=heads, grid_h=grid[0],
        grid_w=grid[1], window_h=window[0], window_w=window[1],
    )  # fmt: skip
    close(got, attention(qkv, heads, grid, window, query, rows, columns, bias), 1e-5)


def test_scores_far_apart_do_not_overflow() -> None:
    rng = np.random.default_rng(0)
    qkv = noise(rng, 1, 1200, 3 * 8, scale=9.0)
    got = run("Attention", [qkv], heads=1, grid_h=30, grid_w=40, window_h=30, window_w=40)
    expected = attention(qkv, 1, (30, 40), (30, 40), None, None, None, None)
    assert np.isfinite(got).all()
    close(got, expected, 1e-4)


def test_the_same_whatever_the_threads() -> None:
    rng = np.random.default_rng(1)
    qkv = noise(rng, 1, 33 * 64, 3 * 32)
    kind = {"heads": 2, "grid_h": 33, "grid_w": 64, "window_h": 33, "window_w": 64}
    np.testing.assert_array_equal(
        run("Attention", [qkv], threads=1, **kind), run("Attention", [qkv], threads=4, **kind)
    )


MBCONV = [(1, 3, 3, 4), (4, 8), (8,), (9, 8), (8,), (8, 5), (5,)]


def layout(grid_h: int, grid_w: int, window_h: int, window_w: int) -> dict[str, int]:
    return {
        "heads": 1, "grid_h": grid_h, "grid_w": grid_w, "window_h": window_h, "window_w": window_w
    }  # fmt: skip


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "message"),
    [
        ("Linear", [(1, 4, 5), (6, 3)], {}, "channels"),
        ("Linear", [(1, 4, 6), (6, 3), (4,)], {}, "bias has 4"),
        ("Linear", [(1, 4, 6), (6, 3, 1)], {}, "matrix"),
        ("Attention", [(1, 4, 6)], {"heads": 1, "grid_h": 3, "grid_w": 1}, "missing"),
        ("Attention", [(1, 4, 6)], layout(3, 1, 1, 1), "qkv"),
        ("Attention", [(1, 4, 6)], layout(2, 2, 3, 1), "larger"),
        ("DepthwiseConv", [(4, 6), (9, 6), (6,)], {}, "H, W, C"),
        ("MbConv", MBCONV, {"residual": 1}, "residual"),
        ("Conv3x3", [(1, 4, 4, 3), (5, 4, 3, 3)], {}, "channels"),
        ("Conv3x3", [(1, 4, 4, 3), (5, 3, 3, 1)], {}, "N, C, 3, 3"),
        ("Stem", [(1, 2, 8, 8), (9, 3, 4), (4,), (9, 4, 5), (5,)], {}, "C, H, W"),
        ("Stem", [(1, 3, 8, 8), (9, 3, 4), (4,), (9, 3, 5), (5,)], {}, "9, M, N"),
        ("MbConv", MBCONV, {"stride": 3}, "stride"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error(
    op: str, shapes: list[tuple[int, ...]], attributes: dict[str, int], message: str
) -> None:
    values: list[F32 | None] = [np.ones(shape, np.float32) for shape in shapes]
    with pytest.raises(Exception, match=message):
        run(op, values, **attributes)


@pytest.mark.parametrize("table", ["baseline", "avx2", "avx512", "vnni"])
def test_every_instruction_set(table: str) -> None:
    """The other tables; what this processor lacks falls back to the next one."""
    if os.environ.get("SAMRT_OPS_KERNELS"):
        pytest.skip("runs inside itself")
    tests = "fine or image or rows or upscale or stem or conv3x3 or gelu or int8 or linear or mlp"
    tests += " or depthwise or mbconv or attention"
    more = ("test_decoder_operators.py", "test_fine_operators.py")
    files = [__file__, *(str(Path(__file__).with_name(name)) for name in more)]
    again = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", "-k", tests, *files]
    done = subprocess.run(
        [sys.executable, *again],
        env={**os.environ, "SAMRT_OPS_KERNELS": table}, capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
