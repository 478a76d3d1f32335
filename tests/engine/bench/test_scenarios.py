"""The loops: how many runs, of what, and what happens when one fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import samrt
from samrt.bench import answers, scenarios
from samrt.bench.answers import check_again, prove
from samrt.bench.job import Job, job_from, prompt_document, prompt_from
from samrt.bench.scenarios import END_TO_END, STAGES, measure
from samrt.errors import VerificationError

BOX = {"box": [4.0, 4.0, 60.0, 40.0], "points": []}
POINT = {"box": None, "points": [[20.0, 20.0, 1], [3.0, 4.0, 0]]}


@pytest.fixture
def job(bundle_path: Path, tmp_path: Path, image: NDArray[np.uint8]) -> Job:
    picture = tmp_path / "picture.png"
    Image.fromarray(image).save(picture)
    return Job(
        str(bundle_path), "onnxruntime", "fp32", 1, "single-stream", str(picture), (BOX, POINT),
        answers=str(tmp_path / "answers.npz"), warmup=1, runs=4,
    )  # fmt: skip


def test_a_job_travels_as_json(job: Job) -> None:
    assert job_from(job.as_dict()) == job
    for document in (BOX, POINT):
        assert prompt_document(prompt_from(document)) == document


def test_from_file_to_mask(job: Job, predictor: samrt.Predictor) -> None:
    found = measure(predictor, job)
    assert found.runs == 4
    assert list(found.times_ms) == [*STAGES, END_TO_END]
    for k in range(4):
        parts = sum(found.times_ms[name][k] for name in STAGES)
        assert 0.0 < parts <= found.times_ms[END_TO_END][k]
    assert found.warmup["runs"] >= 1


def test_interactive_encodes_once_and_takes_prompts_in_turn(
    job: Job, predictor: samrt.Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, asked = [], []
    encode, decode = samrt.Predictor.encode, samrt.Predictor.decode
    monkeypatch.setattr(
        samrt.Predictor, "encode", lambda *a, **k: encoded.append(1) or encode(*a, **k)
    )
    monkeypatch.setattr(
        samrt.Predictor,
        "decode",
        lambda self, e, p, **k: asked.append(p) or decode(self, e, p, **k),
    )
    found = measure(predictor, replace(job, scenario="interactive", warmup=0))
    assert len(encoded) == 1
    assert [prompt_document(p[0]) for p in asked] == [BOX, POINT, BOX, POINT]
    assert "encode" not in found.times_ms
    asked.clear()
    wide = replace(job, scenario="interactive", warmup=0, prompts_per_image=3, runs=2)
    measure(predictor, wide)
    assert [len(p) for p in asked] == [3, 3]
    assert prompt_document(asked[1][0]) == POINT


@pytest.mark.parametrize("workers", [2, 5])
def test_offline_runs_exactly_so_many(job: Job, predictor: samrt.Predictor, workers: int) -> None:
    found = measure(predictor, replace(job, scenario="offline", workers=workers, runs=7))
    assert found.runs == 7
    assert all(len(values) == 7 for values in found.times_ms.values())


def test_an_error_in_a_worker_gets_out(job: Job, predictor: samrt.Predictor) -> None:
    missing = replace(job, scenario="offline", workers=3, warmup=0, image="nowhere.png")
    with pytest.raises(samrt.ImageError, match=r"nowhere\.png"):
        measure(predictor, missing)


@pytest.mark.parametrize(
    ("runs", "seconds", "enough"),
    [(2, 99.0, False), (3, 99.0, True), (64, 1.0, False), (64, 5.0, True), (63, 5.0, False)],
)
def test_when_it_is_enough(job: Job, runs: int, seconds: float, enough: bool) -> None:
    assert scenarios._enough(replace(job, runs=None), runs, seconds) is enough


def test_the_right_engine_is_proven_and_its_masks_are_kept(job: Job) -> None:
    record = prove(job)
    assert record["against"].startswith("the figures in its manifest")
    with samrt.load(job.model, threads=1) as engine:
        assert check_again(engine, job) == 1.0


def test_another_answer_is_not_timed(job: Job) -> None:
    prove(job)
    other = {"box": [40.0, 20.0, 70.0, 44.0], "points": []}
    with (
        samrt.load(job.model, threads=1) as engine,
        pytest.raises(VerificationError, match="gives other masks than when it was checked"),
    ):
        check_again(engine, replace(job, prompts=(other, other)))


def test_an_engine_with_other_masks_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is made to err, and to be compared with the reference although it is one."""
    ask, calls = answers.ask, []

    def asked(engine: samrt.Predictor, job: Job) -> object:
        embedding, found = ask(engine, job)
        calls.append(1)
        if len(calls) == 1:
            found[0].masks[:] = ~found[0].masks
        return embedding, found

    monkeypatch.setattr(answers, "ask", asked)
    monkeypatch.setattr(answers, "_against_manifest", lambda engine: {})
    with pytest.raises(VerificationError, match="gives other masks than the canonical FP32 graphs"):
        prove(job)
    assert not Path(job.answers).exists()
    calls.clear()
    monkeypatch.setattr(answers, "ask", ask)
    assert prove(job)["mask_iou_worst"] == 1.0
