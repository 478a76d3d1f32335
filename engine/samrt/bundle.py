"""A model bundle on disk: the folder ``NAME.samrt`` with ``manifest.json`` and model files.

A bundle is checked before anything in it is used: the manifest against its schema and for
contradictions, every file for its presence, size and sha256. Nothing in a bundle is executed by
samrt; the ONNX files are interpreted by the inference runtime. Writing goes to a temporary
sibling folder that is renamed when it is complete and has passed the same checks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from samrt.bundle_files import file_problem, sha256_of
from samrt.errors import BundleError, ModelNotFoundError, OptionError, OutputError
from samrt.manifest import Manifest, parse_manifest
from samrt.manifest_artifacts import Artifact, DataFile
from samrt.quoting import one_line

__all__ = ["Bundle", "available_models", "find_model", "sha256_of", "write_bundle"]

MANIFEST_NAME = "manifest.json"
SUFFIX = ".samrt"
HASH_ALWAYS_BELOW_BYTES = 64 * 1024 * 1024
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened and checked bundle.

    Attributes:
        path: the bundle folder.
        manifest: its typed manifest.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(
        cls, path: str | PathLike[str], *, verify: Literal["schema", "full"] = "schema"
    ) -> Bundle:
        """Open a bundle folder.

        Args:
            path: the folder that holds ``manifest.json``.
            verify: ``"schema"`` checks the manifest, the size of every file and the sha256 of
                files under 64 MiB; ``"full"`` checks the sha256 of all files.

        Raises:
            ModelNotFoundError: there is no such folder.
            BundleError: the folder is not an intact bundle.
            OptionError: ``verify`` has another value.
        """
        if verify not in ("schema", "full"):
            raise OptionError(f"verify must be 'schema' or 'full', got {verify!r}")
        folder = Path(path)
        try:
            there, is_folder = folder.exists(), folder.is_dir()
        except OSError as exc:
            raise BundleError(f"cannot read {folder}: {exc.strerror or exc}") from exc
        if not is_folder:
            what = "is a file" if there else "does not exist"
            raise ModelNotFoundError(f"{folder} {what}, expected the folder of a model bundle")
        bundle = cls(folder, _read_manifest(folder))
        limit = None if verify == "full" else HASH_ALWAYS_BELOW_BYTES
        bundle._check_files(limit)
        return bundle

    def verify(self) -> None:
        """Check size and sha256 of every file, however large.

        Raises:
            BundleError: a file is missing or differs from the manifest; all are listed.
        """
        self._check_files(None)

    @property
    def model_id(self) -> str:
        """``name@`` + 12 hex digits over the sha256 of all model files and the manifest's rules."""
        return f"{self.manifest.name}@{self.sha256[:12]}"

    @property
    def sha256(self) -> str:
        """Hex digest that changes with any model file and with any rule of the manifest."""
        m = self.manifest
        files = sorted(_fingerprint(a) for a in m.artifacts)
        text = repr((m.name, m.variant, m.input, m.prompts, m.output, files))
        return hashlib.sha256(text.encode()).hexdigest()

    def precisions(self) -> tuple[str, ...]:
        """Precisions in which the encoder is there, the default one first."""
        found = {a.precision for a in self.manifest.artifacts if a.role == "encoder"}
        default = self.manifest.precision
        return (default, *sorted(found - {default}))

    def artifact(self, role: str, precision: str = "auto") -> Artifact:
        """Return the encoder or decoder for a precision; ``"auto"`` is the bundle's default.

        It is the form that every backend can open; see :meth:`form_for` for others.

        An encoder precision without a decoder of its own is served with the decoder of the
        default precision: quantised encoders keep their float decoder.

        Raises:
            OptionError: the bundle has no such precision or role.
        """
        wanted = self.manifest.precision if precision == "auto" else precision
        known = self.precisions()
        if wanted not in known:
            raise OptionError(
                f"model {self.manifest.name!r} has no precision {wanted!r}: "
                f"choose 'auto' or one of {', '.join(known)}"
            )
        items = [a for a in self.manifest.artifacts if a.role == role and a.runtime is None]
        exact = [a for a in items if a.precision == wanted]
        if exact:
            return exact[0]
        usual = [a for a in items if a.precision == self.manifest.precision] or items
        if role == "decoder" and len(usual) == 1:
            return usual[0]
        raise OptionError(
            f"model {self.manifest.name!r} has no {role} of precision {wanted!r}: "
            f"there is {', '.join(a.precision for a in items) or 'none'}"
        )

    def form_for(self, artifact: Artifact, runtime: str) -> Artifact | None:
        """The form of an artifact that is made for one backend; ``None`` if there is none."""
        wanted = (artifact.role, artifact.precision, runtime)
        found = (a for a in self.manifest.artifacts if (a.role, a.precision, a.runtime) == wanted)
        return next(found, None)

    def files(self) -> dict[str, Artifact | DataFile]:
        """Every model file and data file by name, each once."""
        return {item.file: item for a in self.manifest.artifacts for item in a.all_files}

    def file_of(self, artifact: Artifact) -> Path:
        """Path of an artifact's model file; its data files lie where that file expects them."""
        return self.path / artifact.file

    def _check_files(self, hash_below: int | None) -> None:
        problems = [file_problem(self.path, f, hash_below) for f in self.files().values()]
        found = [problem for problem in problems if problem]
        if found:
            raise BundleError(
                f"model bundle {self.path} is damaged: {'; '.join(found)}; install it again"
            )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than 4 MiB, this is not a manifest")
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} holds no {MANIFEST_NAME}: not a samrt model bundle") from None
    except OSError as exc:
        raise BundleError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, BundleError):
            raise
        raise BundleError(f"{path} is not valid JSON: {one_line(exc)}") from exc
    return parse_manifest(document, where=str(path))


def _fingerprint(artifact: Artifact) -> tuple[str | tuple[str, str], ...]:
    """What of an artifact enters the bundle's digest; data files only where there are some."""
    data = tuple(sorted((item.file, item.sha256) for item in artifact.data))
    return (artifact.role, artifact.precision, artifact.sha256, *data)


def models_folder() -> Path:
    """Folder of the models that ship inside the package."""
    return Path(__file__).parent / "models"


def available_models() -> dict[str, Path]:
    """Name -> bundle folder of every model that ships inside the package."""
    root = models_folder()
    found = [*root.glob(f"*{SUFFIX}"), *root.glob(f"*/*{SUFFIX}")]
    return {path.name.removesuffix(SUFFIX): path for path in sorted(found) if path.is_dir()}


def find_model(model: str | PathLike[str]) -> Path:
    """Resolve the name of a shipped model or the path of a bundle folder.

    A bare name (no separator, no ``.samrt`` ending) is looked up among the shipped models first
    and then as a folder.

    Raises:
        ModelNotFoundError: nothing has that name; the known names are listed.
        OptionError: ``model`` is neither text nor a path.
    """
    if not isinstance(model, (str, PathLike)):
        raise OptionError(f"model must be a name or a path, got {type(model).__name__}")
    shipped = available_models()
    if isinstance(model, str) and model in shipped:
        return shipped[model]
    text = os.fspath(model)
    with contextlib.suppress(OSError, ValueError):  # a name no file system would take
        if text and Path(text).exists():
            return Path(text)
    names = ", ".join(shipped) or "none"
    raise ModelNotFoundError(
        f"no model named {text!r}: shipped models are {names}; "
        f"or give the path of a bundle folder (NAME{SUFFIX})"
    )


def write_bundle(
    path: str | PathLike[str],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes | PathLike[str]],
    *,
    overwrite: bool = False,
    move: bool = False,
) -> Bundle:
    """Write a bundle folder completely, or leave everything as it was.

    Args:
        path: the folder to create; its name should end in ``.samrt``.
        manifest: the JSON document. ``bytes`` and ``sha256`` of the artifacts and of their data
            files are filled in.
        files: content (bytes) or source path for each ``artifacts[].file`` and each
            ``artifacts[].data[].file``.
        overwrite: replace an existing bundle.
        move: take the source files over instead of copying them: a rename where they lie on
            the same file system, else a copy of which the source is removed when the bundle
            stands. If writing fails the sources are where they were.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is false or it is not a bundle; or it
            cannot be written.
        BundleError: the manifest or the set of files has problems; all are listed.
    """
    target = Path(path)
    _check_target(target, overwrite)
    document = json.loads(json.dumps(manifest))
    temporary: Path | None = None
    taken: list[tuple[Path, Path]] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        temporary.chmod(0o755)
        _fill(temporary, document, files, taken if move else None)
        Bundle.open(temporary, verify="full")
        _put_in_place(temporary, target)
        _forget_sources(files if move else {}, taken)
        taken.clear()
    except OSError as exc:
        if isinstance(exc, OutputError):
            raise
        raise OutputError(f"cannot write bundle {target}: {exc.strerror or exc}") from exc
    finally:
        for source, destination in reversed(taken):
            if destination.exists():
                destination.rename(source)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return Bundle.open(target)


def _check_target(target: Path, overwrite: bool) -> None:
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise OutputError(f"{target} exists: choose another name or pass overwrite=True")
    if target.is_symlink() or not (target / MANIFEST_NAME).is_file():
        raise OutputError(f"{target} exists and is not a bundle folder: it will not be replaced")


def _fill(
    folder: Path,
    document: dict[str, Any],
    files: Mapping[str, bytes | PathLike[str]],
    taken: list[tuple[Path, Path]] | None,
) -> None:
    """Put all files and the completed manifest into ``folder``; ``taken`` records renames."""
    entries = _file_entries(document)
    named = {str(entry.get("file")) for entry in entries}
    if named != set(files):
        lacking, extra = sorted(named - set(files)), sorted(set(files) - named)
        raise BundleError(f"artifacts and files differ: no content for {lacking}, unused {extra}")
    shared: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = str(entry["file"])
        if name in shared and "role" not in entry:
            entry.update(shared[name])  # a data file of an earlier artifact too
            continue
        destination = folder / name
        if not destination.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"artifact file {name!r} lies outside the bundle")
        if destination.exists():
            raise BundleError(f"artifact file {name!r}: name used twice")
        destination.parent.mkdir(parents=True, exist_ok=True)
        content = files[name]
        if isinstance(content, bytes):
            destination.write_bytes(content)
        else:
            _bring(Path(content), destination, taken)
        entry["bytes"] = destination.stat().st_size
        entry["sha256"] = sha256_of(destination)
        if "role" not in entry:
            shared[name] = entry
    text = json.dumps(document, indent=2, ensure_ascii=False)
    (folder / MANIFEST_NAME).write_text(f"{text}\n", "utf-8")


def _file_entries(document: object) -> list[dict[str, Any]]:
    """The artifacts of a manifest not yet checked, each followed by its data files."""
    artifacts = document.get("artifacts") if isinstance(document, dict) else None
    entries: list[dict[str, Any]] = []
    for artifact in artifacts if isinstance(artifacts, list) else []:
        if isinstance(artifact, dict):
            data = artifact.get("data")
            items = data if isinstance(data, list) else []
            entries += [artifact, *(item for item in items if isinstance(item, dict))]
    return entries


def _bring(source: Path, destination: Path, taken: list[tuple[Path, Path]] | None) -> None:
    """Rename ``source`` if ``taken`` is a list and the file system allows it, else copy it."""
    if taken is not None and source.is_file() and not source.is_symlink():
        try:
            source.rename(destination)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
        else:
            taken.append((source, destination))
            return
    shutil.copyfile(source, destination)


def _forget_sources(
    files: Mapping[str, bytes | PathLike[str]], taken: list[tuple[Path, Path]]
) -> None:
    """Remove sources that had to be copied although they were to be moved."""
    renamed = {source for source, _ in taken}
    for content in files.values():
        if not isinstance(content, bytes) and Path(content) not in renamed:
            with contextlib.suppress(OSError):
                Path(content).unlink()


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target``; an old bundle steps aside and returns on failure."""
    if not target.exists():
        temporary.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(aside / target.name)
    try:
        temporary.rename(target)
    except OSError:
        (aside / target.name).rename(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
