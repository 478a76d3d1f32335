"""A further precision for a bundle: measured, converted, proven, then put in place."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from samrt._version import __version__
from samrt.bundle import MANIFEST_NAME, Bundle, write_bundle
from samrt.errors import OptionError, OutputError, VerificationError
from samrt.phantoms import phantom_cases
from samrt.predictor import Predictor, load
from samrt_export.precision.half import HALF_MAX, HalfGraph
from samrt_export.precision.islands import MARGIN, Island, float32_keys, measured_islands
from samrt_export.precision.ranges import RangeSession, cheap_bound, sum_session
from samrt_export.precision.record import add_to_digest, calibration_entry, growth_in_words
from samrt_export.precision.search import Found, NoHalfFormError, in_words, search
from samrt_export.precision.stored import artifact_entry, replace_bundle
from samrt_export.precision.trial import (
    ROLES,
    Reference,
    Trial,
    emulated_info,
    error_growth,
    predictor_of,
)
from samrt_export.verify import (
    Case,
    VerificationRecord,
    compare,
    image_cases,
    image_files,
    parity_with,
)

__all__ = ["add_precision"]

HEAVY_WEIGHTS = 60_000_000
HELD_PICTURES = 3
Progress = Callable[[str], None]


def add_precision(
    bundle: str | PathLike[str],
    precision: str = "fp16",
    *,
    out: str | PathLike[str] | None = None,
    images: str | PathLike[str] | None = None,
    half_io: bool = False,
    reference: Predictor | None = None,
    margin: float = MARGIN,
    overwrite: bool = False,
    keep_refused: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Give a bundle a float16 encoder and decoder beside its float32 ones.

    Ranges are measured on the built-in pictures and on those of `images`; nodes that float16
    would spoil stay float32 (`islands`, `search`); the result is compared with the reference, with
    every float16 tensor rounded (`emulate`) and once more by ONNX Runtime. Only if both pass the
    thresholds of `samrt_export.verify` the bundle is replaced, in one step. Islands, their
    reasons and all figures go into `calibration.fp16` of the manifest, the comparison into
    `parity`.

    Args:
        bundle: the bundle folder; `fp32` stays its default.
        precision: `fp16`.
        out: write a bundle of another name and leave this one as it is.
        images: a folder of pictures to calibrate and compare on too.
        half_io: float16 inputs and outputs, except coordinates and labels of points.
        reference: the truth, such as a `TorchModel`; by default the bundle's float32 graphs.
        margin: how much larger than measured a value may become, at least 1.
        overwrite: replace float16 graphs that are there, or the bundle at `out`.
        keep_refused: write the best float16 form found even if it is not good enough, with its
            record: `samrt.load` refuses it unless the caller insists.
        threads: threads of all runs.
        progress: is told what is done and which islands are chosen.

    Returns:
        The bundle, opened again; its id changes, as it does with any file.

    Raises:
        OptionError: another precision, a margin below 1, or the bundle has float16 graphs.
        ModelNotFoundError, BundleError: no such bundle, or it is damaged.
        ImageError: no pictures in the folder, or a damaged one.
        VerificationError: no float16 form of this model is good enough; nothing is changed. Or
            the float32 graphs are refused, and there is no other `reference`.
        OutputError: the bundle cannot be written.
    """
    if precision != "fp16":
        raise OptionError(f"precision must be 'fp16', got {precision!r}")
    if not margin >= 1.0:
        raise OptionError(f"margin must be at least 1, got {margin!r}")
    say = progress or (lambda text: None)
    target = Path(bundle if out is None else out)
    if out is not None and target.exists() and not overwrite:
        raise OutputError(f"{target} exists: choose another name or pass overwrite=True")
    old = Bundle.open(bundle, verify="full")
    if "fp16" in old.precisions() and out is None and not overwrite:
        raise OptionError(f"{target} has fp16 graphs: pass overwrite=True to replace them")
    if "fp32" not in old.precisions():
        raise OptionError(f"{old.path} has no fp32 graphs to convert: export its checkpoint again")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.fp16.", dir=target.parent))
    try:
        run = _Addition(old, images, half_io, margin, threads, say, keep_refused=keep_refused)
        made = run.into(work, reference)
        return replace_bundle(made, target)
    except OSError as exc:
        if isinstance(exc, OutputError):
            raise
        raise OutputError(f"cannot write bundle {target}: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Addition:
    """One run of `add_precision`."""

    def __init__(
        self, old: Bundle, images: str | PathLike[str] | None, half_io: bool, margin: float,
        threads: int | None, say: Progress, *, keep_refused: bool = False,
    ) -> None:  # fmt: skip
        self.old, self.images, self.half_io = old, images, half_io
        self.margin, self.threads, self.say = margin, threads, say
        self.keep = keep_refused
        self.phantoms = phantom_cases()
        if images is not None:
            image_files(images)  # before anything long is begun

    def into(self, work: Path, reference: Predictor | None) -> Bundle:
        """The finished bundle in a folder of its own."""
        insists = self.keep and reference is not None  # refused graphs are no truth for others
        with load(
            self.old.path, precision="fp32", threads=self.threads, allow_refused=insists
        ) as own:
            return self._made(work, own, reference)

    def _made(self, work: Path, own: Predictor, reference: Predictor | None) -> Bundle:
        info = own.info
        trial = Trial(self.old, info, self.threads)
        weights = sum(
            int(np.prod(graph.weights.shape_of(name), dtype=np.int64))
            for graph in trial.graphs.values()
            for name in graph.weights
        )
        self.heavy = weights > HEAVY_WEIGHTS
        sessions, islands = self._calibrate(trial)
        held = self._held()
        pictures = [case.image for case in held]
        quick = Reference(own, pictures)  # float32 in the same runtime, for the search
        try:
            found = search(
                trial, quick, islands, held, few=1 if self.heavy else 2, half_io=self.half_io,
                say=self.say,
            )  # fmt: skip
        except NoHalfFormError as exc:
            if not self.keep:
                halves = {role: trial.convert(role, float32_keys(islands[role])) for role in ROLES}
                growth = self._growth(trial, halves, sessions)
                raise VerificationError(f"{exc}; {growth_in_words(growth)}") from None
            self.say(f"{exc}; the best of them is kept")
            found = exc.best
        trial.close()
        self._announce(found)
        growth = self._growth(trial, found.halves, sessions)
        truth = quick if reference is None else Reference(reference, pictures)
        built = self._write(work, found)
        emulated = self._emulated(trial, built, found, truth, growth)
        ran = self._in_runtime(built, truth, may_fail=not emulated.passed)
        entry = calibration_entry(
            found, {role: sessions[role].ranges for role in ROLES}, trial.graphs, growth, ran
        )
        entry["margin"], entry["half_io"] = self.margin, self.half_io
        entry["images"], entry["images_sha256"] = self.pictures, self.digest
        return self._stored(built, emulated, entry, growth_in_words(growth))

    def _growth(
        self, trial: Trial, halves: Mapping[str, HalfGraph], sessions: Mapping[str, RangeSession]
    ) -> dict[str, dict[str, float]]:
        """How the error grows from block to block, in the first run of each role."""
        return {
            role: error_growth(
                trial.graphs[role], halves[role], sessions[role].sample, self.threads
            )
            for role in ROLES
        }

    def _cases(self) -> Iterator[Case]:
        """All pictures; the user's are read one by one."""
        yield from self.phantoms[:2] if self.heavy else self.phantoms
        if self.images is not None:
            yield from image_cases(self.images)

    def _held(self) -> list[Case]:
        """Pictures of the search; they stay in memory."""
        held: list[Case] = [*self.phantoms[:2]] if self.heavy else [*self.phantoms]
        if self.images is not None:
            for case, _ in zip(image_cases(self.images), range(HELD_PICTURES), strict=False):
                held.append(case)
        return held

    def _calibrate(self, trial: Trial) -> tuple[dict[str, RangeSession], dict[str, list[Island]]]:
        """Measure ranges and sums on all pictures; islands that follow from them."""
        sessions = {
            role: RangeSession(trial.graphs[role], role, threads=self.threads) for role in ROLES
        }
        self.pictures, self.digest = self._run_all(trial, sessions, "ranges")
        islands = {}
        for role in ROLES:
            graph, ranges = trial.graphs[role], sessions[role].ranges
            sums = [
                node.output[0]
                for node in graph.arithmetic()
                if cheap_bound(graph, node, ranges.abs_max) * self.margin > HALF_MAX
            ]
            if sums:
                session = sum_session(graph, sums, role, ranges, threads=self.threads)
                pair = {other: session if other == role else trial.exact(other) for other in ROLES}
                what = f"sums in {len(sums)} nodes of the {role}"
                self._run_all(trial, pair, what, decode=role == "decoder")
                session.close()
            islands[role] = measured_islands(graph, ranges, margin=self.margin)
        for session in sessions.values():
            session.close()
        return sessions, islands

    def _run_all(
        self, trial: Trial, sessions: Mapping[str, Any], what: str, *, decode: bool = True
    ) -> tuple[list[str], str]:
        """Answer every prompt about every picture; names of the pictures, and their digest."""
        predictor = trial.predictor(sessions)
        names, digest = [], hashlib.sha256()
        for case in self._cases():
            self.say(f"measuring {what} on {case.name}")
            embedding = predictor.encode(case.image)
            prompts = _taken(predictor, case, embedding.original_size) if decode else []
            answers = predictor.decode(embedding, prompts) if prompts else []
            if answers and predictor.manifest.prompts.mask:
                predictor.decode(embedding, _with_mask(prompts[0], answers[0]))
            names.append(case.name)
            add_to_digest(digest, case.image)
        return names, digest.hexdigest()

    def _announce(self, found: Found) -> None:
        for role in ROLES:
            half = found.halves[role]
            self.say(
                f"{role}: {half.half_nodes} nodes in float16, {half.float_nodes} in float32, "
                f"{half.casts} casts"
            )
            for island in found.islands[role]:
                where = f" of {island.scope}" if island.scope else ""
                self.say(
                    f"{role} island, {len(island.keys)} nodes{where}, {island.kind}: "
                    f"{island.reason}"
                )

    def _write(self, work: Path, found: Found) -> Bundle:
        """A bundle with the old graphs and the new ones."""
        document = json.loads((self.old.path / MANIFEST_NAME).read_text("utf-8"))
        kept = [a for a in document["artifacts"] if a["precision"] != "fp16"]
        names = {f["file"] for a in kept for f in (a, *a.get("data", []))}
        files: dict[str, Any] = {name: self.old.path / name for name in names}
        for role in ROLES:
            self.say(f"writing the {role} in float16")
            builder = found.halves[role].builder
            model, *data = builder.write(work / f"{role}.fp16.onnx", __version__)
            files.update({path.name: path for path in (model, *data)})
            beside = [path.name for path in data]
            kept.append(artifact_entry(role, "fp16", model.name, builder, beside))
        document["artifacts"] = kept
        return write_bundle(work / "bundle.samrt", document, files)

    def _emulated(
        self, trial: Trial, built: Bundle, found: Found, truth: Predictor,
        growth: Mapping[str, Mapping[str, float]],
    ) -> VerificationRecord:  # fmt: skip
        """The gate: every float16 tensor rounded, all pictures."""
        with load(
            built.path, precision="fp16", threads=self.threads, allow_refused=True
        ) as own:  # an older record of the same files is not asked
            info = emulated_info(own.info)
        sessions = {role: trial.emulated(role, found.halves[role]) for role in ROLES}
        predictor = predictor_of(built, info, sessions)
        self.say("verifying, with every float16 tensor rounded")
        record = compare(truth, predictor, self._cases(), precision="fp16", progress=self.say)
        predictor.close()
        self.say(f"rounded: {in_words(record)}")
        if not record.passed:
            problem = (
                f"the float16 graphs are not good enough: {'; '.join(record.failures)}; "
                f"{growth_in_words(growth)}"
            )
            if not self.keep:
                raise VerificationError(f"{problem}; nothing was written")
            self.say(f"{problem}; they are kept, marked refused")
        return record

    def _in_runtime(self, built: Bundle, truth: Predictor, *, may_fail: bool) -> VerificationRecord:
        """The files themselves, in ONNX Runtime."""
        self.say("verifying in ONNX Runtime")
        with load(
            built.path,
            precision="fp16",
            backend="onnxruntime",
            threads=self.threads,
            allow_refused=True,
        ) as engine:
            record = compare(truth, engine, self._held()[:2], precision="fp16")
        self.say(f"ONNX Runtime: {in_words(record)}")
        if not record.passed and not may_fail:
            raise VerificationError(
                f"ONNX Runtime does not compute what the float16 graphs say: "
                f"{'; '.join(record.failures)}; nothing was written, please report this"
            )
        return record

    def _stored(
        self, built: Bundle, record: VerificationRecord, entry: Mapping[str, Any], growth: str
    ) -> Bundle:
        target = built.path / MANIFEST_NAME
        document = json.loads(target.read_text("utf-8"))
        document["calibration"] = {**(document.get("calibration") or {}), "fp16": dict(entry)}
        figures = record.as_dict()
        if not record.passed:
            figures["first_wrong"] = growth
        document["parity"] = parity_with(document.get("parity"), figures, built.manifest.precision)
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        target.write_text(f"{text}\n", "utf-8")
        return Bundle.open(built.path)


def _taken(predictor: Predictor, case: Case, size: tuple[int, int]) -> list[Any]:
    from samrt.selfcheck import supported_prompts

    return supported_prompts(case.prompts, size, predictor.manifest.prompts)


def _with_mask(prompt: Any, answer: Any) -> Any:
    from samrt.types import Prompt

    return Prompt(
        box=prompt.box,
        point_coords=prompt.point_coords,
        point_labels=prompt.point_labels,
        mask_input=np.array(answer.logits[answer.best]),
    )
