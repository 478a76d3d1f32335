"""``samrt infer --zoom``, ``--square-pixels``, ``--refine``: how prompts are answered."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers

if TYPE_CHECKING:
    from samrt.imaging.read import LoadedImage
    from samrt.imaging.volumes.segment import Stretch
    from samrt.predictor import Predictor
    from samrt.types import Prediction, Prompt

__all__ = ["Answers", "add_option", "answer", "check_usage", "refuse_volume"]

_MODES = ("off", "auto", "on")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a picture gave.

    Attributes:
        predictions: one per prompt.
        preprocess_ms: making encoder inputs, of all encoder runs together.
        encode_ms: the encoder, likewise.
        warnings: remarks about the image.
        stretch: factors by which rows and columns were multiplied for the model.
    """

    predictions: list[Prediction]
    preprocess_ms: float
    encode_ms: float
    warnings: tuple[str, ...]
    stretch: tuple[int, int] = (1, 1)


def add_option(group: argparse._ArgumentGroup) -> None:
    """Add the option."""
    group.add_argument(
        "--zoom", choices=_MODES, default="off",
        help="encode the surroundings of each box on their own, which small structures gain from "
        "and which costs a run of the encoder for each: on, or auto for small boxes (off)",
    )  # fmt: skip

    group.add_argument(
        "--refine", type=_numbers.at_least(0), default=0, metavar="N",
        help="ask the decoder N times more, each time with the mask just found as mask input: "
        "better masks, a run of the decoder each (0)",
    )  # fmt: skip

    group.add_argument(
        "--square-pixels", action="store_true",
        help="show the model a picture with pixels far from square (1.5 times or more) in its true "
        "proportions; masks stay on the picture's own pixels",
    )  # fmt: skip


def check_usage(args: argparse.Namespace) -> None:
    """Refuse what does not go together with these options, as wrong usage."""
    if args.refine and args.everything:
        args.parser.error("--refine needs prompts: leave it out with --everything")
    if args.square_pixels:
        for name in ("everything", "mask_input"):
            if getattr(args, name):
                option = name.replace("_", "-")
                args.parser.error(f"--square-pixels does not go with --{option}: leave one out")
        if args.zoom != "off":
            args.parser.error("--square-pixels does not go with --zoom: leave one out")
        if "npz" in args.outputs:
            args.parser.error("--square-pixels does not write npz: its logits are stretched")
    if args.zoom == "off":
        return
    if args.everything:
        args.parser.error("--zoom needs boxes: leave it out with --everything")
    if "npz" in args.outputs:
        args.parser.error(
            "--zoom does not write npz: the logits of a part are no --mask-input for the image"
        )
    if args.zoom == "on" and not args.box:
        args.parser.error("--zoom on needs --box, which says where to look")
    if args.zoom == "on" and args.mask_input:
        args.parser.error("--zoom on does not go with --mask-input, which belongs to the image")


def refuse_volume(args: argparse.Namespace) -> None:
    """Zoom works on one picture; following an object has a refinement of its own."""
    if args.refine:
        args.parser.error("--refine works on one picture: choose one with --frame, or leave it out")
    if args.square_pixels:
        args.parser.error("--square-pixels is for pictures: volumes are shown upright anyway")
    if args.zoom != "off":
        args.parser.error("--zoom works on one picture: choose one with --frame, or leave it out")


def answer(
    engine: Predictor,
    image: LoadedImage,
    prompts: Sequence[Prompt],
    args: argparse.Namespace,
) -> Answers:
    """Encode and decode as the options ask."""
    limits: dict[str, Any] = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    again: dict[str, Any] = {"refine_steps": args.refine} if args.refine else {}
    several = args.multimask or engine.manifest.output.kind == "classes"
    stretch = _stretch(image) if args.square_pixels else None
    if stretch is not None and stretch.rows * stretch.columns > 1:
        return _answer_square(engine, image, prompts, several, {**limits, **again}, stretch)
    if args.zoom == "off":
        embedding = engine.encode(image, **limits)
        return Answers(
            engine.decode(embedding, prompts, multimask_output=several, **again),
            embedding.timings.preprocess_ms or 0.0,
            embedding.timings.encode_ms or 0.0,
            embedding.warnings,
        )
    from samrt.zoom import predict_zoomed

    found = predict_zoomed(
        engine, image, prompts, zoom=args.zoom, multimask_output=several, **limits, **again
    )
    plain = [prediction for prediction in found if prediction.zoom is None]
    runs = [prediction.timings for prediction in found if prediction.zoom is not None]
    runs += [prediction.timings for prediction in plain[:1]]  # these share one run
    return Answers(
        found,
        sum(times.preprocess_ms or 0.0 for times in runs),
        sum(times.encode_ms or 0.0 for times in runs),
        (),
    )


def _stretch(image: LoadedImage) -> Stretch:
    """Factors that make the pixels of a picture square.

    Raises:
        OptionError: the picture does not say how large its pixels are.
    """
    from samrt.errors import OptionError
    from samrt.imaging.volumes.segment import stretch_for

    if image.spacing_mm is None:
        raise OptionError(
            f"{image.name} does not say how large its pixels are: leave --square-pixels out"
        )
    return stretch_for(*image.spacing_mm)


def _answer_square(
    engine: Predictor,
    image: LoadedImage,
    prompts: Sequence[Prompt],
    several: bool,
    limits: dict[str, Any],
    stretch: Stretch,
) -> Answers:
    """Answers about a picture shown with square pixels."""
    from samrt.square import predict_square

    grey = image.source.ndim == 2
    found = predict_square(
        engine, image.source if grey else image.array, prompts,
        spacing=image.spacing_mm or (1.0, 1.0), window=image.window if grey else None,
        multimask_output=several, **limits,
    )  # fmt: skip
    times = found[0].timings
    return Answers(
        found,
        times.preprocess_ms or 0.0,
        times.encode_ms or 0.0,
        (),
        (stretch.rows, stretch.columns),
    )
