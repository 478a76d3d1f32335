from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from samrt_export.checkpoint import CheckpointError, merge_lora, merge_wrapped_lora

State = dict[str, torch.Tensor]
DIM, DEPTH, RANK, LAYERS = 6, 3, 2, 2
QKV = "image_encoder.blocks.{}.attn.qkv.weight"


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def base(rng: torch.Generator) -> State:
    state: State = {"image_encoder.pos_embed": torch.randn(1, 4, 4, DIM, generator=rng)}
    for k in range(DEPTH):
        state[QKV.format(k)] = torch.randn(3 * DIM, DIM, generator=rng)
        state[QKV.format(k).replace("weight", "bias")] = torch.randn(3 * DIM, generator=rng)
        state[f"image_encoder.blocks.{k}.mlp.lin1.weight"] = torch.randn(8, DIM, generator=rng)
    state["image_encoder.neck.0.weight"] = torch.randn(4, DIM, 1, 1, generator=rng)
    state["prompt_encoder.no_mask_embed.weight"] = torch.randn(1, 4, generator=rng)
    for k in range(LAYERS):
        for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            for leaf in ("q_proj", "k_proj", "v_proj"):
                name = f"mask_decoder.transformer.layers.{k}.{part}.{leaf}.weight"
                state[name] = torch.randn(4, 5, generator=rng)
    for leaf in ("q_proj", "v_proj"):
        name = f"mask_decoder.transformer.final_attn_token_to_image.{leaf}.weight"
        state[name] = torch.randn(4, 5, generator=rng)
    state["mask_decoder.mask_tokens.weight"] = torch.randn(4, 4, generator=rng)
    for k in range(4):
        state[f"mask_decoder.output_hypernetworks_mlps.{k}.weight"] = torch.ones(2) * k
    return state


@pytest.fixture
def flat(rng: torch.Generator) -> State:
    state: State = {}
    for k in range(2 * DEPTH):
        state[f"w_a_{k:03d}"] = torch.randn(RANK, DIM, generator=rng)
        state[f"w_b_{k:03d}"] = torch.randn(DIM, RANK, generator=rng)
    return state


def lora_qkv(base: State, flat: State, block: int, x: torch.Tensor) -> torch.Tensor:
    """What a block computes with its adapters beside it, as SAMed runs it."""
    out = F.linear(x, base[QKV.format(block)])
    q = x @ flat[f"w_a_{2 * block:03d}"].T @ flat[f"w_b_{2 * block:03d}"].T
    v = x @ flat[f"w_a_{2 * block + 1:03d}"].T @ flat[f"w_b_{2 * block + 1:03d}"].T
    return out + torch.cat([q, torch.zeros_like(q), v], -1)


def test_flat_layout_is_q_and_v_of_each_block(
    base: State, flat: State, rng: torch.Generator
) -> None:
    merged = merge_lora(base, flat)
    assert list(merged) == list(base)
    x = torch.randn(5, DIM, generator=rng)
    for k in range(DEPTH):
        weight = merged[QKV.format(k)]
        assert weight.dtype == torch.float32
        torch.testing.assert_close(F.linear(x, weight), lora_qkv(base, flat, k, x))
        assert torch.equal(weight[DIM : 2 * DIM], base[QKV.format(k)][DIM : 2 * DIM])
        assert not torch.allclose(weight[:DIM], base[QKV.format(k)][:DIM])
    changed = {QKV.format(k) for k in range(DEPTH)}
    assert all(merged[name] is tensor for name, tensor in base.items() if name not in changed)


def test_nothing_is_changed_in_place(base: State, flat: State) -> None:
    before = {name: tensor.clone() for name, tensor in {**base, **flat}.items()}
    merge_lora(base, flat)
    assert all(torch.equal({**base, **flat}[name], tensor) for name, tensor in before.items())


def test_half_precision_is_merged_in_float64(base: State, flat: State) -> None:
    exact = merge_lora(base, flat)[QKV.format(0)]
    half = merge_lora({**base, QKV.format(0): base[QKV.format(0)].half()}, flat)[QKV.format(0)]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=4e-3, rtol=0)
    assert not torch.equal(half, half.half().float())


def test_alpha_scales_a_flat_adapter(base: State, flat: State) -> None:
    name = QKV.format(1)
    once = merge_lora(base, flat)[name] - base[name]
    scaled = merge_lora(base, flat, alpha=3.0 * RANK)[name] - base[name]
    torch.testing.assert_close(scaled, 3 * once, atol=1e-5, rtol=1e-5)


def test_modules_of_samed_replace_the_bases(base: State, flat: State) -> None:
    carried = {
        "prompt_encoder.no_mask_embed.weight": torch.zeros(1, 4),
        "mask_decoder.mask_tokens.weight": torch.zeros(9, 4),
        **{f"mask_decoder.output_hypernetworks_mlps.{k}.weight": torch.zeros(2) for k in range(9)},
    }
    merged = merge_lora(base, {**flat, **carried})
    assert all(merged[name] is tensor for name, tensor in carried.items())
    transformer = [name for name in base if name.startswith("mask_decoder.transformer.")]
    assert all(merged[name] is base[name] for name in transformer)
    fewer = {"mask_decoder.mask_tokens.weight": torch.zeros(2, 4)}
    merged = merge_lora(base, {**flat, **fewer})
    assert not any("output_hypernetworks_mlps" in name for name in merged)
    assert "prompt_encoder.no_mask_embed.weight" in merged


def test_adapters_of_the_mask_decoder(base: State, flat: State, rng: torch.Generator) -> None:
    pairs: State = {}
    parts = {"sa": "self_attn", "cti": "cross_attn_token_to_image",
             "cit": "cross_attn_image_to_token"}  # fmt: skip
    for kind in parts:
        for k in range(2 * LAYERS):
            pairs[f"{kind}_a_{k:03d}"] = torch.randn(RANK, 5, generator=rng)
            pairs[f"{kind}_b_{k:03d}"] = torch.randn(4, RANK, generator=rng)
    for leaf in "qv":
        pairs[f"fati_{leaf}a"] = torch.randn(RANK, 5, generator=rng)
        pairs[f"fati_{leaf}b"] = torch.randn(4, RANK, generator=rng)
    merged = merge_lora(base, {**flat, **pairs})
    for kind, part in parts.items():
        for k in range(2 * LAYERS):
            name = f"mask_decoder.transformer.layers.{k // 2}.{part}.{'qv'[k % 2]}_proj.weight"
            want = base[name] + pairs[f"{kind}_b_{k:03d}"] @ pairs[f"{kind}_a_{k:03d}"]
            torch.testing.assert_close(merged[name], want)
    name = "mask_decoder.transformer.final_attn_token_to_image.v_proj.weight"
    torch.testing.assert_close(merged[name], base[name] + pairs["fati_vb"] @ pairs["fati_va"])
    name = "mask_decoder.transformer.layers.0.self_attn.k_proj.weight"
    assert merged[name] is base[name]


def peft(base: State, rng: torch.Generator, paths: list[str], leaf: str = "{}.weight") -> State:
    state: State = {}
    for path, out, into in [(p.split(":")[0], *map(int, p.split(":")[1:])) for p in paths]:
        state[f"{path}.lora_{leaf.format('A')}"] = torch.randn(RANK, into, generator=rng)
        state[f"{path}.lora_{leaf.format('B')}"] = torch.randn(out, RANK, generator=rng)
    return state


@pytest.mark.parametrize("leaf", ["{}.weight", "{}.default.weight"])
@pytest.mark.parametrize("start", ["base_model.model.image_encoder.", "base_model.model.",
                                   "image_encoder."])  # fmt: skip
def test_peft_on_whole_layers(base: State, rng: torch.Generator, start: str, leaf: str) -> None:
    at = f"{start}blocks.1."
    adapter = peft(base, rng, [f"{at}attn.qkv:18:6", f"{at}mlp.lin1:8:6"], leaf)
    merged = merge_lora(base, adapter, alpha=4.0)
    for path in ("attn.qkv", "mlp.lin1"):
        name = f"image_encoder.blocks.1.{path}.weight"
        a = adapter[f"{at}{path}.lora_{leaf.format('A')}"]
        b = adapter[f"{at}{path}.lora_{leaf.format('B')}"]
        torch.testing.assert_close(merged[name], base[name] + 4.0 / RANK * b @ a)
    assert merged[QKV.format(0)] is base[QKV.format(0)]


def test_peft_on_q_and_v(base: State, flat: State) -> None:
    adapter: State = {}
    for k in range(2 * DEPTH):
        path = f"base_model.model.image_encoder.blocks.{k // 2}.attn.{'qv'[k % 2]}"
        adapter[f"{path}.lora_A.weight"] = flat[f"w_a_{k:03d}"]
        adapter[f"{path}.lora_B.weight"] = flat[f"w_b_{k:03d}"]
    merged, other = merge_lora(base, adapter, alpha=float(RANK)), merge_lora(base, flat)
    assert set(merged) == set(other) == set(base)
    for name, tensor in other.items():
        assert torch.equal(merged[name], tensor)


def test_peft_modules_saved_along(base: State, rng: torch.Generator) -> None:
    adapter = peft(base, rng, ["base_model.model.image_encoder.blocks.0.attn.qkv:18:6"])
    tokens = torch.zeros(4, 4)
    for name in ("mask_decoder.mask_tokens.weight",
                 "mask_decoder.mask_tokens.modules_to_save.default.weight"):  # fmt: skip
        merged = merge_lora(base, {**adapter, f"base_model.model.{name}": tokens}, alpha=1.0)
        assert merged["mask_decoder.mask_tokens.weight"] is tokens
        assert list(merged) == list(base)


def test_peft_needs_alpha(base: State, rng: torch.Generator) -> None:
    adapter = peft(base, rng, ["image_encoder.blocks.0.attn.qkv:18:6"])
    with pytest.raises(CheckpointError, match=r"give alpha, .*adapter_config\.json"):
        merge_lora(base, adapter)


@pytest.mark.parametrize(
    ("inner", "linear"), [("qkv", "linear_{}_{}"), ("qkv_proj", "w_{}_linear_{}")]
)
def test_adapters_saved_inside_the_model(base: State, flat: State, inner: str, linear: str) -> None:
    state: State = {}
    for name, tensor in base.items():
        state[name.replace(".attn.qkv.", f".attn.qkv.{inner}.")] = tensor
    for k in range(2 * DEPTH):
        for which in "ab":
            leaf = linear.format(which, "qv"[k % 2])
            name = f"image_encoder.blocks.{k // 2}.attn.qkv.{leaf}.weight"
            state[name] = flat[f"w_{which}_{k:03d}"]
    merged, wanted = merge_wrapped_lora(state), merge_lora(base, flat)
    assert list(merged) == list(wanted)
    assert all(torch.equal(merged[name], tensor) for name, tensor in wanted.items())


def test_peft_saved_inside_the_model(base: State, rng: torch.Generator) -> None:
    at = "base_model.model.image_encoder.blocks.0.attn.qkv"
    adapter = peft(base, rng, [f"{at}:18:6"], "{}.default.weight")
    state = {f"base_model.model.{name}": tensor for name, tensor in base.items()}
    for leaf in ("weight", "bias"):
        state[f"{at}.base_layer.{leaf}"] = state.pop(f"{at}.{leaf}")
    wanted = merge_lora(base, adapter, alpha=2.0)
    merged = merge_wrapped_lora({**state, **adapter}, alpha=2.0)
    assert set(merged) == set(wanted)
    assert all(torch.equal(merged[name], tensor) for name, tensor in wanted.items())
    with pytest.raises(CheckpointError, match="give alpha"):
        merge_wrapped_lora({**state, **adapter})


def refused(base: State, adapter: State, match: str, alpha: float | None = None) -> str:
    with pytest.raises(CheckpointError, match=match) as caught:
        merge_lora(base, adapter, alpha=alpha)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_number_of_blocks(base: State, flat: State) -> None:
    del flat["w_a_005"], flat["w_b_005"]
    refused(base, flat, r"5 pairs w_a, w_b for 3 blocks of the base, expected 6")
    refused(base, {**flat, "w_a_007": torch.ones(2, 6), "w_b_007": torch.ones(6, 2)}, "6 pairs")
    refused({}, flat, "5 pairs w_a, w_b for 0 blocks")


def test_half_a_pair(base: State, flat: State) -> None:
    del flat["w_b_003"]
    refused(base, flat, "w_003 has A without its counterpart")
    adapter = {"image_encoder.blocks.0.attn.qkv.lora_B.weight": torch.ones(18, 2)}
    refused(base, adapter, r"attn\.qkv\.lora_B is without its counterpart", 1.0)


def test_ranks_and_shapes_that_do_not_fit_are_all_listed(base: State, flat: State) -> None:
    flat["w_a_000"] = torch.ones(RANK + 1, DIM)
    flat["w_b_001"] = torch.ones(DIM + 1, RANK)
    flat["w_a_002"] = torch.ones(RANK, DIM, 1)
    text = refused(base, flat, "adapter does not fit the base model")
    assert "w_000 has rank 3 in A and 2 in B" in text
    assert "w_001 makes 7x6, but image_encoder.blocks.0.attn.qkv.weight takes 6x6" in text
    assert "w_002 is not a pair of matrices" in text


def test_a_wider_model(base: State, flat: State) -> None:
    wide = {name: torch.ones(24, 8) if "qkv.weight" in name else t for name, t in base.items()}
    refused(wide, flat, r"w_000 makes 6x6, but .* takes 8x8")


def test_unknown_tensors(base: State, flat: State, rng: torch.Generator) -> None:
    refused(base, {**flat, "w_c_000": torch.ones(1)}, "unknown tensor w_c_000")
    refused(base, {}, "0 pairs w_a, w_b for 3 blocks")
    at = "base_model.model.image_encoder.blocks.0.attn."
    good = peft(base, rng, [f"{at}qkv:18:6"])
    refused(base, {**good, f"{at}qkv.lora_magnitude_vector": torch.ones(18)},
            "unknown tensor .*lora_magnitude_vector", 1.0)  # fmt: skip
    refused(base, peft(base, rng, [f"{at}proj:6:6"]), r"attn\.proj is no linear layer", 1.0)
    name = "base_model.model.mask_decoder.mask_tokens.weight"
    refused(base, {**good, name: torch.ones(9, 4)},
            r"has shape \(9, 4\), the base has \(4, 4\)", 1.0)  # fmt: skip
