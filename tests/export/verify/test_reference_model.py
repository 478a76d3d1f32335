"""A torch network as a model of samrt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import samrt
from samrt.errors import BackendError, BundleError

torch = pytest.importorskip("torch")
from samrt_export.reference_model import TorchModel  # noqa: E402


def test_it_answers_like_the_bundle(
    network: Any, predictor: samrt.Predictor, image: np.ndarray[Any, Any]
) -> None:
    engine = samrt.Predictor(TorchModel(network, predictor.manifest, threads=1))
    for opened in (engine, predictor):
        opened.set_image(image)
    for options in (
        {"box": (10, 8, 60, 40)},
        {"point_coords": [(30, 20), (60, 10)], "point_labels": [1, 0]},
        {"box": (10, 8, 60, 40), "mask_input": np.full((32, 32), 0.5, np.float32)},
    ):
        have, want = engine.predict(**options), predictor.predict(**options)
        np.testing.assert_allclose(have.logits, want.logits, atol=1e-4)
        np.testing.assert_allclose(have.scores, want.scores, atol=1e-5)
        assert (have.masks != want.masks).mean() < 1e-3
    info = engine.info
    assert (info.backend_effective, info.precision_effective) == ("torch", "fp32")
    assert info.backend_version == torch.__version__
    assert engine.embedding.model_id == info.model_id == "fixture@torch-unnamed"


def test_mask_arguments_are_none_without_a_mask(
    network: Any, predictor: samrt.Predictor, image: np.ndarray[Any, Any]
) -> None:
    given: list[Any] = []
    decode = network.decode

    def spy(*args: Any) -> Any:
        given.append(args[-2:])
        return decode(*args)

    network.decode = spy
    engine = samrt.Predictor(TorchModel(network, predictor.manifest))
    engine.set_image(image)
    engine.predict(box=(10, 8, 60, 40))
    engine.predict(box=(10, 8, 60, 40), mask_input=np.zeros((32, 32)))
    assert given[0] == (None, None)
    assert [tuple(tensor.shape) for tensor in given[1]] == [(1, 1, 32, 32), (1,)]


def test_a_single_tensor_reaches_decode_as_such(predictor: samrt.Predictor) -> None:
    seen: list[Any] = []

    def decode(*args: Any) -> Any:
        seen.append(args[2])
        count = len(args[3])
        return torch.zeros(count, 4, 32, 32), torch.zeros(count, 4)

    network = SimpleNamespace(
        image_encoder=torch.nn.Conv2d(3, 8, 4, stride=4),
        prompt_encoder=torch.nn.Identity(),
        mask_decoder=torch.nn.Dropout(),
        decode=decode,
    )
    model = TorchModel(network, predictor.manifest)
    assert not network.mask_decoder.training
    engine = samrt.Predictor(model)
    engine.set_image(np.zeros((20, 30), np.uint8))
    assert list(engine.embedding.features) == ["image_embeddings"]
    engine.predict([[3, 4]], [1])
    assert tuple(seen[0].shape) == (1, 8, 16, 16)


def test_wrong_shapes_and_nan_are_refused(network: Any, predictor: samrt.Predictor) -> None:
    engine = samrt.Predictor(TorchModel(network, predictor.manifest))
    engine.set_image(np.zeros((20, 30), np.uint8))
    decode = network.decode
    network.decode = lambda *args: tuple(t[:, :3] for t in decode(*args))
    with pytest.raises(BundleError, match=r"masks \(1, 3, 32, 32\)"):
        engine.predict(box=(1, 1, 9, 9))
    network.decode = lambda *args: (decode(*args)[0] * float("nan"), decode(*args)[1])
    with pytest.raises(BackendError, match="'low_res_masks' holds NaN"):
        engine.predict(box=(1, 1, 9, 9))
    network.image_encoder.wide.fill_(float("inf"))
    with pytest.raises(BackendError, match="'image_embeddings' holds NaN"):
        engine.set_image(np.full((20, 30), 7, np.uint8))


def test_closing_lets_go_of_the_network(network: Any, predictor: samrt.Predictor) -> None:
    engine = samrt.Predictor(TorchModel(network, predictor.manifest))
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="is closed"):
        engine.encode(np.zeros((20, 30), np.uint8))
