"""The NumPy twin of the operators: cases that can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from samrt import reference_operators as plain


def single(values: Any) -> Any:
    return np.asarray(values, np.float32)


def test_gelu_is_the_exact_one() -> None:
    found = plain.gelu(single([-10.0, -1.0, 0.0, 1.0, 10.0]))
    one = 0.5 * (1 + math.erf(math.sqrt(0.5)))
    np.testing.assert_allclose(found, [0.0, one - 1.0, 0.0, one, 10.0], atol=1e-12)


def test_linear_applies_norm_product_bias_gelu_and_residual_in_this_order() -> None:
    x = single([[1.0, 3.0]])  # mean 2, spread 1: the norm gives -1 and 1
    weight, bias = single([[1.0, 0.0], [0.0, 2.0]]), single([0.0, 1.0])
    gamma, beta = single([1.0, 2.0]), single([0.5, 0.0])
    normed = plain.linear(x, weight, bias, gamma, beta, norm=True)
    np.testing.assert_allclose(normed, [[-0.5, 5.0]])
    full = plain.linear(
        x, weight, bias, gamma, None, single([[7.0, 9.0]]), norm=True, gelu_after=True
    )
    wanted = single([[7.0, 9.0]]) + plain.gelu(single([[-1.0, 5.0]]))
    np.testing.assert_allclose(full, wanted, rtol=1e-6)
    assert full.dtype == np.float32
    with pytest.raises(ValueError, match="needs its gamma"):
        plain.linear(x, weight, norm=True)


def test_mlp_adds_its_input() -> None:
    x, ones, zeros = single([[1.0, 3.0]]), single([1.0, 1.0]), single([0.0, 0.0])
    w1, w2 = np.eye(2, dtype=np.float32), single([[1.0, 1.0], [0.0, 1.0]])
    found = plain.mlp(x, ones, zeros, w1, zeros, w2, single([0.25, 0.0]), epsilon=0.0)
    hidden = plain.gelu(single([-1.0, 1.0]))
    np.testing.assert_allclose(found, x + hidden @ w2 + [0.25, 0.0], rtol=1e-6)


def test_stem_counts_the_pixels_inside() -> None:
    image = np.ones((1, 1, 4, 8), np.float32)
    ones, zero = np.ones((9, 1, 1), np.float32), np.zeros(1, np.float32)
    found = plain.stem(image, ones, zero, ones, zero)
    assert found.shape == (1, 1, 2, 1)
    inside = plain.gelu(single([[4.0, 6.0, 6.0, 6.0], [6.0, 9.0, 9.0, 9.0]]))
    np.testing.assert_allclose(found[0, 0, :, 0], [inside[:, :2].sum(), inside[:, 1:].sum()])


def test_conv3x3_has_its_taps_row_by_row() -> None:
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1] = 1.0
    weight = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    found = plain.conv3x3(x, weight)
    np.testing.assert_array_equal(found[0, :, :, 0], weight[0, 0, ::-1, ::-1])


def attend(qkv: Any, grid: tuple[int, int], window: tuple[int, int], *more: Any) -> Any:
    return plain.attention(
        single(qkv), *more, heads=1, grid_h=grid[0], grid_w=grid[1], window_h=window[0],
        window_w=window[1],
    )  # fmt: skip


def test_attention_of_equal_scores_is_the_mean_of_a_window() -> None:
    qkv = np.zeros((1, 4, 3))
    qkv[0, :, 2] = [1.0, 3.0, 10.0, 20.0]
    found = attend(qkv, (1, 4), (1, 2))
    np.testing.assert_allclose(found[0, :, 0], [2.0, 2.0, 15.0, 15.0])


def test_tokens_past_the_edge_are_keys_that_are_zero() -> None:
    qkv = np.zeros((1, 1, 3, 3))
    qkv[..., 2] = [6.0, 12.0, 8.0]
    found = attend(qkv, (1, 3), (2, 2))
    assert found.shape == (1, 1, 3, 1)
    np.testing.assert_allclose(found[0, 0, :, 0], [18 / 4, 18 / 4, 8 / 4])


def test_terms_of_position_and_the_bias_of_the_query() -> None:
    """Query 1; the key in the other column, row or place of the bias is e, e^2, e^3 as likely."""
    qkv = np.zeros((1, 4, 3))
    qkv[0, :, 2] = [1.0, 10.0, 100.0, 1000.0]
    one = single([1.0])  # the query itself is 0: without its bias no term would count
    rows, columns = np.zeros((2, 1, 2)), np.zeros((2, 1, 2))
    rows[0, 0, 1], columns[0, 0, 1] = 2.0, 1.0
    e = math.e
    weights = np.array([1.0, e, e**2, e**3])
    found = attend(qkv, (2, 2), (2, 2), one, single(rows), single(columns))
    assert found[0, 0, 0] == pytest.approx(float(weights @ qkv[0, :, 2] / weights.sum()), rel=1e-6)
    bias = np.zeros((1, 4, 4))
    bias[0, 3, 0] = 3.0
    found = attend(qkv, (2, 2), (2, 2), None, None, None, single(bias))
    likely = np.array([e**3, 1.0, 1.0, 1.0])
    assert found[0, 3, 0] == pytest.approx(float(likely @ qkv[0, :, 2] / likely.sum()), rel=1e-6)


def test_taps_of_the_depthwise_convolution_go_row_by_row() -> None:
    x = single(np.arange(6).reshape(1, 2, 3, 1))
    weight = np.zeros((9, 1))
    weight[5] = 1.0  # the right neighbour
    found = plain.depthwise_conv(x, single(weight), single([0.5]))
    np.testing.assert_allclose(found[0, :, :, 0], [[1.5, 2.5, 0.5], [4.5, 5.5, 0.5]])


def test_the_image_takes_from_the_tokens_what_the_weights_say() -> None:
    """One position, one head of two equal tokens, a further row; the norm leaves -1 and 1."""
    image, codes = single([[[0.0, 1.0]]]), single([[[10.0, 20.0]]])
    side = single([[[[1.0]]]])
    values = single([[[4.0, 0.0], [8.0, 0.0]]])  # mean (6, 0)
    keys, queries = single([[[[3.0], [3.0]]]]), single([[[1.0, 1.0]]])
    one, zero = single([1.0, 1.0]), single([0.0, 0.0])
    mask = [single([1.0]), single([[[2.0]]]), single([[[0.0], [0.0]]]), single([[0.0, 5.0]])]
    found = plain.image_pass(
        image, codes, one, zero, values, queries, keys, None, side, *mask, heads=1, epsilon=0.0
    )  # (0 + 6, 1 + 2 * 5)
    np.testing.assert_allclose(found[0], [[[-1.0, 1.0]]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [[[-1.0, 1.0]]], rtol=1e-6)  # one position: all of it
    mask[0] = single([0.0])
    alone = plain.image_pass(
        image, codes, one, zero, values, queries, keys, None, side, *mask, heads=1, epsilon=0.0
    )  # (0 + 6, 1)
    np.testing.assert_allclose(alone[0], [[[1.0, -1.0]]], rtol=1e-6)


def test_a_later_pass_scores_the_image_with_its_codes() -> None:
    """Scores 1 * (0 + 2) + 3 and 0: a token's share is e^5 : 1; then two positions are read."""
    image, codes = single([[[0.0, 0.0], [0.0, 0.0]]]), single([[[2.0, 0.0], [0.0, 0.0]]])
    keys, offset = single([[[1.0, 0.0], [0.0, 0.0]]]), single([[[3.0], [0.0]]])
    values = single([[[1.0, 0.0], [0.0, 1.0]]])
    one, zero = single([1.0, 1.0]), single([0.0, 0.0])
    queries = single([[[np.log(3.0) / 2, 0.0]]])
    y, seen = plain.image_pass(
        image, codes, one, zero, values, queries, keys, offset, heads=1, epsilon=0.0
    )
    # Position 0 has e^5 : 1, position 1 e^3 : 1: the norm makes (1, -1) of both.
    np.testing.assert_allclose(y, [[[1.0, -1.0], [1.0, -1.0]]], rtol=1e-6)
    np.testing.assert_allclose(seen, [[[1.0, -1.0]]], rtol=1e-6)


def test_tokens_read_the_image_and_what_a_mask_adds() -> None:
    queries, keys = single([[[[1.0]]]]), single([[[[np.log(3.0), 0.0]]]])
    values = single([[[[4.0], [8.0]]]])
    np.testing.assert_allclose(plain.read_image(queries, keys, values), [[[[5.0]]]], rtol=1e-6)
    mask = [single([1.0]), single([[[0.0, 1.0]]]), single([[[np.log(3.0)]]]), single([[[100.0]]])]
    found = plain.read_image(queries, keys, values, *mask)  # equal shares of 4 and 108
    np.testing.assert_allclose(found, [[[[56.0]]]], rtol=1e-6)
    none = plain.read_image(queries, keys, values, single([0.0]), *mask[1:])
    np.testing.assert_allclose(none, [[[[5.0]]]], rtol=1e-6)


def test_rows_of_a_mask_prompt_follow_its_patches() -> None:
    """Of two channels the norm keeps which one is larger; one pixel decides, at its place alone."""
    masks = single(np.zeros((1, 1, 8, 8)))
    masks[0, 0, 2, 1] = 1.0  # upper right in its patch, which is the lower left of four
    w1, w2 = single(np.zeros((4, 2))), single(np.zeros((8, 2)))
    w1[1, 0] = w2[4, 0] = 1.0
    one, zero = single([1.0, 1.0]), single([0.0, 0.0])
    inputs = [w1, single([0.0, 0.5]), one, zero, w2, single([0.0, 0.3]), one, zero]
    rows = plain.mask_rows(masks, single([1.0]), *inputs, epsilon=1e-12)
    high, low = 0.8413447, -0.1586553  # gelu(1), gelu(-1)
    np.testing.assert_allclose(rows[0, 0], [high, low, low, low], rtol=1e-5)
    np.testing.assert_allclose(rows[0, 1], [low, high, high, high], rtol=1e-5)
    np.testing.assert_array_equal(rows[0, 2], 1.0)
    assert not plain.mask_rows(masks, single([0.0]), *inputs, epsilon=1e-12).any()


def test_masks_are_put_together_from_blocks_of_blocks() -> None:
    """Every pixel of a token's 4 x 4 block carries its own number to the right place."""
    x = single([[[1.0], [2.0]]])  # one row of two tokens
    w1, b1 = single(np.zeros((1, 8))), single([50.0, -50.0, 60.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    ones, zeros = single([1.0, 1.0]), single([0.0, 0.0])
    w2, b2 = single(np.zeros((2, 4))), single([10.0, 20.0, 30.0, 40.0])
    masks = plain.upscale_masks(
        x, single([[[1.0], [-2.0]]]), w1, b1, ones, zeros, w2, b2, height=1, width=2, epsilon=1e-6
    )
    assert masks.shape == (1, 2, 4, 8)
    block = [[10.0, 20.0], [30.0, 40.0]]
    np.testing.assert_allclose(masks[0, 0], np.tile(block, (2, 4)), rtol=1e-6)
    np.testing.assert_allclose(masks[0, 1], -2.0 * masks[0, 0])
    # A token's value reaches its own half; the first block's number its own 2 x 2 pixels.
    w1, w2 = single([[1.0, 0.0] * 4]), single([[1.0] * 4, [0.0] * 4])
    b1 = single([0.0, 1.5, 0.0, 1.5, 0.0, 1.5, 0.0, 1.5])
    masks = plain.upscale_masks(
        x, single([[[1.0]]]), w1, b1, ones, zeros, w2, single(np.zeros(4)), height=1, width=2,
        epsilon=1e-6,
    )  # fmt: skip
    left, right = masks[0, 0, :, :4], masks[0, 0, :, 4:]
    assert len(set(left.ravel().tolist())) == len(set(right.ravel().tolist())) == 1
    assert left[0, 0] < 0.0 < right[0, 0]


@pytest.mark.parametrize(("stride", "size"), [(1, (5, 4)), (2, (3, 2))])
def test_the_bottleneck_strides_and_adds(stride: int, size: tuple[int, int]) -> None:
    x = single(np.random.default_rng(0).standard_normal((1, 5, 4, 2)))
    eye, zeros = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    middle = np.zeros((9, 2), np.float32)
    middle[4] = 1.0
    weights = (eye, zeros, middle, zeros, eye, zeros)
    found = plain.mb_conv(x, *weights, stride=stride, residual=False)
    assert found.shape == (1, *size, 2)
    wanted = plain.gelu(plain.gelu(x))[:, ::stride, ::stride]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    if stride == 1:
        added = plain.mb_conv(x, *weights, stride=1, residual=True)
        np.testing.assert_allclose(added, plain.gelu(x + wanted), rtol=1e-5, atol=1e-6)
