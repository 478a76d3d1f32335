"""Whole volumes: which slices are asked with which boxes, what is put together, what is said."""

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

from samrt.errors import DatasetError, OptionError
from samrt.evaluation.dataset import choose, choose_solids
from samrt.evaluation.files import write_report
from samrt.evaluation.formats import ReadOptions, open_dataset
from samrt.evaluation.journal import JOURNAL_NAME, Journal, read_records
from samrt.evaluation.metrics import overlap
from samrt.evaluation.runner import Plan, config_of, evaluate
from samrt.evaluation.solids import measure_solid
from samrt.evaluation.volumes import VOLUMES_NAME, check_ways, evaluate_volumes
from samrt.types import ImageEmbedding, Prediction, Prompt, Timings

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra eval)")
pytest.importorskip("surface_distance", reason="surface-distance is not installed (extra eval)")

SHAPE = (12, 48, 40)  # slices, rows, columns
SPACING = (3.0, 0.5, 0.8)  # of the same


def body(number: int) -> NDArray[np.uint8]:
    """Labels: a ball (1), whose first and last slice are small, and a bar (2) on slices 2 to 9."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    labels = np.zeros(SHAPE, np.uint8)
    ball = ((z - 5) * 2.0) ** 2 + (y - 15) ** 2 + (x - 14) ** 2 <= (10.2 - number) ** 2
    labels[ball] = 1
    labels[2:10, 30:42, 20 + number : 34] = 2
    return labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two NIfTI pairs; objects are bright and each has a grey level of its own."""
    folder = tmp_path / "volumes"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    for number in range(2):
        labels = body(number)
        image = labels * np.uint8(100)
        for part, values in (("images", image), ("labels", labels)):
            stored = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine)
            nibabel.save(stored, folder / part / f"case{number}.nii.gz")
    return folder


@dataclass
class GreyEngine:
    """Answers a box with the pixels of the grey level that most of the box's middle has.

    Candidates: shifted by one row and ranked best, exact, empty. ``deaf``: finds nothing.
    """

    deaf: bool = False
    seen: list[NDArray[np.uint8]] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    refined: list[int] = field(default_factory=list)
    info: Any = field(
        default_factory=lambda: SimpleNamespace(
            name="grey", model_id="grey@0", precision_effective="fp32", decoder_precision="fp32",
            files={}, backend_effective="none", backend_version="0", threads=1,
        )
    )  # fmt: skip
    manifest: Any = field(
        default_factory=lambda: SimpleNamespace(
            prompts=SimpleNamespace(box=True, points=True, negative_points=True)
        )
    )

    def encode(self, image: NDArray[np.uint8], *, window: Any = None) -> ImageEmbedding:
        self.seen.append(image)
        return ImageEmbedding(
            {"image": image}, image.shape[:2], (1, 1), (1, 1), (1.0, 1.0), "grey@0",
            Timings(preprocess_ms=1.0, encode_ms=20.0),
        )  # fmt: skip

    def decode(
        self, embedding: ImageEmbedding, prompts: Any, *, refine_steps: int = 0
    ) -> list[Prediction]:
        asked: Sequence[Prompt] = [prompts] if isinstance(prompts, Prompt) else prompts
        self.prompts += asked
        self.refined += [refine_steps] * len(asked)
        return [self._answer(embedding.features["image"], p) for p in asked]

    def _answer(self, image: NDArray[Any], prompt: Prompt) -> Prediction:
        assert prompt.box is not None
        x0, y0, x1, y1 = (round(v) for v in prompt.box)
        level = image[(y0 + y1) // 2, (x0 + x1) // 2]
        exact = np.zeros(image.shape, np.bool_)
        if not self.deaf and level > 0:
            exact[y0 : y1 + 1, x0 : x1 + 1] = image[y0 : y1 + 1, x0 : x1 + 1] == level
        masks = np.stack([np.roll(exact, 1, 0), exact, np.zeros_like(exact)])
        boxes = np.zeros((3, 4))
        for k, mask in enumerate(masks):
            if mask.any():
                ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                boxes[k] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
        scores = np.array([0.9, 0.8, 0.1], np.float32)
        return Prediction(
            masks=masks, scores=scores, logits=np.zeros((3, 4, 4), np.float32), stability=scores,
            areas_px=masks.sum(axis=(1, 2)), boxes=boxes, prompt=prompt,
            timings=Timings(decode_prompt_ms=2.0, postprocess_ms=0.5),
        )  # fmt: skip


Run = Callable[..., tuple[list[dict[str, Any]], GreyEngine]]


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Run:
    """``run(ways)``: records of all objects, and the engine that was asked."""

    def go(ways: Sequence[str], engine: Any = None, **options: Any) -> Any:
        engine = engine or GreyEngine()
        data = open_dataset(root)
        solids = choose_solids(data)
        with Journal(tmp_path / VOLUMES_NAME, {"ways": list(ways)}) as journal:
            evaluate_volumes(engine, data, solids, ways, journal, **options)
        return list(read_records(tmp_path / VOLUMES_NAME)), engine

    return go


def upright(volume: NDArray[Any]) -> NDArray[Any]:
    """As the data set shows slices: front up, patient's right at the left."""
    return volume[:, ::-1, ::-1]


def test_objects_of_nifti_pairs(root: Path) -> None:
    data = open_dataset(root)
    assert [s.key for s in data.solids] == [
        f"images/case{k}.nii.gz#{label}" for k in (0, 1) for label in (1, 2)
    ]
    first = data.solids[0]
    assert (first.shape, first.spacing) == (SHAPE, pytest.approx(SPACING))
    assert first.voxels == np.count_nonzero(body(0) == 1)
    assert np.array_equal(data.read_labels(first.case), upright(body(0)))
    fifth = next(t for t in data.targets if t.slice == 5)
    assert np.array_equal(data.read_slice(first.case, 5), data.read_image(fifth))
    side = open_dataset(root, options=ReadOptions(plane="coronal")).solids[0]
    assert (side.shape, side.spacing) == ((48, 12, 40), pytest.approx((0.5, 3.0, 0.8)))


def test_every_slice_of_an_object_is_asked_with_its_tight_box(run: Run) -> None:
    records, engine = run(["slices"])
    small = [int((plane == 1).sum()) for plane in body(0)]
    assert 0 < min(n for n in small if n) <= 50  # dropped as a target, but part of the volume
    for number in range(2):
        labels = upright(body(number))
        for label, record in zip((1, 2), records[2 * number :], strict=False):
            truth = labels == label
            assert record["voxels"] == np.count_nonzero(truth)
            answer = np.roll(truth, 1, 1)
            wanted = measure_solid(answer, truth, SPACING)
            found = record["ways"]["slices"]
            for name, value in wanted.items():
                assert found["deployable"][name] == pytest.approx(value, abs=1e-6), name
            assert found["deployable"]["hd"] == pytest.approx(SPACING[1])
            assert (found["oracle"]["dice"], found["oracle"]["nsd"]) == (1.0, 1.0)
            assert found["oracle"]["voxels"] == record["voxels"]
    # one encode a slice that holds something, one prompt an object on it
    held = [(upright(body(k)) == n).any(axis=(1, 2)) for k in (0, 1) for n in (1, 2)]
    assert len(engine.prompts) == sum(int(h.sum()) for h in held)
    assert len(engine.seen) == sum(int((held[2 * k] | held[2 * k + 1]).sum()) for k in (0, 1))


def test_slices_are_refined_as_asked(run: Run) -> None:
    assert set(run(["slices"], refine_steps=3)[1].refined) == {3}


def test_following_refines_in_its_own_way(run: Run) -> None:
    assert set(run(["propagate"], refine_steps=3)[1].refined) == {0}


def test_propagation_from_the_middle_slice(run: Run) -> None:
    records, engine = run(["propagate"])
    bar = records[1]["ways"]["propagate"]
    truth = upright(body(0)) == 2
    assert (records[1]["slices"], bar["start"]) == ([2, 9, 8], 6)
    first = engine.prompts[0]
    assert first.box is not None
    middle = np.argwhere(upright(body(0))[5] == 1)
    assert first.box == (*middle.min(0)[::-1], *middle.max(0)[::-1])
    assert bar["slices"] == 8
    assert set(bar["stopped"]) == {"up", "down"}
    assert all("nothing found" in why for why in bar["stopped"].values())
    assert bar["deployable"]["dice"] > 0.9
    assert "slices" not in records[1]["ways"]
    assert bar["deployable"]["dice"] < 1.0 or bar["deployable"]["voxels"] == truth.sum()


def test_nothing_found_is_an_empty_answer(run: Run) -> None:
    records, _ = run(["slices", "propagate"], GreyEngine(deaf=True))
    for record in records:
        for found in (
            record["ways"]["slices"]["oracle"],
            record["ways"]["propagate"]["deployable"],
        ):
            assert (found["dice"], found["nsd"], found["hd95"]) == (0.0, 0.0, None)
        assert "nothing is found" in record["ways"]["propagate"]["stopped"]["start"]


def test_a_stopped_run_goes_on(run: Run, tmp_path: Path) -> None:
    complete, _ = run(["slices"])
    path = tmp_path / VOLUMES_NAME
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    again, engine = run(["slices"])
    assert again == complete
    assert len(engine.prompts) < sum(r["slices"][2] for r in complete)
    before = len(run(["slices"])[1].prompts)
    assert before == 0


def test_a_broken_volume_leaves_the_rest(root: Path, run: Run, tmp_path: Path) -> None:
    data = open_dataset(root)
    path = root / "images" / "case0.nii.gz"
    path.write_bytes(path.read_bytes()[:150])
    with Journal(tmp_path / "a.jsonl", {}) as journal, pytest.raises(DatasetError):
        evaluate_volumes(GreyEngine(), data, data.solids, ["slices"], journal)
    with Journal(tmp_path / "b.jsonl", {}) as journal:
        evaluate_volumes(GreyEngine(), data, data.solids, ["slices"], journal, skip_bad=True)
    records = list(read_records(tmp_path / "b.jsonl"))
    assert ["error" in r for r in records] == [True, True, False, False]


def test_choice_of_objects(root: Path) -> None:
    data = open_dataset(root)
    assert len(choose_solids(data)) == 4
    assert {s.case for s in choose_solids(data, exclude=["*case1*"])} == {"images/case0.nii.gz"}
    one = choose_solids(data, limit=1, seed=3)
    assert one == choose_solids(data, limit=1, seed=3)
    assert len(one) == 1
    assert {choose_solids(data, limit=1, seed=s)[0].key for s in range(12)} > {one[0].key}


def test_npz_volumes_are_objects_too(tmp_path: Path) -> None:
    labels = body(0)
    for name, more in (("3D_CT_a", {"spacing": np.array([0.8, 0.5, 3.0])}), ("3D_MR_b", {})):
        np.savez(tmp_path / f"{name}.npz", imgs=labels * np.uint8(100), gts=labels, **more)
    data = open_dataset(tmp_path)
    assert [(s.modality, s.spacing) for s in data.solids[::2]] == [("CT", SPACING), ("MR", None)]
    with Journal(tmp_path / "x.jsonl", {}) as journal:
        evaluate_volumes(GreyEngine(), data, data.solids, ["slices"], journal)
    found = list(read_records(tmp_path / "x.jsonl"))
    hd = [r["ways"]["slices"]["deployable"]["hd"] for r in found]
    assert hd == pytest.approx([0.5, 0.5, 1.0, 1.0])


def test_pictures_are_no_volumes(folder_data: Path) -> None:
    data = open_dataset(folder_data)
    assert data.solids == []
    with pytest.raises(DatasetError, match="holds no volume"):
        data.read_labels("case0")
    with pytest.raises(DatasetError, match="holds no slice 3"):
        data.read_slice("case0", 3)


def test_what_cannot_be_asked(run: Run) -> None:
    with pytest.raises(OptionError, match="unknown way"):
        check_ways(["sideways"])
    assert check_ways(["propagate", "slices"]) == ("slices", "propagate")
    points = GreyEngine()
    points.manifest.prompts.box = False
    with pytest.raises(OptionError, match="takes no boxes"):
        run(["slices"], points)


def test_the_reports_show_the_volumes(root: Path, tmp_path: Path) -> None:
    data, engine, folder = open_dataset(root), GreyEngine(), tmp_path / "out"
    plan = Plan(("S5",))
    targets = choose(data)
    with Journal(folder / JOURNAL_NAME, config_of(engine, data, targets, plan)) as journal:
        evaluate(engine, data, targets, plan, journal)
    ways = ["slices", "propagate"]
    config = config_of(engine, data, data.solids, plan, volumes=ways)
    with Journal(folder / VOLUMES_NAME, config) as journal:
        evaluate_volumes(engine, data, data.solids, ways, journal)
        journal.add({"key": "gone#1", "set": "volumes", "error": "is damaged"})
    write_report(folder, data, targets, volumes=True)
    records = [r for r in read_records(folder / VOLUMES_NAME) if "ways" in r]
    volumes = json.loads((folder / "eval.json").read_text())["volumes"]
    assert (volumes["objects"], volumes["cases"], volumes["ways"]) == (4, 2, ways)
    assert set(volumes["groups"]["target"]) == {"label 1", "label 2"}
    for name, chosen in (("label 1", records[::2]), ("label 2", records[1::2])):
        group = volumes["groups"]["target"][name]
        assert (group["targets"], group["volumes"]) == (2, 2)
        for way in ways:
            values = [r["ways"][way]["deployable"]["asd"] for r in chosen]
            mean, lo, hi, count = group["figures"][f"{way}.deployable.asd"]
            assert (mean, count) == (pytest.approx(np.mean(values), abs=1e-5), 2)
            assert lo <= mean <= hi
    (whole,) = volumes["groups"]["all"].values()
    said = f"{whole['figures']['slices.deployable.dice'][0]:.3f}"
    for name in ("eval.md", "eval.html"):
        text = (folder / name).read_text()
        assert "Whole volumes" in text
        assert said in text
        assert "one box on the middle slice, propagated" in text
        assert "HD95 (mm)" in text
        assert "skipped gone#1: is damaged" in text
    write_report(folder, data, targets)
    assert "volumes" not in json.loads((folder / "eval.json").read_text())


def test_the_volume_is_not_the_mean_of_its_slices(run: Run) -> None:
    """A 3-D Dice weighs voxels; the mean of slices would weigh thin ends as much as the middle."""
    records, _ = run(["slices"])
    truth = upright(body(0)) == 1
    answer = np.roll(truth, 1, 1)
    held = truth.any(axis=(1, 2))
    slices = np.mean([overlap(a, b)[0] for a, b in zip(answer[held], truth[held], strict=True)])
    assert records[0]["ways"]["slices"]["deployable"]["dice"] > slices + 0.005
