"""Checkpoints of random weights: for trying exports, timing and tests without a download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from samrt_export.families import family_named

__all__ = ["seeded_state", "seeded_tensors"]


def seeded_state(name: str, variant: str | None = None, seed: int = 7) -> dict[str, Tensor]:
    """A state dict in the layout of a family's published checkpoint.

    Matrices are drawn with variance 1 / fan-in, tables and embeddings with variance 1, so that
    activations keep the size they have in a trained network; masks mean nothing.

    Args:
        name: name of a family.
        variant: one of its sizes; the smallest where ``None``.
        seed: of the generator; the same seed gives the same values.

    Raises:
        OptionError: unknown family or variant.
    """
    family = family_named(name)
    chosen = family.variant_named(variant)
    shapes = family.shapes(chosen, family.frame(whole=family.whole))
    return seeded_tensors(shapes, torch.Generator().manual_seed(seed))


def seeded_tensors(
    shapes: Mapping[str, Sequence[int]], generator: torch.Generator
) -> dict[str, Tensor]:
    """Tensors for the keys of a network, drawn as :func:`seeded_state` says.

    Args:
        shapes: key -> shape, in the order in which they are drawn.
        generator: where the values come from.
    """
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(tuple(shape), dtype=torch.int64)
        elif key.endswith("running_var"):
            state[key] = torch.rand(tuple(shape), generator=generator) + 0.5
        elif len(shape) == 1:
            start = 1.0 if key.endswith("weight") else 0.0
            state[key] = start + 0.1 * torch.randn(tuple(shape), generator=generator)
        else:
            fan = max(1, int(np.prod(shape[1:])))
            scale = 1.0 if "gaussian" in key or "embed" in key else fan**-0.5
            state[key] = torch.randn(tuple(shape), generator=generator) * scale
    return state
