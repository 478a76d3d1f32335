"""The backend end to end over the fake GPU: data flow, order, reuse of memory, errors."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samrt
from samrt import BackendError
from samrt.backends.base import Session
from samrt.bundle import Bundle

BOX = (10, 8, 40, 30)
Open = Callable[..., samrt.Predictor]


def decoder_feeds(
    features: dict[str, NDArray[Any]], count: int = 2, rows: int = 3
) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        **features,
        "point_coords": rng.uniform(0, 60, (count, rows, 2)).astype(np.float32),
        "point_labels": np.ones((count, rows), np.float32),
        "mask_input": np.zeros((count, 1, 32, 32), np.float32),
        "has_mask_input": np.zeros(count, np.float32),
    }


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("10", {}),
        ("11", {}),
        ("rtx", {}),
        ("10", {"cuda_graph": True}),
        ("rtx", {"cuda_graph": True}),
        ("10", {"zero_copy": True}),
        ("10", {"resident_bytes": 0}),
    ],
)
def test_same_answers_as_onnx_runtime(
    open_model: Open, predictor: samrt.Predictor, image: Any, kind: str, options: dict[str, Any]
) -> None:
    engine = open_model(kind, **options)
    for picture in (image, image[::-1].copy(), image):
        engine.set_image(picture)
        predictor.set_image(picture)
        for prompt in (
            {"box": BOX},
            {"box": BOX},
            {"point_coords": [[20, 20]], "point_labels": [1]},
        ):
            got, want = engine.predict(**prompt), predictor.predict(**prompt)
            np.testing.assert_array_equal(got.logits, want.logits)
            np.testing.assert_array_equal(got.masks, want.masks)
            mask = {"mask_input": got.logits[0], **prompt}
            np.testing.assert_array_equal(
                engine.predict(**mask).scores, predictor.predict(**mask).scores
            )
    assert engine.info.backend_effective == ("tensorrt-rtx" if kind == "rtx" else "tensorrt")
    assert engine.info.backend_version == {"10": "10.3.0.30", "11": "11.4.1.3"}.get(
        kind, "1.7.1.116"
    )


def test_a_second_prompt_sends_the_prompt_only(open_model: Open, memory: Any, image: Any) -> None:
    engine = open_model()
    engine.set_image(image)
    assert memory.names("to_device") == ["image"]
    prompts = ["point_coords", "point_labels", "mask_input", "has_mask_input"]
    for _ in range(2):
        memory.log.clear()
        engine.predict(box=BOX)
        assert memory.names("to_device") == prompts
        assert memory.names("to_host") == ["low_res_masks", "iou_predictions"]
    assert memory.names("allocate") == []


def test_an_embedding_from_elsewhere_is_sent_once(
    open_model: Open, memory: Any, image: Any, tmp_path: Path
) -> None:
    engine = open_model()
    embedding = engine.encode(image)
    embedding.save(tmp_path / "e.npz")
    loaded = samrt.ImageEmbedding.load(tmp_path / "e.npz")
    want = engine.decode(embedding, samrt.Prompt(box=BOX))[0]
    memory.log.clear()
    for sent in (True, False):
        got = engine.decode(loaded, samrt.Prompt(box=BOX))[0]
        assert ("image_embeddings" in memory.names("to_device")) is sent
        np.testing.assert_array_equal(got.logits, want.logits)
        memory.log.clear()


def test_old_embeddings_stay_right_and_dead_ones_are_freed(
    open_model: Open, memory: Any, image: Any
) -> None:
    engine = open_model()
    pictures = [image, image[::-1].copy(), image[:, ::-1].copy()]
    embeddings = [engine.encode(picture) for picture in pictures]
    answers = [engine.decode(e, samrt.Prompt(box=BOX))[0].logits for e in embeddings]
    alive = len(memory.blocks)
    for embedding, answer in zip(embeddings, answers, strict=True):
        got = engine.decode(embedding, samrt.Prompt(box=BOX))[0].logits
        np.testing.assert_array_equal(got, answer)
    assert not np.array_equal(answers[0], answers[1])
    del embedding, embeddings
    gc.collect()
    engine.encode(image)
    assert len(memory.blocks) < alive


def test_little_room_for_embeddings_changes_no_answer(
    open_model: Open, predictor: samrt.Predictor, image: Any
) -> None:
    """Room for one embedding: the features of one image never push each other out of a run."""
    engine = open_model(resident_bytes=predictor.encode(image).nbytes)
    first, second = engine.encode(image), engine.encode(image[::-1].copy())
    for embedding in (first, second, first):
        got = engine.decode(embedding, samrt.Prompt(box=BOX))[0].logits
        want = predictor.decode(embedding, samrt.Prompt(box=BOX))[0].logits
        np.testing.assert_array_equal(got, want)


def test_results_share_nothing_with_later_runs(sessions: list[Session]) -> None:
    encoder, decoder = sessions
    first = encoder.run({"image": np.ones((1, 3, 64, 64), np.float32)})
    kept = {name: array.copy() for name, array in first.items()}
    masks = decoder.run(decoder_feeds(first))
    kept_masks = masks["low_res_masks"].copy()
    second = encoder.run({"image": np.zeros((1, 3, 64, 64), np.float32)})
    decoder.run(decoder_feeds(second))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.shares_memory(array, second[name])
        assert array.flags.writeable
        assert array.flags.owndata
    np.testing.assert_array_equal(masks["low_res_masks"], kept_masks)


def test_arrays_that_may_change_are_sent_every_time(sessions: list[Session], memory: Any) -> None:
    encoder, decoder = sessions
    features = encoder.run({"image": np.ones((1, 3, 64, 64), np.float32)})
    before = decoder.run(decoder_feeds(features))["low_res_masks"]
    features["image_embeddings"] *= 0.5
    memory.log.clear()
    after = decoder.run(decoder_feeds(features))["low_res_masks"]
    assert "image_embeddings" in memory.names("to_device")
    assert not np.array_equal(before, after)


def test_only_the_results_of_the_last_run_are_retained(
    sessions: list[Session], memory: Any
) -> None:
    encoder, decoder = sessions
    old = encoder.run({"image": np.ones((1, 3, 64, 64), np.float32)})
    want = decoder.run(decoder_feeds(old))["low_res_masks"]
    encoder.run({"image": np.zeros((1, 3, 64, 64), np.float32)})
    for array in old.values():
        array.flags.writeable = False
    encoder.retain(old)
    np.testing.assert_array_equal(decoder.run(decoder_feeds(old))["low_res_masks"], want)


def test_sizes_beyond_the_engine_are_refused(sessions: list[Session], memory: Any) -> None:
    features = sessions[0].run({"image": np.ones((1, 3, 64, 64), np.float32)})
    memory.log.clear()
    for count, rows in ((5, 3), (2, 7)):
        with pytest.raises(
            BackendError, match=r"takes 'point_coords' from \[1, 1, 2\] to \[4, 6, 2"
        ):
            sessions[1].run(decoder_feeds(features, count, rows))
    assert memory.log == []


FAILURES = [
    ("to_device", "image"),
    ("to_host", "image_embeddings"),
    ("synchronize", "fixture encoder.onnx"),
    ("allocate", "high_res_s2"),
    ("allocate_host", "image"),
]


@pytest.mark.parametrize(("function", "what"), FAILURES)
def test_errors_of_the_gpu_name_the_tensor(
    open_model: Open, memory: Any, image: Any, bundle: Bundle, function: str, what: str
) -> None:
    engine = open_model()
    what = what.replace("fixture", bundle.manifest.name)
    memory.fail = (function, what)
    with pytest.raises(BackendError, match=f"cuda {function} for '{what}' failed: cudaErrorFake"):
        engine.set_image(image)
    memory.fail = None
    engine.set_image(image)
    assert engine.predict(box=BOX).masks.any()


def test_a_failed_run_leaves_nothing_in_flight(sessions: list[Session], memory: Any) -> None:
    memory.fail = ("to_host", "high_res_s2")
    with pytest.raises(BackendError, match="to_host for 'high_res_s2'"):
        sessions[0].run({"image": np.ones((1, 3, 64, 64), np.float32)})
    assert memory.queue == []
    memory.fail = None


def test_results_that_nobody_retains_use_the_same_memory(
    sessions: list[Session], memory: Any
) -> None:
    for _ in range(2):
        sessions[0].run({"image": np.ones((1, 3, 64, 64), np.float32)})
    memory.log.clear()
    blocks = set(memory.blocks)
    sessions[0].run({"image": np.ones((1, 3, 64, 64), np.float32)})
    assert memory.names("allocate") == []
    assert set(memory.blocks) == blocks
    for session in sessions:
        session.close()
    assert memory.blocks == {}


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        ("shape image", r"did not take 'image' with the shape \(1, 3, 64, 64\)"),
        ("address image_embeddings", "did not take the memory of 'image_embeddings'"),
        ("infer", "cannot tell the shapes of mask_input"),
        ("execute", "could not be started: the runtime gave no reason"),
    ],
)
def test_the_runtimes_answers_are_looked_at(
    open_model: Open, script: Any, image: Any, refused: str, text: str
) -> None:
    engine = open_model()
    script.refuse = {refused}
    with pytest.raises(BackendError, match=rf"engine .* encoder\.onnx {text}"):
        engine.set_image(image)
    script.refuse = set()
    engine.set_image(image)


@pytest.mark.parametrize("graphs", [False, True])
def test_closing_frees_everything(open_model: Open, memory: Any, image: Any, graphs: bool) -> None:
    engine = open_model(cuda_graph=graphs)
    engine.set_image(image)
    for _ in range(3):
        engine.predict(box=BOX)
    assert bool(memory.graphs_alive) is graphs
    engine.close()
    engine.close()
    assert (memory.blocks, memory.host, memory.streams) == ({}, {}, set())
    assert memory.graphs_alive == []
    with pytest.raises(BackendError, match="is closed: load it again"):
        engine.encode(image)


def test_graphs_are_replayed(open_model: Open, memory: Any, image: Any) -> None:
    engine = open_model(cuda_graph=True)
    engine.set_image(image)
    memory.log.clear()
    for _ in range(4):
        engine.predict(box=BOX)
    assert len(memory.names("capture")) == 1
    assert len(memory.names("launch")) == 3
    for rows in range(1, 12):
        engine.predict_batch([samrt.Prompt(box=BOX)] * (rows % 4 + 1))
    assert len(memory.graphs_alive) <= 2 * 8


def test_rtx_makes_its_own_graphs(open_model: Open, script: Any, memory: Any, image: Any) -> None:
    open_model("rtx", cuda_graph=True).set_image(image)
    (config,) = script.asked("context")[0]
    assert config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    assert memory.names("capture") == []


def test_zero_copy_copies_nothing(open_model: Open, memory: Any, image: Any) -> None:
    engine = open_model(zero_copy=True)
    engine.set_image(image)
    engine.predict(box=BOX)
    assert memory.names("to_device") == memory.names("to_host") == memory.names("allocate") == []


def test_several_threads_may_run_at_once(open_model: Open, image: Any) -> None:
    engine = open_model()
    pictures = [np.roll(image, 7 * k, axis=1) for k in range(6)]
    alone = [engine.decode(engine.encode(p), samrt.Prompt(box=BOX))[0].logits for p in pictures]
    together: dict[int, Any] = {}

    def work(k: int) -> None:
        for _ in range(4):
            embedding = engine.encode(pictures[k])
            together[k] = engine.decode(embedding, samrt.Prompt(box=BOX))[0].logits

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, expected in enumerate(alone):
        np.testing.assert_array_equal(together[k], expected)
