"""Registry of inference backends.

A row is a name, where its class lives, and which extra of samrt brings what it needs. A backend
is imported when it is used. What it requires is read from samrt's own package metadata, so a
version bound is written down once, in ``pyproject.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from samrt.backends._requirements import installed_version, missing_requirements
from samrt.backends.base import Backend
from samrt.errors import BackendUnavailableError, OptionError
from samrt.quoting import one_line

__all__ = [
    "BackendInfo",
    "BackendRow",
    "available_backends",
    "backend_version",
    "first_available",
    "get_backend",
    "register_backend",
]


@dataclass(frozen=True, slots=True)
class BackendRow:
    """Where a backend lives and what it needs.

    Attributes:
        name: what the user writes as ``backend=``.
        target: ``module:Class``, a subclass of :class:`samrt.backends.base.Backend`.
        distributions: names of the distributions it imports; ``a|b`` where either will do.
        extra: extra of samrt that installs them; ``None`` if they are core dependencies.
    """

    name: str
    target: str
    distributions: tuple[str, ...]
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """Whether a backend can be used here; ``missing`` says what lacks, one phrase per item."""

    name: str
    available: bool
    missing: tuple[str, ...]


_ROWS: dict[str, BackendRow] = {}


def register_backend(row: BackendRow) -> None:
    """Add a backend; earlier rows are preferred by ``backend="auto"``.

    Raises:
        OptionError: the name is taken or is ``auto``.
    """
    if row.name in _ROWS or row.name == "auto":
        raise OptionError(f"backend name {row.name!r} is taken: choose another one")
    _ROWS[row.name] = row


def available_backends() -> list[BackendInfo]:
    """Every known backend in order of preference and what it lacks, without importing any."""
    found = []
    for row in _ROWS.values():
        missing = missing_requirements(row.distributions, row.extra)
        found.append(BackendInfo(row.name, not missing, missing))
    return found


def backend_version(name: str) -> str | None:
    """Version of the first distribution that a backend needs; ``None`` if it is not installed.

    Read from its metadata: the runtime is not imported.
    """
    return installed_version(_ROWS[name].distributions[0])


def first_available() -> str:
    """Name of the first backend whose requirements are met.

    Raises:
        BackendUnavailableError: there is none; what each lacks is listed.
    """
    known = available_backends()
    for info in known:
        if info.available:
            return info.name
    raise _unavailable(known)


def get_backend(name: str = "auto") -> Backend:
    """Return a backend by name; ``"auto"`` takes the first one whose requirements are met.

    What :func:`samrt.load` takes for ``"auto"`` also depends on measurements, see
    :mod:`samrt.backends.choice`.

    Raises:
        OptionError: no backend has that name; the known names are listed.
        BackendUnavailableError: it, or with ``"auto"`` every one, lacks something; what each
            lacks is listed.
    """
    known = available_backends()
    names = ", ".join(["auto", *(info.name for info in known)])
    if name != "auto":
        known = [info for info in known if info.name == name]
        if not known:
            raise OptionError(f"unknown backend {name!r}: choose one of {names}")
    for info in known:
        if info.available:
            return _create(_ROWS[info.name])
    raise _unavailable(known)


def _unavailable(known: list[BackendInfo]) -> BackendUnavailableError:
    """The error that says what each backend lacks."""
    lacks = "; ".join(f"{info.name}: {', '.join(info.missing)}" for info in known)
    extra = _ROWS[known[0].name].extra if known else None
    package = f"samrt[{extra}]" if extra else "samrt"
    return BackendUnavailableError(
        f"no usable backend ({lacks or 'none registered'}): run `pip install {package}`"
    )


def _create(row: BackendRow) -> Backend:
    module_name, _, class_name = row.target.partition(":")
    try:
        backend_class = getattr(import_module(module_name), class_name)
    except ImportError as exc:
        raise BackendUnavailableError(
            f"backend {row.name!r} is installed but cannot be imported: {one_line(exc)}"
        ) from exc
    backend: Backend = backend_class()
    return backend


register_backend(
    BackendRow("onnxruntime", "samrt.backends.onnxruntime:OnnxRuntimeBackend", ("onnxruntime",))
)
register_backend(
    BackendRow("openvino", "samrt.backends.openvino:OpenVinoBackend", ("openvino",), "openvino")
)
register_backend(
    BackendRow(
        "tensorrt",
        "samrt.backends.tensorrt:TensorRTBackend",
        ("tensorrt|tensorrt-cu13|tensorrt-cu12", "cuda-bindings|pycuda"),
        "tensorrt",
    )
)
register_backend(
    BackendRow(
        "tensorrt-rtx",
        "samrt.backends.tensorrt:TensorRTRtxBackend",
        (
            "tensorrt-rtx|tensorrt-rtx-cu13-bindings|tensorrt-rtx-cu12-bindings",
            "cuda-bindings|pycuda",
        ),
        "tensorrt-rtx",
    )
)
