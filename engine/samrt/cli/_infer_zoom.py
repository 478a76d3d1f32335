"""``samrt infer --zoom``, and how the prompts of a picture are answered."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt.imaging.read import LoadedImage
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
    """

    predictions: list[Prediction]
    preprocess_ms: float
    encode_ms: float
    warnings: tuple[str, ...]


def add_option(group: argparse._ArgumentGroup) -> None:
    """Add the option."""
    group.add_argument(
        "--zoom", choices=_MODES, default="off",
        help="encode the surroundings of each box on their own, which small structures gain from "
        "and which costs a run of the encoder for each: on, or auto for small boxes (off)",
    )  # fmt: skip


def check_usage(args: argparse.Namespace) -> None:
    """Refuse what does not go together with zoom, as wrong usage."""
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
    """Zoom works on one picture."""
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
    several = args.multimask or engine.manifest.output.kind == "classes"
    if args.zoom == "off":
        embedding = engine.encode(image, **limits)
        return Answers(
            engine.decode(embedding, prompts, multimask_output=several),
            embedding.timings.preprocess_ms or 0.0,
            embedding.timings.encode_ms or 0.0,
            embedding.warnings,
        )
    from samrt.zoom import predict_zoomed

    found = predict_zoomed(
        engine, image, prompts, zoom=args.zoom, multimask_output=several, **limits
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
