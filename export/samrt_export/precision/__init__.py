"""Float16 forms of exported models: measured ranges, float32 islands, proof; needs no torch."""

from samrt_export.precision.addition import add_precision
from samrt_export.precision.emulate import GraphSession, rounded
from samrt_export.precision.floatgraph import FloatGraph, key_of
from samrt_export.precision.half import HalfGraph, PrecisionError, settle, to_half
from samrt_export.precision.islands import Island, measured_islands
from samrt_export.precision.ranges import Ranges, RangeSession

__all__ = [
    "FloatGraph",
    "GraphSession",
    "HalfGraph",
    "Island",
    "PrecisionError",
    "RangeSession",
    "Ranges",
    "add_precision",
    "key_of",
    "measured_islands",
    "rounded",
    "settle",
    "to_half",
]
