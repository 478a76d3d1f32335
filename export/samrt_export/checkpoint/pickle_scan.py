"""Which names a pickle would import, found by reading its opcodes; nothing in it is run."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO

from samrt.quoting import one_line
from samrt_export.checkpoint.errors import CheckpointError, listing

__all__ = ["check_globals", "globals_of", "is_plain"]

_DTYPES = (
    "bfloat16", "bool", "complex128", "complex64", "float16", "float32", "float64", "int16",
    "int32", "int64", "int8", "uint8",
)  # fmt: skip
_STORAGES = (
    "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half",
    "Int", "Long", "Short",
)  # fmt: skip
_PLAIN = {
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    "torch.storage._UntypedStorage",
    "builtins.set",
    *(f"torch.{name}" for name in _DTYPES),
    *(f"torch.{name}Storage" for name in _STORAGES),
}
_TEXT = ("UNICODE", "STRING")


def is_plain(name: str) -> bool:
    """Whether a global is one that tensors and plain containers are made of."""
    return name in _PLAIN


def check_globals(stream: IO[bytes], where: str) -> None:
    """Read one pickle from ``stream`` and refuse it if it needs more than tensors.

    Args:
        stream: positioned at the first opcode; ends up behind the last one.
        where: name of the file for messages.

    Raises:
        CheckpointError: the pickle is damaged, or it names anything else; all names are listed.
    """
    foreign = sorted({name for name in globals_of(stream, where) if not is_plain(name)})
    if foreign:
        raise CheckpointError(
            f"{where} is refused: its pickle would import {listing(foreign)}, and samrt loads "
            "tensors and plain containers only; if you trust the file, load it with the code it "
            "came from and save the weights alone with torch.save(model.state_dict(), path)"
        )


def globals_of(stream: IO[bytes], where: str) -> Iterator[str]:
    """Every ``module.name`` that one pickle would look up, in order.

    A lookup whose name is computed shows as ``a computed name``.

    Raises:
        CheckpointError: the pickle is cut short or not a pickle.
    """
    texts: list[str | None] = []
    memo: dict[int, str | None] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            kind = opcode.name
            if kind in ("GLOBAL", "INST"):
                yield _modern(*str(argument).rsplit(" ", 1))
            elif kind == "STACK_GLOBAL":
                module, name = texts[-2:] if len(texts) > 1 else (None, None)
                known = module is not None and name is not None
                yield _modern(str(module), str(name)) if known else "a computed name"
            elif kind.startswith("EXT"):
                yield f"copyreg extension {argument}"
            if any(part in kind for part in _TEXT):
                texts.append(str(argument))
            elif kind in ("GET", "BINGET", "LONG_BINGET"):
                texts.append(memo.get(int(str(argument))))
            elif kind in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(str(argument))] = texts[-1] if texts else None
            elif kind == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else None
            else:
                texts.append(None)
            del texts[:-2]
    except (ValueError, IndexError, OverflowError, MemoryError) as exc:
        reason = one_line(exc)
        raise CheckpointError(
            f"{where} is damaged: its pickle cannot be read ({reason}); download or save it again"
        ) from exc


def _modern(module: str, name: str = "") -> str:
    """``module.name`` with the name that Python 2's builtins have today."""
    return f"{'builtins' if module == '__builtin__' else module}.{name}"
