"""The encoder and decoder of a bundle as engines in the cache."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from samrt._version import __version__
from samrt.bundle import Bundle
from samrt.engines.apart import build
from samrt.engines.api import Api
from samrt.engines.builder import BuiltEngine, check_options
from samrt.engines.cache import EngineCache
from samrt.engines.memory import DeviceInfo
from samrt.engines.options import BuildOptions
from samrt.engines.record import ANY_DEVICE, EngineKey, EngineRecord, model_digest
from samrt.errors import OptionError, OutputError
from samrt.imaging.write import write_files
from samrt.manifest import Artifact

__all__ = [
    "ROLES",
    "Builder",
    "BundleProgress",
    "Outcome",
    "build_bundle",
    "engine_key",
    "options_for_bundle",
]

ROLES = ("encoder", "decoder")
_MOST_TIMING_CACHE_BYTES = 1024 * 1024 * 1024

BundleProgress = Callable[[str, str, float], None]
"""``progress(role, phase, fraction)``."""

Builder = Callable[..., BuiltEngine]
"""Takes what :func:`samrt.engines.builder.build_engine` takes, and raises what it raises."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One engine of a bundle.

    Attributes:
        role: ``encoder`` or ``decoder``.
        precision: of the ONNX file it was built from.
        record: its manifest.
        path: the engine file.
        built: built now; false if it was in the cache.
    """

    role: str
    precision: str
    record: EngineRecord
    path: Path
    built: bool

    def as_dict(self) -> dict[str, Any]:
        """Return a plain, JSON-ready dictionary."""
        return {
            "role": self.role,
            "precision": self.precision,
            "path": str(self.path),
            "built": self.built,
            **self.record.as_dict(),
        }


def build_bundle(
    bundle: Bundle,
    api: Api,
    options: BuildOptions,
    *,
    precision: str = "auto",
    device: DeviceInfo | None = None,
    cache: EngineCache | None = None,
    force: bool = False,
    progress: BundleProgress | None = None,
    builder: Builder = build,
) -> list[Outcome]:
    """Build what is not in the cache yet.

    An engine of TensorRT-RTX is built in a process of its own, which is what makes its bytes the
    same each time; one of TensorRT 10 and 11 in this process, see :mod:`samrt.engines.apart`.

    Args:
        bundle: the model; its files are checked in full.
        api: the runtime.
        options: what to build for.
        precision: which of the bundle's ONNX files.
        device: the GPU of this machine, for runtimes that build for it.
        cache: where to keep the engines; the user's cache folder where ``None``.
        force: build again what is in the cache.
        progress: called with the role, the name of a phase and its fraction done.
        builder: what builds one engine.

    Raises:
        BundleError: a file of the bundle is damaged.
        OptionError: unknown precision, or the runtime does not offer what ``options`` ask for.
        BackendError: the runtime does not accept a file.
        OutputError: the cache cannot be written.
    """
    cache = EngineCache() if cache is None else cache
    options = options_for_bundle(bundle, options)
    check_options(api, options)
    artifacts = [bundle.artifact(role, precision) for role in ROLES]
    bundle.verify()
    cache.check_writable()
    found = []
    for artifact in artifacts:
        key = engine_key(artifact, api, options, device)
        known = None if force else cache.find(key)
        if known is not None:
            found.append(_outcome(artifact, known, cache, built=False))
            continue
        built = builder(
            api,
            bundle.file_of(artifact),
            artifact.inputs,
            artifact.outputs,
            options,
            progress=_with_role(progress, artifact.role),
            timing_cache=_read_timing_cache(options),
        )
        record = _record(bundle, artifact, key, built)
        cache.store(record, built.content)
        _write_timing_cache(options, built)
        found.append(_outcome(artifact, record, cache, built=True))
    return found


def options_for_bundle(bundle: Bundle, options: BuildOptions) -> BuildOptions:
    """The options with the fewest rows of a prompt that the model's rules allow."""
    return replace(options, min_points=bundle.manifest.prompts.pad_to or 1)


def engine_key(
    artifact: Artifact, api: Api, options: BuildOptions, device: DeviceInfo | None
) -> EngineKey:
    """The key under which the engine of an artifact is kept.

    Raises:
        OptionError: the runtime builds for the GPU of this machine, and ``device`` is ``None``.
    """
    flags: dict[str, Any] = options.flags()
    free = {size for spec in artifact.inputs for size in spec.shape if isinstance(size, str)}
    if not free:  # sizes of prompts do not touch the encoder
        for name in ("max_prompts", "max_points", "min_points"):
            del flags[name]
    if api.capabilities.builds_without_gpu:
        where, driver = ANY_DEVICE, ANY_DEVICE
    elif device is None:
        raise OptionError(f"{api.title} builds for the GPU of this machine: open it first")
    else:
        where, driver = device.key, device.driver
    return EngineKey(
        model_sha256=model_digest(artifact),
        runtime=api.runtime,
        version=api.version,
        device=where,
        driver=driver,
        targets=options.targets,
        flags=flags,
    )


def _with_role(progress: BundleProgress | None, role: str) -> Callable[[str, float], None] | None:
    if progress is None:
        return None
    tell = progress
    return lambda phase, fraction: tell(role, phase, fraction)


def _outcome(
    artifact: Artifact, record: EngineRecord, cache: EngineCache, *, built: bool
) -> Outcome:
    return Outcome(artifact.role, artifact.precision, record, cache.path_of(record), built)


def _record(bundle: Bundle, artifact: Artifact, key: EngineKey, built: BuiltEngine) -> EngineRecord:
    digest = hashlib.sha256(built.content).hexdigest()
    return EngineRecord(
        key=key,
        file=f"engine-{digest[:12]}.plan",
        bytes=len(built.content),
        sha256=digest,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        ranges=built.ranges,
        build={
            "model_id": bundle.model_id,
            "role": artifact.role,
            "model_file": artifact.file,
            "precision": artifact.precision,
            "layers": built.layers,
            "seconds": round(built.seconds, 3),
            "warnings": list(built.warnings),
            "fixed_addresses": built.varying is None,
            "varying": built.varying,
            "built_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "samrt": __version__,
            "platform": platform.platform(),
        },
    )


def _read_timing_cache(options: BuildOptions) -> bytes | None:
    path = options.timing_cache
    if path is None or not path.exists():
        if options.repeatable:
            raise OptionError(
                f"timing cache {path} is missing: build once without --repeatable to write it"
            )
        return None
    try:
        if path.stat().st_size > _MOST_TIMING_CACHE_BYTES:
            raise OptionError(f"timing cache {path} is larger than 1 GiB: this is another file")
        return path.read_bytes()
    except OSError as exc:
        raise OptionError(f"timing cache {path} cannot be read: {exc.strerror or exc}") from exc


def _write_timing_cache(options: BuildOptions, built: BuiltEngine) -> None:
    path = options.timing_cache
    if path is None or options.repeatable or built.timing_cache is None:
        return
    try:
        write_files({path: built.timing_cache}, force=True)
    except OutputError as exc:
        raise OutputError(f"the engine is built, but its timing cache is not kept: {exc}") from exc
