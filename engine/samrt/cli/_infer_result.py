"""What ``samrt infer`` has found, as a JSON document and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from samrt._version import __version__
from samrt.cli._infer_scanner import area_text, image_record, mask_record
from samrt.cli._report import print_table, say, warn

if TYPE_CHECKING:
    from samrt.imaging.outputs import OutputNames
    from samrt.imaging.read import LoadedImage
    from samrt.model import ModelInfo
    from samrt.types import Prediction, Prompt

__all__ = ["InferResult", "model_record", "print_result", "result_document"]


@dataclass(frozen=True, slots=True)
class InferResult:
    """What one run has found, for printing."""

    image: LoadedImage
    model: ModelInfo
    names: OutputNames
    kinds: tuple[str, ...]
    predictions: list[Prediction]
    mask_input: str | None
    timings: dict[str, float | None]
    warnings: tuple[str, ...]
    with_uids: bool = False
    stretch: tuple[int, int] = (1, 1)

    def mask_file(self, prompt: int, mask: int) -> str | None:
        """Path of a written mask."""
        return str(self.names.mask(prompt, mask)) if "mask" in self.kinds else None

    def other_files(self) -> dict[str, str]:
        """Kind -> path of the files of which there is one."""
        return {kind: str(self.names.single(kind)) for kind in self.kinds if kind != "mask"}


def _prompt_record(prompt: Prompt, mask_input: str | None) -> dict[str, Any]:
    points = None
    if prompt.point_coords is not None and prompt.point_labels is not None:
        pairs = zip(prompt.point_coords, prompt.point_labels, strict=True)
        points = [{"x": float(x), "y": float(y), "label": int(label)} for (x, y), label in pairs]
    return {
        "box": None if prompt.box is None else list(prompt.box),
        "points": points,
        "mask_input": mask_input,
    }


def model_record(model: ModelInfo) -> dict[str, Any]:
    """The model in use, for the JSON document."""
    return {
        "name": model.name,
        "model_id": model.model_id,
        "sha256": model.sha256,
        "files": dict(model.files),
        "precision": {
            "requested": model.precision_requested,
            "effective": model.precision_effective,
        },
        "backend": {
            "requested": model.backend_requested,
            "effective": model.backend_effective,
            "version": model.backend_version,
            "device": model.device,
            "reason": model.backend_reason,
        },
        "form": {
            "requested": model.form_requested,
            "effective": model.form_effective,
            "reason": model.form_reason,
        },
        "threads": model.threads,
        "verification": asdict(model.verification),
    }


def result_document(result: InferResult) -> dict[str, Any]:
    """The result as one JSON document."""
    image, model = result.image, result.model
    height, width = image.size
    prompts = []
    for p, prediction in enumerate(result.predictions):
        masks = [
            {
                "index": m,
                "score": round(float(prediction.scores[m]), 6),
                "stability": round(float(prediction.stability[m]), 6),
                "area_px": int(prediction.areas_px[m]),
                **mask_record(image, prediction, m),
                "box": [float(v) for v in prediction.boxes[m]],
                "file": result.mask_file(p, m),
            }
            for m in range(len(prediction.masks))
        ]
        prompts.append(
            {
                "index": p,
                "prompt": _prompt_record(prediction.prompt, result.mask_input),
                "best": prediction.best,
                "zoom": None if prediction.zoom is None else list(prediction.zoom),
                "refine_steps": prediction.refine_steps,
                "masks": masks,
                "warnings": [w for w in prediction.warnings if w not in result.warnings],
            }
        )
    return {
        "samrt": __version__,
        "model": model_record(model),
        "image": {
            "file": None if image.name == "standard input" else image.name,
            "sha256": image.sha256,
            "width": width,
            "height": height,
            "format": image.format,
            "mode": image.mode,
            "bit_depth": image.bit_depth,
            "window": None if image.window is None else list(image.window),
            "model_stretch": list(result.stretch),
            **image_record(image, result.with_uids),
        },
        "prompts": prompts,
        "files": result.other_files(),
        "timings_ms": {
            name: None if value is None else round(value, 3)
            for name, value in result.timings.items()
        },
        "warnings": list(result.warnings),
    }


def _zoom_text(prediction: Prediction) -> str:
    if prediction.zoom is None:
        return ""
    return f", zoomed to {','.join(str(side) for side in prediction.zoom)}"


def print_result(result: InferResult) -> None:
    """Print the result for people; warnings go to standard error."""
    model, (height, width) = result.model, result.image.size
    say(
        f"{result.image.name}: {width} x {height}, model {model.name} "
        f"({model.precision_effective}, {model.backend_effective}, {model.threads} threads)"
    )
    rows = []
    for p, prediction in enumerate(result.predictions):
        for m in range(len(prediction.masks)):
            label = "mask" if len(result.predictions) == 1 else f"mask of prompt {p}"
            x0, y0, x1, y1 = (int(v) for v in prediction.boxes[m])
            rows.append(
                [
                    f"{label} {m}" if len(prediction.masks) > 1 else label,
                    f"score {float(prediction.scores[m]):.3f}",
                    f"area {area_text(result.image, prediction, m)}",
                    f"box {x0},{y0},{x1},{y1}" + _zoom_text(prediction),
                    result.mask_file(p, m) or "",
                ]
            )
    print_table(rows)
    print_table([kind, path] for kind, path in result.other_files().items())
    times = result.timings
    parts = [f"{name} {times[name] or 0.0:.1f}" for name in ("encode", "decode_prompt", "total")]
    say(f"time in ms: {', '.join(parts)}")
    warn([*result.warnings, *(w for p in result.predictions for w in p.warnings)])
