"""The folder of compiled engines: one entry per key, written completely or not at all.

An entry is the folder ``engines/KEY`` with ``manifest.json`` and the engine file that it names;
the manifest is renamed into place last, so an entry without one does not exist. An engine is
executable code for the GPU: only what lies in this folder, under the key of what it was built
from, for exactly this runtime and GPU, with the recorded size and sha256, is ever loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samrt.bundle import sha256_of
from samrt.engines.api import Api
from samrt.engines.memory import DeviceInfo
from samrt.engines.record import ANY_DEVICE, EngineKey, EngineRecord, read_record
from samrt.errors import BackendError, BundleError, OutputError, VerificationError
from samrt.folders import cache_folder
from samrt.gate import THRESHOLDS, judge_record
from samrt.imaging.write import write_files

__all__ = ["EngineCache", "cache_folder", "is_about_device", "misfits", "refusal_of"]

_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 1024 * 1024
_PORTABLE_FROM = 80


class EngineCache:
    """Engines on disk.

    Attributes:
        folder: where the entries lie; it need not exist yet.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (cache_folder() if folder is None else folder) / "engines"

    def path_of(self, record: EngineRecord) -> Path:
        """The engine file of an entry."""
        return self._entry(record.key) / record.file

    def _entry(self, key: EngineKey) -> Path:
        return self.folder / key.digest

    def check_writable(self) -> None:
        """Find out before a long build whether its result can be kept.

        Raises:
            OutputError: the folder cannot be made or written to.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            writable = os.access(self.folder, os.W_OK | os.X_OK)
        except OSError as exc:
            raise OutputError(
                f"cannot use {self.folder} for engines ({exc.strerror or exc}): set SAMRT_CACHE "
                "to a folder that can be written to"
            ) from exc
        if not writable:
            raise OutputError(f"{self.folder} is not writable: set SAMRT_CACHE to a folder that is")

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The entry of a key; ``None`` if there is none or it is unreadable or incomplete."""
        try:
            record = self._read_manifest(self._entry(key))
            self.check(record)
        except (BundleError, BackendError, FileNotFoundError):
            return None
        return record

    def records(self, model_sha256: str, runtime: str) -> list[EngineRecord]:
        """Every readable entry made from one model for one runtime, the latest first."""
        found = []
        for entry in sorted(self.folder.glob("*/" + _MANIFEST)) if self.folder.is_dir() else []:
            with contextlib.suppress(BundleError, FileNotFoundError):
                record = self._read_manifest(entry.parent)
                if (record.key.model_sha256, record.key.runtime) == (model_sha256, runtime):
                    found.append((entry.stat().st_mtime_ns, record))
        return [record for _, record in sorted(found, key=lambda item: item[0], reverse=True)]

    def _read_manifest(self, entry: Path) -> EngineRecord:
        path = entry / _MANIFEST
        try:
            if path.stat().st_size > _MOST_MANIFEST_BYTES:
                raise BundleError(f"{path} is larger than 1 MiB: not the manifest of an engine")
            document = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, RecursionError) as exc:
            if isinstance(exc, BundleError):
                raise
            raise BundleError(f"{path} cannot be read ({exc}): build the engine again") from exc
        record = read_record(document, str(path))
        if record.key.digest != entry.name:
            raise BundleError(f"{path} belongs to another folder: build the engine again")
        return record

    def check(self, record: EngineRecord) -> None:
        """Refuse an engine file that is not the recorded one, without reading it into memory.

        Raises:
            BackendError: missing, of another size or content, or open to other users.
        """
        path = self.path_of(record)
        again = "build it again with samrt build --force"
        try:
            state = path.lstat()
            if not stat.S_ISREG(state.st_mode):
                raise BackendError(f"engine {path} is not a regular file: {again}")
            if os.name == "posix" and (state.st_mode | path.parent.stat().st_mode) & stat.S_IWOTH:
                raise BackendError(
                    f"engine {path} can be written by every user of this machine and may have "
                    f"been replaced: {again}"
                )
            if state.st_size != record.bytes:
                raise BackendError(
                    f"engine {path} has {state.st_size} bytes, expected {record.bytes}: {again}"
                )
            digest = sha256_of(path)
        except OSError as exc:
            raise BackendError(f"engine {path} cannot be read ({exc.strerror}): {again}") from exc
        if digest != record.sha256:
            raise BackendError(
                f"engine {path} has sha256 {digest[:12]}…, expected {record.sha256[:12]}…: {again}"
            )

    def store(self, record: EngineRecord, content: bytes) -> Path:
        """Keep an engine; an entry of the same key is replaced.

        Raises:
            OutputError: the disk refused; the old entry, if any, is as it was.
        """
        self.check_writable()
        entry = self._entry(record.key)
        path = entry / record.file
        try:
            entry.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise OutputError(f"cannot make {entry}: {exc.strerror or exc}") from exc
        existed = path.exists()
        write_files({path: content}, force=True)
        try:
            self._write_manifest(record)
        except OutputError:
            if not existed:
                path.unlink(missing_ok=True)
            raise
        for other in entry.glob("engine-*.plan"):
            if other != path:
                with contextlib.suppress(OSError):
                    other.unlink()
        return path

    def record_verification(self, record: EngineRecord, figures: Mapping[str, Any]) -> EngineRecord:
        """Write the record of a comparison into an entry; :mod:`samrt.gate` judges it.

        Raises:
            OutputError: the disk refused.
        """
        changed = record.with_verification(figures)
        self._write_manifest(changed)
        return changed

    def _write_manifest(self, record: EngineRecord) -> None:
        text = json.dumps(record.as_dict(), indent=2, allow_nan=False)
        write_files({self._entry(record.key) / _MANIFEST: f"{text}\n".encode()}, force=True)

    def choose(
        self,
        model_sha256: str,
        label: str,
        api: Api,
        device: DeviceInfo,
        *,
        allow_refused: bool = False,
    ) -> EngineRecord:
        """The latest engine of a model that fits this runtime and GPU.

        Args:
            model_sha256: :func:`samrt.engines.record.model_digest` of the ONNX file.
            label: name of that file for messages.
            api: the runtime.
            device: the GPU.
            allow_refused: also one that its verification has refused.

        Raises:
            BackendError: there is none; what was found and why it does not fit is listed.
            VerificationError: those that fit are refused.
        """
        reasons, refused = [], []
        for record in self.records(model_sha256, api.runtime):
            problems = misfits(record, api, device)
            refusal = None if allow_refused else refusal_of(record, device)
            if not problems and refusal is None:
                return record
            if not problems:
                refused.append(refusal)
                continue
            reasons.append(f"{record.key.digest[:8]}: {', '.join(problems)}")
        if refused:
            raise VerificationError(
                f"the engine of {label} for {api.title} is refused, it does not compute what the "
                f"FP32 model does: {refused[0]}; build it again with samrt build BUNDLE --runtime "
                f"{api.runtime} --force, or use it all the same with allow_refused=True "
                "(--allow-refused), which every result will say"
            )
        what = "; ".join(reasons) or f"none in {self.folder} was built from this file"
        raise BackendError(
            f"no engine for {label} fits {api.title} on {device} ({what}): run samrt build BUNDLE "
            f"--runtime {api.runtime} here"
        )


def misfits(record: EngineRecord, api: Api, device: DeviceInfo) -> list[str]:
    """Why an engine must not be loaded by this runtime on this GPU; empty if it may."""
    key, found = record.key, []
    if key.version != api.version:
        found.append(f"built with version {key.version}, installed is {api.version}")
    if key.device not in (ANY_DEVICE, device.key):
        found.append(f"built on {key.device}, this GPU is {device.key}")
    if key.driver not in (ANY_DEVICE, device.driver):
        found.append(f"built with driver {key.driver}, this machine has {device.driver}")
    if key.device == ANY_DEVICE:
        if key.targets and device.generation not in key.targets:
            found.append(f"built for {','.join(key.targets)}, this GPU is {device.generation}")
        elif not key.targets and device.capability < _PORTABLE_FROM:
            found.append(f"built for sm80 and newer, this GPU is {device.generation}")
    return found


def refusal_of(record: EngineRecord, device: DeviceInfo) -> str | None:
    """What a verification on this GPU holds against an engine; ``None`` if nothing."""
    told = record.verification
    if told is None or not is_about_device(told, device):
        return None
    precision = str(told.get("precision", record.build.get("precision", "fp32")))
    verdict = judge_record(told, precision if precision in THRESHOLDS else "fp32")
    return verdict.detail if verdict.state == "refused" else None


def is_about_device(verification: Mapping[str, Any], device: DeviceInfo) -> bool:
    """Whether a record was made on this GPU with this driver; one that does not say was.

    A portable engine is compiled further by each driver, so elsewhere it says nothing.
    """
    told = (verification.get("device", device.key), verification.get("driver", device.driver))
    return told == (device.key, device.driver)
