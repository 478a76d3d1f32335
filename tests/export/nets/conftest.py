"""Tools of the encoder tests: random weights, graphs run by ONNX Runtime, golden inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from samrt_export.graph import GraphBuilder

F32 = NDArray[np.float32]
Emit = Callable[[GraphBuilder, Any, str], "str | dict[str, str]"]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep activations of order one and make every parameter count."""
    random = torch.Generator().manual_seed(seed)

    def noise(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=random)

    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "num_batches_tracked":
                continue
            if leaf == "running_var":
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=random))
            elif leaf in ("bias", "running_mean") or "embed" in leaf or leaf == "attention_biases":
                tensor.copy_(0.5 * noise(tensor.shape))
            elif tensor.ndim == 1:
                tensor.copy_(1 + 0.2 * noise(tensor.shape))
            else:
                tensor.copy_(noise(tensor.shape) / tensor[0].numel() ** 0.5)
    return module.eval()


def build(emit: Emit, encoder: nn.Module, size: tuple[int, int]) -> onnx.ModelProto:
    """The checked model of an encoder; outputs are named as the emission names them."""
    g = GraphBuilder("encoder")
    made = emit(g, encoder, g.input("image", (1, 3, *size)))
    names = made if isinstance(made, dict) else {"image_embeddings": made}
    for name, tensor in names.items():
        g.output(tensor, name, (1, *(f"{name}_{axis}" for axis in "chw")))
    return g.model("0")


def session(model: onnx.ModelProto) -> Callable[[F32], dict[str, F32]]:
    """A function from an image to the outputs of the model by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    run = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in run.get_outputs()]
    return lambda image: dict(zip(names, run.run(None, {"image": image}), strict=True))


def run(model: onnx.ModelProto, image: Tensor) -> Tensor:
    """The embedding of an image."""
    return torch.from_numpy(session(model)(image.numpy())["image_embeddings"])


def deviation(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """rms(difference) / std(expected), the measure of the golden vectors."""
    assert got.shape == expected.shape
    difference = got.astype(np.float64) - expected
    return float(np.sqrt(np.mean(difference**2)) / expected.std())


def picture(size: tuple[int, int], seed: int = 1) -> Tensor:
    """Noise of shape (1, 3, H, W)."""
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        randomise=randomise, build=build, session=session, deviation=deviation, picture=picture
    )


class GoldenEncoder:
    """The golden weights, inputs and embeddings of one family."""

    def __init__(self, folder: Path, seeded: ModuleType, family: str) -> None:
        self.folder, self.family = folder, family
        self.manifest = json.loads((folder / "manifests" / f"{family}.json").read_text("utf-8"))
        index = json.loads((folder / "index.json").read_text("utf-8"))
        self.images: dict[str, Any] = index["families"][family]["images"]
        self.vectors = np.load(folder / f"{family}.npz")
        self._seeded = seeded

    def keys(self, prefix: str = "image_encoder.") -> list[tuple[str, tuple[int, ...]]]:
        """Names (without the prefix) and shapes, in the order of the file."""
        return [
            (name[len(prefix) :], tuple(shape))
            for name, (_, shape) in self.manifest["keys"].items()
            if name.startswith(prefix)
        ]

    def weights(self, prefix: str = "image_encoder.") -> dict[str, Tensor]:
        """The seeded state dict of the part below `prefix`."""
        part = {k: v for k, v in self.manifest["keys"].items() if k.startswith(prefix)}
        arrays = self._seeded.seeded_state_dict(part)
        return {k[len(prefix) :]: torch.from_numpy(np.array(v)) for k, v in arrays.items()}

    def rgb(self, name: str) -> NDArray[np.uint8]:
        """A picture as (H, W, 3)."""
        array = np.array(Image.open(self.folder / "images" / f"{name}.png"))
        return np.repeat(array[..., None], 3, axis=-1) if array.ndim == 2 else array

    def sam_input(self, name: str) -> F32:
        """SAM's input, checked against the hash of the original's."""
        array = self.rgb(name)
        scale = 1024 / max(array.shape[:2])
        height, width = (int(side * scale + 0.5) for side in array.shape[:2])
        small = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
        values = (np.asarray(small, np.float32) - np.float32(MEAN)) / np.float32(STD)
        image = np.zeros((1, 3, 1024, 1024), np.float32)
        image[0, :, :height, :width] = values.transpose(2, 0, 1)
        self.require_input(name, image)
        return image

    def require_input(self, name: str, image: F32) -> None:
        """The input must be the original's, bit for bit."""
        expected = self.images[name]["input"]["sha256_float32"]
        assert hashlib.sha256(image.tobytes()).hexdigest() == expected

    def embedding_deviation(self, name: str, embedding: F32) -> float:
        """Deviation of the stored samples of the embedding."""
        return deviation(embedding[0, ::17, ::7, ::7], self.vectors[f"{name}.embedding"])


@pytest.fixture(scope="session")
def golden_encoder(golden: Path, seeded: ModuleType) -> Callable[[str], GoldenEncoder]:
    """`golden_encoder(family)`."""
    return lambda family: GoldenEncoder(golden, seeded, family)
