"""The committed bundle's network in torch, and predictors that err on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt.backends.base import SessionOptions
from samrt.model import Model, open_model
from samrt.prompts import DecoderInput

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("cv2")

Change = Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[Any, Any]]


class FixtureNetwork:
    """``bundle_v1.samrt`` written again in torch from its weights; see make_bundle_v1.py."""

    class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, weights: list[Any]) -> None:
            super().__init__()
            self.wide, self.fine = (torch.from_numpy(w.copy()) for w in weights)

        def forward(self, image: Any) -> dict[str, Any]:
            conv = torch.nn.functional.conv2d
            return {
                "image_embeddings": torch.tanh(conv(image, self.wide, stride=4)),
                "high_res_s2": torch.tanh(conv(image, self.fine, stride=2)),
            }

    def __init__(self, folder: Path) -> None:
        def constants(name: str) -> dict[str, Any]:
            graph = onnx.load(folder / f"{name}.onnx").graph
            return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}

        self.image_encoder = self.Encoder(list(constants("encoder").values()))
        self.prompt_encoder = torch.nn.Identity()
        self.mask_decoder = torch.nn.Identity()
        self.weights = {n: torch.from_numpy(a.copy()) for n, a in constants("decoder").items()}

    def decode(self, _p: Any, _m: Any, maps: Any, xy: Any, labels: Any, mask: Any, has: Any) -> Any:
        shaped: dict[tuple[int, ...], Any] = {}
        for weight in self.weights.values():  # the first of a shape is the weight
            shaped.setdefault(tuple(weight.shape), weight)
        xy, label = (xy + 0.5) / 64, labels[..., None]
        rows = torch.cat([xy, label, xy * label], -1)
        token = torch.tanh(rows @ shaped[5, 16] + shaped[16,]).sum(1)
        score = torch.sigmoid(token @ shaped[16, 4] + shaped[4,])
        weights = (token @ shaped[16, 40]).reshape(-1, 4, 10)
        wide = maps["image_embeddings"].repeat_interleave(2, 2).repeat_interleave(2, 3)
        planes = torch.cat([wide, maps["high_res_s2"]], 1).reshape(1, 10, 1024)
        texture = (weights @ planes).reshape(-1, 4, 32, 32)
        weight = label.clip(0, 1)
        centre = (xy * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clip(min=1.0)
        square = ((shaped[1, 1024, 2] - centre) ** 2).sum(2).reshape(-1, 1, 32, 32)
        low = (shaped[1, 4, 1, 1] - square) * 60.0 + texture
        if mask is not None:
            low = low + mask * has.reshape(-1, 1, 1, 1) * 0.5
        return low, score


class ChangedModel(Model):
    """A model whose answers are changed on their way out."""

    def __init__(self, model: Model, change: Change, change_features: Any = None) -> None:
        super().__init__(model.bundle, model.info, model._encoder, model._decoder)
        self._change, self._change_features = change, change_features

    def run_encoder(self, image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        features = super().run_encoder(image)
        return self._change_features(features) if self._change_features else features

    def run_decoder(
        self, features: Mapping[str, NDArray[np.float32]], prompts: DecoderInput
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, scores = self._change(*super().run_decoder(features, prompts))
        return logits, scores


def unchanged(logits: Any, scores: Any) -> tuple[Any, Any]:
    return logits, scores


@pytest.fixture
def changed(bundle_path: Path) -> Iterator[Callable[..., samrt.Predictor]]:
    """``changed(change, change_features)``: the committed model with changed answers."""
    opened: list[samrt.Predictor] = []

    def make(change: Change = unchanged, change_features: Any = None) -> samrt.Predictor:
        options = SessionOptions(threads=1)
        model = open_model(bundle_path, backend="auto", precision="auto", options=options)
        opened.append(samrt.Predictor(ChangedModel(model, change, change_features)))
        return opened[-1]

    yield make
    for predictor in opened:
        predictor.close()


@pytest.fixture
def network(bundle_path: Path) -> FixtureNetwork:
    """The committed model in torch."""
    return FixtureNetwork(bundle_path)
