"""``samrt infer``: an image and prompts in, masks out."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from samrt._version import __version__
from samrt.cli import _infer_everything, _infer_scanner, _infer_volume, _infer_zoom, _numbers
from samrt.cli._infer_result import InferResult, print_result, result_document
from samrt.cli._report import print_json
from samrt.cli._stderr import captured_stderr

if TYPE_CHECKING:
    from samrt.imaging.read import LoadedImage
    from samrt.types import Prompt

__all__ = ["add_subparser", "run"]

_SCANNER_KINDS = ("seg", "rtstruct", "capture", "nifti")
_KINDS = ("mask", "overlay", "label", "coco", "polygons", "npz", *_SCANNER_KINDS)
_DEFAULT_KINDS = ("mask", "overlay")
_MASKS_PER_PROMPT = 3

_DESCRIPTION = """\
Segment what a box or points show. Coordinates are pixels of the upright image, x to the right,
y downwards, boxes x0,y0,x1,y1 (left, top, right, bottom).

Each --box is a prompt of its own. All --point together are one prompt; with one --box they
refine it. --mask-input starts from the masks of an earlier run (its .logits.npz)."""

_EPILOG = """\
files, in the output folder, named after the image:
  mask      STEM.mask.png, 0 and 255; with several prompts or masks STEM.p0.m0.mask.png
  overlay   STEM.overlay.png, the best mask of each prompt over the image
  label     STEM.labels.png, prompt number + 1; where masks overlap the higher score wins
  coco      STEM.coco.json, annotations with compressed RLE
  polygons  STEM.polygons.geojson, polygons with holes
  npz       STEM.logits.npz, low-resolution logits, for --mask-input
  seg       STEM.seg.dcm, DICOM segmentation, of DICOM images
  rtstruct  STEM.rtstruct.dcm, DICOM structure set, of DICOM images
  capture   STEM.capture.dcm, the overlay as secondary capture, of DICOM images
  nifti     STEM.mask.nii.gz, of volumes; these have seg, rtstruct, overlay (a contact sheet), and
            coco and polygons (an entry per object and slice) too

examples:
  samrt infer ct.png --box 60,40,220,180
  samrt infer ct.png --point 120,90 --point 30,20,0 --outputs mask,npz -o out
  samrt infer ct.png --box 60 40 220 180 --box 300 80 410 200 --json
  samrt infer scan.dcm --box 60,40,220,180 --window lung --outputs overlay,seg --label lung
  samrt infer volume.nii.gz --box3d 60,40,10,220,180,32
  samrt infer series/ --box 60,40,220,180 --frame 20 --propagate --outputs seg,rtstruct"""


def add_subparser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "infer",
        help="segment an image by boxes, points or an earlier mask",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="PNG, JPEG, BMP, TIFF, WebP, DICOM or NIfTI file, or the folder of a DICOM series; "
        "- reads standard input",
    )
    _add_prompts(parser)
    _add_model(parser)
    _infer_scanner.add_options(parser)
    _infer_everything.add_options(parser)
    _add_output(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompts (at least one, if the model takes any)")
    group.add_argument(
        "--box", type=_numbers.box, action="append", default=[], metavar="X0,Y0,X1,Y1",
        help="a box around the object; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--point", type=_numbers.point, action="append", default=[], metavar="X,Y[,LABEL]",
        help="a point; label 1 (default): in the object, 0: not in it; may be repeated",
    )  # fmt: skip
    group.add_argument("--mask-input", metavar="FILE", help=".logits.npz of an earlier run")
    group.add_argument(
        "--multimask", action="store_true",
        help="write all candidate masks of each prompt (usually 3) in place of one",
    )  # fmt: skip
    _infer_zoom.add_option(group)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and image")
    group.add_argument(
        "--model", default="tiny", metavar="NAME", help="installed model or bundle folder (tiny)"
    )
    group.add_argument("--backend", default="auto", metavar="NAME", help="see samrt info (auto)")
    group.add_argument(
        "--precision", default="auto", metavar="NAME", help="fp32, fp16 or int8 (auto)"
    )
    group.add_argument(
        "--threads", type=_numbers.at_least(1), metavar="N", help="threads to use (all, at most 8)"
    )
    group.add_argument(
        "--allow-refused", action="store_true",
        help="use a model or engine that its verification has refused; the result says so",
    )  # fmt: skip
    group.add_argument(
        "--no-self-test", action="store_true",
        help="leave out the run on a built-in picture that engines make when they are loaded",
    )  # fmt: skip
    group.add_argument(
        "--window", type=_numbers.window, metavar="A,B",
        help="intensities shown black and white, or minmax or percentile (0.5 to 99.5); images "
        "of more than 8 bits use minmax if this is not given. DICOM and NIfTI: centre,width, or "
        "lung, bone, brain ..., file[:N], lut[:N], auto (default: the file's own). "
        "lo:hi and centre/width mean the same everywhere",
    )  # fmt: skip
    group.add_argument(
        "--max-pixels", type=_numbers.at_least(1), metavar="N",
        help="refuse larger images (100000000)",
    )  # fmt: skip
    group.add_argument(
        "--max-file-bytes", type=_numbers.at_least(1), metavar="N",
        help="refuse larger files (536870912)",
    )  # fmt: skip


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output-dir", type=Path, default=Path(), metavar="DIR",
        help="folder for the files, created if missing (current folder)",
    )  # fmt: skip
    group.add_argument(
        "--outputs", type=_kinds, default=_DEFAULT_KINDS, metavar="KIND,KIND",
        help=f"any of {', '.join(_KINDS)}, or none (mask,overlay)",
    )  # fmt: skip
    group.add_argument("--force", action="store_true", help="replace existing files")
    group.add_argument("--json", action="store_true", help="print one JSON document")


def _kinds(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown kind {unknown[0]!r}, expected {', '.join(_KINDS)} or none"
        )
    return kinds


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    _infer_everything.check_usage(args)
    _infer_zoom.check_usage(args)
    if _infer_volume.wanted(args):
        _infer_zoom.refuse_volume(args)
        return _infer_volume.run(args, _limits(args), default_kinds=_DEFAULT_KINDS)
    if args.everything:
        return _infer_everything.run(args, _limits(args), default_kinds=_DEFAULT_KINDS)
    _check_usage(args)
    result = _infer(args)
    if args.json:
        print_json(result_document(result))
    else:
        print_result(result)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = args.parser
    if not (args.box or args.point or args.mask_input) and _takes_prompts(args.model):
        parser.error("nothing to segment: give --box, --point or --mask-input")
    if args.point and len(args.box) > 1:
        parser.error("points with several boxes are ambiguous: give one --box or run once per box")


def _takes_prompts(model: str) -> bool:
    """Whether a model wants to be asked; SAMed, say, segments its organs without."""
    from samrt.bundle import Bundle, find_model

    return Bundle.open(find_model(model)).manifest.prompts.takes_prompts


def _infer(args: argparse.Namespace) -> InferResult:
    """Check everything, compute everything, then write everything."""
    from samrt import load
    from samrt.imaging.outputs import OutputNames, Run, render
    from samrt.imaging.spacing import without_uneven
    from samrt.imaging.write import check_targets, write_files

    clock = [perf_counter()]

    def lap() -> float:
        clock.append(perf_counter())
        return (clock[-1] - clock[-2]) * 1000.0

    with captured_stderr() as said:
        image = _infer_scanner.read_input(args, _limits(args))
    remarks = [f"{image.name} may be damaged, its decoder said: {said.text}"] if said.text else []
    decode_ms = lap()
    derived = _infer_scanner.derived_options(args)
    prompts = _prompts(args, image)
    stem = "stdin" if args.image == "-" else Path(args.image).stem
    masks = _MASKS_PER_PROMPT if args.multimask else 1
    names = OutputNames(args.output_dir, stem, len(prompts), masks)
    inputs = [Path(p) for p in (args.image, args.mask_input) if p and p != "-"]
    check_targets(names.all(args.outputs), force=args.force, inputs=inputs)
    lap()
    with load(
        args.model, backend=args.backend, precision=args.precision, threads=args.threads,
        allow_refused=args.allow_refused, self_test=False if args.no_self_test else None,
    ) as engine:  # fmt: skip
        load_ms = lap()
        answers = _infer_zoom.answer(engine, image, prompts, args)
        predictions, model = answers.predictions, engine.info
    lap()
    names = OutputNames(args.output_dir, stem, len(prompts), len(predictions[0].masks))
    facts = {"samrt": __version__, "model": model.model_id, "image_sha256": image.sha256}
    run = Run(image.array, Path(image.name).name, predictions, facts, image.origin, derived)
    files = render(run, names, args.outputs)
    check_targets(files, force=args.force, inputs=inputs)
    write_files(files, force=args.force)
    write_ms = lap()
    timings: dict[str, float | None] = {
        "decode_image": decode_ms,
        "load_model": load_ms,
        "preprocess": answers.preprocess_ms,
        "encode": answers.encode_ms,
        "decode_prompt": sum(p.timings.decode_prompt_ms or 0.0 for p in predictions),
        "postprocess": sum(p.timings.postprocess_ms or 0.0 for p in predictions),
        "write": write_ms,
        "total": (clock[-1] - clock[0]) * 1000.0,
    }
    about = image.warnings if answers.stretch == (1, 1) else without_uneven(image.warnings)
    warnings = dict.fromkeys([*remarks, *about, *answers.warnings])
    return InferResult(
        image,
        model,
        names,
        args.outputs,
        predictions,
        args.mask_input,
        timings,
        tuple(warnings),
        args.with_uids,
        answers.stretch,
    )


def _limits(args: argparse.Namespace) -> Any:
    from samrt.imaging.sniff import ImageLimits

    given = {
        name: getattr(args, name)
        for name in ("max_pixels", "max_file_bytes")
        if getattr(args, name) is not None
    }
    return ImageLimits(**given)


def _prompts(args: argparse.Namespace, image: LoadedImage) -> list[Prompt]:
    """Turn the options into checked prompts."""
    from samrt.errors import PromptError
    from samrt.imaging.logits import load_mask_inputs
    from samrt.prompts import make_prompt
    from samrt.types import Prompt

    if not (args.box or args.point or args.mask_input):
        return [Prompt.empty()]
    count = max(1, len(args.box))
    masks: list[Any] = [None] * count
    if args.mask_input:
        masks = list(load_mask_inputs(args.mask_input, count, image.size))
    coords = [(x, y) for x, y, _ in args.point] or None
    labels = [label for _, _, label in args.point] or None
    prompts = []
    for index, (box, mask) in enumerate(zip(args.box or [None], masks, strict=True)):
        try:
            prompts.append(
                make_prompt(
                    box=box,
                    point_coords=coords,
                    point_labels=labels,
                    mask_input=mask,
                    image_size=image.size,
                )
            )
        except PromptError as exc:
            raise exc if count == 1 else PromptError(f"prompt {index}: {exc}") from None
    return prompts
