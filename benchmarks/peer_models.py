"""The models that `peers.py` measures: the same random weights for everybody.

`prepare` writes into a folder what the peers need: the checkpoint of seeded weights, our bundle,
the encoder traced by torch's exporter and the decoder of `segment_anything.utils.onnx`.  The
originals are `segment_anything` for SAM and, for MobileSAM, the TinyViT that `samexporter` ships
(MobileSAM's own code is not on PyPI).  Stand-ins: torchvision's few functions
(`tests/export/torchvision_stub.py`), three helpers of timm, and `gdown`, which only downloads.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
SIDE = 1024
MODELS = {"mobile_sam": None, "sam": "vit_b"}
TITLES = {"mobile_sam": "MobileSAM", "sam": "SAM ViT-B"}


def stand_ins() -> None:
    """Make the originals importable without torchvision, timm and gdown."""
    path = ROOT / "tests" / "export" / "torchvision_stub.py"
    spec = importlib.util.spec_from_file_location("torchvision_stub", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"cannot read {path}: run from a checkout")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install()
    if _missing("timm"):
        _install("timm.models.layers", {
            "DropPath": torch.nn.Identity,  # of use in training only
            "to_2tuple": lambda x: tuple(x) if isinstance(x, (tuple, list)) else (x, x),
            "trunc_normal_": torch.nn.init.trunc_normal_,
        })  # fmt: skip
        _install("timm.models.registry", {"register_model": lambda function: function})
    if _missing("gdown"):
        _install("gdown", {})


def _missing(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def _install(name: str, members: dict[str, Any]) -> None:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:count]), ModuleType(".".join(parts[:count])))
    for key, value in members.items():
        setattr(sys.modules[name], key, value)


def original(name: str, checkpoint: Path) -> Any:
    """The original network in torch."""
    stand_ins()
    state = torch.load(checkpoint, weights_only=True)
    if name == "sam":
        from segment_anything import sam_model_registry

        sam = sam_model_registry["vit_b"]()
    else:
        from samexporter.mobile_encoder.setup_mobile_sam import setup_model

        sam = setup_model()
    sam.load_state_dict(state, strict=True)
    return sam.eval()


def original_decoder(state: dict[str, Any] | None = None, encoder: Any = None) -> Any:
    """The original `Sam` with the decoder of a SAM or MobileSAM checkpoint, or a random one.

    Its encoder is the caller's, or one that must not be run.
    """
    stand_ins()
    from segment_anything import modeling

    sam = modeling.Sam(
        torch.nn.Identity() if encoder is None else encoder,
        modeling.PromptEncoder(256, (64, 64), (SIDE, SIDE), 16),
        modeling.MaskDecoder(
            transformer_dim=256, transformer=modeling.TwoWayTransformer(2, 256, 8, 2048)
        ),
    )
    for part in ("prompt_encoder", "mask_decoder") if state else ():
        prefix = f"{part}."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        getattr(sam, part).load_state_dict(own)
    sam.image_encoder.img_size = SIDE
    return sam.eval()


def picture() -> NDArray[np.uint8]:
    """A drawn slice with discs and noise, (1024, 1024, 3) uint8."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    image = 60 + 40 * np.sin(x / 90) * np.cos(y / 70)
    for _ in range(14):
        cx, cy, r, level = rng.uniform([0, 0, 30, 20], [SIDE, SIDE, 180, 230])
        image = np.where((x - cx) ** 2 + (y - cy) ** 2 * 1.4 < r * r, level, image)
    colour = image[..., None] * np.float32([1.0, 0.95, 0.9]) + rng.normal(0, 6, (SIDE, SIDE, 3))
    return np.clip(colour, 0, 255).astype(np.uint8)


def boxes(count: int = 16) -> NDArray[np.float32]:
    """`count` boxes XYXY in pixels, each at least 50 wide and high."""
    rng = np.random.default_rng(1)
    low = rng.uniform(20, 700, (count, 2))
    return np.hstack([low, low + rng.uniform(50, 300, (count, 2))]).astype(np.float32)


def prepare(name: str, folder: Path) -> None:
    """Write a model's files, unless they are there."""
    from samrt_export import export
    from samrt_export.seeded import seeded_state

    if (folder / "ready").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = seeded_state(name, MODELS[name])
    torch.save(state, folder / "checkpoint.pt")
    export(state, folder / "ours.samrt", overwrite=True, verify=False)
    del state
    sam = original(name, folder / "checkpoint.pt")
    _export_encoder(sam, folder / "encoder.onnx")
    export_decoder(sam, folder / "decoder.onnx")
    (folder / "ready").write_text("")


def _export_encoder(sam: Any, path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            sam.image_encoder, (torch.randn(1, 3, SIDE, SIDE),), str(path), opset_version=17,
            input_names=["x"], output_names=["image_embeddings"], dynamo=False,
        )  # fmt: skip


def export_decoder(sam: Any, path: Path) -> None:
    """Write the decoder of the original as its own exporter does."""
    from segment_anything.utils.onnx import SamOnnxModel

    example = {
        "image_embeddings": torch.randn(1, 256, 64, 64),
        "point_coords": torch.rand(1, 5, 2) * SIDE,
        "point_labels": torch.ones(1, 5),
        "mask_input": torch.randn(1, 1, 256, 256),
        "has_mask_input": torch.ones(1),
        "orig_im_size": torch.tensor([float(SIDE), float(SIDE)]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            SamOnnxModel(sam, return_single_mask=False), tuple(example.values()), str(path),
            opset_version=17, input_names=list(example), dynamo=False,
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "points"}, "point_labels": {1: "points"}},
        )  # fmt: skip


def flops(name: str, folder: Path) -> dict[str, float]:
    """Operations (two per multiply-add) of the original: encoder, and decoder with one box.

    Counted by torch while the networks run: products of matrices, convolutions and attention. Only
    shapes are computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    sam = original(name, folder / "checkpoint.pt").to("meta")
    sam.eval().requires_grad_(False)  # eval makes tables, which have to follow
    found = {}
    with torch.no_grad(), torch.device("meta"):
        with FlopCounterMode(display=False) as counter:
            sam.image_encoder(torch.zeros(1, 3, SIDE, SIDE))
        found["encoder"] = float(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            decode(sam, torch.zeros(1, 256, 64, 64), torch.zeros(1, 4))
        found["decoder"] = float(counter.get_total_flops())
    return found


def decode(sam: Any, embedding: Any, corners: Any) -> Any:
    """Low-resolution masks `(N, 1, 256, 256)` of boxes XYXY `(N, 4)`, by the original's parts."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=corners[:, None], masks=None)
    masks, _ = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return masks


def sgemm_rate(threads: int, seconds: float = 2.0) -> dict[str, float]:
    """Float32 operations per second of products of 2048 x 2048 matrices, the best of some.

    The machine's ceiling as libraries reach it: torch's (MKL or oneDNN) and ONNX Runtime's.
    """
    import onnxruntime as ort

    from samrt_export.graph import GraphBuilder

    torch.set_num_threads(threads)
    n = 2048
    a, b = torch.randn(n, n), torch.randn(n, n)
    rates = {"torch": 2 * n**3 / _fastest(lambda: a @ b, seconds)}
    g = GraphBuilder("product")
    g.output(g.op("MatMul", g.input("a", (n, n)), g.constant(b.numpy(), "float32")), "c", (n, n))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        g.model("0").SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"a": a.numpy()}
    rates["onnxruntime"] = 2 * n**3 / _fastest(lambda: session.run(None, feed), seconds)
    return rates


def _fastest(call: Any, seconds: float) -> float:
    times = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
