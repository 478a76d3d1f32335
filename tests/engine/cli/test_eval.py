"""``samrt eval`` from the command line, with the committed model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import samrt
from samrt.cli import main
from samrt.evaluation.journal import read_records

pytest.importorskip("scipy")

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures with one or two objects each."""
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        labels = np.zeros((48, 80), np.uint8)
        labels[8:30, 10 : 30 + number] = 1
        labels[20:40, 50:70] = 2 if number else 0
        image = np.where(labels > 0, 180, 70) + rng.normal(0, 5, labels.shape)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "masks" / f"{number}.png")
    return root


@pytest.fixture
def run_eval(samrt_command: Cli, bundle_path: Path, data: Path) -> Cli:
    """``run_eval(...)``: measure the committed model on the three pictures."""

    def run(*argv: object, root: object = data) -> Any:
        return samrt_command("eval", root, "--model", bundle_path, "--threads", 1, *argv)

    return run


def test_a_run_and_its_files(run_eval: Cli, workplace: Path) -> None:
    good = run_eval("--clicks", 2, "--jitter", "2-4")
    assert (good.code, good.err) == (0, "")
    assert "mean of sets" in good.out
    assert "S5 (box)" in good.out
    folder = workplace / "samrt-eval"
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["eval.html", "eval.json", "eval.md", "targets.jsonl"]
    document = json.loads((folder / "eval.json").read_text())
    assert document["config"]["strategies"] == ["S2", "S3", "S4", "S5", "S6"]
    assert document["counts"]["targets"] == 5
    again = run_eval("--clicks", 2, "--jitter", "2-4", "--json")
    assert again.code == 0
    assert json.loads(again.out)["groups"] == document["groups"]
    assert again.err == "samrt: 5 of 5 targets are there from before\n"
    other = run_eval("--clicks", 1, "--jitter", "none")
    assert "belongs to another run (clicks, jitter_px differ)" in other.error


def test_choices(run_eval: Cli, workplace: Path) -> None:
    words = ("--strategies", "S5", "--jitter", "none", "--clicks", 0, "--limit", 2, "-o", "o")
    assert run_eval(*words, "--seed", 4).code == 0
    kept = [r["key"] for r in read_records(workplace / "o" / "targets.jsonl")]
    assert len(kept) == 2
    assert run_eval(*words, "--exclude", kept[0], "--seed", 4, "--force").code == 0
    assert kept[0] not in [r["key"] for r in read_records(workplace / "o" / "targets.jsonl")]


def test_comparing(run_eval: Cli, samrt_command: Cli, workplace: Path) -> None:
    words = ("--strategies", "S2,S5", "--jitter", "none", "--clicks", 0)
    for name in ("a", "b"):
        assert run_eval(*words, "-o", name).code == 0
    good = samrt_command("eval", "compare", "a", "b/eval.json")
    assert (good.code, good.err) == (0, "")
    assert "1.0000 [1.0000, 1.0000]" in good.out
    assert (workplace / "samrt-eval-compare" / "compare.html").is_file()
    document = json.loads(samrt_command("eval", "compare", "a", "b", "--json").out)
    assert document["kind"] == "samrt-eval-compare"


def test_several_precisions(run_eval: Cli, workplace: Path) -> None:
    words = ("--strategies", "S5", "--jitter", "none", "--clicks", 0, "--precision", "fp32,auto")
    good = run_eval(*words, "--json", "-o", "p")
    assert good.code == 0
    document = json.loads(good.out)
    assert len(document["runs"]) == 2
    assert document["comparisons"][0]["strategies"]["S5"]["largest_drop"] == 0.0
    assert (workplace / "p" / "auto-against-fp32" / "compare.md").is_file()
    assert "int8" in run_eval("--precision", "int8", "-o", "q").error


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A NIfTI pair of 5 slices with two objects."""
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra eval)")
    root = tmp_path / "volumes"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    labels = np.zeros((80, 64, 5), np.uint8)
    labels[10:40, 12:40, 1:4] = 1
    labels[50:70, 20:50, :3] = 2
    image = np.where(labels > 0, 180, 70) + np.random.default_rng(0).normal(0, 5, labels.shape)
    for name, values in (("images", image.astype(np.float32)), ("labels", labels)):
        stored = nibabel.Nifti1Image(values, np.diag([0.8, 0.8, 3.0, 1.0]))
        nibabel.save(stored, root / name / "a.nii.gz")
    return root


def test_whole_volumes(run_eval: Cli, volumes: Path, workplace: Path) -> None:
    """Slices by default; both ways on demand; the run goes on; without volumes nothing is said."""
    pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    words = ("--strategies", "S5", "--jitter", "none", "--clicks", 0)
    good = run_eval(*words, root=volumes)
    assert (good.code, good.err) == (0, "")
    assert "2 objects in 1 volume, 3-D" in good.out
    assert "a box on every slice (oracle)" in good.out
    assert "propagated" not in good.out
    records = list(read_records(workplace / "samrt-eval" / "volumes.jsonl"))
    assert [r["key"] for r in records] == ["images/a.nii.gz#1", "images/a.nii.gz#2"]
    assert all(0 <= r["ways"]["slices"]["deployable"]["dice"] <= 1 for r in records)
    again = run_eval(*words, "--json", root=volumes)
    assert "2 of 2 objects in volumes are there from before" in again.err
    assert json.loads(again.out)["volumes"]["ways"] == ["slices"]
    both = ("--volumes", "propagate,slices", "--limit", 1, "-o", "both")
    found = json.loads(run_eval(*words, *both, "--json", root=volumes).out)["volumes"]
    assert (found["ways"], found["objects"]) == (["slices", "propagate"], 1)
    other = run_eval(*words, "--volumes", "propagate", "--limit", 1, "-o", "both", root=volumes)
    assert (other.code, "belongs to another run (volumes differ)" in other.err) == (1, True)
    none = run_eval(*words, "--volumes", "none", "-o", "none", root=volumes)
    assert "3-D" not in none.out
    assert not (workplace / "none" / "volumes.jsonl").exists()


def test_volumes_without_the_package(
    run_eval: Cli, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "surface_distance", None)
    words = ("--strategies", "S5", "--jitter", "none", "--clicks", 0)
    assert "--volumes none" in run_eval(*words, root=volumes).error
    assert run_eval(*words, "--volumes", "none", root=volumes).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategies", "S9"], "unknown strategy 'S9'"),
        (["--jitter", "far"], "jitter 'far'"),
        (["--nsd-tolerance", "-1"], "tolerance must be positive"),
        (["--nsd-tolerance", "nan"], "tolerance must be positive"),
        (["--clicks", "101"], "clicks must be 0 to 100"),
        (["--sets", "none"], "no set 'none'"),
        (["--exclude", "zzz*"], "excludes nothing"),
        (["--plane", "axial"], "--plane is for data of the kind nifti"),
        (["--volumes", "slices"], "--volumes is for data with volumes"),
        (["--segs"], "--segs is for data of the kind npz"),
        (["--format", "npz"], "no target"),
        (["--model", "nobody"], "nobody"),
        (["-o", "/proc/nowhere"], "/proc"),
    ],
)
def test_one_line_of_error(run_eval: Cli, words: list[str], said: str) -> None:
    assert said in run_eval(*words).error


def test_a_model_that_takes_boxes_only(
    samrt_command: Cli, edit_bundle: Callable[..., Path], data: Path, workplace: Path
) -> None:
    rules = ("points", "negative_points", "box_and_points")
    model = edit_bundle({f"prompts.{name}": False for name in rules})
    words = ("eval", data, "--model", model, "--threads", 1)
    good = samrt_command(*words)
    assert good.code == 0
    document = json.loads((workplace / "samrt-eval" / "eval.json").read_text())
    assert (document["config"]["strategies"], document["config"]["clicks"]) == (["S5"], 0)
    assert "of S2 to S6 this model takes only S5" in document["remarks"]
    assert "no positive and negative points" in samrt_command(*words, "--clicks", 3).error
    assert "needs a model that takes points" in samrt_command(*words, "--strategies", "S2").error


def test_usage(run_eval: Cli, samrt_command: Cli, data: Path) -> None:
    for words in (["compare", "a"], [data, data], [data, "--dataset", data], []):
        assert samrt_command("eval", *words).code == 2
    assert run_eval("--clicks", "-1").code == 2
    assert run_eval("--sets", ",").code == 2
    assert run_eval("--volumes", "sideways").code == 2
    helped = samrt_command("eval", "--help")
    assert helped.code == 0
    assert "samrt eval compare" in helped.out


def test_a_broken_image_leaves_the_rest(run_eval: Cli, data: Path, workplace: Path) -> None:
    words = ("--strategies", "S5", "--jitter", "none", "--clicks", 0, "-o", "o")
    (data / "images" / "1.png").write_bytes(b"broken")
    assert "1.png" in run_eval(*words).error
    assert len(list(read_records(workplace / "o" / "targets.jsonl"))) == 1
    good = run_eval(*words, "--skip-bad")
    assert good.code == 0
    assert "2 targets were skipped" in good.out


def test_an_interrupted_run_says_what_is_kept(
    run_eval: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samrt.evaluation import runner

    build, calls = runner.build_prompt, []

    def stop(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return build(*args)

    words = ("--strategies", "S5", "--jitter", "none", "--clicks", 0)
    monkeypatch.setattr(runner, "build_prompt", stop)
    stopped = run_eval(*words)
    assert stopped.code == 130
    assert "3 of 5 targets are kept" in stopped.err
    monkeypatch.undo()


def test_scipy_is_asked_for(run_eval: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("scipy"):
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'samrt[eval]'" in run_eval().error


@pytest.mark.shared
def test_tiny_on_the_shared_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run on real images: boxes work on organs and cells, and fail on vessels."""
    if not (SHARED / "index.json").is_file():
        pytest.skip("no data beside the repository (../shared/data)")
    monkeypatch.chdir(tmp_path)
    words = ["eval", str(SHARED), "--sets", "wbc,drive", "--limit", "4", "--strategies", "S5"]
    assert main([*words, "--jitter", "none", "--clicks", "0", "-o", "o"]) == 0
    groups = json.loads(Path("o/eval.json").read_text())["groups"]["set"]
    assert groups["wbc"]["figures"]["S5.deployable.dice"][0] > 0.85
    assert groups["drive"]["figures"]["S5.deployable.dice"][0] < 0.7


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    """Neither the command nor the evaluation's modules load SciPy, nibabel, Pillow or a runtime."""
    code = (
        "import samrt.cli, samrt.evaluation.files, samrt.evaluation.formats.nifti, sys\n"
        "print([n for n in ('scipy', 'nibabel', 'PIL', 'onnxruntime', 'torch', 'cv2')"
        " if n in sys.modules])"
    )
    engine = str(Path(samrt.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {engine!r})\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "[]\n"
