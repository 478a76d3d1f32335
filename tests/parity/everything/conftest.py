"""The original generator of `segment_anything`, on the same weights as a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt

torch = pytest.importorskip("torch")

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def as_sam(original: ModuleType, parts: list[Any], threshold: float = 0.0) -> Any:
    """The original's model around an encoder, a prompt encoder and a decoder."""
    sam = original.modeling.Sam(*parts, pixel_mean=MEAN, pixel_std=STD).eval()
    sam.mask_threshold = threshold
    return sam


class GraphParts:
    """The graphs of the committed bundle behind the interfaces of the original's parts."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime as ort

        def session(name: str) -> Any:
            return ort.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])

        encoder, decoder = session("encoder.onnx"), session("decoder.onnx")
        names = [item.name for item in encoder.get_outputs()]

        class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
            img_size = 64

            def forward(self, image: Any) -> Any:
                return dict(zip(names, encoder.run(names, {"image": image.numpy()}), strict=True))

        class Prompts(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
            def forward(self, points: Any, boxes: Any, masks: Any) -> Any:
                assert boxes is None
                assert masks is None
                coords, labels = points
                rows = torch.cat([coords, labels[..., None]], -1).float()
                padding = torch.tensor([0.0, 0.0, -1.0]).expand(len(rows), 1, 3)
                return torch.cat([rows, padding], 1), None

            def get_dense_pe(self) -> None:
                return None

        class Decoder(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
            def forward(
                self,
                image_embeddings: Any,
                image_pe: Any,
                sparse_prompt_embeddings: Any,
                dense_prompt_embeddings: Any,
                multimask_output: bool,
            ) -> Any:
                assert multimask_output
                rows = sparse_prompt_embeddings.numpy()
                feeds = {
                    **image_embeddings,
                    "point_coords": np.ascontiguousarray(rows[..., :2]),
                    "point_labels": np.ascontiguousarray(rows[..., 2]),
                    "mask_input": np.zeros((len(rows), 1, 32, 32), np.float32),
                    "has_mask_input": np.zeros(len(rows), np.float32),
                }
                found = decoder.run(["low_res_masks", "iou_predictions"], feeds)
                return tuple(torch.from_numpy(a[:, 1:].copy()) for a in found)

        self.parts = [Encoder(), Prompts(), Decoder()]


Pair = tuple[Callable[..., list[dict[str, Any]]], Callable[..., list[dict[str, Any]]]]


def both(original: ModuleType, sam: Any, predictor: samrt.Predictor) -> Pair:
    """`theirs(image, **options)` and `ours(image, **options)`."""

    def theirs(image: NDArray[np.uint8], **options: Any) -> list[dict[str, Any]]:
        generator = original.SamAutomaticMaskGenerator(sam, **options)
        found: list[dict[str, Any]] = generator.generate(image)
        return found

    def ours(image: NDArray[np.uint8], **options: Any) -> list[dict[str, Any]]:
        return samrt.AutomaticMaskGenerator(predictor, **options).generate(image)

    return theirs, ours


@pytest.fixture
def blobs(segment_anything: ModuleType, bundle_path: Path, predictor: samrt.Predictor) -> Pair:
    """Both generators on the committed bundle, whose masks are blobs around the points."""
    return both(
        segment_anything, as_sam(segment_anything, GraphParts(bundle_path).parts), predictor
    )


@pytest.fixture(scope="session")
def mobile_sam(
    segment_anything: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Both generators on MobileSAM with random weights and a frame of 256 x 256."""
    pytest.importorskip("onnx")
    from samrt_export import export
    from samrt_export.loading import load_network
    from samrt_export.seeded import seeded_state

    side, state = 256, seeded_state("mobile_sam")
    path = tmp_path_factory.mktemp("everything") / "mobile_sam.samrt"
    export(state, path, image_size=(side, side), verify=False)
    network = load_network(state, image_size=(side, side)).network

    class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        img_size = side

        def forward(self, image: Any) -> Any:
            features = network.image_encoder(image)
            return features["image_embeddings"] if isinstance(features, dict) else features

    modeling = segment_anything.modeling
    prompts = modeling.PromptEncoder(256, (side // 16, side // 16), (side, side), 16)
    transformer = modeling.TwoWayTransformer(2, 256, 8, 2048)
    decoder = modeling.MaskDecoder(transformer_dim=256, transformer=transformer)
    prompts.load_state_dict(network.prompt_encoder.state_dict())
    decoder.load_state_dict(network.mask_decoder.state_dict())
    with samrt.load(path, threads=2) as predictor:
        yield both(
            segment_anything, as_sam(segment_anything, [Encoder(), prompts, decoder]), predictor
        )
