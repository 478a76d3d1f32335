"""``samrt quantize``: a bundle gets an int8 encoder, or int8 weights; measured and proven."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from samrt._version import __version__
from samrt.bundle import MANIFEST_NAME, Bundle, write_bundle
from samrt.errors import OptionError, OutputError, VerificationError
from samrt.folders import cache_folder
from samrt.phantoms import phantom_cases
from samrt.predictor import Predictor, load
from samrt_export.graph import GraphBuilder
from samrt_export.precision.emulate import GraphSession
from samrt_export.precision.search import in_words
from samrt_export.precision.stored import artifact_entry, replace_bundle
from samrt_export.precision.trial import ROLES, Reference, Trial, predictor_of
from samrt_export.quantize.calibrate import calibrate, state_key
from samrt_export.quantize.choose import ALPHAS, Choice, choose
from samrt_export.quantize.cpu_form import add_int8_form
from samrt_export.quantize.layers import Layer, find_layers
from samrt_export.quantize.options import QuantizeOptions
from samrt_export.quantize.pictures import PictureSet, choose_pictures
from samrt_export.quantize.record import int8_entry, weights_entry
from samrt_export.quantize.search import Attempt, NoInt8FormError, search
from samrt_export.quantize.statistics import STATE_FORMAT, Statistics
from samrt_export.quantize.write import to_int8, to_int8_weights
from samrt_export.verify import Case, VerificationRecord, compare, parity_with
from samrt_export.verify.growth import explosion

__all__ = ["quantize"]

HEAVY_BYTES, LIGHT_BYTES = 240_000_000, 16_000_000
HELD_PICTURES = 3
Progress = Callable[[str], None]


def quantize(
    bundle: str | PathLike[str],
    images: str | PathLike[str] | None = None,
    *,
    out: str | PathLike[str] | None = None,
    options: QuantizeOptions | None = None,
    overwrite: bool = False,
    keep_refused: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
) -> Bundle:
    """Give a bundle an int8 encoder beside its float32 graphs; the decoder stays as it is.

    The pictures go through the float32 encoder one at a time; histograms and sampled rows of the
    layers' inputs are kept, on disk too, so that an interrupted run goes on. Each layer gets the
    clip and the migration with the smallest measured error; layers return to float32, the most
    sensitive first, until the masks agree with float32. Only if the file itself, run by each of
    the runtimes asked for, passes the thresholds of `samrt.gate` the bundle is replaced, in one
    step. Choices,
    exclusions and figures go into ``calibration.int8`` of the manifest, the comparison into
    ``parity``.

    Args:
        bundle: the bundle folder.
        images: a folder of pictures of the kind that will be segmented, 32 to 128 of them; not
            needed for ``int8-weights``, whose gate they widen.
        out: write a bundle of another name and leave this one as it is.
        options: see `QuantizeOptions`.
        overwrite: replace int8 graphs that are there, or the bundle at `out`.
        keep_refused: write the best int8 form found even if it is not good enough, with its
            record: `samrt.load` refuses it unless the caller insists.
        resume: go on with what an interrupted run has left.
        progress: is told what is done.

    Returns:
        The bundle, opened again; its id changes, as it does with any file.

    Raises:
        OptionError: no pictures given, nothing to quantise, graphs are there, bad options.
        ModelNotFoundError, BundleError: no such bundle, or it is damaged.
        ImageError: no pictures in the folder, or a damaged one.
        VerificationError: no int8 form of this model is good enough; nothing is changed. Or its
            float32 graphs are refused themselves.
        OutputError: the bundle or the calibration's state cannot be written.
    """
    options = options or QuantizeOptions()
    precision = options.precision
    if images is None and precision == "int8":
        raise OptionError("int8 needs pictures to calibrate on: give a folder with --images")
    if options.alone and out is None:
        raise OptionError("a bundle of one precision needs another place: give one with -o")
    target = Path(bundle if out is None else out)
    if out is not None and target.exists() and not overwrite:
        raise OutputError(f"{target} exists: choose another name or pass overwrite=True")
    old = Bundle.open(bundle, verify="full")
    if precision in old.precisions() and out is None and not overwrite:
        raise OptionError(f"{target} has {precision} graphs: pass overwrite=True to replace them")
    if "fp32" not in old.precisions():
        raise OptionError(f"{old.path} has no fp32 graphs to convert: export its checkpoint again")
    say = progress or (lambda text: None)
    run = _Quantisation(old, images, options, resume, say, keep_refused=keep_refused)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.int8.", dir=target.parent))
    except OSError as exc:
        raise OutputError(f"cannot write bundle {target}: {exc.strerror or exc}") from exc
    try:
        made = replace_bundle(run.into(work), target)
        run.forget()
        return made
    except OSError as exc:
        if isinstance(exc, OutputError):
            raise
        raise OutputError(f"cannot write bundle {target}: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Quantisation:
    """One run of `quantize`."""

    def __init__(
        self, old: Bundle, images: str | PathLike[str] | None, options: QuantizeOptions,
        resume: bool, say: Progress, *, keep_refused: bool = False,
    ) -> None:  # fmt: skip
        self.old, self.options, self.say, self.keep = old, options, say, keep_refused
        self.threads, self.precision = options.threads, options.precision
        self.backends = options.judged_in()
        encoder = old.artifact("encoder", "fp32")
        self.heavy = encoder.total_bytes > HEAVY_BYTES
        light = encoder.total_bytes < LIGHT_BYTES
        self.few = 1 if self.heavy else 5 if light else 2
        phantoms = phantom_cases()[:2] if self.heavy else phantom_cases()
        self.pictures: PictureSet | None = None
        self.phantoms = phantoms
        self.state: Path | None = None
        if images is not None:
            self.pictures = choose_pictures(
                images, phantoms, window=options.window, most=options.most_pictures
            )
            what = (str(STATE_FORMAT), encoder.sha256, self.pictures.sha256, options.convs,
                    repr(sorted(options.exclude)), __version__)  # fmt: skip
            self.state = cache_folder() / "calibration" / f"{state_key(*what)}.npz"
            if not resume:
                self.forget()

    def forget(self) -> None:
        """Remove the state of the calibration."""
        if self.state is not None:
            self.state.unlink(missing_ok=True)

    def into(self, work: Path) -> Bundle:
        """The finished bundle in a folder of its own."""
        with load(
            self.old.path, precision="fp32", backend="onnxruntime", threads=self.threads
        ) as own:
            trial = Trial(self.old, own.info, self.threads)
            try:
                if self.precision == "int8":
                    return self._int8(work, own, trial)
                return self._weights(work, own, trial)
            finally:
                trial.close()

    def _weights(self, work: Path, own: Predictor, trial: Trial) -> Bundle:
        """Int8 weights of both graphs, float32 arithmetic."""
        builders = {role: to_int8_weights(trial.graphs[role]) for role in ROLES}
        before = {role: self.old.artifact(role, "fp32").total_bytes for role in ROLES}
        built = self._write(work, builders, self.options.alone)
        record = self._judge(built, own)
        where = self._found_wanting(built, record, "int8 weights are")
        entry = weights_entry(
            before, {role: built.artifact(role, self.precision).total_bytes for role in ROLES}
        )
        return self._stored(built, record, entry, where)

    def _int8(self, work: Path, own: Predictor, trial: Trial) -> Bundle:
        graph = trial.graphs["encoder"]
        layers, left = find_layers(graph, convs=self.options.convs, exclude=self.options.exclude)
        if not layers:
            raise OptionError(
                f"{self.old.path} has no layer that can be quantised: loosen --convs or --exclude"
            )
        statistics = self._calibrate(trial, own, graph, layers)
        choices = self._choose(graph, layers, statistics)
        held = self._held()
        quick = Reference(own, [case.image for case in held])
        attempt = Attempt(trial, own.info, work, backends=self.backends)
        try:
            found = search(
                attempt, graph, choices, quick, held, few=self.few,
                by_block=self.heavy, say=self.say,
            )  # fmt: skip
        except NoInt8FormError as exc:
            if not self.keep:
                ruined = self._write(work, {"encoder": to_int8(graph, choices)}, False)
                told = f"{exc}; {self._explosion(ruined)}; nothing was written"
                raise VerificationError(told) from None
            self.say(f"{exc}; the best of them is kept")
            found = exc.best
        builder = to_int8(graph, found.kept)
        built = self._write(work, {"encoder": builder}, self.options.alone)
        record = self._judge(built, quick)
        runtimes = {"onnxruntime": in_words(record)}
        where = self._found_wanting(built, record, "int8 encoder is")
        for name in self.backends[1:]:
            other = self._judge(built, quick, name)
            self._found_wanting(built, other, f"int8 encoder is in {name}")
            runtimes[name] = in_words(other)
        exact = attempt.against_graph(builder, held[:1])
        entry = int8_entry(found, left, self.options, exact) | {"runtimes": runtimes}
        stored = self._stored(built, record, entry, where)
        return add_int8_form(
            stored, self.old, quick, self._cases, work, threads=self.threads, say=self.say
        )

    def _calibrate(
        self, trial: Trial, own: Predictor, graph: Any, layers: Sequence[Layer]
    ) -> Statistics:
        if self.pictures is None:
            raise OptionError("int8 needs pictures to calibrate on: give a folder with --images")

        def predictor_for(session: GraphSession) -> Predictor:
            sessions = {"encoder": session, "decoder": trial.exact("decoder")}
            return predictor_of(self.old, own.info, sessions)

        return calibrate(
            graph, layers, self.pictures.calibration, predictor_for, state=self.state,
            threads=self.threads, say=self.say,
        )  # fmt: skip

    def _choose(self, graph: Any, layers: Sequence[Layer], statistics: Statistics) -> list[Choice]:
        """Scales of all layers; what a quantised result becomes is read by the same scale."""
        found: list[Choice] = []
        tied: dict[str, float] = {}
        for number, layer in enumerate(layers, 1):
            choice = choose(
                graph, layer, statistics, method=self.options.method,
                alphas=ALPHAS if self.options.smoothing else (0.0,),
                correct=self.options.bias_correction, tied=tied.get(layer.source),
            )  # fmt: skip
            if choice.output_clip is not None:
                tied[layer.result] = choice.output_clip
            found.append(choice)
            migrated = f", migration {choice.alpha:g}" if choice.alpha else ""
            self.say(
                f"{number} of {len(layers)}, {layer.name}: {choice.method}{migrated}, error "
                f"{choice.error:.1e} (plain {choice.plain_error:.1e})"
            )
        return found

    def _cases(self) -> Iterator[Case]:
        """Pictures of the final comparison, read one by one."""
        if self.pictures is None:
            yield from self.phantoms
        else:
            yield from (picture.open() for picture in self.pictures.verification)

    def _held(self) -> list[Case]:
        """Pictures of the search; they stay in memory."""
        own = [] if self.pictures is None else self.pictures.verification[len(self.phantoms) :]
        return [*self.phantoms, *(picture.open() for picture in own[:HELD_PICTURES])]

    def _judge(
        self, built: Bundle, truth: Predictor, backend: str = "onnxruntime"
    ) -> VerificationRecord:
        """The gate: the files themselves in a runtime, on all pictures."""
        self.say(f"verifying in {backend}")
        with load(
            built.path, precision=self.precision, backend=backend, threads=self.threads,
            allow_refused=True,
        ) as engine:  # fmt: skip # an older record of the same files is not asked
            record = compare(
                truth, engine, self._cases(), precision=self.precision, progress=self.say
            )
        self.say(f"{self.precision} in {backend}: {in_words(record)}")
        return record

    def _found_wanting(self, built: Bundle, record: VerificationRecord, what: str) -> str | None:
        """Where graphs that are kept although they are refused go wrong; ``None``: they pass.

        Raises VerificationError if they are not to be kept.
        """
        if record.passed:
            return None
        where = self._explosion(built)
        text = f"the {what} not good enough: {'; '.join(record.failures)}; {where}"
        if not self.keep:
            raise VerificationError(f"{text}; nothing was written")
        self.say(f"{text}; kept, marked refused")
        return where

    def _explosion(self, built: Bundle) -> str:
        """Where the error explodes in graphs that are not good enough."""
        found = explosion(built, self.precision, threads=self.threads)
        return found or "where it goes wrong is not known, as the float32 graphs are left out"

    def _write(self, work: Path, builders: dict[str, GraphBuilder], alone: bool) -> Bundle:
        """A bundle with the old graphs, or those that stay, and the new ones."""
        document = json.loads((self.old.path / MANIFEST_NAME).read_text("utf-8"))
        new = {
            role: builder.write(work / f"{role}.{self.precision}.onnx", __version__)
            for role, builder in builders.items()
        }
        kept = [a for a in document["artifacts"] if a["precision"] != self.precision]
        if alone:
            kept = [a for a in kept if a["role"] not in new and a["precision"] == "fp32"]
            document["precision"] = self.precision
            document["parity"] = None
            document["calibration"] = None
        files: dict[str, Any] = {
            f["file"]: self.old.path / f["file"] for a in kept for f in (a, *a.get("data", []))
        }
        for role, (model, *data) in new.items():
            files.update({path.name: path for path in (model, *data)})
            names = [path.name for path in data]
            kept.append(artifact_entry(role, self.precision, model.name, builders[role], names))
        document["artifacts"] = kept
        return write_bundle(work / "bundle.samrt", document, files)

    def _stored(
        self, built: Bundle, record: VerificationRecord, entry: dict[str, Any], where: str | None
    ) -> Bundle:
        target = built.path / MANIFEST_NAME
        document = json.loads(target.read_text("utf-8"))
        pictures = self.pictures
        if pictures is not None:
            entry["images"] = [picture.name for picture in pictures.calibration]
            entry["images_sha256"] = pictures.sha256
            entry["held_out"] = pictures.held_out
        calibration = {**(document.get("calibration") or {}), self.precision: entry}
        document["calibration"] = calibration
        figures = record.as_dict() | ({} if where is None else {"first_wrong": where})
        document["parity"] = parity_with(document.get("parity"), figures, built.manifest.precision)
        target.write_text(f"{json.dumps(document, indent=2, ensure_ascii=False)}\n", "utf-8")
        return Bundle.open(built.path)
