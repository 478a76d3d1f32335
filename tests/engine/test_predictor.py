from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import Prediction, Predictor, Prompt

BOX = (20, 10, 60, 40)
KINDS = {
    "box": Prompt(box=BOX),
    "small box": Prompt(box=(0.5, 0.5, 9, 12)),
    "point": Prompt(point_coords=[[30, 20]], point_labels=[1]),
    "background": Prompt(point_coords=[[70, 5]], point_labels=[0]),
    "points": Prompt(
        point_coords=[[30, 20], [70, 40], [5, 5]],
        point_labels=[1, 0, 1],
    ),
    "box and point": Prompt(box=BOX, point_coords=[[30, 20]], point_labels=[0]),
    "mask": Prompt(mask_input=np.linspace(-6, 6, 1024, dtype=np.float32).reshape(32, 32)),
    "all": Prompt(
        box=BOX,
        point_coords=[[30, 20], [50, 30]],
        point_labels=[1, 1],
        mask_input=np.linspace(6, -6, 1024, dtype=np.float32).reshape(32, 32),
    ),
}
ARRAYS = ("masks", "scores", "logits", "stability", "areas_px", "boxes")


def assert_same(a: Prediction, b: Prediction) -> None:
    assert a.prompt is b.prompt
    np.testing.assert_allclose(a.logits, b.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)
    assert (a.masks != b.masks).mean() < 1e-3


class Calls:
    """Counts the prompts of each decoder call."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        model = predictor._model
        run = model.run_decoder

        def counted(features: Any, prompts: Any) -> Any:
            self.sizes.append(len(prompts.point_coords))
            return run(features, prompts)

        monkeypatch.setattr(model, "run_decoder", counted)


@pytest.fixture
def ready(predictor: Predictor, image: NDArray[np.uint8]) -> Predictor:
    predictor.set_image(image)
    return predictor


def test_a_prediction_has_the_documented_arrays(ready: Predictor) -> None:
    pred = ready.predict(box=BOX)
    assert pred.masks.shape == (3, 48, 80)
    assert pred.masks.dtype == np.bool_
    assert pred.scores.shape == pred.stability.shape == pred.areas_px.shape == (3,)
    assert pred.scores.dtype == pred.stability.dtype == np.float32
    assert pred.areas_px.dtype == np.int64
    assert pred.logits.shape == (3, 32, 32)
    assert pred.logits.dtype == np.float32
    assert pred.boxes.shape == (3, 4)
    assert pred.boxes.dtype == np.float64
    assert pred.mask_logits is None
    assert pred.best == int(pred.scores.argmax())
    assert ((pred.stability >= 0) & (pred.stability <= 1)).all()
    assert pred.prompt.box == tuple(map(float, BOX))
    for name in ("preprocess_ms", "encode_ms", "decode_prompt_ms", "postprocess_ms"):
        assert (pred.timings[name] or 0) > 0
    assert pred.timings.decode_image_ms is None


def test_area_and_box_describe_the_mask(ready: Predictor) -> None:
    answers = ready.predict_batch(list(KINDS.values()))
    assert sum((pred.areas_px > 0).sum() for pred in answers) > 20
    for pred in answers:
        for mask, area, box in zip(pred.masks, pred.areas_px, pred.boxes, strict=True):
            ys, xs = np.nonzero(mask)
            assert area == len(ys)
            if area == 0:
                assert not box.any()
                continue
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_masks_lie_where_the_prompt_is(ready: Predictor) -> None:
    """The fixture draws blobs around the prompt: swapped axes or scales would show."""
    for x, y in ((14, 34), (66, 12), (40, 24)):
        mask = ready.predict(box=(x - 8, y - 8, x + 8, y + 8)).masks[0]
        ys, xs = np.nonzero(mask)
        assert abs(xs.mean() - x) < 3
        assert abs(ys.mean() - y) < 3


def test_single_and_multi_mask_pick_the_manifest_s_masks(ready: Predictor) -> None:
    several = ready.predict(box=BOX)
    single = ready.predict(box=BOX, multimask_output=False)
    assert single.masks.shape == (1, 48, 80)
    assert several.masks.shape == (3, 48, 80)
    prompt = several.prompt
    from samrt.decoding import placement_of
    from samrt.prompts import decoder_input

    where = placement_of(ready.embedding)
    tokens = decoder_input([prompt], where, ready.manifest.prompts, (32, 32))
    logits, scores = ready._model.run_decoder(ready.embedding.features, tokens)
    np.testing.assert_allclose(single.logits, logits[0, :1], atol=1e-6)
    np.testing.assert_allclose(several.logits, logits[0, 1:], atol=1e-6)
    np.testing.assert_allclose(several.scores, scores[0, 1:], atol=1e-6)


@pytest.mark.parametrize("multimask", [True, False])
def test_a_batch_equals_one_by_one_in_order(ready: Predictor, multimask: bool) -> None:
    prompts = [*KINDS.values(), *reversed(KINDS.values())]
    together = ready.predict_batch(prompts, multimask_output=multimask)
    assert len(together) == len(prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = ready.decode(ready.embedding, prompt, multimask_output=multimask)
        assert_same(answer, alone[0])


def test_the_fixture_would_show_a_wrong_batch(ready: Predictor) -> None:
    """Padding, order and every prompt kind change the fixture's answer."""
    from dataclasses import replace

    from samrt.decoding import placement_of
    from samrt.prompts import decoder_input

    where = placement_of(ready.embedding)
    tokens = decoder_input([KINDS["box"]], where, ready.manifest.prompts, (32, 32))
    padded = replace(
        tokens,
        point_coords=np.pad(tokens.point_coords, ((0, 0), (0, 1), (0, 0))),
        point_labels=np.pad(tokens.point_labels, ((0, 0), (0, 1)), constant_values=-1),
    )
    features = ready.embedding.features
    plain, _ = ready._model.run_decoder(features, tokens)
    changed, _ = ready._model.run_decoder(features, padded)
    assert np.abs(plain - changed).max() > 0.01
    answers = ready.predict_batch(list(KINDS.values()))
    for i, first in enumerate(answers):
        for second in answers[i + 1 :]:
            assert np.abs(first.logits - second.logits).max() > 0.01


@pytest.mark.parametrize(
    ("chunk", "sizes"), [(16, [16, 4]), (20, [20]), (7, [7, 7, 6]), (1, [1] * 20)]
)
def test_boxes_share_decoder_calls(
    ready: Predictor, monkeypatch: pytest.MonkeyPatch, chunk: int, sizes: list[int]
) -> None:
    prompts = [Prompt(box=(i, i, i + 20, i + 15)) for i in range(20)]
    expected = [ready.decode(ready.embedding, prompt)[0] for prompt in prompts]
    calls = Calls(ready, monkeypatch)
    answers = ready.predict_batch(prompts, chunk_size=chunk)
    assert calls.sizes == sizes
    for a, b in zip(answers, expected, strict=True):
        assert_same(a, b)


def test_prompts_of_one_length_share_a_call(
    ready: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(ready, monkeypatch)
    ready.predict_batch([KINDS[k] for k in ("box", "points", "point", "small box", "background")])
    assert calls.sizes == [4, 1]


def test_inert_padding_lets_all_prompts_share_a_call(
    load_edited: Callable[..., Predictor],
    image: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = load_edited({"prompts.padding_inert": True})
    predictor.set_image(image)
    calls = Calls(predictor, monkeypatch)
    answers = predictor.predict_batch(list(KINDS.values()))
    assert calls.sizes == [len(KINDS)]
    assert [a.prompt for a in answers] == list(KINDS.values())


def test_a_previous_mask_matters(ready: Predictor) -> None:
    first = ready.predict(box=BOX)
    again = ready.predict(box=BOX, mask_input=first.logits[first.best])
    stacked = ready.predict(box=BOX, mask_input=first.logits[first.best][None])
    assert np.abs(again.logits - first.logits).max() > 0.1
    np.testing.assert_array_equal(again.logits, stacked.logits)


def test_full_size_logits_agree_with_the_masks(ready: Predictor) -> None:
    pred = ready.predict(box=BOX, return_logits=True)
    assert pred.mask_logits is not None
    assert pred.mask_logits.shape == (3, 48, 80)
    assert pred.mask_logits.dtype == np.float32
    np.testing.assert_array_equal(pred.mask_logits > 0, pred.masks)
    masks, _, _ = pred
    assert masks is pred.mask_logits
    (batch,) = ready.predict_batch([KINDS["box"]], return_logits=True)
    assert batch.mask_logits is not None


def test_an_empty_mask_comes_with_a_warning(
    load_edited: Callable[..., Predictor], image: NDArray[np.uint8]
) -> None:
    predictor = load_edited({"output.threshold": 1e6})
    predictor.set_image(image)
    pred = predictor.predict(box=BOX)
    assert not pred.masks.any()
    assert pred.areas_px.tolist() == [0, 0, 0]
    assert pred.boxes.tolist() == [[0, 0, 0, 0]] * 3
    assert pred.stability.tolist() == [0, 0, 0]
    assert [w for w in pred.warnings if "is empty" in w] == [
        f"mask {i} is empty: no pixel is above the threshold" for i in range(3)
    ]


def test_a_normal_mask_has_no_warning(ready: Predictor) -> None:
    assert ready.predict(box=BOX).warnings == ()


# -- state -------------------------------------------------------------------------------------


def test_predict_needs_an_image(predictor: Predictor) -> None:
    assert not predictor.is_image_set
    for call in (
        lambda: predictor.predict(box=BOX),
        lambda: predictor.predict_batch([KINDS["box"]]),
        lambda: predictor.embedding,
    ):
        with pytest.raises(samrt.ImageError, match="no image is set: call set_image before"):
            call()


@pytest.mark.parametrize(
    "bad",
    [np.zeros((0, 5, 3), np.uint8), np.zeros((4, 4)), np.full((4, 4), np.nan), "nowhere.png"],
    ids=["empty", "no window", "nan", "missing file"],
)
def test_a_bad_image_leaves_the_good_one(ready: Predictor, bad: Any) -> None:
    before = ready.predict(box=BOX)
    with pytest.raises(samrt.ImageError):
        ready.set_image(bad)
    assert ready.is_image_set
    np.testing.assert_array_equal(ready.predict(box=BOX).logits, before.logits)


def test_a_failing_encoder_leaves_the_good_image(
    ready: Predictor, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ready.predict(box=BOX)

    def fail(tensor: Any) -> None:
        raise samrt.BackendError("broken")

    monkeypatch.setattr(ready._model, "run_encoder", fail)
    with pytest.raises(samrt.BackendError, match="broken"):
        ready.set_image(image[::-1].copy())
    np.testing.assert_array_equal(ready.predict(box=BOX).logits, before.logits)


def test_reset_forgets_and_a_new_image_replaces(ready: Predictor, image: NDArray[np.uint8]) -> None:
    first = ready.predict(box=BOX)
    ready.set_image(image[:, ::-1].copy())
    second = ready.predict(box=BOX)
    assert np.abs(first.logits - second.logits).max() > 1e-3
    ready.reset_image()
    assert not ready.is_image_set
    with pytest.raises(samrt.ImageError):
        ready.predict(box=BOX)


def test_returned_arrays_belong_to_the_caller(ready: Predictor) -> None:
    kept = ready.predict(box=BOX, return_logits=True)
    copies = {name: getattr(kept, name).copy() for name in ARRAYS}
    victim = ready.predict(box=BOX, return_logits=True)
    for name in (*ARRAYS, "mask_logits"):
        getattr(victim, name)[...] = 1
    again = ready.predict(box=BOX)
    for name, expected in copies.items():
        np.testing.assert_array_equal(getattr(kept, name), expected)
        np.testing.assert_array_equal(getattr(again, name), expected)


def test_answers_of_one_batch_share_no_memory(ready: Predictor) -> None:
    answers = ready.predict_batch([KINDS["box"], KINDS["small box"]])
    for name in ARRAYS:
        first, second = (getattr(answer, name) for answer in answers)
        assert not np.shares_memory(first, second)
        assert first.flags.writeable


def test_the_callers_image_may_change_afterwards(
    predictor: Predictor, image: NDArray[np.uint8]
) -> None:
    mine = image.copy()
    predictor.set_image(mine)
    before = predictor.predict(box=BOX)
    mine[:] = 0
    np.testing.assert_array_equal(predictor.predict(box=BOX).logits, before.logits)
    assert not any(a.flags.writeable for a in predictor.embedding.features.values())


# -- embeddings as values ------------------------------------------------------------------------


def test_encode_and_decode_do_without_state(predictor: Predictor, image: NDArray[np.uint8]) -> None:
    embedding = predictor.encode(image)
    assert not predictor.is_image_set
    assert embedding.original_size == (48, 80)
    assert embedding.input_size == (38, 64)
    assert embedding.frame_size == (64, 64)
    assert embedding.model_id == predictor.info.model_id
    (answer,) = predictor.decode(embedding, KINDS["box"])
    predictor.set_image(image)
    np.testing.assert_array_equal(answer.logits, predictor.predict(box=BOX).logits)
    assert predictor.decode(embedding, []) == []


def test_a_saved_embedding_gives_the_same_masks(ready: Predictor, tmp_path: Path) -> None:
    expected = ready.predict(box=BOX)
    ready.embedding.save(tmp_path / "e.npz")
    ready.reset_image()
    ready.set_embedding(samrt.ImageEmbedding.load(tmp_path / "e.npz"))
    got = ready.predict(box=BOX)
    np.testing.assert_array_equal(got.logits, expected.logits)
    np.testing.assert_array_equal(got.masks, expected.masks)
    assert got.timings.encode_ms is None


def test_an_embedding_of_another_model_is_refused(
    ready: Predictor, load_edited: Callable[..., Predictor]
) -> None:
    other = load_edited({"input.channel_order": "BGR"})
    for call in (
        lambda: other.decode(ready.embedding, KINDS["box"]),
        lambda: other.set_embedding(ready.embedding),
    ):
        with pytest.raises(samrt.BundleError, match=r"made by fixture@.*encode the image with"):
            call()
    assert not other.is_image_set


def test_an_embedding_with_impossible_sizes_is_refused(ready: Predictor) -> None:
    from dataclasses import replace

    for changes in ({"original_size": (480, 80)}, {"scale": (1.0, 1.0)}, {"input_size": (64, 64)}):
        with pytest.raises(samrt.BundleError, match="sizes that do not fit together"):
            ready.decode(replace(ready.embedding, **changes), KINDS["box"])
    with pytest.raises(samrt.BackendError, match=r"wrong inputs: .*image_embeddings"):
        ready.decode(
            replace(ready.embedding, features={"x": np.zeros(1, np.float32)}), KINDS["box"]
        )
    with pytest.raises(samrt.ImageError, match="expected an ImageEmbedding from encode, got dict"):
        ready.decode({}, KINDS["box"])  # type: ignore[arg-type]


def test_several_threads_may_encode_and_decode(
    predictor: Predictor,
    image: NDArray[np.uint8],
    together: Callable[[Callable[[int], Any], int], list[Any]],
) -> None:
    images = [np.roll(image, 9 * k, axis=1) for k in range(4)]
    alone = [predictor.decode(predictor.encode(x), KINDS["box"])[0].logits for x in images]
    found = together(
        lambda k: predictor.decode(predictor.encode(images[k]), KINDS["box"])[0].logits, 4
    )
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)
