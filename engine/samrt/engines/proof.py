"""The record of a pair of engines: kept in both manifests, valid for one GPU and driver.

A portable engine (TensorRT-RTX) is compiled further by each driver, so a record made with another
GPU or driver says nothing here, and neither does that of an encoder with another decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samrt.backends.base import Proof
from samrt.engines.cache import EngineCache, is_about_device
from samrt.engines.memory import DeviceInfo
from samrt.engines.record import EngineRecord

__all__ = ["EngineProof"]


class EngineProof(Proof):
    """Where the record of an encoder's and a decoder's engine is kept.

    Args:
        cache: the engines.
        records: role -> manifest of the engine in use.
        device: the GPU that runs them.
        runtime_version: version of the runtime.
    """

    def __init__(
        self,
        cache: EngineCache,
        records: Mapping[str, EngineRecord],
        device: DeviceInfo,
        runtime_version: str,
    ) -> None:
        self._cache = cache
        self._records = dict(records)
        self._device = device
        self._version = runtime_version

    @property
    def engines(self) -> dict[str, str]:
        """Role -> sha256 of the engine."""
        return {role: record.sha256 for role, record in self._records.items()}

    def record(self) -> Mapping[str, Any] | None:
        """The record that all engines of the pair agree on, made on this GPU and driver."""
        found = [item.verification for item in self._records.values()]
        first = found[0]
        if first is None or any(other != first for other in found):
            return None
        about_these = first.get("engines") == self.engines
        return first if about_these and is_about_device(first, self._device) else None

    def store(self, record: Mapping[str, Any]) -> None:
        """Write a record into the manifests of all engines of the pair."""
        told = {
            **record,
            "engines": self.engines,
            "device": self._device.key,
            "driver": self._device.driver,
            "runtime_version": self._version,
        }
        for role, item in self._records.items():
            self._records[role] = self._cache.record_verification(item, told)

    def advice(self) -> str:
        """Build again."""
        runtime = next(iter(self._records.values())).key.runtime
        return f"build it again with samrt build BUNDLE --runtime {runtime} --force"
