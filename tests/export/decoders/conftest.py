"""Tools of the decoder tests: random weights, prompts, both graphs run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder

F32 = NDArray[np.float32]
Answer = tuple[NDArray[Any], NDArray[Any]]
EMBEDDING = "image_embeddings"


def randomise(module: nn.Module, seed: int = 0) -> Any:
    """Weights that keep activations of order one and make every parameter count."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=random)
            if name.endswith("gaussian_matrix") or (tensor.ndim == 2 and len(tensor) < 10):
                tensor.copy_(noise)  # embeddings and the matrix of the position codes
            elif name.endswith("bias"):
                tensor.copy_(0.3 * noise)
            elif tensor.ndim == 1:
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(1.5 * noise / (tensor.numel() / len(tensor)) ** 0.5)
    return module.eval()


def prompts(
    count: int, points: int, frame: tuple[int, int], mask_size: tuple[int, int], seed: int = 0
) -> dict[str, Tensor]:
    """`count` prompts of `points` rows with labels of all kinds; every second one has a mask."""
    random = torch.Generator().manual_seed(seed)
    size = torch.tensor([frame[1], frame[0]])
    return {
        "point_coords": torch.rand(count, points, 2, generator=random) * size,
        "point_labels": torch.randint(-1, 4, (count, points), generator=random).float(),
        "mask_input": 4 * torch.randn(count, 1, *mask_size, generator=random),
        "has_mask_input": (torch.arange(count) % 2 == 0).float(),
    }


class Graphs:
    """The two graphs of one decoder: what the encoder graph adds, and the decoder graph."""

    def __init__(
        self, emission: ModuleType, prompt_encoder: Any, mask_decoder: Any,
        features: Sequence[tuple[int, ...]], **options: Any,
    ) -> None:  # fmt: skip
        self.shapes = emission.hoisted_shapes(prompt_encoder, mask_decoder)
        encoder = GraphBuilder("encoder")
        inputs = [encoder.input(f"feature_{k}", shape) for k, shape in enumerate(features)]
        embedding = encoder.op("Identity", inputs[0])
        extra = emission.hoist(encoder, prompt_encoder, mask_decoder, embedding, *inputs[1:])
        self.hoisted = list(extra)
        for name, tensor in {EMBEDDING: embedding, **extra}.items():
            encoder.output(tensor, name, self.shapes[name])
        decoder = GraphBuilder("decoder")
        emission.emit_decoder(decoder, prompt_encoder, mask_decoder, self.shapes, **options)
        self.encoder, self.decoder = encoder.model("0"), decoder.model("0")
        self._sessions = session(self.encoder), session(self.decoder)

    @property
    def inputs(self) -> dict[str, list[int | str]]:
        """Names and sizes of the decoder graph's inputs; free sizes are strings."""
        return {
            item.name: [d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim]
            for item in self.decoder.graph.input
        }

    def __call__(self, features: Sequence[Tensor], given: dict[str, Tensor]) -> tuple[F32, F32]:
        """Low-resolution masks and predicted IoU."""
        found = self.hoisted_values(features)
        found.update({name: given[name].numpy() for name in self.inputs if name in given})
        masks, scores = self._sessions[1].run(["low_res_masks", "iou_predictions"], found)
        return masks, scores

    def hoisted_values(self, features: Sequence[Tensor]) -> dict[str, F32]:
        """What the encoder graph gives to the decoder graph."""
        feeds = {f"feature_{k}": tensor.numpy() for k, tensor in enumerate(features)}
        wanted = list(self.shapes)
        return dict(zip(wanted, self._sessions[0].run(wanted, feeds), strict=True))


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session of ONNX Runtime on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def deviation(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """max |difference| / std(expected)."""
    assert got.shape == expected.shape
    return float(np.abs(got.astype(np.float64) - expected).max() / expected.std())


def require_close(got: Answer, expected: Answer, exact: Answer) -> None:
    """The graph is as near to the float64 answer as the float32 modules are, up to a factor."""
    for found, module, truth in zip(got, expected, exact, strict=True):
        rounding = max(deviation(module, truth), 2e-6)
        assert deviation(found, truth) < 8 * rounding
        assert rounding < 1e-4


def reference(
    decode: Callable[..., tuple[Tensor, Tensor]], *args: Any, exact: bool = False
) -> Answer:
    """What the torch modules answer; `exact` computes in float64."""

    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(wide(item) for item in value)
        return value.double() if isinstance(value, (Tensor, nn.Module)) else value

    with torch.no_grad():
        masks, scores = decode(*(wide(value) if exact else value for value in args))
    for value in args:
        if isinstance(value, nn.Module):
            value.float()
    return masks.numpy(), scores.numpy()


@pytest.fixture(scope="session")
def decoders() -> SimpleNamespace:
    """The tools of this file."""
    return SimpleNamespace(
        randomise=randomise, prompts=prompts, Graphs=Graphs, deviation=deviation,
        reference=reference, require_close=require_close,
    )  # fmt: skip
