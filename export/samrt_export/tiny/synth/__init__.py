"""Procedural training images for the tiny model: `generate(rng, size)` gives one Sample."""

from __future__ import annotations

from .scenes import SCENES, Sample, generate

__all__ = ["SCENES", "Sample", "generate"]
