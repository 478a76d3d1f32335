"""Training of `tiny`: phases of growing resolution, seeded, resumable, CPU or GPU.

Each step decodes every prompt twice or more often: the first prompt, then the same prompt with
corrections, or as it was, and the logits of the round before as mask input.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from samrt_export.tiny.data import Item, Pool, RealImages, batch_source, stack
from samrt_export.tiny.losses import edge_loss, total_loss
from samrt_export.tiny.model import Tiny, TinyConfig
from samrt_export.tiny.prompts import F32, U8, Draft, correct, first_prompt, pack

EDGE_WEIGHT = 1.0


@dataclass(frozen=True)
class Phase:
    """One stretch of training at one resolution."""

    size: int
    batch: int
    targets: int
    steps: int
    lr: float
    lr_end: float


@dataclass(frozen=True)
class TrainOptions:
    """What a run needs; `focus` is a second pool that gets a share of the draws of its own.

    `real` may be None (procedural images only).  `rounds` is how often each prompt is decoded;
    in a share `refine` of the later rounds nothing is added to a prompt but the mask of the round
    before, the one with the highest score or the single one.  A `frozen_encoder` stays as it is
    and only the decoder learns.
    """

    out: Path
    pool: Path
    phases: tuple[Phase, ...]
    focus: Path | None = None
    focus_share: float = 0.4
    real: Path | None = None
    real_share: float = 0.12
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    save_every: int = 250
    log_every: int = 50
    ema: float = 0.999
    start_from: Path | None = None
    rounds: int = 2
    refine: float = 0.0
    frozen_encoder: bool = False


class Feeder(threading.Thread):
    """Prepares batches ahead; batch `step` always comes from the generator seeded with it."""

    def __init__(
        self, draw: Callable[[np.random.Generator], list[Item]], pool: Pool, seed: int,
        first: int, last: int,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.draw, self.pool, self.seed = draw, pool, seed
        self.first, self.last = first, last
        self.ready: queue.Queue[tuple[list[Item], list[Draft]] | BaseException] = queue.Queue(4)

    def run(self) -> None:
        """Fill the queue; an error is handed to the consumer."""
        try:
            for step in range(self.first, self.last):
                if step % 500 == 0:
                    self.pool.refresh()
                rng = np.random.default_rng([self.seed, 7, step])
                items = self.draw(rng)
                drafts = [first_prompt(rng, m) for item in items for m in item.masks]
                self.ready.put((items, drafts))
        except BaseException as error:
            self.ready.put(error)

    def take(self) -> tuple[list[Item], list[Draft]]:
        """The next batch, in order."""
        got = self.ready.get()
        if isinstance(got, BaseException):
            raise got
        return got


def half_target(masks: U8) -> F32:
    """(N, S, S) uint8 to (N, S/2, S/2) float32 coverage."""
    small = [
        cv2.resize(m.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        for m in masks
    ]
    return np.stack(small)


def decode(
    model: Tiny, maps: list[Tensor], drafts: list[Draft], mask: Tensor, has: Tensor
) -> tuple[Tensor, Tensor]:
    """One decoder call in the autocast region; float32 results."""
    coords, labels = pack(drafts)
    device = mask.device
    low, iou = model.decoder(
        *maps, torch.from_numpy(coords).to(device), torch.from_numpy(labels).to(device), mask, has
    )
    return low.float(), iou.float()


def next_round(
    rng: np.random.Generator,
    drafts: list[Draft],
    low: Tensor,
    iou: Tensor,
    target: F32,
    refine: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Adds corrections to `drafts`; the mask input (N, 1, h, w) and its presence (N)."""
    pick = torch.where(
        torch.from_numpy(rng.random(len(drafts)) < (0.2 if refine else 0.5)).to(iou.device),
        torch.zeros_like(iou[:, 0], dtype=torch.long),
        iou.argmax(1) if refine else iou[:, 1:].argmax(1) + 1,
    )
    chosen = low[torch.arange(len(drafts)), pick].detach()
    guess = (chosen > 0).to(torch.uint8).cpu().numpy()
    truth = (target > 0.5).astype(np.uint8)
    has = np.ones(len(drafts), np.float32)
    for i, draft in enumerate(drafts):
        if refine and rng.random() < refine:
            continue
        if rng.random() < 0.15 and draft.points:
            draft.box = None
        clicks = int(rng.choice([0, 1, 1, 2, 3]))
        for _ in range(clicks):
            if not correct(rng, draft, truth[i], guess[i], deep=bool(rng.random() < 0.6)):
                break
        if clicks and rng.random() < 0.15:
            has[i] = 0
    gate = torch.from_numpy(has).to(low.device)
    return chosen[:, None].clamp(-20, 20) * gate[:, None, None, None], gate


def train(options: TrainOptions) -> Path:
    """Run (or go on with) the phases; returns the last checkpoint."""
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    last = options.out / "last.pt"
    device = torch.device(options.device)
    model = Tiny(TinyConfig()).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = Tiny(TinyConfig()).to(device)
    average.load_state_dict(model.state_dict())
    if options.frozen_encoder:
        for part in (model.encoder, model.edges):
            part.requires_grad_(False)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-3, weight_decay=0.02)
    done = 0
    if last.exists():
        state = torch.load(last, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done = int(state["step"])
    elif options.start_from:
        state = torch.load(options.start_from, map_location=device, weights_only=True)
        for network in (model, average):
            missing, unexpected = network.load_state_dict(state["average"], strict=False)
            print(f"starting anew: {missing}; left out: {unexpected}", flush=True)
    (options.out / "recipe.json").write_text(json.dumps(asdict(options), default=str, indent=1))
    pool = Pool(options.pool, options.focus, options.focus_share)
    real = RealImages(options.real) if options.real else None
    start, total = 0, sum(p.steps for p in options.phases)
    for phase in options.phases:
        end = start + phase.steps
        if done < end:
            draw = batch_source(
                pool, real, options.real_share, phase.size, phase.batch, phase.targets
            )
            feeder = Feeder(draw, pool, options.seed, max(done, start), end)
            feeder.start()
            _phase(options, phase, start, max(done, start), model, average, optimiser, feeder)
            done = end
            save(last, model, average, optimiser, done)
        start = end
    print(f"finished {total} steps", flush=True)
    return last


def slim(checkpoints: Path | Sequence[Path], out: Path) -> None:
    """Keep what is needed to export or to train on: averaged weights, matrices as float16.

    Of several checkpoints of one network the mean of their averaged weights is kept.  Raises
    `ValueError` if their configurations differ.
    """
    paths = [checkpoints] if isinstance(checkpoints, Path) else list(checkpoints)
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
    config = states[0]["config"]
    for path, state in zip(paths, states, strict=True):
        if state["config"] != config:
            raise ValueError(f"{path} is another network than {paths[0]}: only like ones average")
    small = {}
    for key, first in states[0]["average"].items():
        mean = torch.stack([state["average"][key].double() for state in states]).mean(0)
        small[key] = mean.half() if first.ndim > 1 else mean.to(first.dtype)
    step = max(state["step"] for state in states)
    part = out.with_suffix(".part")
    torch.save({"config": config, "average": small, "step": step}, part)
    part.replace(out)


def learning_rate(phase: Phase, step: int) -> float:
    """Linear warm-up over 3 % (at least 100 steps), then cosine from lr to lr_end."""
    warm = max(100, phase.steps * 3 // 100)
    if step < warm:
        return phase.lr * (step + 1) / warm
    t = (step - warm) / max(1, phase.steps - warm)
    return phase.lr_end + (phase.lr - phase.lr_end) * 0.5 * (1 + math.cos(math.pi * t))


def _phase(
    options: TrainOptions, phase: Phase, start: int, done: int, model: Tiny, average: Tiny,
    optimiser: torch.optim.Optimizer, feeder: Feeder,
) -> None:  # fmt: skip
    device = next(model.parameters()).device
    seen: dict[str, list[float]] = defaultdict(list)
    clock = time.monotonic()
    for step in range(done, start + phase.steps):
        items, drafts = feeder.take()
        rng = np.random.default_rng([options.seed, 11, step])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(phase, step - start)
        images, masks, edges = stack(items)
        target_np = half_target(masks)
        target = torch.from_numpy(target_np).to(device)
        model.train()
        if options.frozen_encoder:
            model.encoder.eval()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            x = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
            with torch.set_grad_enabled(not options.frozen_encoder):
                features = model.encoder(x)
                borders = [h(f).float() for h, f in zip(model.edges, features[2:], strict=True)]
                aside = edge_loss(borders, torch.from_numpy(edges).to(device).float())
            maps = [m.repeat_interleave(phase.targets, 0) for m in features]
            n, half = len(drafts), phase.size // 2
            empty = torch.zeros(n, 1, half, half, device=device)
            low, iou = decode(model, maps, drafts, empty, torch.zeros(n, device=device))
            loss, report = total_loss(low, iou, target)
            reports = [report]
            for _ in range(1, options.rounds):
                mask_input, has = next_round(rng, drafts, low, iou, target_np, options.refine)
                low, iou = decode(model, maps, drafts, mask_input, has)
                part, report = total_loss(low, iou, target)
                loss = loss + part
                reports.append(report)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + EDGE_WEIGHT * aside)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        if torch.isfinite(norm):
            optimiser.step()
        decay = min(options.ema, (1 + step) / (20 + step))
        with torch.no_grad():
            a: list[Tensor] = list(average.parameters())
            b: list[Tensor] = list(model.parameters())
            torch._foreach_lerp_(a, b, 1 - decay)
            for p, q in zip(average.buffers(), model.buffers(), strict=True):
                if p.dtype.is_floating_point:
                    p.lerp_(q, 1 - decay)
        seen["loss"].append(float(loss.detach()))
        for k, v in reports[0].items():
            seen[k].append(v)
        seen["edges"].append(float(aside.detach()))
        for turn, report in enumerate(reports[1:], 2):
            seen[f"single {turn}"].append(report["single"])
            seen[f"chosen {turn}"].append(report["chosen"])
        if (step + 1) % options.log_every == 0:
            rate = (time.monotonic() - clock) / options.log_every
            clock = time.monotonic()
            text = " ".join(f"{k} {sum(v) / len(v):.3f}" for k, v in seen.items())
            lr = optimiser.param_groups[0]["lr"]
            print(f"step {step + 1} {rate:.2f} s/step lr {lr:.1e} {text}", flush=True)
            seen.clear()
        if (step + 1) % options.save_every == 0:
            save(options.out / "last.pt", model, average, optimiser, step + 1)


def save(
    path: Path, model: Tiny, average: Tiny, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write a checkpoint beside its place, then rename."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "config": model.cfg.as_dict(),
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
        },
        part,
    )
    part.replace(path)
