"""The exported graphs equal the network; losses and prompts behave as they say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from samrt.backends.operators import library_path  # noqa: E402
from samrt_export.tiny import losses, prompts  # noqa: E402
from samrt_export.tiny.model import Tiny, TinyConfig  # noqa: E402
from samrt_export.tiny.onnx_graph import FEATURES, cpu_graphs, graphs  # noqa: E402
from samrt_export.tiny.prompt_parts import PROMPT_MAPS, PromptMaps  # noqa: E402

SIZE = 128
PROMPTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@pytest.fixture(scope="module")
def network() -> Tiny:
    torch.manual_seed(3)
    model = Tiny(TinyConfig(image_size=SIZE)).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.0)
            part.bias.data.normal_(0, 0.2)
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def _session(model: onnx.ModelProto, *, own: bool = False) -> ort.InferenceSession:
    """`own`: with samrt's operators."""
    options = ort.SessionOptions()
    if own:
        options.register_custom_ops_library(str(library_path()))
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.usefixtures("no_grad")
def test_graphs_equal_the_network(network: Tiny) -> None:
    encoder, decoder = (g.model("0") for g in graphs(network, SIZE, half_weights=False))
    image = torch.randn(1, 3, SIZE, SIZE)
    maps = network.encoder(image)
    found = _session(encoder).run(list(FEATURES), {"image": image.numpy()})
    for ours, theirs in zip(found, maps, strict=True):
        assert _relative(ours, theirs.numpy()) < 1e-5

    labels = [
        [1, 0, 1, -1, 2, 3],
        [2, 3, -1, -1, -1, -1],
        [1, -1, -1, -1, -1, -1],
        [0, 1, 0, 1, 2, 3],
        [-1] * 6,
    ]
    n = len(labels)
    given = (
        torch.rand(n, 6, 2) * SIZE,
        torch.tensor(labels, dtype=torch.float32),
        torch.randn(n, 1, SIZE // 2, SIZE // 2) * 5,
        torch.tensor([1.0, 0, 1, 0, 1]),
    )
    masks, iou = network.decoder(*maps, *given)
    feeds = {k: v.numpy() for k, v in zip((*FEATURES, *PROMPTS), (*maps, *given), strict=True)}
    session = _session(decoder)
    ours, scores = session.run(["low_res_masks", "iou_predictions"], feeds)
    assert _relative(ours, masks.numpy()) < 1e-5
    assert _relative(scores, iou.numpy()) < 1e-5
    one = {k: v if k in FEATURES else v[1:2] for k, v in feeds.items()}
    alone = session.run(["low_res_masks"], one)[0]
    assert _relative(alone[0], ours[1]) < 1e-5


@pytest.mark.usefixtures("no_grad")
def test_a_decoder_in_samrts_operators_equals_the_network(network: Tiny) -> None:
    decoder = cpu_graphs(network, SIZE, half_weights=False)[1].model("0")
    kinds = {node.op_type for node in decoder.graph.node if node.domain == "samrt"}
    assert kinds == {"DrawPrompts", "ReadRows", "ImagePass", "FineMasks"}
    session = _session(decoder, own=True)
    maps = network.encoder(torch.randn(1, 3, SIZE, SIZE))
    feeds = {k: v.numpy() for k, v in zip(FEATURES, maps, strict=True)}
    for labels in ([[2, 3]], [[1, -1], [0, -1]], [[1, 0, 1, 2, 3]] * 3, [[-1]]):
        n, p = len(labels), len(labels[0])
        for kept in (0.0, 1.0):
            given = (
                (torch.rand(n, p, 2) * SIZE).sort(dim=1).values,
                torch.tensor(labels, dtype=torch.float32),
                torch.randn(n, 1, SIZE // 2, SIZE // 2) * 5,
                torch.full((n,), kept),
            )
            masks, iou = network.decoder(*maps, *given)
            asked = {k: v.numpy() for k, v in zip(PROMPTS, given, strict=True)}
            ours, scores = session.run(["low_res_masks", "iou_predictions"], {**feeds, **asked})
            assert _relative(ours, masks.numpy()) < 1e-5
            np.testing.assert_allclose(scores, iou.numpy(), atol=2e-6)


@pytest.mark.usefixtures("no_grad")
def test_an_encoder_in_samrts_operators_equals_the_network(network: Tiny) -> None:
    graph = cpu_graphs(network, SIZE, half_weights=False)[0].model("0")
    assert [node.op_type for node in graph.graph.node] == ["FineEncoder"]
    image = torch.randn(1, 3, SIZE, SIZE)
    found = _session(graph, own=True).run(list(FEATURES), {"image": image.numpy()})
    for ours, theirs in zip(found, network.encoder(image), strict=True):
        assert _relative(ours, theirs.numpy()) < 1e-5


def test_graphs_are_clean_and_reproducible(network: Tiny) -> None:
    first, again = ([g.model("0") for g in graphs(network, SIZE)] for _ in range(2))
    for model, twin in zip(first, again, strict=True):
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & {"Shape", "OneHot", "Tile", "Expand", "If", "Loop", "BatchNormalization"}
        assert {node.domain for node in model.graph.node} == {""}
        assert model.SerializeToString(deterministic=True) == twin.SerializeToString(
            deterministic=True
        )


@pytest.mark.usefixtures("no_grad")
def test_half_weights_halve_the_file_and_hardly_change_the_result(network: Tiny) -> None:
    whole = graphs(network, SIZE, half_weights=False)[0].model("0")
    half = graphs(network, SIZE)[0].model("0")
    assert half.ByteSize() < 0.55 * whole.ByteSize()
    image = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    a, b = (_session(m).run([FEATURES[0]], {"image": image})[0] for m in (half, whole))
    assert 0 < _relative(a, b) < 1e-2


@pytest.mark.usefixtures("no_grad")
def test_prompt_maps_draw_the_box_and_the_clicks() -> None:
    coords = torch.tensor([[[40.0, 24.0], [8.0, 8.0], [72.0, 40.0]]])
    labels = torch.tensor([[1.0, 2.0, 3.0]])
    maps = PromptMaps()((32, 32), 4, coords, labels, torch.zeros(1, 1, 32, 32), torch.zeros(1))[0]
    assert maps.shape[0] == PROMPT_MAPS
    inside = maps[3] > 0
    rows, cols = np.nonzero(inside.numpy())
    assert cols.min() * 4 + 2 > 8
    assert cols.max() * 4 + 2 < 72
    assert rows.min() * 4 + 2 > 8
    assert rows.max() * 4 + 2 < 40
    y, x = np.unravel_index(int(maps[6].argmax()), (32, 32))
    assert abs(x * 4 + 2 - 40) <= 2
    assert abs(y * 4 + 2 - 24) <= 2
    assert float(maps[8:10].abs().max()) == 0
    assert float(maps[10:].abs().max()) == 0


def test_loss_falls_to_zero_for_a_perfect_answer() -> None:
    target = torch.zeros(2, 32, 32)
    target[0, 8:20, 8:20] = 1
    target[1, 2:5, 2:30] = 1
    perfect = (target * 2 - 1)[:, None].repeat(1, 4, 1, 1) * 30
    good, report = losses.total_loss(perfect, torch.ones(2, 4), target)
    bad, _ = losses.total_loss(-perfect, torch.ones(2, 4), target)
    assert float(good) < 0.02
    assert float(bad) > 5
    assert report["chosen"] == pytest.approx(1.0)


def test_best_of_three_learns_and_the_others_hardly() -> None:
    target = torch.zeros(1, 16, 16)
    target[0, 4:12, 4:12] = 1
    logits = torch.zeros(1, 4, 16, 16)
    logits[0, 2] = (target[0] * 2 - 1) * 4
    logits.requires_grad_(True)
    losses.total_loss(logits, torch.zeros(1, 4), target)[0].backward()
    per_mask = logits.grad.abs().sum((0, 2, 3))
    assert float(per_mask[0]) > 3 * float(per_mask[1])


def test_corrections_land_in_the_error() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    for deep in (True, False):
        draft = prompts.Draft(box=prompts.tight_box(truth))
        assert prompts.correct(rng, draft, truth, np.zeros_like(truth), deep)
        (x, y), label = draft.points[0], draft.labels[0]
        assert label == 1
        assert truth[round((y - 0.5) / 2), round((x - 0.5) / 2)] == 1
        extra = np.ones_like(truth)
        assert prompts.correct(rng, draft, truth, extra, deep)
        (x, y), label = draft.points[1], draft.labels[1]
        assert label == 0
        assert truth[round((y - 0.5) / 2), round((x - 0.5) / 2)] == 0
    assert not prompts.correct(rng, prompts.Draft(), truth, truth, True)


def test_pack_pads_with_minus_one() -> None:
    drafts = [
        prompts.Draft(box=(1, 2, 3, 4)),
        prompts.Draft(points=[(5.0, 6.0), (7.0, 8.0)], labels=[1, 0]),
    ]
    coords, labels = prompts.pack(drafts)
    assert labels.tolist() == [[2, 3, -1], [1, 0, -1]]
    assert coords[0, :2].tolist() == [[1, 2], [3, 4]]
    assert coords[1, :2].tolist() == [[5, 6], [7, 8]]
