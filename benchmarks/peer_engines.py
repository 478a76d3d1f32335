"""The peers of `peers.py`, each behind the same four calls, as its users call it.

`encode(picture)`: (1024, 1024, 3) uint8 to whatever the peer keeps, preprocessing included;
`embedding(state)`: that as (1, 256, 64, 64); `decode(state, boxes)`: (N, 256, 256) logits of the
mask for a single answer; `mask(state, box)`: (1024, 1024) bool.  `keep` and `resume` carry what was
encoded to another process, so that decoding is measured without encoding first.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import peer_models as models

Array = NDArray[Any]
SIZE = (models.SIDE, models.SIDE)
MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])


class Keeps:
    """A state that pickle can carry."""

    def keep(self, state: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(state))

    def resume(self, path: Path) -> Any:
        return pickle.loads(path.read_bytes())


class Torch(Keeps):
    """segment_anything's own SamPredictor."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.sam = models.original(name, folder / "checkpoint.pt")
        from segment_anything import SamPredictor

        self.torch, self.predictor = torch, SamPredictor(self.sam)

    def encode(self, picture: Array) -> Any:
        self.predictor.set_image(picture)
        return self.predictor.features

    def resume(self, path: Path) -> Any:
        predictor, state = self.predictor, super().resume(path)
        predictor.features, predictor.is_image_set = state, True
        predictor.original_size = predictor.input_size = SIZE
        return state

    def embedding(self, state: Any) -> Array:
        return np.asarray(state.numpy())

    def decode(self, state: Any, boxes: Array) -> Array:
        with self.torch.no_grad():
            return np.asarray(
                models.decode(self.sam, state, self.torch.from_numpy(boxes)).numpy()[:, 0]
            )

    def mask(self, state: Any, box: Array) -> Array:
        return np.asarray(self.predictor.predict(box=box, multimask_output=False)[0][0])


class Exported(Keeps):
    """The traced graphs in a session, with the preprocessing in numpy."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self.run_encoder, self.run_decoder = encoder, decoder

    def encode(self, picture: Array) -> Any:
        tensor = ((picture.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[None]
        return self.run_encoder({"x": np.ascontiguousarray(tensor)}, "image_embeddings")

    def embedding(self, state: Any) -> Array:
        return np.asarray(state)

    def _feeds(self, state: Any, box: Array) -> dict[str, Array]:
        """One box; the padding point is none, as the original's example for boxes has it."""
        return {
            "image_embeddings": state,
            "point_coords": box.reshape(1, 2, 2).astype(np.float32),
            "point_labels": np.float32([[2, 3]]),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.float32(SIZE),
        }

    def decode(self, state: Any, boxes: Array) -> Array:
        """One call per box: the graph takes no more."""
        rows = [self.run_decoder(self._feeds(state, box), "low_res_masks")[:, 0] for box in boxes]
        return np.concatenate(rows)

    def mask(self, state: Any, box: Array) -> Array:
        return np.asarray(self.run_decoder(self._feeds(state, box), "masks")[0, 0] > 0)


def exported_onnxruntime(name: str, folder: Path, threads: int) -> Exported:
    """In ONNX Runtime as it comes, but for the number of threads."""
    import onnxruntime as ort

    def open_(file: str) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        return ort.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])

    def runner(file: str) -> Any:
        opened: list[Any] = []

        def run(feeds: dict[str, Array], output: str) -> Array:
            if not opened:
                opened.append(open_(file))
            return np.asarray(opened[0].run([output], feeds)[0])

        return run

    return Exported(runner("encoder.onnx"), runner("decoder.onnx"))


def exported_openvino(name: str, folder: Path, threads: int) -> Exported:
    """In OpenVINO with its latency hint, in float32."""
    from samrt.backends.openvino import import_openvino

    core = import_openvino().Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }

    def runner(file: str) -> Any:
        opened: list[Any] = []

        def run(feeds: dict[str, Array], output: str) -> Array:
            if not opened:
                opened.append(core.compile_model(str(folder / file), "CPU", config))
            return np.asarray(opened[0](feeds)[output])

        return run

    return Exported(runner("encoder.onnx"), runner("decoder.onnx"))


class Samexporter(Keeps):
    """samexporter's SegmentAnythingONNX on the same traced graphs."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        models.stand_ins()
        from samexporter.sam_onnx import SegmentAnythingONNX

        self.engine = SegmentAnythingONNX(
            str(folder / "encoder.onnx"), str(folder / "decoder.onnx")
        )

    def encode(self, picture: Array) -> Any:
        return self.engine.encode(np.ascontiguousarray(picture[..., ::-1]))

    def embedding(self, state: Any) -> Array:
        return np.asarray(state["image_embedding"])

    def mask(self, state: Any, box: Array) -> Array:
        mark = [{"type": "rectangle", "data": [float(v) for v in box]}]
        return np.asarray(self.engine.predict_masks(state, mark)[0, 0] > 0)


class Osam(Keeps):
    """osam's Sam on the same traced graphs: its own quantised ones are downloads."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        models.stand_ins()
        import onnxruntime as ort
        from loguru import logger

        logger.remove()
        from osam._models.sam._models import Sam
        from osam.types import Prompt

        class Local(Sam):  # type: ignore[misc]
            name = "local"
            _blobs: dict[str, Any] = {}  # noqa: RUF012 - osam's own form

        self.engine, self.prompt = Local(), Prompt
        self.engine._inference_sessions = {
            part: ort.InferenceSession(
                str(folder / f"{part}.onnx"), providers=["CPUExecutionProvider"]
            )
            for part in ("encoder", "decoder")
        }

    def encode(self, picture: Array) -> Any:
        return self.engine.encode_image(picture)

    def embedding(self, state: Any) -> Array:
        return np.asarray(state.embedding)[None]

    def mask(self, state: Any, box: Array) -> Array:
        prompt = self.prompt(points=box.reshape(2, 2), point_labels=np.int32([2, 3]))
        return np.asarray(self.engine._generate_mask_from_image_embedding(state, prompt))


class Ours:
    """samrt; `backend` is one of its own."""

    backend = "onnxruntime"

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        import samrt

        self.samrt = samrt
        self.engine = samrt.load(folder / "ours.samrt", backend=self.backend, threads=threads)
        self.about = f"{self.engine.info.form_effective} form"

    def encode(self, picture: Array) -> Any:
        return self.engine.encode(picture)

    def keep(self, state: Any, path: Path) -> None:
        from samrt.embedding_file import save_embedding

        save_embedding(state, path, overwrite=True)

    def resume(self, path: Path) -> Any:
        from samrt.embedding_file import load_embedding

        return load_embedding(path)

    def embedding(self, state: Any) -> Array:
        return np.asarray(state.features["image_embeddings"])

    def decode(self, state: Any, boxes: Array) -> Array:
        """One call for all; the decoder alone, as with the others."""
        from samrt.decoding import placement_of
        from samrt.prompts import decoder_input

        manifest = self.engine.manifest
        prompts = [self.samrt.Prompt(box=box) for box in boxes]
        tokens = decoder_input(
            prompts, placement_of(state), manifest.prompts, manifest.output.low_res_size
        )
        return np.asarray(self.engine.model.run_decoder(state.features, tokens)[0][:, 0])

    def mask(self, state: Any, box: Array) -> Array:
        prompt = self.samrt.Prompt(box=box)
        return np.asarray(self.engine.decode(state, prompt, multimask_output=False)[0].masks[0])


class OursOpenVino(Ours):
    backend = "openvino"


PEERS: dict[str, Any] = {
    "segment-anything (torch)": Torch,
    "traced graphs, ONNX Runtime": exported_onnxruntime,
    "traced graphs, OpenVINO": exported_openvino,
    "samexporter": Samexporter,
    "osam": Osam,
    "samrt, ONNX Runtime": Ours,
    "samrt, OpenVINO": OursOpenVino,
}
REFERENCE = "segment-anything (torch)"
OURS = ("samrt, ONNX Runtime", "samrt, OpenVINO")
