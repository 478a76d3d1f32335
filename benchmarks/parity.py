"""Every family against the outputs of its original code: `make parity`.

Takes the folder of golden vectors (seeded weights, pictures, prompts and what the original authors'
code made of them) and its own checker.  Each family's weights are written as a checkpoint,
exported, and run by samrt.  With --sensitivity the same check is run with deliberate mistakes,
each of which must fail.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import golden_engine
import samrt
from machine import commit

HEAVY = ("sam_vit_l", "sam_vit_h")
QUANTITIES = ("resized", "input", "embedding", "low", "iou", "masks")


def checker(golden: Path) -> ModuleType:
    """`check_golden.py` of the folder."""
    spec = importlib.util.spec_from_file_location("check_golden", golden / "check_golden.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no check_golden.py in {golden}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def mistake(kind: str) -> Iterator[None]:
    """Make samrt wrong in one way for as long as the block runs."""
    from samrt_export.families import rules
    from samrt_export.graph import GraphBuilder

    if kind == "tanh_gelu":
        right = GraphBuilder.gelu

        def wrong(self: GraphBuilder, tensor: str) -> str:
            cube = self.op("Pow", tensor, self.constant(3.0))
            inner = self.op("Add", tensor, self.op("Mul", cube, self.constant(0.044715)))
            gate = self.op(
                "Tanh", self.op("Mul", inner, self.constant((2 / 3.141592653589793) ** 0.5))
            )
            half = self.op("Mul", tensor, self.constant(0.5))
            return self.op("Mul", half, self.op("Add", gate, self.constant(1.0)))

        GraphBuilder.gelu = wrong  # type: ignore[method-assign]
        try:
            yield
        finally:
            GraphBuilder.gelu = right  # type: ignore[method-assign]
    elif kind == "no_antialias":
        picture = rules.picture

        def plain(frame: Any, resize: tuple[str, str], *rest: Any, **more: Any) -> Any:
            return picture(frame, (resize[0], "bilinear"), *rest, **more)

        rules.picture = plain
        try:
            yield
        finally:
            rules.picture = picture
    else:
        yield


def run(
    check: ModuleType, family: str, images: list[str] | None, lora: Path | None,
    *, kind: str = "none", form: str = "auto", out: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, float], bool, float]:  # fmt: skip
    """Worst figures of a family, whether all are inside the fp32 profile, and the seconds."""

    def load(name: str, weights: Any, info: Any) -> Any:
        order = "BGR" if kind == "bgr" else "RGB"
        # Mistakes are made in the canonical graphs: samrt's own operators know no tanh-GELU.
        graphs = form if kind == "none" else "canonical"
        return golden_engine.engine_for(
            name, weights, info, lora=lora, image_format=order, form=graphs
        )

    start = time.monotonic()
    with mistake(kind):
        worst, good = check.check(family, load, "fp32", images, out=out)
    return worst, good, time.monotonic() - start


def row(family: str, worst: dict[str, float], good: bool) -> str:
    """One line of the table."""
    cells = []
    for name in QUANTITIES:
        value = worst.get(name)
        cells.append("–" if value is None else "identical" if name == "resized" and value == 0
                     else f"{value:.1e}")  # fmt: skip
    return f"| {family} | {' | '.join(cells)} | {'pass' if good else 'FAIL'} |"


def main() -> int:
    """Print the table; exit code 3 if a family fails or a mistake passes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("golden", type=Path, help="folder with index.json and check_golden.py")
    parser.add_argument("--family", nargs="*", help="these only")
    parser.add_argument("--image", nargs="*", help="these pictures only")
    parser.add_argument("--heavy", action="store_true", help="ViT-L and ViT-H as well")
    parser.add_argument("--lora", type=Path, help="lora_rank8.safetensors for sam_lora_vitb")
    parser.add_argument("--sensitivity", action="store_true", help="also with deliberate mistakes")
    parser.add_argument(
        "--form", default="auto", choices=("auto", "canonical", "cpu"),
        help="of the graphs; auto is what `samrt infer` takes",
    )  # fmt: skip
    parser.add_argument("--loud", action="store_true", help="every figure")
    parser.add_argument(
        "--json", type=Path, help="write the figures here; rows of families not run stay"
    )
    args = parser.parse_args()
    check = checker(args.golden)
    index = json.loads((args.golden / "index.json").read_text("utf-8"))["families"]
    families = args.family or [f for f in index if args.heavy or f not in HEAVY]
    print(f"| family | {' | '.join(QUANTITIES)} | |\n|{'---|' * (len(QUANTITIES) + 2)}")
    rows: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    if args.json and args.json.exists():  # families that are not run again keep their row
        old = json.loads(args.json.read_text("utf-8"))
        rows, wrong = old["families"], old["mistakes"]
    ok = True

    def record() -> None:
        if args.json:
            document = {"profile": "fp32", "families": rows, "mistakes": wrong}
            args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    origin = {
        "samrt": samrt.__version__,
        "commit": commit(),
        "machine": f"{platform.machine()} {platform.system()}",
        "onnxruntime": importlib.metadata.version("onnxruntime"),
    }
    for family in families:
        if family == "sam_lora_vitb" and args.lora is None:
            print(f"| {family} |{' – |' * len(QUANTITIES)} needs --lora |")
            continue
        said: Callable[[str], None] = print if args.loud else (lambda line: None)
        worst, good, seconds = run(check, family, args.image, args.lora, form=args.form, out=said)
        ok &= good
        rows[family] = {"worst": worst, "passed": good, "seconds": round(seconds, 1), **origin}
        print(row(family, worst, good), flush=True)
        record()
    if args.sensitivity:
        for kind in ("bgr", "no_antialias", "tanh_gelu"):
            picture = ["large_1440x1080"]  # the one that shrinks
            worst, good, _ = run(check, "mobile_sam", picture, None, kind=kind)
            ok &= not good
            wrong[kind] = {"family": "mobile_sam", "worst": worst, "passed": good, **origin}
            print(row(f"mobile_sam, {kind}", worst, good), flush=True)
            record()
    return 0 if ok else 3


if __name__ == "__main__":
    sys.exit(main())
