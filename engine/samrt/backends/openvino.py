"""The OpenVINO backend: CPU, and by their names the other devices that OpenVINO knows.

OpenVINO may compute in bfloat16 or float16 where the processor or the GPU likes that better; here
every session is told which precision to compute in, and refused if it does otherwise. Its Python
package reports each import to its makers over the network; samrt imports it without that part.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.backends._compiled import CompiledCache, CompiledKey
from samrt.backends._proofs import KeptProof
from samrt.backends.base import Arrays, Backend, Proof, Session, SessionOptions, TensorSpec, quoted
from samrt.engines.record import model_digest
from samrt.environment import cpu_info
from samrt.errors import BackendError, OptionError

if TYPE_CHECKING:
    from samrt.bundle import Bundle
    from samrt.manifest import Artifact

__all__ = ["OpenVinoBackend", "OpenVinoOptions", "import_openvino"]

_TELEMETRY = "openvino_telemetry"
_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "i64": "int64",
    "i32": "int32",
    "u8": "uint8",
    "i8": "int8",
    "boolean": "bool",
}
_LARGEST_KEPT_FOR_CPU = 128 * 2**20


def import_openvino() -> Any:
    """Import the package ``openvino`` without its telemetry.

    For the time of the import the package that sends it counts as not installed, and OpenVINO
    takes a stub of its own in its place, for the life of the process. An OpenVINO that has been
    imported before is left as it is: its telemetry was the importer's decision.

    Raises:
        ImportError: OpenVINO is not installed or cannot be loaded.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    with _hidden(_TELEMETRY):
        return importlib.import_module("openvino")


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let importing a package fail; what was imported of it before comes back afterwards."""
    names = [n for n in sys.modules if n == package or n.startswith(f"{package}.")]
    kept = {name: sys.modules.pop(name) for name in names}
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(kept)


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """Where models run and whether what was compiled is kept.

    Attributes:
        device: a device of OpenVINO, ``CPU``, ``GPU``, ``GPU.1``, ``NPU``
            (``SAMRT_OPENVINO_DEVICE``).
        decoder_device: the decoder's, where it is another one: an NPU wants fixed shapes, which
            a decoder of any number of prompts has not (``SAMRT_OPENVINO_DECODER_DEVICE``).
        cache: keep compiled models in samrt's cache folder (``SAMRT_OPENVINO_CACHE=0``: do not).
    """

    device: str = "CPU"
    decoder_device: str | None = None
    cache: bool = True

    @classmethod
    def from_environment(cls) -> OpenVinoOptions:
        """Options as the environment's variables say.

        Raises:
            OptionError: ``SAMRT_OPENVINO_CACHE`` is neither 1 nor 0.
        """
        keep = os.environ.get("SAMRT_OPENVINO_CACHE", "1")
        if keep not in ("0", "1"):
            raise OptionError(f"SAMRT_OPENVINO_CACHE is {keep!r}, expected 1 or 0")
        return cls(
            device=os.environ.get("SAMRT_OPENVINO_DEVICE") or "CPU",
            decoder_device=os.environ.get("SAMRT_OPENVINO_DECODER_DEVICE") or None,
            cache=keep == "1",
        )

    def device_for(self, role: str) -> str:
        """The device of the ``encoder`` or the ``decoder``."""
        return self.decoder_device or self.device if role == "decoder" else self.device


class OpenVinoBackend(Backend):
    """Runs ONNX files with OpenVINO.

    Args:
        options: device and cache; from the environment where ``None``.
    """

    name = "openvino"

    def __init__(self, options: OpenVinoOptions | None = None) -> None:
        self._ov = import_openvino()
        self._options = OpenVinoOptions.from_environment() if options is None else options
        self._core = self._ov.Core()
        self._used: list[str] = []

    def create(self, model: Path | bytes, options: SessionOptions) -> Session:
        """Open an ONNX model in float32; see :meth:`samrt.backends.base.Backend.create`.

        ``options.threads`` holds on the CPU. OpenVINO manages its memory and its threads' waiting
        itself: ``arena`` and ``spinning`` change nothing here.
        """
        label = model.name if isinstance(model, Path) else "from memory"
        compiled = self._compile(model, label, self._options.device, _config("f32", options, "CPU"))
        return _OpenVinoSession(label, compiled)

    def open_artifact(self, bundle: Bundle, artifact: Artifact, options: SessionOptions) -> Session:
        """Open a bundle's encoder or decoder; what was compiled is kept for the next time.

        Everything is computed in float32, but float16 models on devices other than the CPU, for
        which they are made.

        Raises:
            BackendError: OpenVINO does not accept the model, lacks the device, or would compute
                in another precision.
        """
        device = self._options.device_for(artifact.role)
        hint = "f16" if artifact.precision == "fp16" and not device.startswith("CPU") else "f32"
        config = _config(hint, options, device)
        path = bundle.file_of(artifact)
        key = CompiledKey(
            model_digest(artifact), self.name, self.version(), self._device_key(device), config
        )
        cache = CompiledCache() if self._keeps(artifact, device) else None
        content = cache.load(key) if cache else None
        if content is not None:
            compiled = self._import(content, artifact.file, device, config)
        else:
            compiled = self._compile(path, artifact.file, device, config)
            if cache and cache.writable:
                written = _written_down(compiled)
                if written is not None:
                    cache.store(key, written)
        self._used.append(device)
        self._check(compiled, artifact.file, config)
        named = (*artifact.inputs, *artifact.outputs)
        about = {
            "model": key.model_sha256,
            "precision": artifact.precision,
            "device": key.device,
            "computes": hint,
        }
        return _OpenVinoSession(artifact.file, compiled, named, about)

    def _keeps(self, artifact: Artifact, device: str) -> bool:
        """Whether to keep a compiled model.

        For the CPU a large one is not: reading it back would need its memory twice, and compiling
        it takes little longer.
        """
        size = sum(item.bytes for item in artifact.all_files)
        return self._options.cache and (device != "CPU" or size <= _LARGEST_KEPT_FOR_CPU)

    def proof(self, sessions: Mapping[str, Session]) -> Proof | None:
        """Where a record of these sessions is kept that OpenVINO itself has earned.

        On the CPU float32 is float32, whoever computes it; int8 products, and kernels of other
        devices, are OpenVINO's own, so the record of the graphs in ONNX Runtime says little.
        """
        about = {
            role: session.about
            for role, session in sessions.items()
            if isinstance(session, _OpenVinoSession)
        }
        usual = all(
            part["precision"] != "int8" and part["device"].split()[0] == "CPU"
            for part in about.values()
        )
        if usual:
            return None
        advice = "use another precision, or backend='onnxruntime' (--backend onnxruntime)"
        return KeptProof(self.name, {"version": self.version(), "models": about}, advice)

    def device(self) -> str:
        """Devices of the sessions opened so far, as they were asked for."""
        return ", ".join(dict.fromkeys(self._used)) or self._options.device

    def version(self) -> str:
        """Version of the installed OpenVINO."""
        return str(self._ov.__version__)

    def _device_key(self, device: str) -> str:
        """What compiled models depend on besides the model: the device and what it can do."""
        if device == "CPU":
            cpu = cpu_info()
            return f"CPU {cpu['model']} {' '.join(cpu['flags'])}"
        try:
            return f"{device} {self._core.get_property(device, 'FULL_DEVICE_NAME')}"
        except Exception:  # such as AUTO:GPU,CPU, which has no name of its own
            return f"{device} of {', '.join(self._core.available_devices)}"

    def _compile(
        self, model: Path | bytes, label: str, device: str, config: Mapping[str, Any]
    ) -> Any:
        try:
            source = str(model) if isinstance(model, Path) else self._core.read_model(model)
            return self._core.compile_model(source, device, dict(config))
        except Exception as exc:
            raise self._refusal(label, device, exc) from exc

    def _import(self, content: bytes, label: str, device: str, config: Mapping[str, Any]) -> Any:
        try:
            return self._core.import_model(content, device, dict(config))
        except Exception as exc:
            raise self._refusal(label, device, exc) from exc

    def _refusal(self, label: str, device: str, exc: Exception) -> BackendError:
        devices = ", ".join(self._core.available_devices)
        return BackendError(
            f"OpenVINO {self.version()} cannot open model {label} on {device} (it has {devices}): "
            f"{quoted(exc)}"
        )

    def _check(self, compiled: Any, label: str, config: Mapping[str, Any]) -> None:
        """Refuse a model that would run otherwise than asked for."""
        known = compiled.get_property("SUPPORTED_PROPERTIES")
        hint = config["INFERENCE_PRECISION_HINT"]
        if "INFERENCE_PRECISION_HINT" in known:
            real = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            if real != hint:
                raise BackendError(
                    f"model {label}: OpenVINO would compute in {real} although {hint} was asked for"
                )
        threads = config.get("INFERENCE_NUM_THREADS")
        if threads is not None and "INFERENCE_NUM_THREADS" in known:
            real_threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
            if real_threads > threads:
                raise BackendError(
                    f"model {label}: OpenVINO would use {real_threads} threads although {threads} "
                    "were asked for"
                )


def _written_down(compiled: Any) -> bytes | None:
    """A compiled model as bytes; ``None`` where its device, such as AUTO, cannot do that."""
    try:
        content: bytes = compiled.export_model().getvalue()
    except RuntimeError:
        return None
    return content


def _config(hint: str, options: SessionOptions, device: str) -> dict[str, Any]:
    """Properties of a compiled model; those about threads are the CPU's."""
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if device == "CPU":
        config["NUM_STREAMS"] = "1"
        config["INFERENCE_NUM_THREADS"] = options.effective_threads
        # Pinned threads stand in each other's way as soon as the machine has other work.
        config["ENABLE_CPU_PINNING"] = False
    return config


class _OpenVinoSession(Session):
    """A compiled model and as many requests as ever ran at once.

    Attributes:
        about: what its answers depend on, for models of a bundle: ``model`` (digest), ``precision``
            of the file, ``device``, and ``computes``, the precision it was told to compute in.
    """

    def __init__(
        self,
        label: str,
        compiled: Any,
        named: Sequence[TensorSpec] = (),
        about: Mapping[str, str] | None = None,
    ) -> None:
        known = {spec.name: spec for spec in named}
        super().__init__(
            label,
            [_spec(port, known) for port in compiled.inputs],
            [_spec(port, known) for port in compiled.outputs],
        )
        self._compiled: Any = compiled
        self.about = dict(about or {})
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        request = self._request()
        try:
            results = request.infer(dict(feeds), share_inputs=True)
        except Exception as exc:  # the request may be half done: it is not used again
            raise BackendError(f"model {self.name} failed while running: {quoted(exc)}") from exc
        found = {spec.name: np.asarray(results[i]) for i, spec in enumerate(self.outputs)}
        with self._lock:
            if self._compiled is not None:
                self._idle.append(request)
        return found

    def _request(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._compiled is None:
                raise BackendError(f"model {self.name} is closed: load it again")
            return self._compiled.create_infer_request()

    def close(self) -> None:
        super().close()
        with self._lock:
            self._idle.clear()
            self._compiled = None


def _spec(port: Any, known: Mapping[str, TensorSpec]) -> TensorSpec:
    """Name, dtype and shape; sizes that are free carry the manifest's letters where it has any.

    OpenVINO does not keep the letters of an ONNX file.
    """
    name, sizes = port.get_any_name(), list(port.get_partial_shape())
    real = port.get_element_type().get_type_name()
    wanted = known.get(name)
    letters: Sequence[int | str] = ()
    if wanted is not None and len(wanted.shape) == len(sizes):
        letters = wanted.shape
    shape: list[int | str] = []
    for axis, size in enumerate(sizes):
        letter = letters[axis] if letters else None
        if size.is_static:
            shape.append(int(size.get_length()))
        else:
            shape.append(letter if isinstance(letter, str) else f"free{axis}_{name}")
    return TensorSpec(name, _DTYPES.get(real, real), tuple(shape))
