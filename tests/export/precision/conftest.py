"""A small SAM with seeded weights, and the same with outlier channels as real SAM has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samrt.bundle import Bundle  # noqa: E402
from samrt.phantoms import PhantomCase, phantom_case  # noqa: E402
from samrt.predictor import Predictor  # noqa: E402
from samrt.types import Prompt  # noqa: E402
from samrt_export import exporter  # noqa: E402
from samrt_export.families import Frame, family_named  # noqa: E402
from samrt_export.loading import Loaded, RawCheckpoint  # noqa: E402
from samrt_export.nets import vit  # noqa: E402
from samrt_export.nets.vit_config import VitConfig  # noqa: E402
from samrt_export.reference_model import TorchModel  # noqa: E402
from samrt_export.seeded import seeded_tensors  # noqa: E402

SIDE, DIM, OUTLIER, CHANNEL = 256, 96, 1400.0, 7
SMALL = VitConfig(dim=DIM, depth=4, heads=3, global_blocks=(1, 3), window=7)


def seeded_network(seed: int = 5) -> Loaded:
    """SAM with a ViT of four blocks at 256 pixels; weights as `seeded_state` draws them."""
    family = family_named("sam")
    frame = Frame((SIDE, SIDE), "native", (SIDE, SIDE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vit.VIT_PRESETS, "sam_vit_b", SMALL)
        network = family.build("vit_b", frame)
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    network.load_state_dict(seeded_tensors(shapes, torch.Generator().manual_seed(seed)))
    raw = RawCheckpoint({}, "none", (), "memory", None, None)
    return Loaded(family, "vit_b", frame, network.eval(), raw, ())


def add_outlier_channel(network: Any) -> None:
    """One channel of the residual stream at 1.4e3, where its square does not fit float16.

    Norms are scaled so that the other channels come out with variance 1 as before, and the neck
    looks away from the outlier: what a trained network has learnt to do.
    """
    encoder = network.image_encoder
    spread, mean = OUTLIER / DIM**0.5, OUTLIER / DIM
    others = [channel for channel in range(DIM) if channel != CHANNEL]
    image = torch.randn((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoder.pos_embed[..., CHANNEL] += OUTLIER
        encoder.neck[0].weight[:, CHANNEL] *= 1e-3
        for norm in [norm for block in encoder.blocks for norm in (block.norm1, block.norm2)]:
            seen: list[Any] = []
            hook = norm.register_forward_pre_hook(lambda _, inputs, to=seen: to.append(inputs[0]))
            encoder(image)
            hook.remove()
            norm.weight *= spread / float(seen[0][..., others].std())
            norm.bias += norm.weight * mean / spread
            norm.weight[CHANNEL] = 0.01
            norm.bias[CHANNEL] = 0.0


def add_overflow(network: Any) -> None:
    """Hidden values of an MLP far beyond 65504, brought back by its second layer."""
    mlp = network.image_encoder.blocks[2].mlp
    with torch.no_grad():
        mlp.lin1.weight[5] *= 2.0**17
        mlp.lin2.weight[:, 5] *= 2.0**-15


def write(loaded: Loaded, folder: Path) -> Bundle:
    return exporter._write(loaded, folder, "small", lambda text: None)


def truth_of(loaded: Loaded, bundle: Bundle) -> Predictor:
    return Predictor(TorchModel(loaded.network, bundle.manifest))


@pytest.fixture(scope="session")
def few_cases() -> list[PhantomCase]:
    """A part of one phantom: large masks for the frame of 256 pixels, and little work."""
    whole = phantom_case("microscopy")
    image = np.ascontiguousarray(whole.image[40:296, 60:316])
    image.flags.writeable = False
    prompts = (
        Prompt(box=(40, 20, 120, 110)),
        Prompt(point_coords=[(120, 60)], point_labels=[1]),
        Prompt(box=(60, 150, 140, 240), point_coords=[(100, 190)], point_labels=[1]),
    )
    return [PhantomCase(whole.name, image, prompts)]


@pytest.fixture
def few_phantoms(monkeypatch: pytest.MonkeyPatch, few_cases: list[PhantomCase]) -> None:
    """The conversion uses one picture in place of five."""
    from samrt_export.precision import addition

    monkeypatch.setattr(addition, "phantom_cases", lambda: few_cases)


@pytest.fixture(scope="session")
def make_bundle(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[Loaded, Bundle]]:
    """``make_bundle(change, ...)``: the seeded network with changes, and its float32 bundle."""

    def make(*changes: Callable[[Any], None]) -> tuple[Loaded, Bundle]:
        loaded = seeded_network()
        for change in changes:
            change(loaded.network)
        return loaded, write(loaded, tmp_path_factory.mktemp("small"))

    return make
