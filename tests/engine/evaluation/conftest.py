"""Small data sets of shapes, and an engine that answers them in a known way."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.evaluation.dataset import Target, tight_box
from samrt.types import ImageEmbedding, Prediction, Prompt, Timings

Mask = NDArray[np.bool_]


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> Mask:
    """A filled disc."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    mask: Mask = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return mask


def draw_shapes(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image of 60 x 80 with two objects and a speck, and its label map."""
    size = (60, 80)
    labels = np.zeros(size, np.uint8)
    labels[disc(size, 20 + number, 25, 11)] = 1
    labels[15:45, 45 : 60 + number] = 2
    labels[2:5, 2:5] = 3  # 9 pixels: too small
    rng = np.random.default_rng(number)
    image = np.where(labels > 0, 170, 60) + labels * 15 + rng.normal(0, 6, size)
    return np.clip(image, 0, 255).astype(np.uint8), labels


@pytest.fixture
def shapes() -> Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """``shapes(0)``: an image and its label map."""
    return draw_shapes


@pytest.fixture
def folder_data(tmp_path: Path) -> Path:
    """Four images with label maps in folders, six targets to keep of eight and specks."""
    root = tmp_path / "shapes"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(4):
        image, labels = draw_shapes(number)
        Image.fromarray(image).save(root / "images" / f"case{number}.png")
        Image.fromarray(labels).save(root / "masks" / f"case{number}.png")
    facts = {"name": "shapes", "modality": "CT", "labels": {"1": "disc", "2": "block"}}
    (root / "dataset.json").write_text(json.dumps(facts))
    return root


@pytest.fixture
def index_data(tmp_path: Path) -> Path:
    """Two sets with an index, one of them with parts."""
    root = tmp_path / "indexed"
    rows = []
    for set_name in ("alpha", "beta"):
        (root / set_name).mkdir(parents=True)
        for number in range(3):
            image, labels = draw_shapes(number)
            Image.fromarray(image).save(root / set_name / f"i{number}.png")
            Image.fromarray(labels).save(root / set_name / f"m{number}.png")
            for label, name in ((1, "disc"), (2, "block")):
                mask = labels == label
                row: dict[str, Any] = {
                    "set": set_name,
                    "image": f"{set_name}/i{number}.png",
                    "mask": f"{set_name}/m{number}.png",
                    "label_value": label,
                    "modality": "CT" if set_name == "alpha" else "MR",
                    "target": name,
                    "box_xyxy": list(tight_box(mask)),
                    "area_px": int(mask.sum()),
                    "width": 80,
                    "height": 60,
                }
                if set_name == "beta":
                    row["subset"] = "odd" if number % 2 else "even"
                rows.append(row)
    (root / "index.json").write_text(json.dumps(rows))
    return root


@dataclass
class FakeEngine:
    """Answers with three masks: the true object grown, exact, and empty, the first ranked best.

    It looks the object up by the prompt's box centre or first point. With ``exact_after`` clicks
    it ranks the exact mask best.
    """

    truths: Callable[[], Sequence[Mask]]
    exact_after: int = 1000
    encoded: int = 0
    prompts: list[Prompt] = field(default_factory=list)
    refined: list[int] = field(default_factory=list)
    info: Any = field(
        default_factory=lambda: SimpleNamespace(
            name="fake",
            model_id="fake@000000000000",
            precision_effective="fp32",
            decoder_precision="fp32",
            files={"encoder": "0", "decoder": "1"},
            backend_effective="none",
            backend_version="0",
            threads=1,
        )
    )
    manifest: Any = field(
        default_factory=lambda: SimpleNamespace(
            prompts=SimpleNamespace(
                box=True, points=True, negative_points=True, box_and_points=True, mask=True
            )
        )
    )

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        self.encoded += 1
        return ImageEmbedding(
            {}, image.shape[:2], (1, 1), (1, 1), (1.0, 1.0), "fake@000000000000",
            Timings(preprocess_ms=1.0, encode_ms=20.0),
        )  # fmt: skip

    def decode(
        self, embedding: ImageEmbedding, prompts: Any, *, refine_steps: int = 0
    ) -> list[Prediction]:
        asked = [prompts] if isinstance(prompts, Prompt) else list(prompts)
        self.prompts += asked
        self.refined += [refine_steps] * len(asked)
        return [self._answer(embedding.original_size, prompt) for prompt in asked]

    def _answer(self, size: tuple[int, int], prompt: Prompt) -> Prediction:
        truth = self._find(size, prompt)
        grown = truth.copy()
        grown[1:] |= truth[:-1]
        masks = np.stack([grown, truth, np.zeros(size, np.bool_)])
        points = 0 if prompt.point_coords is None else len(prompt.point_coords)
        scores = np.array([0.9, 0.95 if points >= self.exact_after else 0.8, 0.1], np.float32)
        return Prediction(
            masks=masks,
            scores=scores,
            logits=np.where(masks[:, ::4, ::4], 5.0, -5.0).astype(np.float32),
            stability=scores,
            areas_px=masks.sum(axis=(1, 2)),
            boxes=np.zeros((3, 4)),
            prompt=prompt,
            timings=Timings(decode_prompt_ms=2.0, postprocess_ms=0.5),
        )

    def _find(self, size: tuple[int, int], prompt: Prompt) -> Mask:
        if prompt.box is not None:
            x, y = (prompt.box[0] + prompt.box[2]) / 2, (prompt.box[1] + prompt.box[3]) / 2
        else:
            assert prompt.point_coords is not None
            x, y = prompt.point_coords[0]
        at = (min(int(y), size[0] - 1), min(int(x), size[1] - 1))
        found = [t for t in self.truths() if t.shape == size and t[at]]
        return found[0] if found else np.zeros(size, np.bool_)


@pytest.fixture
def fake_engine() -> Callable[..., Any]:
    """``fake_engine(dataset)``: an engine that knows the masks of a data set's current image."""

    def make(dataset: Any, **options: Any) -> FakeEngine:
        seen: list[Mask] = []
        read = dataset.read_mask

        def watch(target: Target) -> Mask:
            mask: Mask = read(target)
            seen.insert(0, mask)
            del seen[4:]
            return mask

        dataset.read_mask = watch
        return FakeEngine(lambda: seen, **options)

    return make
