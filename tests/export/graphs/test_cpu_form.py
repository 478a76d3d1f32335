"""The CPU form of the encoders: the same numbers as torch, by NumPy and by the library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from samrt.backends.operators import library_path, library_problem
from samrt_export.graph import GraphBuilder
from samrt_export.graphs import operators as op
from samrt_export.graphs.cpu_hiera import emit_cpu_hiera
from samrt_export.graphs.cpu_tiny_vit import emit_cpu_tiny_vit
from samrt_export.graphs.cpu_vit import emit_cpu_efficient_vit, emit_cpu_vit
from samrt_export.graphs.tiny_vit import emit_tiny_vit
from samrt_export.graphs.vit import emit_vit
from samrt_export.nets.conv_bn import ConvBn
from samrt_export.nets.efficient_vit import EfficientSamEncoder, EfficientVitConfig
from samrt_export.nets.hiera import HieraConfig, HieraEncoder
from samrt_export.nets.tiny_vit import TinyViT, TinyVitConfig
from samrt_export.nets.vit import ImageEncoderViT, VitConfig

Emit = Callable[[GraphBuilder, Any, str], Any]
VIT = VitConfig(
    dim=32, depth=2, heads=2, global_blocks=(1,), image_size=(128, 96), window=5, out_chans=16
)
TINY = TinyVitConfig(
    image_size=(96, 160), embed_dims=(8, 12, 16, 24), depths=(1, 2, 2, 1), num_heads=(1, 3, 4, 2),
    window_sizes=(7, 7, 4, 5), out_chans=16, num_classes=0,
)  # fmt: skip
EFFICIENT = EfficientVitConfig(
    dim=24, heads=3, depth=2, image_size=(96, 160), out_chans=16, pretrain_tokens=25
)
HIERA = HieraConfig(
    image_size=(96, 160), dim=8, heads=1, stages=(1, 2, 4, 2), windows=(8, 2, 4, 3),
    global_blocks=(4, 5), background=(5, 3), out_chans=16,
)  # fmt: skip
CASES: dict[str, tuple[Emit, Callable[[Any], nn.Module], Any]] = {
    "ViT, windows pad": (emit_cpu_vit, ImageEncoderViT, VIT),
    "ViT, windows fit": (emit_cpu_vit, ImageEncoderViT, replace(VIT, image_size=(160, 80))),
    "SAM-Med2D": (emit_cpu_vit, ImageEncoderViT, replace(VIT, adapters="sam_med2d")),
    "Medical SAM Adapter": (
        emit_cpu_vit, ImageEncoderViT,
        replace(VIT, adapters="msa", rel_pos_keys=("rel_h", "rel_w")),
    ),
    "ViT, heads of 20 channels": (
        emit_cpu_vit, ImageEncoderViT, replace(VIT, image_size=(96, 112), dim=40),
    ),
    "EfficientSAM": (emit_cpu_efficient_vit, EfficientSamEncoder, EFFICIENT),
    "TinyViT": (emit_cpu_tiny_vit, TinyViT, TINY),
    "TinyViT, whole windows": (
        emit_cpu_tiny_vit, TinyViT, replace(TINY, image_size=(64, 64), window_sizes=(1, 4, 4, 2)),
    ),
    "TinyViT, strides 1, 2, 2, odd grids": (
        emit_cpu_tiny_vit, TinyViT,
        replace(TINY, image_size=(36, 28), stem_kernel=1, stem_stride=1),
    ),
    "Hiera": (emit_cpu_hiera, HieraEncoder, HIERA),
}  # fmt: skip


def randomise(module: nn.Module) -> nn.Module:
    """Weights that make every parameter count."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if key.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif value.ndim > 1:
                value.copy_(noise * (0.5 if "embed" in key else value[0].numel() ** -0.5))
            else:
                value.copy_(0.4 * noise + float(key.endswith("weight")))
    return module.eval()


def graph(emit: Emit, encoder: Any) -> onnx.ModelProto:
    g = GraphBuilder("encoder")
    made = emit(g, encoder, g.input("image", (1, 3, *encoder.cfg.image_size)))
    names = made if isinstance(made, dict) else {"image_embeddings": made}
    for name, tensor in names.items():
        g.output(tensor, name, (1, *(f"{name}{axis}" for axis in "chw")))
    return g.model("0")


def picture(encoder: Any) -> torch.Tensor:
    return torch.randn(1, 3, *encoder.cfg.image_size, generator=torch.Generator().manual_seed(9))


def truth(encoder: nn.Module) -> Any:
    """The first output of the module."""
    with torch.no_grad():
        found = encoder(picture(encoder))
    return (found[0] if isinstance(found, tuple) else found).numpy()


def relative(got: Any, wanted: Any) -> float:
    assert got.shape == wanted.shape
    return float(np.sqrt(np.mean((got.astype(np.float64) - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize("name", CASES)
def test_numpy_and_library_compute_what_the_module_does(name: str, operators: ModuleType) -> None:
    emit, build, cfg = CASES[name]
    encoder = randomise(build(cfg))
    model, image, wanted = graph(emit, encoder), picture(encoder).numpy(), truth(encoder)
    assert relative(operators.evaluate(model, image)["image_embeddings"], wanted) < 5e-6
    if library_problem() is None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        options.register_custom_ops_library(str(library_path()))
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        assert relative(session.run(None, {"image": image})[0], wanted) < 1e-5


def test_the_graphs_hold_what_the_operators_do_and_no_more() -> None:
    encoder = randomise(ImageEncoderViT(VIT))
    kinds = Counter(node.op_type for node in graph(emit_cpu_vit, encoder).graph.node)
    assert (kinds["Attention"], kinds["Mlp"], kinds["Linear"]) == (2, 2, 5)
    assert not kinds.keys() & {"Softmax", "Erf", "Slice", "Pad", "Concat", "Split"}
    assert (kinds["Conv3x3"], kinds["LayerNormalization"]) == (1, 2)  # the neck's
    encoder = randomise(TinyViT(TINY))
    kinds = Counter(node.op_type for node in graph(emit_cpu_tiny_vit, encoder).graph.node)
    assert (kinds["MbConv"], kinds["DepthwiseConv"], kinds["Attention"]) == (4, 5, 5)
    assert (kinds["Mlp"], kinds["Linear"], kinds["Conv"]) == (5, 11, 0)
    assert (kinds["Stem"], kinds["Conv3x3"], kinds["Transpose"]) == (1, 1, 1)


def test_shapes_are_known_behind_the_operators() -> None:
    model = graph(emit_cpu_tiny_vit, randomise(TinyViT(TINY)))
    assert {e.domain: e.version for e in model.opset_import} == {"": 17, "samrt": 1}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    known = {v.name for v in inferred.graph.value_info} | {v.name for v in model.graph.output}
    assert all(name in known for node in model.graph.node for name in node.output)


@pytest.mark.parametrize(
    ("canonical", "cpu", "encoder"),
    [
        (emit_vit, emit_cpu_vit, ImageEncoderViT(replace(VIT, image_size=(160, 80)))),
        (emit_tiny_vit, emit_cpu_tiny_vit, TinyViT(TINY)),
    ],
    ids=["ViT", "TinyViT"],
)
def test_both_forms_hold_the_same_matrices(canonical: Emit, cpu: Emit, encoder: nn.Module) -> None:
    """Else a bundle could not store them once; 1 x 1 convolutions lie the other way round."""

    def contents(emit: Emit) -> set[bytes]:
        arrays = [numpy_helper.to_array(t) for t in graph(emit, encoder).graph.initializer]
        return {a.tobytes() for a in arrays if a.ndim >= 2 and a.size >= 64}

    randomise(encoder)
    plain, own = contents(canonical), contents(cpu)
    convolutions = [m for m in encoder.modules() if isinstance(m, ConvBn)]
    assert len(own - plain) <= len(convolutions)
    assert len(own & plain) > 10


def test_what_does_not_fit_is_refused() -> None:
    g, x = GraphBuilder("g"), "x"
    with pytest.raises(TypeError, match="expected a ConvBn"):
        op.depthwise(g, x, (4, 4), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"expected \(C, 1, 3, 3\)"):
        op.depthwise(g, x, (4, 4), ConvBn(4, 4, 3))
    parts = ConvBn(4, 8), ConvBn(8, 8, 3, 2, groups=8), ConvBn(8, 4)
    with pytest.raises(ValueError, match="expected 1"):
        op.mb_conv(g, x, (4, 4), parts, residual=True)
    with pytest.raises(op.NoCpuFormError, match="5x5 tokens is larger than the grid of 2x4"):
        graph(emit_cpu_vit, ImageEncoderViT(replace(VIT, image_size=(32, 64))))
    with pytest.raises(TypeError, match="expected a Block"):
        emit_cpu_vit(g, randomise_with_foreign_block(), g.input("image", (1, 3, 128, 96)))


def randomise_with_foreign_block() -> Any:
    encoder: Any = randomise(ImageEncoderViT(VIT))
    encoder.blocks[0] = nn.Identity()
    return encoder
