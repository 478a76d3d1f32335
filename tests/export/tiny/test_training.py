"""Training, evaluation and export end to end, on a few seconds' worth of data."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import samrt  # noqa: E402
from samrt._version import __version__  # noqa: E402
from samrt.bundle import Bundle, find_model  # noqa: E402
from samrt_export.tiny import data, metrics  # noqa: E402
from samrt_export.tiny.bundle_segmenter import BundleSegmenter  # noqa: E402
from samrt_export.tiny.evaluate import Answer, choose_targets, evaluate, format_table  # noqa: E402
from samrt_export.tiny.export import export_tiny  # noqa: E402
from samrt_export.tiny.onnx_graph import cpu_graphs, graphs  # noqa: E402
from samrt_export.tiny.prompts import Draft  # noqa: E402
from samrt_export.tiny.torch_segmenter import TorchSegmenter, load_checkpoint  # noqa: E402
from samrt_export.tiny.train import Phase, TrainOptions, next_round, slim, train  # noqa: E402

PUBLISHED = Path(__file__).resolve().parents[3] / "export" / "checkpoints" / "tiny-v1.pt"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    data.build_pool(folder, 6, seed=5)
    return folder


def _train(out: Path, pool: Path, steps: int) -> dict[str, object]:
    phase = Phase(size=128, batch=2, targets=2, steps=4, lr=1e-3, lr_end=1e-4)
    short = Phase(**{**phase.__dict__, "steps": steps})
    path = train(TrainOptions(out=out, pool=pool, phases=(short,), save_every=2, threads=1))
    return dict(torch.load(path, weights_only=True))


@pytest.fixture(scope="module")
def checkpoint(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    _train(out, pool, 4)
    return out / "last.pt"


def test_pool_is_reproducible(pool: Path, tmp_path: Path) -> None:
    data.build_pool(tmp_path, 2, seed=5)
    for name in ("000000.npz", "000001.npz"):
        with np.load(tmp_path / name) as a, np.load(pool / name) as b:
            assert np.array_equal(a["image"], b["image"])
            assert np.array_equal(a["layers"], b["layers"])


def test_items_keep_image_and_masks_aligned() -> None:
    image = np.zeros((256, 256), np.uint8)
    image[64:160, 80:200] = 220
    layer = (image > 0).astype(np.uint8)[None]
    sample = data.Sample(image, layer, "box")
    hits = []
    for seed in range(40):
        item = data.draw_item(np.random.default_rng(seed), sample, 128, 1)
        if item is None:
            continue
        inside = item.masks[0].astype(bool)
        h, w = item.valid
        grey = item.image.mean(axis=2)[:h, :w]
        a, b = grey[inside[:h, :w]], grey[~inside[:h, :w]]
        if len(a) > 50 and len(b) > 50:
            hits.append(abs(np.median(a) - np.median(b)) > 0.3)
    assert len(hits) > 15
    assert np.mean(hits) > 0.9


def test_training_can_be_interrupted(pool: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Stopping after step 2 and going on gives the weights of an uninterrupted run."""
    phase = Phase(size=128, batch=2, targets=2, steps=4, lr=1e-3, lr_end=1e-4)
    options = TrainOptions(out=tmp_path, pool=pool, phases=(phase,), save_every=2, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        from samrt_export.tiny import train as module

        original = module.save

        def stop_after_first(*args: object) -> None:
            original(*args)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        patch.setattr(module, "save", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            train(options)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    resumed = torch.load(train(options), weights_only=True)
    whole = torch.load(checkpoint, weights_only=True)
    for name, value in whole["model"].items():
        assert torch.allclose(value, resumed["model"][name], atol=1e-5), name


def test_a_frozen_encoder_stays_and_the_decoder_learns_in_rounds(
    pool: Path, checkpoint: Path, tmp_path: Path
) -> None:
    phase = Phase(size=128, batch=2, targets=2, steps=3, lr=1e-3, lr_end=1e-4)
    options = TrainOptions(
        out=tmp_path, pool=pool, phases=(phase,), threads=1, start_from=checkpoint, rounds=3,
        refine=0.5, frozen_encoder=True,
    )  # fmt: skip
    before = torch.load(checkpoint, weights_only=True)["average"]
    after = torch.load(train(options), weights_only=True)["model"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in moved if not name.startswith("decoder.")}
    learning = {n for n, _ in load_checkpoint(checkpoint).decoder.named_parameters()}
    assert {f"decoder.{name}" for name in learning} <= moved


def test_refined_rounds_add_nothing_but_the_best_mask() -> None:
    drafts = [Draft(box=(1.0, 2.0, 30.0, 40.0)), Draft(points=[(5.0, 6.0)], labels=[1])]
    low = torch.arange(2 * 4 * 8 * 8, dtype=torch.float32).reshape(2, 4, 8, 8) / 20 - 10
    iou = torch.tensor([[0.1, 0.2, 0.9, 0.3], [0.8, 0.2, 0.1, 0.3]])
    target = np.zeros((2, 8, 8), np.float32)
    seen = set()
    for seed in range(20):
        asked = copy.deepcopy(drafts)
        rng = np.random.default_rng(seed)
        mask, has = next_round(rng, asked, low, iou, target, refine=1.0)
        assert asked == drafts
        assert has.tolist() == [1.0, 1.0]
        assert torch.equal(mask[1, 0], low[1, 0])
        k = next(k for k in range(4) if torch.equal(mask[0, 0], low[0, k].clamp(-20, 20)))
        seen.add(k)
    assert seen == {0, 2}


def test_a_refined_answer_is_that_of_its_own_mask(checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint)
    image = np.random.default_rng(3).integers(0, 255, (90, 120), np.uint8)
    draft = Draft(box=(20.0, 10.0, 80.0, 70.0))
    plain, refined = TorchSegmenter(model, 128), TorchSegmenter(model, 128, refine_steps=2)
    for segmenter in (plain, refined):
        segmenter.set_image(image)
    answer = plain.predict(draft)
    for _ in range(2):
        answer = plain.predict(draft, answer.low)
    assert np.array_equal(refined.predict(draft).low, answer.low)


def test_metrics_on_known_shapes() -> None:
    a = np.zeros((40, 40), bool)
    a[10:20, 10:20] = True
    b = np.zeros_like(a)
    b[10:20, 15:25] = True
    assert metrics.dice(a, b) == pytest.approx(0.5)
    assert metrics.nsd(a, a) == 1.0
    near = np.roll(a, 2, axis=1)
    assert metrics.nsd(a, near) == 1.0
    assert metrics.nsd(a, np.roll(a, 15, axis=1)) == 0.0
    assert metrics.nsd(a, np.zeros_like(a)) == 0.0
    area = metrics.ellipse_in((0, 0, 39, 39), (40, 40)).sum()
    assert area == pytest.approx(np.pi * 400, rel=0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets of bright discs, one of them named like the set that is trained on."""
    rows = []
    y, x = np.mgrid[:96, :120]
    for k in range(6):
        name = "btcv_imis" if k < 3 else "discs"
        mask = ((x - 40 - 4 * k) ** 2 + (y - 48) ** 2 < 20**2).astype(np.uint8)
        image_path, mask_path = f"{name}/ABD_{k:03d}_001.png", f"{name}/ABD_{k:03d}_001_m.png"
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(mask * 150 + 50).save(tmp_path / image_path)
        Image.fromarray(mask).save(tmp_path / mask_path)
        ys, xs = np.nonzero(mask)
        rows.append(
            {
                "set": name, "image": image_path, "mask": mask_path, "label_value": 1,
                "box_xyxy": [int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())],
                "use": "train-ok",
            }
        )  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps(rows))
    return tmp_path


class Threshold:
    """Knows the answer: every pixel brighter than 100."""

    image = np.zeros((1, 1), np.uint8)

    def set_image(self, image: np.ndarray) -> None:
        self.image = image

    def predict(self, draft: Draft, mask_input: np.ndarray | None = None) -> Answer:
        return Answer(self.image > 100, np.zeros((4, 4), np.float32), 1.0)


def test_evaluation_scores_a_perfect_segmenter_one(folder: Path) -> None:
    table = evaluate(Threshold(), folder)
    mean = table["mean of sets"]
    assert [mean[k] for k in ("box", "box_nsd", "jitter", "point", "click5")] == [1.0] * 5
    assert 0.9 < mean["ellipse"] < 1.0
    assert "above the ellipse on 2 of 2 sets" in format_table(table)


def test_cases_that_are_trained_on_are_not_evaluated(folder: Path) -> None:
    tested = {str(r["image"]) for r in choose_targets(folder, 100, 0)["btcv_imis"]}
    trained = {str(r["image"]) for r in data.real_cases(folder, train=True)}
    assert len(tested) == 1
    assert len(trained) == 2
    assert not tested & trained


def test_export_and_evaluate_the_bundle(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    bundle = export_tiny(checkpoint, tmp_path / "t.samrt")
    parity = bundle.manifest.parity
    assert parity is not None
    assert parity["prompts"] > 10
    reference = TorchSegmenter(load_checkpoint(checkpoint))
    with samrt.load(bundle.path) as predictor:
        ours = evaluate(BundleSegmenter(predictor), folder, clicks=1)
    theirs = evaluate(reference, folder, clicks=1)
    for name, row in theirs.items():
        for key, value in row.items():
            assert ours[name][key] == pytest.approx(value, abs=0.05), (name, key)
    with pytest.raises(samrt.SamrtError, match="exists"):
        export_tiny(checkpoint, tmp_path / "t.samrt")


def test_slim_checkpoint_is_small_and_the_same_network(checkpoint: Path, tmp_path: Path) -> None:
    slim(checkpoint, tmp_path / "slim.pt")
    assert (tmp_path / "slim.pt").stat().st_size < checkpoint.stat().st_size / 5
    image = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
    answers = []
    for path in (checkpoint, tmp_path / "slim.pt"):
        segmenter = TorchSegmenter(load_checkpoint(path), size=128)
        segmenter.set_image(image)
        answers.append(segmenter.predict(Draft(box=(10, 10, 60, 70))).low)
    scale = float(np.abs(answers[0]).max())
    assert 0 < float(np.abs(answers[0] - answers[1]).max()) < 0.02 * scale


def test_slim_of_several_is_their_mean(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    other = {**state, "average": {k: 3 * v for k, v in state["average"].items()}}
    torch.save(other, tmp_path / "other.pt")
    slim([checkpoint, tmp_path / "other.pt"], tmp_path / "mean.pt")
    mean = torch.load(tmp_path / "mean.pt", weights_only=True)["average"]
    for key, value in state["average"].items():
        torch.testing.assert_close(mean[key].double(), 2 * value.double(), rtol=1e-3, atol=1e-4)

    torch.save({**state, "config": {**state["config"], "image_size": 64}}, tmp_path / "else.pt")
    with pytest.raises(ValueError, match="another network"):
        slim([checkpoint, tmp_path / "else.pt"], tmp_path / "no.pt")
    assert not (tmp_path / "no.pt").exists()


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the checkpoint is not in this copy")
def test_shipped_bundle_is_the_published_checkpoint(tmp_path: Path) -> None:
    model, size = load_checkpoint(PUBLISHED), 512
    shipped = Bundle.open(find_model("tiny"))
    for role, canonical, own in zip(
        ("encoder", "decoder"), graphs(model, size), cpu_graphs(model, size), strict=True
    ):
        artifact = shipped.artifact(role)
        form = shipped.form_for(artifact, "onnxruntime")
        assert form is not None
        for graph, part in (
            (canonical.model(__version__), artifact),
            (own.model(__version__), form),
        ):
            theirs = onnx.load(shipped.file_of(part))
            ours = {i.name: onnx.numpy_helper.to_array(i) for i in graph.graph.initializer}
            assert [n.op_type for n in theirs.graph.node] == [n.op_type for n in graph.graph.node]
            assert set(ours) == {item.name for item in theirs.graph.initializer}
            for item in theirs.graph.initializer:
                value = onnx.numpy_helper.to_array(item)
                np.testing.assert_allclose(value, ours[item.name], rtol=2e-3, atol=1e-5)
    total = sum(path.stat().st_size for path in shipped.path.iterdir())
    assert total <= 10e6, "the embedded model has grown beyond its 10 MB"
