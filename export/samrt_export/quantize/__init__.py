"""Int8 forms of exported models: calibration, scales by measured error, proof; needs no torch."""

from samrt_export.quantize.calibrate import CalibrationError
from samrt_export.quantize.choose import Choice
from samrt_export.quantize.layers import Layer, find_layers
from samrt_export.quantize.options import QuantizeOptions
from samrt_export.quantize.quantise import quantize
from samrt_export.quantize.write import to_int8, to_int8_weights

__all__ = [
    "CalibrationError",
    "Choice",
    "Layer",
    "QuantizeOptions",
    "find_layers",
    "quantize",
    "to_int8",
    "to_int8_weights",
]
