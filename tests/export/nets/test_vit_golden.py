"""The ViT encoders against the original implementations: key layouts and golden embeddings.

The graph runs on ONNX Runtime with the golden vectors' seeded weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from samrt_export import graph
from samrt_export.graph import GraphBuilder
from samrt_export.graphs.efficient_vit import emit_efficient_vit
from samrt_export.graphs.vit import emit_vit
from samrt_export.nets.efficient_vit import EFFICIENT_VIT_PRESETS, EfficientSamEncoder
from samrt_export.nets.vit import VIT_PRESETS, ImageEncoderViT, adapt_state, checkpoint_shapes

pytestmark = pytest.mark.shared

PREFIX = "image_encoder."
TOLERANCE = 1e-4
Keys = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


def manifest_keys(golden: Path, family: str) -> Keys:
    """Ordered key -> shape of the image encoder in a family's manifest, without the prefix."""
    keys = json.loads((golden / "manifests" / f"{family}.json").read_text("utf-8"))["keys"]
    return {
        key.removeprefix(PREFIX): tuple(shape)
        for key, (_, shape) in keys.items()
        if key.startswith(PREFIX)
    }


def base_of(family: str) -> str:
    """The manifest that holds a family's encoder: SAMed's file has LoRA weights only."""
    return "sam_vit_b" if family == "samed" else family


@pytest.mark.parametrize("family", VIT_PRESETS)
def test_keys_and_shapes_are_the_checkpoints(golden: Path, family: str) -> None:
    expected = manifest_keys(golden, base_of(family))
    assert list(checkpoint_shapes(VIT_PRESETS[family]).items()) == list(expected.items())


@pytest.mark.parametrize("family", EFFICIENT_VIT_PRESETS)
def test_keys_and_shapes_are_efficient_sams(golden: Path, family: str) -> None:
    with torch.device("meta"):
        encoder = EfficientSamEncoder(EFFICIENT_VIT_PRESETS[family])
    got = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert list(got.items()) == list(manifest_keys(golden, family).items())


def seeded_state(golden: Path, seeded: ModuleType, family: str) -> State:
    keys = manifest_keys(golden, base_of(family))
    return {
        key: torch.from_numpy(seeded.seeded_array(PREFIX + key, shape))
        for key, shape in keys.items()
    }


def merge_samed(golden: Path, seeded: ModuleType, state: State) -> None:
    """Add SAMed's low-rank updates: pair 2 i to q of block i, pair 2 i + 1 to v."""
    keys = json.loads((golden / "manifests" / "samed.json").read_text("utf-8"))["keys"]
    for block in range(12):
        weight = state[f"blocks.{block}.attn.qkv.weight"]
        dim = weight.shape[1]
        for pair, row in ((2 * block, 0), (2 * block + 1, 2 * dim)):
            down, up = (
                seeded.seeded_array(name, keys[name][1])
                for name in (f"w_a_{pair:03d}", f"w_b_{pair:03d}")
            )
            weight[row : row + dim] += torch.from_numpy(up @ down)


def build(golden: Path, seeded: ModuleType, family: str) -> tuple[nn.Module, Callable[..., str]]:
    """The family's encoder with seeded weights and the function that emits it."""
    state = seeded_state(golden, seeded, family)
    encoder: Any
    if family in EFFICIENT_VIT_PRESETS:
        with torch.device("meta"):
            encoder = EfficientSamEncoder(EFFICIENT_VIT_PRESETS[family])
        encoder.load_state_dict(state, assign=True)
        return encoder.eval(), emit_efficient_vit
    if family == "samed":
        merge_samed(golden, seeded, state)
    cfg = VIT_PRESETS[family]
    with torch.device("meta"):
        encoder = ImageEncoderViT(cfg)
    encoder.load_state_dict(adapt_state(state, cfg), assign=True)
    return encoder.eval(), emit_vit


def session_of(encoder: Any, emit: Callable[..., str], path: Path, tiled: bool) -> Any:
    """The encoder's graph, opened by ONNX Runtime with two threads."""
    g = GraphBuilder("encoder")
    g.input("image", (1, 3, *encoder.cfg.image_size))
    with torch.no_grad():
        embedding = emit(g, encoder, "image", tiled=tiled)
    g.output(embedding, "image_embeddings", (1, encoder.cfg.out_chans, *encoder.cfg.grid))
    g.write(path, "0")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.enable_cpu_mem_arena = False
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def heavy(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("family", "form", "pictures"),
    [
        ("sam_med2d", "whole", "ct_512 grey_96x130 colour_700x523 large_1440x1080"),
        ("efficient_sam_ti", "tiled", "large_1440x1080"),
        ("sam_vit_b", "tiled", "colour_700x523"),
        heavy("efficient_sam_ti", "whole", "ct_512 grey_96x130 colour_700x523"),
        heavy("efficient_sam_s", "tiled", "ct_512 large_1440x1080"),
        heavy("sam_vit_b", "whole", "ct_512 grey_96x130 large_1440x1080"),
        heavy("medsam", "tiled", "ct_512 colour_700x523"),
        heavy("medical_sam_adapter", "whole", "ct_512 colour_700x523"),
        heavy("samed", "whole", "ct_512"),
        heavy("sam_vit_l", "tiled", "ct_512"),
        heavy("sam_vit_h", "tiled", "colour_700x523"),
    ],
)
def test_embeddings_equal_the_originals(
    golden: Path, seeded: ModuleType, golden_inputs: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, family: str, form: str, pictures: str,
) -> None:  # fmt: skip
    if family == "medsam":
        pytest.importorskip("skimage", reason="MedSAM's resize is scikit-image's")
    monkeypatch.setattr(graph, "EXTERNAL_FROM_BYTES", 64 << 20)
    encoder, emit = build(golden, seeded, family)
    session = session_of(encoder, emit, tmp_path / "encoder.onnx", tiled=form == "tiled")
    vectors = np.load(golden / f"{family}.npz")
    for picture in pictures.split():
        with Image.open(golden / "images" / f"{picture}.png") as image:
            pixels = np.array(image.convert("RGB"))
        tensor: NDArray[np.float32] = golden_inputs.RECIPES[family](pixels)
        sampled = tensor[0, :, ::31, ::31]
        np.testing.assert_allclose(sampled, vectors[f"{picture}.input"], rtol=0, atol=1e-5)
        (embedding,) = session.run(None, {"image": tensor})
        expected = vectors[f"{picture}.embedding"]
        error = np.square(embedding[0, ::17, ::7, ::7] - expected).mean() ** 0.5 / expected.std()
        print(f"{family}, {form}, {picture}: {error:.2e}")
        assert error <= TOLERANCE
